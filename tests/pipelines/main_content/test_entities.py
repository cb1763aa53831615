"""Character references against `html.unescape`, which follows the same standard."""

from __future__ import annotations

import html
import html.entities

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.main_content import entities as e
from pipelines.main_content.scan import _reference

KEYS, VALUES = e.entity_table()
C1 = e.c1_table()


def decoded(text: str) -> str:
    """Return `text` with its references decoded by the kernel, one after another."""
    data, out, at = np.frombuffer(text.encode(), np.uint8), [], 0
    while at < len(data):
        if data[at] != ord("&"):
            out.append(chr(data[at]))
            at += 1
            continue
        first, second, at = _reference(data, at + 1, len(data), KEYS, VALUES, C1)
        out.append(chr(first) + (chr(second) if second else ""))
    return "".join(out)


def test_bounds_on_names_are_those_of_the_names() -> None:
    names = [name.removesuffix(";") for name in html.entities.html5]
    legacy = [name for name in html.entities.html5 if not name.endswith(";")]
    assert max(map(len, names)) == 31 < e.MAX_NAME
    assert max(map(len, legacy)) == e.MAX_LEGACY
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") for name in names)
    assert max(map(len, html.entities.html5.values())) == 2


def test_every_name_is_decoded_as_html_unescape_does() -> None:
    """With and without semicolon, at the end, before a letter and before a space: 2,231 names."""
    for name in html.entities.html5:
        for text in (f"&{name}", f"&{name.removesuffix(';')}", f"&{name}x", f"&{name.removesuffix(';')} ;"):
            assert decoded(text) == html.unescape(text), text


# reference -> what it is, by the standard's tables
GOLDEN = {
    "&amp;lt;": "&lt;",
    "&notit;": "\xacit;",
    "&notin;": "\u2209",
    "&nGt;": "\u226b\u20d2",
    "&fjlig;": "fj",
    "&hellip": "&hellip",
    "&CounterClockwiseContourIntegral;": "\u2233",
    "&CounterClockwiseContourIntegralx;": "&CounterClockwiseContourIntegralx;",
    "&ampx": "&x",
    "&;&": "&;&",
    "& &&#&#;&#x;&#xg": "& &&#&#;&#x;&#xg",
    "&#65;&#65&#x41;&#X4a;&#x4A": "AAAJJ",
    "&#0;&#xD800;&#x110000;&#99999999999999999999999;": "\ufffd" * 4,
    "&#x10FFFF;": "\U0010ffff",
    "&#128;&#x80;&#150;&#x9f;&#129;": "\u20ac\u20ac\u2013\u0178\x81",
}


@pytest.mark.parametrize("text", GOLDEN)
def test_golden(text: str) -> None:
    assert decoded(text) == GOLDEN[text]


def test_numbers_of_c1_controls_mean_windows_1252() -> None:
    """Five of the 32 have no character there and stay what they are."""
    for byte in range(0x80, 0xA0):
        expected = bytes([byte]).decode("cp1252", "ignore") or chr(byte)
        assert decoded(f"&#{byte};") == expected
    assert len(C1) == 32


def test_ten_thousand_digits_are_one_bad_number() -> None:
    """`html.unescape` itself refuses as many digits."""
    assert decoded("&#" + "9" * 10_000 + ";x") == "\ufffdx"
    assert decoded("&#" + "0" * 10_000 + "65;x") == "Ax"


@settings(deadline=None)
@given(st.integers(0, 0x120000), st.booleans(), st.booleans())
@example(0xFDD0, True, True)
def test_numbers(number: int, is_hex: bool, is_closed: bool) -> None:
    """Python leaves out what the standard only calls an error: controls and noncharacters."""
    text = (f"&#x{number:x}" if is_hex else f"&#{number}") + (";" if is_closed else " ")
    expected = html.unescape(text).removesuffix("" if is_closed else " ")
    found = decoded(text).removesuffix("" if is_closed else " ")
    assert found == expected or (not expected and found == chr(number))


NAME_PARTS = st.sampled_from(["amp", "lt", "not", "in", "copy", "Copf", "frac12", "yen", "x", "9", ";", "&", "#x4a"])


@settings(deadline=None)
@given(st.lists(NAME_PARTS | st.text("abcxyzAZ09;&", max_size=12), max_size=8).map("".join))
def test_any_text_is_decoded_as_html_unescape_does(text: str) -> None:
    text = "&" + text
    assert decoded(text) == html.unescape(text)
