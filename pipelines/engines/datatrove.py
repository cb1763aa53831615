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
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from pipelines.commit import Commit, CommittedTable
from pipelines.engines.engine import (
    DEFAULT_LIMITS,
    Report,
    StageResult,
    find_committed,
    read_side,
    side_of_split,
    sweep,
)
from pipelines.engines.grouping import Bucket, bucket_id, reduce_bucket, scatter, scatter_folder, scatter_id
from pipelines.engines.mapping import map_split
from pipelines.errors import HeadraceError, WorkerDied
from pipelines.sources.source import BatchLimits, Split
from pipelines.stage import GroupStage, MapStage
from pipelines.storage import Storage, explain_os_error

Work = Callable[[], Commit]


@dataclasses.dataclass(frozen=True, slots=True)
class MapWork:
    """One split of a map stage."""

    stage: MapStage
    split: Split
    sides: tuple[CommittedTable, ...]
    output: Storage
    limits: BatchLimits

    def __call__(self) -> Commit:
        """Read the side tables of this split and carry it out."""
        pairs = zip(self.stage.side, self.sides, strict=True)
        tables = {side.given.table: read_side(side, given) for side, given in pairs}
        return map_split(self.stage, self.split, self.output, tables, self.limits)

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
        self._logs = tempfile.TemporaryDirectory(prefix="headrace-logs-")

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
        self._logs.cleanup()

    def map(
        self, stage: MapStage, splits: list[Split], sides: Sequence[CommittedTable], output: Storage, report: Report
    ) -> StageResult:
        """Carry out a map stage: one task a split."""
        works = {
            split.id: MapWork(stage, split, side_of_split(stage, sides, str(split)), output, self._limits)
            for split in splits
        }
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
                (split_id := scatter_id(place, commit)): ScatterWork(
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

    def _run(self, works: Sequence[tuple[str, Work]]) -> Any:
        """Yield (id, commit) as works finish; raises the first failure and leaves the rest undone."""
        if self._workers == 1 or not works:
            for rank, (split_id, work) in enumerate(works):
                yield split_id, _run_rank(work, rank, len(works), self._logs.name)
            return
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, context, initializer=_start_worker, initargs=(os.getpid(),))
        running: dict[Future, tuple[str, Work]] = {}
        queue = iter(enumerate(works))
        while True:
            while len(running) < 2 * self._workers and (item := next(queue, None)) is not None:
                rank, (split_id, work) = item
                future = self._pool.submit(_run_rank, work, rank, len(works), self._logs.name)
                running[future] = (split_id, work)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                split_id, _ = running.pop(future)
                yield split_id, _result(future, running)


def _result(future: Future, running: Mapping[Future, tuple[str, Work]]) -> Commit:
    try:
        return future.result()
    except BrokenProcessPool as error:
        at_work = ", ".join(str(work) for _, work in running.values())
        raise WorkerDied(
            f"a worker process was killed (out of memory, or from outside) near: {at_work or 'the last split'}\n"
            "hint: run the same command again, it goes on; with fewer --workers if memory is short"
        ) from error


def _holding(files: tuple, number: int) -> tuple:
    return tuple(file for file in files if str(number) in file.detail["batches"])


class _Rank:
    """A datatrove pipeline step that does one work and keeps its commit, or what went wrong.

    It raises nothing: datatrove would print an error with all variables, and a panic of a native library is no
    `Exception`, so it would pass by its handling.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self.commit: Commit | None = None
        self.error: HeadraceError | None = None

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        try:
            self.commit = self._work()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: a library that leaves must not end the run as if all were well
            self.error = _explained(error, self._work)


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


def _run_rank(work: Work, rank: int, world_size: int, logs: str) -> Commit:
    """Run one work as one rank of a datatrove executor and return its commit; `HeadraceError` names the split."""
    from datatrove.executor.local import LocalPipelineExecutor
    from loguru import logger

    logger.remove()
    step = _Rank(work)
    executor = LocalPipelineExecutor([step], tasks=world_size, logging_dir=logs, skip_completed=False)
    executor._run_for_rank(rank, local_rank=1)  # ranks other than 0 keep their logs to their file
    if step.error is not None:
        raise step.error
    assert step.commit is not None
    return step.commit


def _start_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when the parent does (a pool's workers would wait for work for ever)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
