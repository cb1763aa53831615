"""What the main job costs: CPU seconds by stage and by what is done, what bounds it, and how much of it is overhead.

    python benchmarks/main_job.py [--recipe recipes/crawl.yaml] [--workers N] [--json FILE]

The recipe runs in this process with one worker, once for each engine of `extract` (the recipe's own first), into a
temporary folder, after a run of a few records that compiles kernels and loads models. The calls that do the work are
wrapped from here, and every moment of the process's CPU time (all of its threads) goes to the innermost one that is
running, so that spans are counted once and add up to the whole. What lies outside of library calls and kernels is
overhead: gathering rows into batches and parting them, the ledger, commits, the engine, and everything that is not
wrapped. Overhead above 25% of the recipe's own run makes the exit status 1.

tiktoken then encodes the documents of the first run once more, alone: the ratio says how encoding and writing shards
compare with the reference's own speed. With `--workers` above 1 the job also runs on so many processes, timed as a
whole, from their start to their end. All of it takes about 75 CPU seconds on the default recipe.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import GeneratorType
from typing import Any

import pipelines.engines.datatrove as local
from pipelines import run
from pipelines.commit import Commit
from pipelines.engines import engine, grouping, mapping, works
from pipelines.engines.datatrove import DatatroveEngine
from pipelines.ledger import stage_total
from pipelines.plan import Plan, build_plan
from pipelines.recipe import Recipe, load_recipe
from pipelines.run import RunResult, run_plan
from pipelines.sinks import tables
from pipelines.sinks.tables import TableSink, read_table
from pipelines.sinks.token_shards import TokenShardsSink
from pipelines.sources.archive_rows import ArchiveBatches
from pipelines.sources.committed import Committed
from pipelines.sources.registry import SOURCES
from pipelines.sources.source import BatchBuilder
from pipelines.storage.local import LocalStorage
from pipelines.transforms.encode import Encode
from pipelines.transforms.exact import ExactDuplicate, FindDuplicates, SameKey, SortTable, TextHash
from pipelines.transforms.extract import ENGINES, Extract
from pipelines.transforms.registry import TRANSFORMS
from tokenizer.encoders import TiktokenEncoder
from tokenizer.encodings import encoding_named

DEFAULT_RECIPE = Path(__file__).resolve().parents[1] / "recipes/crawl.yaml"
MAX_OVERHEAD = 0.25
"""Of the recipe's own run; what the project promises."""
WARM_UP_RECORDS = 3
"""Of every split: enough for every reader, kernel and model to be loaded."""
OVERHEAD = ("batching", "ledger", "commit", "engine", "everything else")
"""The items that are no library call and no kernel."""

Span = tuple[str, str]
"""A stage and what was done in it."""
Wrapped = tuple[Any, str, str]
"""Where a function is found, its name there, and the item that its time belongs to."""


class Stopwatch:
    """Gives every moment of CPU time to the innermost span that is open, so that spans add up to the whole."""

    def __init__(self) -> None:
        """Start, in no stage."""
        self.seconds: dict[Span, float] = defaultdict(float)
        self._open: list[Span] = [("driver", "everything else")]
        self._since = time.process_time()

    @contextmanager
    def span(self, item: str, stage: str | None = None) -> Iterator[None]:
        """Count what runs inside as `item`, of `stage` or else of the stage that is running."""
        self._charge()
        self._open.append((stage or self._open[-1][0], item))
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def stop(self) -> dict[Span, float]:
        """Return the CPU seconds of every span."""
        self._charge()
        return dict(self.seconds)

    def _charge(self) -> None:
        now = time.process_time()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def iterate(self, values: Iterator[Any], item: str) -> Iterator[Any]:
        """Count what a generator does between its values, and not what is done with them."""
        while True:
            with self.span(item):
                try:
                    value = next(values)
                except StopIteration:
                    return
            yield value


def wrapped_calls() -> list[Wrapped]:
    """Return the calls that are measured: what does the work, and the parts of the overhead that have a name."""
    steps = [*TRANSFORMS.values(), TextHash, ExactDuplicate, Encode]
    return [
        *((source, "read", f"read {kind}") for kind, source in SOURCES.items()),
        (Committed, "read", "Parquet read"),
        (grouping, "_pieces", "Parquet read"),
        (works, "read_side", "side tables"),
        *((step, "__call__", step.name) for step in steps),
        (SameKey, "__call__", "same_key"),
        (FindDuplicates, "__call__", "find_duplicates"),
        (SortTable, "__call__", "sort"),
        (grouping, "_ordered", "ordering"),
        (grouping, "_partition", "ordering"),
        (works, "scatter", "scatter files"),
        (TableSink, "__init__", "Parquet write"),
        (TableSink, "write", "Parquet write"),
        (TableSink, "close", "Parquet write"),
        (TokenShardsSink, "write", "shards"),
        (TokenShardsSink, "close", "shards"),
        (BatchBuilder, "_take", "batching"),
        (ArchiveBatches, "take", "batching"),
        (works, "map_split", "batching"),
        (works, "reduce_bucket", "batching"),
        (mapping, "apply_all", "batching"),
        (mapping, "conform", "batching"),
        (grouping, "conform", "batching"),
        *((module, "count_by_source", "ledger") for module in (mapping, grouping, tables)),
        *((module, "part", "ledger") for module in (mapping, grouping)),
        (mapping, "apply", "ledger"),
        (mapping, "count_read", "ledger"),
        (mapping, "count_written", "ledger"),
        (mapping, "check_split", "ledger"),
        (grouping, "_counted", "ledger"),
        (run, "to_table", "ledger"),
        (run, "to_parquet", "ledger"),
        (run, "check_stages", "ledger"),
        (run, "_empty_sources", "ledger"),
        *((LocalStorage, name, "commit") for name in ("create", "publish", "discard", "commit", "replace", "delete")),
        (Commit, "to_json", "commit"),
        (engine, "read_commits", "commit"),
        *((module, "sweep", "commit") for module in (engine, run)),
        (local, "_run_rank", "engine"),
    ]


@contextmanager
def measuring(watch: Stopwatch) -> Iterator[None]:
    """Put the watch around the calls, and take it off again."""
    calls = wrapped_calls()
    originals = [(place, name, getattr(place, name)) for place, name, _ in calls]
    stage_runner = run._run_stage
    try:
        for place, name, item in calls:
            setattr(place, name, _measured(watch, getattr(place, name), item))
        run._run_stage = lambda stage, *rest: _in_stage(watch, stage_runner, stage, *rest)
        yield
    finally:
        run._run_stage = stage_runner
        for place, name, original in originals:
            setattr(place, name, original)


def _measured(watch: Stopwatch, function: Callable[..., Any], item: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        with watch.span(item):
            result = function(*args, **options)
        return watch.iterate(result, item) if isinstance(result, GeneratorType) else result

    return call


def _in_stage(watch: Stopwatch, stage_runner: Callable[..., Any], stage: Any, *rest: Any) -> Any:
    with watch.span("everything else", stage.name):
        return stage_runner(stage, *rest)


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """One measured run: CPU seconds of every span, and how much went through it."""

    extractor: str
    """The engine of `extract`."""
    seconds: dict[Span, float]
    documents_read: int
    documents: int
    """That became tokens, as the next two."""
    text_bytes: int
    tokens: int

    @property
    def total(self) -> float:
        """CPU seconds of the run."""
        return sum(self.seconds.values())

    @property
    def overhead(self) -> float:
        """CPU seconds outside library calls and kernels."""
        return sum(seconds for (_, item), seconds in self.seconds.items() if item in OVERHEAD)

    def by_stage(self) -> dict[str, float]:
        """Return CPU seconds by stage, in the order of the run."""
        return _sums((stage, seconds) for (stage, _), seconds in sorted(self.seconds.items()))

    def by_item(self) -> dict[str, float]:
        """Return CPU seconds by what was done, the largest first."""
        sums = _sums((item, seconds) for (_, item), seconds in self.seconds.items())
        return dict(sorted(sums.items(), key=lambda entry: -entry[1]))

    def to_json(self) -> dict[str, Any]:
        """Return plain data: `spans` lists (stage, item, CPU seconds) and adds up to `cpu_s`."""
        items = self.by_item()
        return {
            "extractor": self.extractor,
            "cpu_s": self.total,
            "spans": [[*span, seconds] for span, seconds in sorted(self.seconds.items())],
            "overhead_share": self.overhead / self.total,
            "bound_by": next(iter(items)),
            "documents_read": self.documents_read,
            "documents": self.documents,
            "text_bytes": self.text_bytes,
            "tokens": self.tokens,
            "encode_and_shards_s": items.get("encode", 0.0) + items.get("shards", 0.0),
        }


def _sums(pairs: Iterator[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for name, seconds in pairs:
        sums[name] += seconds
    return dict(sums)


def profile(recipe: Recipe, folder: Path) -> Profile:
    """Run a recipe into a new folder and return what it cost."""
    watch = Stopwatch()
    with measuring(watch):
        plan, result = run_once(recipe, folder, workers=1)
    seconds = watch.stop()
    rows = [row for row in result.ledger.to_pylist() if row["table"] == "tokens" and row["account"] == "out"]
    took_in = stage_total(result.ledger, plan.document_stages[0], last=False)
    return Profile(
        extractor=extractor_of(recipe),
        seconds=seconds,
        documents_read=sum(documents for documents, _ in took_in.values()),
        documents=sum(row["rows"] for row in rows),
        text_bytes=sum(row["bytes"] for row in rows),
        tokens=sum(row["tokens"] for row in rows),
    )


def run_once(recipe: Recipe, folder: Path, workers: int) -> tuple[Plan, RunResult]:
    """Run a recipe into a folder."""
    output = LocalStorage(folder)
    with DatatroveEngine(workers) as local_engine:
        plan = build_plan(recipe, output)
        return plan, run_plan(plan, output, local_engine, lambda *_: None)


def extractor_of(recipe: Recipe) -> str:
    """Return the engine of the recipe's first `extract`; "" when it has none."""
    engines = [step.engine for entry in recipe.sources for step in entry.transforms if isinstance(step, Extract)]
    return engines[0] if engines else ""


def with_extractor(recipe: Recipe, name: str) -> Recipe:
    """Return the recipe with another engine in every `extract`."""
    sources = tuple(
        dataclasses.replace(
            entry,
            transforms=tuple(
                dataclasses.replace(step, engine=name) if isinstance(step, Extract) else step
                for step in entry.transforms
            ),
        )
        for entry in recipe.sources
    )
    return dataclasses.replace(recipe, sources=sources)


def profiles(path: Path, folder: Path) -> list[Profile]:
    """Profile the recipe as it is, then with the other engines of `extract`; every one is warmed up first."""
    recipe, few = load_recipe(path), load_recipe(path, limit=WARM_UP_RECORDS)
    own = extractor_of(recipe)
    others = [name for name in ENGINES if own and name != own]
    for one in (few, *(with_extractor(few, name) for name in others)):
        run_once(one, folder / f"warm-{extractor_of(one)}", workers=1)
    return [
        profile(one, folder / f"out-{extractor_of(one)}")
        for one in (recipe, *(with_extractor(recipe, name) for name in others))
    ]


def tiktoken_alone(recipe: Recipe, folder: Path) -> dict[str, float]:
    """Return the CPU seconds of tiktoken over the documents that a run made, and how many ids it gave."""
    output, encode = LocalStorage(folder), TiktokenEncoder(encoding_named(recipe.tokenizer.encoding))
    last = build_plan(recipe, output).document_stages[-1]
    seconds, num_ids = 0.0, 0
    for file in sorted(output.list(f"stages/{last}/documents")):
        text = read_table(output, file.path, ["text"]).column("text").combine_chunks()
        start = time.process_time()
        num_ids += len(encode(text).values)
        seconds += time.process_time() - start
    return {"cpu_s": seconds, "ids": num_ids}


def process_seconds(recipe: Recipe, folder: Path, workers: int) -> dict[str, float]:
    """Run on worker processes; return wall seconds, and the CPU seconds of this process and of the workers."""
    start, own, theirs = time.perf_counter(), time.process_time(), _children()
    run_once(recipe, folder, workers)
    return {
        "workers": workers,
        "wall_s": time.perf_counter() - start,
        "driver_cpu_s": time.process_time() - own,
        "workers_cpu_s": _children() - theirs,
    }


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def show(found: Profile) -> None:
    """Print the tables of one run."""
    print(f"\nextract by {found.extractor or 'nothing'}: {found.total:.2f} CPU s")
    print(f"{'stage':24}{'CPU s':>9}{'share':>8}")
    for stage, seconds in found.by_stage().items():
        print(f"{stage:24}{seconds:9.2f}{seconds / found.total:8.1%}")
    print(f"{'what is done':24}{'CPU s':>9}{'share':>8}   by stage")
    for item, seconds in found.by_item().items():
        stages = ", ".join(
            f"{stage} {part:.2f}" for (stage, name), part in sorted(found.seconds.items()) if name == item
        )
        mark = "*" if item in OVERHEAD else " "
        print(f"{item + mark:24}{seconds:9.2f}{seconds / found.total:8.1%}   {stages}")
    print(f"overhead (*), outside library calls and kernels: {found.overhead / found.total:.1%}")
    item = next(iter(found.by_item()))
    print(f"bound by {item}: {found.by_item()[item] / found.total:.1%}")
    print(
        f"{found.tokens / found.total / 1e6:.3f} Mtok, {found.text_bytes / found.total / 1e6:.2f} MB of text, "
        f"{found.documents_read / found.total:,.0f} documents read a CPU s "
        f"({found.documents_read:,} read, {found.documents:,} documents with {found.tokens:,} tokens out)"
    )


def show_report(report: dict[str, Any]) -> None:
    """Print what was measured beside the profiles."""
    own, alone = report["runs"][0], report["tiktoken"]
    ours = own["tokens"] / own["encode_and_shards_s"] / 1e6
    theirs = alone["ids"] / alone["cpu_s"] / 1e6
    print(f"\nencode + shards {ours:.2f} Mtok a CPU s, tiktoken alone {theirs:.2f}: {ours / theirs:.1f} times")
    if "processes" in report:
        print(", ".join(f"{key} {value:.1f}" for key, value in report["processes"].items()))


def main() -> None:
    """Measure, print, write JSON if asked to; exit status 1 when the overhead of the recipe's own run is too high."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", type=Path, default=DEFAULT_RECIPE)
    parser.add_argument("--workers", type=int, default=1, help="above 1: also time a run on so many processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        found = profiles(arguments.recipe, folder)
        alone = tiktoken_alone(recipe, folder / f"out-{found[0].extractor}")
        report: dict[str, Any] = {"runs": [one.to_json() for one in found], "tiktoken": alone}
        if arguments.workers > 1:
            report["processes"] = process_seconds(recipe, folder / "out-workers", arguments.workers)
    for one in found:
        show(one)
    show_report(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    share = report["runs"][0]["overhead_share"]
    if share > MAX_OVERHEAD:
        sys.exit(f"overhead is {share:.1%}, allowed are {MAX_OVERHEAD:.0%}")


if __name__ == "__main__":
    main()
