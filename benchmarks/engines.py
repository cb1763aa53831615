"""What an engine itself costs: a recipe in a bare loop and on each engine, in CPU seconds of all processes.

    python benchmarks/engines.py [--recipe recipes/crawl.yaml] [--bytes 1073741824] [--workers 2] [--json FILE]
                                 [--engines bare,datatrove,spark,beam]

The recipe's sources are repeated under other names (hence with other ids, so that nothing is a copy) until they have so
many bytes. Every engine does the whole run in a process of its own: a loop over the works of each stage with nothing
around it (`bare`), then the engines, each with so many workers. CPU seconds are those of the process and of everything
below it, a JVM and its Python workers included, read from /proc at the ends of the stages; a run over a few records
comes before, so that sessions, models and kernels are there. Outputs are compared: all must have the same ledger.

Map stages above 1.10 times the bare loop on datatrove, or above 1.30 times on Spark, make the exit status 1; `group`
and Beam are printed beside. Beam's runner here is the DirectRunner, which is made for tests.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.engines.engine import DEFAULT_LIMITS, Engine, Progress
from pipelines.engines.registry import make_engine
from pipelines.engines.works import Outcome, Rank, do_rank
from pipelines.plan import build_plan
from pipelines.recipe import Deduplicate, Recipe, load_recipe
from pipelines.run import list_splits, run_plan
from pipelines.stage import MapStage
from pipelines.storage.local import LocalStorage

DEFAULT_RECIPE = Path(__file__).resolve().parents[1] / "recipes/crawl.yaml"
ENGINES = ("bare", "datatrove", "spark", "beam")
BOUNDS = {"datatrove": 1.10, "spark": 1.30}
"""Of the bare loop, for the map stages: what the project promises."""
WARM_UP_RECORDS = 3
PR_SET_CHILD_SUBREAPER = 36  # from <linux/prctl.h>


class BareLoop(Engine):
    """No engine: one work after the other, in this process."""

    name = "bare"
    limits = DEFAULT_LIMITS

    def __exit__(self, *error: object) -> None:
        """There is nothing to let go."""

    def run_ranks(self, ranks: Sequence[Rank], progress: Progress) -> Iterator[Outcome]:
        """Do every rank here."""
        return map(do_rank, ranks)


def tree_cpu() -> float:
    """Return the CPU seconds of this process and of all below it: those that live, and those that were waited for."""
    ticks = 0
    wanted, parents = {os.getpid()}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = (int(fields[1]), sum(int(field) for field in fields[11:15]))
    for pid in sorted(parents):
        chain = [pid]
        while chain[-1] in parents and chain[-1] not in wanted:
            chain.append(parents[chain[-1]][0])
        if chain[-1] in wanted:
            wanted.update(chain)
            ticks += parents[pid][1]
    return ticks / os.sysconf("SC_CLK_TCK")


def repeated(recipe: Recipe, least_bytes: int) -> Recipe:
    """Return the recipe with its sources again and again under other names, until they have so many bytes."""
    plan = build_plan(recipe, LocalStorage(Path("unused")))
    size = sum(file.size for splits in list_splits(plan).values() for file in {f for s in splits for f in s.files})
    sources = []
    for number in range(max(1, -(-least_bytes // size))):
        for entry in recipe.sources:
            source = dataclasses.replace(entry.source, name=f"{entry.source.name}-{number:03d}")  # type: ignore[type-var]
            sources.append(dataclasses.replace(entry, source=source))
    return dataclasses.replace(recipe, sources=tuple(sources), deduplicate=Deduplicate("source"))


@dataclasses.dataclass(slots=True)
class Meter:
    """Notes the CPU time of the process tree whenever a stage is reported for the first time."""

    marks: list[tuple[str, float]] = dataclasses.field(default_factory=list)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take a report."""
        stage = what.partition(" ")[0]
        if not self.marks or self.marks[-1][0] != stage:
            self.marks.append((stage, tree_cpu()))

    def seconds(self) -> dict[str, float]:
        """Return the CPU seconds of each stage, up to the beginning of the next."""
        ends = [cpu for _, cpu in self.marks[1:]] + [tree_cpu()]
        return {stage: end - begin for (stage, begin), end in zip(self.marks, ends, strict=True)}


def measure(engine: str, recipe_path: Path, least_bytes: int, workers: int, folder: Path) -> dict[str, object]:
    """Run the repeated recipe on one engine and return CPU seconds by stage, wall seconds and a hash of the ledger."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # nothing that is orphaned is left uncounted
    options = {"spark.ui.enabled": "false"} if engine == "spark" else {}
    one = BareLoop() if engine == "bare" else make_engine(engine, workers, options)
    with one:
        warm = LocalStorage(folder / "warm")
        run_plan(build_plan(load_recipe(recipe_path, limit=WARM_UP_RECORDS), warm), warm, one, lambda *_: None)
        output = LocalStorage(folder / "out")
        plan = build_plan(repeated(load_recipe(recipe_path), least_bytes), output)
        meter, started = Meter(), time.monotonic()
        run_plan(plan, output, one, meter)
        seconds, wall = meter.seconds(), time.monotonic() - started
    maps = {stage.name for stage in plan.stages if isinstance(stage, MapStage)}
    return {
        "engine": engine,
        "wall": wall,
        "map": sum(cpu for stage, cpu in seconds.items() if stage in maps),
        "group": sum(cpu for stage, cpu in seconds.items() if stage not in maps),
        "stages": seconds,
        "ledger": hashlib.sha256(output.read("ledger.parquet")).hexdigest(),
    }


def in_child(engine: str, options: argparse.Namespace) -> dict[str, object]:
    """Measure one engine in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        command = [
            *(sys.executable, __file__, "--only", engine, "--folder", folder, "--recipe", str(options.recipe)),
            *("--bytes", str(options.bytes), "--workers", str(options.workers)),
        ]
        root = str(Path(__file__).resolve().parents[1])
        done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}, text=True)
        if done.returncode:
            sys.exit(f"{engine}: failed")
        result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return result


def show(results: list[dict[str, object]]) -> list[str]:
    """Print the table and return what is out of bounds."""
    bare = results[0]
    faults = []
    print(
        f"{'engine':10} {'map':>9} {'of bare':>8} {'group':>9} {'of bare':>8} {'wall':>8}   CPU seconds; wall seconds"
    )
    for result in results:
        ratios = {kind: float(result[kind]) / float(bare[kind]) for kind in ("map", "group")}  # type: ignore[arg-type]
        print(
            f"{result['engine']:10} {result['map']:9.1f} {ratios['map']:8.3f} {result['group']:9.1f} "
            f"{ratios['group']:8.3f} {result['wall']:8.1f}"
        )
        bound = BOUNDS.get(str(result["engine"]))
        if bound is not None and ratios["map"] > bound:
            faults.append(
                f"{result['engine']}: map stages cost {ratios['map']:.3f} of the bare loop, allowed is {bound}"
            )
        if result["ledger"] != bare["ledger"]:
            faults.append(f"{result['engine']}: another ledger than the bare loop's")
    return faults


def main() -> None:
    """Measure, print, and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=DEFAULT_RECIPE)
    parser.add_argument("--bytes", type=int, default=1 << 30)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.recipe, options.bytes, options.workers, options.folder)))
        return
    names = options.engines.split(",")
    if names[0] != "bare" or set(names) - set(ENGINES):
        parser.error(f"--engines: found {options.engines}, allowed are {', '.join(ENGINES)}, `bare` first")
    results = [in_child(name, options) for name in names]
    faults = show(results)
    if options.json:
        options.json.write_text(json.dumps({"bytes": options.bytes, "workers": options.workers, "results": results}))
    sys.exit("\n".join(faults) or 0)


if __name__ == "__main__":
    main()
