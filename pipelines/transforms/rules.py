"""What filters that judge a document by written rules have in common: integers measured, integers allowed.

A rule compares a count, or the ratio of two counts, with a threshold. Ratios are compared by cross-multiplication, so
no float decides. The first broken rule, in the order of `rules`, is the reason of the verdict.

With `values: true` a filter leaves what every rule measured as columns, in documents and in rejects, from which
`headrace tune` shows what other thresholds would remove; with `drop: false` it measures and drops nothing.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import pyarrow as pa

from pipelines.transform import EMPTY_SCHEMA, Evidence, replace_column, set_verdict, verdicts

RATIO = 10_000
"""Thresholds of ratios are written in 1/10,000: 1000 is 0.1."""
MOST_THRESHOLD = 1_000_000_000
"""No text has so much of anything, and its product with any count stays inside int64."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """`numerator / denominator` is at least or at most `limit / scale`; no denominator = a plain count.

    `numerator` and `denominator` are columns of the filter's statistics. `limit` None = no limit: the
    value is measured and everything passes.
    """

    name: str
    numerator: int
    denominator: int | None
    at_least: bool
    limit: int | None
    scale: int = 1

    def passed(self, stats: np.ndarray) -> np.ndarray:
        """Return which rows pass, bool, shape (rows,). `0 / 0` passes every rule that has a denominator."""
        if self.limit is None:
            return np.ones(len(stats), bool)
        measured = stats[:, self.numerator] * self.scale
        allowed = self.limit * (1 if self.denominator is None else stats[:, self.denominator])
        return measured >= allowed if self.at_least else measured <= allowed

    def value(self, row: np.ndarray) -> str:
        """Return what was measured, exactly: "41" or "12/40"."""
        return str(row[self.numerator]) + ("" if self.denominator is None else f"/{row[self.denominator]}")

    def values(self, stats: np.ndarray, applies: np.ndarray) -> pa.Array:
        """Return what was measured as float64, shape (rows,).

        Null where the rule is not about the row (`applies`, bool, shape (rows,)), and for 0 / 0, which passes; what is
        divided by 0 is infinite, and no limit of an "at most" rule lets it pass.
        """
        numerator = stats[:, self.numerator].astype(np.float64)
        if self.denominator is None:
            return pa.array(numerator, mask=~applies)
        denominator = stats[:, self.denominator]
        divided = np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.inf)
        return pa.array(divided, mask=~applies | ((numerator == 0) & (denominator == 0)))

    @property
    def threshold(self) -> str:
        """What is allowed: ">= 50", "<= 0.1"; "no limit"."""
        if self.limit is None:
            return "no limit"
        whole, part = divmod(self.limit, self.scale)
        decimals = f".{part:0{len(str(self.scale)) - 1}d}".rstrip("0") if part else ""
        return f"{'>=' if self.at_least else '<='} {whole}{decimals}"


@dataclasses.dataclass(frozen=True, slots=True)
class RuleFilter:
    """A filter by rules. A family gives `rules` and `measured`, and `applies` where a rule is not about every row."""

    name: ClassVar[str]
    version: ClassVar[int]
    drops: ClassVar[tuple[str, ...]] = ()

    values: bool = False
    """Leave what each rule measured as a column NAME_RULE (float64; null where it does not apply)."""
    drop: bool = True
    """False: measure, set no verdict."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, in the order in which the first broken one becomes the reason."""
        raise NotImplementedError

    def measured(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        """Return the batch (its text edited, if that is what the family does) and int64 statistics (rows, counts)."""
        raise NotImplementedError

    def applies(self, batch: pa.RecordBatch) -> np.ndarray:
        """Return which rules are about which rows, bool (rows, rules)."""
        return np.ones((batch.num_rows, len(self.rules)), bool)

    @property
    def value_columns(self) -> pa.Schema:
        """The columns of `values`: what rejects carry beside their core."""
        if not self.values:
            return EMPTY_SCHEMA
        return pa.schema([pa.field(f"{self.name}_{rule.name}", pa.float64()) for rule in self.rules])

    @property
    def adds(self) -> pa.Schema:
        """Columns that this filter adds."""
        return self.value_columns

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Set the verdict of rows that break a rule; these keep the text that they came with."""
        rules = self.rules
        edited, stats = self.measured(batch)
        applies = self.applies(batch)
        passed = _passed(rules, stats, applies)
        broken: np.ndarray = ~np.all(passed, axis=1)
        if self.drop and broken.any():
            if edited is not batch:
                edited = _with_texts_of(batch, edited, broken)
            edited = set_verdict(edited, self._verdicts(rules, stats, passed, broken))
        if not self.values:
            return edited
        columns = [*edited.columns, *(rule.values(stats, applies[:, place]) for place, rule in enumerate(rules))]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema([*edited.schema, *self.value_columns]))

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Return every rule's measurement for every row, from the statistics that decide the verdict."""
        rules, (_, stats) = self.rules, self.measured(batch)
        passed = _passed(rules, stats, self.applies(batch)) if self.drop else np.ones((len(stats), len(rules)), bool)
        return [
            [
                Evidence(f"{self.name}.{rule.name}", rule.value(row), rule.threshold, bool(ok))
                for rule, ok in zip(rules, oks, strict=True)
            ]
            for row, oks in zip(stats, passed, strict=True)
        ]

    def _verdicts(self, rules: tuple[Rule, ...], stats: np.ndarray, passed: np.ndarray, broken: np.ndarray) -> pa.Array:
        reasons: list[str | None] = []
        values: list[str | None] = []
        thresholds: list[str | None] = []
        for first, row in zip(np.argmin(passed[broken], axis=1), stats[broken], strict=True):
            reasons.append(f"{self.name}.{rules[first].name}")
            values.append(rules[first].value(row))
            thresholds.append(rules[first].threshold)
        return verdicts(broken, reasons, values, thresholds, "dropped")


def _passed(rules: tuple[Rule, ...], stats: np.ndarray, applies: np.ndarray) -> np.ndarray:
    """Return which rules each row passes, bool (rows, rules); a rule that is not about a row is passed."""
    return np.stack([rule.passed(stats) for rule in rules], axis=1) | ~applies


def check_thresholds(
    transform: RuleFilter, *, ratios: tuple[str, ...] = (), ordered: tuple[tuple[str, str], ...] = ()
) -> None:
    """Refuse thresholds that no document or every document meets by mistake.

    Every `int | None` field must be a whole number from 0 to `MOST_THRESHOLD`; `ratios` are fields of at most 1, in
    1/10,000; `ordered` are pairs of fields of which the first may not be more than the second. Raises `ValueError`.
    """
    for field in dataclasses.fields(transform):
        value = getattr(transform, field.name)
        if str(field.type) in ("int", "int | None") and value is not None and (type(value) is not int or value < 0):
            raise ValueError(f"{field.name}: {value!r} is no threshold\nhint: give a whole number from 0 up")
        if type(value) is int:
            check_at_most(field.name, value, MOST_THRESHOLD, "no text has so much; null is no limit")
    for name in ratios:
        check_at_most(name, getattr(transform, name), RATIO, "a ratio is given in 1/10,000")
    for least, most in ordered:
        check_at_most(least, getattr(transform, least), getattr(transform, most), f"it is more than {most}")


def check_at_most(field_name: str, value: int | None, limit: int | None, reason: str) -> None:
    """Refuse a threshold beyond `limit`; None is no threshold. Raises `ValueError`."""
    if value is not None and limit is not None and value > limit:
        raise ValueError(f"{field_name}: {value} is too much, {reason}\nhint: give at most {limit}")


def _with_texts_of(batch: pa.RecordBatch, edited: pa.RecordBatch, rows: np.ndarray) -> pa.RecordBatch:
    """Return `edited` with `batch`'s text and turns in the rows of the mask."""
    for name in ("text", "turns"):
        if name not in batch.schema.names:
            continue
        given, made = batch.column(name), edited.column(name)
        if not _is_same(given, made):
            both = pa.concat_arrays([made, given])
            places = np.arange(len(made)) + np.where(rows, len(made), 0)
            edited = replace_column(edited, name, both.take(pa.array(places)))
    return edited


def _is_same(one: pa.Array, other: pa.Array) -> bool:
    """Whether two columns are views of the same bytes (a batch makes new objects of its columns at each look)."""
    addresses = [[buffer and buffer.address for buffer in column.buffers()] for column in (one, other)]
    return one.offset == other.offset and addresses[0] == addresses[1]
