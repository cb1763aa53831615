"""One pass over the bytes of a page: blocks of text, and the nodes around them. No tree of objects is built.

A block is the text between two boundaries: start or end tag of an element that makes a node, or two line breaks.
Blocks come in document order and nodes nest, so a node's blocks are a range, and sums over any node are differences
of running sums over the blocks. White space is collapsed (but in `pre`), references are decoded, controls and soft
hyphens are dropped. Elements left open, closed twice or closed in the wrong order are handled as the standard does
as far as it moves boundaries (implied end tags of p, li, dt, dd, tr, td; end tags do not reach out of a table cell).

The work is linear in the page: every byte is looked at a bounded number of times, and a search through the open
elements stops after `MAX_DEPTH` of them and is counted in `STEPS`. Nothing is written past a buffer: a `Scanner` has
room for what a page of that many tags and bytes can give, and the kernel stops with `FULL` were it wrong.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import numba
import numpy as np

from pipelines.main_content import tags as t
from pipelines.main_content.class_words import HIDDEN_BIT, SYMBOLS, automaton, symbol_table
from pipelines.main_content.entities import LEGACY, MAX_LEGACY, MAX_NAME, c1_table, entity_table
from pipelines.main_content.lexer import is_letter, is_space, read_name, read_value, skip_comment, skip_raw_text
from pipelines.transforms.words import LETTER as LETTER_CLASS
from pipelines.transforms.words import MARK as MARK_CLASS
from pipelines.transforms.words import NUMBER as NUMBER_CLASS
from pipelines.transforms.words import SPACE as SPACE_CLASS
from pipelines.transforms.words import UNSPACED as UNSPACED_CLASS
from pipelines.transforms.words import code_point_classes, next_code_point

MAX_DEPTH = 512
"""Nodes open at once that are told apart, as in browsers; deeper ones belong to the last."""

(
    START, END, NODE, WORDS, CHARS, LINK_WORDS, LINK_CHARS, COMMAS, STOPS, DIGITS, UPPERS, ANCHORS, BREAKS, BOLD_CHARS,
    IMAGES, SIGNS, UNSPACED, ENDS_IN_STOP, STARTS_UPPER,
) = range(19)  # fmt: skip
BLOCK_COLUMNS = 19
"""Columns of a block (int32): its bytes in the text, innermost node, and counts. Words are runs without white space,
in scripts without spaces one a character (Han, kana) or one in four (Thai and its like); CHARS are code points;
ANCHORS are links that begin in it, IMAGES those between the block before and this one, SIGNS copyright signs
and bars."""

PARENT, TAG, MASK, FIRST, LAST, LEVEL, AROUND = range(7)
NODE_COLUMNS = 7
"""Columns of a node (int32): parent, tag, mask of its class words, its blocks (from FIRST to before LAST), depth, and
the elements around it, itself too, as bits of `tags.ANCESTORS`."""

(
    SIZE, NUM_BLOCKS, NUM_NODES, DEPTH, OPEN, PENDING, IN_WORD, IN_LINK, IN_BOLD, IN_PRE, ELEMENTS, DEEPEST, ATTRIBUTES,
    STEPS, OVERFLOW, SEEN_IMAGES, HEADLINE, STATUS, INDENT, LONG_ASIDES,
    UNENDED,
) = range(21)  # fmt: skip
TITLE_SPAN, LANGUAGE_SPAN, META_TITLE_SPAN, PUBLISHED_SPAN, LOCALE_SPAN, TIME_SPAN = range(21, 33, 2)
STATE_SIZE = 33
"""State of a scan (int64). A span is two places in the page, start and end, -1 where there is none. HEADLINE is the
block of the first h1 or -1, INDENT the white space before the first character of a line of `pre`, UNENDED the raw
elements, as bits, that nothing ends: browsers end these in other ways, so their content is text."""
FULL = 1
MAX_ASIDE, MAX_LONG_ASIDES = 1024, 64
"""Bytes of an element of `tags.ASIDE_NAMES`, and how many longer ones are met before they are no more looked for."""
MAX_INDENT = 256

NO_SPACE, PENDING_SPACE, PENDING_LINE = range(3)

DROPPED, BLANK, LETTER, UPPER, DIGIT, COMMA, STOP, SIGN, OTHER, AMPERSAND, WIDE, QUARTER, MARK = range(13)
"""Kinds of characters. WIDE ones are a word each, QUARTER ones a fourth of one; a MARK belongs to the one before."""

ATTRIBUTE_KINDS = {
    "class": 1, "id": 2, "role": 2, "itemprop": 2, "style": 2, "hidden": 3, "href": 4, "lang": 5, "xml:lang": 5,
    "name": 6, "property": 6, "http-equiv": 6, "content": 7, "datetime": 8, "aria-hidden": 9,
}  # fmt: skip
IS_CLASS, IS_WORDS, IS_HIDDEN, IS_HREF, IS_LANGUAGE, IS_META_NAME, IS_CONTENT, IS_DATETIME, IS_ARIA_HIDDEN = range(
    1, 10
)

META_KINDS = {
    "og:title": 1, "twitter:title": 1, "dc.title": 1,
    "article:published_time": 2, "datepublished": 2, "date": 2, "dc.date": 2, "dc.date.issued": 2, "dcterms.created": 2,
    "pubdate": 2, "publishdate": 2, "sailthru.date": 2, "parsely-pub-date": 2, "article.published": 2, "og:pubdate": 2,
    "dcterms.date": 2, "article:published": 2, "publication_date": 2,
    "citation_publication_date": 2, "cxenseparse:recs:publishtime": 2,
    "og:locale": 3, "content-language": 3, "dc.language": 3,
}  # fmt: skip
IS_META_TITLE, IS_PUBLISHED, IS_LOCALE = 1, 2, 3

(FOUND_MASK, FOUND_CLASS, FOUND_HREF, FOUND_META, FOUND_VALUE, FOUND_VALUE_END) = range(6)
FOUND_SIZE = 6
"""What the attributes of one tag say (int64)."""

_TABLE_BOUNDARIES = 1 << t.TABLE
_ROW_BOUNDARIES = _TABLE_BOUNDARIES | 1 << t.TR
_LIST_BOUNDARIES = sum(1 << tag for tag in (t.UL, t.OL, t.MENU, t.DIR, t.DL, t.TD, t.TH, t.TABLE, t.CAPTION))
"""What a row, a cell and an item never end beyond (bits of tags; those of nodes are below 64)."""

_PRIME = t.FNV_PRIME
_HIDDEN_MASK = 1 << HIDDEN_BIT
_SMALL_TABLE = 256


@dataclasses.dataclass(frozen=True, slots=True)
class Tables:
    """What the kernel looks up, once a process."""

    tag_keys: np.ndarray
    tag_values: np.ndarray
    attribute_keys: np.ndarray
    attribute_values: np.ndarray
    meta_keys: np.ndarray
    meta_values: np.ndarray
    entity_keys: np.ndarray
    entity_values: np.ndarray
    c1: np.ndarray
    kinds: np.ndarray
    classes: np.ndarray
    moves: np.ndarray
    masks: np.ndarray
    symbols: np.ndarray
    ancestors: np.ndarray


@cache
def load_tables() -> Tables:
    """Build the tables."""
    return Tables(
        *t.tag_table(),
        *t.hash_table(ATTRIBUTE_KINDS, _SMALL_TABLE),
        *t.hash_table(META_KINDS, _SMALL_TABLE),
        *entity_table(),
        c1_table(),
        _character_kinds(),
        code_point_classes(),
        *automaton(),
        symbol_table(),
        t.ancestor_bits(),
    )


def _character_kinds() -> np.ndarray:
    """Return the kind of every ASCII character: uint8, shape (128,)."""
    kinds = np.full(128, OTHER, np.uint8)
    kinds[:0x20] = kinds[0x7F] = DROPPED
    kinds[[0x09, 0x0A, 0x0C, 0x0D, 0x20]] = BLANK
    kinds[0x61:0x7B] = LETTER
    kinds[0x41:0x5B] = UPPER
    kinds[0x30:0x3A] = DIGIT
    for letter, kind in ((",", COMMA), (".", STOP), ("!", STOP), ("?", STOP), ("|", SIGN), ("&", AMPERSAND)):
        kinds[ord(letter)] = kind
    return kinds


@dataclasses.dataclass(slots=True)
class Scan:
    """Blocks and nodes of one page, as views of buffers that the next scan overwrites."""

    page: np.ndarray
    text: np.ndarray
    """uint8: the text of all blocks, one after another."""
    blocks: np.ndarray
    """int32, shape (blocks, BLOCK_COLUMNS)."""
    nodes: np.ndarray
    """int32, shape (nodes, NODE_COLUMNS); node 0 is the page."""
    paths: np.ndarray
    """int64, shape (nodes,): hash of the node's tag, its class without digits, and its parent's path."""
    state: np.ndarray

    def span(self, place: int) -> str | None:
        """Return the page's bytes in a span of the state as text, or None."""
        start, end = int(self.state[place]), int(self.state[place + 1])
        return None if start < 0 else self.page[start:end].tobytes().decode("utf-8", "replace")


class Scanner:
    """Scans pages one after another in buffers of its own (not for two threads at once)."""

    def __init__(self) -> None:
        self._tables = load_tables()
        self._text = np.empty(1 << 16, np.uint8)
        self._blocks = np.empty((1 << 10, BLOCK_COLUMNS), np.int32)
        self._nodes = np.empty((1 << 10, NODE_COLUMNS), np.int32)
        self._paths = np.empty(1 << 10, np.int64)
        self._stack = np.empty((MAX_DEPTH, 2), np.int64)
        self._open_counts = np.empty(len(t.NAMES), np.int64)
        self._state = np.empty(STATE_SIZE, np.int64)
        self._found = np.empty(FOUND_SIZE, np.int64)

    def scan(self, page: np.ndarray) -> Scan:
        """Scan `page` (uint8, valid UTF-8). The result is good until the next call."""
        rows = int(np.count_nonzero(page == 0x3C)) + 2
        if len(self._blocks) < rows:
            size = rows + rows // 4
            self._blocks = np.empty((size, BLOCK_COLUMNS), np.int32)
            self._nodes = np.empty((size, NODE_COLUMNS), np.int32)
            self._paths = np.empty(size, np.int64)
        text_size = len(page) + len(page) // 4 + 64
        if len(self._text) < text_size:
            self._text = np.empty(text_size + text_size // 4, np.uint8)
        tables = self._tables
        _scan(
            page, self._text, self._blocks, self._nodes, self._paths, self._stack, self._open_counts, self._state,
            self._found, tables.tag_keys, tables.tag_values, tables.attribute_keys, tables.attribute_values,
            tables.meta_keys, tables.meta_values, tables.entity_keys, tables.entity_values, tables.c1, tables.kinds,
            tables.classes, tables.moves, tables.masks, tables.symbols, tables.ancestors,
        )  # fmt: skip
        state = self._state
        assert state[STATUS] != FULL, "a buffer was too small for the page"
        return Scan(
            page,
            self._text[: state[SIZE]],
            self._blocks[: state[NUM_BLOCKS]],
            self._nodes[: state[NUM_NODES]],
            self._paths[: state[NUM_NODES]],
            state,
        )


@numba.njit(nogil=True, cache=True)
def _scan(
    data: np.ndarray, text: np.ndarray, blocks: np.ndarray, nodes: np.ndarray, paths: np.ndarray, stack: np.ndarray,
    open_counts: np.ndarray, state: np.ndarray, found: np.ndarray, tag_keys: np.ndarray, tag_values: np.ndarray,
    attribute_keys: np.ndarray, attribute_values: np.ndarray, meta_keys: np.ndarray, meta_values: np.ndarray,
    entity_keys: np.ndarray, entity_values: np.ndarray, c1: np.ndarray, kinds: np.ndarray, classes: np.ndarray,
    moves: np.ndarray, masks: np.ndarray, symbols: np.ndarray, ancestors: np.ndarray,
) -> None:  # fmt: skip
    """Scan a page into `text`, `blocks`, `nodes`, `paths` and `state`."""
    _begin(nodes, paths, stack, open_counts, state)
    at, end, is_literal = 0, len(data), 0
    if end >= 3 and data[0] == 0xEF and data[1] == 0xBB and data[2] == 0xBF:
        at = 3
    while at < end:
        stop = at + is_literal
        is_literal = 0
        while stop < end and data[stop] != 0x3C:  # <
            stop += 1
        if stop > at:
            _text(data, at, stop, text, blocks, stack, state, kinds, classes, entity_keys, entity_values, c1)
        if stop + 1 >= end:
            break
        at = stop + 1
        byte = data[at]
        is_end = byte == 0x2F and at + 1 < end and is_letter(data[at + 1])
        if is_end or is_letter(byte):
            key, at, has_hyphen = read_name(data, at + is_end, False)
            tag = _lookup(tag_keys, tag_values, key)
            tag = t.CUSTOM if tag == 0 and has_hyphen else tag
            at = _attributes(
                data, at, 0 if is_end else tag, found, state, attribute_keys, attribute_values, meta_keys, meta_values,
                moves, masks, symbols,
            )  # fmt: skip
            if is_end:
                _end_tag(key, tag, text, blocks, nodes, stack, open_counts, state)
            else:
                state[ELEMENTS] += 1
                at = _start_tag(
                    data, at, key, tag, text, found, blocks, nodes, paths, stack, open_counts, state, ancestors
                )
        elif byte == 0x21 or byte == 0x3F or byte == 0x2F:
            at = skip_comment(data, at + 1)
        else:
            at, is_literal = stop, 1
        if state[STATUS] == FULL:
            break
    _close_block(text, blocks, state)
    _pop_through(0, nodes, stack, open_counts, state)


@numba.njit(nogil=True, cache=True)
def _begin(nodes: np.ndarray, paths: np.ndarray, stack: np.ndarray, open_counts: np.ndarray, state: np.ndarray) -> None:
    """Set everything for a new page, whose node 0 is open."""
    state[:] = 0
    state[TITLE_SPAN:] = -1
    state[HEADLINE] = -1
    open_counts[:] = 0
    nodes[0, :] = 0
    nodes[0, PARENT] = -1
    paths[0] = 0
    stack[0, 0], stack[0, 1] = 0, 0
    state[NUM_NODES] = state[DEPTH] = state[DEEPEST] = 1


@numba.njit(nogil=True, cache=True, inline="always")
def _lookup(keys: np.ndarray, values: np.ndarray, key: int) -> int:
    """Return the value of a name's hash in a table of `tags.hash_table`, 0 where it is not there."""
    size = len(keys) - 1
    place = (key ^ (key >> 17)) & size
    while keys[place] != 0:
        if keys[place] == key:
            return values[place]
        place = (place + 1) & size
    return 0


@numba.njit(nogil=True, cache=True, forceinline=True)
def _text(
    data: np.ndarray, at: int, stop: int, text: np.ndarray, blocks: np.ndarray, stack: np.ndarray, state: np.ndarray,
    kinds: np.ndarray, classes: np.ndarray, entity_keys: np.ndarray, entity_values: np.ndarray, c1: np.ndarray,
) -> None:  # fmt: skip
    """Append the characters of `data[at:stop]` to the open block, or to a new one at the first that is no space."""
    is_open, size, pending = state[OPEN] != 0, state[SIZE], state[PENDING]
    in_word, in_pre, row = state[IN_WORD] != 0, state[IN_PRE] > 0, state[NUM_BLOCKS]
    indent = state[INDENT]
    chars, words, commas, stops, digits, uppers, signs, unspaced = 0, 0, 0, 0, 0, 0, 0, 0
    last, limit = 0, len(text) - 16
    while at < stop:
        code_point: int = data[at] & 0xFF
        second = 0
        if code_point < 0x80:
            kind: int = kinds[code_point]
            at += 1
            if kind == AMPERSAND:
                code_point, second, at = _reference(data, at, stop, entity_keys, entity_values, c1)
                kind = _kind(code_point, classes) if code_point >= 0x80 else kinds[code_point]
                kind = OTHER if kind == AMPERSAND else kind
        else:
            code_point, at = next_code_point(data, at, stop)
            kind = _kind(code_point, classes)
        if kind == DROPPED:
            continue
        if kind == BLANK:
            in_word = False
            if not is_open:
                indent = 0 if code_point == 0x0A else min(indent + 1, MAX_INDENT)
                continue
            if size > limit:
                state[STATUS] = FULL
                break
            if in_pre:
                if code_point == 0x0D:  # line ends are line feeds
                    if at < stop and data[at] == 0x0A:
                        continue
                    code_point = 0x0A
                text[size] = code_point if code_point < 0x80 else 0x20
                size += 1
            elif pending == NO_SPACE:
                pending = PENDING_SPACE
            continue
        if size > limit or row >= len(blocks):
            state[STATUS] = FULL
            break
        if not is_open:
            is_open = True
            blocks[row, :] = 0
            blocks[row, START], blocks[row, NODE] = size, stack[state[DEPTH] - 1, 0]
            blocks[row, IMAGES] = state[SEEN_IMAGES]
            blocks[row, STARTS_UPPER] = kind in (UPPER, WIDE)
            state[SEEN_IMAGES] = 0
            for _ in range(min(indent, limit - size) if in_pre else 0):
                text[size] = 0x20
                size += 1
        elif pending != NO_SPACE:
            text[size] = 0x20 if pending == PENDING_SPACE else 0x0A
            size += 1
        pending = NO_SPACE
        size = _put(code_point, text, size)
        if second:
            size = _put(second, text, size)
        chars += 1
        if kind == LETTER:
            if not in_word:
                words += 1
                in_word = True
            last = LETTER
            while at < stop and size < limit and data[at] < 0x80 and kinds[data[at]] == LETTER:
                text[size] = data[at]
                size += 1
                chars += 1
                at += 1
            continue
        if kind == MARK:  # part of the character before it
            continue
        last = kind if kind != OTHER or last != STOP else STOP  # a closing quotation mark or bracket
        if kind == WIDE:
            words += 1
            unspaced += 1
            in_word = False
        elif kind == QUARTER:
            words += chars & 3 == 0
            unspaced += 1
            in_word = False
        elif not in_word:
            words += 1
            in_word = True
        commas += kind == COMMA
        stops += kind == STOP
        digits += kind == DIGIT
        uppers += kind == UPPER
        signs += kind == SIGN
    if chars:
        blocks[row, WORDS] += words
        blocks[row, CHARS] += chars
        if state[IN_LINK]:
            blocks[row, LINK_WORDS] += words
            blocks[row, LINK_CHARS] += chars
        if state[IN_BOLD]:
            blocks[row, BOLD_CHARS] += chars
        blocks[row, COMMAS] += commas
        blocks[row, STOPS] += stops
        blocks[row, DIGITS] += digits
        blocks[row, UPPERS] += uppers
        blocks[row, SIGNS] += signs
        blocks[row, UNSPACED] += unspaced
        blocks[row, ENDS_IN_STOP] = last == STOP
    state[OPEN], state[SIZE], state[PENDING], state[IN_WORD] = is_open, size, pending, in_word
    state[INDENT] = indent


@numba.njit(nogil=True, cache=True)
def _kind(code_point: int, classes: np.ndarray) -> int:
    """Return the kind of a character beyond ASCII."""
    class_bits = classes[code_point]
    if class_bits & SPACE_CLASS:
        return BLANK
    if class_bits & UNSPACED_CLASS:
        return WIDE if code_point >= 0x2E80 else QUARTER
    if class_bits & MARK_CLASS:
        return MARK
    if class_bits & (LETTER_CLASS | NUMBER_CLASS):
        return LETTER
    if code_point < 0xA0 or code_point == 0xAD or code_point == 0xFEFF:
        return DROPPED
    if code_point in (0x3001, 0xFF0C, 0x060C, 0xFF64):
        return COMMA
    if code_point in (0x3002, 0xFF01, 0xFF1F, 0x0964, 0x061F, 0x06D4, 0x2026, 0xFF0E, 0x1362):
        return STOP
    return SIGN if code_point in (0xA9, 0xAE, 0xBB) else OTHER


@numba.njit(nogil=True, cache=True, inline="always")
def _put(code_point: int, text: np.ndarray, size: int) -> int:
    """Write a code point as UTF-8 and return the new size."""
    if code_point < 0x80:
        text[size] = code_point
        return size + 1
    if code_point < 0x800:
        text[size], text[size + 1] = 0xC0 | (code_point >> 6), 0x80 | (code_point & 0x3F)
        return size + 2
    if code_point < 0x10000:
        text[size], text[size + 1] = 0xE0 | (code_point >> 12), 0x80 | ((code_point >> 6) & 0x3F)
        text[size + 2] = 0x80 | (code_point & 0x3F)
        return size + 3
    text[size], text[size + 1] = 0xF0 | (code_point >> 18), 0x80 | ((code_point >> 12) & 0x3F)
    text[size + 2], text[size + 3] = 0x80 | ((code_point >> 6) & 0x3F), 0x80 | (code_point & 0x3F)
    return size + 4


@numba.njit(nogil=True, cache=True)
def _reference(
    data: np.ndarray, at: int, stop: int, keys: np.ndarray, values: np.ndarray, c1: np.ndarray
) -> tuple[int, int, int]:
    """Return the one or two code points of the reference behind the "&" before `at`, and the place behind it.

    What is none is the ampersand itself (HTML standard, section 13.2.5.72 ff.).
    """
    if at < stop and data[at] == 0x23:
        return _numeric_reference(data, at + 1, stop, at, c1)
    name, k, legacy, legacy_end = 0, at, 0, at
    while k < stop and k - at < MAX_NAME and (is_letter(data[k]) or 0x30 <= data[k] <= 0x39):
        name = (name ^ data[k]) * _PRIME
        k += 1
        if k - at <= MAX_LEGACY:
            value = _lookup(keys, values, name)
            if value & LEGACY:
                legacy, legacy_end = value, k
    if k < stop and data[k] == 0x3B:
        value = _lookup(keys, values, name)
        if value:
            return value & 0x1FFFFF, (value >> 21) & 0x1FFFFF, k + 1
    if legacy:
        return legacy & 0x1FFFFF, 0, legacy_end
    return 0x26, 0, at


@numba.njit(nogil=True, cache=True)
def _numeric_reference(data: np.ndarray, at: int, stop: int, behind: int, c1: np.ndarray) -> tuple[int, int, int]:
    """Return the code point of the numeric reference whose digits (or x) start at `at`; `behind` is that of its "&"."""
    is_hex = at < stop and data[at] | 0x20 == 0x78
    at += is_hex
    value, start = 0, at
    while at < stop:
        byte: int = data[at] & 0xFF
        if 0x30 <= byte <= 0x39:
            digit = byte - 0x30
        elif is_hex and 0x61 <= (byte | 0x20) <= 0x66:
            digit = (byte | 0x20) - 0x57
        else:
            break
        value = min(value * (16 if is_hex else 10) + digit, 0x110000)
        at += 1
    if at == start:
        return 0x26, 0, behind
    if at < stop and data[at] == 0x3B:
        at += 1
    if 0x80 <= value <= 0x9F:
        value = c1[value - 0x80]
    if value == 0 or value > 0x10FFFF or 0xD800 <= value <= 0xDFFF:
        value = 0xFFFD
    return value, 0, at


@numba.njit(nogil=True, cache=True, forceinline=True)
def _attributes(
    data: np.ndarray, at: int, tag: int, found: np.ndarray, state: np.ndarray, keys: np.ndarray, values: np.ndarray,
    meta_keys: np.ndarray, meta_values: np.ndarray, moves: np.ndarray, masks: np.ndarray, symbols: np.ndarray,
) -> int:  # fmt: skip
    """Read the attributes of a tag (`tag` 0: nothing of them matters) and return the place behind its ">"."""
    found[:] = 0
    is_node = 0 < tag < t.NUM_NODE_TAGS
    matters = is_node or tag in (t.A, t.META, t.HTML, t.TIME)
    end, attributes = len(data), 0
    while at < end and data[at] != 0x3E:  # >
        if is_space(data[at]) or data[at] == 0x2F:
            at += 1
            continue
        attributes += 1
        if data[at] == 0x3D:  # an attribute may begin with "="
            at += 1
        key, at, _ = read_name(data, at, True)
        start, stop, at = read_value(data, at)
        if matters:
            kind = _lookup(keys, values, key)
            if is_node:
                _node_attribute(data, start, stop, kind, found, moves, masks, symbols)
            elif kind > 0:
                _other_attribute(data, start, stop, kind, tag, found, state, meta_keys, meta_values)
    state[ATTRIBUTES] = max(state[ATTRIBUTES], attributes)
    return at + 1


@numba.njit(nogil=True, cache=True, forceinline=True)
def _node_attribute(
    data: np.ndarray, start: int, stop: int, kind: int, found: np.ndarray, moves: np.ndarray, masks: np.ndarray,
    symbols: np.ndarray,
) -> None:  # fmt: skip
    """Note what an attribute of a node says: class words, hidden."""
    if kind in (IS_CLASS, IS_WORDS):
        found[FOUND_MASK] |= _class_words(data, start, stop, moves, masks, symbols)
        if kind == IS_CLASS:
            found[FOUND_CLASS] = _class_hash(data, start, stop)
    elif kind == IS_HIDDEN or (kind == IS_ARIA_HIDDEN and stop > start and data[start] | 0x20 == 0x74):
        found[FOUND_MASK] |= _HIDDEN_MASK


@numba.njit(nogil=True, cache=True)
def _class_words(
    data: np.ndarray, start: int, stop: int, moves: np.ndarray, masks: np.ndarray, symbols: np.ndarray
) -> int:
    """Return the groups whose words are in a value."""
    state: int = moves[27]
    mask, before = masks[state], SYMBOLS - 1
    for at in range(start, stop):
        symbol = symbols[data[at]]
        if symbol == SYMBOLS - 1 and before == SYMBOLS - 1:  # a run of separators is one
            continue
        before = symbol
        state = moves[state * SYMBOLS + symbol]
        mask |= masks[state]
    return mask if before == SYMBOLS - 1 else mask | masks[moves[state * SYMBOLS + 27]]


@numba.njit(nogil=True, cache=True)
def _class_hash(data: np.ndarray, start: int, stop: int) -> int:
    """Return the hash of a class without its digits, which often number what is alike."""
    value = 1
    for at in range(start, stop):
        if not 0x30 <= data[at] <= 0x39:
            value = (value ^ data[at]) * _PRIME
    return value


@numba.njit(nogil=True, cache=True)
def _other_attribute(
    data: np.ndarray, start: int, stop: int, kind: int, tag: int, found: np.ndarray, state: np.ndarray,
    meta_keys: np.ndarray, meta_values: np.ndarray,
) -> None:  # fmt: skip
    """Note what an attribute of a, html, meta or time says."""
    if kind == IS_HREF:
        found[FOUND_HREF] = 1
    elif kind == IS_LANGUAGE and tag == t.HTML:
        _keep_span(state, LANGUAGE_SPAN, start, stop)
    elif kind == IS_DATETIME and tag == t.TIME:
        _keep_span(state, TIME_SPAN, start, stop)
    elif kind == IS_CONTENT:
        found[FOUND_VALUE], found[FOUND_VALUE_END] = start, stop
    elif kind in (IS_META_NAME, IS_WORDS):
        name = 0
        for at in range(start, stop):
            byte = data[at]
            name = (name ^ (byte | (0x20 if 0x41 <= byte <= 0x5A else 0))) * _PRIME
        meta = _lookup(meta_keys, meta_values, name)
        found[FOUND_META] = meta if meta else found[FOUND_META]


@numba.njit(nogil=True, cache=True)
def _keep_span(state: np.ndarray, place: int, start: int, stop: int) -> None:
    """Keep a span unless there is one already or it is empty."""
    if state[place] < 0 and start < stop:
        state[place], state[place + 1] = start, stop


@numba.njit(nogil=True, cache=True, forceinline=True)
def _start_tag(
    data: np.ndarray, at: int, key: int, tag: int, text: np.ndarray, found: np.ndarray, blocks: np.ndarray,
    nodes: np.ndarray, paths: np.ndarray, stack: np.ndarray, open_counts: np.ndarray, state: np.ndarray,
    ancestors: np.ndarray,
) -> int:  # fmt: skip
    """Handle a start tag whose ">" ends before `at`; return where the scan goes on (behind raw text)."""
    if 0 < tag < t.NUM_NODE_TAGS:
        _close_block(text, blocks, state)
        _imply_ends(tag, nodes, stack, open_counts, state)
        _open_node(key, tag, found, nodes, paths, stack, open_counts, state, ancestors)
    elif tag == t.SVG and data[at - 2] == 0x2F:
        return at
    elif t.FIRST_RAW <= tag < t.END_RAW:
        if state[UNENDED] >> (tag - t.FIRST_RAW) & 1:
            return at
        stop = skip_raw_text(data, at, key)
        if stop == len(data) and tag in (t.SVG, t.SELECT, t.NOSCRIPT, t.TEMPLATE):
            state[UNENDED] |= 1 << (tag - t.FIRST_RAW)  # nor will there be an end tag later on
            return at
        if tag == t.TITLE:
            _keep_span(state, TITLE_SPAN, at, stop)
        return stop
    elif t.END_RAW <= tag < t.END_ASIDE:
        return _skip_aside(data, at, key, state)
    elif tag == t.A:
        state[IN_LINK] = found[FOUND_HREF]
        if found[FOUND_HREF] and state[OPEN]:
            blocks[state[NUM_BLOCKS], ANCHORS] += 1
    elif tag == t.B or tag == t.STRONG:
        state[IN_BOLD] = 1
    elif tag == t.IMG:
        state[SEEN_IMAGES] += 1
    else:
        return _other_start(data, at, tag, text, found, blocks, nodes, stack, open_counts, state)
    return at


@numba.njit(nogil=True, cache=True)
def _skip_aside(data: np.ndarray, at: int, key: int, state: np.ndarray) -> int:
    """Return the place of an aside's end tag, or `at` where it is too far away."""
    if state[LONG_ASIDES] >= MAX_LONG_ASIDES:
        return at
    end = min(len(data), at + MAX_ASIDE)
    stop = skip_raw_text(data[:end], at, key)
    if stop < end:
        return stop
    state[LONG_ASIDES] += 1
    return at


@numba.njit(nogil=True, cache=True)
def _other_start(
    data: np.ndarray, at: int, tag: int, text: np.ndarray, found: np.ndarray, blocks: np.ndarray, nodes: np.ndarray,
    stack: np.ndarray, open_counts: np.ndarray, state: np.ndarray,
) -> int:  # fmt: skip
    """Handle the start tags that are rare or do little."""
    if tag == t.BR:
        _line_break(text, blocks, state)
    elif tag == t.HR or tag == t.BODY:
        _close_block(text, blocks, state)
    elif tag in (t.TBODY, t.THEAD, t.TFOOT):
        _close_block(text, blocks, state)
        _close_innermost(t.TR, t.TR, _TABLE_BOUNDARIES, nodes, stack, open_counts, state)
    elif tag == t.META and found[FOUND_VALUE_END] > found[FOUND_VALUE]:
        start, stop = found[FOUND_VALUE], found[FOUND_VALUE_END]
        if found[FOUND_META] == IS_META_TITLE:
            _keep_span(state, META_TITLE_SPAN, start, stop)
        elif found[FOUND_META] == IS_PUBLISHED:
            _keep_span(state, PUBLISHED_SPAN, start, stop)
        elif found[FOUND_META] == IS_LOCALE:
            _keep_span(state, LOCALE_SPAN, start, stop)
    elif tag == t.PLAINTEXT:
        return len(data)
    return at


@numba.njit(nogil=True, cache=True)
def _line_break(text: np.ndarray, blocks: np.ndarray, state: np.ndarray) -> None:
    """Handle `br`: a line within a block, the second in a row ends it."""
    state[INDENT] = 0
    if not state[OPEN]:
        return
    if state[IN_PRE]:
        text[state[SIZE]] = 0x0A
        state[SIZE] += 1
    elif state[PENDING] == PENDING_LINE:
        _close_block(text, blocks, state)
        return
    else:
        state[PENDING] = PENDING_LINE
    blocks[state[NUM_BLOCKS], BREAKS] += 1
    state[IN_WORD] = 0


@numba.njit(nogil=True, cache=True, forceinline=True)
def _close_block(text: np.ndarray, blocks: np.ndarray, state: np.ndarray) -> None:
    """End the open block, if there is one, without the white space at its end."""
    state[PENDING] = NO_SPACE
    state[IN_WORD] = 0
    state[INDENT] = 0
    if not state[OPEN]:
        return
    row, size = state[NUM_BLOCKS], state[SIZE]
    while size > blocks[row, START] and text[size - 1] <= 0x20:
        size -= 1
    blocks[row, END] = size
    state[SIZE] = size
    state[OPEN] = 0
    state[NUM_BLOCKS] += 1


@numba.njit(nogil=True, cache=True, forceinline=True)
def _open_node(
    key: int, tag: int, found: np.ndarray, nodes: np.ndarray, paths: np.ndarray, stack: np.ndarray,
    open_counts: np.ndarray, state: np.ndarray, ancestors: np.ndarray,
) -> None:  # fmt: skip
    """Add a node below the innermost open one."""
    depth, node = state[DEPTH], state[NUM_NODES]
    if depth >= MAX_DEPTH:
        state[OVERFLOW] += 1
        state[DEEPEST] = max(state[DEEPEST], depth + state[OVERFLOW])
        return
    if node >= len(nodes):
        state[STATUS] = FULL
        return
    parent = stack[depth - 1, 0]
    nodes[node, PARENT], nodes[node, TAG], nodes[node, MASK] = parent, tag, found[FOUND_MASK]
    nodes[node, FIRST] = nodes[node, LAST] = state[NUM_BLOCKS]
    nodes[node, LEVEL], nodes[node, AROUND] = depth, nodes[parent, AROUND] | ancestors[tag]
    paths[node] = ((paths[parent] * _PRIME ^ tag) * _PRIME ^ found[FOUND_CLASS]) * _PRIME
    stack[depth, 0], stack[depth, 1] = node, key
    open_counts[tag] += 1
    state[IN_PRE] += tag == t.PRE or tag == t.LISTING
    if tag == t.H1 and state[HEADLINE] < 0:
        state[HEADLINE] = state[NUM_BLOCKS]
    state[DEPTH] = depth + 1
    state[DEEPEST] = max(state[DEEPEST], depth + 1)
    state[NUM_NODES] = node + 1


@numba.njit(nogil=True, cache=True)
def _pop_through(place: int, nodes: np.ndarray, stack: np.ndarray, open_counts: np.ndarray, state: np.ndarray) -> None:
    """End the nodes on the stack from the innermost down to the one at `place`."""
    for k in range(state[DEPTH] - 1, place - 1, -1):
        node = stack[k, 0]
        tag = nodes[node, TAG]
        nodes[node, LAST] = state[NUM_BLOCKS]
        open_counts[tag] -= 1
        state[IN_PRE] -= tag == t.PRE or tag == t.LISTING
    state[DEPTH] = min(state[DEPTH], place)
    state[OVERFLOW] = 0


@numba.njit(nogil=True, cache=True)
def _imply_ends(tag: int, nodes: np.ndarray, stack: np.ndarray, open_counts: np.ndarray, state: np.ndarray) -> None:
    """End the elements that a start tag ends without an end tag of their own."""
    if tag == t.TD or tag == t.TH:
        _close_innermost(t.TD, t.TH, _ROW_BOUNDARIES, nodes, stack, open_counts, state)
        return
    if tag == t.TR:
        _close_innermost(t.TR, t.TR, _TABLE_BOUNDARIES, nodes, stack, open_counts, state)
        return
    if tag == t.LI:
        _close_innermost(t.LI, t.LI, _LIST_BOUNDARIES, nodes, stack, open_counts, state)
    elif tag == t.DT or tag == t.DD:
        _close_innermost(t.DT, t.DD, _LIST_BOUNDARIES, nodes, stack, open_counts, state)
    if open_counts[t.P] and tag != t.BUTTON and tag != t.CUSTOM:
        place = _innermost(t.P, 0, nodes, stack, state)
        if place >= 0:
            _pop_through(place, nodes, stack, open_counts, state)
    top = nodes[stack[state[DEPTH] - 1, 0], TAG]
    if t.H1 <= tag <= t.H6 and t.H1 <= top <= t.H6:
        _pop_through(state[DEPTH] - 1, nodes, stack, open_counts, state)


@numba.njit(nogil=True, cache=True)
def _close_innermost(
    first: int, second: int, boundaries: int, nodes: np.ndarray, stack: np.ndarray, open_counts: np.ndarray,
    state: np.ndarray,
) -> None:  # fmt: skip
    """End the innermost open element of either tag, unless one of `boundaries` (bits of tags) begins inside of it."""
    if open_counts[first] + open_counts[second] == 0:
        return
    for place in range(state[DEPTH] - 1, 0, -1):
        state[STEPS] += 1
        tag = nodes[stack[place, 0], TAG]
        if tag in (first, second):
            _pop_through(place, nodes, stack, open_counts, state)
            return
        if (boundaries >> tag) & 1:
            return


@numba.njit(nogil=True, cache=True, inline="always")
def _is_cell(tag: int) -> bool:
    return tag == t.TD or tag == t.TH or tag == t.TABLE or tag == t.CAPTION


@numba.njit(nogil=True, cache=True)
def _innermost(tag: int, key: int, nodes: np.ndarray, stack: np.ndarray, state: np.ndarray) -> int:
    """Return the place on the stack of the innermost open `tag` that no table cell around the scan hides, or -1.

    Parts of a table are hidden by a table only; custom elements need the same name (`key`), items the same list.
    """
    is_table_part = tag == t.TR or _is_cell(tag)
    for place in range(state[DEPTH] - 1, 0, -1):
        state[STEPS] += 1
        other = nodes[stack[place, 0], TAG]
        if other == tag and (tag != t.CUSTOM or stack[place, 1] == key):
            return place
        if other == t.TABLE or (not is_table_part and _is_cell(other)) or (tag == t.P and other == t.BUTTON):
            return -1
        if tag == t.LI and other in (t.UL, t.OL, t.MENU, t.DIR):
            return -1
    return -1


@numba.njit(nogil=True, cache=True, forceinline=True)
def _end_tag(
    key: int, tag: int, text: np.ndarray, blocks: np.ndarray, nodes: np.ndarray, stack: np.ndarray,
    open_counts: np.ndarray, state: np.ndarray,
) -> None:  # fmt: skip
    """Handle an end tag."""
    if tag == t.A:
        state[IN_LINK] = 0
    elif tag == t.B or tag == t.STRONG:
        state[IN_BOLD] = 0
    elif tag == t.BR:
        _line_break(text, blocks, state)
    elif 0 < tag < t.NUM_NODE_TAGS:
        _close_block(text, blocks, state)
        if state[OVERFLOW]:
            state[OVERFLOW] -= 1
        elif t.H1 <= tag <= t.H6 and open_counts[tag] == 0:
            place = state[DEPTH] - 1
            if t.H1 <= nodes[stack[place, 0], TAG] <= t.H6:  # any end tag of a heading ends the open one
                _pop_through(place, nodes, stack, open_counts, state)
        elif open_counts[tag]:
            place = _innermost(tag, key, nodes, stack, state)
            if place >= 0:
                _pop_through(place, nodes, stack, open_counts, state)
