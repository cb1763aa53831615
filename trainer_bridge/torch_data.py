"""The stream as a PyTorch dataset: one item a step, the rank's contiguous run of the global batch.

The order does not depend on the loader's workers: worker w of W makes the steps w, w + W, ..., and the loader takes
them in turn. Nor does the state: it counts what the optimizer has consumed (`StreamState.advanced`), not what was
yielded, so batches that were prefetched are made again after a resume.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mixtures.plan import Plan
from trainer_bridge.batch import Batch
from trainer_bridge.stream import Stream


class StepBatch(NamedTuple):
    """A rank's sequences of a step: tensors of shape (B, T), and what says which data they are.

    `tokens`, `labels`, `positions` and `segments` are int32 (a segment's number is negative in the padding), `weights`
    int16 in 1/256. `used` counts tokens that are no padding, `digests` are those of the sequences.
    """

    step: int
    tokens: Tensor
    labels: Tensor
    weights: Tensor
    positions: Tensor
    segments: Tensor
    used: int
    digests: list[bytes]

    @classmethod
    def of(cls, step: int, batch: Batch) -> StepBatch:
        """Return a step's batch as tensors that share its memory."""
        return cls(
            step=step,
            tokens=torch.from_numpy(batch.tokens),
            labels=torch.from_numpy(batch.labels),
            weights=torch.from_numpy(batch.weights),
            positions=torch.from_numpy(batch.positions),
            segments=torch.from_numpy(batch.segments()),
            used=int(batch.used.sum()),
            digests=batch.digests(),
        )


class StreamDataset(IterableDataset[StepBatch]):
    """Steps [first, last) of a plan, as `rank` of `world_size` sees them. Every worker opens a stream of its own."""

    def __init__(self, plan: Path, first: int, last: int, rank: int = 0, world_size: int = 1) -> None:
        self._plan, self._first, self._last = plan, first, last
        self._rank, self._world_size = rank, world_size

    def __iter__(self) -> Iterator[StepBatch]:
        """Yield this worker's steps in order."""
        worker = get_worker_info()
        begin, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        stream = Stream(Plan.load(self._plan))
        for step in range(self._first + begin, self._last, stride):
            yield StepBatch.of(step, stream.step(step, self._rank, self._world_size))


def make_loader(dataset: StreamDataset, workers: int) -> DataLoader[StepBatch]:
    """Return a loader that gives the steps in order, made ahead in `workers` processes (0: in this one, on demand)."""
    if not workers:
        return DataLoader(dataset, batch_size=None)
    # spawned, for kernels and threads of this process must not be forked into the workers
    return DataLoader(
        dataset, batch_size=None, num_workers=workers, multiprocessing_context="spawn", worker_init_fn=_outlive_signals
    )


def _outlive_signals(_worker: int) -> None:
    """Let a worker live until the loader ends it: Ctrl-C reaches the whole group, and the step is to be finished."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
