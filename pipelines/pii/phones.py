"""Phone numbers: international ones, North American ones, and national ones where words say that it is one.

- **international**: "+", a country calling code and as many digits as its national numbers have (ITU E.164); a trunk
  zero in parentheses does not count. At least 8 digits, 10 where nothing parts them.
- **North American**: 212-555-0123, 212.555.0123, (212) 555-0123, each with or without "1": area and exchange code do
  not begin with 0 or 1, nor is the exchange N11 (North American Numbering Plan). With parentheses any digits.
- **with words**: 7 to 15 digits, in groups or not, at most 48 bytes behind a word such as "phone", "Fax" or "电话"
  (`CONTEXT` in `tables.py`), a label of one letter ("T", "F", "M", "P"), an e-mail address
  (where they begin with 0 or a parenthesis) or another phone number.
- **with a trunk zero and its area code set off by "/" or parentheses**: 05225/8738444, (08) 8582 1844.

Dates, ranges of years, grouped thousands and numbers behind words such as "ISBN" or "account" stay.
"""

from __future__ import annotations

import numba
import numpy as np

from pipelines.pii.context import is_digit, is_letter, is_word_byte, words_before
from pipelines.pii.tables import OTHER_NUMBER, PHONE, WordTables

MOST_DIGITS = 15
WIDE, NEAR, OTHER = 48, 20, 16
"""Bytes before a number in which words count: words for phones; for short ones without separators; for others."""
CHAIN = 28
"""Bytes between a phone number or an e-mail address and the next number."""

DIGITS, GROUPS, SLASH, DOTS, TRUNK, PARENTHESES = range(6)
"""The head of the scratch array that `_read` fills; then the digits, the groups' ends and their lengths."""
FIRST_DIGIT, FIRST_END, FIRST_LENGTH = 8, 24, 40
SCRATCH = 56


@numba.njit(nogil=True, cache=True)
def phone_number(
    data: np.ndarray, start: int, begin: int, end: int, previous: int, codes: np.ndarray, words: WordTables,
    scratch: np.ndarray,
) -> int:  # fmt: skip
    """Return where the phone number that begins at `start` (a digit, "+" or "(") ends, or -1.

    `previous` is where the last e-mail address or phone number of the text ended (before `begin`: none). `scratch` is
    int64, shape (SCRATCH,). Looks at about 120 bytes at most.
    """
    plus = data[start] == 0x2B
    if start > begin and not _may_precede(data, start, begin, plus):
        return -1
    if not plus:
        stop = _north_american(data, start, end)
        if stop >= 0:
            return stop
    if not _read(data, start, end, scratch):
        return -1
    if plus:
        stop = _international(scratch, codes)
        if stop >= 0 or scratch[DIGITS] < 7 or not words_before(data, begin, start, NEAR, words) & PHONE:
            return stop
        return scratch[FIRST_END + scratch[GROUPS] - 1]
    if not _is_plausible(data, start, begin, end, scratch):
        return -1
    stop = scratch[FIRST_END + scratch[GROUPS] - 1]
    return stop if _is_expected(data, start, stop, begin, previous, words, scratch) else -1


@numba.njit(nogil=True, cache=True)
def _may_precede(data: np.ndarray, start: int, begin: int, plus: bool) -> bool:
    before = data[start - 1]
    if is_letter(before) and start - 2 >= begin and data[start - 2] == 0x5C:
        return True  # the n, r or t of an escape
    if plus:
        return not (is_word_byte(before) or before in (0x2B, 0x29))
    if before in (0x2D, 0x2F, 0x2E):
        # "Tel.030 1234" and "T/F/030": behind a letter
        return before != 0x2D and start - 2 >= begin and is_letter(data[start - 2])
    return not (is_word_byte(before) or before in (0x3D, 0x23, 0x24, 0x25, 0x26, 0x2B, 0x2C, 0x5F, 0x40))


@numba.njit(nogil=True, cache=True)
def _north_american(data: np.ndarray, start: int, end: int) -> int:
    """Return where a North American number with its separators ends, or -1."""
    at = start
    if at + 1 < end and data[at] == 0x31 and data[at + 1] in (0x20, 0x2D, 0x2E):
        at += 2
    parentheses = at < end and data[at] == 0x28
    at += parentheses
    if at + 12 > end or not _are_digits(data, at, 3):
        return -1
    area = at
    at += 3
    if parentheses:
        if data[at] != 0x29:
            return -1
        at += 1
        if data[at] in (0x20, 0x2D, 0x2E):
            at += 1
        if at + 8 > end:
            return -1
    elif data[at] in (0x2D, 0x2E, 0x2F):
        at += 1
    else:
        return -1
    exchange = at
    separator = data[at + 3]
    if not _are_digits(data, at, 3) or separator not in (0x2D, 0x2E, 0x20):
        return -1
    if not parentheses and separator != data[area + 3] and not (data[area + 3] == 0x2F and separator == 0x2D):
        return -1
    at += 4
    if at + 4 > end or not _are_digits(data, at, 4):
        return -1
    at += 4
    if at < end and (
        is_word_byte(data[at]) or (data[at] in (0x2D, 0x2E, 0x2F) and at + 1 < end and is_digit(data[at + 1]))
    ):
        return -1
    if parentheses and separator != 0x20:
        return at
    valid = data[area] >= 0x32 and data[exchange] >= 0x32
    return at if valid and not (data[exchange + 1] == 0x31 and data[exchange + 2] == 0x31) else -1


@numba.njit(nogil=True, cache=True)
def _are_digits(data: np.ndarray, at: int, num: int) -> bool:
    place = at
    while place < at + num and is_digit(data[place]):
        place += 1
    return place == at + num


@numba.njit(nogil=True, cache=True)
def _read(data: np.ndarray, start: int, end: int, scratch: np.ndarray) -> bool:
    """Read groups of digits and what parts them; false where there are none or too many digits in one group.

    A separator is a space, a no-break space, "-", a dash, ".", "/" or parentheses, together at most one of the symbols
    and no two spaces in a row. A trunk "(0)" is read and not counted as a digit.
    """
    scratch[:8] = 0
    at = start + (data[start] == 0x2B)
    if at > start and at < end and not (is_digit(data[at]) or data[at] == 0x28):
        return False
    depth, symbols, spaces, separators, outside, counted = 0, 0, 0, 0, 0, 0
    while at < end:
        byte = data[at]
        if is_digit(byte):
            first = at
            while at < end and is_digit(data[at]) and at - first <= MOST_DIGITS:
                at += 1
            length = at - first
            if depth and length == 1 and byte == 0x30 and at < end and data[at] == 0x29 and scratch[DIGITS]:
                scratch[TRUNK] = 1
            else:
                if scratch[DIGITS] + length > MOST_DIGITS or scratch[GROUPS] == 15:
                    break
                if at < end and is_word_byte(data[at]):
                    break  # "4pm" is no group
                for place in range(length):
                    scratch[FIRST_DIGIT + scratch[DIGITS] + place] = data[first + place] - 0x30
                scratch[FIRST_END + scratch[GROUPS]] = at
                scratch[FIRST_LENGTH + scratch[GROUPS]] = length
                scratch[DIGITS] += length
                scratch[GROUPS] += 1
            symbols, spaces, separators = 0, 0, 0
            continue
        if byte == 0x20 or (byte == 0xC2 and at + 1 < end and data[at + 1] == 0xA0):
            spaces += 1
            if spaces > 1:
                break
            at += 1 if byte == 0x20 else 2
        elif byte in (0x28, 0x29):
            if depth == (byte == 0x28):
                break
            if byte == 0x28:
                outside, counted = scratch[GROUPS], scratch[DIGITS]
            depth, spaces = 1 - depth, 0
            scratch[PARENTHESES] += 1
            at += 1
        else:
            symbols, spaces = symbols + 1, 0
            if symbols > 1:
                break
            if byte == 0x2D:
                at += 1
            elif byte == 0xE2 and at + 2 < end and data[at + 1] == 0x80 and 0x90 <= data[at + 2] <= 0x94:
                at += 3
            elif byte == 0x2F and scratch[DIGITS] <= 7:
                scratch[SLASH] += 1
                at += 1
            elif byte == 0x2E and separators == 0 and scratch[DIGITS]:
                scratch[DOTS] += 1
                at += 1
            else:
                break
        separators += 1
        if separators > 5:
            break
    if depth:  # what stands behind a parenthesis that does not close is not a part
        scratch[GROUPS], scratch[DIGITS] = outside, counted
    return scratch[GROUPS] > 0


@numba.njit(nogil=True, cache=True)
def _international(scratch: np.ndarray, codes: np.ndarray) -> int:
    """Return where the number behind "+" ends, or -1. Groups behind a whole number are not its own."""
    code, length = 0, 0
    while length < 3 and length < scratch[DIGITS]:
        code = code * 10 + scratch[FIRST_DIGIT + length]
        length += 1
        if codes[code, 1] and (code > 1 or length == 1) and scratch[FIRST_DIGIT]:
            break
    least, most = codes[code, 0], codes[code, 1]
    if most == 0 or scratch[FIRST_DIGIT] == 0 or (scratch[DOTS] and scratch[GROUPS] == 2):  # +35236450.6
        return -1
    digits = scratch[DIGITS]
    for groups in range(scratch[GROUPS], 0, -1):
        national = digits - length
        if national > 0 and scratch[FIRST_DIGIT + length] == 0 and code != 39:
            national -= 1  # the trunk zero, written though it is not dialled
        if least <= national <= most and digits >= (8 if groups > 1 else 10):
            area, exchange = scratch[FIRST_DIGIT + 1], scratch[FIRST_DIGIT + 4]
            if code == 1 and (area < 2 or exchange < 2):
                return -1
            return scratch[FIRST_END + groups - 1]
        digits -= scratch[FIRST_LENGTH + groups - 1]
    return -1


@numba.njit(nogil=True, cache=True)
def _is_plausible(data: np.ndarray, start: int, begin: int, end: int, scratch: np.ndarray) -> bool:
    """Whether the digits may be a national number: 7 to 15 of them, no date, range of years or grouped thousands."""
    groups, digits = scratch[GROUPS], scratch[DIGITS]
    if not 7 <= digits <= MOST_DIGITS or groups > 7:
        return False
    first, last = scratch[FIRST_LENGTH], scratch[FIRST_LENGTH + groups - 1]
    stop = scratch[FIRST_END + groups - 1]
    if stop < end and (is_word_byte(data[stop]) or data[stop] == 0x25):
        return False
    if stop + 1 < end and data[stop] in (0x2E, 0x2C, 0x3A, 0x2F, 0x2D) and is_digit(data[stop + 1]):
        return False
    if (
        groups == 2
        and first == 4
        and last == 4
        and scratch[FIRST_DIGIT] in (1, 2)
        and scratch[FIRST_DIGIT + 4] in (1, 2)
    ):
        return False
    if groups >= 3 and scratch[PARENTHESES] == 0:
        second = scratch[FIRST_LENGTH + 1]
        third = scratch[FIRST_LENGTH + 2]
        short = first <= 2 and second <= 2 and (third == 4 or (third == 2 and groups == 3))
        if (short and (third == 4 or scratch[SLASH] + scratch[DOTS] > 1)) or (
            first == 4 and second <= 2 and third <= 2
        ):
            return False
    if (
        groups == 4
        and scratch[DOTS] == 3
        and scratch[DIGITS] <= 12
        and scratch[FIRST_DIGIT]
        and first <= 3
        and last <= 3
    ):
        return False  # a dotted quad
    if scratch[DOTS] and scratch[DOTS] == groups - 1 and first <= 3 and scratch[FIRST_DIGIT]:
        thousands = True
        for k in range(1, groups):
            thousands &= scratch[FIRST_LENGTH + k] == 3
        if thousands:
            return False
    return True


@numba.njit(nogil=True, cache=True)
def _is_expected(
    data: np.ndarray, start: int, stop: int, begin: int, previous: int, words: WordTables, scratch: np.ndarray
) -> bool:
    """Whether what stands before the number, or its form, says that it is a phone number."""
    digits, groups = scratch[DIGITS], scratch[GROUPS]
    dialled = scratch[FIRST_DIGIT] == 0 or data[start] == 0x28
    if dialled and digits >= 8 and _is_area_set_off(data, start, scratch):
        return True
    if words_before(data, begin, start, OTHER, words) & OTHER_NUMBER:
        return False
    if previous >= begin and start - previous <= CHAIN and (dialled or digits >= 8):
        return True
    if digits >= 8 and dialled and _has_letter_label(data, start, begin):
        return True
    parted = groups > 1 or digits >= 9
    return words_before(data, begin, start, WIDE if dialled or parted else NEAR, words) & PHONE != 0


@numba.njit(nogil=True, cache=True)
def _is_area_set_off(data: np.ndarray, start: int, scratch: np.ndarray) -> bool:
    """Whether an area code with its trunk zero is followed by "/" or stands in parentheses."""
    first = scratch[FIRST_LENGTH]
    if scratch[FIRST_DIGIT] or scratch[FIRST_DIGIT + 1] == 0 or scratch[DIGITS] > 12:
        return False
    if data[start] == 0x28:
        return 2 <= first <= 6 and scratch[DIGITS] >= 9
    if not 3 <= first <= 6:  # else more digits follow, so that there is something to read
        return False
    after = scratch[FIRST_END]
    if data[after] == 0x20:
        after += 1
    return data[after] == 0x2F


@numba.njit(nogil=True, cache=True)
def _has_letter_label(data: np.ndarray, start: int, begin: int) -> bool:
    """Whether "T", "F", "M", "P" or "H" stands alone before the number, with white space, "." or ":" between."""
    at = start - 1
    while at >= begin and start - at < 5 and data[at] in (0x20, 0x0A, 0x2E, 0x3A):
        at -= 1
    if at < begin or at == start - 1 or data[at] not in (0x54, 0x46, 0x4D, 0x50, 0x48):
        return False
    return at == begin or not is_word_byte(data[at - 1])
