"""Large lists of strings that kernels look spans of bytes up in: sorted 64-bit hashes, and the strings to be sure.

4.6 million domains take 16 bytes each for hash and offset, and their own bytes; a Python set would take 100 each. A hit
is compared byte by byte, so that a collision costs time and never a verdict.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.transforms.hashing import HASH_START, hash_on, key_of
from pipelines.transforms.words import text_view

TOP_BITS = 16
"""Hashes that agree in these are found by one look at `starts`."""

ListArrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""`starts`, `hashes`, offsets and bytes of the entries."""


@dataclasses.dataclass(frozen=True, slots=True)
class HashedList:
    """Different entries in the order of their hashes."""

    entries: pa.LargeStringArray
    arrays: ListArrays

    @classmethod
    def of(cls, entries: pa.Array) -> HashedList:
        """Prepare a `large_string` column without nulls; entries that occur twice are kept once."""
        entries = pc.unique(entries)
        hashes = _hashes(*text_view(entries))
        order = np.argsort(hashes.view(np.uint64), kind="stable")
        entries, hashes = entries.take(pa.array(order)), hashes[order]
        edges = np.arange(1 << TOP_BITS, dtype=np.uint64) << np.uint64(64 - TOP_BITS)
        starts = np.append(np.searchsorted(hashes.view(np.uint64), edges), len(hashes)).astype(np.int64)
        offsets, data = text_view(entries)
        return cls(entries, (starts, hashes, offsets, data))

    def __getitem__(self, place: int) -> str:
        """Return the entry at a place."""
        entry: str = self.entries[place].as_py()
        return entry

    def __len__(self) -> int:
        return len(self.entries)


@numba.njit(nogil=True, cache=True)
def _hashes(offsets: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Return the hash of every entry: int64, shape (entries,)."""
    hashes = np.empty(len(offsets) - 1, np.int64)
    for k in range(len(hashes)):
        hashed = HASH_START
        for at in range(offsets[k], offsets[k + 1]):
            hashed = hash_on(hashed, data[at])
        hashes[k] = key_of(hashed)
    return hashes


@numba.njit(nogil=True, cache=True)
def find_span(data: np.ndarray, start: int, stop: int, lists: ListArrays) -> int:
    """Return the place of the entry that `data[start:stop]` is, or -1."""
    hashed = HASH_START
    for at in range(start, stop):
        hashed = hash_on(hashed, data[at])
    return find_hashed(data, start, stop, hashed, lists)


@numba.njit(nogil=True, cache=True)
def find_hashed(data: np.ndarray, start: int, stop: int, hashed: Any, lists: ListArrays) -> int:
    """Return what `find_span` does; `hashed` is `hash_on` of the span's bytes, from `HASH_START` on."""
    starts, hashes, offsets, entries = lists
    key = key_of(hashed)
    top = np.int64(np.uint64(key) >> np.uint64(64 - TOP_BITS))
    for k in range(starts[top], starts[top + 1]):
        if hashes[k] == key and offsets[k + 1] - offsets[k] == stop - start:
            at = 0
            while at < stop - start and entries[offsets[k] + at] == data[start + at]:
                at += 1
            if at == stop - start:
                return k
    return -1
