"""Character references: the named ones of the HTML standard as a table that a kernel can look up."""

from __future__ import annotations

import html.entities

import numpy as np

from pipelines.main_content.tags import hash_table

MAX_NAME = 32
"""The longest name is CounterClockwiseContourIntegral with 31 letters."""
MAX_LEGACY = 6
"""The longest name that needs no semicolon."""
TABLE_SIZE = 8192
LEGACY = 1 << 62
"""Set on names that need no semicolon."""

C1 = [
    0x20AC, 0x81, 0x201A, 0x192, 0x201E, 0x2026, 0x2020, 0x2021, 0x2C6, 0x2030, 0x160,
    0x2039, 0x152, 0x8D, 0x17D, 0x8F, 0x90, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
    0x2013, 0x2014, 0x2DC, 0x2122, 0x161, 0x203A, 0x153, 0x9D, 0x17E, 0x178,
]  # fmt: skip
"""What numbers 0x80 to 0x9F mean (HTML standard, section 13.2.5.80): windows-1252."""


def entity_table() -> tuple[np.ndarray, np.ndarray]:
    """Return the table from a name's hash to its value: first code point, second << 21, `LEGACY`.

    Names are without their semicolon, upper and lower case told apart.
    """
    names: dict[str, int] = {}
    for name, text in html.entities.html5.items():
        points = [ord(letter) for letter in text]
        bare = name.removesuffix(";")
        value = points[0] | (points[1] << 21 if len(points) > 1 else 0)
        names[bare] = names.get(bare, 0) | value | (0 if name.endswith(";") else LEGACY)
    return hash_table(names, TABLE_SIZE)


def c1_table() -> np.ndarray:
    """Return `C1` for a kernel: int64, shape (32,)."""
    return np.array(C1, np.int64)
