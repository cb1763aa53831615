"""Which blocks are the main content: the choice with the best expected F1, without what the page says twice.

`balanced` takes the blocks whose probability is at least half of the page's best expected F1: the rule that maximizes
the expectation (Lewis 1995), with no threshold to tune and never an empty choice where any block could be content.
`precision` also asks that a block lies in the container with the best expected F1 or is very likely content (0.8);
`recall` takes whatever has a third of the probability that `balanced` asks for.
"""

from __future__ import annotations

from typing import Literal

import numba
import numpy as np

from pipelines.main_content import scan as s
from pipelines.main_content import tags as t
from pipelines.main_content.class_words import GROUPS
from pipelines.main_content.features import (
    MAX_PROBES,
    P_ONE,
    best_by_expected_f1,
    class_masks,
    expected_f1,
    running_sums,
)
from pipelines.main_content.tags import FNV_PRIME

Mode = Literal["balanced", "precision", "recall"]
MODES: tuple[Mode, ...] = ("balanced", "precision", "recall")

SURE = P_ONE * 8 // 10
RECALL_DIVISOR = 3

COMMENT_MASK = 1 << list(GROUPS).index("comment")
FORM_BIT = 1 << t.ANCESTORS.index("form")
COMMENT_WORDS = 3
"""Words from which on a block among comments is taken for one, and not for a button or a name."""

ROW_WORDS = 60
"""Longer rows are layout, or text of its own in each cell."""

SHINGLE = 4
DUPLICATE_WORDS = 8
"""Blocks with fewer words are never dropped as duplicates."""
DUPLICATE_PERCENT = 80
LONG_RUN = 30
"""Words of consecutive duplicate blocks from which on they are a second copy rather than a refrain."""


@numba.njit(nogil=True, cache=True)
def choose(blocks: np.ndarray, nodes: np.ndarray, p: np.ndarray, mode: int) -> np.ndarray:
    """Return which blocks are main content (bool); `p` is int64 in 1/P_ONE, `mode` a place in `MODES`."""
    num_blocks = len(blocks)
    words, mass = np.zeros(num_blocks + 1, np.int64), np.zeros(num_blocks + 1, np.int64)
    for row in range(num_blocks):
        words[row + 1] = words[row] + blocks[row, s.WORDS]
        mass[row + 1] = mass[row] + blocks[row, s.WORDS] * p[row]
    f1, _ = expected_f1(p, words)
    least = f1 / 2 * P_ONE
    if mode == 2:
        least /= RECALL_DIVISOR
    best, _ = best_by_expected_f1(nodes, words, mass)
    chosen = np.zeros(num_blocks, np.bool_)
    for row in range(num_blocks):
        inside = nodes[best, s.FIRST] <= row < nodes[best, s.LAST]
        chosen[row] = p[row] > 0 and p[row] >= least and (mode != 1 or inside or p[row] > SURE)
    return chosen


@numba.njit(nogil=True, cache=True)
def complete_rows(blocks: np.ndarray, nodes: np.ndarray, chosen: np.ndarray) -> None:
    """Choose all of a short table row of which at least half of the cells are chosen, so that no label lacks its value.

    A short row has up to `ROW_WORDS` words and no cell with two blocks.
    """
    row_of = np.zeros(len(nodes), np.int32)
    for node in range(1, len(nodes)):
        row_of[node] = node if nodes[node, s.TAG] == t.TR else row_of[nodes[node, s.PARENT]]
    first = 0
    while first < len(blocks):
        row = row_of[blocks[first, s.NODE]]
        last, words, taken, is_short = first, 0, 0, True
        while last < len(blocks) and row_of[blocks[last, s.NODE]] == row:
            is_short = is_short and (last == first or blocks[last, s.NODE] != blocks[last - 1, s.NODE])
            words += blocks[last, s.WORDS]
            taken += chosen[last]
            last += 1
        if row > 0 and is_short and words <= ROW_WORDS and 2 * taken >= last - first:
            chosen[first:last] = True
        first = last


@numba.njit(nogil=True, cache=True)
def add_comments(blocks: np.ndarray, nodes: np.ndarray, chosen: np.ndarray) -> None:
    """Choose the texts of readers' comments too: blocks in a part of the page whose class words say so."""
    small, _ = class_masks(nodes, running_sums(blocks))
    for row in range(len(blocks)):
        is_text = blocks[row, s.WORDS] >= COMMENT_WORDS and 2 * blocks[row, s.LINK_CHARS] < blocks[row, s.CHARS]
        in_form = nodes[blocks[row, s.NODE], s.AROUND] & FORM_BIT
        if is_text and not in_form and small[blocks[row, s.NODE]] & COMMENT_MASK:
            chosen[row] = True


@numba.njit(nogil=True, cache=True)
def drop_duplicates(text: np.ndarray, blocks: np.ndarray, nodes: np.ndarray, chosen: np.ndarray) -> None:
    """Take out chosen blocks most of whose shingles of words were already in chosen blocks of other containers.

    Only in runs of `LONG_RUN` words and more: a page that holds its article twice, not a text that repeats itself,
    whose equal paragraphs are beside each other.
    """
    num_shingles = 0
    for row in range(len(blocks)):
        if chosen[row]:
            num_shingles += blocks[row, s.END] - blocks[row, s.START]
    size = 64
    while size < num_shingles:
        size *= 2
    seen, owners = np.zeros(size, np.int64), np.zeros(size, np.int32)
    hashes = np.zeros(SHINGLE, np.int64)
    run_start, run_words = -1, 0
    for row in range(len(blocks)):
        if not chosen[row]:
            continue
        owner = nodes[blocks[row, s.NODE], s.PARENT]
        is_copy = _is_copy(text, blocks[row, s.START], blocks[row, s.END], owner, seen, owners, hashes)
        if is_copy:
            run_start = row if run_start < 0 else run_start
            run_words += blocks[row, s.WORDS]
            continue
        if run_words >= LONG_RUN:
            chosen[run_start:row] = False
        run_start, run_words = -1, 0
    if run_words >= LONG_RUN:
        chosen[run_start:] = False


@numba.njit(nogil=True, cache=True)
def _is_copy(
    text: np.ndarray, start: int, end: int, owner: int, seen: np.ndarray, owners: np.ndarray, hashes: np.ndarray
) -> bool:
    """Whether most shingles of a text are in `seen` by another owner; they are added. Short texts are no copies."""
    words, shingles, hits, at = 0, 0, 0, start
    while at < end:
        value = 0
        if _is_wide(text[at]):  # a character is a word
            for k in range(at, min(at + 3, end)):
                value = ((value if value else 1) ^ text[k]) * FNV_PRIME
            at += 3
        else:
            while at < end and _in_word(text[at]):
                value = ((value if value else 1) ^ text[at]) * FNV_PRIME
                at += 1
            at += 0 if at < end and _is_wide(text[at]) else 1
        if value == 0:
            continue
        for k in range(SHINGLE - 1):
            hashes[k] = hashes[k + 1]
        hashes[SHINGLE - 1] = value
        words += 1
        if words >= SHINGLE:
            shingles += 1
            hits += _add(owner, seen, owners, hashes)
    return words >= DUPLICATE_WORDS and hits * 100 >= shingles * DUPLICATE_PERCENT


@numba.njit(nogil=True, cache=True, inline="always")
def _is_wide(byte: int) -> bool:
    """Whether a byte begins a character of U+3000 to U+9FFF: Han, kana."""
    return 0xE3 <= byte <= 0xE9


@numba.njit(nogil=True, cache=True, inline="always")
def _in_word(byte: int) -> bool:
    return 0x80 <= byte < 0xE3 or byte > 0xE9 or 0x61 <= (byte | 0x20) <= 0x7A or 0x30 <= byte <= 0x39


@numba.njit(nogil=True, cache=True)
def _add(owner: int, seen: np.ndarray, owners: np.ndarray, hashes: np.ndarray) -> bool:
    """Add the shingle of these words unless it is there; return whether it is, by another owner."""
    value = 1
    for k in range(SHINGLE):
        value = (value ^ hashes[k]) * FNV_PRIME
        value ^= value >> 32
    value = value if value else 1
    place = value & (len(seen) - 1)
    for _ in range(MAX_PROBES):
        if seen[place] == value:
            return owners[place] != owner
        if seen[place] == 0:
            seen[place], owners[place] = value, owner
            return False
        place = (place + 1) & (len(seen) - 1)
    return False
