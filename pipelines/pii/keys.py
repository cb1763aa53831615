"""Secrets: keys in published formats, private keys in PEM, and random strings that are given to names of secrets.

A string is taken for random by counted things alone: its letters, digits and symbols, how often one kind follows
another, and its entropy in 1/64 bit (from a table of integers). Samples of documentation ("EXAMPLE", "xxxx", "your")
stay, and so do hashes of passwords, which are not given to such a name.
"""

from __future__ import annotations

import numba
import numpy as np

from pipelines.pii.context import is_digit, is_letter, is_word_byte
from pipelines.pii.tables import (
    ALNUM,
    DOTTED,
    KEY,
    LOWER_HEX,
    PASSWORD_NAMES,
    TOKEN,
    UPPER,
    KeyTables,
)

LONGEST_NAME, LONGEST_VALUE = 48, 512
SHORTEST_PASSWORD, SHORTEST_SECRET = 8, 12
LEAST_ENTROPY = 24 * 64
"""In 1/64 bit, of the whole string: that of eight different characters."""
LEAST_PEM_CHARACTERS = 64
"""Base64 characters of a block."""
HEADER = (0x2D, 0x2D, 0x2D, 0x2D, 0x2D, 0x42, 0x45, 0x47, 0x49, 0x4E, 0x20)
"""-----BEGIN and a space."""


@numba.njit(nogil=True, cache=True)
def key(
    data: np.ndarray, start: int, begin: int, end: int, classes: np.ndarray, tables: KeyTables, counts: np.ndarray
) -> int:
    """Return where the key in a published format that begins at `start` ends, or -1."""
    if start > begin:
        before = data[start - 1]
        if classes[before] & KEY or before in (0x2B, 0x2F):
            return -1
        if before == 0x2E and start - 2 >= begin and is_word_byte(data[start - 2]):
            return -1
    for k in range(len(tables.formats)):
        first, last, alphabet, least, most = tables.formats[k]
        at = start + last - first
        if at + least > end or not _same(data, start, tables.prefixes, first, last):
            continue
        if alphabet == DOTTED and start > begin and data[start - 1] == 0x2E:
            continue  # so that no byte is read for more than one beginning
        stop = at
        while stop < end and stop - at <= most and _is_of(data[stop], alphabet, classes):
            stop += 1
        if alphabet == DOTTED and stop > at and data[stop - 1] == 0x2E:
            stop -= 1  # the end of a sentence
        if not least <= stop - at <= most or (stop < end and is_word_byte(data[stop])):
            continue
        if data[start] == 0x65 and not _is_web_token(data, start, stop):
            continue
        if alphabet == UPPER:  # capitals change their kind too seldom to tell
            if not _has_sample(data, at, stop) and _entropy(data, at, stop, tables, counts) >= LEAST_ENTROPY:
                return stop
        elif is_random(data, at, stop, tables, counts):
            return stop
    return -1


@numba.njit(nogil=True, cache=True)
def _same(data: np.ndarray, start: int, other: np.ndarray, first: int, last: int) -> bool:
    place = first
    while place < last and data[start + place - first] == other[place]:
        place += 1
    return place == last


@numba.njit(nogil=True, cache=True)
def _is_of(byte: int, alphabet: int, classes: np.ndarray) -> bool:
    if alphabet == ALNUM:
        return is_letter(byte) or is_digit(byte)
    if alphabet == LOWER_HEX:
        return is_digit(byte) or 0x61 <= byte <= 0x66
    if alphabet == UPPER:
        return is_digit(byte) or 0x41 <= byte <= 0x5A
    return classes[byte] & KEY != 0 or (alphabet == DOTTED and byte == 0x2E)


@numba.njit(nogil=True, cache=True)
def _is_web_token(data: np.ndarray, start: int, stop: int) -> bool:
    """Whether a second part follows that begins as JSON objects do in base64 (RFC 7515)."""
    for at in range(start, stop - 4):
        if data[at] == 0x2E:
            return data[at + 1] == 0x65 and data[at + 2] == 0x79 and data[at + 3] == 0x4A
    return False


@numba.njit(nogil=True, cache=True)
def is_random(data: np.ndarray, start: int, stop: int, tables: KeyTables, counts: np.ndarray) -> bool:
    """Whether `data[start:stop]` looks drawn at random. `counts` is int64, shape (256,), zero before and after."""
    stop = min(stop, start + LONGEST_VALUE)
    if _has_sample(data, start, stop):
        return False
    kinds, changes, before, digits = 0, 0, 0, 0
    for place in range(start, stop):
        byte = data[place]
        kind = 4
        if is_letter(byte):
            kind = 1 if byte >= 0x61 else 2
        elif byte in (0x2D, 0x5F, 0x2E):
            kind = 0
        elif not is_digit(byte):
            kind = 8
        digits += kind == 4
        kinds |= kind
        # a capital begins a word; "-", "_" and "." join words
        changes += before != kind and before != 0 and kind != 0 and not (before == 2 and kind == 1)
        before = kind
    length = stop - start
    if digits == 0:
        enough = length >= 20 and kinds & 3 == 3 and changes * 5 >= length
    else:
        enough = kinds & 3 != 0 and changes * 4 >= length
    return enough and _entropy(data, start, stop, tables, counts) >= LEAST_ENTROPY


@numba.njit(nogil=True, cache=True)
def _entropy(data: np.ndarray, start: int, stop: int, tables: KeyTables, counts: np.ndarray) -> int:
    """Return the entropy of the bytes' distribution times their number, in 1/64 bit."""
    for place in range(start, stop):
        counts[data[place]] += 1
    value = tables.entropies[stop - start]
    for place in range(start, stop):
        value -= tables.entropies[counts[data[place]]]
        counts[data[place]] = 0
    return value


@numba.njit(nogil=True, cache=True)
def _has_sample(data: np.ndarray, start: int, stop: int) -> bool:
    """Whether "exam" (of "example"), "xxxx" or "your" stands in a value, in any case."""
    value = 0
    for place in range(start, stop):
        value = ((value << 8) | data[place] | 0x20) & 0xFFFFFFFF
        if value in (0x6578616D, 0x78787878, 0x796F7572):
            return True
    return False


@numba.njit(nogil=True, cache=True)
def assigned(
    data: np.ndarray, sign: int, begin: int, end: int, tables: KeyTables, counts: np.ndarray
) -> tuple[int, int]:
    """Return the span of the random string that the "=" or ":" at `sign` gives to the name of a secret, or (-1, -1)."""
    name = _secret_name(data, sign, begin, tables)
    if name < 0:
        return -1, -1
    at = sign + 1
    if at < end and data[sign] == 0x3D and data[at] == 0x3E:
        at += 1  # =>
    spaces = 0
    while at < end and spaces < 4 and data[at] == 0x20:
        at += 1
        spaces += 1
    if at + 1 < end and data[at] in (0x62, 0x72, 0x75, 0x66, 0x4C) and data[at + 1] in (0x22, 0x27):
        at += 1  # the prefix of a string literal
    if at + 1 < end and data[at] == 0x5C and data[at + 1] in (0x22, 0x27):
        at += 1  # JSON in a string
    quote = data[at] if at < end and data[at] in (0x22, 0x27, 0x60) else 0
    start = at + (quote != 0)
    stop = start
    while stop < end and stop - start <= LONGEST_VALUE and 0x20 < data[stop] < 0x7F:
        if quote and data[stop] in (quote, 0x5C):
            break
        if not quote and data[stop] in (
            0x22,
            0x27,
            0x60,
            0x2C,
            0x3B,
            0x28,
            0x29,
            0x3C,
            0x3E,
            0x5B,
            0x5D,
            0x7B,
            0x7D,
            0x5C,
        ):
            break
        stop += 1
    if quote:
        if stop >= end or data[stop] not in (quote, 0x5C):
            return -1, -1
    else:
        if stop < end and data[stop] in (0x28, 0x5B, 0x7B):
            return -1, -1  # a call, an index, a template
        while stop > start and data[stop - 1] in (0x2E, 0x3A, 0x21, 0x3F):
            stop -= 1
        if data[sign] == 0x3D:
            for place in range(start, stop):
                if data[place] == 0x26:  # the next parameter of a URL
                    stop = place
                    break
    least = SHORTEST_PASSWORD if name < PASSWORD_NAMES else SHORTEST_SECRET
    if not least <= stop - start <= LONGEST_VALUE or _is_address(data, start, stop):
        return -1, -1
    return (start, stop) if is_random(data, start, stop, tables, counts) else (-1, -1)


@numba.njit(nogil=True, cache=True)
def _is_address(data: np.ndarray, start: int, stop: int) -> bool:
    """Whether a value is a URL, a path, or a template."""
    if data[start] in (0x2F, 0x24, 0x25, 0x7B):
        return True
    for place in range(start, stop - 2):
        if data[place] == 0x3A and data[place + 1] == 0x2F and data[place + 2] == 0x2F:
            return True
    return False


@numba.njit(nogil=True, cache=True)
def _secret_name(data: np.ndarray, sign: int, begin: int, tables: KeyTables) -> int:
    """Return which name of a secret ends before `sign` (quotes and spaces between), or -1."""
    at, skipped = sign, 0
    while at > begin and skipped < 4 and data[at - 1] in (0x20, 0x22, 0x27, 0x5C, 0x3A, 0x5D):
        at -= 1
        skipped += 1
    last = at
    while at > begin and (is_digit(data[at - 1]) or data[at - 1] == 0x5F) and last - at < 3:
        at -= 1
    if at > begin + 1 and data[at - 1] | 0x20 == 0x73 and data[at - 2] | 0x20 != 0x73:
        at -= 1  # a plural
    for k in range(len(tables.name_offsets) - 1):
        place, left = at, tables.name_offsets[k + 1]
        while left > tables.name_offsets[k] and place > begin and at - place < LONGEST_NAME:
            byte = data[place - 1]
            if byte in (0x5F, 0x2D, 0x20) and place < at and byte != 0x20:
                place -= 1
            elif byte | 0x20 == tables.names[left - 1] and is_letter(byte):
                place -= 1
                left -= 1
            else:
                break
        if left == tables.name_offsets[k]:
            return k
    return -1


@numba.njit(nogil=True, cache=True)
def private_key(data: np.ndarray, start: int, end: int, classes: np.ndarray) -> tuple[int, int]:
    """Return where the PEM block of a private key that begins at `start` ends (RFC 7468), or -1, and where to look on.

    A block without its end ends where base64 ends. What is read is read once: the second value is behind it.
    """
    at = start
    for byte in HEADER:
        if at >= end or data[at] != byte:
            return -1, start + 1
        at += 1
    private = False
    while at < end and at - start < 80 and data[at] != 0x2D and data[at] >= 0x20:
        private |= (
            data[at] == 0x50 and at + 7 < end and data[at + 1] == 0x52 and data[at + 2] == 0x49 and data[at + 3] == 0x56
        )
        at += 1
    if not private or at + 5 > end or not _are_dashes(data, at):
        return -1, at
    at += 5
    characters, kept = 0, at
    while at < end:
        byte = data[at]
        if byte == 0x2D and at + 5 <= end and _are_dashes(data, at):
            if characters < LEAST_PEM_CHARACTERS:
                return -1, at
            if at + 9 <= end and data[at + 5] == 0x45 and data[at + 6] == 0x4E and data[at + 7] == 0x44:
                at += 8
                while at < end and data[at] != 0x2D and 0x20 <= data[at] < 0x7F and at - kept < 100:
                    at += 1  # ASCII alone: the span must not end inside a character
                while at < end and data[at] == 0x2D:
                    at += 1
                return at, at
            return kept, at
        if classes[byte] & TOKEN or byte in (0x2B, 0x2F, 0x3D):
            characters += 1
            kept = at + 1
        elif byte not in (0x20, 0x0A, 0x0D, 0x09, 0x5C, 0x3A, 0x2C, 0x2D, 0x22, 0x27, 0x2E):
            break
        at += 1
    return (kept if characters >= LEAST_PEM_CHARACTERS else -1), max(at, start + 1)


@numba.njit(nogil=True, cache=True)
def _are_dashes(data: np.ndarray, at: int) -> bool:
    return (
        data[at] == 0x2D
        and data[at + 1] == 0x2D
        and data[at + 2] == 0x2D
        and data[at + 3] == 0x2D
        and data[at + 4] == 0x2D
    )
