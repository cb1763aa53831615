"""The benchmark against human labels: its small logistic model, its folds, and which filters it looks at."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made import PROSE

from benchmarks import quality_labels as benchmark
from pipelines.transforms.gopher import GopherQuality


def test_the_logistic_model_is_the_optimum():
    """The gradient is 0 there."""
    rng = np.random.default_rng(0)
    columns = np.concatenate([rng.normal(size=(50, 3)), np.ones((50, 1))], axis=1)
    labels = columns[:, 0] + rng.normal(size=50) > 0
    weights = benchmark.logistic(columns, labels)
    p = 1 / (1 + np.exp(-columns @ weights))
    penalty = np.array([1, 1, 1, 1e-6])
    assert columns.T @ (p - labels) + penalty * weights == pytest.approx(0, abs=1e-6)
    assert weights[0] > 1


def test_standardising_by_hand():
    """Of the rest (1, 3, missing) the mean is 2 and the deviation 1; infinity is the largest, and NaN the mean."""
    values = np.array([[1.0], [3.0], [np.nan], [np.inf], [2.5]])
    columns = benchmark.standardised(values, np.array([True, True, True, False, False]))
    assert columns.tolist() == [[-1, 0, 1], [1, 0, 1], [0, 1, 1], [1, 0, 1], [0.5, 0, 1]]


def test_scores_of_a_fold_do_not_depend_on_its_labels():
    rng = np.random.default_rng(1)
    values, labels, folds = rng.normal(size=(60, 2)), rng.random(60) < 0.5, np.arange(60) % benchmark.FOLDS
    turned = labels ^ (folds == 2)
    scores = [benchmark.logistic_scores(values, some, folds)[folds == 2] for some in (labels, turned)]
    assert scores[0].tolist() == scores[1].tolist()


def test_filters_measure_and_judge():
    filters = benchmark.filters()
    assert {"gopher_quality", "gopher_repetition", "c4_quality", "fineweb_quality"} <= set(filters)
    assert not set(filters) & set(benchmark.NOT_ABOUT_PROSE)
    batch = benchmark.labelled_batch([PROSE, "short"])
    values = benchmark.values_of(filters["gopher_quality"], batch)
    assert values.shape == (2, len(GopherQuality().rules))
    assert benchmark.verdict_of(filters["gopher_quality"], batch).tolist() == [1, 0]
    assert all(one.values and not one.drop and dataclasses.is_dataclass(one) for one in filters.values())


def test_intervals_hold_the_value():
    labels = np.arange(40) % 2 == 0
    result = benchmark.with_interval(labels * 2 + np.arange(40) % 3, labels)
    assert 0.5 < result["low"] <= result["auc"] <= result["high"] <= 1
