"""Histograms: counts by source and value, however rows arrive."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sinks.histogram import HistogramOutput
from pipelines.sinks.sink import Pending, Place
from pipelines.storage.local import LocalStorage
from pipelines.transforms.quality import SCORES

OUTPUT = HistogramOutput("quality_scores", SCORES, 11)


def write(folder, batches: list[pa.RecordBatch]) -> tuple[Pending, bytes, list[tuple]]:
    storage = LocalStorage(folder)
    place = Place(storage, storage.new_attempt(), "stages/x", "a" * 32)
    sink = OUTPUT.open(place)
    for batch in batches:
        sink.write(batch)
    (pending,) = sink.close()
    path = folder / ".attempts" / place.attempt / pending.name
    table = pq.read_table(path)
    assert table.schema == SCORES
    return pending, path.read_bytes(), [tuple(row.values()) for row in table.to_pylist()]


def batch_of(rows: list[tuple[str, int | None]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [[], []]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, OUTPUT.schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=OUTPUT.schema)


def test_by_hand(tmp_path):
    rows = [("web", 3), ("code", None), ("books", 10), ("web", 0), ("web", 3), ("web", None)]
    pending, _, written = write(tmp_path, [batch_of(rows)])
    assert written == [("books", 10, 1), ("web", 0, 1), ("web", 3, 2)]
    assert pending.record.table == "quality_scores"
    assert pending.record.rows == 3
    assert pending.record.detail == {"sources": {"books": [1, 0], "web": [2, 0]}}


def test_nothing_is_a_table_too(tmp_path):
    pending, _, written = write(tmp_path, [])
    assert (written, pending.record.rows, pending.record.detail) == ([], 0, {"sources": {}})


rows = st.lists(st.tuples(st.sampled_from(["web", "code", "é"]), st.none() | st.integers(0, 10)), max_size=40)


@given(rows, st.lists(st.integers(0, 40), max_size=4))
@settings(max_examples=40, deadline=None)
def test_the_bytes_follow_the_counts_and_not_the_batches(tmp_path_factory, some, places):
    edges = [0, *sorted(place for place in places if place <= len(some)), len(some)]
    whole = batch_of(some)
    pieces = [whole.slice(start, stop - start) for start, stop in zip(edges, edges[1:], strict=False)]
    _, content, written = write(tmp_path_factory.mktemp("histogram"), pieces)
    counts = Counter(row for row in some if row[1] is not None)
    assert written == [(*key, count) for key, count in sorted(counts.items())]
    assert content == write(tmp_path_factory.mktemp("histogram"), [batch_of(some[::-1])])[1]
