"""The Unicode tables against `unicodedata`, and the decoding of text buffers."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.transforms.words import (
    LETTER,
    LINE_BREAK,
    MARK,
    NUMBER,
    SPACE,
    UNSPACED,
    code_point_classes,
    next_code_point,
    text_view,
)


def test_tables_are_those_of_unicode_14() -> None:
    """Python 3.11 has Unicode 14.0.0; later versions only add code points that the tables do not know."""
    classes = code_point_classes()
    is_version = unicodedata.unidata_version == "14.0.0"
    for bit, category in ((LETTER, "L"), (MARK, "M"), (NUMBER, "N")):
        ours = set(np.flatnonzero(classes & bit).tolist())
        theirs = {point for point in range(0x110000) if unicodedata.category(chr(point))[0] == category}
        assert ours == theirs if is_version else ours <= theirs


def test_spaces_are_white_space_without_the_information_separators() -> None:
    """`str.isspace` is White_Space and U+001C to U+001F; `str.splitlines` breaks at these too."""
    classes = code_point_classes()
    spaces = {point for point in range(0x110000) if chr(point).isspace()} - set(range(0x1C, 0x20))
    assert set(np.flatnonzero(classes & SPACE).tolist()) == spaces
    breaks = {point for point in range(0x110000) if len(f"a{chr(point)}b".splitlines()) == 2} - set(range(0x1C, 0x20))
    assert set(np.flatnonzero(classes & LINE_BREAK).tolist()) == breaks


def test_unspaced_scripts() -> None:
    """Letters of the named scripts and no others; Hangul is written with spaces."""
    classes = code_point_classes()
    for letter in "漢々あカーｶกແຂဂក𠀀":
        assert classes[ord(letter)] & UNSPACED, letter
    for other in "aé한ийहקب1，。、":
        assert not classes[ord(other)] & UNSPACED, other
    assert not np.any(classes[(classes & LETTER) == 0] & UNSPACED)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_next_code_point_reads_utf8(text: str) -> None:
    """All code points of a valid text, in order."""
    data = np.frombuffer(text.encode(), np.uint8)
    assert "".join(map(chr, _code_points(data))) == text


@settings(deadline=None)
@given(st.binary())
def test_next_code_point_survives_any_bytes(data: bytes) -> None:
    """Every step moves on, none reads behind the end, every code point is in the table."""
    points = _code_points(np.frombuffer(data, np.uint8))
    assert len(points) <= len(data)
    assert all(0 <= point < 0x110000 for point in points)


def _code_points(data: np.ndarray) -> list[int]:
    points, at = [], 0
    while at < len(data):
        point, behind = next_code_point(data, at, len(data))
        assert at < behind <= len(data)
        points.append(int(point))
        at = behind
    return points


def test_text_view_of_slices_nulls_and_nothing() -> None:
    """Offsets are those of the slice, a null is empty, no rows are no rows."""
    column = pa.array(["ab", "c", None, "", "dé"], pa.large_string())
    for part in (column, column.slice(1), column.slice(2, 2), column.slice(5), pa.nulls(2, pa.large_string())):
        offsets, data = text_view(part)
        rows = [data[start:stop].tobytes().decode() for start, stop in pairwise(offsets)]
        assert rows == [value or "" for value in part.to_pylist()]
