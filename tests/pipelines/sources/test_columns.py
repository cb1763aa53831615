"""Columns: texts of every type, columns that are no text, and dictionaries that repeat large values."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources.source import BatchLimits, RawAccount
from pipelines.sources.tables import Table
from pipelines.storage.local import LocalStorage

BYTES = [b"one", b"\xffx", None, "zwölf".encode()]


def reason(row: dict) -> str | None:
    return row["verdict"]["reason"] if row["verdict"] else None


@pytest.mark.parametrize(
    "column",
    [
        pa.array(BYTES, pa.binary()),
        pa.array(BYTES, pa.large_binary()),
        pa.array(BYTES, pa.binary()).dictionary_encode(),
        pa.Array.from_buffers(pa.string(), 4, pa.array(BYTES, pa.binary()).buffers()),
        pa.Array.from_buffers(pa.large_string(), 4, pa.array(BYTES, pa.large_binary()).buffers()),
        pa.array(BYTES, pa.binary_view()),
    ],
    ids=lambda column: str(column.type),
)
def test_texts_of_any_type_are_checked_to_be_utf8(read_all, tmp_path, column):
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    rows, _ = read_all(Table("s", ("*",)), tmp_path)
    assert [row["text"] for row in rows] == ["one", None, None, "zwölf"]
    assert [reason(row) for row in rows] == [None, "not_utf8", "no_text", None]
    assert rows[1]["verdict"]["value"] == "byte 0"


@pytest.mark.parametrize("column", [pa.array([1, 2]), pa.nulls(2), pa.array([["a"], []]), pa.array([True, None])])
def test_columns_that_are_no_text_are_errored_rows(read_all, tmp_path, column):
    pq.write_table(pa.table({"text": column, "id": column}), tmp_path / "a.parquet")
    rows, _ = read_all(Table("s", ("*",), id="id", date="id", url="id"), tmp_path)
    assert [reason(row) for row in rows] == ["no_text", "no_text"]


def test_a_value_repeated_by_a_dictionary_is_not_held_repeatedly(tmp_path):
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000, pa.int32()), pa.array(["x" * (4 << 20)]))
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet", dictionary_pagesize_limit=64 << 20)
    assert (tmp_path / "a.parquet").stat().st_size < 300_000
    source, storage = Table("s", ("*",), max_record_bytes=1 << 20), LocalStorage(tmp_path)
    [split] = source.splits(storage)
    batches = list(source.read(split, storage, BatchLimits(), RawAccount()))
    assert sum(batch.num_rows for batch in batches) == 2_000
    assert sum(batch.nbytes for batch in batches) < 1 << 20
    sizes = [
        batch.column("text").nbytes
        for batch in dataclasses.replace(source, limit=30).read(
            split, storage, BatchLimits(max_bytes=10 << 20), RawAccount()
        )
    ]
    assert max(sizes) < 1 << 20
