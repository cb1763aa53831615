"""A table whose rows are made of columns of documents: any number of rows for each, counted as they are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pyarrow as pa

from pipelines.sinks.sink import Pending, Place
from pipelines.sinks.tables import TableOutput, TableSink


@dataclasses.dataclass(frozen=True, slots=True)
class DerivedOutput:
    """A table of schema `rows`, made by `derive` (a function of a module, so that it can be pickled)."""

    table: str
    schema: pa.Schema
    """What is taken from the documents."""
    rows: pa.Schema
    derive: Callable[[pa.RecordBatch], pa.RecordBatch]
    """Makes the rows of a batch; rows of one document lie together, in the order of documents."""

    def open(self, place: Place) -> DerivedSink:
        """Begin the file of one attempt."""
        return DerivedSink(self.derive, TableOutput(self.table, self.rows).open(place))


@dataclasses.dataclass(frozen=True, slots=True)
class DerivedSink:
    """Hands what is derived on to the sink of the table."""

    derive: Callable[[pa.RecordBatch], pa.RecordBatch]
    sink: TableSink

    def write(self, batch: pa.RecordBatch) -> None:
        """Derive and write."""
        rows = self.derive(batch)
        if rows.num_rows:
            self.sink.write(rows)

    def close(self) -> list[Pending]:
        """Finish the file."""
        return self.sink.close()

    def abort(self) -> None:
        """Close the file of a failed attempt."""
        self.sink.abort()
