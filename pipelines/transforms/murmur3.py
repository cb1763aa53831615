"""MurmurHash3 (x64, 128 bits) for kernels: where 64 bits are too few to take equal hashes for equal bytes.

Austin Appleby, 2011, public domain. A hash is two uint64, the first being the high half where the hash is written as 16
bytes, big endian. Begun from two zeros it is the published function with seed 0.
"""

from __future__ import annotations

import numba
import numpy as np

_FIRST, _SECOND = np.uint64(0x87C37B91114253D5), np.uint64(0x4CF5AD432745937F)
_FIVE, _ADD_HIGH, _ADD_LOW = np.uint64(5), np.uint64(0x52DCE729), np.uint64(0x38495AB5)
_FINAL_FIRST, _FINAL_SECOND = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)


@numba.njit(nogil=True, cache=True, inline="always")
def _rotated(bits: np.uint64, by: int) -> np.uint64:
    return (bits << np.uint64(by)) | (bits >> np.uint64(64 - by))


@numba.njit(nogil=True, cache=True, inline="always")
def _mixed_low(word: np.uint64) -> np.uint64:
    return _rotated(word * _FIRST, 31) * _SECOND


@numba.njit(nogil=True, cache=True, inline="always")
def _mixed_high(word: np.uint64) -> np.uint64:
    return _rotated(word * _SECOND, 33) * _FIRST


@numba.njit(nogil=True, cache=True, inline="always")
def hash_block(high: np.uint64, low: np.uint64, first: np.uint64, second: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return the state (high, low) after a block of 16 bytes, given as two words, little endian."""
    high = (_rotated(high ^ _mixed_low(first), 27) + low) * _FIVE + _ADD_HIGH
    low = (_rotated(low ^ _mixed_high(second), 31) + high) * _FIVE + _ADD_LOW
    return high, low


@numba.njit(nogil=True, cache=True, inline="always")
def _finished(bits: np.uint64) -> np.uint64:
    bits = (bits ^ (bits >> np.uint64(33))) * _FINAL_FIRST
    bits = (bits ^ (bits >> np.uint64(33))) * _FINAL_SECOND
    return bits ^ (bits >> np.uint64(33))


@numba.njit(nogil=True, cache=True, inline="always")
def finish_hash(high: np.uint64, low: np.uint64, size: int) -> tuple[np.uint64, np.uint64]:
    """Return the hash of the `size` bytes whose state is (high, low)."""
    high, low = high ^ np.uint64(size), low ^ np.uint64(size)
    high += low
    low += high
    high, low = _finished(high), _finished(low)
    high += low
    return high, low + high


@numba.njit(nogil=True, cache=True, inline="always")
def _word(data: np.ndarray, at: np.uint64) -> np.uint64:
    """Return 8 bytes, little endian. Unsigned places have no wraparound, so that this is one load."""
    word = np.uint64(data[at])
    for k in range(1, 8):
        word |= np.uint64(data[at + np.uint64(k)]) << np.uint64(8 * k)
    return word


@numba.njit(nogil=True, cache=True)
def hash_128(data: np.ndarray, start: int, stop: int, seed: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return the hash (high, low) of `data[start:stop]`, whose state begins as (seed, seed)."""
    high, low = seed, seed
    at, size = np.uint64(start), stop - start
    for _ in range(size >> 4):
        high, low = hash_block(high, low, _word(data, at), _word(data, at + np.uint64(8)))
        at += np.uint64(16)
    left = size & 15
    first, second = np.uint64(0), np.uint64(0)
    for k in range(left):
        byte = np.uint64(data[at + np.uint64(k)])
        if k < 8:
            first |= byte << np.uint64(8 * k)
        else:
            second |= byte << np.uint64(8 * (k - 8))
    # words without a byte are 0, which changes nothing
    low ^= _mixed_high(second)
    high ^= _mixed_low(first)
    return finish_hash(high, low, size)
