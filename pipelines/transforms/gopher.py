"""The Gopher quality rules: eight properties of a text that tell prose from lists, boilerplate and debris.

Thresholds: Rae et al. 2021, "Scaling Language Models" (arXiv 2112.11446), appendix A1.1. The paper leaves the words
open, and code bases that share its numbers differ in what they count. Here:

- **words**, **plain words**, **lines**: as in `spans.py`. The number of words is that of plain words (in scripts
  without spaces `min_words` counts characters); the hash, ellipsis and alphabetic rules divide by all words.
- **word length**: code points of a plain word, marks and inner punctuation included. The mean is over the plain words
  of spaced scripts; where they are fewer than half of the plain words the two length rules do not apply ("0/0").
- **bullet line**: its first character is U+2022, "-" or "*".
- **ellipsis**: U+2026, or three "." in a row (a run of n holds n // 3). A line ends in one when its last character is
  U+2026 or closes a run of at least three ".".
- **stop word**: a plain word equal to one of `STOP_WORDS` (but for ASCII case, unless `fold_stop_word_case` is false);
  how many *distinct* ones are there.

One pass over the column's bytes counts everything into integers; a ratio is compared by cross-multiplication, so no
float decides. Cost: about 130 MB of text a CPU second.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.transforms.rules import RATIO, Rule, RuleFilter, check_at_most, check_thresholds
from pipelines.transforms.spans import (
    ALPHABETIC,
    CHARACTERS,
    CHUNK,
    KIND,
    KINDS,
    NO_GIVEN_WORDS,
    SPACED_WORD,
    START,
    STOP,
    SYMBOL_WORD,
    GivenWords,
    next_line,
    read_given_words,
    read_words,
)
from pipelines.transforms.words import byte_at, code_point_classes, text_view

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""The published list; at most 63 words of at most 7 ASCII letters, so that a word is one integer to the kernel."""

MAX_STOP_WORD = max(map(len, STOP_WORDS))
"""Bytes."""

(
    WORDS,
    PLAIN_WORDS,
    SPACED_WORDS,
    SPACED_CHARACTERS,
    ALPHABETIC_WORDS,
    DISTINCT_STOP_WORDS,
    LINES,
    BULLET_LINES,
    ELLIPSIS_LINES,
    HASHES,
    ELLIPSES,
) = range(11)
"""The columns of `statistics`. `SPACED_CHARACTERS` are those of the spaced words."""

NUM_STATISTICS = 11


@dataclasses.dataclass(frozen=True, slots=True)
class GopherQuality(RuleFilter):
    """Drops documents that break a Gopher quality rule; the first broken one, in the order of `rules`, is the reason.

    Counts and lengths are integers, ratios are in 1/10,000; null switches a rule off. The stop word rule is about
    English: it applies to rows whose `language` is listed or null (nobody looked).
    """

    name: ClassVar[str] = "gopher_quality"
    version: ClassVar[int] = 1

    min_words: int | None = 50
    """Plain words."""
    max_words: int | None = 100_000
    min_mean_word_length: int | None = 3
    """Code points."""
    max_mean_word_length: int | None = 10
    max_hashes: int | None = 1_000
    """"#" for every word, in 1/10,000."""
    max_ellipses: int | None = 1_000
    """Ellipses for every word, in 1/10,000."""
    max_bullet_lines: int | None = 9_000
    """In 1/10,000 of the lines."""
    max_ellipsis_lines: int | None = 3_000
    """In 1/10,000 of the lines."""
    min_alphabetic_words: int | None = 8_000
    """Words that hold a letter, in 1/10,000 of the words."""
    min_stop_words: int | None = 2
    stop_word_languages: tuple[str, ...] = ("en",)
    fold_stop_word_case: bool = True
    """False: "The" is no stop word, as in datatrove's filter."""

    def __post_init__(self) -> None:
        """Refuse thresholds that no document or every document meets by mistake."""
        check_thresholds(
            self,
            ratios=("max_bullet_lines", "max_ellipsis_lines", "min_alphabetic_words"),
            ordered=(("min_words", "max_words"), ("min_mean_word_length", "max_mean_word_length")),
        )
        check_at_most("min_stop_words", self.min_stop_words, len(STOP_WORDS), "there are no more stop words")

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in the order in which the first broken one becomes the reason."""
        return (
            Rule("min_words", PLAIN_WORDS, None, True, self.min_words),
            Rule("max_words", PLAIN_WORDS, None, False, self.max_words),
            Rule("min_mean_word_length", SPACED_CHARACTERS, SPACED_WORDS, True, self.min_mean_word_length),
            Rule("max_mean_word_length", SPACED_CHARACTERS, SPACED_WORDS, False, self.max_mean_word_length),
            Rule("max_hashes", HASHES, WORDS, False, self.max_hashes, RATIO),
            Rule("max_ellipses", ELLIPSES, WORDS, False, self.max_ellipses, RATIO),
            Rule("max_bullet_lines", BULLET_LINES, LINES, False, self.max_bullet_lines, RATIO),
            Rule("max_ellipsis_lines", ELLIPSIS_LINES, LINES, False, self.max_ellipsis_lines, RATIO),
            Rule("min_alphabetic_words", ALPHABETIC_WORDS, WORDS, True, self.min_alphabetic_words, RATIO),
            Rule("min_stop_words", DISTINCT_STOP_WORDS, None, True, self.min_stop_words),
        )

    def measured(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        """Count; texts that are mostly in scripts without spaces have no word lengths."""
        stats = statistics(batch.column("text"), fold_case=self.fold_stop_word_case)
        unspaced = stats[:, SPACED_WORDS] * 2 < stats[:, PLAIN_WORDS]
        stats[unspaced, SPACED_WORDS] = stats[unspaced, SPACED_CHARACTERS] = 0
        return batch, stats

    def applies(self, batch: pa.RecordBatch) -> np.ndarray:
        """The stop words are about some languages."""
        applies = np.ones((batch.num_rows, len(self.rules)), bool)
        applies[:, -1] = self._has_stop_word_rule(batch.column("language"))
        return applies

    def _has_stop_word_rule(self, language: pa.Array) -> np.ndarray:
        listed = pc.is_in(language, pa.array(self.stop_word_languages, pa.string()))
        return pc.or_(listed, pc.is_null(language)).to_numpy(zero_copy_only=False)


def statistics(text: pa.Array, given: GivenWords = NO_GIVEN_WORDS, *, fold_case: bool = True) -> np.ndarray:
    """Return the counts of every row of a `large_string` column: int64, shape (rows, NUM_STATISTICS).

    `given` are words of another tokenizer in the place of ours; `fold_case` is about stop words.
    """
    offsets, data = text_view(text)
    stats = np.zeros((len(text), NUM_STATISTICS), np.int64)
    stop_words = np.array([(int.from_bytes(word.encode(), "big"), len(word)) for word in STOP_WORDS], np.int64)
    _count(offsets, data, code_point_classes(), stop_words, 0x20 if fold_case else 0, given.offsets, given.spans, stats)
    return stats


@numba.njit(nogil=True, cache=True)
def _count(
    offsets: np.ndarray, data: np.ndarray, classes: np.ndarray, stop_words: np.ndarray, case: int,
    given_offsets: np.ndarray, given_spans: np.ndarray, stats: np.ndarray,
) -> None:  # fmt: skip
    words = np.empty((CHUNK, 5), np.int64)
    for row in range(len(offsets) - 1):
        at, end, found = offsets[row], offsets[row + 1], 0
        if len(given_offsets):
            spans = given_spans[given_offsets[row] : given_offsets[row + 1]]
            for first in range(0, len(spans), CHUNK):
                num = read_given_words(data, at, spans, first, classes, words)
                found |= _add_words(data, words, num, stop_words, case, stats[row])
        else:
            inside = False
            while at < end:
                num, at, inside = read_words(data, at, end, classes, inside, words)
                found |= _add_words(data, words, num, stop_words, case, stats[row])
        for k in range(len(stop_words)):
            stats[row, DISTINCT_STOP_WORDS] += (found >> k) & 1
        _count_lines(data, offsets[row], end, classes, stats[row])


@numba.njit(nogil=True, cache=True)
def _add_words(
    data: np.ndarray, words: np.ndarray, num: int, stop_words: np.ndarray, case: int, stats: np.ndarray
) -> int:
    """Count words; return the bits of the stop words among them. `case` is the bit that tells cases apart, or 0."""
    alphabetic, plain, spaced, characters, found = 0, 0, 0, 0, 0
    for k in range(num):
        kind = words[k, KIND] & KINDS
        alphabetic += (words[k, KIND] & ALPHABETIC) != 0
        plain += kind != SYMBOL_WORD
        if kind == SPACED_WORD:
            spaced += 1
            characters += words[k, CHARACTERS]
            if words[k, STOP] - words[k, START] <= MAX_STOP_WORD:
                found |= _stop_word(data, words[k, START], words[k, STOP], stop_words, case)
    stats[WORDS] += num
    stats[ALPHABETIC_WORDS] += alphabetic
    stats[PLAIN_WORDS] += plain
    stats[SPACED_WORDS] += spaced
    stats[SPACED_CHARACTERS] += characters
    return found


@numba.njit(nogil=True, cache=True, inline="always")
def _stop_word(data: np.ndarray, start: int, stop: int, stop_words: np.ndarray, case: int) -> int:
    """Return the bit of the stop word that `data[start:stop]` is, or 0."""
    key = 0
    for place in range(start, stop):
        key = (key << 8) | byte_at(data, place) | case
    for k in range(len(stop_words)):
        if key == stop_words[k, 0] and stop - start == stop_words[k, 1]:
            return 1 << k
    return 0


@numba.njit(nogil=True, cache=True)
def _count_lines(data: np.ndarray, begin: int, end: int, classes: np.ndarray, stats: np.ndarray) -> None:
    """Count lines, bullets, hashes and ellipses of `data[begin:end]`."""
    at, after_cr = begin, False
    while True:
        start, stop, _, at, after_cr = next_line(data, at, end, classes, after_cr)
        if start == end:
            break
        stats[LINES] += 1
        first = data[start]
        stats[BULLET_LINES] += first == 0x2D or first == 0x2A or _is_wide(data, start, stop, 0xA2)
        dots = stop - start >= 3 and data[stop - 1] == 0x2E and data[stop - 2] == 0x2E and data[stop - 3] == 0x2E
        stats[ELLIPSIS_LINES] += dots or (stop - start >= 3 and _is_wide(data, stop - 3, stop, 0xA6))
    hashes = 0
    for place in range(begin, end):
        hashes += data[place] == 0x23
    stats[HASHES] += hashes
    ellipses, place = 0, begin
    while place < end:
        byte = data[place]
        if byte == 0x2E:
            dots_at = place
            while place < end and data[place] == 0x2E:
                place += 1
            ellipses += (place - dots_at) // 3
        elif byte == 0xE2 and _is_wide(data, place, end, 0xA6):
            ellipses, place = ellipses + 1, place + 3
        else:
            place += 1
    stats[ELLIPSES] += ellipses


@numba.njit(nogil=True, cache=True, inline="always")
def _is_wide(data: np.ndarray, at: int, end: int, last: int) -> bool:
    """Whether E2 80 and this byte begin at `at`: the ellipsis (A6) or the bullet (A2)."""
    return at + 3 <= end and data[at] == 0xE2 and data[at + 1] == 0x80 and data[at + 2] == last
