"""The embedded engine: local processes through datatrove's executor; `group` is bucket files and a second pass.

datatrove's own local pool never notices that a worker was killed (it waits for ever), so the executor runs here on
`concurrent.futures`, whose pool breaks at once; resuming is by our commits and not by datatrove's completion marks.
One pool serves all stages of a run, so that workers import and compile once.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from pipelines.commit import Commit, CommittedTable
from pipelines.engines.engine import (
    DEFAULT_LIMITS,
    Report,
    StageResult,
    drop_outdated,
    find_committed,
    map_id,
    read_side,
    side_of_split,
    sweep,
)
from pipelines.engines.grouping import Bucket, bucket_id, reduce_bucket, scatter, scatter_folder, scatter_id
from pipelines.engines.mapping import map_split
from pipelines.errors import HeadraceError, WorkerDied
from pipelines.sources.source import BatchLimits, Split
from pipelines.stage import GroupStage, MapStage
from pipelines.storage.local import explain_os_error
from pipelines.storage.storage import Storage

LOGS = "memory://headrace-logs"
"""Where datatrove keeps its own logs and marks: nowhere that a killed run would leave them."""

RANK_BYTES, LEAST_BYTES = 1 << 20, 1 << 16
"""Input that makes a rank, and what a work counts at least. A rank costs about 10 ms of CPU: small works share one."""


class Work(Protocol):
    """One piece of a stage, which commits itself; its text names it."""

    @property
    def num_bytes(self) -> int:
        """How much it has to read, about."""
        ...

    def __call__(self) -> Commit:
        """Carry it out."""
        ...


Rank = list[tuple[str, Work]]
"""Works that are done one after the other, each with the id of its commit."""


@dataclasses.dataclass(frozen=True, slots=True)
class MapWork:
    """One split of a map stage."""

    stage: MapStage
    split: Split
    split_id: str
    sides: tuple[CommittedTable, ...]
    output: Storage
    limits: BatchLimits

    def __call__(self) -> Commit:
        """Read the side tables of this split and carry it out."""
        pairs = zip(self.stage.side, self.sides, strict=True)
        tables = {side.given.table: read_side(side, given) for side, given in pairs}
        return map_split(self.stage, self.split, self.split_id, self.output, tables, self.limits)

    @property
    def num_bytes(self) -> int:
        """The size of the split's files."""
        return sum(file.size for file in self.split.files)

    def __str__(self) -> str:
        """Name the split."""
        return f"{self.stage.name}: {self.split}"


@dataclasses.dataclass(frozen=True, slots=True)
class ScatterWork:
    """One commit of an input of a group stage."""

    stage: GroupStage
    given: CommittedTable
    commit: Commit
    split_id: str
    output: Storage
    limits: BatchLimits

    def __call__(self) -> Commit:
        """Scatter it into buckets."""
        files = self.given.files_of(self.commit)
        return scatter(self.stage, files, self.given.storage, self.split_id, self.output, self.limits)

    @property
    def num_bytes(self) -> int:
        """The size of the commit's files."""
        return sum(file.size for file in self.given.files_of(self.commit))

    def __str__(self) -> str:
        """Name the input."""
        return f"{self.stage.name}: {self.commit.label}"


@dataclasses.dataclass(frozen=True, slots=True)
class ReduceWork:
    """One bucket of a group stage."""

    stage: GroupStage
    bucket: Bucket
    split_id: str
    output: Storage
    limits: BatchLimits

    def __call__(self) -> Commit:
        """Reduce the bucket."""
        return reduce_bucket(self.stage, self.bucket, self.split_id, self.output, self.limits)

    @property
    def num_bytes(self) -> int:
        """The bucket's share of the files that its rows are scattered over."""
        return sum(file.size for file in self.bucket.files) // self.bucket.of

    def __str__(self) -> str:
        """Name the bucket."""
        return f"{self.stage.name}: {self.bucket.label}"


class DatatroveEngine:
    """Runs stages on `workers` local processes; with one worker, in this process. A context manager."""

    name = "datatrove"

    def __init__(self, workers: int, limits: BatchLimits = DEFAULT_LIMITS) -> None:
        """Take the number of worker processes; the pool starts with the first stage."""
        self._workers, self._limits = workers, limits
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> DatatroveEngine:
        """Return the engine."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the worker processes; what they had not committed is left for a rerun."""
        if self._pool is not None:
            processes = list((self._pool._processes or {}).values()) if error[0] else []
            self._pool.shutdown(wait=not error[0], cancel_futures=True)
            for process in processes:
                process.kill()

    def map(
        self, stage: MapStage, splits: list[Split], sides: Sequence[CommittedTable], output: Storage, report: Report
    ) -> StageResult:
        """Carry out a map stage: one task a split."""
        drop_outdated(stage.folder, splits, output)
        works = {}
        for split in splits:
            own = side_of_split(stage, sides, str(split))
            split_id = map_id(split, own)
            works[split_id] = MapWork(stage, split, split_id, own, output, self._limits)
        return self._finish(stage.folder, stage.name, works, output, report)

    def group(
        self, stage: GroupStage, inputs: Sequence[CommittedTable], output: Storage, report: Report
    ) -> StageResult:
        """Carry out a group stage: one task an input to scatter, then one task a bucket."""
        numbers = range(stage.buckets)
        ids = {bucket_id(stage, number, inputs): number for number in numbers}
        files: tuple = ()
        if len(find_committed(stage.folder, list(ids), output)) < stage.buckets:
            scatters = {
                (split_id := scatter_id(place, commit, given.files_of(commit))): ScatterWork(
                    stage, dataclasses.replace(given, commits=()), commit, split_id, output, self._limits
                )
                for place, given in enumerate(inputs)
                for commit in given.commits
            }
            scattered = self._finish(scatter_folder(stage), f"{stage.name} (scatter)", scatters, output, report)
            files = tuple(file for commit in scattered.commits for file in commit.files)
        works = {
            split_id: ReduceWork(
                stage, Bucket(number, stage.buckets, _holding(files, number)), split_id, output, self._limits
            )
            for split_id, number in ids.items()
        }
        return self._finish(stage.folder, stage.name, works, output, report)

    def _finish(
        self, folder: str, what: str, works: Mapping[str, Work], output: Storage, report: Report
    ) -> StageResult:
        """Do the works that have no commit yet, in order, then sweep what no commit names."""
        commits = find_committed(folder, list(works), output)
        num_found = len(commits)
        report(what, num_found, len(works))
        missing = [(split_id, work) for split_id, work in works.items() if split_id not in commits]
        for split_id, commit in self._run(missing):
            commits[split_id] = commit
            report(what, len(commits), len(works))
        ordered = [commits[split_id] for split_id in works]
        sweep(folder, ordered, output)
        return StageResult(tuple(ordered), len(missing), num_found)

    def _run(self, works: Sequence[tuple[str, Work]]) -> Iterator[tuple[str, Commit]]:
        """Yield (id, commit) as works finish; raises the first failure and leaves the rest undone."""
        ranks = list(_ranks(works))
        if self._workers == 1 or not works:
            for number, rank in enumerate(ranks):
                yield from _run_rank(rank, number, len(ranks))
            return
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, context, initializer=_start_worker, initargs=(os.getpid(),))
        running: dict[Future, Rank] = {}
        queue = iter(enumerate(ranks))
        while True:
            while len(running) < 2 * self._workers and (item := next(queue, None)) is not None:
                number, rank = item
                running[self._pool.submit(_run_rank, rank, number, len(ranks))] = rank
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield from _result(future, running)
                del running[future]


def _ranks(works: Sequence[tuple[str, Work]]) -> Iterator[Rank]:
    """Cut the works, in order, into ranks of about `RANK_BYTES`."""
    rank: Rank = []
    size = 0
    for split_id, work in works:
        rank.append((split_id, work))
        size += max(work.num_bytes, LEAST_BYTES)
        if size >= RANK_BYTES:
            yield rank
            rank, size = [], 0
    if rank:
        yield rank


def _result(future: Future, running: Mapping[Future, Rank]) -> list[tuple[str, Commit]]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        at_work = ", ".join(dict.fromkeys(str(rank[place][1]) for rank in running.values() for place in (0, -1)))
        raise WorkerDied(
            f"a worker process was killed (out of memory, or from outside) near: {at_work}\n"
            "hint: run the same command again, it goes on; with fewer --workers if memory is short"
        ) from error


def _holding(files: tuple, number: int) -> tuple:
    return tuple(file for file in files if str(number) in file.detail["batches"])


class _Step:
    """A datatrove pipeline step that does a rank's works in order and keeps their commits, and what went wrong.

    It raises nothing: datatrove would print an error with all variables, and a panic of a native library is no
    `Exception`, so it would pass by its handling.
    """

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self.commits: list[tuple[str, Commit]] = []
        self.error: HeadraceError | None = None

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        for split_id, work in self._rank:
            try:
                self.commits.append((split_id, work()))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit too: a library that leaves must not end the run as if all well
                self.error = _explained(error, work)
                return


def _explained(error: BaseException, work: Work) -> HeadraceError:
    """Return an error that names the split and can be pickled (one that cannot would break the pool)."""
    if isinstance(error, HeadraceError):
        return type(error)(f"{work}: {error}")
    if isinstance(error, OSError) and error.errno is not None:
        if error.filename is None:  # a write to an open file; writes alone do not know their path
            return explain_os_error(error, str(work))
        return HeadraceError(
            f"{work}: {error.filename}: {error.strerror}\nhint: check that this file is there, and run again"
        )
    where = "".join(traceback.format_exception(error, limit=-3))
    return HeadraceError(f"{work}: {type(error).__name__}: {error}\n{where}")


def _run_rank(rank: Rank, number: int, world_size: int) -> list[tuple[str, Commit]]:
    """Run works as one rank of a datatrove executor and return their commits; `HeadraceError` names the work."""
    from datatrove.executor.local import LocalPipelineExecutor
    from loguru import logger

    logger.remove()
    step = _Step(rank)
    executor = LocalPipelineExecutor([step], tasks=world_size, logging_dir=LOGS, skip_completed=False)
    executor._run_for_rank(number, local_rank=1)  # ranks other than 0 keep their logs to their file
    if step.error is not None:
        raise step.error
    return step.commits


def _start_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when the parent does (a pool's workers would wait for work for ever)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
