"""An open hash table of 64-bit keys for kernels: an array, a mask and two functions."""

from __future__ import annotations

import numba
import numpy as np

from pipelines.transforms.spans import MULTIPLIER

PROBES = 64
"""Places that are looked at for one key. It bounds what a text can cost that was made to collide; in a table that is
half empty a key finds a place in two."""


@numba.njit(nogil=True, cache=True)
def table_size(num: int) -> int:
    """Return a power of two that leaves at least half of a table of `num` keys empty."""
    size = 16
    while size < 2 * num:
        size *= 2
    return size


@numba.njit(nogil=True, cache=True, inline="always")
def key_of(hashed: int) -> int:
    """Return a hash whose low bits depend on all of its bits; never 0, which marks an empty place."""
    hashed = (hashed ^ (hashed >> 29)) * MULTIPLIER
    hashed ^= hashed >> 32
    return hashed if hashed != 0 else 1


@numba.njit(nogil=True, cache=True, inline="always")
def find_key(keys: np.ndarray, mask: int, key: int) -> int:
    """Return the place of a key in the table, or -1 - (the place for it); -1 - len(keys) if none is near enough.

    The table are the first `mask + 1` entries of `keys`, 0 where empty.
    """
    place = key & mask
    for _ in range(PROBES):
        if keys[place] == key:
            return place
        if keys[place] == 0:
            return -1 - place
        place = (place + 1) & mask
    return -1 - len(keys)
