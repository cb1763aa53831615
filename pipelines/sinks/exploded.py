"""The items of a list column as a table of their own: one row an item, beside columns of the document."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.sinks.sink import Place
from pipelines.sinks.tables import TableSink


@dataclasses.dataclass(frozen=True, slots=True)
class ExplodedOutput:
    """A table, one file for each split, whose rows are the items of a list of structs that documents carry."""

    table: str
    rows: pa.Schema
    """Of the table: columns named like a field of the items come from them, all others from the document."""
    column: pa.Field
    """The list column. A document whose list is null has no rows."""

    @property
    def schema(self) -> pa.Schema:
        """What is taken from the documents."""
        items = {field.name for field in self.column.type.value_type}
        return pa.schema([*(field for field in self.rows if field.name not in items), self.column])

    def open(self, place: Place) -> ExplodedSink:
        """Begin the file of one attempt."""
        return ExplodedSink(self.table, self.rows, place)


class ExplodedSink(TableSink):
    """Writes the items in the order of documents and lists."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Take documents."""
        lists = batch.column(batch.num_columns - 1)
        items, parents = pc.list_flatten(lists), pc.list_parent_indices(lists)
        columns = {field.name: items.field(place) for place, field in enumerate(items.type)}
        for name in batch.schema.names[:-1]:
            columns[name] = batch.column(name).take(parents)
        super().write(pa.RecordBatch.from_arrays([columns[name] for name in self._schema.names], schema=self._schema))
