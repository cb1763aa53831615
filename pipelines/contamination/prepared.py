"""What the search needs of an index, worked out from its items: words, their weights, and seeds to find them by.

Words and n-grams are those of `near_duplicates/shingles.py` (case and marks folded, no punctuation).

**Weights.** Let d be the number of items of a set of N that hold an n-gram. Its weight is `log2(1 + N / d)` in steps of
1/16, rounded down: 9.9 where one item of 974 has it, 1 where all have. A word weighs as much as the lightest n-gram
that it is in, so the words of a template that many items share weigh little, up to the last of them.

**Seeds.** An item's words are cut into n-grams that do not overlap (only the last one, which ends with the item, may
overlap the one before it); those that at most `MAX_POSTINGS` items hold are its seeds. An item is compared with a text
only where the text has `min_hits` of them as far apart as the item has, give or take the item's `slack`. Each word that
is replaced breaks a seed (two in the overlap), and the cheapest words may be replaced first: as many seeds as are left
when the weight that may be missing is spent so must be there, and no fewer than a quarter (one word in ten replaced
leaves half of the seeds).

**How much of an item must be there** falls with its length, as in decon (allenai/decon: a perfect match up to 20
tokens, then less until 50): all of its weight below `SHORT` words; from there on three quarters of what the threshold
leaves may be missing, from `LONG` words on all of that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.near_duplicates.shingles import ALONE, BASE, SEPARATOR, SKIPPED, base_power, code_point_forms, finish
from pipelines.transforms.edits import with_room
from pipelines.transforms.hashing import MULTIPLIER, find_key, hash_on, key_of, table_size
from pipelines.transforms.words import next_code_point, text_view

NGRAM = 5
"""Words of an n-gram."""
MAX_POSTINGS = 8
"""Items that an n-gram may point to: it bounds what one word of a text can cost."""
MIN_WORDS = 8
"""Shorter items are refused: too many texts say the same by chance."""
SHORT, LONG = 10, 20
"""Words from which on a part of an item is enough, and from which on the threshold holds."""
MAX_WORDS = 1_024
"""Of an item; what is behind them is not looked for."""
MIN_FULL_WORDS = 4
"""An item must weigh as much as so many words that no other item shares; others are templates, and never found."""
MAX_SLACK = 8
RATIO = 10_000
"""Scores and thresholds are in 1/10,000."""
THRESHOLD = 8_000
WEIGHT_STEPS = 16
FILTER_BITS = 16
"""Of the filter, for each seed."""


class Prepared(NamedTuple):
    """Arrays that kernels read. Words of item i are `[offsets[i]:offsets[i + 1]]`; all int64 but the filter."""

    offsets: np.ndarray
    words: np.ndarray
    weights: np.ndarray
    """Of each word, in 1/WEIGHT_STEPS."""
    totals: np.ndarray
    """Weight of each item."""
    needed: np.ndarray
    """Weight of each item that must be found."""
    min_hits: np.ndarray
    """Seeds that must be found before an item is compared; 0 = it is never found."""
    slack: np.ndarray
    """By how many words two parts of an item may be shifted against each other."""
    keys: np.ndarray
    """Open table of the seeds' n-grams."""
    places: np.ndarray
    """First and last + 1 posting of each key, shape (keys, 2)."""
    postings: np.ndarray
    """Item and place in it of each seed, shape (seeds, 2)."""
    filter: np.ndarray
    """uint64: two bits for each key, in one word; whoever lacks one is no seed."""


def required(words: int, threshold: int) -> int:
    """Return how much of an item of so many words must be there, in 1/10,000."""
    if words < SHORT:
        return RATIO
    missing = RATIO - threshold
    return RATIO - missing * (3 * (LONG - SHORT) + min(words, LONG) - SHORT) // (4 * (LONG - SHORT))


def weight(items: int, holders: int) -> int:
    """Return log2(1 + items / holders) in 1/WEIGHT_STEPS, rounded down; exact."""
    return ((items + holders) ** WEIGHT_STEPS // holders**WEIGHT_STEPS).bit_length() - 1


def count_words(text: pa.Array) -> np.ndarray:
    """Return how many words each row has, up to `MAX_WORDS`: int64, shape (rows,)."""
    return np.diff(_read(*text_view(text), code_point_forms())[0])


def word_hashes(text: pa.Array) -> list[bytes]:
    """Return for each row what is equal for texts of equal words: the hashes of the words, as bytes."""
    offsets, words = _read(*text_view(text), code_point_forms())
    return [words[start:stop].tobytes() for start, stop in zip(offsets, offsets[1:], strict=False)]


def prepare(names: pa.Array, questions: pa.Array, threshold: int) -> Prepared:
    """Return the arrays of items (two `large_string` columns); `threshold` in 1/10,000."""
    offsets, words = _read(*text_view(questions), code_point_forms())
    sets = pc.list_element(pc.split_pattern(names, ":", max_splits=1), 0).dictionary_encode()
    of_item = sets.indices.to_numpy().astype(np.int64)
    sizes = np.bincount(of_item, minlength=1)
    grams = _grams(offsets, words)
    by_set = _holders(offsets, grams, of_item)
    weights = _weights(offsets, by_set, of_item, sizes)
    sums = np.concatenate([[0], np.cumsum(weights)])
    totals = sums[offsets[1:]] - sums[offsets[:-1]]
    counts = np.diff(offsets)
    table = np.array([required(num, threshold) for num in range(MAX_WORDS + 1)], np.int64)
    needed = -(-table[counts] * totals // RATIO)
    full = np.array([weight(int(size), 1) for size in sizes], np.int64)[of_item]
    everywhere = _holders(offsets, grams, np.zeros_like(of_item))
    seeds = _seeds(offsets, grams, everywhere)
    min_hits = _min_hits(offsets, weights, seeds, totals - needed)
    min_hits[(counts < MIN_WORDS) | (totals < MIN_FULL_WORDS * full)] = 0
    seeds = seeds[min_hits[seeds[:, 1]] > 0]
    seeds = seeds[np.lexsort((seeds[:, 2], seeds[:, 1], seeds[:, 0]))]
    keys, places = _table(seeds[:, 0].copy())
    slack = np.minimum(counts // 8, MAX_SLACK)
    return Prepared(
        offsets, words, weights, totals, needed, min_hits, slack, keys, places, seeds[:, 1:].copy(), _filter(keys)
    )


def _weights(offsets: np.ndarray, holders: np.ndarray, of_item: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the weight of every word."""
    sets = np.repeat(of_item, np.diff(offsets))
    pairs, codes = np.unique(sets * (1 << 32) + holders, return_inverse=True)
    by_pair = [weight(int(sizes[pair >> 32]), max(pair & 0xFFFFFFFF, 1)) for pair in pairs.tolist()]
    return _lightest(offsets, np.array(by_pair, np.int64)[codes])


@numba.njit(nogil=True, cache=True)
def read_words(data: np.ndarray, at: int, end: int, forms: np.ndarray, most: int) -> np.ndarray:
    """Return start, stop and hash of the first `most` words of `data[at:end]`: int64, shape (words, 3).

    The words and hashes are those of `read_shingles`. As there, runs of ASCII have a loop without a branch that cannot
    be foreseen: all is written at every byte, and its place moves on where a word ends.
    """
    words = np.empty((64 + (end - at) // 6, 3), np.int64)
    place, hashed, inside, start, behind = 0, np.uint64(0), 0, at, at
    while at < end and place < most:
        words = with_room(words, place + 3)
        stop = min(end, at + len(words) - place - 2)
        while at < stop:
            byte = data[np.uint64(at)]
            if byte >= 0x80:
                break
            form = int(forms[byte])
            within = int(form != SEPARATOR)
            words[place, 0], words[place, 1], words[place, 2] = start, behind, np.int64(finish(hashed))
            place += inside & ~within
            hashed = (hashed ^ np.uint64(form)) * (MULTIPLIER & np.uint64(-within))
            start = start if inside else at
            at += 1
            behind = at if within else behind
            inside = within
        if at == stop:
            continue
        code_point, after = next_code_point(data, at, end)
        form = int(forms[code_point])
        if form == SEPARATOR or form & ALONE:
            words[place, 0], words[place, 1], words[place, 2] = start, behind, np.int64(finish(hashed))
            place += inside
            hashed, inside = np.uint64(0), 0
            if form & ALONE:
                words[place, 0], words[place, 1] = at, after
                words[place, 2] = np.int64(finish(np.uint64(form ^ ALONE) * MULTIPLIER))
                place += 1
        elif form != SKIPPED:
            start = start if inside else at
            hashed, inside, behind = (hashed ^ np.uint64(form)) * MULTIPLIER, 1, after
        at = after
    if inside:
        words = with_room(words, place + 1)
        words[place, 0], words[place, 1], words[place, 2] = start, behind, np.int64(finish(hashed))
        place += 1
    return words[: min(place, most)]


@numba.njit(nogil=True, cache=True)
def _read(offsets: np.ndarray, data: np.ndarray, forms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return offsets and hashes of the first `MAX_WORDS` words of every row."""
    hashes = np.empty((offsets[-1] - offsets[0]) // 2 + len(offsets), np.int64)
    ends = np.zeros(len(offsets), np.int64)
    for row in range(len(offsets) - 1):
        words = read_words(data, offsets[row], offsets[row + 1], forms, MAX_WORDS)
        for k in range(len(words)):
            hashes[ends[row] + k] = words[k, 2]
        ends[row + 1] = ends[row] + len(words)
    return ends, hashes[: ends[-1]].copy()


@numba.njit(nogil=True, cache=True)
def _grams(offsets: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return the n-gram that begins at each word, as `read_shingles` has it; 0 for an item's last words."""
    power, grams = base_power(NGRAM), np.zeros(len(words), np.int64)
    for item in range(len(offsets) - 1):
        rolled = np.uint64(0)
        for k in range(offsets[item], offsets[item + 1]):
            rolled = rolled * BASE + np.uint64(words[k])
            if k - NGRAM >= offsets[item]:
                rolled -= np.uint64(words[k - NGRAM]) * power
            if k - NGRAM + 1 >= offsets[item]:
                gram = np.int64(finish(rolled))
                grams[k - NGRAM + 1] = gram if gram != 0 else 1
    return grams


@numba.njit(nogil=True, cache=True)
def _holders(offsets: np.ndarray, grams: np.ndarray, of_item: np.ndarray) -> np.ndarray:
    """Return for each n-gram how many items of the item's set have it; 0 where there is none."""
    size = table_size(len(grams))
    keys, counts, last = np.zeros(size, np.int64), np.zeros(size, np.int64), np.full(size, -1, np.int64)
    found = np.zeros(len(grams), np.int64)
    for item in range(len(offsets) - 1):
        for k in range(offsets[item], offsets[item + 1]):
            if grams[k] != 0:
                key = key_of(hash_on(grams[k], of_item[item]))
                place = find_key(keys, size - 1, key)
                if place < 0:
                    place = -1 - place
                    if place == size:  # too many collide: none of them is known again
                        found[k] = -1
                        continue
                    keys[place] = key
                if last[place] != item:
                    counts[place], last[place] = counts[place] + 1, item
                found[k] = place
    for k in range(len(grams)):
        found[k] = 0 if grams[k] == 0 else 1 if found[k] < 0 else counts[found[k]]
    return found


@numba.njit(nogil=True, cache=True)
def _lightest(offsets: np.ndarray, of_gram: np.ndarray) -> np.ndarray:
    """Return the least weight among the n-grams that each word is in; 0 where an item is too short for one."""
    weights = np.zeros(len(of_gram), np.int64)
    for item in range(len(offsets) - 1):
        first, last = offsets[item], offsets[item + 1] - NGRAM
        for k in range(first, offsets[item + 1]):
            for start in range(max(first, k - NGRAM + 1), min(k, last) + 1):
                if weights[k] == 0 or of_gram[start] < weights[k]:
                    weights[k] = of_gram[start]
    return weights


@numba.njit(nogil=True, cache=True)
def _seeds(offsets: np.ndarray, grams: np.ndarray, holders: np.ndarray) -> np.ndarray:
    """Return n-gram, item and place of every seed, ordered by item and place: shape (seeds, 3)."""
    seeds = np.empty((len(grams) // NGRAM + len(offsets), 3), np.int64)
    num = 0
    for item in range(len(offsets) - 1):
        words = offsets[item + 1] - offsets[item]
        for k in range(0, words if words >= NGRAM else 0, NGRAM):
            place = min(k, words - NGRAM)
            if holders[offsets[item] + place] <= MAX_POSTINGS:
                seeds[num, 0], seeds[num, 1], seeds[num, 2] = grams[offsets[item] + place], item, place
                num += 1
    return seeds[:num].copy()


@numba.njit(nogil=True, cache=True)
def _min_hits(offsets: np.ndarray, weights: np.ndarray, seeds: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    """Return how many seeds of each item must be found; 0 for those that have none."""
    needed = np.zeros(len(budgets), np.int64)
    k = 0
    for item in range(len(budgets)):
        first = k
        while k < len(seeds) and seeds[k, 1] == item:
            k += 1
        cheapest = np.empty(k - first, np.int64)
        for j in range(first, k):
            start = offsets[item] + seeds[j, 2]
            cheapest[j - first] = weights[start : start + NGRAM].min()
        cheapest.sort()
        left, budget = len(cheapest), budgets[item]
        for cost in cheapest:
            budget -= cost
            left -= budget >= 0
        words = offsets[item + 1] - offsets[item]
        left -= left < len(cheapest) and words % NGRAM != 0  # a word may be in the last two seeds
        needed[item] = max(left, (k - first + 3) // 4)
    return needed


@numba.njit(nogil=True, cache=True)
def _table(grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the open table of ordered n-grams, and the first and the last + 1 of each."""
    size = table_size(len(grams))
    keys, places = np.zeros(size, np.int64), np.zeros((size, 2), np.int64)
    for k in range(len(grams)):
        place = find_key(keys, size - 1, grams[k])
        if place < 0:
            place = -1 - place
            if place == size:
                continue
            keys[place], places[place, 0] = grams[k], k
        places[place, 1] = min(k + 1, places[place, 0] + MAX_POSTINGS)  # an item may repeat itself
    return keys, places


@numba.njit(nogil=True, cache=True)
def _filter(keys: np.ndarray) -> np.ndarray:
    num = 0
    for key in keys:
        num += key != 0
    size = 16
    while size * 64 < num * FILTER_BITS:
        size *= 2
    bits = np.zeros(size, np.uint64)
    for key in keys:
        if key != 0:
            bits[filter_place(key, size)] |= filter_bits(key)
    return bits


@numba.njit(nogil=True, cache=True, inline="always")
def filter_place(key: Any, size: int) -> Any:
    """Return the word of the filter that tells of a key."""
    return np.int64((np.uint64(key) >> np.uint64(12)) & np.uint64(size - 1))


@numba.njit(nogil=True, cache=True, inline="always")
def filter_bits(key: Any) -> Any:
    """Return the bits that are set in it."""
    high = np.uint64(key)
    one, other = high >> np.uint64(58), (high >> np.uint64(52)) & np.uint64(63)
    return (np.uint64(1) << one) | (np.uint64(1) << other)
