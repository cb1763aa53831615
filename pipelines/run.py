"""The driver of a run: stages in order, then ledger, manifests and run record. A rerun does only what is missing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import socket
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from pipelines.commit import CommittedTable, FileRecord, commit_path, faults_of, read_commits
from pipelines.contamination.canaries import check_canaries
from pipelines.engines.engine import Engine, Report, StageResult, sweep
from pipelines.errors import HeadraceError, OutputError
from pipelines.ledger import check_stages, check_tables, to_parquet, to_table
from pipelines.manifests import LEDGER_FILE, write_manifests
from pipelines.near_duplicates.propose import PROPOSERS
from pipelines.plan import CANARY_PREFIX, DOCUMENTS, Plan
from pipelines.recipe import Root
from pipelines.removal_alarm import check_removed
from pipelines.sinks.tables import read_table
from pipelines.sources.committed import Committed
from pipelines.sources.source import Split
from pipelines.stage import GroupStage, MapStage, Stage, TableOf
from pipelines.storage.local import LocalStorage, explain_os_error
from pipelines.storage.storage import ReadStorage, Storage
from pipelines.transforms.given_files import given_files
from tokenizer.encodings import TokenizerMismatch, encoding_named, vocabulary_bytes

PACKAGES = (
    *(
        "awkward",
        "bpe-openai",
        "brotli",
        "chardetng-py",
        "datatrove",
        "deflate",
        "gigatoken",
        "idna",
        "lxml",
        "lxml-html-clean",
        "numba",
        "numpy",
        "orjson",
    ),
    *(
        "py3langid",
        "pycld2",
        "pyarrow",
        "readability-lxml",
        "resiliparse",
        "tiktoken",
        "tldextract",
        "trafilatura",
        "xxhash",
        "zstandard",
    ),
)
"""What the bytes of an output may depend on."""
MOST_PARTS = 100_000
RECIPE_FILE, RUN_FILE, PACKAGES_FILE = "recipe.json", "run.json", "packages.json"


@dataclasses.dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run: what each stage did, the ledger, and warnings for people."""

    stages: Mapping[str, StageResult]
    ledger: pa.Table
    warnings: tuple[str, ...]

    @property
    def not_canonical(self) -> dict[str, dict[str, int]]:
        """Documents that met a fault, by stage and split: the output is not that of a run without (law 5)."""
        return _not_canonical(self.stages)

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
    sources = [entry.source for entry in plan.recipe.sources]
    return {
        source.name: source.splits(first.chains[source.name].storage) for source in (*sources, *plan.canaries.values())
    }


def run_plan(plan: Plan, output: Storage, engine: Engine, report: Report) -> RunResult:
    """Carry out a plan into an output folder and return what came out.

    Raises `OutputError` for a folder that is unusable or holds another recipe's data, `LedgerImbalance` when anything
    was lost, `WorkerDied` when a worker was killed (run again: it goes on).
    """
    started = time.time()
    _check_vocabulary(plan)
    splits = list_splits(plan)
    _check_apart(plan, splits, output)
    warnings = [
        f"source {name}: no file matches its `include` (links that lead out of `root` are not followed)"
        for name, some in splits.items()
        if not some
    ]
    with claimed(plan, output) as packages:
        runs = _recorded_runs(output)
        warnings += _changed_packages(packages)
        plan, results = _run_stages(plan, splits, output, engine, report)
        ledger = _write_ledger(plan, results, output)
        warnings += [*_empty_sources(ledger, splits), *_not_compared(results, output)]
        warnings += _faults(_not_canonical(results))
        _publish_tokens(plan, results, output)
        runs.append(_run_record(plan, results, warnings, output, engine, started))
        output.replace(RUN_FILE, (json.dumps({"runs": runs}, indent=1, sort_keys=True) + "\n").encode())
    return RunResult(results, ledger, tuple(warnings))


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One of several equal parts of the splits of the first stage: every `of`-th, beginning with the `number`-th."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read "K/N". Raises `ValueError`."""
        number, separator, of = text.partition("/")
        if not (separator and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of) <= MOST_PARTS):
            raise ValueError(f"found {text!r}, allowed is K/N with 1 <= K <= N <= {MOST_PARTS}, as in 2/8")
        return cls(int(number), int(of))

    def __str__(self) -> str:
        """Return "K/N"."""
        return f"{self.number}/{self.of}"


def run_part(plan: Plan, output: Storage, engine: Engine, report: Report, part: Part) -> StageResult:
    """Carry out the first stage for one part of its splits and return what was done.

    Parts hold the output together, so that they may run at once. Nothing is swept but by a whole run. Raises what
    `run_plan` does.
    """
    splits = list_splits(plan)
    _check_apart(plan, splits, output)
    first = plan.stages[0]
    assert isinstance(first, MapStage)
    own = [split for some in splits.values() for split in some][part.number - 1 :: part.of]
    ids = {split.id for split in own}
    with claimed(plan, output, shared=True) as packages:
        if changed := _changed_packages(packages):
            raise OutputError(
                f"{output.url}: {changed[0]}\nhint: use the environment of the other parts, or another --output"
            )
        _drop_faulty(first, ids, output)
        return engine.map(first, own, (), output, report, whole=False)


@contextmanager
def claimed(plan: Plan, output: Storage, *, shared: bool = False) -> Iterator[dict[str, str]]:
    """Hold the output for this recipe and this process, alone or beside others that read parts of its input.

    Yields the packages with which the output was last worked on, finished run or not.
    """
    try:
        foreign = not output.exists(RECIPE_FILE) and any(output.list())
        foreign = foreign and not output.exists(RECIPE_FILE)  # another part may have begun in between
    except OSError as error:
        raise explain_os_error(error, output.url) from error
    if foreign:
        raise OutputError(f"{output.url}: is not empty and holds no run\nhint: choose a new or empty folder")
    with output.claim(shared=shared):
        _claim_recipe(plan, output)
        yield _exchange_packages(output, keep=shared)


def _claim_recipe(plan: Plan, output: Storage) -> None:
    resolved = plan.resolved_json()
    if not output.exists(RECIPE_FILE) and output.commit(RECIPE_FILE, resolved):
        return  # else another part was faster: with the same recipe?
    found = output.read(RECIPE_FILE)
    if found != resolved:
        try:
            changed = difference(json.loads(found), json.loads(resolved))
        except ValueError:
            changed = "not being JSON"
        raise OutputError(
            f"{output.url}: was made by another recipe (it differs in {changed})\n"
            "hint: choose another --output, or delete the folder to make it anew"
        )


def difference(old: Any, new: Any, where: str = "") -> str:
    """Name the first place in which two resolved recipes differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                return difference(old.get(key), new.get(key), f"{where}.{key}".strip("."))
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        place = next(place for place, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1])
        return difference(old[place], new[place], f"{where}[{place}]")
    return f"{where}: {json.dumps(old, sort_keys=True)[:80]} there, {json.dumps(new, sort_keys=True)[:80]} here"


def _run_stages(
    plan: Plan, splits: Mapping[str, list[Split]], output: Storage, engine: Engine, report: Report
) -> tuple[Plan, dict[str, StageResult]]:
    """Carry the stages out, as many rounds as are needed; returns the plan with these, and the results."""
    results: dict[str, StageResult] = {}
    while True:
        for stage in plan.stages:
            if stage is plan.stages[-1]:
                check_removed(plan, {name: result.commits for name, result in results.items()}, output)
            if stage is plan.stages[1]:
                entries = [entry for commit in results[plan.stages[0].name].commits for entry in commit.entries]
                for source in plan.canaries:
                    check_canaries(entries, source)
            if stage.name not in results:
                results[stage.name] = _run_stage(stage, plan, splits, results, output, engine, report)
            if stage.name == plan.last_of_rounds and (more := plan.next_round(results[stage.name].commits, output)):
                plan = more
                break
        else:
            _sweep_stages(plan, output)
            return plan, results


def _not_compared(results: Mapping[str, StageResult], output: Storage) -> list[str]:
    """Say how many pairs of documents in crowded buckets were not compared."""
    files = [
        f for result in results.values() for commit in result.commits for f in commit.files if f.table == "crowded"
    ]
    tables = [read_table(output, file.path) for file in files if file.rows]
    pairs, documents = (
        sum(sum(table.column(name).to_pylist()) for table in tables) for name in ("not_compared", "documents")
    )
    if not pairs:
        return []
    return [
        f"near-deduplication: {sum(map(len, tables)):,} crowded buckets of {documents:,} documents in all: these were "
        f"compared with the first {PROPOSERS} kept ones of their bucket, {pairs:,} pairs were not compared"
    ]


def _sweep_stages(plan: Plan, output: Storage) -> None:
    """Delete what lies in folders of stages that the plan does not have: rounds that were needed before."""
    folders = tuple(f"{stage.folder}/" for stage in plan.stages)
    for file in output.list("stages"):
        if not file.path.startswith(folders):
            output.delete(file.path)


def _run_stage(
    stage: Stage, plan: Plan, splits: Mapping[str, list[Split]], results: Mapping[str, StageResult],
    output: Storage, engine: Engine, report: Report,
) -> StageResult:  # fmt: skip
    if isinstance(stage, GroupStage):
        return engine.group(stage, [_committed(given, results, output) for given in stage.inputs], output, report)
    if stage is plan.stages[0]:
        every = [split for some in splits.values() for split in some]
        _drop_faulty(stage, {split.id for split in every}, output)
        return engine.map(stage, every, (), output, report)
    reader = stage.chains[DOCUMENTS].source
    assert isinstance(reader, Committed)
    given = results["2-identify"].commits
    sides = [_committed(side.given, results, output) for side in stage.side]
    return engine.map(stage, reader.splits_of(list(given), DOCUMENTS), sides, output, report)


def _drop_faulty(stage: MapStage, ids: Set[str], output: Storage) -> None:
    """Delete the commits of these splits that hold faults, so that the splits are done again.

    What later stages made of them goes by itself: their commits are named by what went in.
    """
    for split_id, commit in read_commits(output, stage.folder).items():
        if split_id in ids and commit.num_faults:
            output.delete(commit_path(stage.folder, split_id))


def _not_canonical(results: Mapping[str, StageResult]) -> dict[str, dict[str, int]]:
    return {name: faults for name, result in results.items() if (faults := faults_of(result.commits))}


def _faults(not_canonical: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Warn of every stage whose output another run may not repeat."""
    return [
        f"stage {name}: {sum(faults.values())} documents in {len(faults)} splits met a time limit "
        f"(see {next(iter(faults))}): the output is not canonical; run the same command again, it tries these anew"
        for name, faults in not_canonical.items()
    ]


def _committed(given: TableOf, results: Mapping[str, StageResult], output: Storage) -> CommittedTable:
    """Return a table of this run from its stage's result, or one of an earlier run from the commits that lie there."""
    if given.run is None:
        return CommittedTable(output, given.table, results[given.stage].commits)
    commits = read_commits(given.run, f"stages/{given.stage}").values()
    return CommittedTable(given.run, given.table, tuple(sorted(commits, key=lambda commit: commit.label)))


def _write_ledger(plan: Plan, results: Mapping[str, StageResult], output: Storage) -> pa.Table:
    ledger = to_table(entry for result in results.values() for commit in result.commits for entry in commit.entries)
    check_stages(ledger, plan.document_stages)
    check_tables(ledger, plan.tables_between(), plan.rows_of_older_runs())
    output.replace(LEDGER_FILE, to_parquet(ledger))
    return ledger


def _publish_tokens(plan: Plan, results: Mapping[str, StageResult], output: Storage) -> None:
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
        if some and name not in made and not name.startswith(CANARY_PREFIX)
    ]


def _run_record(
    plan: Plan, results: Mapping[str, StageResult], warnings: list[str], output: Storage, engine: Engine,
    started: float,
) -> dict[str, Any]:  # fmt: skip
    """Return what run.json says of this run: everything about it that is not data."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        "engine": engine.name,
        "recipe": os.path.relpath(plan.recipe.path, output.url if isinstance(output, LocalStorage) else None),
        "roots": {entry.source.name: entry.root.address for entry in plan.recipe.sources},
        "given": {
            given.sha256: given.path
            for entry in plan.recipe.sources
            for transform in entry.transforms
            for given in given_files(transform)
        }
        | {run.sha256: run.address for run in (plan.recipe.deduplicate.older if plan.recipe.deduplicate else ())},
        "files": {entry.source.name: str(entry.root.files) for entry in plan.recipe.sources if entry.root.files},
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "packages": _packages(),
        "stages": {name: {"done": done.num_done, "found": done.num_found} for name, done in results.items()},
        "not_canonical": _not_canonical(results),
        "warnings": warnings,
    }


def _packages() -> dict[str, str]:
    """Return the versions of the packages on which the bytes depend."""
    return {name: version(name) for name in PACKAGES}


def _exchange_packages(output: Storage, *, keep: bool) -> dict[str, str]:
    """Return the packages of the last run, finished or not, and note ours in their place, or where there are none."""
    before: dict[str, str] = {}
    if output.exists(PACKAGES_FILE):
        with suppress(ValueError):
            before = dict(json.loads(output.read(PACKAGES_FILE)))
    if before != _packages() and not (keep and before):
        output.replace(PACKAGES_FILE, (json.dumps(_packages(), indent=1, sort_keys=True) + "\n").encode())
    return before


def _changed_packages(then: dict[str, str]) -> list[str]:
    """Warn when the folder's last run had other packages: the same bytes are promised for one lock file only."""
    return [
        f"package {name} was {then[name]} in the last run of this folder and is {now} now: "
        "what is found committed and what is made now may differ; make the folder anew to be sure"
        for name, now in _packages().items()
        if then.get(name, now) != now
    ]


def _recorded_runs(output: Storage) -> list[dict[str, Any]]:
    """Return the runs that run.json tells of. Raises `OutputError` when it is damaged."""
    if not output.exists(RUN_FILE):
        return []
    try:
        runs = list(json.loads(output.read(RUN_FILE))["runs"])
        dict(runs[-1]["roots"])
    except (ValueError, LookupError, TypeError) as error:
        raise OutputError(
            f"{output.url}/{RUN_FILE}: is damaged ({type(error).__name__}: {error})\n"
            "hint: delete it (it holds no data) and run the recipe again"
        ) from error
    return runs


def _check_apart(plan: Plan, splits: Mapping[str, list[Split]], output: Storage) -> None:
    """Refuse to read what an earlier run wrote."""
    target = _resolved(output)
    for entry in plan.recipe.sources:
        root = _resolved(entry.root.open())
        for split in splits[entry.source.name]:
            for file in split.files:
                if PurePosixPath(root, file.path).is_relative_to(target):
                    raise OutputError(
                        f"{output.url}: source {entry.source.name} would read {file.path}, which lies in it\n"
                        "hint: choose an --output outside of the inputs, or name its folder under `exclude`"
                    )


def _resolved(storage: ReadStorage) -> PurePosixPath:
    return PurePosixPath(storage.root.resolve() if isinstance(storage, LocalStorage) else storage.url)


def _check_vocabulary(plan: Plan) -> None:
    """Refuse a vocabulary that is not the recipe's before any work, and not when the last stage needs it."""
    try:
        vocabulary_bytes(encoding_named(plan.recipe.tokenizer.encoding))
    except TokenizerMismatch as error:
        raise HeadraceError(str(error)) from error


def given_of(output: Storage) -> dict[str, str]:
    """Return where the given files of a finished run lay, by their sha256, from its run record."""
    return dict(_recorded_runs(output)[-1].get("given", {}))


def roots_of(output: Storage) -> dict[str, Root]:
    """Return where the sources of a finished run lay, from its run record."""
    last = _recorded_runs(output)[-1]
    files = last.get("files", {})
    return {
        name: Root(address, Path(files[name]) if name in files else None) for name, address in last["roots"].items()
    }
