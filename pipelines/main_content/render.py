"""Chosen blocks as text.

A block is a paragraph, with an empty line between two; items of a list, rows of a table and lines of code are lines.
Items begin with "- ", indented by their depth, and their further lines stand below; cells of a row are joined by " | ";
quotations begin with "> "; code keeps its white space. What is laid out as a table (a cell of several blocks) or as a
list (an item of many) is no table and no list, but paragraphs. No other markup is left.
"""

from __future__ import annotations

import numba
import numpy as np

from pipelines.main_content import scan as s
from pipelines.main_content import tags as t

MAX_NESTING = 8
"""Lists within lists, and quotations within quotations, are marked up to here."""
MAX_ITEM_BLOCKS = 4
"""An item with more blocks is a post or an entry of its own rather than an item."""

_PREFIX = 4 * MAX_NESTING + 8
"""Bytes that may stand before a line."""

ROW, CELL, ITEM, LIST, DEPTH, QUOTES, CODE = range(7)
"""What is around a block: innermost row, cell and item, outermost list, depth of the lists and quotations, code."""


def render(scan: s.Scan, chosen: np.ndarray) -> str:
    """Return the chosen blocks (bool, shape (blocks,)) as text."""
    lines = int(np.count_nonzero(chosen)) + int(np.count_nonzero(scan.text == 0x0A))
    out = np.empty(len(scan.text) + 64 + _PREFIX * lines, np.uint8)
    size = _render(scan.text, scan.blocks, scan.nodes, chosen, out)
    return out[:size].tobytes().decode("utf-8")


@numba.njit(nogil=True, cache=True)
def _render(text: np.ndarray, blocks: np.ndarray, nodes: np.ndarray, chosen: np.ndarray, out: np.ndarray) -> int:
    """Write the chosen blocks into `out` and return their size."""
    is_layout = _layout_nodes(blocks, nodes, chosen)
    size = 0
    around, before = np.zeros(7, np.int64), np.zeros(7, np.int64)
    for row in range(len(blocks)):
        if not chosen[row]:
            continue
        _look_around(nodes, blocks[row, s.NODE], is_layout, around)
        start, end = blocks[row, s.START], blocks[row, s.END]
        if size and around[ROW] > 0 and around[ROW] == before[ROW]:
            out[size], out[size + 1], out[size + 2] = 0x20, 0x7C, 0x20  # " | "
            size = _write(text, start, end, around, out, size + 3)
            continue
        if size:
            out[size] = 0x0A
            size += 1
            if not _is_tight(nodes, before, around):
                out[size] = 0x0A
                size += 1
        size = _prefix(around, around[ITEM] != before[ITEM], out, size)
        size = _write(text, start, end, around, out, size)
        before[:] = around
    return size


@numba.njit(nogil=True, cache=True)
def _is_tight(nodes: np.ndarray, before: np.ndarray, around: np.ndarray) -> bool:
    """Whether no empty line stands between two blocks: rows of one table, items of one list, lines of one code."""
    if around[CODE] > 0 and around[CODE] == before[CODE]:
        return True
    if around[ROW] > 0 and before[ROW] > 0 and nodes[around[ROW], s.PARENT] == nodes[before[ROW], s.PARENT]:
        return True
    return around[LIST] > 0 and around[LIST] == before[LIST]


@numba.njit(nogil=True, cache=True)
def _layout_nodes(blocks: np.ndarray, nodes: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return which rows have a cell of several chosen blocks, and which items have many (bool, shape (nodes,))."""
    is_layout = np.zeros(len(nodes), np.bool_)
    counts = np.zeros(len(nodes), np.int32)
    around = np.zeros(7, np.int64)
    for row in range(len(blocks)):
        if not chosen[row]:
            continue
        _look_around(nodes, blocks[row, s.NODE], is_layout, around)
        if around[CELL] > 0:
            counts[around[CELL]] += 1
            if counts[around[CELL]] > 1:
                is_layout[around[ROW]] = True
        if around[ITEM] > 0:
            counts[around[ITEM]] += 1
            if counts[around[ITEM]] > MAX_ITEM_BLOCKS:
                is_layout[around[ITEM]] = True
    return is_layout


@numba.njit(nogil=True, cache=True)
def _look_around(nodes: np.ndarray, node: int, is_layout: np.ndarray, around: np.ndarray) -> None:
    """Set what is around a node; rows and items that are for layout are not there."""
    around[:] = 0
    cell, row, item = 0, 0, 0
    while node > 0:
        tag = nodes[node, s.TAG]
        if cell == 0 and (tag == t.TD or tag == t.TH):
            cell = node
        elif tag == t.TR and row == 0:
            row = node
            if not is_layout[node]:
                around[ROW], around[CELL] = node, cell
        elif tag == t.LI and item == 0:
            item = node
            if not is_layout[node]:
                around[ITEM] = node
        elif tag in (t.UL, t.OL, t.MENU, t.DIR):
            if item > 0 and around[ITEM] == 0:
                item = 0  # a list for layout is none
            elif item > 0:
                around[LIST] = node
                around[DEPTH] += 1
        elif tag == t.BLOCKQUOTE:
            around[QUOTES] += 1
        elif tag == t.PRE or tag == t.LISTING:
            around[CODE] = node
        node = nodes[node, s.PARENT]
    if around[CODE] > 0:
        around[ROW] = 0  # code has lines of its own, in a cell too
    if around[ITEM] > 0 and around[LIST] == 0:
        around[LIST] = nodes[around[ITEM], s.PARENT]
        around[DEPTH] = 1
    around[DEPTH] = min(around[DEPTH], MAX_NESTING)
    around[QUOTES] = min(around[QUOTES], MAX_NESTING)


@numba.njit(nogil=True, cache=True)
def _prefix(around: np.ndarray, is_first: bool, out: np.ndarray, size: int) -> int:
    """Write what stands before a line: quotation marks, the item's indent, and its bullet on its first line."""
    for _ in range(around[QUOTES]):
        out[size], out[size + 1] = 0x3E, 0x20
        size += 2
    if around[ITEM] > 0:
        for _ in range(around[DEPTH] - 1):
            out[size], out[size + 1] = 0x20, 0x20
            size += 2
        out[size], out[size + 1] = 0x2D if is_first else 0x20, 0x20
        size += 2
    return size


@numba.njit(nogil=True, cache=True)
def _write(text: np.ndarray, start: int, end: int, around: np.ndarray, out: np.ndarray, size: int) -> int:
    """Write a block's text: its lines are marked as the first is; within a row they are joined."""
    for at in range(start, end):
        if text[at] != 0x0A:
            out[size] = text[at]
            size += 1
        elif around[ROW] > 0:
            out[size] = 0x20
            size += 1
        else:
            out[size] = 0x0A
            size = _prefix(around, False, out, size + 1)
    return size
