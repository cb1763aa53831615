"""Hashes tell texts apart, and the table is a set of keys that bounds what it looks at."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.transforms.hashing import PROBES, find_key, hash_bytes, key_of, table_size


@settings(deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_hashes_of_bytes_tell_texts_apart(left, right):
    data = np.frombuffer(left + right, np.uint8)
    hashes = hash_bytes(data, 0, len(left)), hash_bytes(data, len(left), len(data))
    assert (hashes[0] == hashes[1]) == (left == right)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=60), st.integers(0, 3))
def test_the_table_is_a_set(keys, spread):
    """Against Python's dict, keys that want one place among them."""
    size = table_size(len(keys))
    assert size & (size - 1) == 0
    assert size >= max(16, 2 * len(keys))
    table, seen = np.zeros(2 * size, np.int64), {}
    for number in keys:
        key = number + 1 << spread * 8
        place = find_key(table, size - 1, key)
        assert (place >= 0) == (key in seen)
        if place >= 0:
            assert seen[key] == place
        else:
            assert 0 <= -1 - place < size
            table[-1 - place] = seen[key] = key
            seen[key] = -1 - place


def test_a_key_that_finds_no_place_near_is_not_kept():
    """PROBES keys that want the same place fill what is looked at; the next one is told so by a place that is none."""
    size = table_size(PROBES + 1)
    table = np.zeros(size, np.int64)
    for k in range(1, PROBES + 1):
        table[-1 - find_key(table, size - 1, k * size)] = k * size
    assert find_key(table, size - 1, (PROBES + 1) * size) == -1 - size
    assert find_key(table, size - 1, PROBES * size) == PROBES - 1
    assert find_key(table, size - 1, 7) == -1 - PROBES  # the first empty place is one that it looks at
    assert key_of(0) != 0
