"""Hashes for kernels, and an open hash table of 64-bit keys: an array, a mask and two functions.

Hashes are int64 wherever they are handed on (`Any` to mypy, which takes numpy's int64 for another type). They are
multiplied as uint64 only: a product of int64 that overflows is undefined in what numba compiles to, and does come out
as the largest int64.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

MULTIPLIER = np.uint64(0x2127599BF4325C37)
"""An odd number without a pattern in its bits."""
HASH_START = np.int64(0x517CC1B727220A95)

PROBES = 64
"""Places that are looked at for one key. It bounds what a text can cost that was made to collide; in a table that is
half empty a key finds a place in two."""


@numba.njit(nogil=True, cache=True, inline="always")
def hash_on(hashed: Any, value: Any) -> Any:
    """Return the hash of what `hashed` is the hash of, followed by `value`."""
    return np.int64((np.uint64(hashed) ^ np.uint64(value)) * MULTIPLIER)


@numba.njit(nogil=True, cache=True)
def hash_bytes(data: np.ndarray, start: int, stop: int) -> Any:
    """Return a hash of `data[start:stop]`, in four strands that do not wait for each other."""
    first, second, third, fourth = HASH_START, HASH_START, HASH_START, HASH_START
    at = start
    while at + 4 <= stop:
        first = hash_on(first, data[at])
        second = hash_on(second, data[at + 1])
        third = hash_on(third, data[at + 2])
        fourth = hash_on(fourth, data[at + 3])
        at += 4
    while at < stop:
        first = hash_on(first, data[at])
        at += 1
    hashed = hash_on(key_of(first), key_of(second))
    return hash_on(hash_on(hash_on(hashed, key_of(third)), key_of(fourth)), stop - start)


@numba.njit(nogil=True, cache=True, inline="always")
def key_of(hashed: Any) -> Any:
    """Return a hash whose low bits depend on all of its bits; never 0, which marks an empty place."""
    bits = np.uint64(hashed)
    bits = (bits ^ (bits >> np.uint64(29))) * MULTIPLIER
    bits ^= bits >> np.uint64(32)
    key = np.int64(bits)
    return key if key != 0 else 1


@numba.njit(nogil=True, cache=True)
def table_size(num: int) -> int:
    """Return a power of two that leaves at least half of a table of `num` keys empty."""
    size = 16
    while size < 2 * num:
        size *= 2
    return size


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
