"""The stream: sequence i of a plan as a pure function, for any i, at any time, on any machine.

A position is looked up downwards: the phase, by the Huffman-Bresenham interleaving the source and its ordinal, by the
epoch's keyed permutation the window and its sequence, by best-fit-decreasing the pieces of documents. World size,
workers and prefetching never enter. Memory: the pack indexes' counts (8 bytes a window and source), the orders of a few
epochs, and the windows that are open; tokens stay mapped.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Literal

import numpy as np

from mixtures.documents import Documents
from mixtures.errors import PlanError
from mixtures.order import EpochOrder, Interleave
from mixtures.pack_index import PackIndex, PackKey
from mixtures.packing import window_bounds
from mixtures.plan import PackReference, Phase, PhaseSource, Plan
from mixtures.planner import pack_key
from tokenizer.columns import running_total
from trainer_bridge.batch import Batch, Pieces, fill_bounds, fill_padding, fill_pieces
from trainer_bridge.errors import StreamError
from trainer_bridge.window import PackingRule, Window, load_window

Part = Literal["training", "validation"]
"""Which documents of a plan: those that steps see, or those held out of them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a sequence comes from: everything that is looked up on the way to it. `window` counts in the manifest."""

    phase: int
    source: str
    epoch: int
    ordinal: int
    manifest: int
    window: int
    sequence: int


class Stream:
    """The sequences of a plan's `part`; see the module docstring. Not to be shared between threads."""

    def __init__(self, plan: Plan, part: Part = "training", open_windows: int | None = None) -> None:
        self.plan = plan
        self.part = part
        windows = open_windows or max(16, 2 * plan.windows.group * len(plan.sources))
        self._phases = [_PhaseStream(plan, place, part, windows) for place in range(len(plan.phases))]
        self._bounds = running_total(np.array([phase.total for phase in self._phases], np.int64))

    def __len__(self) -> int:
        """Return the number of sequences."""
        return int(self._bounds[-1])

    def sequence(self, position: int) -> Batch:
        """Return the sequence at a position, as a batch of one."""
        return self.batch(position, 1)

    def batch(self, first: int, count: int) -> Batch:
        """Return sequences [first, first + count), all of one phase. Raises `StreamError` where there are none."""
        phase, start = self._within(first, count)
        return phase.batch(first, start, count, count)

    def step(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a rank's contiguous run of a global batch (steps count from 0 over all phases).

        The last step of a phase is filled with empty sequences. Raises `StreamError` for a step or rank there is not.
        """
        inside = step
        for phase, settings, begin in zip(self._phases, self.plan.phases, self._bounds, strict=False):
            if 0 <= inside < settings.steps:
                share = _share(settings.global_batch, rank, world_size)
                start = inside * settings.global_batch + rank * share
                real = max(0, min(share, phase.total - start))
                return phase.batch(int(begin) + start, min(start, phase.total), real, share)
            inside -= settings.steps
        raise StreamError(
            f"step {step:,}: the plan has {self.plan.steps:,} steps, counted from 0\nhint: name a lower one"
        )

    def places(self, first: int, count: int) -> Iterator[Place]:
        """Yield where sequences [first, first + count) come from."""
        phase, start = self._within(first, count)
        yield from phase.places(start, count)

    def positions(self, source: int, manifest: int, document: int) -> list[int]:
        """Return every position of the run whose sequence holds a piece of a document, ascending: the way back."""
        found: list[int] = []
        for phase, begin in zip(self._phases, self._bounds, strict=False):
            found += [int(begin) + place for place in phase.positions(source, manifest, document)]
        return found

    def step_of(self, position: int) -> tuple[int, int]:
        """Return the step (over all phases) and the row of the sequence at a position."""
        _, start = self._within(position, 1)
        place = int(np.searchsorted(self._bounds, position, side="right")) - 1
        before = sum(phase.steps for phase in self.plan.phases[:place])
        step, row = divmod(start, self.plan.phases[place].global_batch)
        return before + step, row

    def documents(self, source: int, manifest: int) -> Documents:
        """Return the documents that pieces of a batch count in."""
        return self._phases[0].documents(source, manifest)

    def _within(self, first: int, count: int) -> tuple[_PhaseStream, int]:
        """Return the phase of these positions, and the first one's place in it."""
        place = int(np.searchsorted(self._bounds, first, side="right")) - 1
        known = 0 <= first <= first + count <= len(self)
        if not known or (count and first + count > self._bounds[place + 1]):
            raise StreamError(
                f"sequences {first:,} to {first + count:,}: the plan has {len(self):,}, in phases that end at "
                f"{', '.join(f'{bound:,}' for bound in self._bounds[1:])}\nhint: ask for positions of one phase"
            )
        place = min(place, len(self._phases) - 1)
        return self._phases[place], first - int(self._bounds[place])


def _share(global_batch: int, rank: int, world_size: int) -> int:
    if world_size < 1 or global_batch % world_size or not 0 <= rank < world_size:
        raise StreamError(
            f"rank {rank} of {world_size}: the global batch of {global_batch:,} sequences is dealt out in equal runs\n"
            "hint: take a number of ranks that divides it"
        )
    return global_batch // world_size


class _PhaseStream:
    """The sequences of one phase, counted from 0."""

    def __init__(self, plan: Plan, place: int, part: Part, open_windows: int) -> None:
        self._plan, self._place, self._phase = plan, place, plan.phases[place]
        self._sources = [_SourceOrder(plan, self._phase, name, part) for name in plan.sources]
        self._names = list(plan.sources)
        counts = [source.given for source in self._sources]
        self._interleave = Interleave.of(counts)
        self.total = sum(counts)
        self._window = functools.lru_cache(maxsize=open_windows)(self._load)

    def documents(self, source: int, manifest: int) -> Documents:
        return self._sources[source].documents[manifest]

    def batch(self, position: int, start: int, count: int, rows: int) -> Batch:
        """Return sequences [start, start + count), which are at `position` in the run, and empty ones up to `rows`."""
        located = self._locate(start, count)
        windows = [self._window(*where[:3]) for where in located]
        firsts = [int(window.packing.offsets[where[3]]) for window, where in zip(windows, located, strict=True)]
        lasts = [int(window.packing.offsets[where[3] + 1]) for window, where in zip(windows, located, strict=True)]
        sizes = np.zeros(rows, np.int64)
        sizes[:count] = np.subtract(lasts, firsts)
        batch = _empty_batch(position, rows, self._phase.length, running_total(sizes))
        arrays = (batch.tokens, batch.labels, batch.weights, batch.positions)
        for row, (window, where) in enumerate(zip(windows, located, strict=True)):
            _fill_row(batch, row, where, window, firsts[row], lasts[row], arrays)
        return _finished(batch, self._plan.tokenizer.end_of_text, arrays)

    def places(self, start: int, count: int) -> Iterator[Place]:
        _, ordinals = self._interleave.locate(start, count)
        for (source, manifest, window, sequence), ordinal in zip(self._locate(start, count), ordinals, strict=True):
            order = self._sources[source]
            epoch, inside = order.epoch_of(int(ordinal))
            yield Place(self._place, self._names[source], epoch, inside, manifest, window, sequence)

    def positions(self, source: int, manifest: int, document: int) -> list[int]:
        ordinals = self._sources[source].ordinals(manifest, document)
        return sorted(self._interleave.position(source, ordinal) for ordinal in ordinals)

    def _locate(self, start: int, count: int) -> list[tuple[int, int, int, int]]:
        """Return (source, manifest, window of the manifest, sequence of the window) of each position."""
        sources, ordinals = self._interleave.locate(start, count)
        located = np.empty((count, 4), np.int64)
        located[:, 0] = sources
        for source in np.unique(sources):
            rows = np.flatnonzero(sources == source)
            located[rows, 1], located[rows, 2], located[rows, 3] = self._sources[source].locate(ordinals[rows])
        return [(row[0], row[1], row[2], row[3]) for row in located.tolist()]

    def _load(self, source: int, manifest: int, window: int) -> Window:
        return self._sources[source].load(manifest, window)


class _SourceOrder:
    """A source in a phase: the order of its sequences, and its windows."""

    def __init__(self, plan: Plan, phase: Phase, name: str, part: Part) -> None:
        planned, inside = plan.sources[name], phase.sources[name]
        if planned.reserved:
            raise PlanError(
                f"{plan.path}: sources.{name}.reserved: {planned.reserved} tokens are kept free for each document, and "
                "this version has nothing to put there\nhint: use the version that made the plan"
            )
        self._rule = PackingRule(phase.length, planned.reserved, planned.cut, plan.validation, part == "validation")
        self._key = (plan.seed, name, part)
        self._group = plan.windows.group
        self.documents = [Documents(plan.open_manifest(reference)) for reference in planned.manifests]
        self._bounds = [window_bounds(len(documents), plan.windows.documents) for documents in self.documents]
        indexes = [
            _open_index(plan, pack, pack_key(planned, reference, phase.length, plan.windows, plan.validation))
            for reference, pack in zip(planned.manifests, inside.packs, strict=True)
        ]
        _check_sums(plan, name, inside, indexes)
        counts = [index.held_out_sequences if part == "validation" else index.sequences for index in indexes]
        self._counts = np.concatenate([np.empty(0, np.int64), *counts])
        self._first_window = running_total(np.array([len(count) for count in counts], np.int64))
        self._unique = int(self._counts.sum())
        self._start = inside.start.epochs * self._unique + inside.start.sequences if part == "training" else 0
        self.given = inside.sequences if part == "training" else self._unique
        self._order = functools.lru_cache(maxsize=2)(self._order_of_epoch)

    def epoch_of(self, ordinal: int) -> tuple[int, int]:
        """Return the epoch of an ordinal of this phase, and its place in that epoch's order."""
        return divmod(self._start + ordinal, self._unique)

    def locate(self, ordinals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return manifest, window of the manifest and sequence of the window for each ordinal of this phase."""
        epochs, inside = np.divmod(self._start + ordinals, self._unique)
        windows, sequences = np.empty_like(ordinals), np.empty_like(ordinals)
        for epoch in np.unique(epochs).tolist():
            rows = epochs == epoch
            windows[rows], sequences[rows] = self._order(epoch).locate(inside[rows])
        manifests = np.searchsorted(self._first_window, windows, side="right") - 1
        return manifests, windows - self._first_window[manifests], sequences

    def ordinals(self, manifest: int, document: int) -> list[int]:
        """Return the ordinals of this phase that hold a piece of a document; none if it is of another part."""
        if not self._unique:
            return []
        window = int(np.searchsorted(self._bounds[manifest], document, side="right")) - 1
        loaded, number = self.load(manifest, window), int(self._first_window[manifest]) + window
        pieces = np.flatnonzero(loaded.packing.document == document - loaded.first)
        sequences = np.searchsorted(loaded.packing.offsets, pieces, side="right") - 1
        found = []
        for epoch in range(self._start // self._unique, -(-(self._start + self.given) // self._unique)):
            for sequence in sequences.tolist():
                ordinal = epoch * self._unique + self._order(epoch).ordinal(number, sequence) - self._start
                if 0 <= ordinal < self.given:
                    found.append(ordinal)
        return found

    def load(self, manifest: int, window: int) -> Window:
        """Read and pack a window. `PlanError` where it makes other sequences than the pack index says."""
        bounds = self._bounds[manifest]
        loaded = load_window(self.documents[manifest], int(bounds[window]), int(bounds[window + 1]), self._rule)
        expected = int(self._counts[self._first_window[manifest] + window])
        if len(loaded) != expected:
            path = self.documents[manifest].manifest.path
            raise PlanError(
                f"{path}: window {window} makes {len(loaded)} sequences, the pack index says {expected}\n"
                "hint: the shards have changed since the plan was made: check them with `headrace verify`"
            )
        return loaded

    def _order_of_epoch(self, epoch: int) -> EpochOrder:
        return EpochOrder.of(self._counts, self._group, *self._key, epoch)


def _check_sums(plan: Plan, name: str, inside: PhaseSource, indexes: list[PackIndex]) -> None:
    """Refuse a plan whose counts are not those of its pack indexes."""
    for part in ("unique", "held_out"):
        for count in ("documents", "tokens", "targets", "cut", "sequences"):
            found = sum(getattr(getattr(index, part), count) for index in indexes)
            expected = getattr(getattr(inside, part), count)
            if found != expected:
                raise PlanError(
                    f"{plan.path}: {name}: {part}.{count} is {expected:,}, its pack indexes have {found:,}\n"
                    "hint: the plan was edited: make it anew with `headrace mix`"
                )


def _open_index(plan: Plan, pack: PackReference, key: PackKey) -> PackIndex:
    index = PackIndex.load(plan.file(pack.path), key)
    if index.sha256 != pack.sha256:
        raise PlanError(
            f"{index.path}: has the hash {index.sha256}, the plan names {pack.sha256}\n"
            "hint: remove it and make the plan anew with `headrace mix`, which then has the same fingerprint"
        )
    return index


def _empty_batch(position: int, rows: int, length: int, offsets: np.ndarray) -> Batch:
    """Return the arrays of a batch to be filled; `offsets` are those of its rows' pieces."""
    shape, pieces = (rows, length), int(offsets[-1])
    columns = (np.empty(pieces, np.int64) for _ in range(5))
    # a bound before each piece, one behind the last, and one behind the padding where there is some
    cu_offsets = offsets + 2 * np.arange(rows + 1)
    return Batch(
        position,
        np.empty(shape, np.int32),
        np.empty(shape, np.int32),
        np.empty(shape, np.int16),
        np.empty(shape, np.int32),
        np.empty(int(cu_offsets[-1]), np.int32),
        cu_offsets,
        np.zeros(rows, np.int32),
        Pieces(offsets, *columns),
    )


def _fill_row(
    batch: Batch,
    row: int,
    where: tuple[int, int, int, int],
    window: Window,
    first: int,
    last: int,
    arrays: tuple[np.ndarray, ...],
) -> None:
    """Write the window's pieces [first, last) into a row, and what they are."""
    packing, inside = window.packing, slice(batch.pieces.offsets[row], batch.pieces.offsets[row + 1])
    for shard, tokens in window.tokens.items():
        fill_pieces(
            row, first, last, shard, tokens, window.shards, window.origins, window.lengths,
            packing.document, packing.start, packing.size, window.plain, window.spans, arrays,
        )  # fmt: skip
    batch.pieces.source[inside], batch.pieces.manifest[inside] = where[:2]
    batch.pieces.document[inside] = packing.document[first:last]
    batch.pieces.document[inside] += window.first
    batch.pieces.start[inside] = packing.start[first:last]
    batch.pieces.size[inside] = packing.size[first:last]


def _finished(batch: Batch, end_of_text: int, arrays: tuple[np.ndarray, ...]) -> Batch:
    """Return the batch with its bounds and padding; a row without padding has no bound behind it."""
    length, pieces = batch.tokens.shape[1], batch.pieces
    kept = np.ones(len(batch.cu_seqlens), np.bool_)
    for row in range(len(batch)):
        bounds = batch.bounds(row)
        used = fill_bounds(bounds, pieces.size[pieces.offsets[row] : pieces.offsets[row + 1]], length)
        fill_padding(row, used, end_of_text, arrays)
        batch.used[row] = used
        kept[batch.cu_offsets[row + 1] - 1] = used < length
    cu_offsets = running_total(kept)[batch.cu_offsets]
    return dataclasses.replace(batch, cu_seqlens=batch.cu_seqlens[kept], cu_offsets=cu_offsets)
