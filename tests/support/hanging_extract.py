"""An extraction that misbehaves on one page: a transform that workers can import, and what its child process runs.

`main` (RECIPE OUTPUT ENGINE MARKER [KEY=VALUE ...]) runs a recipe with it at the place of every `extract`, and prints
what was done as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

from runs import plan_of

from pipelines.engines.registry import make_engine
from pipelines.plan import Plan
from pipelines.run import run_plan
from pipelines.stage import MapStage
from pipelines.storage.local import LocalStorage
from pipelines.transforms.extract import Extract
from pipelines.transforms.sandbox import Sandbox, sandbox_of

TRIGGER = b"hang here"


def text_or_hang(page: bytes, marker: str) -> bytes:
    """Return the page as it is; one that holds the trigger hangs until the marker is there."""
    while TRIGGER in page and not Path(marker).exists():
        time.sleep(0.01)
    return page


@dataclasses.dataclass(frozen=True, slots=True)
class HangingExtract(Extract):
    """Hangs on one page until a file appears."""

    marker: str = ""

    def sandbox(self) -> Sandbox:
        return sandbox_of("hanging_extract:text_or_hang", marker=self.marker)


def with_hanging(plan: Plan, marker: Path, timeout_seconds: int) -> Plan:
    """Return the plan with every extraction replaced."""
    first = plan.stages[0]
    assert isinstance(first, MapStage)
    hanging = HangingExtract(timeout_seconds=timeout_seconds, marker=str(marker))
    chains = {
        name: dataclasses.replace(
            chain, transforms=tuple(hanging if isinstance(one, Extract) else one for one in chain.transforms)
        )
        for name, chain in first.chains.items()
    }
    return dataclasses.replace(plan, stages=(dataclasses.replace(first, chains=chains), *plan.stages[1:]))


def main() -> None:
    recipe, output, name, marker, *options = sys.argv[1:]
    storage = LocalStorage(Path(output))
    plan = with_hanging(plan_of(Path(recipe), storage), Path(marker), timeout_seconds=2)
    with make_engine(name, 2, dict(option.split("=", 1) for option in options)) as engine:
        result = run_plan(plan, storage, engine, lambda *_: None)
    print(json.dumps({"done": result.num_done, "found": result.num_found, "not_canonical": result.not_canonical}))
