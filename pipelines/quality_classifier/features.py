"""What the classifier sees of a text: its words and its pairs of neighbouring words, hashed into buckets.

Words are those of `pipelines/transforms/spans.py` (plain words by Unicode tables, letters of scripts without spaces one
by one, symbol words), with ASCII letters lower-cased. Every word is one feature, every word with the one before it
another: a text of w words has 2w - 1 features, with repeats. A feature is known by its bucket alone (the hashing trick,
Weinberger et al. 2009, arXiv 0902.2206), of which there are 2**bits; words that share a bucket share a weight.

One pass over the bytes of the column, in linear time whatever they are, with no Python for each word or row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from pipelines.transforms.hashing import HASH_START, hash_on
from pipelines.transforms.spans import CHUNK, START, STOP, read_words
from pipelines.transforms.words import byte_at, code_point_classes, text_view

VERSION = 1
"""Raised whenever a text gets other buckets: a model says for which it was trained."""

MIN_BITS, MAX_BITS = 8, 24

TOTAL, COUNT = range(2)
"""Columns of `weigh`."""

_NO_WORD = np.int64(0)
"""In the place of the hash of the word before the first; hashes that stand there are odd."""


def weigh(text: pa.Array, weights: np.ndarray) -> np.ndarray:
    """Return for every row of a `large_string` column the sum of its features' weights, and their number.

    `weights` is int16, shape (2**bits,). The result is int64, shape (rows, 2): `TOTAL`, `COUNT`. Null counts as empty.
    """
    offsets, data = text_view(text)
    sums = np.zeros((len(text), 2), np.int64)
    _weigh(offsets, data, code_point_classes(), weights, sums)
    return sums


def list_features(text: pa.Array, bits: int) -> SparseRows:
    """Return the features of every row of a `large_string` column, hashed into 2**bits buckets."""
    offsets, data = text_view(text)
    bounds, nothing = np.zeros(len(text) + 1, np.int64), np.zeros(0, np.int32)
    every = np.empty(_list(offsets, data, code_point_classes(), bits, nothing, bounds), np.int32)
    _list(offsets, data, code_point_classes(), bits, every, bounds)
    counts = np.empty(len(every), np.int32)
    num = _merge(bounds, every, counts)
    return SparseRows(bounds, every[:num].copy(), counts[:num].copy())


def weigh_rows(rows: SparseRows, weights: np.ndarray) -> np.ndarray:
    """Return what `weigh` returns for the texts of these rows."""
    sums = np.zeros((len(rows), 2), np.int64)
    _weigh_rows(rows.bounds, rows.buckets, rows.counts, weights, sums)
    return sums


@dataclasses.dataclass(frozen=True, slots=True)
class SparseRows:
    """The features of some texts: row r has the buckets `buckets[bounds[r]:bounds[r + 1]]`, as often as `counts`."""

    bounds: np.ndarray
    """int64, shape (rows + 1,)."""
    buckets: np.ndarray
    """int32, ascending within a row, each once."""
    counts: np.ndarray
    """int32."""

    def __len__(self) -> int:
        """How many texts."""
        return len(self.bounds) - 1

    def take(self, rows: np.ndarray) -> SparseRows:
        """Return some of the rows, in the order given."""
        sizes = np.diff(self.bounds)[rows]
        bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        places = np.arange(bounds[-1]) + np.repeat(self.bounds[rows] - bounds[:-1], sizes)
        return SparseRows(bounds, self.buckets[places], self.counts[places])

    @classmethod
    def joined(cls, parts: Sequence[SparseRows]) -> SparseRows:
        """Return the rows of all parts, in order."""
        sizes = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.bounds) for part in parts)])
        buckets = np.concatenate([np.zeros(0, np.int32), *(part.buckets for part in parts)])
        counts = np.concatenate([np.zeros(0, np.int32), *(part.counts for part in parts)])
        return cls(np.cumsum(sizes), buckets, counts)


@numba.njit(nogil=True, cache=True, inline="always")
def _word_hash(data: np.ndarray, start: int, stop: int) -> Any:
    """Hash a word's bytes, ASCII letters lower-cased."""
    hashed = HASH_START
    for place in range(start, stop):
        byte = byte_at(data, place)
        hashed = hash_on(hashed, byte | ((byte >= 0x41) & (byte <= 0x5A)) << 5)
    return hashed


@numba.njit(nogil=True, cache=True, inline="always")
def _bucket(hashed: Any, mask: int) -> Any:
    """Return the bucket of a hash: bits that every bit of it has a say in."""
    return (hash_on(hashed, hashed >> 32) >> 40) & mask


@numba.njit(nogil=True, cache=True)
def _find_buckets(
    data: np.ndarray, words: np.ndarray, num: int, before: Any, mask: int, buckets: np.ndarray
) -> tuple[int, Any]:
    """Fill `buckets` (int32) with those of the first `num` words and of their pairs; returns how many.

    `before` is the hash of the word before these, and the second thing returned that of the last one.

    Apart from the loop that looks weights up: there a processor waits for memory, many places at once if nothing in
    between depends on how long a word is.
    """
    found = 0
    for k in range(num):
        hashed = _word_hash(data, words[k, START], words[k, STOP])
        buckets[found] = _bucket(hashed, mask)
        found += 1
        if before != _NO_WORD:
            buckets[found] = _bucket(hash_on(before, hashed), mask)
            found += 1
        before = hashed | 1
    return found, before


@numba.njit(nogil=True, cache=True)
def _weigh(offsets: np.ndarray, data: np.ndarray, classes: np.ndarray, weights: np.ndarray, sums: np.ndarray) -> None:
    words, buckets, mask = np.empty((CHUNK + 1, 5), np.int64), np.empty(2 * CHUNK + 2, np.int32), len(weights) - 1
    for row in range(len(offsets) - 1):
        at, end, inside, before = offsets[row], offsets[row + 1], False, _NO_WORD
        total, count = 0, 0
        while at < end:
            num, at, inside = read_words(data, at, end, classes, inside, words)
            found, before = _find_buckets(data, words, num, before, mask, buckets)
            for k in range(found):
                total += weights[buckets[k]]
            count += found
        sums[row, TOTAL], sums[row, COUNT] = total, count


@numba.njit(nogil=True, cache=True)
def _list(
    offsets: np.ndarray, data: np.ndarray, classes: np.ndarray, bits: int, every: np.ndarray, bounds: np.ndarray
) -> int:
    """Fill `every` with buckets in the order of the text, if it has room, and `bounds`; returns how many there are."""
    words, buckets, mask = np.empty((CHUNK + 1, 5), np.int64), np.empty(2 * CHUNK + 2, np.int32), (1 << bits) - 1
    written = 0
    for row in range(len(offsets) - 1):
        at, end, inside, before = offsets[row], offsets[row + 1], False, _NO_WORD
        while at < end:
            num, at, inside = read_words(data, at, end, classes, inside, words)
            found, before = _find_buckets(data, words, num, before, mask, buckets)
            if len(every):
                every[written : written + found] = buckets[:found]
            written += found
        bounds[row + 1] = written
    return written


@numba.njit(nogil=True, cache=True)
def _merge(bounds: np.ndarray, every: np.ndarray, counts: np.ndarray) -> int:
    """Sort each row's buckets and count equal ones, in place; moves `bounds` along and returns how many are left."""
    kept, first = 0, 0
    for row in range(len(bounds) - 1):
        last = bounds[row + 1]
        own = np.sort(every[first:last])
        first, begin = last, kept
        for k in range(len(own)):
            if kept > begin and every[kept - 1] == own[k]:
                counts[kept - 1] += 1
            else:
                every[kept], counts[kept] = own[k], 1
                kept += 1
        bounds[row + 1] = kept
    return kept


@numba.njit(nogil=True, cache=True)
def _weigh_rows(
    bounds: np.ndarray, buckets: np.ndarray, counts: np.ndarray, weights: np.ndarray, sums: np.ndarray
) -> None:
    for row in range(len(sums)):
        total, count = 0, 0
        for k in range(bounds[row], bounds[row + 1]):
            total += np.int64(weights[buckets[k]]) * counts[k]
            count += counts[k]
        sums[row, TOTAL], sums[row, COUNT] = total, count
