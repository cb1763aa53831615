"""Fitting the classifier to labelled texts, and how well it does on texts that it was not fitted to.

Logistic regression with an L2 penalty, solved in its dual: each step takes one document and finds its dual variable
exactly (coordinate ascent of Yu, Huang and Lin 2011, "Dual coordinate descent methods for logistic regression and
maximum entropy models"; here the equation of one variable is solved by bisection). There is no learning rate, the
optimum is unique, and the seed decides only in which order documents are taken. A document's features are its counts
over the root of their sum (see `model.py`), and one more that is always 1, whose weight is the bias.

One thread, no fast arithmetic: the same data, order of documents and seed give the same model on machines of one
architecture.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numba
import numpy as np

from pipelines.quality_classifier.features import SparseRows
from pipelines.quality_classifier.model import SCORE_ONE, QualityModel

PENALTY = 0.3
"""Half of this times the squared norm of the weights is added to the sum of losses."""
MAX_EPOCHS = 50
TOLERANCE = 1e-3
"""It ends when no dual variable (they lie between 0 and 1) moves by more in a round over all documents."""
_HALVINGS = 40
Z_95 = 1.959963984540054
"""The normal distribution's 97.5th percentile."""


def fit(
    rows: SparseRows, labels: np.ndarray, bits: int, about: dict[str, Any], *, seed: int = 0, penalty: float = PENALTY
) -> QualityModel:
    """Return the model fitted to texts with their labels (bool, shape (rows,): True is the class that scores high)."""
    weights = np.zeros((1 << bits) + 1)
    _ascend(rows.bounds, rows.buckets, rows.counts, labels, penalty, seed, weights)
    return QualityModel.rounded(weights[:-1], float(weights[-1]), about)


def make_folds(texts: np.ndarray, labels: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Return the fold of every document: int64, shape (rows,), each label spread evenly.

    Documents with an equal entry in `texts` (hashes) share a fold, or a copy would tell the label of its original.
    """
    _, first, which = np.unique(texts, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(labels[first][order], kind="stable")]
    folds = np.empty(len(first), np.int64)
    folds[order] = np.arange(len(first)) % num_folds
    return folds[which]


def score_fold(
    rows: SparseRows, labels: np.ndarray, own: np.ndarray, bits: int, *, seed: int = 0, penalty: float = PENALTY
) -> np.ndarray:
    """Return the scores (int64) of the documents in the mask `own`, by a model that was fitted to all others."""
    rest = np.flatnonzero(~own)
    model = fit(rows.take(rest), labels[rest], bits, {}, seed=seed, penalty=penalty)
    return model.scores_of_rows(rows.take(np.flatnonzero(own)))


@dataclasses.dataclass(frozen=True, slots=True)
class Auc:
    """The area under the ROC curve: how often a positive document scores higher than a negative one (a tie is half)."""

    value: float
    low: float
    high: float
    """The 95% interval, cut off at 0 and 1."""


def auc_of(scores: np.ndarray, labels: np.ndarray) -> Auc:
    """Return the AUC of scores against labels (bool), with the interval of DeLong, DeLong and Clarke-Pearson 1988."""
    positives, negatives = scores[labels], scores[~labels]
    above = _share_below(positives, negatives)  # for each positive, the share of negatives that it beats
    below = 1 - _share_below(negatives, positives)
    value = float(above.mean())
    variance = above.var(ddof=1) / len(positives) + below.var(ddof=1) / len(negatives)
    margin = Z_95 * float(np.sqrt(variance))
    return Auc(value, max(0.0, value - margin), min(1.0, value + margin))


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    ordered = np.sort(others)
    beaten = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return beaten / (2 * len(others))


@dataclasses.dataclass(frozen=True, slots=True)
class Band:
    """Documents whose score lies in [low, high), and what `min_score: low` would keep."""

    low: int
    high: int
    documents: int
    positives: int
    kept: float
    """Share of all documents that score at least `low`."""
    kept_positives: float
    kept_negatives: float


def bands_of(scores: np.ndarray, labels: np.ndarray, num: int = 10) -> list[Band]:
    """Return bands of equal width: whether scores are probabilities, and what thresholds do."""
    bands = []
    for low in range(0, SCORE_ONE, SCORE_ONE // num):
        high = low + SCORE_ONE // num
        inside = (scores >= low) & ((scores < high) | (high >= SCORE_ONE))
        kept = scores >= low
        bands.append(
            Band(
                low, high, int(inside.sum()), int(labels[inside].sum()), float(kept.mean()),
                float(kept[labels].mean()), float(kept[~labels].mean()),
            )
        )  # fmt: skip
    return bands


@numba.njit(nogil=True, cache=True)
def _ascend(
    bounds: np.ndarray, buckets: np.ndarray, counts: np.ndarray, labels: np.ndarray, penalty: float, seed: int,
    weights: np.ndarray,
) -> None:  # fmt: skip
    """Fill `weights` (float64, the last one is the bias), which are zero, with the optimum."""
    num, last = len(labels), len(weights) - 1
    duals, inverse_roots, squares = np.zeros(num), np.zeros(num), np.zeros(num)
    for row in range(num):
        total, square = 0.0, 0.0
        for k in range(bounds[row], bounds[row + 1]):
            total += counts[k]
            square += float(counts[k]) * float(counts[k])
        inverse_roots[row] = 1.0 / np.sqrt(max(total, 1.0))
        squares[row] = square / max(total, 1.0) + 1.0
    order = np.arange(num)
    np.random.seed(seed)
    for _ in range(MAX_EPOCHS):
        np.random.shuffle(order)
        largest = 0.0
        for place in range(num):
            row = order[place]
            first, stop, inverse_root = bounds[row], bounds[row + 1], inverse_roots[row]
            inner = 0.0
            for k in range(first, stop):
                inner += weights[buckets[k]] * counts[k]
            sign = 1.0 if labels[row] else -1.0
            margin = sign * (weights[last] + inner * inverse_root)
            dual = _best_dual(margin, duals[row], squares[row] / penalty)
            change = dual - duals[row]
            duals[row] = dual
            largest = max(largest, abs(change))
            step = sign * change / penalty
            weights[last] += step
            for k in range(first, stop):
                weights[buckets[k]] += step * inverse_root * counts[k]
        if largest < TOLERANCE:
            break


@numba.njit(nogil=True, cache=True)
def _best_dual(margin: float, dual: float, curvature: float) -> float:
    """Return the dual variable a with log(a / (1 - a)) + margin + (a - dual) * curvature = 0.

    The left side grows with the log-odds u = log(a / (1 - a)), whose root lies within `curvature` of -margin.
    """
    low, high = -margin - curvature, -margin + curvature
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if middle + margin + (1.0 / (1.0 + np.exp(-middle)) - dual) * curvature > 0:
            high = middle
        else:
            low = middle
    return float(1.0 / (1.0 + np.exp(-0.5 * (low + high))))
