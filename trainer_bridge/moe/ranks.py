"""Data-parallel ranks: this process's number among those that `torchrun` started, and sums over all of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed


@dataclasses.dataclass(frozen=True, slots=True)
class Ranks:
    """Rank `rank` of `world_size`; with one rank every call returns at once what it was given."""

    rank: int = 0
    world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add up a tensor over the ranks, in place."""
        if self.world_size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def gather(self, value: list[Any]) -> list[Any]:
        """Return the ranks' lists one after the other."""
        if self.world_size == 1:
            return value
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return [item for some in values for item in some]

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            distributed.barrier()


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the ranks that `torchrun` started (by its environment variables), or be the only one."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks()
        return
    distributed.init_process_group("gloo")
    try:
        yield Ranks(distributed.get_rank(), world_size)
    finally:
        distributed.destroy_process_group()
