from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from rows import batch_of, document

from pipelines.transforms.scope import scope_hashes


def test_all_documents_are_one_scope():
    assert scope_hashes(batch_of([document(source="a"), document(source="b")]), "all").tolist() == [0, 0]


@pytest.mark.parametrize("scope", ["source", "language"])
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


def test_no_rows_have_no_scopes():
    for scope in ("all", "source", "language", "dump"):
        assert scope_hashes(batch_of([document()]).slice(1), scope).tolist() == []


def test_the_dump_is_told_by_the_path():
    paths = [
        "crawl-data/CC-MAIN-2024-10/segments/1707/warc/CC-MAIN-20240220211055-00000.warc.gz",
        "crawl-data/CC-MAIN-2024-18/segments/1712/warc/CC-MAIN-20240412101354-00000.warc.gz",
        "crawl-data/CC-MAIN-2024-10/segments/1708/warc/CC-MAIN-20240220211055-00899.warc.gz",
        "crawl-001/CC-MAIN-2009-2010/1.arc.gz",
        "a.warc.gz",
    ]
    batch = batch_of(document(str(place), origin_path=path) for place, path in enumerate(paths))
    found = scope_hashes(batch, "dump").tolist()
    names = ["CC-MAIN-2024-10", "CC-MAIN-2024-18", "CC-MAIN-2024-10", "CC-MAIN-2009-2010"]
    assert found[:4] == [xxhash.xxh3_64_intdigest(name) for name in names]
    assert found[4] not in found[:4]
