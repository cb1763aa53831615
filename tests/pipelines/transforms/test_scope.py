from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from rows import batch_of, document

from pipelines.transforms.scope import scope_hashes


def test_all_documents_are_one_scope():
    assert scope_hashes(batch_of([document(source="a"), document(source="b")]), "all").tolist() == [0, 0]


@pytest.mark.parametrize("scope", ["source", "language", "dump"])
def test_a_scope_is_the_hash_of_its_value(scope):
    rows = [{scope: value} for value in ("b", "a", "b", "")]
    found = scope_hashes(pa.RecordBatch.from_pylist(rows), scope)
    assert found.dtype == np.uint64
    assert found.tolist() == [xxhash.xxh3_64_intdigest(value) for value in ("b", "a", "b", "")]


def test_rows_without_a_value_are_a_scope_of_their_own():
    column = pa.array([None, "en", None, ""], pa.string())
    batch = pa.RecordBatch.from_arrays([column], ["language"])
    first, english, second, empty = scope_hashes(batch, "language").tolist()
    assert first == second
    assert len({first, english, empty, 0}) == 4
    assert scope_hashes(batch.slice(2), "language").tolist() == [second, empty]
    assert scope_hashes(batch, "dump").tolist() == [first] * 4


def test_no_rows_have_no_scopes():
    for scope in ("all", "source", "language", "dump"):
        assert scope_hashes(batch_of([document()]).slice(1), scope).tolist() == []
