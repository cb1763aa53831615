"""Phrases are found wherever Python's strings find them, ASCII case aside."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.transforms.c4 import PHRASES as C4_PHRASES
from pipelines.transforms.phrases import Phrases, find_phrases, lowered, matches

# one within another, one that is another's beginning, one letter, letters that no phrase shares, no letter
SETS = [C4_PHRASES, ("aba", "ab", "bab", "b"), ("x-1 y", "1", "\0q"), ("zz",) * 3, tuple(f"p{k}" for k in range(63))]


def folded(data: bytes) -> bytes:
    return re.sub(rb"[A-Z]+", lambda match: match[0].lower(), data)


def found(data: bytes, start: int, stop: int, phrases: tuple[str, ...]) -> set[int]:
    bits = find_phrases(np.frombuffer(bytearray(data), np.uint8), start, stop, Phrases.of(phrases).arrays)
    return {k for k in range(64) if bits >> k & 1}


@pytest.mark.parametrize("place", range(len(SETS)))
@settings(deadline=None)
@given(data=st.data())
def test_phrases_are_those_that_python_finds(place, data):
    phrases = SETS[place]
    parts = [
        *phrases,
        *(phrase[:-1] for phrase in phrases),
        *(phrase.upper() for phrase in phrases),
        "é",
        "K",
        " ",
        "\0",
    ]
    text = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=12))).encode()
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, len(text)))
    part = folded(text[start:stop])
    assert found(text, start, stop, phrases) == {k for k, phrase in enumerate(phrases) if phrase.encode() in part}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Lorem IPSUM", {0}),
        ("javascriptlorem ipsum", {0, 1}),
        ("javascrip", set()),
        ("Use cookies", {7}),
        ("our use of cookies, it uses cookies", {5, 6}),
        ("terms of us", set()),
        ("terms\u00a0of use", set()),
        # the sign KELVIN is no "k"
        ("use coo\u212aies", set()),
    ],
)
def test_golden(text, expected):
    assert found(text.encode(), 0, len(text.encode()), C4_PHRASES) == expected


@settings(deadline=None)
@given(st.binary(max_size=30), st.binary(max_size=30))
@example(b"a\xe9", b"A\xc9")
def test_bytes_are_compared_but_for_ascii_case(left, right):
    size = min(len(left), len(right))
    data, text = (np.frombuffer(bytearray(b"x" + one[:size]), np.uint8) for one in (left, folded(right)))
    assert matches(data, 1, text, 1, size) == (folded(left[:size]) == folded(right[:size]))


def test_lower_case():
    assert bytes(lowered(byte) for byte in range(256)) == folded(bytes(range(256)))
