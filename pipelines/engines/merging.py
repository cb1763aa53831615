"""An external merge sort of record batches: any number of rows in bounded memory.

Sorted runs of small batches are merged in rounds. The bound of a round is the smallest row that ends what is buffered
of a run with more to come: no row up to it can still arrive. Of every run only the rows up to the bound are taken,
found by comparing columns with it, and sorted together, so that a row is sorted once however its run is mixed with
others, and not at all where its run is alone. More runs than may be open at once are first merged in groups into
temporary files.

The order is that of `pyarrow.compute.sort_indices`, ascending and nulls last; rows that tie stay in the order of
their runs. Keys may be of any type that compares and sorts in Arrow, but for floats (their NaN compares with nothing).
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import OutputError
from pipelines.sources.source import BatchLimits

RUN_LIMITS = BatchLimits(max_rows=1 << 14, max_bytes=1 << 20)
"""Of the batches of a run. A larger row is a batch of its own; rows of a few bytes need many for a batch to pay."""

AHEAD = 2
"""Batches buffered of every run: while one is used up, a whole one lies behind it, so a round takes about one a run."""

FAN_IN = 64
"""The most runs that are merged at once: each holds a file open and `AHEAD` batches in memory."""

BUFFERED_BYTES = AHEAD * FAN_IN * RUN_LIMITS.max_bytes
"""What all buffers of a merge may hold. Runs with larger batches are merged in smaller numbers, down to two."""

IPC_READ, IPC_WRITE = (
    pa.ipc.IpcReadOptions(use_threads=False),
    pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False),
)
"""How runs are written and read."""


class Run(Protocol):
    """Rows in order, as batches within `RUN_LIMITS`, that can be read once or often."""

    @property
    def largest(self) -> int:
        """The size of its largest batch in memory, in bytes."""
        ...

    def read(self) -> Generator[pa.RecordBatch, None, None]:
        """Yield the batches; what is held open is closed at the end, or with the generator."""
        ...


def merge(
    runs: Sequence[Run], schema: pa.Schema, names: Sequence[str], limits: BatchLimits
) -> Generator[pa.RecordBatch, None, None]:
    """Yield the rows of all runs, ordered by the columns `names`, in batches within `limits` (one row may be larger).

    In memory are `BUFFERED_BYTES`, as much again for the rows of a round, and two batches of output. Temporary files
    have no names and end with the generator. Raises `OutputError` when they find no space.
    """
    fan_in = _fan_in(runs)
    with ExitStack() as stack:
        if len(runs) > fan_in:
            bounds = [len(runs) * number // fan_in for number in range(fan_in + 1)]
            parts = [runs[start:stop] for start, stop in zip(bounds, bounds[1:], strict=False)]
            runs = [part[0] if len(part) == 1 else _spill(part, schema, names, stack) for part in parts]
        yield from _batched(stack.enter_context(closing(_rounds(runs, names))), limits)


def order_of(rows: pa.RecordBatch, names: Sequence[str]) -> pa.Array:
    """Return the stable order of rows by the columns `names` (uint64 places), ascending, nulls last."""
    return pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in dict.fromkeys(names)])


def take(rows: pa.RecordBatch, places: pa.Array, limits: BatchLimits) -> Iterator[pa.RecordBatch]:
    """Yield the rows at `places`, in batches within `limits`; copies about one batch at a time."""
    fitting = len(rows) * limits.max_bytes // max(rows.nbytes, 1)
    step = max(1, min(limits.max_rows, fitting))
    for start in range(0, len(places), step):
        yield from cut(rows.take(places.slice(start, step)), limits)


def cut(rows: pa.RecordBatch, limits: BatchLimits) -> Iterator[pa.RecordBatch]:
    """Yield slices of the rows within `limits`; a row that is larger than `max_bytes` alone."""
    if rows.num_rows <= limits.max_rows and (rows.num_rows < 2 or rows.nbytes <= limits.max_bytes):
        if rows.num_rows:
            yield rows
        return
    half = (rows.num_rows + 1) // 2
    yield from cut(rows.slice(0, half), limits)
    yield from cut(rows.slice(half), limits)


def _fan_in(runs: Sequence[Run]) -> int:
    """Return how many of these runs (and of the spilled ones that are made of them) may be merged at once."""
    largest = max([RUN_LIMITS.max_bytes, *(run.largest for run in runs)])
    return max(2, min(FAN_IN, BUFFERED_BYTES // (AHEAD * largest)))


@dataclasses.dataclass(frozen=True, slots=True)
class _SpilledRun:
    """A run in a temporary file without a name, which is gone once it is read, closed, or its process ends."""

    file: BinaryIO
    largest: int

    def read(self) -> Generator[pa.RecordBatch, None, None]:
        """Yield the batches, once."""
        with self.file:
            self.file.seek(0)
            yield from pa.ipc.open_stream(self.file, options=IPC_READ)


def _spill(runs: Sequence[Run], schema: pa.Schema, names: Sequence[str], stack: ExitStack) -> _SpilledRun:
    """Merge runs into one in a temporary file that `stack` closes."""
    with _explained():
        file = stack.enter_context(tempfile.TemporaryFile(prefix="headrace-"))  # noqa: SIM115 (the stack closes it)
    largest = 0
    with closing(merge(runs, schema, names, RUN_LIMITS)) as batches:
        with _explained():
            writer = pa.ipc.new_stream(file, schema, options=IPC_WRITE)
        for batch in batches:
            largest = max(largest, batch.nbytes)
            with _explained():
                writer.write_batch(batch)
    with _explained():
        writer.close()
        file.flush()
    return _SpilledRun(file, largest)


@contextmanager
def _explained() -> Iterator[None]:
    """Say of a failed write that it was to a temporary file."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"a temporary file of a group cannot be written: {error.strerror or error}\n"
            "hint: point TMPDIR to a folder with as much space as the group's input"
        ) from error


class _Buffer:
    """What was read of a run and not taken yet: up to `AHEAD` batches, in order, the first of them maybe a rest."""

    __slots__ = ("_batches", "_names", "done", "held")

    def __init__(self, batches: Iterator[pa.RecordBatch], names: Sequence[str]) -> None:
        self._batches, self._names = batches, names
        self.held: list[pa.RecordBatch] = []
        self.done = False

    def fill(self) -> bool:
        """Read until full or done; whether any row is left."""
        while not self.done and len(self.held) < AHEAD:
            batch = next(self._batches, None)
            if batch is None:
                self.done = True
            elif batch.num_rows:
                self.held.append(batch)
        return bool(self.held)

    def edges(self) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """Return the keys of its first and of its last row."""
        first, last = self.held[0].select(self._names), self.held[-1].select(self._names)
        return first.slice(0, 1), last.slice(last.num_rows - 1)

    def pop(self) -> list[pa.RecordBatch]:
        """Take everything."""
        held, self.held = self.held, []
        return held

    def pop_until(self, bound: pa.RecordBatch, ties: bool) -> list[pa.RecordBatch]:
        """Take the rows before the bound, or (`ties`) up to it; the last row lies behind it."""
        taken: list[pa.RecordBatch] = []
        for place, batch in enumerate(self.held):
            num = _count_until(batch.select(self._names), bound, ties)
            if num:
                taken.append(batch.slice(0, num))
            if num < batch.num_rows:
                self.held = [batch.slice(num), *self.held[place + 1 :]]
                return taken
        raise AssertionError("the last row of a buffer that is cut lies behind the bound")


def _rounds(runs: Sequence[Run], names: Sequence[str]) -> Generator[pa.RecordBatch, None, None]:
    """Yield the rows of the runs in order, in batches of any size within `RUN_LIMITS`."""
    names = list(dict.fromkeys(names))
    with ExitStack() as stack:
        buffers = [_Buffer(stack.enter_context(closing(run.read())), names) for run in runs]
        while buffers := [buffer for buffer in buffers if buffer.fill()]:
            taken = _take_round(buffers)
            if len(taken) == 1:
                yield from taken[0]
                continue
            rows = pa.concat_batches([batch for batches in taken for batch in batches])
            del taken
            yield from take(rows, order_of(rows, names), RUN_LIMITS)
            del rows


def _take_round(buffers: Sequence[_Buffer]) -> list[list[pa.RecordBatch]]:
    """Take the rows of a round: for every run that has any, its own in order."""
    if len(buffers) == 1:
        return [buffers[0].pop()]
    edges = pa.concat_batches([edge for buffer in buffers for edge in buffer.edges()])
    ranks = np.empty(len(edges), np.int64)
    ranks[order_of(edges, edges.schema.names).to_numpy()] = np.arange(len(edges))
    heads, tails = ranks[0::2], ranks[1::2]
    ends = np.where([buffer.done for buffer in buffers], len(edges), tails)
    last = int(np.argmin(ends))  # of all done runs any will do: nothing lies behind this end
    bound = edges.slice(2 * last + 1, 1)
    taken = []
    for number, buffer in enumerate(buffers):
        if tails[number] <= ends[last]:
            taken.append(buffer.pop())
        elif heads[number] < ends[last]:
            taken.append(buffer.pop_until(bound, ties=number < last))
    return taken


def _count_until(keys: pa.RecordBatch, bound: pa.RecordBatch, ties: bool) -> int:
    """Return how many of the ordered rows `keys` lie before the one row `bound`, or (`ties`) are equal to it.

    Column by column, among the rows that are equal in all columns before.
    """
    start, stop = 0, keys.num_rows
    for column, limit in zip(keys.columns, bound.columns, strict=True):
        equal = column.slice(start, stop - start)
        value = limit[0]
        if value.is_valid:
            before, until = pc.less(equal, value).true_count, pc.less_equal(equal, value).true_count
        else:
            before, until = len(equal) - equal.null_count, len(equal)
        start, stop = start + before, start + until
        if start == stop:
            break
    return stop if ties else start


def _batched(pieces: Iterator[pa.RecordBatch], limits: BatchLimits) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the pieces in batches of `max_rows` rows, or fewer where the next piece would be too large.

    Every batch is a copy, so that none keeps the buffers alive that it is a part of.
    """
    held: list[pa.RecordBatch] = []
    num_rows = num_bytes = 0
    for piece in pieces:
        for rows in cut(piece, limits):
            room, size = limits.max_rows - num_rows, rows.nbytes
            if held and num_bytes + size > limits.max_bytes:
                yield pa.concat_batches(held)
                held, num_rows, num_bytes, room = [], 0, 0, limits.max_rows
            if rows.num_rows >= room:
                yield pa.concat_batches([*held, rows.slice(0, room)])
                held, num_rows, num_bytes, rows = [], 0, 0, rows.slice(room)
            if rows.num_rows:
                held.append(rows)
                num_rows, num_bytes = num_rows + rows.num_rows, num_bytes + rows.nbytes
    if held:
        yield pa.concat_batches(held)
