"""Numbers that carry a check: payment cards (ISO/IEC 7812: issuer, length, Luhn) and IBANs (ISO 13616: mod 97)."""

from __future__ import annotations

import numba
import numpy as np

from pipelines.pii.context import is_digit, is_letter, is_word_byte

MOST_CARD_DIGITS, LEAST_CARD_DIGITS = 19, 14


@numba.njit(nogil=True, cache=True)
def card_number(data: np.ndarray, start: int, begin: int, end: int) -> int:
    """Return where the card number that begins at `start` ends, or -1.

    Digits stand together, or in groups with one kind of separator, a space or "-": 4-4-4-4, 4-4-4-4-3,
    4-4-4-2, 4-6-5 or 4-6-4.
    """
    if start > begin and (is_word_byte(data[start - 1]) or data[start - 1] in (0x2E, 0x2D, 0x2F, 0x2B, 0x25, 0x2C)):
        return -1
    at, digits, groups, shape, separator, prefix = start, 0, 0, 0, 0, 0
    odd, even = 0, 0  # the sums of Luhn, with the digits at odd and even places doubled
    while True:
        first = at
        while at < end and digits <= MOST_CARD_DIGITS and is_digit(data[at]):
            digit = data[at] - 0x30
            twice = 2 * digit - (9 if digit > 4 else 0)
            odd += twice if digits % 2 else digit
            even += digit if digits % 2 else twice
            prefix = prefix * 10 + digit if digits < 6 else prefix
            digits += 1
            at += 1
        groups += 1
        shape = shape * 100 + at - first if groups <= 5 else -1
        if groups >= 5 or at + 1 >= end or data[at] not in (0x20, 0x2D) or not is_digit(data[at + 1]) or digits > 16:
            break
        if (separator and data[at] != separator) or (digits == 16 and data[at] == 0x20):
            break
        separator = data[at]
        at += 1
    if (
        groups > 1 and shape not in (4040404, 404040403, 4040402, 40605, 40604)
    ) or not LEAST_CARD_DIGITS <= digits <= MOST_CARD_DIGITS:
        return -1
    if at < end and (
        is_word_byte(data[at]) or (data[at] in (0x2D, 0x2E, 0x2C, 0x2F) and at + 1 < end and is_digit(data[at + 1]))
    ):
        return -1
    return at if (odd if digits % 2 else even) % 10 == 0 and _is_issuer(prefix, digits) else -1


@numba.njit(nogil=True, cache=True)
def _is_issuer(prefix: int, digits: int) -> bool:
    """Whether a network issues numbers of this length under the first six digits."""
    four, three, two = prefix // 100, prefix // 1_000, prefix // 10_000
    if two // 10 == 4:  # Visa
        return digits in (16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720:  # Mastercard
        return digits == 16
    if two in (34, 37):  # American Express
        return digits == 15
    if 300 <= three <= 305 or two in (36, 38, 39):  # Diners Club
        return 14 <= digits <= 19
    # Discover, JCB, UnionPay, Maestro
    if four == 6011 or 644 <= three <= 649 or two in (65, 62) or 3528 <= four <= 3589:
        return digits >= 16
    return four in (5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763, 6799) and digits >= 16


@numba.njit(nogil=True, cache=True)
def iban(data: np.ndarray, start: int, begin: int, end: int, lengths: np.ndarray) -> int:
    """Return where the IBAN that begins at `start` ends, or -1. One space, "-" or line break may part groups."""
    if start + 15 > end or not (is_letter(data[start]) and is_letter(data[start + 1])):
        return -1
    if start > begin and is_word_byte(data[start - 1]):
        return -1
    country = (data[start] & 0x5F) * 26 + (data[start + 1] & 0x5F) - 65 * 27
    length = lengths[country]
    if length == 0:
        return -1
    at, characters, head, rest = start, 0, 0, 0
    while characters < length:
        if at >= end:
            return -1
        byte = data[at]
        if is_digit(byte):
            value, power = byte - 0x30, 10
        elif is_letter(byte):
            value, power = (byte & 0x5F) - 55, 100
        elif characters and byte in (0x20, 0x2D, 0x0A) and data[at - 1] not in (0x20, 0x2D, 0x0A):
            at += 1
            continue
        elif characters and byte == 0xC2 and at + 1 < end and data[at + 1] == 0xA0:
            at += 2
            continue
        else:
            return -1
        if characters < 4 and (characters < 2) == (power == 10):  # two letters, two digits
            return -1
        if characters < 4:  # country and check digits come last in the number that is divided
            head = head * power + value
        else:
            rest = (rest * power + value) % 97
        characters += 1
        at += 1
    if at < end and is_word_byte(data[at]):
        return -1
    return at if (rest * 1_000_000 + head) % 97 == 1 else -1
