"""Fitting the two stages with LightGBM, and carrying its trees over into integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import xxhash

from pipelines.main_content.features import CONTEXT, FEATURES, add_context
from pipelines.main_content.training.examples import Example
from pipelines.main_content.trees import DEPTH, LEAF_ONE, NUM_INNER, NUM_LEAVES, Model, Trees

NUM_TREES = 120
INNER_FOLDS = 4
"""Folds in which the first stage is fitted, so that the second one learns from what it says of unseen sites."""

PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "max_depth": DEPTH,
    "num_leaves": NUM_LEAVES,
    "learning_rate": 0.08,
    "min_data_in_leaf": 40,
    "min_sum_hessian_in_leaf": 0.05,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "max_bin": 127,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "seed": 17,
    "verbose": -1,
}


def fold_of_site(site: str, folds: int, seed: int) -> int:
    """Return the fold of a site: a hash, so that it never changes as pages are added."""
    return xxhash.xxh3_64_intdigest(site.encode(), seed=seed) % folds


def fit(examples: list[Example], seed: int = 7, num_trees: int = NUM_TREES) -> Model:
    """Fit both stages. The examples' context columns are overwritten."""
    folds = np.array([fold_of_site(example.site, INNER_FOLDS, seed + 1000) for example in examples])
    for fold in range(INNER_FOLDS):
        part = [example for example, other in zip(examples, folds, strict=True) if other != fold]
        trees = fit_trees(part, len(FEATURES), seed + fold, num_trees)
        for example, other in zip(examples, folds, strict=True):
            if other == fold:
                write_context(example, trees)
    second = fit_trees(examples, len(FEATURES) + len(CONTEXT), seed, num_trees)
    return Model(fit_trees(examples, len(FEATURES), seed, num_trees), second)


def write_context(example: Example, first: Trees) -> None:
    """Fill an example's context columns from the first stage."""
    p = first.probabilities(example.features)
    add_context(example.blocks, example.nodes, example.clusters, p, example.features, len(FEATURES))


def fit_trees(examples: list[Example], columns: int, seed: int, num_trees: int = NUM_TREES) -> Trees:
    """Fit one stage on the first `columns` columns."""
    import lightgbm

    features = np.concatenate([example.features[:, :columns] for example in examples])
    labels = np.concatenate([example.labels for example in examples])
    weights = np.concatenate([example.weights for example in examples])
    weights = weights / weights.mean()
    data = lightgbm.Dataset(features, labels, weight=weights, params=PARAMETERS, free_raw_data=True)
    booster = lightgbm.train(PARAMETERS | {"seed": seed}, data, num_boost_round=num_trees)
    return carry_over(booster.dump_model())


def carry_over(dump: dict[str, Any]) -> Trees:
    """Return LightGBM's trees as complete ones."""
    trees = dump["tree_info"]
    features = np.zeros((len(trees), NUM_INNER), np.int16)
    thresholds = np.full((len(trees), NUM_INNER), np.inf, np.float32)
    leaves = np.zeros((len(trees), NUM_LEAVES), np.int32)
    for number, tree in enumerate(trees):
        _place(tree["tree_structure"], 0, features[number], thresholds[number], leaves[number])
    return Trees(features, thresholds, leaves)


def _place(tree: dict[str, Any], node: int, features: np.ndarray, thresholds: np.ndarray, leaves: np.ndarray) -> None:
    """Write a tree below a node; a leaf above the last level stands in all leaves below it."""
    if node >= NUM_INNER:
        assert "leaf_value" in tree
        leaves[node - NUM_INNER] = round(tree["leaf_value"] * LEAF_ONE)
        return
    if "leaf_value" in tree:
        _place(tree, 2 * node + 1, features, thresholds, leaves)
        _place(tree, 2 * node + 2, features, thresholds, leaves)
        return
    assert tree["decision_type"] == "<="
    features[node] = tree["split_feature"]
    # rounded down where float32 lies above, so that values equal to a float32 threshold fall on the same side
    threshold = np.float32(tree["threshold"])
    if float(threshold) > tree["threshold"]:
        threshold = np.nextafter(threshold, np.float32(-np.inf))
    thresholds[node] = threshold
    _place(tree["left_child"], 2 * node + 1, features, thresholds, leaves)
    _place(tree["right_child"], 2 * node + 2, features, thresholds, leaves)
