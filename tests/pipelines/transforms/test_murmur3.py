"""The published function: vectors, and the same in Python's own integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.transforms.murmur3 import hash_128

ONES = 2**64 - 1


def hashed(data: bytes, seed: int = 0) -> str:
    """Return the hash of bytes that lie within others, in hex."""
    array = np.frombuffer(b"\xff\xfe" + data + b"\xfd\xfc", np.uint8)
    high, low = hash_128(array, 2, 2 + len(data), np.uint64(seed))
    return f"{int(high):016x}{int(low):016x}"


def rotated(word: int, by: int) -> int:
    return (word << by | word >> (64 - by)) & ONES


def finished(word: int) -> int:
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        word = (word ^ word >> 33) * multiplier & ONES
    return word ^ word >> 33


def expected(data: bytes, seed: int = 0) -> str:
    """Return what the description of the function says: whole blocks, the tail, the finalizer."""
    one, two = 0x87C37B91114253D5, 0x4CF5AD432745937F
    high = low = seed
    whole = len(data) // 16 * 16
    for at in range(0, len(data), 16):
        first, second = (int.from_bytes(data[place : place + 8], "little") for place in (at, at + 8))
        high ^= rotated(first * one & ONES, 31) * two & ONES
        if at < whole:
            high = ((rotated(high, 27) + low) * 5 + 0x52DCE729) & ONES
        low ^= rotated(second * two & ONES, 33) * one & ONES
        if at < whole:
            low = ((rotated(low, 31) + high) * 5 + 0x38495AB5) & ONES
    high, low = high ^ len(data), low ^ len(data)
    high = (high + low) & ONES
    low = (low + high) & ONES
    high, low = finished(high), finished(low)
    high = (high + low) & ONES
    return f"{high:016x}{(low + high) & ONES:016x}"


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", "00000000000000000000000000000000"),
        (b"hello", "cbd8a7b341bd9b025b1e906a48ae1d19"),
        (b"The quick brown fox jumps over the lazy dog", "e34bbc7bbc071b6c7a433ca9c49a9347"),
    ],
)
def test_published_vectors(data, digest):
    assert hashed(data) == digest == expected(data)


@given(st.binary(max_size=70), st.integers(0, ONES))
def test_every_length_and_seed(data, seed):
    assert hashed(data, seed) == expected(data, seed)


def test_every_byte_counts():
    """Of each length one byte changed at each place, and one byte more: all hashes differ."""
    data = bytes(range(1, 50))
    changed = {data[:place] + b"\xff" + data[place + 1 :] for place in range(len(data))}
    cut = {data[:size] for size in range(len(data))}
    assert len({hashed(one) for one in changed | cut | {data}}) == len(changed | cut) + 1
