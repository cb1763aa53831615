"""Personal data and secrets: found in one compiled pass, replaced by typed placeholders, told of without their values.

Kinds: e-mail addresses, public IP addresses, phone numbers, IBANs, payment card numbers, and secrets (keys in published
formats, private keys, random strings given to names such as "password"). How each is decided, and what stays, is in
the modules of `pipelines/pii/` and in docs/pii.md. Names and postal addresses are not found.

The column `pii` tells for each document which bytes of the text *as it was before this step* held what: null where
there was nothing, never a value. Cost: see docs/pii.md.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import pyarrow as pa

from pipelines.pii.scan import KIND, ROW, START, STOP, scan
from pipelines.pii.tables import KINDS, tables
from pipelines.transforms.edits import Edits, apply_edits
from pipelines.transforms.rules import Rule, RuleFilter, check_thresholds
from pipelines.transforms.words import text_view

PLACEHOLDERS = tuple(f"<{kind}>" for kind in KINDS)
"""What takes a value's place, by kind; no special token of an encoding looks like it."""

HITS = pa.list_(
    pa.struct(
        [
            pa.field("kind", pa.string()),  # one of KINDS
            pa.field("start", pa.int64()),  # byte offset into the text before this step, at a code point boundary
            pa.field("end", pa.int64()),  # half open
        ]
    )
)
"""What was found in a document, in order, not overlapping; null = nothing."""

TOTAL = len(KINDS)
"""The column of the statistics behind those of the kinds."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pii(RuleFilter):
    """Replaces personal data and secrets by placeholders, and drops documents that hold too many.

    A document that is dropped keeps its text as it was. `values` leaves the counts by kind as columns.
    """

    name: ClassVar[str] = "pii"
    version: ClassVar[int] = 1

    kinds: tuple[str, ...] = KINDS
    """What is replaced and told of."""
    replace: bool = True
    """False: leave the text as it is, and only tell what is in it."""
    max_hits: int | None = None
    """Documents with more are dropped (`pii.max_hits`): lists of leaked data."""

    def __post_init__(self) -> None:
        """Refuse kinds that there are none of, and a step that looks for nothing."""
        check_thresholds(self)
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"kinds: found {kind!r}, allowed are {', '.join(KINDS)}")
        if not self.kinds:
            raise ValueError("kinds: the step would look for nothing\nhint: leave the step out")

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rule, then the count of each kind."""
        counts = (Rule(f"{kind}s", place, None, False, None) for place, kind in enumerate(KINDS))
        return (Rule("max_hits", TOTAL, None, False, self.max_hits), *counts)

    @property
    def adds(self) -> pa.Schema:
        """The spans, and the values if asked for."""
        return pa.schema([pa.field("pii", HITS), *self.value_columns])

    def measured(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        """Find, count, and replace."""
        offsets, data = text_view(batch.column("text"))
        spans = scan(read_only(offsets), read_only(data), tables())
        if set(self.kinds) != set(KINDS):  # found all the same, so that no address is taken for a number
            spans = spans[np.isin(spans[:, KIND], [KINDS.index(kind) for kind in self.kinds])]
        stats = np.zeros((batch.num_rows, len(KINDS) + 1), np.int64)
        np.add.at(stats, (spans[:, ROW], spans[:, KIND]), 1)
        stats[:, TOTAL] = stats[:, :TOTAL].sum(axis=1)
        edited = batch
        if self.replace:
            edited = apply_edits(batch, Edits.of(spans), tuple(text.encode() for text in PLACEHOLDERS))
        return edited.append_column(pa.field("pii", HITS), hits(spans, batch.num_rows)), stats


def read_only(array: np.ndarray) -> np.ndarray:
    """Return a view that cannot be written to: kernels are compiled once for each kind of array."""
    view = array.view()
    view.flags.writeable = False
    return view


def hits(spans: np.ndarray, num_rows: int) -> pa.Array:
    """Return the spans of `scan` as a column: type `HITS`, shape (num_rows,)."""
    counts = np.bincount(spans[:, ROW], minlength=num_rows)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    flat = pa.StructArray.from_arrays(
        [
            pa.array(KINDS, pa.string()).take(pa.array(spans[:, KIND])),
            pa.array(spans[:, START]),
            pa.array(spans[:, STOP]),
        ],
        fields=list(HITS.value_type),
    )
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=HITS, mask=pa.array(counts == 0))
