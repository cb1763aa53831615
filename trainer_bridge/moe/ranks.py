"""The ranks of a data-parallel run: who they are, sums over them, and the digests of all in order.

They are the processes that `torchrun` starts, and speak over gloo. A run of one process asks nothing of
`torch.distributed`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch import distributed as dist


@dataclasses.dataclass(frozen=True, slots=True)
class Ranks:
    """This process is `rank` of `world_size`. Every method but `first` is to be called by all of them."""

    rank: int = 0
    world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes logs and checkpoints."""
        return self.rank == 0

    def add(self, values: Tensor) -> Tensor:
        """Replace a tensor by its sum over the ranks, and return it. The same bits on all of them."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Return whether any rank says so."""
        return bool(self.add(torch.tensor(int(flag))).item())

    def gather(self, digests: list[bytes]) -> list[bytes]:
        """Return the digests of rank 0, of rank 1, and so on; each has as many, and all are of one size."""
        if self.world_size == 1:
            return digests
        mine = torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8)
        every = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(every, mine)
        size = len(digests[0])
        joined = b"".join(part.numpy().tobytes() for part in every)
        return [joined[place : place + size] for place in range(0, len(joined), size)]


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the ranks that `torchrun` started (it sets `WORLD_SIZE` and `RANK`); without it there is one."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks()
        return
    dist.init_process_group("gloo")
    try:
        yield Ranks(dist.get_rank(), world_size)
    finally:
        dist.destroy_process_group()
