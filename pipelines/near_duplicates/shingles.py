"""Shingles of a text: the n-grams by which near-duplicates are compared.

The *normal form* of a text, whatever its script:

- Letters and digits (general categories L and N of `words.py`) are folded one to one: to the base letter of their
  compatibility decomposition (NFKD) without marks, in lower case. One whose decomposition has several base letters
  (a ligature, a Hangul syllable, a fraction) only becomes lower case, or stays.
- Marks, and letters that decompose into marks only, are skipped, as if they were not there.
- A *word* is a maximal run of letters and digits; everything else separates words. In scripts written without spaces
  (`words.UNSPACED`) every letter is a word.

A *word shingle* are n words in a row. A *character shingle* are n code points in a row of the words with one space
between them. A text with fewer than n units has one shingle of all of them, a text without words none.

A shingle's hash is a polynomial over its units, so that it is rolled on from place to place at a cost that does not
depend on n: `finish(sum over k of unit[k] * BASE^(n - 1 - k))` mod 2^64. A unit is `finish(h)`, where h starts at 0
and `h = (h ^ c) * MULTIPLIER` for each folded code point c of a word, or for the one code point of a character.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from pipelines.near_duplicates.presets import MOST_NGRAM, check_shingles
from pipelines.transforms.hashing import MULTIPLIER
from pipelines.transforms.words import LETTER, MARK, NUMBER, UNSPACED, code_point_classes, next_code_point, text_view

SEPARATOR, SKIPPED = 0, 1
"""Forms of code points that belong to no word, and of those that are not there."""
ALONE = 1 << 21
"""A bit of the form of a letter that is a word of its own; the bits below are the folded code point."""
BASE = np.uint64(0x9E6C63D0876A9A4D)
"""Base of the polynomial, without a pattern in its bits; 5 mod 8, so that its powers differ as long as they can."""

CHUNK = 2_048
"""Units that are read before they are looked at: they stay in the processor's cache, whatever the text's length."""
UNITS = MOST_NGRAM + CHUNK + 4
"""Places of the buffer of units: those of the last shingle, a chunk, and what one step may add past its end."""


@cache
def code_point_forms() -> np.ndarray:
    """Return the form of every code point: `SEPARATOR`, `SKIPPED` or the folded code point, perhaps with `ALONE`.

    int32, shape (0x110000,). Decompositions and lower case of a code point that Unicode 14.0.0 assigns are the same in
    later versions, and no other code point is looked up.
    """
    classes = code_point_classes()
    forms = np.zeros(0x110000, np.int32)
    forms[(classes & MARK) != 0] = SKIPPED
    for point in np.flatnonzero(classes & (LETTER | NUMBER)).tolist():
        forms[point] = _fold(point)
    forms[((classes & UNSPACED) != 0) & (forms > SKIPPED)] |= ALONE
    forms.setflags(write=False)
    return forms


def _fold(point: int) -> int:
    letter = chr(point)
    parts = unicodedata.normalize("NFKD", letter)
    if parts == letter:
        lower = letter.lower()
        if lower == letter:
            return point
        parts = unicodedata.normalize("NFKD", lower)
    else:
        parts = unicodedata.normalize("NFKD", parts.lower())
    bases = [part for part in parts if unicodedata.category(part)[0] != "M"]
    if not bases:
        return SKIPPED
    if len(bases) > 1:
        bases = [part for part in letter.lower() if unicodedata.category(part)[0] != "M"]
    return ord(bases[0]) if len(bases) == 1 else point


def shingle_sets(text: pa.Array, unit: str, ngram: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sets of shingles of a `large_string` column: offsets int64 (rows + 1,), hashes uint64.

    Row r has `hashes[offsets[r]:offsets[r + 1]]`, ascending and distinct; a null row is read as empty. The cost is
    linear in the text but for the sorting. Raises `RecipeError` for a unit other than "word" and "character" and for
    `ngram` out of range.
    """
    check_shingles(unit, ngram)
    offsets, data = text_view(text)
    ends = np.zeros(len(text) + 1, np.int64)
    hashes = _shingle_sets(offsets, data, code_point_forms(), unit == "word", ngram, ends)
    return ends, hashes


@numba.njit(nogil=True, cache=True)
def _shingle_sets(
    offsets: np.ndarray, data: np.ndarray, forms: np.ndarray, by_word: bool, ngram: int, ends: np.ndarray
) -> np.ndarray:
    units, power = np.zeros(UNITS, np.uint64), base_power(ngram)
    hashes = np.empty(CHUNK + 4 + (offsets[-1] - offsets[0]) // 4, np.uint64)
    num = 0
    for row in range(len(offsets) - 1):
        at, end, seen, rolled, inside, first = offsets[row], offsets[row + 1], 0, np.uint64(0), False, num
        units[:MOST_NGRAM] = 0
        while at < end:
            if num + CHUNK + 4 > len(hashes):
                larger = np.empty(2 * len(hashes) + CHUNK + 4, np.uint64)
                larger[:num] = hashes[:num]
                hashes = larger
            num, at, seen, rolled, inside = read_shingles(
                data, at, end, forms, by_word, ngram, power, units, seen, rolled, inside, hashes, num
            )
        hashes[first:num].sort()
        distinct = first
        for k in range(first, num):
            if k == first or hashes[k] != hashes[k - 1]:
                hashes[distinct] = hashes[k]
                distinct += 1
        num = distinct
        ends[row + 1] = num
    return hashes[:num].copy()


@numba.njit(nogil=True, cache=True, inline="always")
def finish(hashed: Any) -> Any:
    """Return uint64 bits that all depend on all bits of `hashed`; a one-to-one map."""
    bits = np.uint64(hashed)
    bits = (bits ^ (bits >> np.uint64(29))) * MULTIPLIER
    return bits ^ (bits >> np.uint64(32))


@numba.njit(nogil=True, cache=True)
def base_power(ngram: int) -> Any:
    """Return BASE^ngram mod 2^64: the factor of the unit that leaves a shingle."""
    power = np.uint64(1)
    for _ in range(ngram):
        power *= BASE
    return power


@numba.njit(nogil=True, cache=True)
def read_shingles(
    data: np.ndarray, at: int, end: int, forms: np.ndarray, by_word: bool, ngram: int, power: Any, units: np.ndarray,
    seen: int, rolled: Any, inside: bool, shingles: np.ndarray, num: int,
) -> tuple[int, int, int, Any, bool]:  # fmt: skip
    """Write the hashes of the next shingles of `data[at:end]` from `shingles[num]` on: at most CHUNK + 4.

    Returns the new `num`, and the state to go on with: at, seen (units before), rolled, inside (a word). The state of
    a text's beginning is 0, 0, False, with zeros in `units[:MOST_NGRAM]` (uint64, (UNITS,)), where the last units stay.
    """
    if by_word:
        found, at = _read_words(data, at, end, forms, units)
    else:
        found, at, inside = _read_characters(data, at, end, forms, inside, seen > 0, units)
    for k in range(found):
        rolled = rolled * BASE + (units[MOST_NGRAM + k] - units[MOST_NGRAM + k - ngram] * power)
        shingles[num] = finish(rolled)
        num += seen + k + 1 >= ngram
    seen += found
    for k in range(MOST_NGRAM):
        units[k] = units[k + found]
    if at == end and seen > 0 and seen < ngram:
        shingles[num] = finish(rolled)
        num += 1
    return num, at, seen, rolled, inside


@numba.njit(nogil=True, cache=True)
def _read_words(data: np.ndarray, at: int, end: int, forms: np.ndarray, units: np.ndarray) -> tuple[int, int]:
    """Write the words of `data[at:end]` behind the last units, about a CHUNK; returns how many, and where to go on."""
    place, most = MOST_NGRAM, MOST_NGRAM + CHUNK
    hashed, inside = np.uint64(0), 0
    while at < end and place < most:
        code_point, at = next_code_point(data, at, end)
        form = np.int64(forms[code_point])
        if form == SKIPPED:
            continue
        if form == SEPARATOR or form & ALONE:
            units[place] = finish(hashed)
            place += inside
            hashed, inside = np.uint64(0), 0
            if form:
                units[place] = finish(np.uint64(form & ~ALONE) * MULTIPLIER)
                place += 1
        else:
            hashed, inside = (hashed ^ np.uint64(form)) * MULTIPLIER, 1
    units[place] = finish(hashed)
    return place + inside - MOST_NGRAM, at


@numba.njit(nogil=True, cache=True)
def _read_characters(
    data: np.ndarray, at: int, end: int, forms: np.ndarray, inside: bool, begun: bool, units: np.ndarray
) -> tuple[int, int, bool]:
    """Write the characters of the normal form behind the last units, about a CHUNK; `begun`: some were before."""
    place, most = MOST_NGRAM, MOST_NGRAM + CHUNK
    while at < end and place < most:
        code_point, at = next_code_point(data, at, end)
        form = np.int64(forms[code_point])
        if form == SKIPPED:
            continue
        alone = form & ALONE != 0
        if form == SEPARATOR:
            inside = False
            continue
        if (alone or not inside) and (begun or place > MOST_NGRAM):
            units[place] = finish(np.uint64(0x20) * MULTIPLIER)
            place += 1
        units[place] = finish(np.uint64(form & ~ALONE) * MULTIPLIER)
        place += 1
        inside = not alone
    return place - MOST_NGRAM, at, inside
