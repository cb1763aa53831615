"""A batch of packed sequences as flat arrays: what a trainer needs, and what says where every token comes from.

Shapes: B sequences, T tokens a sequence. Invariants: a label is the next token of the same document, -100 where there
is none or where it bears no loss (weight 0); positions count from 0 in each piece; padding is end-of-text at the end of
a sequence, bears no loss and is a segment of its own.
"""

from __future__ import annotations

import dataclasses

import numba
import numpy as np
import xxhash

from tokenizer.chat import FULL_WEIGHT

IGNORED = -100
"""The label of a position that bears no loss: what PyTorch's cross entropy ignores."""

PADDING = -1
"""The number of the segment of padding, which counts in no statistic (any negative number would say so)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of documents in a batch, in order; those of row r are `offsets[r]:offsets[r + 1]`.

    All int64: `source` (its place in the plan), `manifest` (its place in the source), `document` (its place in the
    manifest's canonical order), `start` (the piece's first token in the document), `size` (tokens).
    """

    offsets: np.ndarray
    source: np.ndarray
    manifest: np.ndarray
    document: np.ndarray
    start: np.ndarray
    size: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Sequences `first`, `first + 1`, ... of a run (or empty ones that fill its last step).

    `tokens`, `labels`, `positions` int32 and `weights` int16 have shape (B, T). `cu_seqlens` (int32) are the bounds of
    the segments, from 0 to T, of row r at `cu_offsets[r]:cu_offsets[r + 1]`; `used` (int32, shape (B,)) are tokens
    before the padding.
    """

    first: int
    tokens: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    positions: np.ndarray
    cu_seqlens: np.ndarray
    cu_offsets: np.ndarray
    used: np.ndarray
    pieces: Pieces

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.tokens)

    def bounds(self, row: int) -> np.ndarray:
        """Return the segment bounds of a row (`cu_seqlens`, from 0 to T)."""
        return self.cu_seqlens[self.cu_offsets[row] : self.cu_offsets[row + 1]]

    def segments(self) -> np.ndarray:
        """Return the number of each token's segment within its row, `PADDING` in the padding (int32, shape (B, T))."""
        segments = np.empty(self.tokens.shape, np.int32)
        _number_segments(segments, self.cu_seqlens, self.cu_offsets, self.used)
        return segments

    def digests(self) -> list[bytes]:
        """Return the digest of each sequence: xxh3_128 of its tokens, labels, weights and bounds, little endian."""
        return [self._digest(row) for row in range(len(self))]

    def _digest(self, row: int) -> bytes:
        digest = xxhash.xxh3_128()
        for part in (self.tokens[row], self.labels[row], self.weights[row], self.bounds(row)):
            digest.update(np.ascontiguousarray(part, part.dtype.newbyteorder("<")).view(np.uint8).data)
        return digest.digest()


def step_digest(digests: list[bytes]) -> str:
    """Return the digest of a step (hex): xxh3_128 of its sequences' digests in order, whichever rank had them."""
    return xxhash.xxh3_128_hexdigest(b"".join(digests))


@numba.njit(nogil=True, cache=True)
def _number_segments(segments, cu_seqlens, cu_offsets, used):  # type: ignore[no-untyped-def]
    for row in range(len(segments)):
        first = cu_offsets[row]
        for bound in range(first, cu_offsets[row + 1] - 1):
            number = bound - first if cu_seqlens[bound] < used[row] else PADDING
            segments[row, cu_seqlens[bound] : cu_seqlens[bound + 1]] = number


@numba.njit(nogil=True, cache=True)
def fill_pieces(  # type: ignore[no-untyped-def]
    row, first, last, shard, shard_tokens, shards, origins, lengths, document, start, size, plain, spans, outputs
):
    """Write the pieces [first, last) that lie in `shard` into row `row` of `outputs`.

    `spans`: (offsets by document, starts, ends, weights); `outputs`: (tokens, labels, weights, positions).
    """
    tokens, labels, weights, positions = outputs[0][row], outputs[1][row], outputs[2][row], outputs[3][row]
    place = 0
    for piece in range(first, last):
        number, begin, count = document[piece], start[piece], size[piece]
        end = place + count
        if shards[number] == shard:
            origin = origins[number] + begin
            # the last label of a piece is the document's next token where it was cut, else there is none
            followed = begin + count < lengths[number]
            _copy(shard_tokens[origin : origin + count], tokens[place:end])
            _copy(shard_tokens[origin + 1 : origin + count + followed], labels[place:end])
            _count(positions[place:end])
            weights[place:end] = FULL_WEIGHT
            if not followed:
                labels[end - 1] = IGNORED
                weights[end - 1] = 0
            if not plain[number]:
                _weigh(labels[place:end], weights[place:end], begin, number, spans)
        place = end


@numba.njit(nogil=True, cache=True)
def _copy(source, target):  # type: ignore[no-untyped-def]
    """Copy all of one array to the head of another, in a loop of its own, which becomes vector instructions."""
    for place in range(len(source)):
        target[place] = source[place]


@numba.njit(nogil=True, cache=True)
def _count(target):  # type: ignore[no-untyped-def]
    for place in range(len(target)):
        target[place] = place


@numba.njit(nogil=True, cache=True)
def _weigh(labels, weights, begin, number, spans):  # type: ignore[no-untyped-def]
    """Give each label of a piece the weight of the span that its token (the next one) lies in, else none."""
    offsets, starts, ends, span_weights = spans
    span, last = offsets[number], offsets[number + 1]
    for k in range(len(labels)):
        target = begin + k + 1
        while span < last and ends[span] <= target:
            span += 1
        if span < last and starts[span] <= target:
            if labels[k] != IGNORED:
                weights[k] = span_weights[span]
        else:
            labels[k] = IGNORED
            weights[k] = 0


@numba.njit(nogil=True, cache=True)
def fill_bounds(bounds, sizes, length):  # type: ignore[no-untyped-def]
    """Write the bounds of segments of these sizes, and of the padding behind them, and return the tokens used."""
    bounds[0] = 0
    for piece in range(len(sizes)):
        bounds[piece + 1] = bounds[piece] + sizes[piece]
    used = bounds[len(sizes)]
    bounds[len(bounds) - 1] = length
    return used


@numba.njit(nogil=True, cache=True)
def fill_padding(row, used, end_of_text, outputs):  # type: ignore[no-untyped-def]
    """Fill row `row` from token `used` on with end-of-text that bears no loss."""
    tokens, labels, weights, positions = outputs
    for place in range(used, tokens.shape[1]):
        tokens[row, place] = end_of_text
        labels[row, place] = IGNORED
        weights[row, place] = 0
        positions[row, place] = place - used
