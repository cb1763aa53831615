"""Parquet tables: documents, rejects, and the small tables of a stage. The same rows give the same bytes.

However rows arrive, row groups are cut by the rows alone (`ROW_GROUP`, `ROW_GROUP_BYTES`) and columns are combined
before the write (Parquet pages follow
the chunks of a column, so other batches would give other bytes). Files are named by split and content.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.commit import FileRecord
from pipelines.sinks.sink import HashingFile, Pending, Place
from pipelines.storage.storage import ReadStorage

ROW_GROUP = 1000
"""Rows of a row group: documents of some kB make groups of some MB, large enough to read at speed."""

NARROW_ROW_GROUP = 1 << 15
"""Rows of a row group of a table without texts: keys, edges and the like, of some tens of bytes each."""

DISTINCT = ("natural_key", "url")
"""Columns of short words of which hardly two rows have the same."""

ROW_GROUP_BYTES = 64 << 20
"""A group, which is held whole, ends early after the row that brings its texts, payloads and sets to this many."""


@dataclasses.dataclass(frozen=True, slots=True)
class TableOutput:
    """A table of a declared schema, one file for each split or bucket."""

    table: str
    schema: pa.Schema

    def open(self, place: Place) -> TableSink:
        """Begin the file of one attempt."""
        return TableSink(self.table, self.schema, place)


class TableSink:
    """Writes one Parquet file in row groups of fixed size, counting rows and text bytes by source."""

    def __init__(self, table: str, schema: pa.Schema, place: Place) -> None:
        """Open the attempt's file; see `TableOutput.open`."""
        self._table, self._schema, self._place = table, schema, place
        self._file = HashingFile(place.storage.create(place.attempt, f"{table}.parquet"))
        self._writer = pq.ParquetWriter(
            self._file, schema, compression="zstd", compression_level=3, use_dictionary=_repeated(schema)
        )
        self._row_group = ROW_GROUP if "text" in schema.names else NARROW_ROW_GROUP
        self._held: list[pa.RecordBatch] = []
        self._num_held = self._held_bytes = 0
        self._rows = 0
        self._by_source: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows; writes every full row group."""
        sizes = _payload_bytes(batch)
        start = 0
        while start < batch.num_rows:
            reached = self._held_bytes + np.cumsum(sizes[start : start + self._row_group - self._num_held])
            stop = start + min(int(np.searchsorted(reached, ROW_GROUP_BYTES)) + 1, len(reached))
            self._held.append(batch.slice(start, stop - start))
            self._num_held += stop - start
            self._held_bytes = int(reached[stop - start - 1])
            if self._num_held == self._row_group or self._held_bytes >= ROW_GROUP_BYTES:
                self._write_held()
            start = stop

    def close(self) -> list[Pending]:
        """Write the last, shorter row group and say where the file belongs."""
        if self._num_held:
            self._write_held()
        self._writer.close()
        self._file.close()
        path = f"{self._place.folder}/{self._table}/{self._place.split_id[:16]}-{self._file.sha256[:16]}.parquet"
        detail = {"sources": dict(sorted(self._by_source.items()))}
        record = FileRecord(self._table, path, self._file.size, self._file.sha256, self._rows, detail=detail)
        return [Pending(f"{self._table}.parquet", record)]

    def abort(self) -> None:
        """Close the file of a failed attempt."""
        with suppress(OSError, pa.ArrowException):
            self._writer.close()
        self._writer.is_open = False  # or its destructor tries again
        with suppress(OSError):
            self._file.close()

    def _write_held(self) -> None:
        self._write_group(pa.Table.from_batches(self._held, self._schema))
        self._held, self._num_held, self._held_bytes = [], 0, 0

    def _write_group(self, rows: pa.Table) -> None:
        group = rows.combine_chunks()
        self._rows += group.num_rows
        for batch in group.to_batches():
            for source, num_rows, num_bytes in count_by_source(batch):
                sums = self._by_source[source]
                sums[0] += num_rows
                sums[1] += num_bytes
        self._writer.write_table(group, row_group_size=self._row_group)


def _repeated(schema: pa.Schema) -> list[str]:
    """Return the columns whose values repeat: a dictionary of others is made in vain, which is dear for texts."""
    plain = [field.name for field in schema if pa.types.is_string(field.type) and field.name not in DISTINCT]
    nested = ["verdict.outcome", "verdict.reason", "verdict.threshold"] if "verdict" in schema.names else []
    return plain + nested


def read_table(storage: ReadStorage, path: str, columns: list[str] | None = None) -> pa.Table:
    """Return a table's file whole, or some of its columns.

    Without Arrow's own threads: one that still calls back into a Python file when the interpreter ends aborts it.
    """
    with storage.open(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        return parquet.read(columns=columns, use_threads=False)


def read_batches(file: pq.ParquetFile, max_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table's open file in batches that end with its row groups: those alone are cut by bytes."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(max_rows, [group], use_threads=False)


def count_by_source(rows: pa.RecordBatch) -> list[tuple[str, int, int]]:
    """Return (source, rows, text bytes) for every source among these rows, ordered by source.

    A table without the column `source` counts as source "", one without `text` as 0 bytes.
    """
    if rows.num_rows == 0:
        return []
    names = rows.schema.names
    sizes = text_bytes(rows).to_numpy() if "text" in names else np.zeros(rows.num_rows, np.int64)
    if "source" not in names:
        return [("", rows.num_rows, int(sizes.sum()))]
    sources = rows.column("source").dictionary_encode()  # a batch has few: Arrow's group_by costs ten times as much
    codes, counts = sources.indices.to_numpy(), []
    for code, source in enumerate(sources.dictionary.to_pylist()):
        chosen = codes == code
        counts.append((source, int(chosen.sum()), int(sizes[chosen].sum())))
    return sorted(counts)


def _payload_bytes(rows: pa.RecordBatch) -> np.ndarray:
    """Return the bytes of every row's text, raw payload and set of shingles (int64), 0 where there is none of them."""
    sizes = np.zeros(rows.num_rows, np.int64)
    for name in ("text", "content"):
        if name in rows.schema.names:
            sizes += pc.fill_null(pc.binary_length(rows.column(name)), 0).to_numpy()
    if "shingles" in rows.schema.names:
        sizes += 8 * pc.fill_null(pc.list_value_length(rows.column("shingles")), 0).to_numpy()
    return sizes


def text_bytes(rows: pa.RecordBatch) -> pa.Array:
    """Return the UTF-8 length of every row's text (int64, 0 where there is none)."""
    return pc.fill_null(pc.binary_length(rows.column("text")), 0).cast(pa.int64())
