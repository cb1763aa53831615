"""Shared hashes against Python's sets, and thresholds in whole numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.near_duplicates.jaccard import meets, shared_counts

few = st.integers(0, 40) | st.integers(2**64 - 5, 2**64 - 1)
sets = st.lists(st.frozensets(few, max_size=30), min_size=1, max_size=6)


def flat(some: list[frozenset[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, some)]).astype(np.int64)
    return offsets, np.array([value for one in some for value in sorted(one)], np.uint64)


@settings(deadline=None)
@given(sets, sets)
def test_shared_counts_are_those_of_sets(first: list[frozenset[int]], second: list[frozenset[int]]) -> None:
    pairs = [(row, other) for row in range(len(first)) for other in range(len(second))][::-1]
    rows, others = np.array(pairs, np.int64).T
    shared = shared_counts(*flat(first), *flat(second), rows, others)
    assert shared.dtype == np.int64
    assert shared.tolist() == [len(first[row] & second[other]) for row, other in pairs]


def test_no_pairs() -> None:
    none = np.zeros(0, np.int64)
    assert shared_counts(*flat([frozenset({1})]), *flat([frozenset({1})]), none, none).tolist() == []


@settings(deadline=None)
@given(st.integers(0, 2**46), st.integers(0, 2**46), st.integers(0, 2**46), st.integers(0, 10_000))
def test_meets_is_exact(shared: int, first: int, second: int, threshold: int) -> None:
    """Against fractions, at sizes where a float would be wrong too."""
    union = shared + first + second
    expected = union > 0 and Fraction(shared, union) >= Fraction(threshold, 10_000)
    sizes = np.array([[shared], [shared + first], [shared + second]], np.int64)
    assert meets(sizes[0], sizes[1], sizes[2], threshold).tolist() == [expected]


def test_meets_at_the_threshold() -> None:
    """3 of 4 is 0.75 and not a hair more; sets without a shingle are no duplicates of each other."""
    shared, first, second = np.array([3, 3, 0]), np.array([3, 3, 0]), np.array([4, 4, 0])
    assert meets(shared, first, second, 7_500).tolist() == [True, True, False]
    assert meets(shared, first, second, 7_501).tolist() == [False, False, False]
    assert meets(np.array([0, 0]), np.array([1, 0]), np.array([1, 0]), 0).tolist() == [True, False]
