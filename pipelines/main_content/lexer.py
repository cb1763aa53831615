"""The lexical rules of HTML that kernels share: where names, comments and raw text end (HTML standard, 13.2.5).

Every function takes bytes as a uint8 array and a place, never reads behind the end, and returns a place that is further
on; so a scan made of them is linear.
"""

from __future__ import annotations

import numba
import numpy as np

from pipelines.main_content.tags import FNV_PRIME

_PRIME = FNV_PRIME


@numba.njit(nogil=True, cache=True, inline="always")
def is_letter(byte: int) -> bool:
    """Whether a byte is an ASCII letter."""
    return 0x61 <= (byte | 0x20) <= 0x7A


@numba.njit(nogil=True, cache=True, inline="always")
def is_space(byte: int) -> bool:
    """Whether a byte is white space of HTML: tab, line feed, form feed, carriage return, space."""
    return byte == 0x20 or (0x09 <= byte <= 0x0D and byte != 0x0B)


@numba.njit(nogil=True, cache=True)
def read_name(data: np.ndarray, at: int, is_attribute: bool) -> tuple[int, int, bool]:
    """Return the hash of the tag's or attribute's name at `at`, the place behind it, and whether it has a hyphen."""
    name, end, has_hyphen = 0, len(data), False
    while at < end:
        byte = data[at]
        if is_space(byte) or byte == 0x2F or byte == 0x3E or (is_attribute and byte == 0x3D):
            break
        has_hyphen = has_hyphen or byte == 0x2D
        name = (name ^ (byte | (0x20 if 0x41 <= byte <= 0x5A else 0))) * _PRIME
        at += 1
    return name, at, has_hyphen


@numba.njit(nogil=True, cache=True)
def read_value(data: np.ndarray, at: int) -> tuple[int, int, int]:
    """Return start and end of the value of the attribute whose name ends at `at`, and the place behind it.

    Without "=" the value is empty.
    """
    end = len(data)
    start = at
    while start < end and is_space(data[start]):
        start += 1
    if start >= end or data[start] != 0x3D:  # =
        return at, at, at
    start += 1
    while start < end and is_space(data[start]):
        start += 1
    stop = start
    if start < end and (data[start] == 0x22 or data[start] == 0x27):
        quote = data[start]
        start += 1
        stop = start
        while stop < end and data[stop] != quote:
            stop += 1
        return start, stop, min(stop + 1, end)
    while stop < end and not is_space(data[stop]) and data[stop] != 0x3E:
        stop += 1
    return start, stop, stop


@numba.njit(nogil=True, cache=True)
def skip_comment(data: np.ndarray, at: int) -> int:
    """Return the place behind the comment whose text starts at `at`, or behind what passes for one: up to ">"."""
    end = len(data)
    is_comment = at + 1 < end and data[at - 1] == 0x21 and data[at] == 0x2D and data[at + 1] == 0x2D
    start = at + 2
    while at < end:
        if data[at] == 0x3E and (not is_comment or _closes_comment(data, start, at)):
            return at + 1
        at += 1
    return end


@numba.njit(nogil=True, cache=True)
def _closes_comment(data: np.ndarray, start: int, at: int) -> bool:
    """Whether the ">" at `at` ends a comment whose text starts at `start`: "-->", "--!>", or right at the start."""
    if at == start or (at == start + 1 and data[start] == 0x2D):
        return True
    if at >= start + 2 and data[at - 1] == 0x2D and data[at - 2] == 0x2D:
        return True
    return at >= start + 3 and data[at - 1] == 0x21 and data[at - 2] == 0x2D and data[at - 3] == 0x2D


@numba.njit(nogil=True, cache=True)
def skip_raw_text(data: np.ndarray, at: int, name: int) -> int:
    """Return the place of the end tag `name` (a hash) behind `at`, or the end of the data."""
    end = len(data)
    while at + 2 < end:
        if data[at] == 0x3C and data[at + 1] == 0x2F and is_letter(data[at + 2]):
            value, k = 0, at + 2
            while k < end and is_letter(data[k]):
                value = (value ^ (data[k] | 0x20)) * _PRIME
                k += 1
            if value == name and k < end and (is_space(data[k]) or data[k] == 0x2F or data[k] == 0x3E):
                return at
        at += 1
    return end
