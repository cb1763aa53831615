"""The two kinds of stage, and nothing else: `map` (every split on its own) and `group` (rows brought together by key).

A stage is plain data: an engine can pickle it, and what it makes depends on it and on its input alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Protocol

import pyarrow as pa

from pipelines.schema import REJECTS
from pipelines.sinks.sink import Output
from pipelines.sources.source import Reader
from pipelines.storage.storage import ReadStorage, Storage
from pipelines.transform import EMPTY_SCHEMA, Transform


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """A source, where its files are, and the transforms that its documents go through."""

    source: Reader
    storage: ReadStorage
    transforms: tuple[Transform, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class TableOf:
    """A committed table: of an earlier stage of this run, or, with its output as `run`, read-only of an earlier run."""

    stage: str
    table: str
    run: Storage | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """A committed table that the transforms of a stage look things up in.

    `bucketed` tables are cut like the stage's splits, and a split reads its own bucket only; others are read whole.
    """

    given: TableOf
    schema: pa.Schema
    bucketed: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class MapStage:
    """Every split on its own: read, transform, write."""

    name: str
    chains: Mapping[str, Chain]
    """By the `source` of a split."""
    schema: pa.Schema
    """Of the documents after the last transform of any chain; columns that a chain lacks are null."""
    outputs: tuple[Output, ...]
    """Of kept documents: each takes the columns of its own schema from them."""
    side: tuple[Side, ...] = ()

    def __post_init__(self) -> None:
        """Refuse side tables that cannot be told apart."""
        names = [side.given.table for side in self.side]
        if len(set(names)) != len(names):
            raise ValueError(f"stage {self.name}: its side tables are {names}, allowed is one of each name")

    @property
    def folder(self) -> str:
        """Where the stage's tables and commits lie in the output."""
        return f"stages/{self.name}"

    @property
    def rejects(self) -> pa.Schema:
        """Of the documents that stop here: `REJECTS`, and the `value_columns` of the transforms of any chain."""
        fields = {field.name: field for field in REJECTS}
        for chain in self.chains.values():
            for transform in chain.transforms:
                left: pa.Schema = getattr(transform, "value_columns", EMPTY_SCHEMA)
                fields |= {field.name: field for field in left}
        return pa.schema(fields.values())


class Reduce(Protocol):
    """What a group stage does with the ordered rows of a bucket."""

    @property
    def name(self) -> str:
        """The ledger's word for the step."""
        ...

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Mapping[str, pa.RecordBatch]]:
        """Yield, for the stream of ordered batches (one key may span batches), rows by table.

        For a stage over documents: the same rows as table "documents", `verdict` set on those that stop here.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class GroupStage:
    """Rows of committed tables of one name and schema brought together by key, in a total order, bucket by bucket.

    bucket = the high bits of xxh3(key): of the key itself where it is a 16-byte hash already (doc_id, text hash). In a
    bucket rows are ordered by (key, order_by, identity), where identity is what the table declares.
    """

    name: str
    inputs: tuple[TableOf, ...]
    schema: pa.Schema
    """Of the inputs."""
    key: str
    order_by: tuple[str, ...]
    identity: tuple[str, ...]
    buckets: int
    reduce: Reduce
    outputs: tuple[Output, ...]
    projected: tuple[str, ...] = ()
    """Outputs that are columns of the kept documents; the reduce itself yields the rows of all others."""

    def __post_init__(self) -> None:
        """Refuse inputs that are not one table."""
        if len({given.table for given in self.inputs}) != 1:
            raise ValueError(f"stage {self.name}: its inputs are {self.inputs}, allowed are tables of one name")

    def projections(self) -> tuple[Output, ...]:
        """Return the outputs that kept documents are written to: documents themselves, and what is cut from them."""
        return tuple(output for output in self.outputs if output.table in ("documents", *self.projected))

    @property
    def input_table(self) -> str:
        """The name of the tables that come in."""
        return self.inputs[0].table

    @property
    def folder(self) -> str:
        """Where the stage's tables and commits lie in the output."""
        return f"stages/{self.name}"


Stage = MapStage | GroupStage
