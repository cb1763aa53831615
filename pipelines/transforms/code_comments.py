"""How much of a source file is comments, by a scan that knows the comments and strings of a dozen kinds of languages.

A comment runs from its marker to the end of the line, or from its opening to its closing marker, markers included and
the line feed not; blocks do not nest. A marker inside a string is none. A string ends at the same quotation mark, at
the end of the line, or, with backticks and Python's three marks, where it is closed; a backslash takes the character
behind it along. `#` begins a comment at the start of a line or behind white space only ("$#", "a#b" are none). In
Python a string in three marks that begins a line is a docstring and counts as a comment, without an "r" before it.

No grammar is read: regular expressions, here-documents and the like can hide a marker or show one. What is open at the
end of the file ends there. The published counts come from Python's tokenizer and from pygments (SantaCoder, arXiv
2301.03988).
"""

from __future__ import annotations

import dataclasses
from functools import cache

import numba
import numpy as np

from pipelines.transforms.spans import count_characters

QUOTES, BACKTICKS, DOCSTRINGS, BEHIND_SPACE = 1, 2, 4, 8

MARKERS = "line", "opening", "closing"
MARKER_BYTES = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Syntax:
    """Comment markers ("" = none), what strings there are (bits), and the extensions of the languages."""

    line: str
    opening: str
    closing: str
    strings: int
    extensions: str


SYNTAXES = (
    Syntax(
        "//", "/*", "*/", QUOTES | BACKTICKS,
        "c cc cpp cxx h hh hpp hxx java js jsx mjs cjs ts tsx go rs cs swift kt kts scala dart groovy php m mm cu cuh"
        " glsl vert frag fsh vsh hlsl proto zig v sv sol less scss sass",
    ),
    Syntax("", "/*", "*/", QUOTES, "css"),
    Syntax("#", "", "", QUOTES | DOCSTRINGS | BEHIND_SPACE, "py pyi pyx pxd"),
    Syntax(
        "#", "", "", QUOTES | BEHIND_SPACE,
        "sh bash zsh rb pl pm r yaml yml toml mk cmake nix ex exs tcl awk ps1 tf nim",
    ),
    Syntax("#", "#=", "=#", QUOTES | BEHIND_SPACE, "jl"),
    Syntax("--", "/*", "*/", QUOTES, "sql"),
    Syntax("--", "--[[", "]]", QUOTES, "lua"),
    Syntax("--", "{-", "-}", QUOTES, "hs elm"),
    Syntax("--", "", "", QUOTES, "adb ads vhd vhdl"),
    Syntax(";", "", "", QUOTES, "lisp cl el clj cljs scm rkt asm nasm"),
    Syntax("%", "", "", 0, "tex sty erl hrl"),
    Syntax("//", "(*", "*)", QUOTES, "fs fsi fsx"),
    Syntax("", "(*", "*)", QUOTES, "ml mli"),
    Syntax("!", "", "", QUOTES, "f90 f95 f03 f08"),
    Syntax("", "<!--", "-->", 0, "html htm xhtml xml svg xsl xslt vue md"),
)  # fmt: skip
"""Apostrophes of Rust, Haskell, Lisp and the like begin "strings" that end with the line."""

EXTENSIONS = tuple(extension for syntax in SYNTAXES for extension in syntax.extensions.split())
"""Extensions of the languages whose comments can be counted."""

SYNTAX_OF = np.array([place for place, syntax in enumerate(SYNTAXES) for _ in syntax.extensions.split()], np.int64)
"""For each of `EXTENSIONS`, the place of its syntax."""

QUOTE, APOSTROPHE, BACKTICK, BACKSLASH, LF, SPACE_BYTE = 0x22, 0x27, 0x60, 0x5C, 0x0A, 0x20


def count_comments(offsets: np.ndarray, data: np.ndarray, syntaxes: np.ndarray, comments: np.ndarray) -> None:
    """Set the characters in comments of every row `data[offsets[row]:offsets[row + 1]]` (int64, shape (rows,)).

    `syntaxes` (int64, shape (rows,)) are places in `SYNTAXES`, -1 for a row that is not looked at.
    """
    _count_comments(offsets, data, syntaxes, *_tables(), comments)


@cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each syntax: markers (uint8, (3, 4)), lengths (int64, (3,)), strings (int64), and what begins any.

    The last is bool, shape (256,): whether a byte may begin a comment or a string.
    """
    markers = np.zeros((len(SYNTAXES), len(MARKERS), MARKER_BYTES), np.uint8)
    lengths = np.zeros((len(SYNTAXES), len(MARKERS)), np.int64)
    begins = np.zeros((len(SYNTAXES), 256), np.bool_)
    for place, syntax in enumerate(SYNTAXES):
        for k, name in enumerate(MARKERS):
            marker = getattr(syntax, name).encode("ascii")
            markers[place, k, : len(marker)] = list(marker)
            lengths[place, k] = len(marker)
        begins[place, [ord(marker[0]) for marker in (syntax.line, syntax.opening) if marker]] = True
        begins[place, [QUOTE, APOSTROPHE]] |= bool(syntax.strings & QUOTES)
        begins[place, BACKTICK] |= bool(syntax.strings & BACKTICKS)
    return markers, lengths, np.array([syntax.strings for syntax in SYNTAXES], np.int64), begins


@numba.njit(nogil=True, cache=True)
def _count_comments(
    offsets: np.ndarray, data: np.ndarray, syntaxes: np.ndarray, markers: np.ndarray, lengths: np.ndarray,
    strings: np.ndarray, begins: np.ndarray, comments: np.ndarray,
) -> None:  # fmt: skip
    for row in range(len(syntaxes)):
        syntax = syntaxes[row]
        if syntax >= 0:
            comments[row] = _scan(
                data, offsets[row], offsets[row + 1], markers[syntax], lengths[syntax], strings[syntax], begins[syntax]
            )


@numba.njit(nogil=True, cache=True)
def _scan(
    data: np.ndarray, begin: int, end: int, markers: np.ndarray, lengths: np.ndarray, strings: int, begins: np.ndarray
) -> int:
    """Return the characters in comments of `data[begin:end]`."""
    at, num = begin, 0
    while at < end:
        byte, start = data[at], at
        if not begins[byte]:
            at += 1
        elif _is_marker(data, at, end, markers[1], lengths[1]):
            at = _closed(data, at + lengths[1], end, markers[2], lengths[2])
            num += count_characters(data, start, at)
        elif _is_marker(data, at, end, markers[0], lengths[0]):
            at += lengths[0]
            if not strings & BEHIND_SPACE or start == begin or data[start - 1] <= SPACE_BYTE:
                while at < end and data[at] != LF:
                    at += 1
                num += count_characters(data, start, at)
        elif strings & QUOTES and byte in (QUOTE, APOSTROPHE):
            if strings & DOCSTRINGS and at + 2 < end and data[at + 1] == byte and data[at + 2] == byte:
                at = _string_end(data, at + 3, end, byte, 3, True)
                num += count_characters(data, start, at) if _begins_line(data, begin, start) else 0
            else:
                at = _string_end(data, at + 1, end, byte, 1, False)
        elif strings & BACKTICKS and byte == BACKTICK:
            at = _string_end(data, at + 1, end, byte, 1, True)
        else:
            at += 1
    return num


@numba.njit(nogil=True, cache=True)
def _begins_line(data: np.ndarray, begin: int, at: int) -> bool:
    """Whether nothing but white space, and perhaps an "r" or "u", is before `at` in its line."""
    if at > begin and data[at - 1] | 0x20 in (0x72, 0x75):
        at -= 1
    while at > begin and data[at - 1] <= SPACE_BYTE and data[at - 1] != LF:
        at -= 1
    return at == begin or data[at - 1] == LF


@numba.njit(nogil=True, cache=True, inline="always")
def _is_marker(data: np.ndarray, at: int, end: int, marker: np.ndarray, length: int) -> bool:
    if length == 0 or data[at] != marker[0] or at + length > end:
        return False
    same = True
    for k in range(1, length):
        same &= data[at + k] == marker[k]
    return same


@numba.njit(nogil=True, cache=True)
def _closed(data: np.ndarray, at: int, end: int, marker: np.ndarray, length: int) -> int:
    """Return the place behind the next closing marker."""
    while at < end:
        if _is_marker(data, at, end, marker, length):
            return at + length
        at += 1
    return end


@numba.njit(nogil=True, cache=True)
def _string_end(data: np.ndarray, at: int, end: int, quote: int, num_quotes: int, many_lines: bool) -> int:
    """Return the place behind the string whose text starts at `at`; that of the line break where the line ends it."""
    seen = 0
    while at < end:
        byte = data[at]
        if byte == LF and not many_lines:
            return at
        seen = seen + 1 if byte == quote else 0
        at += 2 if byte == BACKSLASH else 1
        if seen == num_quotes:
            return at
    return end
