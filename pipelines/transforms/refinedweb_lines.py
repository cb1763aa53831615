"""The line-wise corrections of RefinedWeb: lines of counters, menus and shouting go, and pages made of them.

Rules: Penedo et al. 2023, "The RefinedWeb Dataset" (arXiv 2306.01116), appendix G.2, with the thresholds that DCLM
(arXiv 2406.11794) found to reproduce it, in its order. The first that is true of a line decides:

1. more than `max_uppercase_characters` of its characters are upper case: the line goes;
2. all of its characters are digits: the line goes;
3. it is a counter ("3 likes", "1.2k views"): anything that is no letter or digit, a number (digits, "." and ","; k, m
   or b may follow), white space, one of `COUNTED`, anything that is no letter or digit: the line goes;
4. it has fewer than `min_words_per_line` words: the line goes;
5. it has at most `max_phrase_line_words` words: "items in cart" anywhere, "read more" with its dots at the end and
   "sign-in" at the beginning are cut where no letter, mark or digit is beside them ("spread more" stays), with the
   white space before them and what would then begin the line; a line that says nothing else goes.

Then the page: more than `max_removed_words` of its words were in what was cut.

- **line**, **character**: as in `spans.py`. A line has no white space at its ends. At most `max_line_breaks` line
  breaks stay in a row, blank lines around a line that went included.
- **word**: what stands between white space; in scripts without spaces every letter, with the marks behind it, is one,
  and so is what stands between (`c4.py` counts the same).
- ASCII case is disregarded in phrases and counters.

Null or false switches a rule off.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numba
import numpy as np
import pyarrow as pa

from pipelines.transforms.edits import Edits, apply_edits, is_breaks, with_room
from pipelines.transforms.phrases import lowered, matches
from pipelines.transforms.rules import RATIO, Rule, RuleFilter, check_at_most, check_thresholds
from pipelines.transforms.spans import count_characters, next_line, skip_marks, skip_space_back
from pipelines.transforms.words import (
    LETTER,
    MARK,
    NUMBER,
    SPACE,
    UNSPACED,
    UPPERCASE,
    byte_at,
    code_point_classes,
    next_code_point,
    text_view,
)

COUNTED = (
    *("likes", "shares", "comments", "retweets", "reposts", "quotes", "bookmarks", "upvotes", "downvotes"),
    *("downloads", "views", "followers"),
)
ANYWHERE, AT_END, AT_BEGINNING = b"items in cart", b"read more", b"sign-in"

WORDS, REMOVED_WORDS, LINES, UPPERCASE_LINES, NUMERIC_LINES, COUNTER_LINES, FEW_WORD_LINES, PHRASES = range(8)
"""The columns of the statistics."""
NUM_STATISTICS = 8

MOST_BREAKS = 8
MOST_PHRASES = 16
"""Places within one line, between what is left of it, at which "items in cart" is cut."""


@dataclasses.dataclass(frozen=True, slots=True)
class RefinedWebLines(RuleFilter):
    """Cuts lines and phrases, and drops pages that lose too many of their words to it.

    Ratios are in 1/10,000. A document that is dropped keeps its text as it was.
    """

    name: ClassVar[str] = "refinedweb_lines"
    version: ClassVar[int] = 1

    max_uppercase_characters: int | None = 5_000
    cut_numeric_lines: bool = True
    cut_counter_lines: bool = True
    min_words_per_line: int | None = 2
    max_phrase_line_words: int | None = 10
    """Lines of more words keep the phrases."""
    max_line_breaks: int = 2
    """In a row: 2 leave one blank line."""
    max_removed_words: int | None = 500
    """Words that were cut, for all words before."""

    def __post_init__(self) -> None:
        """Refuse thresholds that no document or every document meets by mistake."""
        check_thresholds(self, ratios=("max_uppercase_characters", "max_removed_words"))
        check_at_most("max_line_breaks", self.max_line_breaks, MOST_BREAKS, "a blank line is 2")
        if self.max_line_breaks == 0:
            raise ValueError("max_line_breaks: 0 would join all lines\nhint: give 1 for no blank line, 2 for one")

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rule of the page, then what was cut by each rule of lines."""
        return (
            Rule("max_removed_words", REMOVED_WORDS, WORDS, False, self.max_removed_words, RATIO),
            Rule("uppercase_lines", UPPERCASE_LINES, LINES, False, None),
            Rule("numeric_lines", NUMERIC_LINES, LINES, False, None),
            Rule("counter_lines", COUNTER_LINES, LINES, False, None),
            Rule("lines_of_few_words", FEW_WORD_LINES, LINES, False, None),
            Rule("lines_with_phrases", PHRASES, LINES, False, None),
        )

    def measured(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        """Count, and cut lines and phrases."""
        text = batch.column("text")
        offsets, data = text_view(text)
        stats = np.zeros((len(text), NUM_STATISTICS), np.int64)
        counted = np.frombuffer("".join(COUNTED).encode(), np.uint8)
        counted_offsets = np.cumsum([0, *map(len, COUNTED)]).astype(np.int64)
        cuts = _cut(
            offsets, data, code_point_classes(), counted, counted_offsets,
            RATIO if self.max_uppercase_characters is None else self.max_uppercase_characters,
            self.cut_numeric_lines, self.cut_counter_lines, self.min_words_per_line or 0,
            -1 if self.max_phrase_line_words is None else self.max_phrase_line_words, self.max_line_breaks, stats,
        )  # fmt: skip
        replacements = tuple(b"\n" * num for num in range(self.max_line_breaks + 1))
        return apply_edits(batch, Edits.of(cuts), replacements), stats


@numba.njit(nogil=True, cache=True)
def _cut(
    offsets: np.ndarray, data: np.ndarray, classes: np.ndarray, counted: np.ndarray, counted_offsets: np.ndarray,
    max_uppercase: int, cut_numeric: bool, cut_counters: bool, min_words: int, max_phrase_words: int,
    max_breaks: int, stats: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Count, and return what to cut: int64, (cuts, 4): row, start and end in the row, line breaks in its place."""
    cuts, num = np.empty((1024, 4), np.int64), 0
    pieces = np.empty((MOST_PHRASES + 1, 2), np.int64)
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        at, after_cr, kept, kept_stop, most_breaks = begin, False, False, begin, 1
        while True:
            start, stop, breaks, at, after_cr = next_line(data, at, end, classes, after_cr)
            if start == end:
                break
            most_breaks = max(most_breaks, breaks + 1)  # the break that ended the line before is not among them
            words, uppercase, digits = _look_at_line(data, start, stop, classes)
            characters = count_characters(data, start, stop)
            num_pieces, left, cause = 1, words, -1
            if uppercase * RATIO > max_uppercase * characters:
                cause = UPPERCASE_LINES
            elif cut_numeric and digits == characters:
                cause = NUMERIC_LINES
            elif cut_counters and _is_counter(data, start, stop, classes, counted, counted_offsets):
                cause = COUNTER_LINES
            elif words < min_words:
                cause = FEW_WORD_LINES
            else:
                pieces[0, 0], pieces[0, 1] = start, stop
                if words <= max_phrase_words:
                    num_pieces = _cut_phrases(data, start, stop, classes, pieces)
                    if num_pieces != 1 or pieces[0, 0] != start or pieces[0, 1] != stop:
                        cause, left = PHRASES, 0
                        for k in range(num_pieces):
                            left += _look_at_line(data, pieces[k, 0], pieces[k, 1], classes)[0]
            stats[row, LINES] += 1
            stats[row, WORDS] += words
            if cause >= 0:
                stats[row, cause] += 1
                stays = cause == PHRASES and num_pieces > 0
                stats[row, REMOVED_WORDS] += words - left if stays else words
                if not stays:
                    continue
            cuts = with_room(cuts, num + num_pieces)
            between = min(most_breaks, max_breaks) if kept else 0
            if not is_breaks(data, kept_stop, pieces[0, 0], between):
                cuts[num, 0], cuts[num, 1] = row, kept_stop - begin
                cuts[num, 2], cuts[num, 3] = pieces[0, 0] - begin, between
                num += 1
            for k in range(1, num_pieces):
                cuts[num, 0], cuts[num, 1] = row, pieces[k - 1, 1] - begin
                cuts[num, 2], cuts[num, 3] = pieces[k, 0] - begin, 0
                num += 1
            kept, kept_stop, most_breaks = True, pieces[num_pieces - 1, 1], 1
        if kept_stop < end:
            cuts = with_room(cuts, num + 1)
            cuts[num, 0], cuts[num, 1], cuts[num, 2], cuts[num, 3] = row, kept_stop - begin, end - begin, 0
            num += 1
    return cuts[:num]


@numba.njit(nogil=True, cache=True)
def _look_at_line(data: np.ndarray, at: int, stop: int, classes: np.ndarray) -> tuple[int, int, int]:
    """Return words, upper-case characters and digits of `data[at:stop]`."""
    words, uppercase, digits, in_word = 0, 0, 0, 0
    while at < stop:
        if data[at] < 0x80:  # without a branch: where words end cannot be foreseen
            kind = byte_at(classes, data[at])
            at += 1
        else:
            code_point, at = next_code_point(data, at, stop)
            kind = byte_at(classes, code_point)
            if kind & UNSPACED:
                words += in_word + 1
                in_word, at = 0, skip_marks(data, at, stop, classes)
                continue
        space = kind & SPACE
        words += in_word & space
        in_word = space ^ 1
        uppercase += kind // UPPERCASE & 1
        digits += kind // NUMBER & 1
    return words + in_word, uppercase, digits


@numba.njit(nogil=True, cache=True)
def _skip(data: np.ndarray, at: int, stop: int, classes: np.ndarray, mask: int, within: bool) -> int:
    """Return where the characters from `at` on end whose class has (`within`), or has not, a bit of the mask."""
    while at < stop:
        code_point, behind = next_code_point(data, at, stop)
        if (classes[code_point] & mask != 0) != within:
            break
        at = behind
    return at


@numba.njit(nogil=True, cache=True)
def _is_counter(
    data: np.ndarray, at: int, stop: int, classes: np.ndarray, counted: np.ndarray, counted_offsets: np.ndarray
) -> bool:
    """Whether the line is a number of something that is counted, and nothing else."""
    at = _skip(data, at, stop, classes, LETTER | NUMBER, False)
    if at == stop or not 0x30 <= data[at] <= 0x39:
        return False
    while at < stop and (0x30 <= data[at] <= 0x39 or data[at] == 0x2C or data[at] == 0x2E):
        at += 1
    if at < stop:
        letter = lowered(byte_at(data, at))
        at += letter == 0x6B or letter == 0x6D or letter == 0x62  # k, m, b
    behind = _skip(data, at, stop, classes, SPACE, True)
    if behind == at:
        return False
    for k in range(len(counted_offsets) - 1):
        size = counted_offsets[k + 1] - counted_offsets[k]
        if behind + size <= stop and matches(data, behind, counted, counted_offsets[k], size):
            return _skip(data, behind + size, stop, classes, LETTER | NUMBER, False) == stop
    return False


@numba.njit(nogil=True, cache=True, inline="always")
def _says(data: np.ndarray, at: int, stop: int, phrase: bytes) -> bool:
    """Whether `data[at:stop]` begins with a lower-case phrase, but for ASCII case."""
    if at + len(phrase) > stop:
        return False
    k = 0
    while k < len(phrase) and lowered(byte_at(data, at + k)) == phrase[k]:
        k += 1
    return k == len(phrase)


@numba.njit(nogil=True, cache=True)
def _is_within_word(data: np.ndarray, start: int, first: int, last: int, stop: int, classes: np.ndarray) -> bool:
    """Whether a letter, mark or digit of `data[start:stop]` stands before `first` or at `last`."""
    before = first
    while before > start:
        before -= 1
        if data[before] & 0xC0 != 0x80:
            break
    return (
        _skip(data, before, first, classes, LETTER | MARK | NUMBER, True) > before
        or _skip(data, last, min(last + 4, stop), classes, LETTER | MARK | NUMBER, True) > last
    )


@numba.njit(nogil=True, cache=True)
def _cut_phrases(data: np.ndarray, start: int, stop: int, classes: np.ndarray, pieces: np.ndarray) -> int:
    """Fill in what is left of a line, (start, stop) of each piece; returns how many, 0 for nothing but white space."""
    if _says(data, start, stop, AT_BEGINNING):
        behind = start + len(AT_BEGINNING)
        if not _is_within_word(data, start, start, behind, stop, classes):
            start = _skip(data, behind, stop, classes, SPACE, True)
    dots, last = 0, stop
    while last > start and data[last - 1] == 0x2E:
        dots, last = dots + 1, last - 1
    if dots == 0 and last - start >= 3 and data[last - 3] == 0xE2 and data[last - 2] == 0x80 and data[last - 1] == 0xA6:
        last -= 3  # the ellipsis, U+2026
    first = max(last - len(AT_END), start)
    says = (dots == 0 or dots >= 3) and _says(data, first, last, AT_END)
    if says and not _is_within_word(data, start, first, last, last, classes):
        stop = skip_space_back(data, start, first, classes)
    num, at = 0, start
    while at < stop and num < MOST_PHRASES:
        behind = at + len(ANYWHERE)
        if _says(data, at, stop, ANYWHERE) and not _is_within_word(data, start, at, behind, stop, classes):
            piece_stop = skip_space_back(data, start, at, classes)
            if piece_stop > start:
                pieces[num, 0], pieces[num, 1] = start, piece_stop
                num += 1
            elif num == 0:
                behind = _skip(data, behind, stop, classes, SPACE, True)
            start = at = behind
        else:
            at += 1
    if start < stop:
        pieces[num, 0], pieces[num, 1] = start, stop
        num += 1
    return num
