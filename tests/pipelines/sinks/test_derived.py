from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.sinks.derived import DerivedOutput
from pipelines.sinks.sink import Place
from pipelines.sinks.tables import TableOutput, read_table
from pipelines.storage.local import LocalStorage

ROWS = pa.schema([("key", pa.int64()), ("doc_id", pa.string()), ("size", pa.int8())])
ITEMS = pa.field("items", pa.list_(pa.struct([("size", pa.int8()), ("key", pa.int64())])))
TAKEN = pa.schema([pa.field("doc_id", pa.string()), ITEMS])


def exploded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return one row an item."""
    items, parents = pc.list_flatten(batch.column("items")), pc.list_parent_indices(batch.column("items"))
    columns = [items.field(1), batch.column("doc_id").take(parents), items.field(0)]
    return pa.RecordBatch.from_arrays(columns, schema=ROWS)


def written(folder, output, batches: list[pa.RecordBatch]) -> tuple[pa.Table, str]:
    """Return the table that an output makes of batches, and the hash of its file."""
    storage = LocalStorage(folder)
    place = Place(storage, storage.new_attempt(), "stages/x", "f" * 32)
    sink = output.open(place)
    for batch in batches:
        sink.write(batch)
    (pending,) = sink.close()
    storage.publish(place.attempt, pending.name, pending.record.path)
    return read_table(storage, pending.record.path), pending.record.sha256


def test_one_row_an_item_whatever_the_batches(tmp_path):
    output = DerivedOutput("items", TAKEN, ROWS, exploded)
    documents = pa.RecordBatch.from_pylist(
        [
            {"doc_id": "a", "items": [{"size": 1, "key": 10}, {"size": 2, "key": 20}]},
            {"doc_id": "b", "items": []},
            {"doc_id": "c", "items": None},
            {"doc_id": "d", "items": [{"size": 3, "key": 30}]},
        ],
        schema=output.schema,
    )
    rows = [
        {"key": 10, "doc_id": "a", "size": 1},
        {"key": 20, "doc_id": "a", "size": 2},
        {"key": 30, "doc_id": "d", "size": 3},
    ]
    whole, sha256 = written(tmp_path / "whole", output, [documents])
    assert whole.to_pylist() == rows
    assert whole.schema == ROWS
    pieces, again = written(
        tmp_path / "pieces", output, [documents.slice(0, 1), documents.slice(1, 2), documents.slice(3)]
    )
    assert pieces.equals(whole)
    plain, same = written(
        tmp_path / "plain", TableOutput("items", ROWS), [pa.RecordBatch.from_pylist(rows, schema=ROWS)]
    )
    assert plain.equals(whole)
    assert sha256 == again == same


def test_no_items_are_an_empty_table(tmp_path):
    output = DerivedOutput("items", TAKEN, ROWS, exploded)
    none = pa.RecordBatch.from_pylist([{"doc_id": "a", "items": None}], schema=output.schema)
    table, _ = written(tmp_path, output, [none])
    assert table.num_rows == 0
    assert table.schema == ROWS
