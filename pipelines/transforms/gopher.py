"""The Gopher quality rules: eight properties of a text that tell prose from lists, boilerplate and debris.

Thresholds: Rae et al. 2021, "Scaling Language Models" (arXiv 2112.11446), appendix A1.1. The paper leaves the words
open, and code bases that share its numbers differ in what they count. Here:

- **token**: a maximal run of characters that are not white space. A token without a letter or digit is one *symbol
  word* ("--", "#", an emoji). Any other token is made of *plain words*.
- **plain word**: what remains of a token once characters other than letters, marks and digits are cut off its ends:
  `"don't,"` is one plain word of 5 characters, `(2,000)` is one of 5. In scripts without spaces (see `words.py`) every
  letter is a plain word, as no rule finds the borders; there `min_words` counts characters. Marks go with their letter.
- **word**: a plain word or a symbol word: the denominator of the hash, ellipsis and alphabetic rules.
- **word length**: code points of a plain word, marks and inner punctuation included. The mean is over the plain words
  of spaced scripts; where they are fewer than half of the plain words the two length rules do not apply ("0/0").
- **line**: text between two line breaks (LF, VT, FF, CR, NEL, LS, PS) that holds anything but white space: blank lines
  are no lines, so that CRLF and empty paragraphs change no ratio.
- **bullet line**: its first character but white space is U+2022, "-" or "*".
- **ellipsis**: U+2026, or three "." in a row (a run of n holds n // 3). A line ends in one when its last character but
  white space is U+2026 or closes a run of at least three ".".
- **stop word**: a plain word equal to one of `STOP_WORDS` but for ASCII case; how many *distinct* ones are there.

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

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""The published list; at most 63 words of at most 7 ASCII letters, so that a word is one integer to the kernel."""

KEY_MASK = (1 << 56) - 1

(
    WORDS,
    PLAIN_WORDS,
    SPACED_WORDS,
    CHARACTERS,
    ALPHABETIC_WORDS,
    DISTINCT_STOP_WORDS,
    LINES,
    BULLET_LINES,
    ELLIPSIS_LINES,
    HASHES,
    ELLIPSES,
) = range(11)
"""The columns of `statistics`. `CHARACTERS` are those of the spaced words."""

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
            Rule("min_mean_word_length", CHARACTERS, SPACED_WORDS, True, self.min_mean_word_length),
            Rule("max_mean_word_length", CHARACTERS, SPACED_WORDS, False, self.max_mean_word_length),
            Rule("max_hashes", HASHES, WORDS, False, self.max_hashes, RATIO),
            Rule("max_ellipses", ELLIPSES, WORDS, False, self.max_ellipses, RATIO),
            Rule("max_bullet_lines", BULLET_LINES, LINES, False, self.max_bullet_lines, RATIO),
            Rule("max_ellipsis_lines", ELLIPSIS_LINES, LINES, False, self.max_ellipsis_lines, RATIO),
            Rule("min_alphabetic_words", ALPHABETIC_WORDS, WORDS, True, self.min_alphabetic_words, RATIO),
            Rule("min_stop_words", DISTINCT_STOP_WORDS, None, True, self.min_stop_words),
        )

    def measured(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        """Count; texts that are mostly in scripts without spaces have no word lengths."""
        stats = statistics(batch.column("text"))
        unspaced = stats[:, SPACED_WORDS] * 2 < stats[:, PLAIN_WORDS]
        stats[unspaced, SPACED_WORDS] = stats[unspaced, CHARACTERS] = 0
        return batch, stats

    def applies(self, batch: pa.RecordBatch) -> np.ndarray:
        """The stop words are about some languages."""
        applies = np.ones((batch.num_rows, len(self.rules)), bool)
        applies[:, -1] = self._has_stop_word_rule(batch.column("language"))
        return applies

    def _has_stop_word_rule(self, language: pa.Array) -> np.ndarray:
        listed = pc.is_in(language, pa.array(self.stop_word_languages, pa.string()))
        return pc.or_(listed, pc.is_null(language)).to_numpy(zero_copy_only=False)


def statistics(text: pa.Array) -> np.ndarray:
    """Return the counts of every row of a `large_string` column: int64, shape (rows, NUM_STATISTICS)."""
    offsets, data = text_view(text)
    stats = np.zeros((len(text), NUM_STATISTICS), np.int64)
    stop_words = np.array([(int.from_bytes(word.encode(), "big"), len(word)) for word in STOP_WORDS], np.int64)
    _count(offsets, data, code_point_classes(), stop_words, stats)
    return stats


@numba.njit(nogil=True, cache=True)
def _count(
    offsets: np.ndarray, data: np.ndarray, classes: np.ndarray, stop_words: np.ndarray, stats: np.ndarray
) -> None:
    for row in range(len(offsets) - 1):
        _count_words(data, offsets[row], offsets[row + 1], classes, stop_words, stats[row])
        _count_lines(data, offsets[row], offsets[row + 1], classes, stats[row])


@numba.njit(nogil=True, cache=True)
def _count_words(
    data: np.ndarray, at: int, end: int, classes: np.ndarray, stop_words: np.ndarray, stats: np.ndarray
) -> None:
    """Count words, their characters and the distinct stop words of `data[at:end]`.

    `length` is that of the plain word up to its last letter, mark or digit; `pending` are the characters behind that
    one, which belong to the word only if another letter or digit follows.
    """
    length, pending, alphabetic, key, found = 0, 0, False, 0, 0
    in_token, has_plain_word = False, False
    while at < end:
        code_point, at = next_code_point(data, at, end)
        kind = classes[code_point]
        if kind & (SPACE | UNSPACED):
            if length:
                found |= _close_word(length, alphabetic, key, stop_words, stats)
            length, pending, alphabetic, key = 0, 0, False, 0
            if kind & UNSPACED:
                in_token, has_plain_word = True, True
                stats[WORDS] += 1
                stats[PLAIN_WORDS] += 1
                stats[ALPHABETIC_WORDS] += 1
            elif in_token:
                stats[WORDS] += not has_plain_word
                in_token, has_plain_word = False, False
            continue
        in_token = True
        if kind & (LETTER | NUMBER):
            has_plain_word = True
            length += pending + 1
            pending = 0
            alphabetic = alphabetic or (kind & LETTER) != 0
            key = ((key << 8) & KEY_MASK) | (code_point | 0x20 if code_point < 0x80 else 0xFF)
        elif kind & MARK and pending == 0:
            length += length > 0
        else:
            pending += length > 0
    if length:
        found |= _close_word(length, alphabetic, key, stop_words, stats)
    stats[WORDS] += in_token and not has_plain_word
    for k in range(len(stop_words)):
        stats[DISTINCT_STOP_WORDS] += (found >> k) & 1


@numba.njit(nogil=True, cache=True, inline="always")
def _close_word(length: int, alphabetic: bool, key: int, stop_words: np.ndarray, stats: np.ndarray) -> int:
    """Count one plain word of a spaced script; return the bit of the stop word that it is, or 0.

    `key` holds the last 7 letters and digits; it is the whole word if the word is as long as the stop word.
    """
    stats[WORDS] += 1
    stats[PLAIN_WORDS] += 1
    stats[SPACED_WORDS] += 1
    stats[CHARACTERS] += length
    stats[ALPHABETIC_WORDS] += alphabetic
    for k in range(len(stop_words)):
        if key == stop_words[k, 0] and length == stop_words[k, 1]:
            return 1 << k
    return 0


@numba.njit(nogil=True, cache=True)
def _count_lines(data: np.ndarray, at: int, end: int, classes: np.ndarray, stats: np.ndarray) -> None:
    """Count lines, bullets, hashes and ellipses of `data[at:end]`.

    `dots` is the length of the run of "." that ends here; `ellipsis` is whether the line, white space aside, does so.
    """
    dots, in_line, bullet, ellipsis = 0, False, False, False
    while at < end:
        code_point, at = next_code_point(data, at, end)
        kind = classes[code_point]
        if kind & SPACE:
            dots = 0
            if kind & LINE_BREAK and in_line:
                _close_line(bullet, ellipsis, stats)
                in_line = False
            continue
        if not in_line:
            in_line, bullet = True, code_point == 0x2022 or code_point == 0x2D or code_point == 0x2A
        dots = dots + 1 if code_point == 0x2E else 0
        ellipsis = code_point == 0x2026 or dots >= 3
        stats[ELLIPSES] += code_point == 0x2026 or (dots > 0 and dots % 3 == 0)
        stats[HASHES] += code_point == 0x23
    if in_line:
        _close_line(bullet, ellipsis, stats)


@numba.njit(nogil=True, cache=True, inline="always")
def _close_line(bullet: bool, ellipsis: bool, stats: np.ndarray) -> None:
    stats[LINES] += 1
    stats[BULLET_LINES] += bullet
    stats[ELLIPSIS_LINES] += ellipsis
