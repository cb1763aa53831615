"""The driver of a run: stages in order, then ledger, manifests and run record. A rerun does only what is missing."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import platform
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.commit import FileRecord
from pipelines.engines.engine import Engine, Report, StageResult, sweep
from pipelines.errors import OutputError
from pipelines.ledger import check_stages, to_parquet, to_table
from pipelines.manifests import LEDGER_FILE, write_manifests
from pipelines.plan import DOCUMENTS, Plan
from pipelines.sources.committed import Committed
from pipelines.sources.source import Split
from pipelines.stage import GroupStage, MapStage, Stage
from pipelines.storage import ATTEMPTS, LocalStorage, explain_os_error

RECIPE_FILE, RUN_FILE, LOCK_FILE = "recipe.json", "run.json", ".lock"


@dataclasses.dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run: what each stage did, the ledger, and warnings for people."""

    stages: Mapping[str, StageResult]
    ledger: pa.Table
    warnings: tuple[str, ...]

    @property
    def num_done(self) -> int:
        """Splits and buckets that this run carried out."""
        return sum(result.num_done for result in self.stages.values())

    @property
    def num_found(self) -> int:
        """Splits and buckets that an earlier run had committed."""
        return sum(result.num_found for result in self.stages.values())


def list_splits(plan: Plan) -> dict[str, list[Split]]:
    """Return the raw splits of every source of the recipe. Reads listings (and footers of tables), no data."""
    first = plan.stages[0]
    assert isinstance(first, MapStage)
    return {
        entry.source.name: entry.source.splits(first.chains[entry.source.name].storage) for entry in plan.recipe.sources
    }


def run_plan(plan: Plan, output: LocalStorage, engine: Engine, report: Report) -> RunResult:
    """Carry out a plan into an output folder and return what came out.

    Raises `OutputError` for a folder that is unusable or holds another recipe's data, `LedgerImbalance` when anything
    was lost, `WorkerDied` when a worker was killed (run again: it goes on).
    """
    started = time.time()
    splits = list_splits(plan)
    warnings = [
        f"source {name}: no file matches its `include` (links that lead out of `root` are not followed)" for name, some in splits.items() if not some
    ]
    with claimed(plan, output):
        results: dict[str, StageResult] = {}
        for stage in plan.stages:
            results[stage.name] = _run_stage(stage, plan, splits, results, output, engine, report)
        ledger = _write_ledger(plan, results, output)
        warnings += _empty_sources(ledger, splits)
        _publish_tokens(plan, results, output)
        _record_run(plan, results, warnings, output, engine, started)
    return RunResult(results, ledger, tuple(warnings))


@contextmanager
def claimed(plan: Plan, output: LocalStorage) -> Iterator[None]:
    """Hold the output folder for this recipe and this process; sweep unfinished attempts of runs that ended."""
    try:
        output.root.mkdir(parents=True, exist_ok=True)
        lock = (output.root / LOCK_FILE).open("w")
    except OSError as error:
        raise explain_os_error(error, str(output.root)) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"{output.root}: another run is at work in this folder\nhint: wait for it, or choose another --output"
            ) from error
        _claim_recipe(plan, output)
        output.delete(ATTEMPTS)
        yield


def _claim_recipe(plan: Plan, output: LocalStorage) -> None:
    resolved = plan.resolved_json()
    if not output.exists(RECIPE_FILE):
        if any(file.path != LOCK_FILE for file in output.list()):
            raise OutputError(f"{output.root}: is not empty and holds no run\nhint: choose a new or empty folder")
        output.commit(RECIPE_FILE, resolved)
    elif output.read(RECIPE_FILE) != resolved:
        changed = _difference(json.loads(output.read(RECIPE_FILE)), plan.resolved)
        raise OutputError(
            f"{output.root}: was made by another recipe (it differs in {changed})\n"
            "hint: choose another --output, or delete the folder to make it anew"
        )


def _difference(old: Any, new: Any, where: str = "") -> str:
    """Name the first place in which two resolved recipes differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                return _difference(old.get(key), new.get(key), f"{where}.{key}".strip("."))
    return f"{where}: {json.dumps(old, sort_keys=True)[:80]} there, {json.dumps(new, sort_keys=True)[:80]} here"


def _run_stage(
    stage: Stage, plan: Plan, splits: Mapping[str, list[Split]], results: Mapping[str, StageResult],
    output: LocalStorage, engine: Engine, report: Report,
) -> StageResult:  # fmt: skip
    if isinstance(stage, GroupStage):
        return engine.group(stage, results[stage.input_stage], output, report)
    if stage is plan.stages[0]:
        return engine.map(stage, [split for some in splits.values() for split in some], {}, output, report)
    reader = stage.chains[DOCUMENTS].source
    assert isinstance(reader, Committed)
    given = results["2-identify"].commits
    return engine.map(stage, reader.splits_of(list(given), DOCUMENTS), results, output, report)


def _write_ledger(plan: Plan, results: Mapping[str, StageResult], output: LocalStorage) -> pa.Table:
    ledger = to_table(entry for result in results.values() for commit in result.commits for entry in commit.entries)
    check_stages(ledger, plan.document_stages)
    output.replace(LEDGER_FILE, to_parquet(ledger))
    return ledger


def _publish_tokens(plan: Plan, results: Mapping[str, StageResult], output: LocalStorage) -> None:
    commits = results[plan.stages[-1].name].commits
    files = [file for commit in commits for file in commit.files if file.table == "tokens"]
    written = write_manifests(plan, files, hashlib.sha256(output.read(LEDGER_FILE)).hexdigest(), output)
    named = [FileRecord("manifest", path, 0, "", 0) for path in written]
    sweep("tokens", [dataclasses.replace(commits[0], files=(*files, *named))], output)


def _empty_sources(ledger: pa.Table, splits: Mapping[str, list[Split]]) -> list[str]:
    rows = ledger.to_pylist()
    made = {row["source"] for row in rows if row["table"] == "tokens" and row["account"] == "out" and row["rows"]}
    return [
        f"source {name}: every document was dropped or could not be read; its token shards are empty"
        for name, some in splits.items()
        if some and name not in made
    ]


def _record_run(
    plan: Plan, results: Mapping[str, StageResult], warnings: list[str], output: LocalStorage, engine: Engine,
    started: float,
) -> None:  # fmt: skip
    """Append this run to run.json: everything about it that is not data."""
    runs = json.loads(output.read(RUN_FILE))["runs"] if output.exists(RUN_FILE) else []
    runs.append(
        {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(time.time() - started, 3),
            "engine": engine.name,
            "recipe": os.path.relpath(plan.recipe.path, output.root),
            "roots": {entry.source.name: str(entry.root) for entry in plan.recipe.sources},
            "host": socket.gethostname(),
            "python": platform.python_version(),
            "packages": {name: version(name) for name in ("pyarrow", "tiktoken", "gigatoken", "datatrove", "numba")},
            "stages": {name: {"done": done.num_done, "found": done.num_found} for name, done in results.items()},
            "warnings": warnings,
        }
    )
    output.replace(RUN_FILE, (json.dumps({"runs": runs}, indent=1, sort_keys=True) + "\n").encode())


def roots_of(output: Path) -> dict[str, Path]:
    """Return where the sources of a finished run lay, from its run record."""
    runs = json.loads((output / RUN_FILE).read_text())["runs"]
    return {name: Path(root) for name, root in runs[-1]["roots"].items()}
