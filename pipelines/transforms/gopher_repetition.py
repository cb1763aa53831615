"""The Gopher repetition rules: lines, paragraphs and runs of words that a text says again and again.

Thresholds: Rae et al. 2021, "Scaling Language Models" (arXiv 2112.11446), table A1. The paper leaves words and
denominators open; the definitions are those of datatrove's filter, which FineWeb was made with, but for what a line and
a word is (`spans.py`): blank lines are none, so that they are never duplicates of each other.

- **duplicate line**: one that an earlier line equals, character for character. Ratios of lines are by their number
  (over all lines), and by their characters over the characters of the text.
- **duplicate paragraph**: the same for paragraphs (equal lines in equal order). Its characters are those of its lines
  and one for each break between them.
- **n-gram**: n words in a row; equal if their words are, case included. Its characters are those of its words and, for
  the top n-grams, one between two words (none beside a letter of a script without spaces).
- **top n-gram**: the one that occurs most often, of several the first (also where it occurs but once). Its characters
  times its occurrences, overlapping or not, over the characters of the text: the ratio can pass 1.
- **duplicate n-gram**: read from the front, an n-gram that was read before; reading goes on behind it, so that no
  character counts twice. N-grams begin at every word that is not in a duplicate.
- **characters of the text**: all of its code points, white space too.

Cost is bounded: of a text the first 2^20 lines, paragraphs and words are looked at, and its characters are counted up
to the last of these. Words are compared by 64-bit hashes; each n only looks at places whose (n-1)-gram occurs twice. An
n-gram that finds no place within 64 probes of its table counts as new, which bounds what a text can cost that was made
to collide.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numba
import numpy as np
import pyarrow as pa

from pipelines.transforms.hashing import HASH_START, find_key, hash_bytes, hash_on, key_of, table_size
from pipelines.transforms.rules import RATIO, Rule, RuleFilter, check_thresholds
from pipelines.transforms.spans import (
    CHARACTERS,
    CHUNK,
    HASH,
    KIND,
    KINDS,
    NO_GIVEN_WORDS,
    STOP,
    UNSPACED_WORD,
    GivenWords,
    count_characters,
    most_lines,
    next_line,
    read_given_words,
    read_words,
)
from pipelines.transforms.words import code_point_classes, text_view

TOP = (2, 3, 4)
DUPLICATE = (5, 6, 7, 8, 9, 10)
MOST = 1 << 20
"""Lines, paragraphs and words that are looked at."""

(
    LINES,
    DUPLICATE_LINES,
    DUPLICATE_LINE_CHARACTERS,
    PARAGRAPHS,
    DUPLICATE_PARAGRAPHS,
    DUPLICATE_PARAGRAPH_CHARACTERS,
    LINE_CHARACTERS,
    WORD_CHARACTERS,
) = range(8)
"""The first columns of `statistics`; the last two are the characters of the text up to the last line and word read."""
N_GRAMS = 8
"""The column of the characters of the top 2-gram; those of 3 to 10 follow."""
NUM_STATISTICS = N_GRAMS + len(TOP) + len(DUPLICATE)


@dataclasses.dataclass(frozen=True, slots=True)
class GopherRepetition(RuleFilter):
    """Drops documents that break a repetition rule; the first broken one, in the order of `rules`, is the reason.

    All thresholds are ratios in 1/10,000; null switches a rule off.
    """

    name: ClassVar[str] = "gopher_repetition"
    version: ClassVar[int] = 1

    max_duplicate_paragraphs: int | None = 3_000
    max_duplicate_paragraph_characters: int | None = 2_000
    max_duplicate_lines: int | None = 3_000
    max_duplicate_line_characters: int | None = 2_000
    max_top_2_grams: int | None = 2_000
    """Characters of the top n-gram for every character of the text."""
    max_top_3_grams: int | None = 1_800
    max_top_4_grams: int | None = 1_600
    max_duplicate_5_grams: int | None = 1_500
    """Characters of duplicate n-grams for every character of the text."""
    max_duplicate_6_grams: int | None = 1_400
    max_duplicate_7_grams: int | None = 1_300
    max_duplicate_8_grams: int | None = 1_200
    max_duplicate_9_grams: int | None = 1_100
    max_duplicate_10_grams: int | None = 1_000

    def __post_init__(self) -> None:
        """Refuse thresholds that no document or every document meets by mistake."""
        names = [field.name for field in dataclasses.fields(self) if field.name.startswith("max_duplicate_")]
        check_thresholds(self, ratios=tuple(names))

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in the order in which the first broken one becomes the reason."""
        ratios: list[tuple[str, int, int]] = [
            ("max_duplicate_paragraphs", DUPLICATE_PARAGRAPHS, PARAGRAPHS),
            ("max_duplicate_paragraph_characters", DUPLICATE_PARAGRAPH_CHARACTERS, LINE_CHARACTERS),
            ("max_duplicate_lines", DUPLICATE_LINES, LINES),
            ("max_duplicate_line_characters", DUPLICATE_LINE_CHARACTERS, LINE_CHARACTERS),
            *((f"max_top_{n}_grams", N_GRAMS + n - 2, WORD_CHARACTERS) for n in TOP),
            *((f"max_duplicate_{n}_grams", N_GRAMS + n - 2, WORD_CHARACTERS) for n in DUPLICATE),
        ]
        return tuple(
            Rule(name, numerator, denominator, False, getattr(self, name), RATIO)
            for name, numerator, denominator in ratios
        )

    def measured(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        """Count."""
        return batch, statistics(batch.column("text"))


def statistics(text: pa.Array, given: GivenWords = NO_GIVEN_WORDS) -> np.ndarray:
    """Return the counts of every row of a `large_string` column: int64, shape (rows, NUM_STATISTICS).

    `given` are words of another tokenizer in the place of ours.
    """
    offsets, data = text_view(text)
    stats = np.zeros((len(text), NUM_STATISTICS), np.int64)
    _count(offsets, data, code_point_classes(), given.offsets, given.spans, stats)
    return stats


@numba.njit(nogil=True, cache=True)
def _count(
    offsets: np.ndarray, data: np.ndarray, classes: np.ndarray, given_offsets: np.ndarray, given_spans: np.ndarray,
    stats: np.ndarray,
) -> None:  # fmt: skip
    largest = 0
    for row in range(len(offsets) - 1):
        largest = max(largest, offsets[row + 1] - offsets[row])
    # two of our words, or lines, are not side by side without a character between; those of others can be
    most = min(MOST, largest + 1 if len(given_offsets) else largest // 2 + 1)
    words = np.empty((CHUNK + 1, 5), np.int64)
    hashes, sums, joins = np.empty(most, np.int64), np.empty(most + 1, np.int64), np.empty(most + 1, np.int64)
    grams, places = np.empty(most, np.int64), np.empty(most, np.int64)
    size = table_size(most)
    keys, counts, firsts = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        _count_lines(data, at, end, classes, keys, hashes, sums, stats[row])
        if len(given_offsets):
            spans = given_spans[given_offsets[row] : given_offsets[row + 1]]
            num, stop = _take_given_words(data, at, end, spans, classes, words, hashes, sums, joins)
        else:
            num, stop = _take_words(data, at, end, classes, words, hashes, sums, joins)
        stats[row, WORD_CHARACTERS] = count_characters(data, at, stop)
        _count_n_grams(num, hashes, sums, joins, grams, places, keys, counts, firsts, stats[row])


@numba.njit(nogil=True, cache=True)
def _count_lines(
    data: np.ndarray, begin: int, end: int, classes: np.ndarray, keys: np.ndarray, hashes: np.ndarray,
    sizes: np.ndarray, stats: np.ndarray,
) -> None:  # fmt: skip
    """Count duplicate lines and paragraphs; `hashes` and `sizes` are room for the paragraphs'."""
    most = len(hashes)
    num_lines, num_paragraphs, at, stop, after_cr = 0, 0, begin, begin, False
    mask = table_size(min(most, most_lines(data, begin, end))) - 1
    keys[: mask + 1] = 0
    while num_lines < most:
        start, last, before, at, after_cr = next_line(data, at, end, classes, after_cr)
        if start == end:
            stop = end
            break
        stop = at
        characters, key = count_characters(data, start, last), key_of(hash_bytes(data, start, last))
        place = find_key(keys, mask, key)
        if place >= 0:
            stats[DUPLICATE_LINES] += 1
            stats[DUPLICATE_LINE_CHARACTERS] += characters
        elif place >= -len(keys):
            keys[-1 - place] = key
        if num_lines == 0 or before:
            hashes[num_paragraphs], sizes[num_paragraphs] = HASH_START, -1
            num_paragraphs += 1
        hashes[num_paragraphs - 1] = hash_on(hashes[num_paragraphs - 1], key)
        sizes[num_paragraphs - 1] += characters + 1
        num_lines += 1
    mask = table_size(num_paragraphs) - 1
    keys[: mask + 1] = 0
    for k in range(num_paragraphs):
        key = key_of(hashes[k])
        place = find_key(keys, mask, key)
        if place >= 0:
            stats[DUPLICATE_PARAGRAPHS] += 1
            stats[DUPLICATE_PARAGRAPH_CHARACTERS] += sizes[k]
        elif place >= -len(keys):
            keys[-1 - place] = key
    stats[LINES], stats[PARAGRAPHS] = num_lines, num_paragraphs
    stats[LINE_CHARACTERS] = count_characters(data, begin, stop)


@numba.njit(nogil=True, cache=True)
def _take_words(
    data: np.ndarray, at: int, end: int, classes: np.ndarray, words: np.ndarray, hashes: np.ndarray, sums: np.ndarray,
    joins: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """Take down words up to `len(hashes)`; returns how many, and where the last one ends, or the text if it is whole.

    `sums[k]` are the characters of the words before k, `joins[k]` the characters between them.
    """
    num, inside, stop, spaced = 0, False, at, False
    sums[0] = joins[0] = 0
    while at < end:
        found, at, inside = read_words(data, at, end, classes, inside, words)
        taken = min(found, len(hashes) - num)
        spaced = _take_down(words, taken, num, hashes, sums, joins, spaced)
        num += taken
        stop = words[taken - 1, STOP] if taken else stop
        if taken < found:
            return num, stop
    return num, end


@numba.njit(nogil=True, cache=True)
def _take_given_words(
    data: np.ndarray, begin: int, end: int, spans: np.ndarray, classes: np.ndarray, words: np.ndarray,
    hashes: np.ndarray, sums: np.ndarray, joins: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """Take down another tokenizer's words, as `_take_words` does. They may be as many as the text has bytes."""
    num, spaced = 0, False
    sums[0] = joins[0] = 0
    while num < min(len(spans), len(hashes)):
        found = min(read_given_words(data, begin, spans, num, classes, words), len(hashes) - num)
        spaced = _take_down(words, found, num, hashes, sums, joins, spaced)
        num += found
    return num, begin + spans[num - 1, 1] if num < len(spans) else end


@numba.njit(nogil=True, cache=True)
def _take_down(
    words: np.ndarray, found: int, num: int, hashes: np.ndarray, sums: np.ndarray, joins: np.ndarray, spaced: bool
) -> bool:
    """Take down words from place `num` on; `spaced`, given and returned, is whether the last one has room behind it."""
    for k in range(found):
        before, spaced = spaced, (words[k, KIND] & KINDS) != UNSPACED_WORD
        hashes[num + k] = words[k, HASH]
        sums[num + k + 1] = sums[num + k] + words[k, CHARACTERS]
        joins[num + k + 1] = joins[num + k] + (before & spaced)
    return spaced


@numba.njit(nogil=True, cache=True)
def _count_n_grams(
    num: int, hashes: np.ndarray, sums: np.ndarray, joins: np.ndarray, grams: np.ndarray, places: np.ndarray,
    keys: np.ndarray, counts: np.ndarray, firsts: np.ndarray, stats: np.ndarray,
) -> None:  # fmt: skip
    """Count the characters of top and duplicate n-grams of `num` words.

    `grams[k]` is the hash of the n-gram that begins at `places[k]`; of 2-grams that is everywhere, of longer ones where
    the n-gram one shorter occurs at least twice.
    """
    num_places = max(num - 1, 0)
    for k in range(num_places):
        places[k] = k
        grams[k] = hash_on(hash_on(HASH_START, hashes[k]), hashes[k + 1])
    for n in range(2, 11):
        if num < n:
            return
        mask = table_size(num_places) - 1
        keys[: mask + 1] = 0
        best, best_place, read_to, duplicate = 1, 0, 0, 0
        for k in range(num_places):
            key = key_of(grams[k])
            place = find_key(keys, mask, key)
            if place < 0:
                place = -1 - place
                if place < len(keys):
                    keys[place], counts[place], firsts[place] = key, 0, places[k]
            grams[k] = place
            if place < len(keys):
                counts[place] += 1
        if n <= 4:
            for k in range(num_places):
                place = grams[k]
                if place < len(keys) and firsts[place] == places[k] and counts[place] > best:
                    best, best_place = counts[place], places[k]
            last = best_place + n
            size = sums[last] - sums[best_place] + joins[last] - joins[best_place + 1]
            stats[N_GRAMS + n - 2] = best * size
        else:
            for k in range(num_places):
                place, start = grams[k], places[k]
                if place < len(keys) and counts[place] > 1 and start >= read_to:
                    if firsts[place] < 0:
                        duplicate += sums[start + n] - sums[start]
                        read_to = start + n
                    firsts[place] = -1
            stats[N_GRAMS + n - 2] = duplicate
        kept = 0
        for k in range(num_places):
            place, start = grams[k], places[k]
            if place < len(keys) and counts[place] > 1 and start + n < num:
                places[kept] = start
                # equal n-grams have one first place, which with the next word stands for the longer n-gram
                grams[kept] = hash_on(hash_on(place, n), hashes[start + n])
                kept += 1
        num_places = kept
