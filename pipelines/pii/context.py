"""The words that stand before a number and say what it is."""

from __future__ import annotations

import numba
import numpy as np

from pipelines.pii.tables import WordTables


@numba.njit(nogil=True, cache=True)
def words_before(data: np.ndarray, begin: int, at: int, width: int, tables: WordTables) -> int:
    """Return the categories of the words that begin in the `width` bytes before `at` (not before `begin`)."""
    found = 0
    for start in range(max(begin, at - width), at):
        byte = data[start]
        if 0x41 <= byte <= 0x5A:
            byte |= 0x20
        for k in range(tables.firsts[byte], tables.firsts[byte + 1]):
            if not found & tables.rows[k, 2] and _is_word(data, begin, start, at, tables, k):
                found |= tables.rows[k, 2]
    return found


@numba.njit(nogil=True, cache=True)
def _is_word(data: np.ndarray, begin: int, start: int, at: int, tables: WordTables, k: int) -> bool:
    first, last = tables.rows[k, 0], tables.rows[k, 1]
    stop = start + last - first
    if stop > at:
        return False
    for place in range(first, last):
        byte = data[start + place - first]
        if 0x41 <= byte <= 0x5A:
            byte |= 0x20
        if byte != tables.letters[place]:
            return False
    if tables.rows[k, 3] and start > begin and is_letter(data[start - 1]):
        return False
    return not (tables.rows[k, 4] and stop < at and is_letter(data[stop]))


@numba.njit(nogil=True, cache=True)
def is_letter(byte: int) -> bool:
    """Whether a byte is an ASCII letter."""
    return 0x61 <= byte | 0x20 <= 0x7A and byte < 0x80


@numba.njit(nogil=True, cache=True)
def is_digit(byte: int) -> bool:
    """Whether a byte is an ASCII digit."""
    return 0x30 <= byte <= 0x39


@numba.njit(nogil=True, cache=True)
def is_word_byte(byte: int) -> bool:
    """Whether a byte is an ASCII letter, a digit or "_"."""
    return is_letter(byte) or is_digit(byte) or byte == 0x5F
