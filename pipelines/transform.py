"""What a transform is: a frozen dataclass, `RecordBatch -> RecordBatch`, whose fields are its thresholds.

A transform never adds, removes or reorders rows. It may set `verdict` on rows (the engine then parts them off and
counts them), fill or edit `text`, and add or drop declared columns. It sees kept rows only, and its
result for a row depends on that row alone: `f(concat(a, b)) == concat(f(a), f(b))`. Rules compare integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from pipelines.schema import VERDICT

EMPTY_SCHEMA = pa.schema([])


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """One rule's view of one document, for `headrace explain`: what was measured and what is allowed."""

    rule: str
    value: str
    threshold: str
    passed: bool


@runtime_checkable
class Transform(Protocol):
    """The protocol. Implementations are frozen dataclasses, picklable, registered in `transforms/registry.py`."""

    name: ClassVar[str]
    """The word that the recipe, the ledger and the rejects use."""
    version: ClassVar[int]
    """Raised whenever the same fields give other results: part of the fingerprint."""

    @property
    def adds(self) -> pa.Schema:
        """Columns that this transform adds (a class variable where no field decides about them)."""
        ...

    drops: ClassVar[tuple[str, ...]]
    """Columns that it drops."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Judge, edit or extend every row of `batch` (rows with a null verdict) and return as many rows in order."""
        ...

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Return, for every row, what each rule measured. `[]` for a transform that has no rules."""
        ...


@runtime_checkable
class SideTransform(Transform, Protocol):
    """A transform that looks documents up in committed tables of earlier stages."""

    def bind(self, side: Mapping[str, pa.Table]) -> Transform:
        """Return the transform with its side tables (by table name) at hand."""
        ...


def set_verdict(batch: pa.RecordBatch, verdict: pa.Array) -> pa.RecordBatch:
    """Return `batch` with its verdict column replaced (type `schema.VERDICT`, null = kept)."""
    return replace_column(batch, "verdict", verdict)


def replace_column(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    """Return `batch` with one column replaced, its place and the schema kept."""
    place = batch.schema.get_field_index(name)
    return batch.set_column(place, batch.schema.field(place), column)


def verdicts(
    failed: np.ndarray, reasons: list[str | None], values: list[str | None], thresholds: list[str | None], outcome: str
) -> pa.Array:
    """Build a verdict column from a mask and, for the failed rows in order, their reasons, values and thresholds.

    `failed` is bool, shape (rows,). Only failed rows cost Python work.
    """
    struct = pa.StructArray.from_arrays(
        [
            pa.array([outcome] * len(reasons), pa.string()),
            pa.array(reasons, pa.string()),
            pa.array(values, pa.string()),
            pa.array(thresholds, pa.string()),
        ],
        fields=list(VERDICT),
    )
    indices = np.where(failed, np.cumsum(failed) - 1, 0)
    return struct.take(pa.array(indices, pa.int64(), mask=~failed))
