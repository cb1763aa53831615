"""Boosted trees in integers: complete trees of depth 5, leaves in 1/65536, a tabled logistic function.

Thresholds are float32 and compared with float32 features; leaves are integers, so the sum of a block's leaves does not
depend on the order of trees, nor on the machine. The probability is read from a table of the logistic function, rounded
to 1/65536, so no exponential is computed where the text is made.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
from functools import cache
from importlib import resources

import numba
import numpy as np

from pipelines.errors import HeadraceError
from pipelines.main_content.features import CONTEXT, FEATURES, P_ONE

DEPTH = 5
NUM_INNER, NUM_LEAVES = (1 << DEPTH) - 1, 1 << DEPTH

LEAF_ONE = 1 << 16
"""A log-odds of 1."""
_STEP_BITS = 9
"""The logistic function is tabled in steps of 2^-7 (2^9 / LEAF_ONE)."""
_TABLE_HALF = 12 << 7
"""Steps on each side of 0; beyond a log-odds of 12 the probability stays."""

MODEL_FILE = "model.npz"
MODEL_SHA256 = "fe002b1042b097d9b96d228eab2173711a41b6bbd7c02a319ee77764efe2aee6"
"""Of `model.npz` beside this file, which `headrace train-extractor` writes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trees:
    """One stage: complete binary trees. From inner node i a value over the threshold leads to 2i + 2, others 2i + 1."""

    features: np.ndarray
    """int16, shape (trees, NUM_INNER): the column that a node compares."""
    thresholds: np.ndarray
    """float32, shape (trees, NUM_INNER)."""
    leaves: np.ndarray
    """int32, shape (trees, NUM_LEAVES), in 1/LEAF_ONE, the base score within the first tree."""

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return the probability of every row of `features` (float32), int64 in 1/P_ONE."""
        return evaluate(features, self.features, self.thresholds, self.leaves, logistic_table())


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """Both stages: the second sees what the first thought of a block and of those around it."""

    first: Trees
    second: Trees


@cache
def logistic_table() -> np.ndarray:
    """Return the logistic function at steps of 1/128 from -12 to 12: int64, in 1/P_ONE."""
    steps = range(-_TABLE_HALF, _TABLE_HALF + 1)
    return np.array([round(P_ONE / (1 + math.exp(-step / 128))) for step in steps], np.int64)


@numba.njit(nogil=True, cache=True)
def evaluate(
    rows: np.ndarray, features: np.ndarray, thresholds: np.ndarray, leaves: np.ndarray, logistic: np.ndarray
) -> np.ndarray:
    """Return for every row the logistic function of the sum of its leaves."""
    num_rows, width = rows.shape
    flat = rows.ravel()
    sums = np.zeros(num_rows, np.int64)
    one, inner = np.uintp(1), np.uintp(NUM_INNER)
    for tree in range(len(leaves)):
        tree_features, tree_thresholds, tree_leaves = features[tree], thresholds[tree], leaves[tree]
        for row in range(num_rows):
            start, node = np.uintp(row * width), np.uintp(0)  # unsigned: no check for places below 0
            for _ in range(DEPTH):
                goes_right = flat[start + np.uintp(tree_features[node])] > tree_thresholds[node]
                node = np.uintp(node + node + one + np.uintp(goes_right))
            sums[row] += tree_leaves[node - inner]
    p = np.empty(num_rows, np.int64)
    half = (len(logistic) - 1) // 2
    for row in range(num_rows):
        step = min(max(sums[row] >> _STEP_BITS, -half), half)
        p[row] = logistic[step + half]
    return p


def pack(model: Model) -> bytes:
    """Return a model as the bytes of an npz file (no pickles), with the names of its columns."""
    file = io.BytesIO()
    np.savez_compressed(
        file,
        columns=np.array([*FEATURES, *CONTEXT]),
        **{
            f"{stage}_{field.name}": getattr(getattr(model, stage), field.name)
            for stage in ("first", "second")
            for field in dataclasses.fields(Trees)
        },
    )
    return file.getvalue()


def unpack(packed: bytes) -> Model:
    """Return the model in an npz file. Raises `HeadraceError` if it was trained on other columns."""
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        if arrays["columns"].tolist() != [*FEATURES, *CONTEXT]:
            raise HeadraceError(
                "the extractor's model was trained on other columns\nhint: run headrace train-extractor"
            )
        stages = [
            Trees(*(np.ascontiguousarray(arrays[f"{stage}_{field.name}"]) for field in dataclasses.fields(Trees)))
            for stage in ("first", "second")
        ]
    for stage, columns in zip(stages, (len(FEATURES), len(FEATURES) + len(CONTEXT)), strict=True):
        _check(stage, columns)
    return Model(*stages)


def _check(trees: Trees, columns: int) -> None:
    """Check what the kernel relies on. Raises `HeadraceError`."""
    num_trees = len(trees.leaves)
    expected = (
        ("features", np.int16, NUM_INNER),
        ("thresholds", np.float32, NUM_INNER),
        ("leaves", np.int32, NUM_LEAVES),
    )
    for name, dtype, width in expected:
        array = getattr(trees, name)
        if array.dtype != dtype or array.shape != (num_trees, width):
            raise HeadraceError(
                f"the extractor's model: {name} are {array.dtype} of shape {array.shape}, expected {np.dtype(dtype)}, "
                f"({num_trees}, {width})\nhint: run headrace train-extractor"
            )
    if num_trees and not 0 <= trees.features.min() <= trees.features.max() < columns:
        raise HeadraceError(
            f"the extractor's model reads column {trees.features.max()} of {columns}\n"
            "hint: run headrace train-extractor"
        )


@cache
def load_model() -> Model:
    """Load the model that ships with Headrace, once a process. Raises `HeadraceError` if its hash is another."""
    packed = resources.files("pipelines.main_content").joinpath(MODEL_FILE).read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != MODEL_SHA256:
        raise HeadraceError(
            f"{MODEL_FILE}: sha256 is {found}, expected {MODEL_SHA256}\nhint: install Headrace again, or put the "
            "hash of a model that you trained into pipelines/main_content/trees.py"
        )
    return unpack(packed)
