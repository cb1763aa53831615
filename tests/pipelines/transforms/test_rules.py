"""Rules: exact comparisons, values as columns, evidence, and what a filter that edits leaves of dropped rows."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_text import column, edits_of, text_batch

from pipelines.transform import Transform
from pipelines.transforms.edits import apply_edits
from pipelines.transforms.rules import MOST_THRESHOLD, RATIO, Rule, RuleFilter, check_at_most, check_thresholds

COUNTS = st.integers(0, 2**31) | st.integers(0, 5)


@settings(deadline=None)
@given(COUNTS, st.none() | COUNTS, st.booleans(), st.none() | st.integers(0, 3 * RATIO), st.sampled_from([1, RATIO]))
def test_ratios_are_compared_exactly(numerator, denominator, at_least, limit, scale):
    """By fractions; n / 0 is infinite, 0 / 0 passes."""
    rule = Rule("r", 0, None if denominator is None else 1, at_least, limit, scale)
    stats = np.array([[numerator, denominator or 0]], np.int64)
    if limit is None or (denominator == 0 and numerator == 0):
        expected = True
    elif denominator == 0:
        expected = at_least
    else:
        value = Fraction(numerator, denominator or 1) * scale
        expected = value >= limit if at_least else value <= limit
    assert rule.passed(stats).tolist() == [expected]


def test_values_are_null_where_there_is_none():
    rule = Rule("r", 0, 1, False, 0, RATIO)
    stats = np.array([[1, 4], [0, 0], [2, 0], [1, 4]], np.int64)
    values = rule.values(stats, np.array([True, True, True, False]))
    assert values.type == pa.float64()
    assert values.to_pylist() == [0.25, None, float("inf"), None]
    plain = dataclasses.replace(rule, denominator=None)
    assert plain.values(stats, np.array([True, True, False, True])).to_pylist() == [1.0, 0.0, None, 1.0]
    assert [rule.value(row) for row in stats] == ["1/4", "0/0", "2/0", "1/4"]
    assert plain.value(stats[0]) == "1"


@pytest.mark.parametrize(
    ("at_least", "limit", "scale", "shown"),
    [
        (True, 50, 1, ">= 50"), (False, 1_000, RATIO, "<= 0.1"), (False, 1, RATIO, "<= 0.0001"),
        (True, 0, RATIO, ">= 0"),
        (False, 20_000, RATIO, "<= 2"), (False, 12_345, RATIO, "<= 1.2345"), (True, None, RATIO, "no limit"),
    ],
)  # fmt: skip
def test_thresholds_are_shown_as_decimals(at_least, limit, scale, shown):
    assert Rule("r", 0, 1, at_least, limit, scale).threshold == shown


@dataclasses.dataclass(frozen=True, slots=True)
class Made(RuleFilter):
    """Counts "a" and "b", cuts the first byte of each text; the second rule is about texts that begin with "?"."""

    name: ClassVar[str] = "made"
    version: ClassVar[int] = 1

    max_a: int | None = 1
    max_b: int | None = 5_000

    def __post_init__(self) -> None:
        check_thresholds(self, ratios=("max_b",))

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (
            Rule("max_a", 0, None, False, self.max_a),
            Rule("max_b", 1, 2, False, self.max_b, RATIO),
            Rule("seen", 0, 2, True, None),
        )

    def measured(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        texts = [text or "" for text in batch.column("text").to_pylist()]
        stats = np.array([(t.count("a"), t.count("b"), len(t)) for t in texts], np.int64).reshape(-1, 3)
        cuts = [(row, 0, 1, 0) for row, text in enumerate(texts) if text]
        return apply_edits(batch, edits_of(*cuts)), stats

    def applies(self, batch: pa.RecordBatch) -> np.ndarray:
        applies = np.ones((batch.num_rows, 3), bool)
        applies[:, 1] = [(text or "").startswith("?") for text in batch.column("text").to_pylist()]
        return applies


TEXTS = ["aab", "?bbb", "xbbb", "", None, "?ab", "aa"]


def turns() -> list:
    return [[{"role": "user", "start": 0, "end": 2, "weight": 256}] for _ in TEXTS]


def test_dropped_rows_keep_text_and_turns():
    result = Made()(text_batch(TEXTS, turns()))
    result.validate(full=True)
    assert isinstance(Made(), Transform)
    reasons = [verdict and verdict["reason"] for verdict in result.column("verdict").to_pylist()]
    assert reasons == ["made.max_a", "made.max_b", None, None, None, None, "made.max_a"]
    assert result.column("text").to_pylist() == ["aab", "?bbb", "bbb", "", None, "ab", "aa"]
    ends = [row[0]["end"] for row in result.column("turns").to_pylist()]
    assert ends == [2, 2, 1, 2, 2, 1, 2]


def test_values_and_no_drop():
    given = text_batch(TEXTS, turns())
    made = Made(values=True, drop=False)
    result = made(given)
    assert result.schema.names == [*given.schema.names, "made_max_a", "made_max_b", "made_seen"]
    assert pa.schema(list(result.schema)[-3:]) == made.adds == made.value_columns
    assert result.column("verdict").null_count == len(TEXTS)
    assert result.column("text").to_pylist() == ["ab", "bbb", "bbb", "", None, "ab", "a"]
    assert result.column("made_max_a").to_pylist() == [2, 0, 0, 0, 0, 1, 2]
    assert result.column("made_max_b").to_pylist() == [None, 0.75, None, None, None, 1 / 3, None]
    assert result.column("made_seen").to_pylist() == [2 / 3, 0, 0, None, None, 1 / 3, 1]
    assert len(Made().adds) == len(Made().value_columns) == 0
    # with verdicts the values are the same
    assert Made(values=True)(given).column("made_max_a").equals(result.column("made_max_a"))


def test_evidence_is_what_decides():
    batch = text_batch(TEXTS)
    verdicts = Made()(batch).column("verdict").to_pylist()
    for row, (verdict, evidence) in enumerate(zip(verdicts, Made().evidence(batch), strict=True)):
        assert [item.rule for item in evidence] == ["made.max_a", "made.max_b", "made.seen"]
        failed = [item for item in evidence if not item.passed]
        assert (verdict is None) == (not failed), row
        if verdict:
            assert (verdict["value"], verdict["threshold"]) == (failed[0].value, failed[0].threshold)
    assert all(item.passed for row in Made(drop=False).evidence(batch) for item in row)
    assert Made().evidence(batch)[1][1].value == "3/4"


def test_the_first_broken_rule_is_the_reason():
    verdict = Made(max_a=0)(text_batch(["?abb"])).column("verdict")[0].as_py()
    assert (verdict["reason"], verdict["value"], verdict["threshold"]) == ("made.max_a", "1", "<= 0")
    verdict = Made(max_a=None)(text_batch(["?aabb"])).column("verdict")
    assert verdict.null_count == 1  # 2 / 5 is at most 0.5


def test_nothing_is_dropped_of_no_rows():
    assert Made(values=True)(text_batch(column([]))).num_rows == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_a", value) for value in (-1, 1.0, True, "1", MOST_THRESHOLD + 1, 2 * 10**18, 10**30)),
        ("max_b", RATIO + 1),
    ],
)
def test_thresholds_that_are_none_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"{field}: '?{value}'? .*\nhint: "):
        Made(**{field: value})


def test_a_threshold_beyond_another_is_refused():
    check_at_most("a", None, 1, "x")
    check_at_most("a", 2, None, "x")
    check_at_most("a", 1, 1, "x")
    with pytest.raises(ValueError, match="a: 2 is too much, it is more than b\nhint: give at most 1"):
        check_at_most("a", 2, 1, "it is more than b")
