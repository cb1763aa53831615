r"""The two encoders behind one interface: a column of texts in, a list of ids for each text out.

`tiktoken` is the reference. `gigatoken` is about ten times faster and gives the same ids; texts on which the two are
known to differ go to tiktoken (see `tokenizer.differences`). Both encode ordinary text only: a special token's name in
a text is a text like any other. Cost in one core: 11 to 14 MB/s and 50 to 140 MB/s.

Two guards against hostile text:
- tiktoken's pattern engine runs out of stack in `\s+(?!\S)` on about a million whitespace characters. Such runs are cut
  off where the pattern ends a piece anyway, and go to the byte pair encoding as the one piece that they are.
- gigatoken never forgets a word it has seen (up to 8 bytes of memory for a byte of random text, measured), so its
  object is made anew after every `FORGET_AFTER_BYTES` of text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pyarrow as pa
import tiktoken

from tokenizer.columns import running_total
from tokenizer.differences import differing
from tokenizer.encodings import Encoding, build_gigatoken, build_tiktoken, build_tiktoken_whole

LONGEST_BLANKS = 100_000
"""Whitespace runs without newline from this many characters on are cut off; tiktoken 0.14 gives up near 1,000,000."""

FORGET_AFTER_BYTES = 256 << 20
"""How much text a gigatoken object sees; holds a process below 2 GB on random letters, and costs 5% of the encoding."""

_BLANKS = re.compile("[\t\v\f \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
"""Unicode's White_Space without the newlines that both patterns treat apart (CR and LF)."""

_NEWLINES = "\r\n"


class Encoder(Protocol):
    """Encodes a column of valid, non-null UTF-8 texts into a large_list<int32> column of as many rows."""

    def __call__(self, text: pa.LargeStringArray) -> pa.LargeListArray:
        """Return the ordinary ids of every text."""
        ...


class TiktokenEncoder:
    """The reference encoder. `longest_blanks` is at least 2; it changes the cost, never the ids."""

    def __init__(self, encoding: Encoding, longest_blanks: int = LONGEST_BLANKS) -> None:
        self._encoding = encoding
        self._longest_blanks = longest_blanks

    def __call__(self, text: pa.LargeStringArray) -> pa.LargeListArray:
        """Encode text by text; the library has no call for a column."""
        rows = [self._ids(value) for value in text.to_pylist()]
        offsets = running_total(np.fromiter((len(row) for row in rows), np.int64, len(rows)))
        ids = np.concatenate(rows) if rows else np.empty(0, np.uint32)
        return pa.LargeListArray.from_arrays(offsets, pa.array(ids.view(np.int32)))

    def _ids(self, text: str) -> np.ndarray:
        if len(text) < self._longest_blanks:
            return _ordinary(build_tiktoken(self._encoding), text)
        joins = self._encoding.joins_trailing_whitespace
        return np.concatenate([self._part(*part) for part in cut_blanks(text, self._longest_blanks, joins)])

    def _part(self, text: str, whole: bool) -> np.ndarray:
        build = build_tiktoken_whole if whole else build_tiktoken
        return _ordinary(build(self._encoding), text)


def _ordinary(library: tiktoken.Encoding, text: str) -> np.ndarray:
    return library.encode_to_numpy(text, disallowed_special=())


def cut_blanks(text: str, longest: int, joins_trailing: bool) -> Iterator[tuple[str, bool]]:
    r"""Cut `text` at piece boundaries around long blank runs; the flag says that a part is one whole piece.

    A maximal run of blanks (whitespace but CR and LF) of `longest` (>= 2) or more is
    - followed by a newline: part of `\s*[\r\n]`, which needs no stack: left alone;
    - followed by other text: all but its last blank are one piece of `\s+(?!\S)`, and the last blank belongs to what
      follows. The text before ends in a newline or in no whitespace, so its own pieces stay as they were;
    - at the end of the text: one piece; where the pattern has `\s++$` (`joins_trailing`) it may begin before the
      blanks, but needs no stack: left alone.
    """
    done = 0
    for run in _BLANKS.finditer(text):
        start, end = run.span()
        at_end = end == len(text)
        if end - start < longest or (joins_trailing if at_end else text[end] in _NEWLINES):
            continue
        stop = end if at_end else end - 1
        yield text[done:start], False
        yield text[start:stop], True
        done = stop
    yield text[done:], False


class GigatokenEncoder:
    """The fast encoder: the whole column in one native call, without a Python string."""

    def __init__(self, encoding: Encoding, forget_after_bytes: int = FORGET_AFTER_BYTES) -> None:
        self._encoding = encoding
        self._forget_after_bytes = forget_after_bytes
        self._library = build_gigatoken(encoding)
        self._seen_bytes = 0

    def __call__(self, text: pa.LargeStringArray) -> pa.LargeListArray:
        """Encode the column; rows with a code point of `differences` through tiktoken."""
        apart = differing(text)
        if not apart.any():
            return self._encode(text)
        fast, exact = text.filter(pa.array(~apart)), text.filter(pa.array(apart))
        ids = pa.concat_arrays([self._encode(fast), TiktokenEncoder(self._encoding)(exact)])
        return ids.take(pa.array(np.where(apart, len(fast) + np.cumsum(apart), np.cumsum(~apart)) - 1))

    def _encode(self, text: pa.LargeStringArray) -> pa.LargeListArray:
        import awkward  # here, because it takes 0.3 s to import; gigatoken has loaded it by now

        # without the validity bitmap, which awkward does not slice along with the array: there are no nulls
        text = pa.LargeStringArray.from_buffers(len(text), *text.buffers()[1:], offset=text.offset)
        self._forget()
        self._seen_bytes += text.nbytes
        rows = self._library.encode_batch(awkward.from_arrow(text), parallel=False)
        ids = np.asarray(awkward.flatten(rows)).view(np.int32)
        return pa.LargeListArray.from_arrays(running_total(np.asarray(awkward.num(rows))), pa.array(ids))

    def _forget(self) -> None:
        if self._seen_bytes >= self._forget_after_bytes:
            self._library = build_gigatoken(self._encoding)
            self._seen_bytes = 0


ENCODERS: dict[str, type[TiktokenEncoder] | type[GigatokenEncoder]] = {
    "gigatoken": GigatokenEncoder,
    "tiktoken": TiktokenEncoder,
}


@functools.cache
def encoder_named(name: str, encoding: Encoding) -> Encoder:
    """Return the process's encoder of this name; `ValueError` with the names there are."""
    if name not in ENCODERS:
        raise ValueError(f"encoder {name!r}: no such encoder\nhint: use one of {', '.join(ENCODERS)}")
    return ENCODERS[name](encoding)
