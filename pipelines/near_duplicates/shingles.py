"""Shingles of a text: the n-grams by which near-duplicates are compared.

The *normal form* of a text, whatever its script:

- Letters and digits (general categories L and N of `words.py`) are folded one to one: to the base letter of their
  compatibility decomposition (NFKD) without marks, in lower case. One that decomposes into anything but one letter or
  digit (a ligature, a Hangul syllable, a fraction) only becomes lower case, or stays.
- Marks, and letters that decompose into marks only, are skipped, as if they were not there.
- A *word* is a maximal run of letters and digits; everything else separates words. In scripts written without spaces
  (`words.UNSPACED`) every letter is a word, and so is what is folded to one.

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
"""Places of the buffer of units: those of the last shingle, a chunk, and what one code point may add past its end."""
STEP = CHUNK + 4
"""Most shingles that `read_shingles` writes."""

DIGIT = 11
"""Bits by which hashes are sorted at a time."""
MOST_DIGITS = 1 << DIGIT
LAST_DIGIT = np.uint64(MOST_DIGITS - 1)
FEW = 32
"""Hashes of a bucket that are still sorted by insertion."""


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
    forms[(forms > SKIPPED) & (((classes | classes[forms]) & UNSPACED) != 0)] |= ALONE
    forms.setflags(write=False)
    return forms


def _fold(point: int) -> int:
    letter = chr(point)
    lower = letter.lower()
    if lower == letter and unicodedata.is_normalized("NFKD", letter):  # nearly all, and three times as fast
        return point
    bases = _bases(_bases(letter).lower())
    if not bases:
        return SKIPPED
    if len(bases) == 1 and unicodedata.category(bases)[0] in "LN":
        return ord(bases)
    return ord(lower) if len(lower) == 1 else point


def _bases(letters: str) -> str:
    """Return the compatibility decomposition of letters without the marks."""
    return "".join(part for part in unicodedata.normalize("NFKD", letters) if unicodedata.category(part)[0] != "M")


def shingle_sets(text: pa.Array, unit: str, ngram: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sets of shingles of a `large_string` column: offsets int64 (rows + 1,), hashes uint64.

    Row r has `hashes[offsets[r]:offsets[r + 1]]`, ascending and distinct; a null row is read as empty. The cost is
    linear in the text. Raises `RecipeError` for a unit other than "word" and "character", and for `ngram` out of range.
    """
    check_shingles(unit, ngram)
    offsets, data = text_view(text)
    ends = np.zeros(len(text) + 1, np.int64)
    hashes = _shingle_sets(offsets, data, code_point_forms(), unit == "word", ngram, ends)
    return ends, hashes[: ends[-1]].copy()


@numba.njit(nogil=True, cache=True)
def _shingle_sets(
    offsets: np.ndarray, data: np.ndarray, forms: np.ndarray, by_word: bool, ngram: int, ends: np.ndarray
) -> np.ndarray:
    units, power = np.zeros(UNITS, np.uint64), base_power(ngram)
    hashes = np.empty(STEP + (offsets[-1] - offsets[0]) // 4, np.uint64)
    sorting, counts = np.empty(STEP, np.uint64), np.empty(MOST_DIGITS, np.int64)
    num = 0
    for row in range(len(offsets) - 1):
        at, end, seen, rolled, inside, first = offsets[row], offsets[row + 1], 0, np.uint64(0), False, num
        forget_units(units)
        while at < end:
            if num + STEP > len(hashes):
                larger = np.empty(2 * len(hashes), np.uint64)
                for k in range(num):
                    larger[k] = hashes[k]
                hashes = larger
            num, at, seen, rolled, inside = read_shingles(
                data, at, end, forms, by_word, ngram, power, units, seen, rolled, inside, hashes, num
            )
        if num - first > len(sorting):
            sorting = np.empty(2 * (num - first), np.uint64)
        num = _sort_distinct(hashes, first, num, sorting, counts)
        ends[row + 1] = num
    return hashes


@numba.njit(nogil=True, cache=True)
def _sort_distinct(hashes: np.ndarray, first: int, num: int, sorting: np.ndarray, counts: np.ndarray) -> int:
    """Sort `hashes[first:num]` and leave each once; returns where they end.

    Hashes are uniform: among about as many buckets as there are hashes, chosen by the upper bits, each has one or two,
    and insertion has little left to do. Where a bucket has many (a long text, one that says the same again and again,
    one that was made to collide), the text's hashes are sorted digit by digit, which costs the same for all.
    """
    bits = 1
    while bits < DIGIT and 1 << bits < num - first:
        bits += 1
    shift = np.uint64(64 - bits)
    most = _count_digits(hashes, first, num, shift, counts, 1 << bits)
    if most <= FEW:
        _move_by_digit(hashes, first, num, shift, counts, sorting, 0)
        for k in range(num - first):
            value, to = sorting[np.uint64(k)], k
            while to > 0 and sorting[np.uint64(to - 1)] > value:
                sorting[np.uint64(to)] = sorting[np.uint64(to - 1)]
                to -= 1
            sorting[np.uint64(to)] = value
    else:
        for k in range(num - first):
            sorting[np.uint64(k)] = hashes[np.uint64(first + k)]
        for digit in range(0, 64, 2 * DIGIT):  # there and back
            _count_digits(sorting, 0, num - first, np.uint64(digit), counts, MOST_DIGITS)
            _move_by_digit(sorting, 0, num - first, np.uint64(digit), counts, hashes, first)
            _count_digits(hashes, first, num, np.uint64(digit + DIGIT), counts, MOST_DIGITS)
            _move_by_digit(hashes, first, num, np.uint64(digit + DIGIT), counts, sorting, 0)
    place, last = first, np.uint64(0)
    for k in range(num - first):
        value = sorting[np.uint64(k)]
        hashes[np.uint64(place)] = value
        place += k == 0 or value != last
        last = value
    return place


@numba.njit(nogil=True, cache=True)
def _count_digits(hashes: np.ndarray, first: int, num: int, shift: Any, counts: np.ndarray, digits: int) -> int:
    """Write where those of `hashes[first:num]` with each of the digits begin, from 0; returns the largest number."""
    for k in range(digits):
        counts[k] = 0
    for k in range(first, num):
        counts[(hashes[np.uint64(k)] >> shift) & LAST_DIGIT] += 1
    begin, most = 0, 0
    for k in range(digits):
        count = counts[k]
        counts[k] = begin
        begin += count
        most = max(most, count)
    return most


@numba.njit(nogil=True, cache=True)
def _move_by_digit(
    hashes: np.ndarray, first: int, num: int, shift: Any, counts: np.ndarray, moved: np.ndarray, to: int
) -> None:
    """Move `hashes[first:num]` to `moved[to:]`, ordered by a digit and else as they are."""
    for k in range(first, num):
        value = hashes[np.uint64(k)]
        digit = (value >> shift) & LAST_DIGIT
        moved[np.uint64(to + counts[digit])] = value
        counts[digit] += 1


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
def forget_units(units: np.ndarray) -> None:
    """Make the buffer of units that of a text's beginning."""
    for k in range(MOST_NGRAM):  # a loop compiles in a tenth of the time that a slice does
        units[k] = 0


@numba.njit(nogil=True, cache=True)
def read_shingles(
    data: np.ndarray, at: int, end: int, forms: np.ndarray, by_word: bool, ngram: int, power: Any, units: np.ndarray,
    seen: int, rolled: Any, inside: bool, shingles: np.ndarray, num: int,
) -> tuple[int, int, int, Any, bool]:  # fmt: skip
    """Write the hashes of the next shingles of `data[at:end]` from `shingles[num]` on: at most STEP.

    Returns the new `num`, and the state to go on with: at, seen (units before), rolled, inside (a word). The state of
    a text's beginning is 0, 0, False, and `forget_units` of `units` (uint64, (UNITS,)).
    """
    if by_word:
        found, at = read_word_units(data, at, end, forms, units)
    else:
        found, at, inside = _read_characters(data, at, end, forms, inside, seen > 0, units)
    for k in range(MOST_NGRAM, MOST_NGRAM + found):
        unit = finish(units[np.uint64(k)])
        units[np.uint64(k)] = unit
        rolled = rolled * BASE + (unit - units[np.uint64(k - ngram)] * power)
        seen += 1
        shingles[np.uint64(num)] = finish(rolled)
        num += seen >= ngram
    for k in range(MOST_NGRAM - ngram, MOST_NGRAM):
        units[k] = units[k + found]
    if at == end and 0 < seen < ngram:
        shingles[num] = finish(rolled)
        num += 1
    return num, at, seen, rolled, inside


@numba.njit(nogil=True, cache=True)
def read_word_units(data: np.ndarray, at: int, end: int, forms: np.ndarray, units: np.ndarray) -> tuple[int, int]:
    """Write the hashes of words of `data[at:end]` behind the last units, about a CHUNK; returns how many, and the next.

    Runs of ASCII have a loop of their own without a branch that a processor could not foresee: the hash is written at
    every byte, and its place moves on where a word ends.
    """
    place, most = MOST_NGRAM, MOST_NGRAM + CHUNK
    hashed, inside = np.uint64(0), 0
    while at < end and place < most:
        stop = min(end, at + (most - place))
        while at < stop:  # unsigned indices: numba would look whether others are negative
            byte = data[np.uint64(at)]
            if byte >= 0x80:
                break
            form = int(forms[byte])
            within = int(form != SEPARATOR)
            units[np.uint64(place)] = hashed
            place += inside & ~within
            hashed = (hashed ^ np.uint64(form)) * (MULTIPLIER & np.uint64(-within))
            inside = within
            at += 1
        if at == stop:
            continue
        code_point, at = next_code_point(data, at, end)
        form = int(forms[code_point])
        if form == SEPARATOR or form & ALONE:
            units[place] = hashed
            place += inside
            hashed, inside = np.uint64(0), 0
            if form & ALONE:
                units[place] = np.uint64(form ^ ALONE) * MULTIPLIER
                place += 1
        elif form != SKIPPED:
            hashed, inside = (hashed ^ np.uint64(form)) * MULTIPLIER, 1
    units[place] = hashed
    return place + inside - MOST_NGRAM, at


@numba.njit(nogil=True, cache=True)
def _read_characters(
    data: np.ndarray, at: int, end: int, forms: np.ndarray, inside: bool, begun: bool, units: np.ndarray
) -> tuple[int, int, bool]:
    """Write the hashes of characters behind the last units, about a CHUNK; `begun`: some were before.

    Returns how many, where to go on, and whether that is inside a word. A space is written before every character, and
    overwritten where none belongs.
    """
    place, most = MOST_NGRAM, MOST_NGRAM + CHUNK
    space, started, apart = np.uint64(0x20) * MULTIPLIER, int(begun), int(begun and not inside)
    while at < end and place < most:
        byte = data[np.uint64(at)]
        if byte < 0x80:
            form, alone = int(forms[byte]), 0
            at += 1
        else:
            code_point, at = next_code_point(data, at, end)
            form = int(forms[code_point])
            if form == SKIPPED:
                continue
            alone = int(form & ALONE != 0)
            form &= ~ALONE
        within = int(form != SEPARATOR)
        units[np.uint64(place)] = space
        place += (apart | (alone & started)) & within
        units[np.uint64(place)] = np.uint64(form) * MULTIPLIER
        place += within
        started |= within
        apart = started & (alone | (within ^ 1))
    return place - MOST_NGRAM, at, apart == 0
