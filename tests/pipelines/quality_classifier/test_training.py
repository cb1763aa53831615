"""The fit against the conditions of its optimum; folds, AUC and bands by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.quality_classifier import training
from pipelines.quality_classifier.features import list_features
from pipelines.quality_classifier.training import auc_of, bands_of, fit, make_folds, score_fold

WORDS = ("mill", "wheel", "water", "click", "login", "buy")


def made(num: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Texts of which the good ones have more of the first three words."""
    rng = np.random.default_rng(seed)
    labels = rng.random(num) < 0.4
    chances = np.where(labels[:, None], [0.25, 0.25, 0.2, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.2, 0.25, 0.25])
    return [" ".join(rng.choice(WORDS, 30, p=chance)) for chance in chances], labels


def rows_of(texts: list[str], bits: int = 12):
    return list_features(pa.array(texts, pa.large_string()), bits)


def test_the_weights_are_the_optimum(monkeypatch):
    """The gradient of penalty/2 * |w|^2 + sum of log(1 + exp(-y f)) is 0 there, for each weight and the bias."""
    monkeypatch.setattr(training, "TOLERANCE", 0.0)
    texts, labels = made(60)
    rows, weights = rows_of(texts, 8), np.zeros(257)
    training._ascend(rows.bounds, rows.buckets, rows.counts, labels, 0.3, 1, weights)
    dense = np.zeros((60, 257))
    for row in range(60):
        own = slice(rows.bounds[row], rows.bounds[row + 1])
        dense[row, rows.buckets[own]] = rows.counts[own] / np.sqrt(rows.counts[own].sum())
    dense[:, 256] = 1
    p = 1 / (1 + np.exp(-dense @ weights))
    gradient = 0.3 * weights + dense.T @ (p - labels)
    assert np.abs(weights).max() > 0.1
    assert np.abs(gradient).max() < 0.02


def test_the_same_seed_gives_the_same_model():
    texts, labels = made(50)
    rows = rows_of(texts)
    assert fit(rows, labels, 12, {}, seed=3).pack() == fit(rows, labels, 12, {}, seed=3).pack()
    scores = [fit(rows, labels, 12, {}, seed=seed).scores_of_rows(rows) for seed in (3, 4)]
    assert np.abs(scores[0] - scores[1]).max() < 100  # the optimum does not depend on it


def test_what_was_learned_holds_for_other_texts():
    texts, labels = made(200)
    others, truth = made(200, seed=1)
    model = fit(rows_of(texts), labels, 12, {})
    assert auc_of(model.scores(pa.array(others, pa.large_string())), truth).value > 0.9


def test_a_fold_is_scored_by_a_model_that_has_not_seen_it():
    """Labels without any pattern are learned by heart and not foretold."""
    texts, _ = made(120)
    texts = [f"{text} name{number}" for number, text in enumerate(texts)]
    labels = np.random.default_rng(5).random(120) < 0.5
    rows = rows_of(texts)
    folds = make_folds(np.arange(120), labels, 5, 0)
    scores = np.zeros(120, np.int64)
    for fold in range(5):
        scores[folds == fold] = score_fold(rows, labels, folds == fold, 12, penalty=1e-3)
    assert 0.3 < auc_of(scores, labels).value < 0.7
    assert auc_of(fit(rows, labels, 12, {}, penalty=1e-3).scores_of_rows(rows), labels).value > 0.95


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=80), st.integers(2, 7))
def test_folds(some, num_folds):
    texts, labels = np.array([text for text, _ in some]), np.array([label for _, label in some])
    folds = make_folds(texts, labels, num_folds, 1)
    for text in set(texts.tolist()):
        assert len(set(folds[texts == text].tolist())) == 1
    _, first = np.unique(texts, return_index=True)
    for label in (False, True):  # of distinct texts, each label is spread evenly
        sizes = np.bincount(folds[first][labels[first] == label], minlength=num_folds)
        assert sizes.max() - sizes.min() <= 1
    assert folds.tolist() == make_folds(texts, labels, num_folds, 1).tolist()


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=4, max_size=40))
@settings(max_examples=60)
def test_the_auc_against_all_pairs(some):
    scores, labels = np.array([score for score, _ in some]), np.array([label for _, label in some])
    if labels.sum() < 2 or (~labels).sum() < 2:
        return
    wins = [(a > b) + (a == b) / 2 for a, b in itertools.product(scores[labels], scores[~labels])]
    auc = auc_of(scores, labels)
    assert auc.value == pytest.approx(sum(wins) / len(wins))
    assert auc.low <= auc.value <= auc.high


def test_the_interval_by_hand():
    """Positives 3, 1 and negatives 2, 0: shares of negatives beaten are 1 and 1/2, of positives that beat 1/2 and 1.

    Both variances are 1/8, so the variance of the AUC (3/4) is 1/16 + 1/16, and 1.96 times its root is 0.693.
    """
    auc = auc_of(np.array([3, 1, 2, 0]), np.array([True, True, False, False]))
    assert auc.value == 0.75
    assert auc.low == pytest.approx(0.75 - 1.959964 * np.sqrt(1 / 8), abs=1e-6)
    assert auc.high == 1.0


def test_bands_by_hand():
    bands = bands_of(np.array([0, 999, 1000, 9999, 10_000]), np.array([False, True, False, True, True]))
    assert [band.documents for band in bands] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert [band.positives for band in bands] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (bands[1].low, bands[1].kept, bands[1].kept_negatives) == (1000, 0.6, 0.5)
    assert bands[1].kept_positives == pytest.approx(2 / 3)
