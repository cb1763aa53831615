"""The code points to which gigatoken 0.10 and tiktoken 0.14 give different classes, and the search for them.

gigatoken splits by the tables of Unicode 17, tiktoken by those of Unicode 16: letters, digits and marks that came with
17 split differently, so a text that holds one of them has to go to tiktoken. The ranges were found by running both over
every code point in a dozen contexts, with a toy vocabulary whose merges show every boundary, for both encodings
(tests/tokenizer/test_differences.py does it again). The search costs about 1 ns a byte.
"""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa

from tokenizer.columns import utf8

DIFFERENCES = (
    (0x088F, 0x088F),
    (0x0C5C, 0x0C5C),
    (0x0CDC, 0x0CDC),
    (0x1ACF, 0x1ADD),
    (0x1AE0, 0x1AEB),
    (0xA7CE, 0xA7CF),
    (0xA7D2, 0xA7D2),
    (0xA7D4, 0xA7D4),
    (0xA7F1, 0xA7F1),
    (0x10940, 0x10959),
    (0x10EC5, 0x10EC7),
    (0x10EFA, 0x10EFB),
    (0x11B60, 0x11B67),
    (0x11DB0, 0x11DDB),
    (0x11DE0, 0x11DE9),
    (0x16EA0, 0x16EB8),
    (0x16EBB, 0x16ED3),
    (0x16FF2, 0x16FF6),
    (0x187F8, 0x187FF),
    (0x18D09, 0x18D1E),
    (0x18D80, 0x18DF2),
    (0x1E6C0, 0x1E6DE),
    (0x1E6E0, 0x1E6F5),
    (0x1E6FE, 0x1E6FF),
    (0x2B73A, 0x2B73F),
    (0x2CEA2, 0x2CEAD),
    (0x323B0, 0x33479),
)
"""Inclusive ranges, ascending; all in three or four bytes of UTF-8. The union over both encodings."""


def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Return which lead bytes, and which code points, can belong to a difference (bool, indexed by value)."""
    leads, points = np.zeros(256, np.bool_), np.zeros(0x110000, np.bool_)
    for first, last in DIFFERENCES:
        points[first : last + 1] = True
        leads[chr(first).encode()[0] : chr(last).encode()[0] + 1] = True
    return leads, points


_LEADS, _POINTS = _tables()


def differing(text: pa.LargeStringArray) -> np.ndarray:
    """Return for every row (bool) whether it holds such a code point. The rows must be valid UTF-8."""
    data, offsets = utf8(text)
    found = np.zeros(len(text), np.bool_)
    _search(data, offsets, _LEADS, _POINTS, found)
    return found


@numba.njit(nogil=True, cache=True)
def _search(data, offsets, leads, points, found):  # type: ignore[no-untyped-def]
    """Mark the rows of `data` in which a code point of `points` occurs, decoding only behind the lead bytes."""
    for row in range(len(found)):
        at, end = offsets[row], offsets[row + 1]
        while at < end:
            lead = data[at]
            if not leads[lead]:
                at += 1
                continue
            tail = (np.int64(data[at + 1] & 0x3F) << 6) | np.int64(data[at + 2] & 0x3F)
            if lead < 0xF0:
                point = (np.int64(lead & 0x0F) << 12) | tail
                at += 3
            else:
                point = (np.int64(lead & 0x07) << 18) | (tail << 6) | np.int64(data[at + 3] & 0x3F)
                at += 4
            if points[point]:
                found[row] = True
                break
