"""Ranks that are threads of one process: what `torch.distributed` does between processes, for tests of any number."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from torch import Tensor

Result = TypeVar("Result")


class ThreadRanks:
    """Stands in for `trainer_bridge.moe.ranks.Ranks`."""

    def __init__(self, rank: int, world_size: int, barrier: threading.Barrier, board: list[Any]) -> None:
        self.rank, self.world_size = rank, world_size
        self._barrier, self._board = barrier, board

    @property
    def first(self) -> bool:
        return self.rank == 0

    def add(self, values: Tensor) -> Tensor:
        every = self._exchange(values.clone())
        total = every[0]
        for other in every[1:]:
            total = total + other
        return values.copy_(total)

    def any(self, flag: bool) -> bool:
        return any(self._exchange(flag))

    def gather(self, digests: list[bytes]) -> list[bytes]:
        return [digest for part in self._exchange(digests) for digest in part]

    def _exchange(self, mine: Any) -> list[Any]:
        self._board[self.rank] = mine
        self._barrier.wait(60)
        every = list(self._board)
        self._barrier.wait(60)
        return every


def on_ranks(world_size: int, work: Callable[[ThreadRanks], Result]) -> list[Result]:
    """Return what each rank's call returns."""
    barrier, board = threading.Barrier(world_size), [None] * world_size
    ranks = [ThreadRanks(rank, world_size, barrier, board) for rank in range(world_size)]
    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(work, ranks))
