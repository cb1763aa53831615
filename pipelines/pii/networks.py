"""Public IP addresses.

What stays, IPv4 (the special-purpose registry of RFC 6890): 0/8 this network (RFC 791), 10/8, 172.16/12, 192.168/16
private (RFC 1918), 100.64/10 shared (RFC 6598), 127/8 loopback (RFC 1122), 169.254/16 link-local (RFC 3927),
192.0.0/24 (RFC 6890), 192.0.2/24, 198.51.100/24, 203.0.113/24 documentation (RFC 5737), 192.88.99/24 (RFC 7526),
198.18/15 benchmarking (RFC 2544), 224/4 multicast (RFC 5771), 240/4 reserved and broadcast (RFC 1112, RFC 919).

IPv6: all but global unicast 2000::/3 (RFC 4291: loopback, unspecified, fc00::/7 RFC 4193, fe80::/10, ff00::/8), and of
that 2001::/23 (RFC 2928), 2001:db8::/32 (RFC 3849), 3fff::/20 (RFC 9637) documentation.

A network is no host: `a.b.c.d/n` whose host bits are zero and `...::/n` stay. A dotted quad after a word such as
"version", in a URL's path or behind a name and "-" is a version; one with fewer than two numbers of two digits
(4.2.1.3, 8.8.8.8) counts only where a word such as "IP" or "DNS" stands before it.
"""

from __future__ import annotations

import numba
import numpy as np

from pipelines.pii.context import is_digit, is_letter, is_word_byte, words_before
from pipelines.pii.tables import HEX, NETWORK, VERSION, WordTables

WIDTH = 28
"""Bytes before a dotted quad in which words count."""
LONGEST_V6 = 45


@numba.njit(nogil=True, cache=True)
def ipv4(data: np.ndarray, start: int, begin: int, end: int, words: WordTables) -> int:
    """Return where the public IPv4 address that begins at `start` ends, or -1."""
    value, at, large = 0, start, 0
    for octet in range(4):
        number, first = 0, at
        while at < end and at - first < 4 and is_digit(data[at]):
            number = number * 10 + data[at] - 0x30
            at += 1
        if at == first or number > 255 or (data[first] == 0x30 and at - first > 1):
            return -1
        value = (value << 8) | number
        large += number >= 10
        if octet < 3:
            if at >= end or data[at] != 0x2E:
                return -1
            at += 1
    if not is_public_v4(value) or _is_inside(data, start, at, begin, end) or _is_network(data, at, end, value):
        return -1
    said = words_before(data, begin, start, WIDTH, words)
    if said & NETWORK:
        return at
    return -1 if said & VERSION or large < 2 else at


@numba.njit(nogil=True, cache=True)
def _is_inside(data: np.ndarray, start: int, stop: int, begin: int, end: int) -> bool:
    """Whether the digits are a part of something longer."""
    if stop < end:
        after = data[stop]
        if is_word_byte(after) or (
            after in (0x2E, 0x2D)
            and stop + 1 < end
            and is_word_byte(data[stop + 1])
            and (after == 0x2E or not is_digit(data[stop + 1]))
        ):
            return True
    if start == begin:
        return False
    before = data[start - 1]
    if before == 0x2E or is_word_byte(before):
        return True
    if before == 0x2D:
        return start - 2 >= begin and is_letter(data[start - 2])
    in_path = before == 0x2F and not (start - 2 >= begin and data[start - 2] == 0x2F)
    return in_path and stop < end and data[stop] == 0x2F


@numba.njit(nogil=True, cache=True)
def _is_network(data: np.ndarray, at: int, end: int, value: int) -> bool:
    if at + 1 >= end or data[at] != 0x2F or not is_digit(data[at + 1]):
        return False
    bits = data[at + 1] - 0x30
    if at + 2 < end and is_digit(data[at + 2]):
        bits = bits * 10 + data[at + 2] - 0x30
    return bits < 32 and value & ((1 << (32 - bits)) - 1) == 0


@numba.njit(nogil=True, cache=True)
def is_public_v4(value: int) -> bool:
    """Whether an IPv4 address, as an integer, is none of the ranges above."""
    first = value >> 24
    return not (
        first in (0, 10, 127)
        or first >= 224
        or value >> 20 == 0xAC1
        or value >> 16 in (0xC0A8, 0xA9FE)
        or value >> 22 == 0x191
        or value >> 17 == 0x6309
        or value >> 8 in (0xC00000, 0xC00002, 0xC05863, 0xC63364, 0xCB0071)
    )


@numba.njit(nogil=True, cache=True)
def ipv6(data: np.ndarray, colon: int, begin: int, end: int, classes: np.ndarray) -> tuple[int, int]:
    """Return the span of the public IPv6 address whose first ":" is at `colon`, or (-1, -1)."""
    start = colon
    while start > begin and colon - start < 5 and classes[data[start - 1]] & HEX:
        start -= 1
    # 2000::/3 is written with four digits
    if colon - start != 4 or (start > begin and (is_word_byte(data[start - 1]) or data[start - 1] in (0x3A, 0x2E))):
        return -1, -1
    groups, doubled, at, first, second = 0, False, start, 0, 0
    while at < end and at - start < LONGEST_V6 and groups < 8:
        value, group = 0, at
        while at < end and at - group < 5 and classes[data[at]] & HEX:
            digit = data[at] & 0x0F
            value = (value << 4) | (digit if is_digit(data[at]) else digit + 9)
            at += 1
        if at - group > 4:
            return -1, -1
        if at > group:
            groups += 1
            first, second = value if groups == 1 else first, value if groups == 2 else second
        if at + 1 < end and data[at] == 0x3A and data[at + 1] == 0x3A:
            if doubled:
                return -1, -1
            doubled = True
            at += 2
        elif at + 1 < end and at > group and data[at] == 0x3A and classes[data[at + 1]] & HEX and groups < 8:
            at += 1
        else:
            break
    stop_groups = 8 if not doubled else groups
    if stop_groups != groups or (doubled and groups > 7) or groups < 2:
        return -1, -1
    if at < end and (is_word_byte(data[at]) or (data[at] == 0x3A and at + 1 < end and is_word_byte(data[at + 1]))):
        return -1, -1
    if at + 1 < end and data[at] == 0x2E and is_digit(data[at + 1]):
        return -1, -1
    network = data[at - 1] == 0x3A and at < end and data[at] == 0x2F
    return (start, at) if is_public_v6(first, second) and not network else (-1, -1)


@numba.njit(nogil=True, cache=True)
def is_public_v6(first: int, second: int) -> bool:
    """Whether the first two groups are of global unicast, and of none of the ranges above."""
    if first >> 13 != 1:
        return False
    if first == 0x2001:
        return second >= 0x200 and second != 0xDB8
    return not (first == 0x3FFF and second < 0x1000)
