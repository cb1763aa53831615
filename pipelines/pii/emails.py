"""E-mail addresses: local part, "@", and a host name under a top-level domain that exists (RFC 5321, unquoted forms).

What stays: documentation hosts (a label `example`, RFC 2606; `.test`, `.invalid`, `.localhost` and other names that are
no top-level domain), addresses of machines (`git@host:path`, `user@host:/path`, the user of a URL), fediverse handles
(`@user@host`), decorators and calls, and the ids of messages (ten digits or more and a "." in the local part).
"""

from __future__ import annotations

import numba
import numpy as np

from pipelines.pii.context import is_digit
from pipelines.pii.tables import DOMAIN, LOCAL, LONGEST_DOMAIN

LONGEST_LOCAL, LONGEST_LABEL, LONGEST_HOST = 64, 63, 253
"""Bytes (RFC 5321, 4.5.3.1; RFC 1035, 2.3.4)."""
LONGEST_URL = 96
"""How far before an address the scheme of a URL is looked for, in bytes."""
MESSAGE_ID_DIGITS = 10


@numba.njit(nogil=True, cache=True)
def email(data: np.ndarray, at: int, begin: int, end: int, classes: np.ndarray, domains: np.ndarray) -> tuple[int, int]:
    """Return the span of the address whose "@" is at `at`, or (-1, -1). Looks at 320 bytes at most."""
    start = _local_start(data, at, begin, classes)
    if start < 0:
        return -1, -1
    stop = _host_stop(data, at + 1, end, classes, domains)
    if stop < 0 or _is_machine(data, start, at, stop, begin, end) or _is_message_id(data, start, at):
        return -1, -1
    return start, stop


@numba.njit(nogil=True, cache=True)
def _local_start(data: np.ndarray, at: int, begin: int, classes: np.ndarray) -> int:
    """Return where the local part begins, or -1. Letters of two bytes (Latin, Greek, Cyrillic) belong to it."""
    start = at
    while start > begin and at - start <= LONGEST_LOCAL:
        byte = data[start - 1]
        if classes[byte] & LOCAL:
            start -= 1
        elif 0x80 <= byte < 0xC0 and start - 2 >= begin and 0xC3 <= data[start - 2] <= 0xD1:
            start -= 2
        else:
            break
    if at - start > LONGEST_LOCAL:
        return -1
    if start > begin and data[start - 1] == 0x5C and start < at and data[start] in (0x6E, 0x72, 0x74):
        start += 1  # the n, r or t of an escape
    while start < at and data[start] in (0x2E, 0x2D, 0x2B, 0x25):
        start += 1
    return -1 if start == at or data[at - 1] == 0x2E else start


@numba.njit(nogil=True, cache=True)
def _host_stop(data: np.ndarray, start: int, end: int, classes: np.ndarray, domains: np.ndarray) -> int:
    """Return where the longest host name ends that begins at `start` and has a top-level domain, or -1."""
    at, label, labels, best = start, start, 0, -1
    limit = min(end, start + LONGEST_HOST)
    while True:
        while at < limit:
            if classes[data[at]] & DOMAIN:
                at += 1
            elif 0xC3 <= data[at] <= 0xD1 and at + 1 < limit and 0x80 <= data[at + 1] < 0xC0:
                at += 2
            else:
                break
        if at == label or at - label > LONGEST_LABEL or data[label] == 0x2D:
            break
        labels += 1
        if _is_example(data, label, at):
            return -1
        if labels > 1 and _is_top_level(data, label, at, domains):
            best = at
        if at >= limit or data[at] != 0x2E:
            break
        at += 1
        label = at
    return best


@numba.njit(nogil=True, cache=True)
def _is_top_level(data: np.ndarray, start: int, stop: int, domains: np.ndarray) -> bool:
    if stop - start > 4 and data[start] | 0x20 == 0x78 and data[start + 1] | 0x20 == 0x6E and data[start + 2] == 0x2D:
        return True  # xn--
    if stop - start > LONGEST_DOMAIN:
        return False
    value = 0
    for place in range(start, stop):
        letter = data[place] | 0x20
        if not 0x61 <= letter <= 0x7A:
            return False
        value = value * 27 + letter - 0x60
    place = int(np.searchsorted(domains, value))
    return place < len(domains) and domains[place] == value


@numba.njit(nogil=True, cache=True)
def _is_example(data: np.ndarray, start: int, stop: int) -> bool:
    value = 0
    for place in range(start, min(stop, start + 8)):
        value = (value << 8) | data[place] | 0x20
    return stop - start == 7 and value == 0x6578616D706C65


@numba.njit(nogil=True, cache=True)
def _is_machine(data: np.ndarray, start: int, at: int, stop: int, begin: int, end: int) -> bool:
    """Whether what stands around the address says that it is none: a path, a URL, a handle, a call."""
    if stop < end:
        after = data[stop]
        if after in (0x28, 0x40, 0x5F):
            return True
        git = at - start == 3 and data[start] == 0x67 and data[start + 1] == 0x69 and data[start + 2] == 0x74
        if after == 0x3A and (git or (stop + 1 < end and data[stop + 1] in (0x2F, 0x7E))):
            return True
    if start == begin:
        return False
    before = data[start - 1]
    if before == 0x40:
        return True
    if before == 0x2F:
        return start - 2 >= begin and data[start - 2] == 0x2F
    if before == 0x3A:
        place = start - 2
        while (
            place > begin
            and start - place < LONGEST_URL
            and data[place] > 0x20
            and data[place] not in (0x22, 0x27, 0x3C)
        ):
            if data[place] == 0x2F and data[place - 1] == 0x2F:
                return True
            place -= 1
    return False


@numba.njit(nogil=True, cache=True)
def _is_message_id(data: np.ndarray, start: int, at: int) -> bool:
    digits, dots = 0, 0
    for place in range(start, at):
        digits += is_digit(data[place])
        dots += data[place] == 0x2E
    return digits >= MESSAGE_ID_DIGITS and dots > 0
