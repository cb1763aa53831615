"""Which blocks of a page are in its gold text: both as words, aligned in order.

The alignment is a longest common subsequence in which a match right behind a match counts half as much again, so that
it prefers whole runs to words picked from all over the page. A block is content when at least half of its words are
matched.
"""

from __future__ import annotations

import re

import numba
import numpy as np

MATCH, RUN = 2, 3
"""What a matched word counts, alone and right behind another."""
MAX_CELLS = 400_000_000
"""Of the alignment's table (bytes); longer pages are cut at the end, the gold first."""

_WORD = re.compile(r"\w+")


def matched_words(blocks: list[str], gold: str) -> tuple[np.ndarray, np.ndarray]:
    """Return for each block how many of its words the alignment matches, and how many it has (int64 each)."""
    words = [_WORD.findall(block.lower()) for block in blocks]
    lengths = np.array([len(block) for block in words], np.int64)
    gold_words = _WORD.findall(gold.lower())
    numbers = {word: number for number, word in enumerate(dict.fromkeys(gold_words))}
    flat = [numbers.get(word, -1) for block in words for word in block]
    page = np.array(flat, np.int64)
    places = np.flatnonzero(page >= 0)
    ids = np.array([numbers[word] for word in gold_words], np.int64)
    if len(places) * len(ids) > MAX_CELLS:
        ids = ids[: max(MAX_CELLS // max(len(places), 1), 1)]
    matched = np.zeros(len(page) + 1, np.int64)
    if len(places) and len(ids):
        _align(page[places], places, ids, matched)
    ends = np.cumsum(lengths)
    sums = np.concatenate([[0], np.cumsum(matched)])
    return sums[ends] - sums[ends - lengths], lengths


@numba.njit(nogil=True, cache=True)
def _align(page: np.ndarray, places: np.ndarray, gold: np.ndarray, matched: np.ndarray) -> None:
    """Set `matched` at the places of the page's words that the best alignment matches."""
    rows, columns = len(page), len(gold)
    step = np.zeros((rows + 1, columns + 1), np.uint8)  # bits: 1 = D from above, 2 = D from the left, 4 = M runs on
    best_above, match_above = np.zeros(columns + 1, np.int32), np.full(columns + 1, -1, np.int32)
    best, match = np.zeros(columns + 1, np.int32), np.full(columns + 1, -1, np.int32)
    for i in range(1, rows + 1):
        runs_on = i > 1 and places[i - 1] == places[i - 2] + 1
        best[0], match[0] = 0, -1
        for j in range(1, columns + 1):
            bits = 0
            match[j] = -1
            if page[i - 1] == gold[j - 1]:
                match[j] = best_above[j - 1] + MATCH
                if runs_on and match_above[j - 1] >= 0 and match_above[j - 1] + RUN >= match[j]:
                    match[j] = match_above[j - 1] + RUN
                    bits = 4
            if best_above[j] >= best[j - 1]:
                best[j] = best_above[j]
                bits |= 1
            else:
                best[j] = best[j - 1]
                bits |= 2
            if match[j] > best[j]:
                best[j] = match[j]
                bits &= 4
            step[i, j] = bits
        best_above, best = best, best_above
        match_above, match = match, match_above
    i, j, in_run = rows, columns, False
    while i > 0 and j > 0:
        bits = step[i, j]
        if in_run or bits & 3 == 0:
            matched[places[i - 1]] = 1
            in_run = bits & 4 != 0
            i -= 1
            j -= 1
        elif bits & 1:
            i -= 1
        else:
            j -= 1
