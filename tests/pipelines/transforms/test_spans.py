"""Words and lines: golden spans by hand, against Python's strings, and a piece at a time."""

from __future__ import annotations

import numpy as np
import plain_text
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_text import BROKEN, HOSTILE, TEXTS, Word, real_texts

from pipelines.transforms.spans import (
    ALPHABETIC,
    CHARACTERS,
    CHUNK,
    HASH,
    KIND,
    KINDS,
    START,
    STOP,
    SYMBOL_WORD,
    UNSPACED_WORD,
    GivenWords,
    count_characters,
    count_words,
    most_lines,
    next_line,
    read_given_words,
    read_words,
    skip_space,
    skip_space_back,
)
from pipelines.transforms.words import SPACE, code_point_classes

CLASSES = code_point_classes()


def bytes_of(text: str | bytes) -> np.ndarray:
    return np.frombuffer(bytearray(text.encode() if isinstance(text, str) else text), np.uint8)


def read(text: str | bytes, chunk: int = CHUNK) -> np.ndarray:
    """Return all words of a text, read in chunks."""
    data, parts, at, inside = bytes_of(text), [], 0, False
    while at < len(data):
        words = np.full((chunk + 1, 5), -9, np.int64)
        num, behind, inside = read_words(data, at, len(data), CLASSES, inside, words)
        assert 0 <= num <= chunk + 1
        assert behind > at
        at = behind
        parts.append(words[:num])
    return np.concatenate([np.empty((0, 5), np.int64), *parts])


def as_words(text: str, words: np.ndarray) -> list[Word]:
    data = text.encode()
    characters = np.cumsum([0, *(byte & 0xC0 != 0x80 for byte in data[1:]), 1]).tolist()  # before each byte
    names = {UNSPACED_WORD: "unspaced", SYMBOL_WORD: "symbol"}
    found = []
    for word in words.tolist():
        start, stop = characters[word[START]], characters[word[STOP]]
        found.append(
            Word(start, stop, names.get(word[KIND] & KINDS, "spaced"), data[word[START] : word[STOP]].decode())
        )
        assert word[CHARACTERS] == stop - start
        assert bool(word[KIND] & ALPHABETIC) == found[-1].alphabetic
    return found


def read_lines(data: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (start, stop, line breaks before) of every line."""
    found, at, after_cr = [], 0, False
    while True:
        start, stop, breaks, at, after_cr = next_line(data, at, len(data), CLASSES, after_cr)
        if start == len(data):
            return found
        assert start < stop <= at
        found.append((start, stop, breaks))


# text -> the words as strings; symbol words in angle quotes
GOLDEN_WORDS = {
    '"don\'t," (2,000) -- a-b': ["don't", "2,000", "‹--›", "a-b"],
    "Python的书3": ["Python", "的", "书", "3"],
    # a comma beside letters of a script without spaces is no word of its own; one between spaces is
    "你，好 ，": ["你", "，好"[1:], "‹，›"],
    # marks go with the letter before them; what stands before the first letter or digit is cut off, marks too
    "\u0301a\u0301- -\u0301 e\u0301-\u0301": ["a\u0301", "‹-\u0301›", "e\u0301"],
    "ก\u0e49า": ["ก\u0e49", "า"],
    "a\u00a0b\u200bc\0d": ["a", "b\u200bc\0d"],
    "": [],
    "\U0001f600 \u2764\ufe0fok\u2764\ufe0f": ["‹\U0001f600›", "ok"],
}


@pytest.mark.parametrize("text", GOLDEN_WORDS)
def test_golden_words(text):
    found = [f"‹{word.text}›" if word.kind == "symbol" else word.text for word in as_words(text, read(text))]
    assert found == GOLDEN_WORDS[text]
    assert count_words(bytes_of(text), 0, len(text.encode()), CLASSES, np.empty((CHUNK + 1, 5), np.int64)) == len(found)


# text -> (line, line breaks before it, but for the one that ended the line before)
GOLDEN_LINES = {
    " a \n\n b\r\n\r\nc": [("a", 0), ("b", 1), ("c", 1)],
    "\r\n\r\n\n\ra": [("a", 4)],
    "a\r\r\nb\n\rc": [("a", 0), ("b", 1), ("c", 1)],
    "a\x85\u2028 \u2029b\x0bc\x0cd": [("a", 0), ("b", 2), ("c", 0), ("d", 0)],
    "a\x1cb": [("a\x1cb", 0)],
    "\u3000\n": [],
}


@pytest.mark.parametrize("text", GOLDEN_LINES)
def test_golden_lines(text):
    data = bytes_of(text)
    assert [(data[a:b].tobytes().decode(), n) for a, b, n in read_lines(data)] == GOLDEN_LINES[text]


@settings(deadline=None)
@given(TEXTS, st.integers(1, 7))
@example("中\u0301a", 1)
@example("a中-", 1)
@example("-中", 1)
def test_words_are_those_of_python_in_chunks_of_any_size(text, chunk):
    whole, parts = read(text), read(text, chunk)
    assert as_words(text, whole) == plain_text.words(text)
    assert parts.tolist() == whole.tolist()
    # equal hashes mean equal words
    pairs = {(word.text, hashed) for word, hashed in zip(as_words(text, whole), whole[:, HASH].tolist(), strict=True)}
    assert len({text for text, _ in pairs}) == len({hashed for _, hashed in pairs}) == len(pairs)


@settings(deadline=None)
@given(TEXTS)
def test_lines_and_counts_are_those_of_python(text):
    data = bytes_of(text)
    end = len(data)
    lines = plain_text.lines(text)
    found = read_lines(data)
    assert [data[a:b].tobytes().decode() for a, b, _ in found] == [line.text for line in lines]
    assert [n for _, _, n in found] == [line.blank_before for line in lines]
    assert len(lines) <= most_lines(data, 0, end)
    assert count_characters(data, 0, end) == len(text)
    words = np.empty((4, 5), np.int64)
    assert count_words(data, 0, end, CLASSES, words) == len(plain_text.words(text))
    stripped = plain_text.strip(text)
    if stripped:
        start = skip_space(data, 0, end, CLASSES)
        assert data[start : skip_space_back(data, start, end, CLASSES)].tobytes() == stripped.encode()
    else:
        assert skip_space(data, 0, end, CLASSES) == end
        assert skip_space_back(data, 0, end, CLASSES) == 0


@settings(deadline=None)
@given(TEXTS)
def test_given_words_are_read_as_ours(text):
    """But for their kind: other tokenizers do not tell scripts without spaces apart."""
    data, given, ours = bytes_of(text), plain_text.given_words([text]), read(text)
    parts, first = [np.empty((0, 5), np.int64)], 0
    while first < len(given.spans):
        words = np.empty((3, 5), np.int64)
        num = read_given_words(data, 0, given.spans, first, CLASSES, words)
        parts.append(words[:num])
        first += num
    theirs = np.concatenate(parts)
    columns = [START, STOP, CHARACTERS, HASH]
    assert theirs[:, columns].tolist() == ours[:, columns].tolist()
    assert (theirs[:, KIND] & ALPHABETIC).tolist() == (ours[:, KIND] & ALPHABETIC).tolist()
    assert ((theirs[:, KIND] & KINDS) == SYMBOL_WORD).tolist() == ((ours[:, KIND] & KINDS) == SYMBOL_WORD).tolist()


def test_given_words_must_be_there():
    given = GivenWords.find(["a é b", "", "b"], [["é", "b"], [], ["b"]])
    assert given.offsets.tolist() == [0, 2, 2, 3]
    assert given.spans.tolist() == [[2, 4], [5, 6], [0, 1]]
    with pytest.raises(ValueError, match="substring not found"):
        GivenWords.find(["a b"], [["b", "a"]])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts(name):
    text = HOSTILE[name]
    data = bytes_of(text)
    words = read(text)
    assert as_words(text, words) == plain_text.words(text)
    assert read(text, 1).tolist() == words.tolist()
    assert [data[a:b].tobytes().decode() for a, b, _ in read_lines(data)] == [
        one.text for one in plain_text.lines(text)
    ]


@pytest.mark.parametrize("state", ["a", "a-", "中", "中\u0301", "ก\u0e49\u0e49", "-", " ", "中-", "中a"])
def test_texts_longer_than_a_chunk_end_it_in_every_state(state):
    for before in range(CHUNK - 3, CHUNK + 2):
        text = "w " * before + state + state + " b"
        assert as_words(text, read(text)) == plain_text.words(text)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*BROKEN, *(piece.encode() for piece in plain_text.PIECES)])).map(b"".join))
def test_any_bytes_are_read_in_order(data):
    """Each word and line within the text and behind the one before; chunks of one give the same."""
    words = read(data)
    assert words.tolist() == read(data, 1).tolist()
    bounds = words[:, [START, STOP]].ravel()
    assert np.all(np.diff(bounds) >= 0)
    assert np.all(words[:, STOP] > words[:, START])
    lines = read_lines(bytes_of(data))
    assert all(one[1] <= other[0] for one, other in zip(lines, lines[1:], strict=False))
    assert len(lines) <= most_lines(bytes_of(data), 0, len(data))


@pytest.mark.skipif(not real_texts(1), reason="needs ../shared/data")
def test_real_documents():
    for text in real_texts(150):
        data = bytes_of(text)
        assert as_words(text, read(text)) == plain_text.words(text)
        assert [data[a:b].tobytes().decode() for a, b, _ in read_lines(data)] == [
            line.text for line in plain_text.lines(text)
        ]


def test_space_is_one_bit():
    """Loops without branches add it up."""
    assert SPACE == 1
