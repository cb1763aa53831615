"""Words, lines and paragraphs of a text, one after another: what the kernels of every filter walk over.

The words of this file mean the same in every filter:

- **token**: a maximal run of characters that are not white space. A token without a letter or digit is one *symbol
  word* ("--", "#", an emoji). Any other token is made of *plain words*.
- **plain word**: a token from its first letter or digit to its last one, with the marks behind that: `"don't,"` is one
  plain word of 5 characters, `(2,000)` is one of 5. In scripts without spaces (see `words.py`) every letter, with the
  marks behind it, is a plain word, as no rule finds the borders; what stands between them is treated like a token, but
  is no word without a letter or digit.
- **word**: a plain word or a symbol word.
- **line**: text between two line breaks (LF, VT, FF, CR, NEL, LS, PS; CR LF is one) that holds anything but white
  space: blank lines are no lines. A line begins and ends with a character that is not white space.
- **paragraph**: lines without a blank line between them.
- **character**: a code point.

Another tokenizer's words can take the place of ours (`GivenWords`), so that a rule can be compared with another
implementation of it apart from what a word is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from pipelines.transforms.hashing import HASH_START, hash_on
from pipelines.transforms.words import LETTER, MARK, NUMBER, SPACE, UNSPACED, byte_at, next_code_point

SPACED_WORD, UNSPACED_WORD, SYMBOL_WORD = 1, 2, 3
"""Kinds of word; `ALPHABETIC` is added to the kind of one that holds a letter."""
ALPHABETIC = LETTER
KINDS = 3
"""Mask of the kind."""


@dataclasses.dataclass(frozen=True, slots=True)
class GivenWords:
    """Words of another tokenizer: those of row r are `spans[offsets[r]:offsets[r + 1]]`.

    `offsets` is int64 (rows + 1,), `spans` int64 (words, 2): bytes of the row's text, half open, in order.
    """

    offsets: np.ndarray
    spans: np.ndarray

    @classmethod
    def find(cls, texts: Sequence[str], words: Sequence[Sequence[str]]) -> GivenWords:
        """Find the spans of words that were cut from texts in order. Raises `ValueError` where one is not there."""
        offsets, spans = [0], []
        for text, some in zip(texts, words, strict=True):
            at = place = 0
            for word in some:
                found = text.index(word, at)
                place += len(text[at:found].encode())
                size = len(word.encode())
                spans.append((place, place + size))
                at, place = found + len(word), place + size
            offsets.append(len(spans))
        return cls(np.array(offsets, np.int64), np.array(spans, np.int64).reshape(-1, 2))


NO_GIVEN_WORDS = GivenWords(np.zeros(0, np.int64), np.zeros((0, 2), np.int64))
"""Our own words."""


START, STOP, CHARACTERS, KIND, HASH = range(5)
"""Columns of a chunk of words."""
NOT_ASCII = 256
"""A bit beside those of the classes, added to the kind of a word that is not ASCII."""
CHUNK = 2_048
"""Words that are read before a rule looks at them: they stay in the processor's cache, whatever the text's length."""


@numba.njit(nogil=True, cache=True)
def count_characters(data: np.ndarray, at: int, end: int) -> int:
    """Return how many code points `data[at:end]` holds: its bytes that continue none."""
    num = 0
    for place in range(at, end):
        num += (data[place] & 0xC0) != 0x80
    return num


@numba.njit(nogil=True, cache=True)
def read_words(
    data: np.ndarray, at: int, end: int, classes: np.ndarray, inside: bool, words: np.ndarray
) -> tuple[int, int, bool]:
    """Fill `words` (int64, (CHUNK + 1, 5)) from `data[at:end]`; returns how many, and where to go on (at, inside).

    `inside` says whether `at` is within a token that has had a plain word.
    """
    num, at, inside = _scan_words(data, at, end, classes, inside, words)
    for k in range(num):
        if words[k, KIND] & NOT_ASCII:
            words[k, CHARACTERS] = count_characters(data, words[k, START], words[k, STOP])
    return num, at, inside


@numba.njit(nogil=True, cache=True)
def _scan_words(
    data: np.ndarray, at: int, end: int, classes: np.ndarray, inside: bool, words: np.ndarray
) -> tuple[int, int, bool]:
    """Do what `read_words` does; words that are not ASCII get their bytes for characters.

    A token's word runs from its first letter or digit (`start`) to its last, marks included (`stop`), and
    `hashed` is the hash up to there; `running` goes on to the token's end.

    A processor cannot foresee where a word ends, and pays for each branch that it guesses wrong: within a token there
    is none, what changes is selected by masks (0 or -1). Runs of ASCII have a loop of their own for the same reason.
    """
    num, most = 0, len(words) - 1
    seen, start, stop, token = 0, at, at, at
    running, hashed = HASH_START, HASH_START
    while at < end:
        while at < end and data[at] < 0x80:
            code_point = byte_at(data, at)
            kind = byte_at(classes, code_point)
            if kind & SPACE:
                if at > token:
                    num += _write(words, num, start, stop, token, at, seen, hashed, running, inside)
                at += 1
                seen, running, token, inside = 0, HASH_START, at, False
                if num >= most:
                    return num, at, False
            else:
                begun = -((seen >> 2 | seen >> 4) & 1)
                within = -((kind >> 2 | kind >> 4) & 1)
                start ^= (start ^ at) & within & ~begun
                running ^= (running ^ HASH_START) & within & ~begun
                running = hash_on(running, code_point)
                at += 1
                stop ^= (stop ^ at) & within
                hashed ^= (hashed ^ running) & within
                seen |= kind
        if at == end:
            break
        code_point, behind = next_code_point(data, at, end)
        kind = byte_at(classes, code_point)
        if kind & (SPACE | UNSPACED):
            if at > token:  # before a letter of another script the token goes on
                ahead = inside or kind & UNSPACED != 0
                num += _write(words, num, start, stop, token, at, seen, hashed, running, ahead)
            seen, running, token, inside = 0, HASH_START, behind, False
            if kind & UNSPACED:
                start, at, running, inside = at, behind, hash_on(HASH_START, code_point), True
                while at < end:
                    code_point, behind = next_code_point(data, at, end)
                    if not classes[code_point] & MARK:
                        break
                    running, at = hash_on(running, code_point), behind
                words[num, START], words[num, STOP], words[num, CHARACTERS] = start, at, 0
                words[num, KIND], words[num, HASH] = UNSPACED_WORD | ALPHABETIC | NOT_ASCII, running
                num += 1
                running, token, behind = HASH_START, at, at
            if num >= most:
                return num, behind, inside
        else:
            begun = -((seen >> 2 | seen >> 4) & 1)
            kind |= NUMBER & begun if kind & MARK and stop == at else 0
            within = -((kind >> 2 | kind >> 4) & 1)
            start ^= (start ^ at) & within & ~begun
            running ^= (running ^ HASH_START) & within & ~begun
            running = hash_on(running, code_point)
            stop ^= (stop ^ behind) & within
            hashed ^= (hashed ^ running) & within
            seen |= kind | NOT_ASCII
        at = behind
    if end > token:
        num += _write(words, num, start, stop, token, end, seen, hashed, running, inside)
    return num, end, False


@numba.njit(nogil=True, cache=True, inline="always")
def _write(
    words: np.ndarray, num: int, start: int, stop: int, token: int, at: int, seen: int, hashed: Any, running: Any,
    inside: bool,
) -> int:  # fmt: skip
    """Write the word of a token, a plain one or, if it has none and had none before, a symbol word; returns how many.

    (A row of an array, handed on as such, would be counted as a reference: dear for each word.)
    """
    plain = -((seen >> 2 | seen >> 4) & 1)
    first, last = token ^ ((token ^ start) & plain), at ^ ((at ^ stop) & plain)
    words[num, START] = first
    words[num, STOP] = last
    words[num, CHARACTERS] = last - first
    words[num, KIND] = (SYMBOL_WORD ^ ((SYMBOL_WORD ^ SPACED_WORD) & plain)) | (seen & (ALPHABETIC | NOT_ASCII))
    words[num, HASH] = running ^ ((running ^ hashed) & plain)
    return 1 if plain or not inside else 0


@numba.njit(nogil=True, cache=True)
def read_given_words(
    data: np.ndarray, begin: int, spans: np.ndarray, first: int, classes: np.ndarray, words: np.ndarray
) -> int:
    """Fill `words` from another tokenizer's spans, from the `first` on; returns how many. `begin` is the row's byte."""
    num = min(len(words), len(spans) - first)
    for k in range(num):
        start, stop = begin + spans[first + k, 0], begin + spans[first + k, 1]
        at, seen, hashed = start, 0, HASH_START
        while at < stop:
            code_point, at = next_code_point(data, at, stop)
            seen |= classes[code_point]
            hashed = hash_on(hashed, code_point)
        words[k, START], words[k, STOP], words[k, CHARACTERS] = start, stop, count_characters(data, start, stop)
        words[k, KIND] = (SPACED_WORD if seen & (LETTER | NUMBER) else SYMBOL_WORD) | (seen & ALPHABETIC)
        words[k, HASH] = hashed
    return num


@numba.njit(nogil=True, cache=True)
def next_line(
    data: np.ndarray, at: int, end: int, classes: np.ndarray, after_cr: bool
) -> tuple[int, int, int, int, bool]:
    """Return the next line of `data[at:end]`: start, stop, line breaks before it, and where to go on (at, after_cr).

    The break that ends the line is passed over; `after_cr` says whether it was a CR, to which an LF at `at` belongs.
    At the end of the text start is `end`. With the break that ended the line before, one break or more before this one
    are a blank line.
    """
    breaks = 0
    while at < end:
        last, size = at, 0
        while last < end:
            byte = data[last]
            if byte <= 0x0D and byte >= 0x0A:
                size = 1
                break
            if byte == 0xC2 or byte == 0xE2:
                size = _wide_break(data, last, end)
                if size:
                    break
            last += 1
        start = skip_space(data, at, last, classes)
        is_cr = size == 1 and data[last] == 0x0D
        if start < last:
            return start, skip_space_back(data, start, last, classes), breaks, last + size, is_cr
        breaks += size > 0 and not (after_cr and last == at and data[last] == 0x0A)
        after_cr = is_cr
        at = last + size
    return end, end, breaks, end, False


@numba.njit(nogil=True, cache=True, inline="always")
def _wide_break(data: np.ndarray, at: int, end: int) -> int:
    """Return the bytes of the NEL, LS or PS that begins at `at`, or 0."""
    if data[at] == 0xC2:
        return 2 if at + 1 < end and data[at + 1] == 0x85 else 0
    return 3 if at + 2 < end and data[at + 1] == 0x80 and (data[at + 2] | 1) == 0xA9 else 0


@numba.njit(nogil=True, cache=True)
def count_words(data: np.ndarray, at: int, end: int, classes: np.ndarray, words: np.ndarray) -> int:
    """Return how many words `data[at:end]` has. `words` is a chunk for `read_words`, whose rows are not kept."""
    num, begin, spaced = 0, at, 1
    while at < end:
        if data[at] < 0x80:
            space: int = classes[data[at]] & SPACE
            at += 1
        else:
            code_point, at = next_code_point(data, at, end)
            if classes[code_point] & UNSPACED:  # a token is no longer one word
                num, at, inside = 0, begin, False
                while at < end:
                    found, at, inside = read_words(data, at, end, classes, inside, words)
                    num += found
                return num
            space = classes[code_point] & SPACE
        num += spaced & (space ^ 1)
        spaced = space
    return num


@numba.njit(nogil=True, cache=True)
def most_lines(data: np.ndarray, at: int, end: int) -> int:
    """Return a number that `data[at:end]` has no more lines than: its bytes that may belong to a line break."""
    num = 1
    for place in range(at, end):
        byte = data[place]
        num += ((byte >= 0x0A) & (byte <= 0x0D)) | (byte == 0xC2) | (byte == 0xE2)
    return num


@numba.njit(nogil=True, cache=True)
def skip_space(data: np.ndarray, at: int, stop: int, classes: np.ndarray) -> int:
    """Return where the white space from `at` on ends."""
    while at < stop:
        code_point, behind = next_code_point(data, at, stop)
        if not classes[code_point] & SPACE:
            break
        at = behind
    return at


@numba.njit(nogil=True, cache=True)
def skip_marks(data: np.ndarray, at: int, stop: int, classes: np.ndarray) -> int:
    """Return where the marks from `at` on end: those that belong to the letter before."""
    while at < stop:
        code_point, behind = next_code_point(data, at, stop)
        if not classes[code_point] & MARK:
            break
        at = behind
    return at


@numba.njit(nogil=True, cache=True)
def skip_space_back(data: np.ndarray, start: int, stop: int, classes: np.ndarray) -> int:
    """Return where the white space that ends at `stop` begins, but not before `start`."""
    while stop > start:
        at = stop - 1
        while at > start and data[at] & 0xC0 == 0x80:
            at -= 1
        code_point, _ = next_code_point(data, at, stop)
        if not classes[code_point] & SPACE:
            break
        stop = at
    return stop
