"""A transform that fails in ways in which libraries fail. In a module of its own, so that workers can import it."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import ClassVar

import pyarrow as pa

from pipelines.plan import Plan
from pipelines.stage import MapStage
from pipelines.transform import EMPTY_SCHEMA


class PanicException(BaseException):
    """What pyo3 raises where Rust panics: no `Exception`, and importable from nowhere."""


class Unpicklable(ValueError):
    """An error that comes back from a pickle as another one."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


@dataclasses.dataclass(frozen=True)
class Failing:
    """Fails on the first batch that has rows."""

    name: ClassVar[str] = "failing"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = EMPTY_SCHEMA
    drops: ClassVar[tuple[str, ...]] = ()
    how: str

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.num_rows:
            self._fail()
        return batch.slice(1) if self.how == "loses a row" else batch

    def _fail(self) -> None:
        match self.how:
            case "error":
                raise ValueError("seven is no colour")
            case "panic":
                raise PanicException("called `Option::unwrap()` on a `None` value")
            case "unpicklable":
                raise Unpicklable(1, 2)
            case "leaves":
                sys.exit(0)
            case "dies":
                os._exit(3)

    def evidence(self, batch: pa.RecordBatch) -> list[list]:
        return [[] for _ in range(batch.num_rows)]


def with_failing(plan: Plan, source: str, how: str) -> Plan:
    """Return the plan with a failing transform at the head of one source's chain."""
    first = plan.stages[0]
    assert isinstance(first, MapStage)
    chains = dict(first.chains)
    chains[source] = dataclasses.replace(chains[source], transforms=(Failing(how), *chains[source].transforms))
    return dataclasses.replace(plan, stages=(dataclasses.replace(first, chains=chains), *plan.stages[1:]))
