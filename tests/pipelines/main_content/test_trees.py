"""Trees against a plain evaluation in Python, the table of the logistic function, and what a model file must be."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import HeadraceError
from pipelines.main_content import trees as m
from pipelines.main_content.features import CONTEXT, FEATURES, P_ONE


def random_trees(seed: int, num: int = 5, columns: int = 4) -> m.Trees:
    """Return trees whose thresholds are the values that `random_rows` has, so that ties come up."""
    random = np.random.default_rng(seed)
    return m.Trees(
        random.integers(0, columns, (num, m.NUM_INNER)).astype(np.int16),
        random.integers(-2, 3, (num, m.NUM_INNER)).astype(np.float32),
        random.integers(-2 * m.LEAF_ONE, 2 * m.LEAF_ONE, (num, m.NUM_LEAVES)).astype(np.int32),
    )


def random_rows(seed: int, columns: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3, 4, (20, columns)).astype(np.float32)


def log_odds(row: np.ndarray, trees: m.Trees) -> int:
    """Return the sum of a row's leaves, found by going down each tree."""
    total = 0
    for features, thresholds, leaves in zip(trees.features, trees.thresholds, trees.leaves, strict=True):
        node = 0
        for _ in range(m.DEPTH):
            node = 2 * node + (2 if row[features[node]] > thresholds[node] else 1)
        total += int(leaves[node - m.NUM_INNER])
    return total


@settings(deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 6))
def test_any_trees_are_evaluated_as_going_down_each(seed: int, num: int) -> None:
    trees, rows = random_trees(seed, num), random_rows(seed)
    table = m.logistic_table().tolist()
    half = len(table) // 2
    expected = [table[min(max(log_odds(row, trees) // 512, -half), half) + half] for row in rows]
    assert trees.probabilities(rows).tolist() == expected


def test_probabilities_do_not_depend_on_the_order_of_trees_or_on_other_rows() -> None:
    trees, rows = random_trees(1, 30), random_rows(2)
    turned = m.Trees(trees.features[::-1], trees.thresholds[::-1], trees.leaves[::-1])
    assert turned.probabilities(rows).tolist() == trees.probabilities(rows).tolist()
    assert [int(trees.probabilities(rows[k : k + 1])[0]) for k in range(20)] == trees.probabilities(rows).tolist()
    assert len(trees.probabilities(rows[:0])) == 0


def test_a_value_equal_to_the_threshold_goes_left() -> None:
    trees = m.Trees(
        np.zeros((1, m.NUM_INNER), np.int16),
        np.ones((1, m.NUM_INNER), np.float32),
        np.array([[-12 * m.LEAF_ONE, *[0] * (m.NUM_LEAVES - 2), 12 * m.LEAF_ONE]], np.int32),
    )
    rows = np.array([[1], [np.nextafter(np.float32(1), np.float32(2))], [-np.inf], [np.inf]], np.float32)
    assert trees.probabilities(rows).tolist() == [0, P_ONE, 0, P_ONE]


def test_the_logistic_function() -> None:
    """1/(1 + e^-x) in 1/65536 from -12 to 12 in steps of 1/128, rounded to the nearest: half at 0, and symmetric."""
    table = m.logistic_table()
    assert len(table) == 24 * 128 + 1
    assert table[12 * 128] == P_ONE // 2
    assert (table + table[::-1] == P_ONE).all()
    assert (np.diff(table) >= 0).all()
    assert int(table[13 * 128]) == round(65536 * math.e / (math.e + 1)) == 47911


@pytest.mark.parametrize(("leaf", "x"), [(0, 0.0), (m.LEAF_ONE, 1.0), (-m.LEAF_ONE, -1.0), (511, 0.0), (-1, -1 / 128)])
def test_log_odds_are_read_from_the_step_below(leaf: int, x: float) -> None:
    trees = dataclasses.replace(random_trees(3, 1), leaves=np.full((1, m.NUM_LEAVES), leaf, np.int32))
    assert trees.probabilities(random_rows(4)).tolist() == [round(P_ONE / (1 + math.exp(-x)))] * 20


@pytest.mark.parametrize(("leaf", "p"), [((1 << 31) - 1, P_ONE), (-(1 << 31), 0)])
def test_the_largest_leaves_do_not_overflow(leaf: int, p: int) -> None:
    trees = dataclasses.replace(random_trees(3, 100), leaves=np.full((100, m.NUM_LEAVES), leaf, np.int32))
    assert set(trees.probabilities(random_rows(4)).tolist()) == {p}


def test_a_packed_model_is_the_model() -> None:
    model = m.Model(random_trees(1), random_trees(2))
    packed = m.pack(model)
    found = m.unpack(packed)
    for stage in ("first", "second"):
        for field in dataclasses.fields(m.Trees):
            given_array, array = getattr(getattr(model, stage), field.name), getattr(getattr(found, stage), field.name)
            assert array.dtype == given_array.dtype
            assert array.tolist() == given_array.tolist()
    assert m.pack(found) == packed, "the hash of a model is that of its bytes"


def test_a_model_of_other_columns_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "FEATURES", FEATURES[::-1])
    packed = m.pack(m.Model(random_trees(1), random_trees(2)))
    monkeypatch.undo()
    with pytest.raises(HeadraceError, match="other columns\nhint: run headrace train-extractor"):
        m.unpack(packed)
    assert [*FEATURES, *CONTEXT] == [*m.FEATURES, *m.CONTEXT]


def test_a_model_with_another_hash_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "MODEL_FILE", "tags.py")
    monkeypatch.setattr(m, "MODEL_SHA256", "0" * 64)
    with pytest.raises(HeadraceError, match=r"tags\.py: sha256 is [0-9a-f]{64}, expected 0{64}\nhint: install"):
        m.load_model.__wrapped__()
