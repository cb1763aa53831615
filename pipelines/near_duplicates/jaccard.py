"""True Jaccard similarity of pairs of sets, in whole numbers."""

from __future__ import annotations

import numba
import numpy as np


def shared_counts(
    first_offsets: np.ndarray, first_hashes: np.ndarray, second_offsets: np.ndarray, second_hashes: np.ndarray,
    first_rows: np.ndarray, second_rows: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Return how many hashes the sets `first_rows[k]` and `second_rows[k]` of pair k share: int64 (pairs,).

    Offsets and hashes are those of `shingles.shingle_sets`; rows are int64 (pairs,). Costs the sum of the sets' sizes.
    """
    shared = np.zeros(len(first_rows), np.int64)
    _shared_counts(first_offsets, first_hashes, second_offsets, second_hashes, first_rows, second_rows, shared)
    return shared


def meets(shared: np.ndarray, first_size: np.ndarray, second_size: np.ndarray, threshold: int) -> np.ndarray:
    """Return for which pairs the Jaccard similarity is at least `threshold` (in 1/10,000): bool (pairs,).

    Nothing is rounded: `shared * 10,000 >= threshold * union`, for sets of up to 2^48 hashes. Two empty sets meet no
    threshold.
    """
    shared, union = shared.astype(np.int64), first_size.astype(np.int64) + second_size - shared
    met: np.ndarray = shared * 10_000 >= threshold * union
    return met & (union > 0)


@numba.njit(nogil=True, cache=True)
def _shared_counts(
    first_offsets: np.ndarray, first_hashes: np.ndarray, second_offsets: np.ndarray, second_hashes: np.ndarray,
    first_rows: np.ndarray, second_rows: np.ndarray, shared: np.ndarray,
) -> None:  # fmt: skip
    for pair in range(len(first_rows)):
        at, end = first_offsets[first_rows[pair]], first_offsets[first_rows[pair] + 1]
        other, other_end = second_offsets[second_rows[pair]], second_offsets[second_rows[pair] + 1]
        num = 0
        while at < end and other < other_end:  # no branch but the loop's: which hash is less cannot be foreseen
            one, two = first_hashes[np.uint64(at)], second_hashes[np.uint64(other)]
            num += one == two
            at += one <= two
            other += two <= one
        shared[pair] = num
