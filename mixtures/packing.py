"""Which documents lie together in a sequence: best-fit-decreasing within a window of documents. Pure arrays.

The result is a function of the arguments alone. Cost: a few operations a document (a counting sort, and the least room
that fits found in a hierarchy of bit sets), however long a sequence is.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import llvmlite.ir
import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

PACKING_VERSION = 1
"""Changes whenever the same lengths would give other sequences."""


@dataclasses.dataclass(frozen=True, slots=True)
class Packing:
    """Pieces of documents by sequence: those of sequence s are `offsets[s]:offsets[s + 1]`, in the order of documents.

    `offsets` int64, shape (sequences + 1,); `document` int32 (its place in the window), `start` int64 (the piece's
    first token in the document) and `size` int32, shape (pieces,).
    """

    offsets: np.ndarray
    document: np.ndarray
    start: np.ndarray
    size: np.ndarray


def window_bounds(documents: int, window_documents: int) -> np.ndarray:
    """Return the bounds of W = ceil(documents / window_documents) windows of nearly equal size: int64, (W + 1,)."""
    windows = -(-documents // window_documents)
    if not windows:
        return np.zeros(1, np.int64)
    # bound k is floor(k documents / W), split so that no product passes W**2
    whole, rest = divmod(documents, windows)
    k = np.arange(windows + 1, dtype=np.int64)
    return k * whole + k * rest // windows


@numba.njit(nogil=True, cache=True)
def count_sequences_of_windows(lengths, bounds, length, reserved, cut):  # type: ignore[no-untyped-def]
    """Return how many sequences each window makes (uint32): window k is `lengths[bounds[k]:bounds[k + 1]]`.

    The rules are those of `pack`, `ValueError` included; about 40 million documents a CPU second.
    """
    counts = np.empty(len(bounds) - 1, np.uint32)
    longest = 0
    for window in range(len(counts)):
        longest = max(longest, bounds[window + 1] - bounds[window])
    sizes, by_size = np.empty(longest, np.int32), np.empty(longest, np.int32)
    open_sequences = _no_sequences(length, longest)
    for window in range(len(counts)):
        first, last = bounds[window], bounds[window + 1]
        full = _rests(lengths[first:last], length, reserved, cut, sizes)
        counts[window] = full + _place(sizes[: last - first], length, by_size, open_sequences, sizes[:0])
    return counts


def pack(lengths: np.ndarray, length: int, reserved: int, cut: bool) -> Packing:
    """Pack a window of documents of these lengths (int32, at least 1 each) into sequences of `length` tokens.

    A document occupies its tokens and `reserved` ones. One that occupies more than a sequence is cut into full pieces,
    which are sequences of their own, and a rest, or, unless `cut`, left out. Rests and all others go, the longest first
    (of equal ones that of the earlier document), into the sequence with the least room that holds them (of equal ones
    the one that was filled or opened last), else into a new one. Full pieces come first, in the order of documents;
    then the sequences in the order in which they were opened. `ValueError` for a length below 1.
    """
    return Packing(*_pack(lengths, length, reserved, cut))


@numba.njit(nogil=True, cache=True)
def _pack(lengths, length, reserved, cut):  # type: ignore[no-untyped-def]
    count = len(lengths)
    sizes, by_size, sequence = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.int32)
    full = _rests(lengths, length, reserved, cut, sizes)
    shared = _place(sizes, length, by_size, _no_sequences(length, count), sequence)
    offsets = np.zeros(full + shared + 1, np.int64)
    offsets[1 : full + 1] = 1
    pieces = full
    for document in range(count):
        if sizes[document]:
            offsets[full + sequence[document] + 1] += 1
            pieces += 1
    for place in range(1, len(offsets)):
        offsets[place] += offsets[place - 1]
    documents, starts, lasts = np.empty(pieces, np.int32), np.empty(pieces, np.int64), np.empty(pieces, np.int32)
    free, whole = offsets[full:].copy(), 0
    for document in range(count):
        start, occupied = np.int64(0), np.int64(lengths[document]) + reserved
        if cut or occupied <= length:
            for _ in range(occupied // length):
                documents[whole], starts[whole], lasts[whole] = document, start, length
                whole += 1
                start += length
        if sizes[document]:
            place = free[sequence[document]]
            free[sequence[document]] += 1
            documents[place], starts[place], lasts[place] = document, start, sizes[document]
    return offsets, documents, starts, lasts


@numba.njit(nogil=True, cache=True)
def _rests(lengths, length, reserved, cut, sizes):  # type: ignore[no-untyped-def]
    """Write how many tokens of each document share a sequence with others, and return the number of full pieces."""
    full = np.int64(0)
    for document in range(len(lengths)):
        if lengths[document] < 1:  # it would be an index outside of the arrays
            raise ValueError("lengths: a document of no tokens\nhint: check the shards with `headrace verify`")
        occupied = np.int64(lengths[document]) + reserved
        if occupied < length:
            sizes[document] = occupied
        elif cut or occupied == length:
            full += occupied // length
            sizes[document] = occupied % length
        else:
            sizes[document] = 0
    return full


@numba.njit(nogil=True, cache=True)
def _no_sequences(length, documents):  # type: ignore[no-untyped-def]
    """Return room for the open sequences of windows of up to `documents` documents.

    `heads[r]`: the last sequence with room for r more tokens, -1 where there is none; `below`: the one before it with
    the same room, by sequence; `starts`: by size, for sorting; then three levels of bits: which rooms there are.
    """
    words = (length >> 6) + 1
    middle = (words >> 6) + 1
    heads = np.full(length + 1, -1, np.int32)
    below = np.empty(documents, np.int32)
    starts = np.empty(length + 1, np.int32)
    bits = np.zeros(words, np.uint64), np.zeros(middle, np.uint64), np.zeros((middle >> 6) + 1, np.uint64)
    return heads, below, starts, bits


@numba.njit(nogil=True, cache=True)
def _place(sizes, length, by_size, open_sequences, sequence):  # type: ignore[no-untyped-def]
    """Place all sizes above 0, and return the number of sequences; `sequence` gets each one's unless it is empty."""
    heads, below, starts, bits = open_sequences
    kept = len(sequence) > 0
    total = _sort(sizes, starts, by_size)
    opened = 0
    for place in range(total):
        document = by_size[place]
        size = sizes[document]
        room = _least_room(bits, size)
        if room < 0:
            chosen, room = opened, length
            opened += 1
        else:
            chosen = heads[room]
            heads[room] = below[chosen]
            if heads[room] < 0:
                _clear(bits, room)
        if kept:
            sequence[document] = chosen
        left = room - size
        if left > 0:
            below[chosen] = heads[left]
            if heads[left] < 0:
                _set(bits, left)
            heads[left] = chosen
    _forget(heads, bits)
    return opened


@numba.njit(nogil=True, cache=True)
def _sort(sizes, starts, by_size):  # type: ignore[no-untyped-def]
    """Write the places of sizes above 0, the largest first, equal ones in order; return how many there are."""
    starts[:] = 0
    for size in sizes:
        starts[size] += 1
    total = 0
    for size in range(len(starts) - 1, 0, -1):
        count = starts[size]
        starts[size] = total
        total += count
    for place in range(len(sizes)):
        if sizes[place]:
            by_size[starts[sizes[place]]] = place
            starts[sizes[place]] += 1
    return total


@numba.njit(nogil=True, cache=True)
def _set(bits, room):  # type: ignore[no-untyped-def]
    for level in bits:
        level[room >> 6] |= np.uint64(1) << np.uint64(room & 63)
        room >>= 6


@numba.njit(nogil=True, cache=True)
def _clear(bits, room):  # type: ignore[no-untyped-def]
    for level in bits:
        level[room >> 6] &= ~(np.uint64(1) << np.uint64(room & 63))
        if level[room >> 6]:
            return
        room >>= 6


@numba.njit(nogil=True, cache=True)
def _least_room(bits, size):  # type: ignore[no-untyped-def]
    """Return the least room of an open sequence that is at least `size`, -1 where there is none."""
    low, middle, high = bits
    found = _next(low, size)
    if found >= 0:
        return found
    word = _next(middle, (size >> 6) + 1)
    if word < 0:
        above = _next_far(high, (size >> 12) + 1)
        if above < 0:
            return -1
        word = (above << 6) + _first_bit(middle[above])
    return (word << 6) + _first_bit(low[word])


@numba.njit(nogil=True, cache=True)
def _next(level, place):  # type: ignore[no-untyped-def]
    """Return the first bit that is set from `place` on within its word, -1 where there is none."""
    word = place >> 6
    if word >= len(level):
        return -1
    rest = level[word] >> np.uint64(place & 63)
    return place + _first_bit(rest) if rest else -1


@numba.njit(nogil=True, cache=True)
def _next_far(level, place):  # type: ignore[no-untyped-def]
    """Return the first bit that is set from `place` on in any word, -1 where there is none."""
    while place >> 6 < len(level):
        found = _next(level, place)
        if found >= 0:
            return found
        place = ((place >> 6) + 1) << 6
    return -1


@numba.njit(nogil=True, cache=True)
def _forget(heads, bits):  # type: ignore[no-untyped-def]
    """Empty the structure again, touching only what is there."""
    low, middle, high = bits
    for top in range(len(high)):
        while high[top]:
            above = (top << 6) + _first_bit(high[top])
            while middle[above]:
                word = (above << 6) + _first_bit(middle[above])
                while low[word]:
                    heads[(word << 6) + _first_bit(low[word])] = -1
                    low[word] &= low[word] - np.uint64(1)
                middle[above] &= middle[above] - np.uint64(1)
            high[top] &= high[top] - np.uint64(1)


@intrinsic
def _first_bit(_context: Any, value: Any) -> Any:
    """Return the place of the lowest bit that is set (of a uint64 that is not 0)."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], llvmlite.ir.Constant(llvmlite.ir.IntType(1), 1))

    return types.int64(types.uint64), build
