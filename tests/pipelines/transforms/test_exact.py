from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from rows import batch_of, document

from pipelines.schema import DOC_ID
from pipelines.transforms.exact import (
    DUPLICATES,
    HASHES,
    ExactDuplicate,
    FindDuplicates,
    SameKey,
    TextHash,
    first_of_key,
)


def cut(batch: pa.RecordBatch, places: list[int]) -> list[pa.RecordBatch]:
    """Cut a batch at these places; empty pieces are left out."""
    edges = [0, *sorted(places), batch.num_rows]
    pieces = [batch.slice(start, stop - start) for start, stop in zip(edges, edges[1:], strict=False)]
    return [piece for piece in pieces if piece.num_rows]


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


@given(st.lists(st.integers(0, 5), max_size=30), st.lists(st.integers(0, 30), max_size=4))
def test_all_but_the_first_of_a_text_are_found_whatever_the_batches(texts, places):
    texts = sorted(texts)
    rows = [{"doc_id": key(place), "text_hash": key(text), "priority": 0} for place, text in enumerate(texts)]
    batch = pa.RecordBatch.from_pylist(rows, schema=HASHES)
    pieces = cut(batch, [place for place in places if place <= len(texts)])
    found = [row for tables in FindDuplicates()(iter(pieces)) for row in tables["duplicates"].to_pylist()]
    expected = [
        {"doc_id": key(place), "kept_doc_id": key(texts.index(text))}
        for place, text in enumerate(texts)
        if texts.index(text) != place
    ]
    assert found == expected


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.lists(st.integers(0, 12), max_size=3))
def test_one_document_a_key_stays_whatever_the_batches(keys, places):
    batch = batch_of(document(natural_key=str(number)) for number in sorted(keys))
    pieces = cut(batch, [place for place in places if place <= len(keys)])
    rows = [row for tables in SameKey()(iter(pieces)) for row in tables["documents"].to_pylist()]
    assert [row["natural_key"] for row in rows if row["verdict"] is None] == [
        str(number) for number in sorted(set(keys))
    ]
    assert {row["verdict"]["reason"] for row in rows if row["verdict"]} <= {"same_key"}


def test_first_of_key_reads_a_slice_of_an_array():
    keys = pa.array([key(9), key(1), key(1), key(2)], DOC_ID).slice(1)
    assert first_of_key(keys, None).tolist() == [True, False, True]
    assert first_of_key(keys, key(1)).tolist() == [False, False, True]
    assert first_of_key(keys.slice(0, 0), key(1)).tolist() == []


def test_scope_source_keeps_one_copy_in_each_source():
    batch = batch_of([document("same", source="a"), document("same", source="b")])
    everywhere, within = (TextHash(0, scope)(batch).column("text_hash").to_pylist() for scope in ("all", "source"))
    assert everywhere[0] == everywhere[1]
    assert within[0] != within[1]


def test_the_verdict_names_the_document_that_stays():
    batch = TextHash(0)(batch_of([document("one"), document("two")]))
    gone, stays = batch.column("doc_id").to_pylist()
    side = pa.table({"doc_id": pa.array([gone], DOC_ID), "kept_doc_id": pa.array([stays], DOC_ID)}, schema=DUPLICATES)
    step = ExactDuplicate().bind({"duplicates": side})
    result = step(batch)
    assert "text_hash" not in result.schema.names
    verdicts = result.column("verdict").to_pylist()
    assert verdicts[0]["value"] == f"same text as {stays.hex()}"
    assert verdicts[1] is None
    assert [row[0].passed for row in step.evidence(batch)] == [False, True]
    assert np.array_equal(step(batch.slice(0, 0)).column("verdict").to_pylist(), [])
