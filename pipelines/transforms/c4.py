"""The C4 rules: lines that are no sentences go, and documents with too little left, or with code or filler text.

Rules: Raffel et al. 2020, "Exploring the Limits of Transfer Learning" (arXiv 1910.10683), section 2.2, in the order of
the published code, with datatrove's additions (the end mark "'"). Each line, without the white space at its ends, is
looked at once; the first of these that is true decides:

1. it has a word of more than `max_word_length` characters: the line goes;
2. `require_end_mark`, and its last character is none of `. ? ! " '`, or it ends in "...": the line goes;
3. it has fewer than `min_words_per_line` words: the line goes;
4. it says "lorem ipsum": counted for the document;
5. it says "javascript": the line goes;
6. it holds "{": counted for the document;
7. it says one of `POLICY_PHRASES`: the line goes;
8. else it stays, and its sentences are counted.

- **word**: here what stands between white space (`spans.py`: a token), as in the published code; in scripts without
  spaces every letter, with the marks behind it, is one, and so is what stands between. Citations count as words.
- **line**: as in `spans.py`. The lines that stay are joined by one line break, as in the published code; with
  `keep_blank_lines` a blank line between two of them is left.
- **citation**: `[`, digits or nothing, `]`; `[edit]`; `[citation needed]`. They are cut before the end mark is looked
  at, with the white space that would then end or begin the line. (In datatrove that space stays, so that a line that
  ends in ". [1]" has no end mark.) A line of nothing else has too few words, however few are asked for.
- **sentence**: ends with a run of marks that end sentences (Sentence_Terminal, and the ellipsis) and closing quotes or
  brackets (`" ' ) ] » ’ ” 」 ）`), behind which, citations that are cut aside, comes white space or the line's end. A
  single "." behind one ASCII letter ("J. Smith") or behind one of `ABBREVIATIONS` ends none, if these
  begin the line or stand behind an ASCII character that is no letter or digit, nor the apostrophe of a word ("can't.").
  What stands behind the last end is a sentence, too.
- phrases are compared without regard to ASCII case, citations within them not cut.

Null switches a rule off. The paper's list of bad words is not shipped: give one, one word or phrase a line
(`lists.py`), as `bad_words`; a document goes that has one of them between two characters that are no ASCII letters,
digits or "_".
"""

from __future__ import annotations

import dataclasses
import re
from functools import lru_cache
from typing import ClassVar

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.transforms.edits import Edits, apply_edits, is_breaks, with_room
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.lists import list_entries
from pipelines.transforms.phrases import PhraseArrays, Phrases, find_phrases, lowered
from pipelines.transforms.rules import Rule, RuleFilter, check_thresholds
from pipelines.transforms.spans import count_characters, next_line, skip_marks, skip_space, skip_space_back
from pipelines.transforms.words import (
    LETTER,
    NUMBER,
    SPACE,
    TERMINAL,
    UNSPACED,
    byte_at,
    code_point_classes,
    next_code_point,
    text_view,
)

POLICY_PHRASES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
ABBREVIATIONS = (
    *("mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs"),
    *("gen", "sen", "rep", "gov", "rev", "inc", "ltd", "co"),
)
"""ASCII, at most 7 letters each."""
LOREM_IPSUM, JAVASCRIPT, POLICY = 1, 2, ~3
"""Bits of the phrases."""
PHRASES = ("lorem ipsum", "javascript", *POLICY_PHRASES)

(
    LINES,
    LONG_WORD_LINES,
    NO_END_MARK_LINES,
    FEW_WORD_LINES,
    JAVASCRIPT_LINES,
    POLICY_LINES,
    LOREM_IPSUM_LINES,
    CURLY_BRACKET_LINES,
    SENTENCES,
    LONG_LINES,
    BAD_WORDS,
) = range(11)
"""The columns of the statistics."""
NUM_STATISTICS = 11

NOTHING, LINE_BREAK, BLANK_LINE = 0, 1, 2
"""What takes the place of what is cut."""
REPLACEMENTS = (b"", b"\n", b"\n\n")


@dataclasses.dataclass(frozen=True, slots=True)
class C4Quality(RuleFilter):
    """Cuts lines and drops documents by the rules of C4; the first broken rule of the document is the reason.

    A document that is dropped keeps its text as it was.
    """

    name: ClassVar[str] = "c4_quality"
    version: ClassVar[int] = 1

    max_word_length: int | None = 1_000
    """Characters of a word, for a line."""
    require_end_mark: bool = True
    """FineWeb was made without this one."""
    min_words_per_line: int | None = 3
    cut_citations: bool = True
    cut_javascript_lines: bool = True
    cut_policy_lines: bool = True
    keep_blank_lines: bool = False
    max_lorem_ipsum_lines: int | None = 0
    max_curly_bracket_lines: int | None = 0
    min_sentences: int | None = 5
    bad_words: GivenFile | None = None
    min_long_lines: int | None = None
    """mC4 asks for 3 lines of at least 200 characters."""
    long_line: int = 200
    """Characters that a long line has at least."""

    def __post_init__(self) -> None:
        """Refuse thresholds that are none."""
        check_thresholds(self)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of the document, in the order in which the first broken one is the reason; then those of lines."""
        return (
            Rule("max_lorem_ipsum_lines", LOREM_IPSUM_LINES, None, False, self.max_lorem_ipsum_lines),
            Rule("max_curly_bracket_lines", CURLY_BRACKET_LINES, None, False, self.max_curly_bracket_lines),
            Rule("min_sentences", SENTENCES, None, True, self.min_sentences),
            Rule("max_bad_words", BAD_WORDS, None, False, 0),
            Rule("min_long_lines", LONG_LINES, None, True, self.min_long_lines),
            Rule("lines_with_long_word", LONG_WORD_LINES, LINES, False, None),
            Rule("lines_without_end_mark", NO_END_MARK_LINES, LINES, False, None),
            Rule("lines_of_few_words", FEW_WORD_LINES, LINES, False, None),
            Rule("lines_with_javascript", JAVASCRIPT_LINES, LINES, False, None),
            Rule("lines_with_policy", POLICY_LINES, LINES, False, None),
        )

    def measured(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        """Count, and cut lines and citations."""
        text = batch.column("text")
        offsets, data = text_view(text)
        stats = np.zeros((len(text), NUM_STATISTICS), np.int64)
        cuts = _cut(
            offsets, data, code_point_classes(), Phrases.of(PHRASES).arrays, _keys(ABBREVIATIONS),
            -1 if self.max_word_length is None else self.max_word_length, self.require_end_mark,
            self.min_words_per_line or 0, self.cut_citations, self.cut_javascript_lines, self.cut_policy_lines,
            self.keep_blank_lines, self.long_line, stats,
        )  # fmt: skip
        if self.bad_words is not None:
            stats[:, BAD_WORDS] = _has_bad_word(text, self.bad_words)
        return apply_edits(batch, Edits.of(cuts), REPLACEMENTS), stats


def _has_bad_word(text: pa.Array, given: GivenFile) -> np.ndarray:
    pattern = _bad_words(given)
    if pattern is None:
        return np.zeros(len(text), np.int64)
    found = pc.match_substring_regex(text, pattern).fill_null(False)
    return found.to_numpy(zero_copy_only=False).astype(np.int64)


@lru_cache(maxsize=8)
def _bad_words(given: GivenFile) -> str | None:
    words = "|".join(map(re.escape, list_entries(given).to_pylist()))
    return rf"(?i)(?:^|\W)(?:{words})(?:\W|$)" if words else None


def _keys(words: tuple[str, ...]) -> np.ndarray:
    """Return words of at most 7 ASCII letters as integers."""
    return np.array([int.from_bytes(word.encode("ascii"), "big") for word in words], np.int64)


@numba.njit(nogil=True, cache=True)
def _cut(
    offsets: np.ndarray, data: np.ndarray, classes: np.ndarray,
    phrases: PhraseArrays, abbreviations: np.ndarray,
    max_word: int, require_end_mark: bool, min_words: int, cut_citations: bool, cut_javascript: bool,
    cut_policy: bool, keep_blank_lines: bool, long_line: int, stats: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Count, and return what to cut: int64, shape (cuts, 4), row, start and end in the row, what takes its place."""
    cuts, num = np.empty((1024, 4), np.int64), 0
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        at, after_cr, kept, kept_stop, blank = begin, False, False, begin, False
        while True:
            start, stop, breaks, at, after_cr = next_line(data, at, end, classes, after_cr)
            if start == end:
                break
            stats[row, LINES] += 1
            characters = count_characters(data, start, stop)
            stats[row, LONG_LINES] += characters >= long_line
            blank |= breaks > 0
            line_cuts = num
            brackets, curly = 0, 0
            for place in range(start, stop):
                brackets += data[place] == 0x5B
                curly += data[place] == 0x7B
            longest = _longest_word(data, start, stop, classes) if characters > max_word >= 0 else 0
            words = _count_words(data, start, stop, classes, min_words)
            cited = cut_citations and brackets > 0
            if cited:
                start, stop, cuts, num = _cut_citations(data, start, stop, classes, row, begin, cuts, num)
            verdict = _judge_line(
                data, start, stop, words, longest, curly, phrases, max_word, require_end_mark, min_words,
                cut_javascript, cut_policy,
            )  # fmt: skip
            if verdict != SENTENCES:
                stats[row, verdict] += 1
            else:
                stats[row, SENTENCES] += _count_sentences(data, start, stop, classes, abbreviations, cited)
            if LONG_WORD_LINES <= verdict <= POLICY_LINES:
                num = line_cuts
                continue
            between = BLANK_LINE if blank and keep_blank_lines else LINE_BREAK
            between = between if kept else NOTHING
            if not is_breaks(data, kept_stop, start, between):
                cuts = with_room(cuts, num + 1)
                for k in range(num, line_cuts, -1):  # before those of citations in the line
                    cuts[k] = cuts[k - 1]
                cuts[line_cuts, 0], cuts[line_cuts, 1] = row, kept_stop - begin
                cuts[line_cuts, 2], cuts[line_cuts, 3] = start - begin, between
                num += 1
            kept, kept_stop, blank = True, stop, False
        if kept_stop < end:
            cuts = with_room(cuts, num + 1)
            cuts[num, 0], cuts[num, 1], cuts[num, 2], cuts[num, 3] = row, kept_stop - begin, end - begin, NOTHING
            num += 1
    return cuts[:num]


@numba.njit(nogil=True, cache=True)
def _longest_word(data: np.ndarray, at: int, stop: int, classes: np.ndarray) -> int:
    """Return the characters of the longest word."""
    longest, length = 0, 0
    while at < stop:
        code_point, behind = next_code_point(data, at, stop)
        if classes[code_point] & UNSPACED:
            behind = skip_marks(data, behind, stop, classes)
            longest, length = max(longest, count_characters(data, at, behind)), 0
        else:
            length = 0 if classes[code_point] & SPACE else length + 1
            longest = max(longest, length)
        at = behind
    return longest


@numba.njit(nogil=True, cache=True)
def _count_words(data: np.ndarray, at: int, stop: int, classes: np.ndarray, most: int) -> int:
    """Return how many words there are, or a number from `most` on."""
    num, in_word = 0, False
    while at < stop and num < most:
        code_point, at = next_code_point(data, at, stop)
        kind = classes[code_point]
        if kind & UNSPACED:
            num, in_word, at = num + 1, False, skip_marks(data, at, stop, classes)
        elif kind & SPACE:
            in_word = False
        elif not in_word:
            num, in_word = num + 1, True
    return num


@numba.njit(nogil=True, cache=True)
def _judge_line(
    data: np.ndarray, start: int, stop: int, words: int, longest: int, curly: int,
    phrases: PhraseArrays, max_word: int, require_end_mark: bool, min_words: int, cut_javascript: bool,
    cut_policy: bool,
) -> int:  # fmt: skip
    """Return the column in which the line counts; that of the sentences if it stays and says nothing about the page."""
    if longest > max_word >= 0:
        return LONG_WORD_LINES
    if require_end_mark and not _has_end_mark(data, start, stop):
        return NO_END_MARK_LINES
    if words < min_words or start == stop:
        return FEW_WORD_LINES
    found = find_phrases(data, start, stop, phrases)
    if found & LOREM_IPSUM:
        return LOREM_IPSUM_LINES
    if found & JAVASCRIPT and cut_javascript:
        return JAVASCRIPT_LINES
    if curly:
        return CURLY_BRACKET_LINES
    return POLICY_LINES if found & POLICY and cut_policy else SENTENCES


@numba.njit(nogil=True, cache=True)
def _has_end_mark(data: np.ndarray, start: int, stop: int) -> bool:
    if stop == start:
        return False
    last = data[stop - 1]
    if last == 0x2E:
        return not (stop - start >= 3 and data[stop - 2] == 0x2E and data[stop - 3] == 0x2E)
    return last == 0x3F or last == 0x21 or last == 0x22 or last == 0x27


@numba.njit(nogil=True, cache=True)
def _citation(data: np.ndarray, at: int, stop: int) -> int:
    """Return where the citation that begins with the "[" at `at` ends, or `at`."""
    place = at + 1
    while place < stop and 0x30 <= data[place] <= 0x39:
        place += 1
    if place < stop and data[place] == 0x5D:
        return place + 1
    if place > at + 1:
        return at
    return _literal(data, at, stop, b"[edit]") or _literal(data, at, stop, b"[citation needed]") or at


@numba.njit(nogil=True, cache=True, inline="always")
def _literal(data: np.ndarray, at: int, stop: int, literal: bytes) -> int:
    """Return where the literal ends, or 0."""
    if at + len(literal) > stop:
        return 0
    for k in range(len(literal)):
        if data[at + k] != literal[k]:
            return 0
    return at + len(literal)


@numba.njit(nogil=True, cache=True)
def _cut_citations(
    data: np.ndarray, start: int, stop: int, classes: np.ndarray, row: int, begin: int, cuts: np.ndarray, num: int
) -> tuple[int, int, np.ndarray, int]:
    """Write down the citations within a line; returns where it begins and ends without those at its ends, and cuts."""
    first, at = num, start
    while at < stop:
        end = _citation(data, at, stop) if data[at] == 0x5B else at
        if end == at:
            at += 1
            continue
        if num > first and cuts[num - 1, 2] == at - begin:
            cuts[num - 1, 2] = end - begin
        else:
            cuts = with_room(cuts, num + 1)
            cuts[num, 0], cuts[num, 1], cuts[num, 2], cuts[num, 3] = row, at - begin, end - begin, NOTHING
            num += 1
        at = end
    while num > first:
        before = skip_space_back(data, begin + cuts[num - 1, 2], stop, classes)
        if before > begin + cuts[num - 1, 2]:
            break
        stop = skip_space_back(data, start, begin + cuts[num - 1, 1], classes)
        num -= 1
    removed = 0
    while removed < num - first and begin + cuts[first + removed, 1] == start:
        start = skip_space(data, begin + cuts[first + removed, 2], stop, classes)
        removed += 1
    for k in range(first, num - removed):
        cuts[k] = cuts[k + removed]
    return start, max(start, stop), cuts, num - removed


@numba.njit(nogil=True, cache=True)
def _count_sentences(
    data: np.ndarray, start: int, stop: int, classes: np.ndarray, abbreviations: np.ndarray, cited: bool
) -> int:
    """Count the sentences of a line, looking closer at the marks that may end one. `cited`: it may have citations."""
    num, at, behind_last = 0, start, start
    while at < stop:
        byte = data[at]
        if byte < 0x80 and not classes[byte] & TERMINAL:
            at += 1
            continue
        code_point, behind = next_code_point(data, at, stop)
        if not _ends(code_point, classes):
            at = behind
            continue
        ends = not (code_point == 0x2E and _is_abbreviation(data, start, at, classes, abbreviations))
        at = behind
        while at < stop:  # more marks, and what closes behind them
            code_point, behind = next_code_point(data, at, stop)
            if _ends(code_point, classes):
                ends = True
            elif cited and code_point == 0x5B and _citation(data, at, stop) > at:
                behind = _citation(data, at, stop)
            elif not _closes(code_point):
                break
            at = behind
        if ends and (at == stop or classes[code_point] & SPACE):
            num += 1
            at = behind_last = skip_space(data, at, stop, classes)
    return num + (behind_last < stop)


@numba.njit(nogil=True, cache=True, inline="always")
def _ends(code_point: int, classes: np.ndarray) -> bool:
    return classes[code_point] & TERMINAL != 0 or code_point == 0x2026


@numba.njit(nogil=True, cache=True)
def _is_abbreviation(data: np.ndarray, start: int, dot: int, classes: np.ndarray, abbreviations: np.ndarray) -> bool:
    """Whether a letter stands before the "." at `dot`, or an abbreviation, that is not the end of a word."""
    at, key = dot, 0
    while at > start and dot - at <= 7 and data[at - 1] < 0x80 and classes[data[at - 1]] & LETTER:
        at -= 1
        key |= lowered(byte_at(data, at)) << 8 * (dot - 1 - at)
    size = dot - at
    if size == 0 or size > 7 or (at > start and (data[at - 1] >= 0x80 or classes[data[at - 1]] & NUMBER)):
        return False
    if at - 1 > start and data[at - 1] == 0x27 and data[at - 2] < 0x80 and classes[data[at - 2]] & LETTER:
        return False
    found = size == 1
    for k in range(len(abbreviations)):
        found |= abbreviations[k] == key
    return found


@numba.njit(nogil=True, cache=True, inline="always")
def _closes(code_point: int) -> bool:
    """Whether this is a quotation mark or a closing bracket."""
    return (
        code_point == 0x22 or code_point == 0x27 or code_point == 0x29 or code_point == 0x5D or code_point == 0xBB
        or code_point == 0x2019 or code_point == 0x201D or code_point == 0x300D or code_point == 0xFF09
    )  # fmt: skip
