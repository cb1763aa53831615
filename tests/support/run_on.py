"""Run a recipe on an engine in a process of its own, where workers may die. Prints what was done as one line of JSON.

    python tests/support/run_on.py RECIPE OUTPUT ENGINE [KEY=VALUE ...] [--workers N] [--death "publish stages/1 half"]
                                   [--failing SOURCE HOW]

OUTPUT may be s3://. Deaths need a local OUTPUT; they happen once each, whoever comes first (see mortal_storage.py).
A failing transform (failing_transform.py) goes to the head of a source's chain.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from pathlib import Path

from failing_transform import with_failing
from mortal_storage import MortalStorage
from runs import plan_of

from pipelines.engines.registry import make_engine
from pipelines.errors import HeadraceError
from pipelines.run import run_plan
from pipelines.storage.schemes import open_output


def main() -> None:
    logging.getLogger("py4j").setLevel(logging.ERROR)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs are born without
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", type=Path)
    parser.add_argument("output")
    parser.add_argument("engine")
    parser.add_argument("options", nargs="*")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--death", action="append", default=[])
    parser.add_argument("--failing", nargs=2)
    given = parser.parse_args()
    storage = open_output(given.output)
    if given.death:
        marks = Path(f"{given.output}-deaths")
        marks.mkdir(exist_ok=True)
        storage = MortalStorage(Path(given.output), marks, tuple(given.death))
    plan = plan_of(given.recipe, storage)
    if given.failing:
        plan = with_failing(plan, *given.failing)
    try:
        with make_engine(given.engine, given.workers, dict(option.split("=", 1) for option in given.options)) as engine:
            result = run_plan(plan, storage, engine, lambda *_: None)
    except HeadraceError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(json.dumps({"done": result.num_done, "found": result.num_found}))


if __name__ == "__main__":
    main()
