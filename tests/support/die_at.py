"""Run a recipe again and again, each time killed at another point, then once more to the end. Prints a line a point.

    python tests/support/die_at.py RECIPE FOLDER [--every N]

The first run is whole: its log numbers the write operations. Each further run happens in a forked child that dies with
SIGKILL at its point; a second child finishes the job. FOLDER/reference and FOLDER/killed-N-WHEN are then compared. Each
kind of operation of each stage is tried before, in the middle and after; `--every N` tries every Nth operation at all.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import runs  # imported before any fork, so that no child pays for it
from faulty_storage import WHENS, FaultyStorage, Point
from trees import tree_hashes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=0)
    options = parser.parse_args()
    runs.run_recipe(options.recipe, options.folder / "warm")  # loads kernels and vocabularies for all children
    reference, log = options.folder / "reference", options.folder / "reference.log"
    assert in_child(lambda: runs.run_recipe(options.recipe, FaultyStorage(reference, log=log))) == 0
    expected, operations = tree_hashes(reference), log.read_text().splitlines()
    for number in chosen(operations, options.every):
        for when in WHENS:
            killed = options.folder / "killed"
            shutil.rmtree(killed, ignore_errors=True)
            storage = FaultyStorage(killed, log=killed.with_suffix(".log"), point=Point(number, when))
            storage.log.unlink(missing_ok=True)
            status = in_child(lambda storage=storage: runs.run_recipe(options.recipe, storage))
            committed = stage_commits(killed)
            again = options.folder / "again.json"
            finished = in_child(lambda killed=killed, again=again: finish(options.recipe, killed, again))
            counts = json.loads(again.read_text())
            print(
                json.dumps(
                    {
                        "operation": operations[number],
                        "when": when,
                        "killed": status == -signal.SIGKILL,
                        "finished": finished == 0,
                        "same": tree_hashes(killed) == expected,
                        "all": stage_commits(reference),
                        "committed": committed,
                        **counts,
                    }
                ),
                flush=True,
            )


def stage_commits(output: Path) -> int:
    """Count the splits and buckets that are committed, without the scatters of unfinished group stages."""
    return len(list(output.glob("stages/*/commits/*.json")))


def finish(recipe: Path, output: Path, counts: Path) -> None:
    """Run to the end and note how much was done and found."""
    result = runs.run_recipe(recipe, output)
    counts.write_text(json.dumps({"done": result.num_done, "found": result.num_found}))


def chosen(operations: list[str], every: int) -> list[int]:
    """Return one operation of each kind in each stage, or every Nth."""
    if every:
        return list(range(0, len(operations), every))
    kinds: dict[str, int] = {}
    for number, operation in enumerate(operations):
        kind = re.sub(r"[0-9a-f]{8,}(-[0-9a-f]{8,})?|shard-\d+", "*", operation)
        kinds[kind] = number  # the last of its kind: others of the stage are committed then
    return sorted(kinds.values())


def in_child(work: Callable[[], object]) -> int:
    """Do the work in a forked child with a process group of its own; returns its exit status (-9: killed)."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
