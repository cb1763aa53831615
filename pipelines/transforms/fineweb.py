"""The FineWeb quality rules: lists, menus and lines that come again, told by their lines.

Thresholds: Penedo et al. 2024, "The FineWeb Datasets" (arXiv 2406.17557), and datatrove's filter, which made FineWeb.
The paper and the code differ in one: characters in duplicate lines, 0.1 in the text, 0.01 in the code's default (100
here; give 1000 for the paper's).

- **line**, **word**, **character**: as in `spans.py`. A line has no white space at its ends.
- **punctuated line**: its last character is one that ends a sentence (the property Sentence_Terminal of Unicode 14:
  `.`, `?`, `!` and those of other scripts; quotation marks are none).
- **short line**: one of at most `short_line` characters.
- **duplicate line**: one that an earlier line equals. Ratio: its characters over those of the text without line breaks.
- **line break**: each one that stands in the text, CR LF counted once. Ratio: line breaks over words.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numba
import numpy as np
import pyarrow as pa

from pipelines.transforms.hashing import find_key, hash_bytes, key_of, table_size
from pipelines.transforms.rules import RATIO, Rule, RuleFilter, check_thresholds
from pipelines.transforms.spans import (
    CHUNK,
    NO_GIVEN_WORDS,
    GivenWords,
    count_characters,
    count_words,
    most_lines,
    next_line,
)
from pipelines.transforms.words import LINE_BREAK, TERMINAL, code_point_classes, next_code_point, text_view

LINES, PUNCTUATED_LINES, SHORT_LINES, DUPLICATE_CHARACTERS, CHARACTERS, LINE_BREAKS, WORDS = range(7)
"""The columns of `statistics`."""
NUM_STATISTICS = 7
MOST = 1 << 20
"""Distinct lines that are remembered of a text."""


@dataclasses.dataclass(frozen=True, slots=True)
class FineWebQuality(RuleFilter):
    """Drops documents that break a FineWeb rule; the first broken one, in the order of `rules`, is the reason.

    Ratios are in 1/10,000; null switches a rule off.
    """

    name: ClassVar[str] = "fineweb_quality"
    version: ClassVar[int] = 1

    min_punctuated_lines: int | None = 1_200
    ignore_trailing_space: bool = True
    """False: a line with white space behind its last mark has none, as in datatrove's filter."""
    max_short_lines: int | None = 6_700
    short_line: int = 30
    """Characters that a short line has at most."""
    max_duplicate_line_characters: int | None = 100
    """0.01 as in the code of FineWeb; the paper says 0.1 (1000)."""
    max_line_breaks: int | None = 3_000
    """Line breaks for every word."""

    def __post_init__(self) -> None:
        """Refuse thresholds that no document or every document meets by mistake."""
        check_thresholds(self, ratios=("min_punctuated_lines", "max_short_lines", "max_duplicate_line_characters"))

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in the order in which the first broken one becomes the reason."""
        return (
            Rule("min_punctuated_lines", PUNCTUATED_LINES, LINES, True, self.min_punctuated_lines, RATIO),
            Rule("max_short_lines", SHORT_LINES, LINES, False, self.max_short_lines, RATIO),
            Rule(
                "max_duplicate_line_characters", DUPLICATE_CHARACTERS, CHARACTERS, False,
                self.max_duplicate_line_characters, RATIO,
            ),
            Rule("max_line_breaks", LINE_BREAKS, WORDS, False, self.max_line_breaks, RATIO),
        )  # fmt: skip

    def measured(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        """Count."""
        return batch, statistics(
            batch.column("text"), self.short_line, ignore_trailing_space=self.ignore_trailing_space
        )


def statistics(
    text: pa.Array, short_line: int = 30, given: GivenWords = NO_GIVEN_WORDS, *, ignore_trailing_space: bool = True
) -> np.ndarray:
    """Return the counts of every row of a `large_string` column: int64, shape (rows, NUM_STATISTICS).

    `given` are words of another tokenizer in the place of ours.
    """
    offsets, data = text_view(text)
    stats = np.zeros((len(text), NUM_STATISTICS), np.int64)
    _count(offsets, data, code_point_classes(), short_line, ignore_trailing_space, given.offsets, stats)
    return stats


@numba.njit(nogil=True, cache=True)
def _count(
    offsets: np.ndarray, data: np.ndarray, classes: np.ndarray, short_line: int, ignore_trailing_space: bool,
    given_offsets: np.ndarray, stats: np.ndarray,
) -> None:  # fmt: skip
    largest = 0
    for row in range(len(offsets) - 1):
        largest = max(largest, offsets[row + 1] - offsets[row])
    keys = np.empty(table_size(min(MOST, largest // 2 + 1)), np.int64)
    words = np.empty((CHUNK + 1, 5), np.int64)
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        _count_lines(data, at, end, classes, short_line, ignore_trailing_space, keys, stats[row])
        if len(given_offsets):
            stats[row, WORDS] = given_offsets[row + 1] - given_offsets[row]
        else:
            stats[row, WORDS] = count_words(data, at, end, classes, words)


@numba.njit(nogil=True, cache=True)
def _count_lines(
    data: np.ndarray, begin: int, end: int, classes: np.ndarray, short_line: int, ignore_trailing_space: bool,
    keys: np.ndarray, stats: np.ndarray,
) -> None:  # fmt: skip
    """Count lines; duplicates are told among the first `MOST` distinct ones."""
    distinct, num_breaks = 0, 0
    mask = table_size(min(len(keys) // 2, most_lines(data, begin, end))) - 1
    keys[: mask + 1] = 0
    at, after_cr = begin, False
    while True:
        start, stop, _, at, after_cr = next_line(data, at, end, classes, after_cr)
        if start == end:
            break
        characters = count_characters(data, start, stop)
        stats[LINES] += 1
        stats[SHORT_LINES] += characters <= short_line
        # the character behind the last one of the line is white space: the line break itself, or more
        if ignore_trailing_space or stop == end or _breaks_line(data, stop, end, classes):
            stats[PUNCTUATED_LINES] += _ends_sentence(data, start, stop, classes)
        key = key_of(hash_bytes(data, start, stop))
        place = find_key(keys, mask, key)
        if place >= 0:
            stats[DUPLICATE_CHARACTERS] += characters
        elif place >= -len(keys) and distinct < MOST:
            keys[-1 - place] = key
            distinct += 1
    stats[LINE_BREAKS], num_breaks = _count_breaks(data, begin, end)
    stats[CHARACTERS] = count_characters(data, begin, end) - num_breaks


@numba.njit(nogil=True, cache=True)
def _ends_sentence(data: np.ndarray, start: int, stop: int, classes: np.ndarray) -> bool:
    """Whether the last character of `data[start:stop]` ends a sentence."""
    at = stop - 1
    while at > start and data[at] & 0xC0 == 0x80:
        at -= 1
    code_point, _ = next_code_point(data, at, stop)
    return classes[code_point] & TERMINAL != 0


@numba.njit(nogil=True, cache=True)
def _count_breaks(data: np.ndarray, at: int, end: int) -> tuple[int, int]:
    """Return line breaks with CR LF counted once, and the characters that they are."""
    num, characters = 0, 0
    for place in range(at, end):
        byte = data[place]
        found = (byte >= 0x0A) & (byte <= 0x0D)
        if byte == 0xC2:
            found = place + 1 < end and data[place + 1] == 0x85
        elif byte == 0xE2:
            found = place + 2 < end and data[place + 1] == 0x80 and (data[place + 2] | 1) == 0xA9
        characters += found
        num += found and not (byte == 0x0A and place > at and data[place - 1] == 0x0D)
    return num, characters


@numba.njit(nogil=True, cache=True)
def _breaks_line(data: np.ndarray, at: int, end: int, classes: np.ndarray) -> bool:
    """Whether the character at `at` breaks a line."""
    code_point, _ = next_code_point(data, at, end)
    return classes[code_point] & LINE_BREAK != 0
