"""How much work a page makes for an HTML parser, counted before it is parsed.

Parsers and extractors are linear in ordinary pages and quadratic, or worse, in hostile ones: a hundred thousand nested
elements, formatting elements left open that are built anew in every paragraph, one tag with a million attributes. Three
counts bound them all. They follow the tokenizer of the HTML standard (section 13.2.5) and the part of its tree
construction that decides which end tag closes what, and where in doubt they count too much: what only looks like markup
is markup unless the standard surely says otherwise. Cost: about 500 MB a CPU second.
"""

from __future__ import annotations

import dataclasses

import numba
import numpy as np

from pipelines.main_content.lexer import is_letter, is_space, read_name, read_value, skip_comment, skip_raw_text
from pipelines.main_content.tags import name_hash

VOID = "area base basefont bgsound br col embed frame hr image img input keygen link meta param source track wbr"
OPTIONAL_END = "p li dt dd option optgroup tr td th tbody thead tfoot colgroup caption rt rp html head body"
FORMATTING = "b big code em font i s small strike strong tt u"
SINGLE_FORMATTING = "a nobr"
RAW_TEXT = "script style textarea title xmp iframe noembed noframes"
SCOPE = "table template applet marquee object"
MARKUP_ONLY = "svg math select"
BLOCK = """
address article aside blockquote button center details dialog dir div dl fieldset figcaption figure footer form frameset
h1 h2 h3 h4 h5 h6 header hgroup listing main menu nav noscript ol plaintext pre search section summary ul
"""

(
    IS_OTHER,
    IS_LEAF,
    IS_FORMATTING,
    IS_SINGLE_FORMATTING,
    IS_RAW_TEXT,
    IS_SCOPE,
    IS_MARKUP_ONLY,
    IS_BLOCK,
) = range(8)
"""Kinds of elements. Void ones and those whose end tag may be left out do not nest (`IS_LEAF`). End tags do not reach
beyond a scope, those of other than block elements not beyond a block. In `IS_MARKUP_ONLY` raw text is markup."""

MAX_STACK = 512
"""How many open elements are told apart, so that an end tag costs no more; further ones add to the depth for good."""

OPEN_TAG, END_TAG, OTHER = range(3)


@dataclasses.dataclass(frozen=True, slots=True)
class Markup:
    """Upper bounds of what a parser makes of a page, seldom much above the truth for pages as people write them."""

    nodes: int
    """Elements: start tags, and for each of them the formatting elements then open, which may be built anew."""
    depth: int
    """Open elements at once, but for those with optional end tags (p, li, tr, td ...): at most three for each."""
    attributes: int
    """Of the tag that has most."""


def measure_markup(page: bytes | memoryview) -> Markup:
    """Count `page`, which is UTF-8 or any superset of ASCII."""
    nodes, depth, attributes = _measure(np.frombuffer(page, np.uint8), *_NAMES)
    return Markup(nodes, depth, attributes)


def _name_table() -> tuple[np.ndarray, np.ndarray]:
    """Return hashes of names, sorted, and their kinds."""
    kinds = {
        IS_LEAF: f"{VOID} {OPTIONAL_END}",
        IS_FORMATTING: FORMATTING,
        IS_SINGLE_FORMATTING: SINGLE_FORMATTING,
        IS_RAW_TEXT: RAW_TEXT,
        IS_SCOPE: SCOPE,
        IS_MARKUP_ONLY: MARKUP_ONLY,
        IS_BLOCK: BLOCK,
    }
    pairs = sorted((name_hash(name), kind) for kind, names in kinds.items() for name in names.split())
    return np.array([pair[0] for pair in pairs], np.int64), np.array([pair[1] for pair in pairs], np.int64)


_NAMES = _name_table()


@numba.njit(nogil=True, cache=True)
def _measure(data: np.ndarray, names: np.ndarray, kinds: np.ndarray) -> tuple[int, int, int]:
    """Return nodes, depth and attributes of a page."""
    stack = np.empty(MAX_STACK, np.int64)
    stack_kinds = np.empty(MAX_STACK, np.int64)
    formatting = np.zeros(len(names), np.int64)
    size, overflow, num_formatting, num_markup_only = 0, 0, 0, 0
    nodes, depth, max_attributes, at = 0, 0, 0, 0
    while True:
        what, name, attributes, at = _next_tag(data, at)
        if at < 0:
            return nodes, depth, max_attributes
        if what == OTHER:
            continue
        max_attributes = max(max_attributes, attributes)
        nodes += (1 + num_formatting) if what == OPEN_TAG else 0
        place = np.searchsorted(names, name)
        kind = kinds[place] if place < len(names) and names[place] == name else IS_OTHER
        if kind in (IS_FORMATTING, IS_SINGLE_FORMATTING):
            change = _formatting_change(what, kind, formatting[place])
            formatting[place] += change
            num_formatting += change
        elif kind == IS_RAW_TEXT:
            if what == OPEN_TAG and num_markup_only == 0:
                at = skip_raw_text(data, at, name)
        elif kind != IS_LEAF and what == OPEN_TAG:
            if size < MAX_STACK:
                stack[size], stack_kinds[size] = name, kind
                size += 1
                num_markup_only += kind == IS_MARKUP_ONLY
            else:
                overflow += 1
        elif kind != IS_LEAF:
            rest = _closed(stack, stack_kinds, size, name, kind)
            for k in range(rest, size):
                num_markup_only -= stack_kinds[k] == IS_MARKUP_ONLY
            size = rest
        depth = max(depth, size + overflow + num_formatting)


@numba.njit(nogil=True, cache=True)
def _formatting_change(what: int, kind: int, num_open: int) -> int:
    """Return by how much a tag changes the number of open formatting elements of its name."""
    if what == END_TAG:
        return -1 if num_open > 0 else 0
    return 0 if kind == IS_SINGLE_FORMATTING and num_open > 0 else 1


@numba.njit(nogil=True, cache=True)
def _closed(stack: np.ndarray, stack_kinds: np.ndarray, size: int, name: int, kind: int) -> int:
    """Return the size of the stack after an end tag, which closes all elements down to its own, or nothing."""
    for k in range(size - 1, -1, -1):
        if stack[k] == name:
            return k
        if stack_kinds[k] == IS_SCOPE or stack_kinds[k] == IS_MARKUP_ONLY:
            return size
        if kind == IS_OTHER and stack_kinds[k] == IS_BLOCK:
            return size
    return size


@numba.njit(nogil=True, cache=True)
def _next_tag(data: np.ndarray, at: int) -> tuple[int, int, int, int]:
    """Return the next token from `at`: its kind, name and number of attributes, and the place behind it (-1 = end)."""
    end = len(data)
    while at < end and data[at] != 0x3C:  # <
        at += 1
    if at + 1 >= end:
        return OTHER, 0, 0, -1
    if is_letter(data[at + 1]):
        name, attributes, at = _tag(data, at + 1)
        return OPEN_TAG, name, attributes, at
    if data[at + 1] == 0x2F and at + 2 < end and is_letter(data[at + 2]):  # </
        name, attributes, at = _tag(data, at + 2)
        return END_TAG, name, attributes, at
    if data[at + 1] == 0x21 or data[at + 1] == 0x3F or data[at + 1] == 0x2F:  # <! <? </
        return OTHER, 0, 0, skip_comment(data, at + 2)
    return OTHER, 0, 0, at + 1


@numba.njit(nogil=True, cache=True)
def _tag(data: np.ndarray, at: int) -> tuple[int, int, int]:
    """Return name and number of attributes of the tag whose name starts at `at`, and the place behind it."""
    name, at, _ = read_name(data, at, False)
    attributes, end = 0, len(data)
    while at < end and data[at] != 0x3E:  # >
        if is_space(data[at]) or data[at] == 0x2F:
            at += 1
            continue
        attributes += 1
        _, at, _ = read_name(data, at + 1, True)  # its first byte may be a "="
        _, _, at = read_value(data, at)
    return name, attributes, at + 1
