"""The order of a run: keyed permutations and an exact interleaving, as functions of a position. Pure arrays.

Nothing is drawn and nothing is stored but the permuted windows of an epoch: any position can be asked for, and answers
depend on the keys and counts alone. Products go through 128 bits, so totals may pass 2**60. All of it is frozen: golden
values are tests, because another order is another run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import json
from collections.abc import Sequence

import numba
import numpy as np

from tokenizer.columns import running_total

ROUNDS = 8
"""Rounds of the Feistel network. Four make a pseudorandom permutation in theory (Luby and Rackoff 1988), for random
functions and large blocks; ours are small, down to a bit a half."""


def derive_keys(*parts: str | int) -> np.ndarray:
    """Return round keys (uint64, shape (ROUNDS,)): BLAKE2b-512 of the parts as a JSON list, little endian."""
    text = json.dumps(parts, separators=(",", ":"))
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=8 * ROUNDS).digest(), "<u8").astype(np.uint64)


@numba.njit(nogil=True, cache=True)
def mixed(value):  # type: ignore[no-untyped-def]
    """Spread every bit of a uint64 over all: the finalizer of SplitMix64 (Stafford's variant 13)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def _half_bits(size):  # type: ignore[no-untyped-def]
    """Return the bits of each half of the least even number of bits that count to `size` (at least one)."""
    bits = 1
    while np.int64(1) << (2 * bits) < size:
        bits += 1
    return bits


@numba.njit(nogil=True, cache=True)
def permute(index, size, keys):  # type: ignore[no-untyped-def]
    """Return where a keyed bijection of [0, size) takes `index` (int64, below `size`); size up to 2**62.

    A balanced Feistel network over the next even number of bits, repeated until the value lies below `size` (cycle
    walking, Black and Rogaway 2002): at most four times on average.
    """
    half = np.uint64(_half_bits(size))
    mask = (np.uint64(1) << half) - np.uint64(1)
    value = np.uint64(index)
    while True:
        left, right = value >> half, value & mask
        for key in keys:
            left, right = right, left ^ (mixed(right ^ key) & mask)
        value = (left << half) | right
        if value < np.uint64(size):
            return np.int64(value)


@numba.njit(nogil=True, cache=True)
def unpermute(index, size, keys):  # type: ignore[no-untyped-def]
    """Return what `permute` takes to `index`."""
    half = np.uint64(_half_bits(size))
    mask = (np.uint64(1) << half) - np.uint64(1)
    value = np.uint64(index)
    while True:
        left, right = value >> half, value & mask
        for key in keys[::-1]:
            left, right = right ^ (mixed(left ^ key) & mask), left
        value = (left << half) | right
        if value < np.uint64(size):
            return np.int64(value)


@numba.njit(nogil=True, cache=True)
def permute_range(first, count, size, keys):  # type: ignore[no-untyped-def]
    """Return where the bijection takes first, first + 1, ... (int64, shape (count,))."""
    taken = np.empty(count, np.int64)
    for place in range(count):
        taken[place] = permute(first + place, size, keys)
    return taken


@numba.njit(nogil=True, cache=True)
def multiply_divide(a, b, c, d):  # type: ignore[no-untyped-def]
    """Return floor((a b + c) / d) of uint64 numbers whose result fits 64 bits; through 128 bits where needed."""
    low32 = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    if (a | b) >> shift == 0:
        product = a * b
        if product + c >= product:
            return (product + c) // d
    a_high, a_low, b_high, b_low = a >> shift, a & low32, b >> shift, b & low32
    lowest, cross, other = a_low * b_low, a_high * b_low, a_low * b_high
    carried = (lowest >> shift) + (cross & low32) + (other & low32)
    low = a * b
    high = a_high * b_high + (cross >> shift) + (other >> shift) + (carried >> shift)
    low += c
    if low < c:
        high += np.uint64(1)
    return _divide(high, low, d)


@numba.njit(nogil=True, cache=True)
def _divide(high, low, d):  # type: ignore[no-untyped-def]
    """Return floor((high 2**64 + low) / d) for high < d: bit by bit, as there is no 128-bit division here."""
    if high == 0:
        return low // d
    one, top = np.uint64(1), np.uint64(63)
    quotient, rest = np.uint64(0), high
    for place in range(64):
        carry = rest >> top
        rest = (rest << one) | ((low >> (top - np.uint64(place))) & one)
        quotient <<= one
        if carry or rest >= d:
            rest -= d
            quotient |= one
    return quotient


@dataclasses.dataclass(frozen=True, slots=True)
class Interleave:
    """Positions [0, total) dealt out to sources in proportion to their counts: a Huffman tree of two-way splits.

    A node with `left` and `right` items, N together, has given floor((2 i left + N) / 2N) to the left after i of them.
    At every prefix each source is less than 1.68 items from its share (1.42 for up to five sources): every split on the
    way to it adds at most half of its part of the child taken, and in a Huffman tree these children grow, upwards, at
    least like the Fibonacci numbers, whose reciprocals sum to 3.3599.
    `children` (int64, shape (nodes, 2)): a node, or -1 - source; `counts` the items of both children. The root is the
    last node; with one source there is none.
    """

    total: int
    only: int
    children: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, counts: Sequence[int]) -> Interleave:
        """Build the tree; of equal counts that of the earlier source (or of its subtree) is taken first."""
        heap = [(count, source, -1 - source) for source, count in enumerate(counts) if count]
        heapq.heapify(heap)
        children, sizes = [], []
        while len(heap) > 1:
            left, right = heapq.heappop(heap), heapq.heappop(heap)
            children.append((left[2], right[2]))
            sizes.append((left[0], right[0]))
            heapq.heappush(heap, (left[0] + right[0], min(left[1], right[1]), len(children) - 1))
        only = heap[0][2] if heap else -1
        shape = (len(children), 2)
        nodes, of_nodes = np.array(children, np.int64).reshape(shape), np.array(sizes, np.uint64).reshape(shape)
        return cls(sum(counts), -1 - only if only < 0 else -1, nodes, of_nodes)

    def locate(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what stands at positions [first, first + count): source (int32), its ordinal (int64)."""
        if not 0 <= first <= first + count <= self.total:
            raise IndexError(f"positions {first} to {first + count}: there are {self.total}")
        return _locate_all(np.int64(first), np.int64(count), self.only, self.children, self.counts)

    def position(self, source: int, ordinal: int) -> int:
        """Return where the source's item of this ordinal stands: the inverse of `locate`."""
        if not 0 <= ordinal < self._count(source):
            raise IndexError(f"item {ordinal} of source {source}: it has {self._count(source)}")
        value, node = ordinal, -1 - source
        for parent in range(len(self.children)):
            for side in range(2):
                if self.children[parent, side] == node:
                    left, right = (int(size) for size in self.counts[parent])
                    both = left + right
                    middle = both * (2 * value + 1)
                    value = -(-middle // (2 * left)) - 1 if side == 0 else middle // (2 * right)
                    node = parent
        return value

    def _count(self, source: int) -> int:
        if source < 0:
            return 0
        return self.total if source == self.only else int(self.counts[self.children == -1 - source].sum())


@numba.njit(nogil=True, cache=True)
def _locate_all(first, count, only, children, counts):  # type: ignore[no-untyped-def]
    sources, ordinals = np.empty(count, np.int32), np.empty(count, np.int64)
    two = np.uint64(2)
    for place in range(count):
        node, value = np.int64(len(children) - 1), np.uint64(first + place)
        while node >= 0:
            left = counts[node, 0]
            both = left + counts[node, 1]
            before = multiply_divide(two * value, left, both, two * both)
            after = multiply_divide(two * value + two, left, both, two * both)
            if after > before:
                node, value = children[node, 0], before
            else:
                node, value = children[node, 1], value - before
        sources[place] = -1 - node if len(children) else only
        ordinals[place] = value
    return sources, ordinals


@dataclasses.dataclass(frozen=True, slots=True)
class EpochOrder:
    """The order of a source's sequences in one epoch: windows are permuted, then sequences within groups of windows.

    `windows` (int64, shape (W,)) are in permuted order, `starts` (int64, shape (W + 1,)) the sequences before each; a
    reader needs only the `group` windows of one group at once.
    """

    windows: np.ndarray
    starts: np.ndarray
    group: int
    keys: np.ndarray

    @classmethod
    def of(cls, sequences: np.ndarray, group: int, *key_parts: str | int) -> EpochOrder:
        """Make the order of windows of these many sequences; key parts are the seed, the source, the epoch."""
        windows = permute_range(0, len(sequences), len(sequences), derive_keys(*key_parts, "windows"))
        starts = running_total(np.asarray(sequences, np.int64)[windows])
        return cls(windows, starts, group, derive_keys(*key_parts, "sequences"))

    @property
    def total(self) -> int:
        """The number of sequences."""
        return int(self.starts[-1])

    def locate(self, ordinals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the window and its sequence (int64) that stand at these places of the epoch (int64)."""
        if len(ordinals) and not 0 <= ordinals.min() <= ordinals.max() < self.total:
            raise IndexError(f"places {ordinals.min()} to {ordinals.max()}: the epoch has {self.total}")
        return _locate_in_epoch(ordinals, self.windows, self.starts, self.group, self.keys)

    def ordinal(self, window: int, sequence: int) -> int:
        """Return the place of a window's sequence in the epoch: the inverse of `locate`."""
        if not 0 <= window < len(self.windows):
            raise IndexError(f"window {window}: there are {len(self.windows)}")
        place = int(np.flatnonzero(self.windows == window)[0])
        if not 0 <= sequence < self.starts[place + 1] - self.starts[place]:
            raise IndexError(f"sequence {sequence} of window {window}: it has {np.diff(self.starts)[place]}")
        first = place // self.group * self.group
        start, end = self.starts[first], self.starts[min(first + self.group, len(self.windows))]
        inside = self.starts[place] + sequence - start
        return int(start + unpermute(inside, end - start, group_keys(self.keys, first // self.group)))


@numba.njit(nogil=True, cache=True)
def group_keys(keys, group):  # type: ignore[no-untyped-def]
    """Return the round keys of a group, made of the epoch's."""
    own = np.empty_like(keys)
    for place in range(len(keys)):
        own[place] = mixed(keys[place] + mixed(np.uint64(group) + np.uint64(1)))
    return own


@numba.njit(nogil=True, cache=True)
def _locate_in_epoch(ordinals, windows, starts, group, keys):  # type: ignore[no-untyped-def]
    found, sequences = np.empty(len(ordinals), np.int64), np.empty(len(ordinals), np.int64)
    known, own = np.int64(-1), keys
    for place in range(len(ordinals)):
        position = np.searchsorted(starts, ordinals[place], side="right") - 1
        number = position // group
        if number != known:
            known, own = number, group_keys(keys, number)
        start, end = starts[number * group], starts[min((number + 1) * group, len(windows))]
        inside = start + permute(ordinals[place] - start, end - start, own)
        position = np.searchsorted(starts, inside, side="right") - 1
        found[place], sequences[place] = windows[position], inside - starts[position]
    return found, sequences
