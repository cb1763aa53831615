"""What an engine offers, `map` and `group`, and what all of them do alike: find what is missing, sweep what is not."""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any

from pipelines.commit import Commit, CommittedTable, FileRecord, commit_path, read_commits
from pipelines.engines.grouping import Bucket, bucket_id, scatter_folder, scatter_id
from pipelines.engines.works import (
    MapWork,
    Outcome,
    Rank,
    ReduceWork,
    ScatterWork,
    Work,
    cut_into_ranks,
    map_id,
    side_of_split,
)
from pipelines.errors import HeadraceError, WorkerDied
from pipelines.sources.source import BatchLimits, Split
from pipelines.stage import GroupStage, MapStage
from pipelines.storage.storage import Storage

Report = Callable[[str, int, int], None]
"""Called with (what, done, of all) whenever a piece of a stage is done."""

DEFAULT_LIMITS = BatchLimits()
LEAST_PAUSE = 1.0
"""Seconds between two looks at the commits of a stage whose workers do not report."""


@dataclasses.dataclass(frozen=True, slots=True)
class StageResult:
    """The commits of a finished stage in the order of its splits (their entries are the ledger), and what was done."""

    commits: tuple[Commit, ...]
    num_done: int
    """Splits or buckets carried out by this run."""
    num_found: int
    """Those that an earlier run had committed."""


class Engine(abc.ABC):
    """Carries stages out on workers of some kind. What comes out does not depend on which. A context manager.

    An engine must say how ranks of works get to workers (`run_ranks`). `group` is two rounds of works, scatter and
    reduce, with files between them; an engine that has a shuffle of its own does it instead.
    """

    name: str
    limits: BatchLimits

    def __enter__(self) -> Engine:
        """Return the engine."""
        return self

    @abc.abstractmethod
    def __exit__(self, *error: object) -> None:
        """Let the workers go; what they had not committed is left for a rerun."""

    @abc.abstractmethod
    def run_ranks(self, ranks: Sequence[Rank], progress: Progress) -> Iterator[Outcome]:
        """Do all ranks, on any workers in any order, and yield what became of them.

        Raises `WorkerDied` when workers are lost for good. Commits may also be left out of the outcomes: the storage
        has them. `progress` tells of ranks that are done where outcomes come late.
        """

    def map(
        self, stage: MapStage, splits: list[Split], sides: Sequence[CommittedTable], output: Storage, report: Report,
        *, whole: bool = True,
    ) -> StageResult:  # fmt: skip
        """Carry out a map stage over these splits; `sides` are its side tables, in the order in which it names them.

        Where the splits are not the whole stage, the commits and files of others are left alone.
        """
        drop_outdated(stage.folder, splits, output)
        works = {}
        for split in splits:
            own = side_of_split(stage, sides, str(split))
            split_id = map_id(split, own)
            works[split_id] = MapWork(stage, split, split_id, own, output, self.limits)
        return self._do_works(stage.folder, stage.name, works, output, report, whole)

    def group(
        self, stage: GroupStage, inputs: Sequence[CommittedTable], output: Storage, report: Report
    ) -> StageResult:
        """Carry out a group stage over its input tables, in the order in which it names them."""
        ids = {bucket_id(stage, number, inputs): number for number in range(stage.buckets)}
        files: tuple[FileRecord, ...] = ()
        if len(find_committed(stage.folder, list(ids), output)) < stage.buckets:
            works = scatter_works(stage, inputs, output, self.limits)
            scattered = self._do_works(scatter_folder(stage), f"{stage.name} (scatter)", works, output, report)
            files = tuple(file for commit in scattered.commits for file in commit.files)
        buckets = {
            split_id: ReduceWork(
                stage, Bucket(number, stage.buckets, _holding(files, number)), split_id, output, self.limits
            )
            for split_id, number in ids.items()
        }
        return self._do_works(stage.folder, stage.name, buckets, output, report)

    def _do_works(
        self, folder: str, what: str, works: Mapping[str, Work], output: Storage, report: Report, whole: bool = True
    ) -> StageResult:
        def do(missing: list[str], progress: Progress) -> Iterator[Outcome]:
            return self.run_ranks(list(cut_into_ranks([(split_id, works[split_id]) for split_id in missing])), progress)

        return finish(folder, what, list(works), do, output, report, whole)


def scatter_works(
    stage: GroupStage, inputs: Sequence[CommittedTable], output: Storage, limits: BatchLimits
) -> dict[str, ScatterWork]:
    """Return a work for each commit of the inputs of a group stage, by the id of its own commit."""
    return {
        (split_id := scatter_id(place, commit, given.files_of(commit))): ScatterWork(
            stage, dataclasses.replace(given, commits=()), commit, split_id, output, limits
        )
        for place, given in enumerate(inputs)
        for commit in given.commits
    }


def finish(
    folder: str, what: str, wanted: Sequence[str], do: Callable[[list[str], Progress], Iterator[Outcome]],
    output: Storage, report: Report, whole: bool = True,
) -> StageResult:  # fmt: skip
    """Let `do` make the wanted commits that are not there yet, then sweep what no commit names (of a whole stage)."""
    commits = find_committed(folder, list(wanted), output, whole)
    missing = [split_id for split_id in wanted if split_id not in commits]
    progress = Progress(folder, what, missing, len(commits), output, report)
    if missing:
        commits |= collect(do(missing, progress), progress)
    ordered = [commits[split_id] for split_id in wanted]
    if whole:
        sweep(folder, ordered, output)
    return StageResult(tuple(ordered), len(missing), len(wanted) - len(missing))


@dataclasses.dataclass(slots=True)
class Progress:
    """How far a stage is: `wanted` are the works that this run does, `num_found` those that were done before."""

    folder: str
    what: str
    wanted: list[str]
    num_found: int
    output: Storage
    report: Report

    def __post_init__(self) -> None:
        """Say where it starts."""
        self.say(0)

    def say(self, num_done: int) -> None:
        """Report that so many of the wanted works are done."""
        self.report(self.what, self.num_found + num_done, self.num_found + len(self.wanted))

    def look(self) -> int:
        """Count the wanted commits that stand in the storage, report and return that."""
        names = {file.path for file in self.output.list(f"{self.folder}/commits")}
        num_done = sum(commit_path(self.folder, split_id) in names for split_id in self.wanted)
        self.say(num_done)
        return num_done

    def watch(self, future: Future[Any]) -> None:
        """Look from time to time until the future is done; the larger the listing, the less often."""
        pause = LEAST_PAUSE
        while not wait([future], timeout=pause).done:
            started = time.monotonic()
            self.look()
            pause = max(LEAST_PAUSE, 20 * (time.monotonic() - started))


def collect(outcomes: Iterator[Outcome], progress: Progress) -> dict[str, Commit]:
    """Return the commits of all wanted works; raises the first error among the outcomes.

    Those that came with no outcome (they were made by an attempt whose word was lost) are read from the storage.
    """
    commits: dict[str, Commit] = {}
    for outcome in outcomes:
        commits |= dict(outcome.commits)
        if outcome.error is not None:
            raise outcome.error
        progress.say(len(commits))
    if len(commits) < len(progress.wanted):
        standing = read_commits(progress.output, progress.folder)
        commits |= {split_id: standing[split_id] for split_id in progress.wanted if split_id in standing}
        progress.say(len(commits))
        if undone := len(progress.wanted) - len(commits):
            raise WorkerDied(
                f"stage {progress.what}: the workers have left {undone} of {len(progress.wanted)} pieces undone\n"
                "hint: run the same command again, it goes on"
            )
    if missing := len(progress.wanted) - progress.look():
        raise HeadraceError(
            f"{progress.output.url}: {missing} of {len(progress.wanted)} commits of stage {progress.what} that workers "
            "made are not there\nhint: --output must be a folder that all workers share at the same path, or on S3"
        )
    return commits


def _holding(files: tuple[FileRecord, ...], number: int) -> tuple[FileRecord, ...]:
    """Return the scattered files that hold rows of a bucket, each with the bucket's own runs alone."""
    name = str(number)
    return tuple(
        dataclasses.replace(file, detail={"batches": {name: file.detail["batches"][name]}})
        for file in files
        if name in file.detail["batches"]
    )


def find_committed(folder: str, wanted: list[str], output: Storage, whole: bool = True) -> dict[str, Commit]:
    """Return the commits of the wanted splits that stand; delete those that lack a file or part of one, or are stale.

    Where the wanted ones are not the `whole` stage, others are not looked at.
    """
    found, names, commits = {}, set(wanted), read_commits(output, folder)
    present = _files_below({_folder_of(file, folder) for commit in commits.values() for file in commit.files}, output)
    for split_id, commit in commits.items():
        if split_id in names and all(present.get(file.path) == file.size for file in commit.files):
            found[split_id] = commit
        elif whole or split_id in names:
            output.delete(commit_path(folder, split_id))
    return found


def _folder_of(file: FileRecord, folder: str) -> str:
    """Return the folder to list for a committed file: the stage's own, or the first part of any other path."""
    return folder if file.path.startswith(f"{folder}/") else file.path.partition("/")[0]


def _files_below(folders: Iterable[str], output: Storage) -> dict[str, int]:
    """Return the sizes of all files below some folders: a request for 1,000 of them where each of its own costs one."""
    return {file.path: file.size for folder in folders for file in output.list(folder)}


def drop_outdated(folder: str, splits: Sequence[Split], output: Storage) -> None:
    """Delete the commits of splits of which a file was written after them: as long as before, but another maybe.

    A file with a date in the future is read anew by every run: too often is safe, too rarely is not.
    """
    committed = {file.path: file.modified for file in output.list(f"{folder}/commits")}
    for split in splits:
        path = commit_path(folder, split.id)
        if path in committed and any(file.modified > committed[path] for file in split.files):
            output.delete(path)


def sweep(folder: str, commits: list[Commit], output: Storage) -> list[str]:
    """Delete the files below a stage's folder that no commit names (attempts that never finished); returns them."""
    named = {file.path for commit in commits for file in commit.files}
    stale = [
        file.path
        for file in output.list(folder)
        if file.path not in named and not file.path.startswith(f"{folder}/commits/")
    ]
    for path in stale:
        output.delete(path)
    return stale
