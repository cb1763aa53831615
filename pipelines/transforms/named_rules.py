"""Rules that a document breaks or not, without a number: verdicts and evidence from what was found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from pipelines.transform import Evidence, set_verdict, verdicts


@dataclasses.dataclass(frozen=True, slots=True)
class NamedRule:
    """One rule over all rows of a batch."""

    reason: str
    found: np.ndarray
    """Where there is something to say: bool, shape (rows,)."""
    value: Callable[[int], str]
    """What was found in a row."""
    threshold: str
    """What is allowed."""
    drops: bool = True
    """False: what is found is told and breaks nothing."""


def with_verdicts(batch: pa.RecordBatch, rules: Sequence[NamedRule]) -> pa.RecordBatch:
    """Set the verdict of every row that breaks a rule: that of the first."""
    first = np.full(batch.num_rows, len(rules))
    for place in reversed(range(len(rules))):
        if rules[place].drops:
            first[rules[place].found] = place
    broken = first < len(rules)
    if not broken.any():
        return batch
    rows = np.flatnonzero(broken).tolist()
    stopped = [rules[first[row]] for row in rows]
    reasons: list[str | None] = [rule.reason for rule in stopped]
    values: list[str | None] = [rule.value(row) for rule, row in zip(stopped, rows, strict=True)]
    thresholds: list[str | None] = [rule.threshold for rule in stopped]
    return set_verdict(batch, verdicts(broken, reasons, values, thresholds, "dropped"))


def evidence_of(num_rows: int, rules: Sequence[NamedRule]) -> list[list[Evidence]]:
    """Return every rule's view of every row."""
    return [
        [
            Evidence(
                rule.reason,
                rule.value(row) if rule.found[row] else "nothing",
                rule.threshold if rule.drops else "any",
                not (rule.drops and rule.found[row]),
            )
            for rule in rules
        ]
        for row in range(num_rows)
    ]
