"""Words, lines and cuts of texts by Python's own strings: what the kernels of the filters are compared with.

Written from the docstrings of `pipelines/transforms/spans.py` and of the families, a character at a time.
"""

from __future__ import annotations

import dataclasses
import json
import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from runs import SHARED

from pipelines.schema import TURNS, VERDICT
from pipelines.transforms.edits import Edits
from pipelines.transforms.spans import GivenWords

SPACES = {point for point in map(chr, range(0x3001)) if point.isspace()} - set("\x1c\x1d\x1e\x1f")
BREAK = re.compile("\r\n|[\n\x0b\x0c\r\x85\u2028\u2029]")
UNSPACED = ("CJK ", "IDEOGRAPHIC ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ")

PIECES = [
    *" \n\r.,-'\"#[]{}0123aBé中あก\u0e49\u0301\u00a0\x85\u2028\0\u200b\u202e\u2026\u2022\U0001f600\U000e0fff!?。",
    "\r\n", "\n\n", "[1]", "[edit]", "the", "a b", "word ", "word word ", "J. S", "Mr. ", ". ", "...", "A line.\n",
]  # fmt: skip
"""What a text is made of that provokes the definitions."""
TEXTS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] == "L"


def is_digit(character: str) -> bool:
    return unicodedata.category(character)[0] == "N"


def is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


@cache
def is_unspaced(character: str) -> bool:
    """Whether this is a letter of a script that is written without spaces."""
    name = unicodedata.name(character, "")
    return is_letter(character) and name.removeprefix("HALFWIDTH ").startswith(UNSPACED)


def strip(text: str) -> str:
    return text.strip("".join(SPACES))


def tokens(text: str) -> list[tuple[int, int]]:
    """Return the places of what stands between white space."""
    return [match.span() for match in re.finditer(f"[^{''.join(SPACES)}]+", text)]


def split_unspaced(text: str, start: int, stop: int) -> list[tuple[int, int, bool]]:
    """Cut a token into letters of scripts without spaces, with the marks behind them, and what stands between."""
    pieces: list[tuple[int, int, bool]] = []
    at = start
    while at < stop:
        behind, unspaced = at + 1, is_unspaced(text[at])
        while behind < stop and (is_mark(text[behind]) if unspaced else not is_unspaced(text[behind])):
            behind += 1
        pieces.append((at, behind, unspaced))
        at = behind
    return pieces


@dataclasses.dataclass(frozen=True)
class Word:
    start: int
    stop: int
    kind: str
    text: str

    @property
    def alphabetic(self) -> bool:
        return any(map(is_letter, self.text))


def words(text: str) -> list[Word]:
    """Return the words of a text: "spaced", "unspaced" and "symbol" ones."""
    found: list[Word] = []
    for start, stop in tokens(text):
        if not any(is_letter(character) or is_digit(character) for character in text[start:stop]):
            found.append(Word(start, stop, "symbol", text[start:stop]))
            continue
        for first, last, unspaced in split_unspaced(text, start, stop):
            if unspaced:
                found.append(Word(first, last, "unspaced", text[first:last]))
                continue
            places = [place for place in range(first, last) if is_letter(text[place]) or is_digit(text[place])]
            if places:
                end = places[-1] + 1
                while end < last and is_mark(text[end]):
                    end += 1
                found.append(Word(places[0], end, "spaced", text[places[0] : end]))
    return found


def token_words(text: str) -> list[str]:
    """Return the words of the rules for lines: what stands between white space, and letters without spaces."""
    return [text[first:last] for start, stop in tokens(text) for first, last, _ in split_unspaced(text, start, stop)]


@dataclasses.dataclass(frozen=True)
class Line:
    start: int
    stop: int
    text: str
    blank_before: int
    """Blank lines between this one and the one before (or the text's beginning)."""


def lines(text: str) -> list[Line]:
    """Return the lines of a text that hold more than white space."""
    found, blank, start = [], 0, 0
    for stop, behind in [*(match.span() for match in BREAK.finditer(text)), (len(text), len(text))]:
        line = strip(text[start:stop])
        if line:
            first = text.index(line, start)
            found.append(Line(first, first + len(line), line, blank))
            blank = 0
        else:
            blank += 1
        start = behind
    return found


def paragraphs(text: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for line in lines(text):
        if found and not line.blank_before:
            found[-1] += (line.text,)
        else:
            found.append((line.text,))
    return found


def column(texts: Sequence[str | None]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def bytes_column(rows: Sequence[bytes]) -> pa.Array:
    """Return a text column of bytes that need not be UTF-8."""
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(bytearray(b"".join(rows)))]
    return pa.Array.from_buffers(pa.large_string(), len(rows), buffers)


def text_batch(texts: Sequence[str | None] | pa.Array, turns: list | None = None) -> pa.RecordBatch:
    """Return a batch of the columns that filters read."""
    text = texts if isinstance(texts, pa.Array) else column(texts)
    return pa.RecordBatch.from_pydict(
        {
            "language": pa.nulls(len(text), pa.string()),
            "text": text,
            "turns": pa.nulls(len(text), TURNS) if turns is None else pa.array(turns, TURNS),
            "verdict": pa.nulls(len(text), VERDICT),
        }
    )


def given_words(texts: Sequence[str]) -> GivenWords:
    """Return our own words, as if another tokenizer had found them."""
    offsets, spans = [0], []
    for text in texts:
        places = np.cumsum([0, *(len(character.encode()) for character in text)]).tolist()
        spans += [(places[word.start], places[word.stop]) for word in words(text)]
        offsets.append(len(spans))
    return GivenWords(np.array(offsets, np.int64), np.array(spans, np.int64).reshape(-1, 2))


def edits_of(*edits: tuple[int, int, int, int]) -> Edits:
    return Edits.of(np.array(edits, np.int64).reshape(-1, 4))


@cache
def real_texts(number: int) -> tuple[str, ...]:
    """Return real documents, about that many of each of two sources; none where the shared data is not here."""
    found: list[str] = []
    for path in ("web_text/c4_sample/c4_all.jsonl", "web_text/dclm_quality_labels/agreement_data.jsonl"):
        if (SHARED / path).exists():
            rows = (SHARED / path).read_text().splitlines()
            found += [json.loads(row)["text"] for row in rows[:: max(1, len(rows) // number)]]
    return tuple(found)


HOSTILE = {
    "nothing": "",
    "a word": "x" * 3_000,
    "white space": " \u3000\t" * 1_000,
    "line breaks": "\n\r\n\x85\u2028" * 500,
    "NUL": "\0" * 2_000 + "a\0b \0",
    "bidi": "\u202eabc\u202c \u2066x\u2069" * 200,
    "zero width": "\u200b\u200d\ufeff" * 900 + "a",
    "unassigned": "\U000e0fff\u0378 " * 700,
    "marks": "\u0301" * 3_000 + "a" + "\u0301" * 3_000,
    "Thai marks": "ก" + "\u0e49" * 3_000,
    "brackets": "[" * 3_000,
    "citations": "[1]" * 2_000,
    "citations in a line": "a[1] " * 1_500 + ".",
    "braces": "{" * 3_000,
    "quotes": "\"'" * 2_000,
    "dots": "." * 3_000,
    "one word": "a " * 4_100,
    "two words": "aB b " * 2_100,
    "Han": "水" * 4_100,
    "equal lines": "A line of some words.\n" * 600,
    "other lines": "".join(f"line {k} of some words.\n\n" for k in range(500)),
    "phrases": "items in cart " * 100 + "read more...",
}
"""Texts that are made to be dear, or to be read wrongly; short ones, for tests that compare."""
BROKEN = [
    b"a\xe4", b"bc", b"\xe2\x80", b"\xa8\xc2", b"\x85", b"\xff" * 50, b"\xf0\x9f\x98", b"\xe0\x80\xa0 \xc0\xaf",
    b"\xed\xa0\x80", b"[\xe2\x80] \xe2", b"line \xe2\x80\nline \xe2\x80\n", b"\xe6\xb0 \xb4",
]  # fmt: skip
"""Rows that are no UTF-8: cut, stray and overlong sequences."""
