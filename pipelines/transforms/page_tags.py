"""What pages declare about their use: `meta` elements by name, and links whose `rel` is "license".

One compiled pass over the payload, with the lexical rules of HTML (`main_content/lexer.py`): attributes in any order
and quoting, the first of two that have one name; nothing in comments, in end tags, or in scripts, styles and other raw
text counts. It goes over the whole page, not its head alone: parsers put a `meta` that stands in the body to the same
use, and licences stand in footers. Linear in the payload, of which the first `MAX_BYTES` are read; a page gives
`MAX_HITS` declarations at most.

Pages in UTF-16 are decoded first (`charset.py`: byte order mark, or header); in every other encoding of the web the
characters of tags have ASCII's bytes.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa

from pipelines.main_content.lexer import is_letter, is_space, read_name, read_value, skip_comment, skip_raw_text
from pipelines.transforms.charset import PRESCAN_BYTES, to_utf8
from pipelines.transforms.phrases import lowered, matches
from pipelines.transforms.words import byte_at, text_view

MAX_BYTES = 8 << 20
"""As many as `extract` lets through by default."""
MAX_HITS = 256
MAX_VALUE = 4096
"""Bytes of a name or value that are looked at."""

RAW_TEXT = ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes", "plaintext")
META, LINK = 1, 2
KINDS = {"meta": META, "a": LINK, "area": LINK, "link": LINK}

Names = tuple[np.ndarray, np.ndarray]
"""Lower-case names one after another (uint8), and where each begins (int64, one more than names)."""


def pack_names(names: Iterable[str]) -> Names:
    """Return names as a kernel reads them."""
    encoded = [name.encode() for name in names]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)]).astype(np.int64)


_RAW, _TAGS = pack_names(RAW_TEXT), pack_names(KINDS)
_TAG_KINDS = np.array(list(KINDS.values()), np.int64)
_ATTRIBUTES = pack_names(("name", "property", "content", "rel", "href"))
_ATTRIBUTE_KINDS = np.array([META, META, META, LINK, LINK], np.int64)
_ATTRIBUTE_PLACES = np.array([0, 0, 2, 0, 2], np.int64)
"""Where an attribute's span stands in what `_attributes` finds: behind the name's, or the value's."""
_LICENSE = np.frombuffer(b"license", np.uint8)


class Declaration(NamedTuple):
    """A `meta` element's name (lower case) and content, or "rel=license" and the address; references decoded."""

    row: int
    name: str
    value: str


LICENCE_LINK = "rel=license"


def declarations(batch: pa.RecordBatch, names: tuple[str, ...], *, links: bool) -> Iterator[Declaration]:
    """Yield what the pages in `content` declare, in order: `meta` elements of these names, and links of licences.

    Names are lower case; `property` counts as `name` does. Rows without a payload give nothing.
    """
    content = batch.column("content")
    if content.null_count == len(content):
        return
    offsets, data = text_view(content)
    keys = _keys(names)
    wide = np.flatnonzero(_has_nul(offsets, data, PRESCAN_BYTES))
    for row, kind, spans in _hits(offsets, data, keys, links):
        if row not in wide:
            yield from _declared(row, kind, data, spans, names)
    charsets = batch.column("charset") if "charset" in batch.schema.names else None
    for row in wide.tolist():
        label = None if charsets is None else charsets[row].as_py()
        page = np.frombuffer(to_utf8(data[offsets[row] : offsets[row + 1]][:MAX_BYTES].tobytes(), label), np.uint8)
        for _, kind, spans in _hits(np.array([0, len(page)]), page, keys, links):
            yield from _declared(row, kind, page, spans, names)


def _hits(offsets: np.ndarray, data: np.ndarray, keys: Names, links: bool) -> Iterator[tuple[int, int, list[int]]]:
    for row, kind, *spans in _find(offsets, data, keys, links).tolist():
        yield row, kind, spans


def _declared(row: int, kind: int, data: np.ndarray, spans: list[int], names: tuple[str, ...]) -> Iterator[Declaration]:
    """Yield a hit of the kernel, unless its name, with references decoded, is not asked for."""
    name, value = _text(data, spans[0], spans[1]).lower(), _text(data, spans[2], spans[3])
    if kind == LINK:
        if "license" in name.split():
            yield Declaration(row, LICENCE_LINK, value)
    elif name in names:
        yield Declaration(row, name, value)


def _text(data: np.ndarray, start: int, stop: int) -> str:
    raw = data[start : min(stop, start + MAX_VALUE)].tobytes().decode("utf-8", "replace")
    return html.unescape(raw).strip()


@lru_cache(maxsize=16)
def _keys(names: tuple[str, ...]) -> Names:
    return pack_names(names)


@numba.njit(nogil=True, cache=True)
def _has_nul(offsets: np.ndarray, data: np.ndarray, size: int) -> np.ndarray:
    """Return which rows have a NUL among their first bytes: bool, shape (rows,)."""
    found = np.zeros(len(offsets) - 1, np.bool_)
    for row in range(len(offsets) - 1):
        for at in range(offsets[row], min(offsets[row + 1], offsets[row] + size)):
            if data[at] == 0:
                found[row] = True
                break
    return found


@numba.njit(nogil=True, cache=True)
def _find(offsets: np.ndarray, data: np.ndarray, keys: Names, links: bool) -> np.ndarray:
    """Return row, kind, and the spans of name and value in `data`: int64, shape (hits, 6)."""
    hits, num = np.empty((64, 6), np.int64), 0
    found = np.empty(4, np.int64)
    for row in range(len(offsets) - 1):
        begin, most = offsets[row], num + MAX_HITS
        page = data[begin : min(offsets[row + 1], begin + MAX_BYTES)]
        at, end = 0, len(page)
        while at < end and num < most:
            while at < end and page[at] != 0x3C:  # <
                at += 1
            at += 1
            if at >= end:
                break
            byte = page[at]
            is_end = byte == 0x2F and at + 1 < end and is_letter(page[at + 1])
            if not is_end and not is_letter(byte):
                if byte == 0x21 or byte == 0x3F or byte == 0x2F:
                    at = skip_comment(page, at + 1)
                continue
            start = at + is_end
            tag, at, _ = read_name(page, start, False)
            known = -1 if is_end else _which(page, start, at, _TAGS[0], _TAGS[1])
            kind = _TAG_KINDS[known] if known >= 0 else 0
            is_raw = not is_end and _which(page, start, at, _RAW[0], _RAW[1]) >= 0
            at = _attributes(page, at, kind, found)
            if kind == LINK and not (links and found[0] >= 0 and _may_be_licence(page, found[0], found[1])):
                kind = 0
            if kind == META and not (found[0] >= 0 and _is_asked(page, found[0], found[1], keys)):
                kind = 0
            if kind and found[2] >= 0:
                if num == len(hits):
                    more = np.empty((2 * num, 6), np.int64)
                    more[:num] = hits
                    hits = more
                hits[num, 0], hits[num, 1] = row, kind
                for k in range(4):
                    hits[num, 2 + k] = begin + found[k]
                num += 1
            if is_raw:
                at = skip_raw_text(page, at, tag)
    return hits[:num]


@numba.njit(nogil=True, cache=True)
def _attributes(page: np.ndarray, at: int, kind: int, found: np.ndarray) -> int:
    """Set the spans of the two attributes that a kind of tag is asked for (-1: none); return the place behind ">"."""
    end = len(page)
    found[:] = -1
    while at < end and page[at] != 0x3E:  # >
        if is_space(page[at]) or page[at] == 0x2F:
            at += 1
            continue
        name = at
        _, at, _ = read_name(page, at + (page[at] == 0x3D), True)  # "=" before a name is part of it
        known = _which(page, name, at, _ATTRIBUTES[0], _ATTRIBUTES[1]) if kind else -1
        start, stop, at = read_value(page, at)
        if known >= 0 and _ATTRIBUTE_KINDS[known] == kind and found[_ATTRIBUTE_PLACES[known]] < 0:
            place = _ATTRIBUTE_PLACES[known]
            found[place], found[place + 1] = start, stop
    return min(at + 1, end)


@numba.njit(nogil=True, cache=True)
def _is_asked(page: np.ndarray, start: int, stop: int, keys: Names) -> bool:
    """Whether a name is one of those asked for, or holds a reference, so that a look is needed."""
    while start < stop and is_space(page[start]):
        start += 1
    while start < stop and is_space(page[stop - 1]):
        stop -= 1
    for at in range(start, min(stop, start + MAX_VALUE)):
        if page[at] == 0x26:  # &
            return True
    return _which(page, start, stop, keys[0], keys[1]) >= 0


@numba.njit(nogil=True, cache=True)
def _which(page: np.ndarray, start: int, stop: int, names: np.ndarray, offsets: np.ndarray) -> int:
    """Return which of the names `page[start:stop]` is, ASCII case aside, or -1."""
    for k in range(len(offsets) - 1):
        size = offsets[k + 1] - offsets[k]
        if size == stop - start and matches(page, start, names, offsets[k], size):
            return k
    return -1


@numba.njit(nogil=True, cache=True)
def _may_be_licence(page: np.ndarray, start: int, stop: int) -> bool:
    """Whether "license", in any case, or a reference is in a value."""
    for at in range(start, min(stop, start + MAX_VALUE)):
        if page[at] == 0x26:
            return True
        k = 0
        while k < 7 and at + k < stop and lowered(byte_at(page, at + k)) == _LICENSE[k]:
            k += 1
        if k == 7:
            return True
    return False
