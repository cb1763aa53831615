from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
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
    UrlDuplicate,
    UrlHash,
    first_of_key,
)


def cut(batch: pa.RecordBatch, places: list[int]) -> list[pa.RecordBatch]:
    """Cut a batch at these places; empty pieces are left out."""
    edges = [0, *sorted(places), batch.num_rows]
    pieces = [batch.slice(start, stop - start) for start, stop in zip(edges, edges[1:], strict=False)]
    return [piece for piece in pieces if piece.num_rows]


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


@settings(deadline=None)  # the first call loads much
@given(st.lists(st.integers(0, 5), max_size=30), st.lists(st.integers(0, 30), max_size=4))
def test_all_but_the_first_of_a_text_are_found_whatever_the_batches(texts, places):
    texts = sorted(texts)
    rows = [
        {"doc_id": key(place), "text_hash": key(text), "rank": key(0), "place": place}
        for place, text in enumerate(texts)
    ]
    batch = pa.RecordBatch.from_pylist(rows, schema=HASHES)
    pieces = cut(batch, [place for place in places if place <= len(texts)])
    found = [
        row
        for tables in FindDuplicates("text_hash", "because")(iter(pieces))
        for row in tables["duplicates"].to_pylist()
    ]
    expected = [
        {"doc_id": key(place), "kept_doc_id": key(texts.index(text)), "reason": "because", "place": place}
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
    everywhere, within = (TextHash(scope)(batch).column("text_hash").to_pylist() for scope in ("all", "source"))
    assert everywhere[0] == everywhere[1]
    assert within[0] != within[1]


def test_the_verdict_names_the_document_that_stays():
    batch = batch_of([document("one"), document("two")])
    gone, stays = batch.column("doc_id").to_pylist()
    other = {"doc_id": stays, "kept_doc_id": gone, "reason": "duplicate_url", "place": 0}
    side = pa.Table.from_pylist(
        [{"doc_id": gone, "kept_doc_id": stays, "reason": "exact_duplicate", "place": 0}, other], DUPLICATES
    )
    step = ExactDuplicate().bind({"duplicates": side})
    result = step(batch)
    verdicts = result.column("verdict").to_pylist()
    assert verdicts[0]["value"] == f"same text as {stays.hex()}"
    assert verdicts[1] is None
    assert [row[0].passed for row in step.evidence(batch)] == [False, True]
    by_url = UrlDuplicate().bind({"duplicates": side})(batch).column("verdict").to_pylist()
    assert by_url[0] is None
    assert (by_url[1]["reason"], by_url[1]["value"]) == ("duplicate_url", f"same URL as {gone.hex()}")
    assert np.array_equal(step(batch.slice(0, 0)).column("verdict").to_pylist(), [])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=25))
def test_what_stays_is_handed_on_and_what_older_runs_kept_is_no_duplicate(rows):
    """By the text, then by the URL among what stays: no document goes for one that goes itself."""
    documents = [
        {
            "doc_id": key(place),
            "text_hash": key(text),
            "url_hash": key(url),
            "rank": (b"\x00\x00" if older else b"\x00\x01") + bytes(14),
            "place": 0,
        }
        for place, (text, url, older) in enumerate(rows)
    ]

    def reduced(step, given, name):
        order = sorted(given, key=lambda row: (row[step.key], row["rank"], row["doc_id"]))
        batch = pa.RecordBatch.from_pylist(order, schema=HASHES)
        return [row for tables in step(iter([batch] if order else [])) for row in tables[name].to_pylist()]

    by_text = FindDuplicates("text_hash", "text", generation=1, hands_on=True)
    older = [row for row in documents if row["rank"][1] == 0]
    gone = reduced(by_text, documents, "duplicates")
    stay = reduced(by_text, documents, "hashes")
    later = reduced(FindDuplicates("url_hash", "url", generation=1), [*stay, *older], "duplicates")
    removed = {row["doc_id"] for row in (*gone, *later)}
    assert {row["doc_id"] for row in older} & removed == set()
    assert {row["doc_id"] for row in stay} == {row["doc_id"] for row in documents if row["rank"][1]} - {
        row["doc_id"] for row in gone
    }
    assert all(row["kept_doc_id"] not in {one["doc_id"] for one in gone} for row in (*gone, *later))
    kept = {row["doc_id"] for row in documents} - removed
    assert all(row["kept_doc_id"] in kept for row in later)


def test_urls_are_the_same_but_for_their_fragments_and_none_is_like_no_other():
    urls = ["https://a.b/c", "https://a.b/c#d", "https://a.b/c?d", None, None]
    batch = batch_of(document(str(place), url=url) for place, url in enumerate(urls))
    hashes = UrlHash()(batch).column("url_hash").to_pylist()
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4
