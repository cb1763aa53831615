"""The pass over a column's bytes that finds every kind, once and in order.

Bytes that begin no candidate cost one look-up. Around the others a check reads a bounded number of bytes, so the time
is linear whatever the text is; a PEM block is read once.
"""

from __future__ import annotations

import numba
import numpy as np

from pipelines.pii.checksums import card_number, iban
from pipelines.pii.emails import email
from pipelines.pii.keys import assigned, key, private_key
from pipelines.pii.networks import ipv4, ipv6
from pipelines.pii.phones import SCRATCH, phone_number
from pipelines.pii.tables import (
    ANCHOR,
    CARD_NUMBER,
    DIGIT,
    EMAIL,
    IBAN,
    IP_ADDRESS,
    LETTER,
    PHONE_NUMBER,
    SECRET,
    TOKEN,
    Tables,
)
from pipelines.transforms.edits import with_room

ROW, START, STOP, KIND = range(4)
"""Columns of what `scan` returns: those of `edits.Edits`."""
FIRST_ROOM = 1024
LONG_TOKEN = 20
"""Bytes."""
ESCAPED = (0x6E, 0x72, 0x74)
"""n, r and t behind a backslash."""


@numba.njit(nogil=True, cache=True)
def scan(offsets: np.ndarray, data: np.ndarray, tables: Tables) -> np.ndarray:
    """Return the spans of every row: int64, (spans, 4): row, start and end in the row's bytes, kind.

    They are ordered and do not overlap. Row i is `data[offsets[i]:offsets[i + 1]]`, UTF-8.
    """
    spans, num = np.empty((FIRST_ROOM, 4), np.int64), 0
    scratch, counts = np.zeros(SCRATCH, np.int64), np.zeros(256, np.int64)
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        first, at, previous = num, begin, begin - 1
        while True:
            at, after, seen = _next_candidate(data, at, begin, end, tables.classes, tables.keys.pairs)
            if at >= end:
                break
            if seen & TOKEN:
                start, stop, kind = _token(data, at, after, seen, begin, end, previous, tables, scratch, counts)
            else:
                start, stop, kind, after = _sign(data, at, begin, end, previous, tables, scratch, counts)
            if stop < 0:
                at = after
                continue
            # an address may hold digits that were taken for a number; what reaches further back, or is a secret, stays
            while num > first and spans[num - 1, START] >= start - begin and spans[num - 1, KIND] != SECRET:
                num -= 1
            if num > first and spans[num - 1, STOP] > start - begin:
                start = begin + spans[num - 1, STOP]
                if start >= at:
                    at = max(after, at + 1)
                    continue
            spans = with_room(spans, num + 1)
            spans[num, ROW], spans[num, START] = row, start - begin
            spans[num, STOP], spans[num, KIND] = stop - begin, kind
            num += 1
            if kind in (EMAIL, PHONE_NUMBER):
                previous = stop
            at = stop
    return spans[:num]


@numba.njit(nogil=True, cache=True)
def _next_candidate(
    data: np.ndarray, at: int, begin: int, end: int, classes: np.ndarray, key_pairs: np.ndarray
) -> tuple[int, int, int]:
    """Return where the next candidate begins (`end`: none), where what begins there ends, and the bits seen in it."""
    while at < end:
        byte = data[at]
        seen = classes[byte] & 0xFF  # the literal makes it an int64
        if seen & (TOKEN | ANCHOR) == 0:
            at += 1
            continue
        after = at + 1
        if seen & TOKEN:
            if byte in ESCAPED and at > begin and data[at - 1] == 0x5C:
                at = after  # an escape: the text goes on behind it
                continue
            while after < end and classes[data[after]] & TOKEN:
                seen |= classes[data[after]] & 0xFF
                after += 1
            if seen & DIGIT:
                if seen & LETTER or after - at > 6 or _goes_on(data, after, end):
                    return at, after, seen
            # a key without a digit is long; a prefix may end before "-" or "."
            elif (
                after - at >= LONG_TOKEN or (after - at > 1 and after < end and 0x2D <= data[after] <= 0x2E)
            ) and key_pairs[np.int64(byte) << 8 | data[at + 1]]:
                return at, after, seen
        elif _is_worth_it(data, at, begin, end):
            return at, after, seen
        at = after
    return end, end, 0


@numba.njit(nogil=True, cache=True, inline="always")
def _goes_on(data: np.ndarray, after: int, end: int) -> bool:
    """Whether more of a number may follow few digits: a separator, and not white space behind "." or ","."""
    if after + 1 >= end:
        return False
    byte, following = data[after], data[after + 1]
    if byte == 0x20:
        return 0x28 <= following <= 0x39 or following == 0xE2
    return byte == 0x2D or byte == 0x2E or byte == 0x2F or byte == 0x29 or byte == 0xC2 or byte == 0xE2


@numba.njit(nogil=True, cache=True, inline="always")
def _is_worth_it(data: np.ndarray, at: int, begin: int, end: int) -> bool:
    """Whether a look at the neighbours of a sign lets it begin a candidate: what a check would find first, for less."""
    if at + 1 >= end:
        return False
    byte, following = data[at], data[at + 1]
    if byte == 0x40:
        return at > begin and following > 0x2E
    if byte == 0x28 or byte == 0x2B:
        return 0x30 <= following <= 0x39 or (byte == 0x2B and following == 0x28)
    if byte == 0x2D:
        return following == 0x2D and at + 11 < end and data[at + 4] == 0x2D and data[at + 5] == 0x42
    if byte == 0x3A and (0x30 <= following <= 0x3A or 0x61 <= following | 0x20 <= 0x66):
        return True  # of an IPv6 address
    place = at - 1
    while place >= begin and at - place < 5 and data[place] < 0x40 and not 0x30 <= data[place] <= 0x39:
        place -= 1  # quotes and spaces between a name and the sign
    if place < begin:
        return False
    if 0x30 <= data[place] <= 0x39 or data[place] == 0x5F or data[place] == 0x5C or data[place] == 0x5D:
        return True
    letter = data[place] | 0x20
    # the last letters of names of secrets and of their plurals
    return (
        letter == 0x64
        or letter == 0x65
        or letter == 0x6C
        or letter == 0x6E
        or letter == 0x73
        or letter == 0x74
        or letter == 0x79
    )


@numba.njit(nogil=True, cache=True, inline="always")
def _token(
    data: np.ndarray, at: int, after: int, seen: int, begin: int, end: int, previous: int, tables: Tables,
    scratch: np.ndarray, counts: np.ndarray,
) -> tuple[int, int, int]:  # fmt: skip
    """Return the span and kind that begins with the letters and digits at `at`, or (-1, -1, -1)."""
    if after - at > 1 and tables.keys.pairs[np.int64(data[at]) << 8 | data[at + 1]]:
        stop = key(data, at, begin, end, tables.classes, tables.keys, counts)
        if stop >= 0:
            return at, stop, SECRET
    if not seen & DIGIT:
        return -1, -1, -1
    if seen & LETTER:
        stop = iban(data, at, begin, end, tables.iban_lengths)
        if stop >= 0:
            return at, stop, IBAN
        return -1, -1, -1
    if after - at <= 3 and after < end and data[after] == 0x2E:
        stop = ipv4(data, at, begin, end, tables.words)
        if stop >= 0:
            return at, stop, IP_ADDRESS
    stop = card_number(data, at, begin, end)
    if stop >= 0:
        return at, stop, CARD_NUMBER
    if after - at <= 15:
        stop = phone_number(data, at, begin, end, previous, tables.calling_codes, tables.words, scratch)
        if stop >= 0:
            return at, stop, PHONE_NUMBER
    return -1, -1, -1


@numba.njit(nogil=True, cache=True, inline="always")
def _sign(
    data: np.ndarray, at: int, begin: int, end: int, previous: int, tables: Tables, scratch: np.ndarray,
    counts: np.ndarray,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Return the span and kind that the sign at `at` stands for (or -1 three times), and where to look on."""
    byte = data[at]
    if byte == 0x40:
        start, stop = email(data, at, begin, end, tables.classes, tables.domains)
        return start, stop, EMAIL, at + 1
    if byte == 0x2B or byte == 0x28:
        stop = phone_number(data, at, begin, end, previous, tables.calling_codes, tables.words, scratch)
        return at, stop, PHONE_NUMBER, at + 1
    if byte == 0x2D:
        stop, after = private_key(data, at, end, tables.classes)
        return at, stop, SECRET, after
    if byte == 0x3A:
        start, stop = ipv6(data, at, begin, end, tables.classes)
        if stop >= 0:
            return start, stop, IP_ADDRESS, at + 1
    start, stop = assigned(data, at, begin, end, tables.keys, counts)
    return start, stop, SECRET, at + 1
