from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import batch_of, document

from pipelines.schema import CORE
from pipelines.sinks import tables
from pipelines.sinks.sink import Place
from pipelines.sinks.tables import TableOutput
from pipelines.storage.local import LocalStorage


def write(folder, batches: list[pa.RecordBatch]) -> tuple[bytes, list[int]]:
    """Write batches and return the file's bytes and the rows of its row groups."""
    storage = LocalStorage(folder)
    place = Place(storage, storage.new_attempt(), "stages/x", "a" * 32)
    sink = TableOutput("documents", CORE).open(place)
    for batch in batches:
        sink.write(batch)
    (pending,) = sink.close()
    path = folder / ".attempts" / place.attempt / pending.name
    metadata = pq.read_metadata(path)
    return path.read_bytes(), [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


@given(st.lists(st.integers(0, 40), max_size=40), st.lists(st.integers(0, 40), max_size=6))
@settings(max_examples=40, deadline=None)
def test_groups_follow_the_rows_and_not_the_batches(tmp_path_factory, sizes, places):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tables, "ROW_GROUP", 7)
        patched.setattr(tables, "ROW_GROUP_BYTES", 100)
        batch = batch_of(document("x" * size, natural_key=str(number)) for number, size in enumerate(sizes))
        edges = [0, *sorted(place for place in places if place <= len(sizes)), len(sizes)]
        pieces = [batch.slice(start, stop - start) for start, stop in zip(edges, edges[1:], strict=False)]
        folder = tmp_path_factory.mktemp("tables")
        content, groups = write(folder, pieces)
        assert content == write(folder, [batch])[0]
    expected, rows, held = [], 0, 0  # by hand: 7 rows, or earlier after the row that reaches 100 bytes
    for size in sizes:
        rows, held = rows + 1, held + size
        if rows == 7 or held >= 100:
            expected.append(rows)
            rows = held = 0
    assert groups == expected + ([rows] if rows else [])


def test_long_documents_do_not_pile_up_in_a_row_group(tmp_path):
    rows = [batch_of([document("word " * 4_000_000, natural_key=str(number))]) for number in range(8)]
    assert write(tmp_path, rows)[1] == [4, 4]  # 20 MB each: the fourth passes 64 MiB
