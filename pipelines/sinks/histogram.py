"""A histogram as an output: how many documents of each source have each value of a whole-numbered column.

It is small whatever the number of documents, and histograms of splits add up: what a later stage reads off them (the
score that a share of a source's documents reaches) does not depend on how the documents were split or grouped.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.commit import FileRecord
from pipelines.sinks.sink import HashingFile, Pending, Place


@dataclasses.dataclass(frozen=True, slots=True)
class HistogramOutput:
    """The table of a histogram, one file for each split. `counted` is its schema: source, the column, documents."""

    table: str
    counted: pa.Schema
    size: int
    """Values lie between 0 and `size` - 1; a document without a value is not counted."""

    @property
    def column(self) -> str:
        """The column whose values are counted."""
        return str(self.counted.names[1])

    @property
    def schema(self) -> pa.Schema:
        """What is taken from the documents."""
        return pa.schema([self.counted.field(0), self.counted.field(1).with_nullable(True)])

    def open(self, place: Place) -> HistogramSink:
        """Begin the file of one attempt."""
        return HistogramSink(self, place)


class HistogramSink:
    """Counts in memory (8 bytes for each possible value and source), and writes one file at the end."""

    def __init__(self, output: HistogramOutput, place: Place) -> None:
        """Open the attempt's file; see `HistogramOutput.open`."""
        self._output, self._place = output, place
        self._file = HashingFile(place.storage.create(place.attempt, f"{output.table}.parquet"))
        self._counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(output.size, np.int64))

    def write(self, batch: pa.RecordBatch) -> None:
        """Count the values of every source."""
        sources = batch.column("source").dictionary_encode()
        codes, values = sources.indices.to_numpy(), batch.column(self._output.column)
        known = pc.is_valid(values).to_numpy(zero_copy_only=False)
        numbers = pc.fill_null(values, 0).to_numpy()
        for code, source in enumerate(sources.dictionary.to_pylist()):
            chosen = numbers[known & (codes == code)]
            if len(chosen):
                self._counts[source] += np.bincount(chosen, minlength=self._output.size)

    def close(self) -> list[Pending]:
        """Write a row for each source and value that was met, in order."""
        table, by_source = self._output.table, {}
        columns: tuple[list[str], list[np.ndarray], list[np.ndarray]] = ([], [], [])
        for source, counts in sorted(self._counts.items()):
            values = np.flatnonzero(counts)
            by_source[source] = [len(values), 0]
            columns[0].extend([source] * len(values))
            columns[1].append(values)
            columns[2].append(counts[values])
        schema = self._output.counted
        nothing = [np.zeros(0, np.int64)]
        arrays = [pa.array(columns[0], schema.types[0])]
        arrays += [
            pa.array(np.concatenate([*nothing, *column]), field_type)
            for column, field_type in zip(columns[1:], schema.types[1:], strict=True)
        ]
        rows = pa.Table.from_arrays(arrays, schema=schema)
        pq.write_table(rows, self._file, compression="zstd", compression_level=3)
        self._file.close()
        path = f"{self._place.folder}/{table}/{self._place.split_id[:16]}-{self._file.sha256[:16]}.parquet"
        record = FileRecord(
            table, path, self._file.size, self._file.sha256, rows.num_rows, detail={"sources": by_source}
        )
        return [Pending(f"{table}.parquet", record)]

    def abort(self) -> None:
        """Close the file of a failed attempt."""
        with suppress(OSError):
            self._file.close()
