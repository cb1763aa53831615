"""MinHash signatures of texts, and the keys of their bands.

A shingle's hash x (its lower 32 bits) is hashed by `h_j(x) = a_j * x + b_j` mod 2^32, a_j odd: a one-to-one map, whose
products fit the lanes of a vector register. A signature are the minima of all h_j over a text's shingles; two texts'
minima agree with the probability of their Jaccard similarity. a_j and b_j are the lower and upper half of the j-th
number that splitmix64 (Steele, Lea and Flood 2014) makes of the seed.

Shingles that occur twice are hashed twice, as a minimum does not change by that: a signature is made in one pass over
the text, without a set.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pyarrow as pa

from pipelines.near_duplicates.presets import Shape
from pipelines.near_duplicates.shingles import (
    CHUNK,
    STEP,
    UNITS,
    base_power,
    code_point_forms,
    forget_units,
    read_shingles,
)
from pipelines.transforms.words import text_view

NO_SHINGLE = np.uint32(0xFFFFFFFF)
"""All hashes of a signature of nothing."""
LANES = 32
"""Shingles are hashed by so many at a time; the last ones are filled up with one that was there."""
KEY_BYTES = 16
MOST_SIGNATURE_BYTES = 1 << 24
"""Signatures that `text_band_keys` holds at a time."""


def signatures(text: pa.Array, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Return the signatures of a `large_string` column, uint32 (rows, num_hashes), and how many shingles each row has.

    The numbers (int64, (rows,)) count a shingle as often as it occurs. A row without one (null, or no word) has a
    signature of `NO_SHINGLE` only.
    """
    offsets, data = text_view(text)
    factors, terms = hash_functions(shape)
    minima = np.full((len(text), shape.num_hashes), NO_SHINGLE, np.uint32)
    numbers = np.zeros(len(text), np.int64)
    by_word = shape.unit == "word"
    _text_signatures(offsets, data, code_point_forms(), by_word, shape.ngram, factors, terms, minima, numbers)
    return minima, numbers


def set_signatures(offsets: np.ndarray, hashes: np.ndarray, shape: Shape) -> np.ndarray:
    """Return the signatures, uint32 (rows, num_hashes), of sets as `shingles.shingle_sets` returns them."""
    factors, terms = hash_functions(shape)
    minima = np.full((len(offsets) - 1, shape.num_hashes), NO_SHINGLE, np.uint32)
    _set_signatures(offsets, hashes, factors, terms, minima)
    return minima


def band_keys(signatures: np.ndarray, shape: Shape, scopes: np.ndarray) -> np.ndarray:
    """Return the keys of all bands: uint8 (rows, bands, 16).

    A key are 128 well mixed bits of the row's scope (uint64, (rows,)), the band's number and its hashes: rows of one
    scope that agree in a band have the same key, others have not. Its first bytes are uniform.
    """
    keys = np.empty((len(signatures), shape.bands, KEY_BYTES // 8), np.uint64)
    _band_keys(signatures, shape.bands, shape.rows, np.ascontiguousarray(scopes, np.uint64), keys)
    return keys.astype("<u8", copy=False).view(np.uint8)


def text_band_keys(text: pa.Array, shape: Shape, scopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `band_keys` of a text column, and how many shingles each row has; holds few signatures at a time."""
    rows = max(1, MOST_SIGNATURE_BYTES // (4 * shape.num_hashes))
    keys = np.empty((len(text), shape.bands, KEY_BYTES), np.uint8)
    numbers = np.empty(len(text), np.int64)
    for first in range(0, len(text), rows):
        chosen = slice(first, first + rows)
        minima, numbers[chosen] = signatures(text.slice(first, rows), shape)
        keys[chosen] = band_keys(minima, shape, scopes[chosen])
    return keys, numbers


def hash_functions(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Return a_j and b_j of a shape's hash functions, both uint32 (num_hashes,)."""
    numbers = _random_numbers(np.uint64(shape.seed), shape.num_hashes)
    return numbers.astype(np.uint32) | np.uint32(1), (numbers >> np.uint64(32)).astype(np.uint32)


@numba.njit(nogil=True, cache=True, inline="always")
def _mix(bits: Any) -> Any:
    """Return the finalizer of splitmix64: a one-to-one map of uint64."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def _random_numbers(seed: Any, num: int) -> np.ndarray:
    """Return the first numbers of splitmix64. The seed is mixed first: seeds in a row make no shifted sequences."""
    start = _mix(seed)
    numbers = np.empty(num, np.uint64)
    for j in range(num):
        numbers[j] = _mix(start + np.uint64(j + 1) * np.uint64(0x9E3779B97F4A7C15))
    return numbers


@numba.njit(nogil=True, cache=True)
def _text_signatures(
    offsets: np.ndarray, data: np.ndarray, forms: np.ndarray, by_word: bool, ngram: int, factors: np.ndarray,
    terms: np.ndarray, minima: np.ndarray, numbers: np.ndarray,
) -> None:  # fmt: skip
    units, power = np.zeros(UNITS, np.uint64), base_power(ngram)
    shingles, lanes = np.empty(STEP, np.uint64), np.empty(STEP + LANES, np.uint32)
    for row in range(len(offsets) - 1):
        at, end, seen, rolled, inside = offsets[row], offsets[row + 1], 0, np.uint64(0), False
        forget_units(units)
        while at < end:
            num, at, seen, rolled, inside = read_shingles(
                data, at, end, forms, by_word, ngram, power, units, seen, rolled, inside, shingles, 0
            )
            _lower_minima(shingles, 0, num, lanes, factors, terms, minima, row)
            numbers[row] += num


@numba.njit(nogil=True, cache=True)
def _set_signatures(
    offsets: np.ndarray, hashes: np.ndarray, factors: np.ndarray, terms: np.ndarray, minima: np.ndarray
) -> None:
    lanes = np.empty(CHUNK + LANES, np.uint32)
    for row in range(len(offsets) - 1):
        for first in range(offsets[row], offsets[row + 1], CHUNK):
            _lower_minima(
                hashes, first, min(CHUNK, offsets[row + 1] - first), lanes, factors, terms, minima, row
            )  # fmt: skip


@numba.njit(nogil=True, cache=True)
def _lower_minima(
    shingles: np.ndarray, first: int, num: int, lanes: np.ndarray, factors: np.ndarray, terms: np.ndarray,
    minima: np.ndarray, row: int,
) -> None:  # fmt: skip
    """Lower a row's minima by the hashes of `shingles[first:first + num]`."""
    if num == 0:
        return
    for k in range(num):
        lanes[k] = np.uint32(shingles[first + k])
    padded = (num + LANES - 1) // LANES * LANES
    for k in range(num, padded):
        lanes[k] = lanes[0]
    for j in range(len(factors)):
        factor, term, least = factors[j], terms[j], minima[row, j]
        for k in range(padded):
            hashed = np.uint32(factor * lanes[k] + term)
            least = min(least, hashed)
        minima[row, j] = least


@numba.njit(nogil=True, cache=True)
def _band_keys(signatures: np.ndarray, bands: int, rows: int, scopes: np.ndarray, keys: np.ndarray) -> None:
    """Chain two hashes over scope, band and hashes, a word of two hashes a step."""
    for row in range(len(signatures)):
        scope = _mix(scopes[row] + np.uint64(0x9E3779B97F4A7C15))
        for band in range(bands):
            first = _mix(scope ^ np.uint64(band))
            second = _mix(first + np.uint64(0x9E3779B97F4A7C15))
            for j in range(band * rows, (band + 1) * rows):
                value = np.uint64(signatures[row, j])
                first = (first ^ value) * np.uint64(0xBF58476D1CE4E5B9)
                first ^= first >> np.uint64(32)
                second = (second ^ value) * np.uint64(0x94D049BB133111EB)
                second ^= second >> np.uint64(29)
            keys[row, band, 0] = _mix(first)
            keys[row, band, 1] = _mix(second)
