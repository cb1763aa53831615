"""The search: where texts hold items. One scan of the words; a text with enough seeds of an item is compared with it.

**The comparison.** The words of the item and those of the text around the seeds are aligned: of all ways to leave out
words on both sides so that what is left is equal, in order, the one whose words weigh most (a longest common
subsequence, by weight). Both sides may be shifted against each other by a few words only, so an item whose words are
scattered over a page is not found. The score is the weight of what is left over that of the item.

Cost: a scan and a look at a filter for each word of a clean text. A text can be made to cost more, but linearly: a word
ends one n-gram, of at most `MAX_POSTINGS` seeds, and `min_hits` of them buy one comparison of at most
`3 * MAX_SLACK + 1` steps for each of the item's words. Seeds are looked at `MAX_HITS` at a time.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from pipelines.contamination.prepared import (
    MAX_POSTINGS,
    MAX_WORDS,
    NGRAM,
    RATIO,
    Prepared,
    filter_bits,
    filter_place,
    read_words,
)
from pipelines.near_duplicates.shingles import STEP, UNITS, base_power, forget_units, read_shingles
from pipelines.transforms.edits import with_room
from pipelines.transforms.hashing import find_key

ROW, START, END, ITEM, SCORE = range(5)
"""Columns of what is found: int64, shape (hits, 5). Bytes of the row's text, at code point boundaries, half open."""
MAX_HITS = 1 << 18
"""Seeds of one text that are looked at together."""


@numba.njit(nogil=True, cache=True)
def search(offsets: np.ndarray, data: np.ndarray, forms: np.ndarray, index: Prepared) -> np.ndarray:
    """Return what is found, by row, then item, then place."""
    found, num = np.empty((16, 5), np.int64), 0
    units, power = np.zeros(UNITS, np.uint64), base_power(NGRAM)
    grams = np.empty(STEP, np.uint64)
    seeds = np.empty(MAX_HITS + STEP * MAX_POSTINGS, np.int64)
    size, mask = len(index.filter), len(index.keys) - 1
    for row in range(len(offsets) - 1):
        at, end, seen, rolled, inside = offsets[row], offsets[row + 1], 0, np.uint64(0), False
        forget_units(units)
        num_seeds, read = 0, 0
        words = np.empty((0, 3), np.int64)  # read when first needed, and once: a text may have seeds for many looks
        while at < end:
            num_grams, at, seen, rolled, inside = read_shingles(
                data, at, end, forms, True, NGRAM, power, units, seen, rolled, inside, grams, 0
            )
            for k in range(num_grams):
                key: Any = np.int64(grams[k])
                bits = filter_bits(key)
                if index.filter[filter_place(key, size)] & bits == bits:
                    place = find_key(index.keys, mask, key)
                    if place >= 0:
                        for j in range(index.places[place, 0], index.places[place, 1]):
                            begins = read + k - index.postings[j, 1] + MAX_WORDS
                            seeds[num_seeds] = index.postings[j, 0] << 32 | begins
                            num_seeds += 1
            read += num_grams
            if num_seeds >= MAX_HITS:
                found, num, words = _compare(
                    row, offsets[row], end, data, forms, index, seeds[:num_seeds], words, found, num
                )
                num_seeds = 0
        if num_seeds:
            found, num, words = _compare(
                row, offsets[row], end, data, forms, index, seeds[:num_seeds], words, found, num
            )
    return found[:num].copy()


@numba.njit(nogil=True, cache=True)
def _compare(
    row: int, begin: int, end: int, data: np.ndarray, forms: np.ndarray, index: Prepared, seeds: np.ndarray,
    words: np.ndarray, found: np.ndarray, num: int,
) -> tuple[np.ndarray, int, np.ndarray]:  # fmt: skip
    """Compare the text with every item that has enough seeds in one place, and add what is found.

    `words` are those of the text, or none as long as nobody has read them; they are returned too.
    """
    if len(seeds) > 1:
        seeds.sort()
    first, behind, last_item, free = 0, 0, -1, 0  # of `last_item` nothing begins before the word `free`
    while first < len(seeds):
        item, begins = seeds[first] >> 32, (seeds[first] & 0xFFFFFFFF) - MAX_WORDS
        if item == last_item and begins < free:
            first += 1
            continue
        behind = max(behind, first + 1)
        while behind < len(seeds) and seeds[behind] - seeds[first] <= index.slack[item]:
            behind += 1
        if behind - first < index.min_hits[item]:
            first += 1
            continue
        if len(words) == 0:
            words = read_words(data, begin, end, forms, end - begin)
        start, stop, score = _align(index, item, begins, words)
        if score > 0:
            found = with_room(found, num + 1)
            found[num, ROW], found[num, START], found[num, END] = row, words[start, 0] - begin, words[stop, 1] - begin
            found[num, ITEM], found[num, SCORE] = item, score
            num += 1
            last_item, free = item, stop + 1
        first = behind
    return found, num, words


@numba.njit(nogil=True, cache=True)
def _align(index: Prepared, item: int, begins: int, words: np.ndarray) -> tuple[int, int, int]:
    """Align an item whose first word should stand `begins` words into the text; return first and last word, and score.

    The score is 0 where less than what is needed is there. Column c of the item's word k is the text's word
    `begins - slack + k + c`; a column holds the best weight of the words up to there, and the first and the last
    word of the text in it.
    """
    slack, offset = index.slack[item], index.offsets[item]
    width, left = 3 * slack + 1, index.totals[item]
    best, first, last = np.zeros(width + 1, np.int64), np.zeros(width + 1, np.int64), np.zeros(width + 1, np.int64)
    for k in range(index.offsets[item + 1] - offset):
        weight, word = index.weights[offset + k], index.words[offset + k]
        left -= weight
        best[width], before = 0, 0
        for c in range(width):
            place = begins - slack + k + c
            here, above = best[c], best[c + 1]
            if place >= 0 and place < len(words) and words[place, 2] == word and here + weight > max(above, before):
                if here == 0:
                    first[c] = place
                best[c], last[c] = here + weight, place
            elif above >= before:
                best[c], first[c], last[c] = above, first[c + 1], last[c + 1]
            else:
                best[c], first[c], last[c] = before, first[c - 1], last[c - 1]
            before = best[c]
        if before + left < index.needed[item]:
            return 0, 0, 0
    return first[width - 1], last[width - 1], best[width - 1] * RATIO // index.totals[item]
