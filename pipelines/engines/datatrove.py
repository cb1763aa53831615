"""The embedded engine: local processes through datatrove's executor; `group` is bucket files and a second pass.

datatrove's own local pool never notices that a worker was killed (it waits for ever), so the executor runs here on
`concurrent.futures`, whose pool breaks at once; resuming is by our commits and not by datatrove's completion marks.
One pool serves all stages of a run, so that workers import and compile once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache

from pipelines.engines.engine import DEFAULT_LIMITS, Engine, Progress
from pipelines.engines.works import Outcome, Rank, do_rank
from pipelines.errors import HeadraceError, WorkerDied
from pipelines.sources.source import BatchLimits

LOGS = "memory://headrace-logs"
"""Where datatrove keeps its own logs and marks: nowhere that a killed run would leave them."""


class DatatroveEngine(Engine):
    """Runs stages on `workers` local processes; with one worker, in this process."""

    name = "datatrove"

    def __init__(
        self, workers: int, options: Mapping[str, str] | None = None, limits: BatchLimits = DEFAULT_LIMITS
    ) -> None:
        """Take the number of worker processes; the pool starts with the first stage. There are no options."""
        if options:
            raise HeadraceError(f"engine datatrove: takes no option {', '.join(options)}\nhint: it has --workers only")
        self._workers, self.limits = workers, limits
        self._pool: ProcessPoolExecutor | None = None

    def __exit__(self, *error: object) -> None:
        """End the worker processes; what they had not committed is left for a rerun."""
        if self._pool is not None:
            processes = list((self._pool._processes or {}).values()) if error[0] else []
            self._pool.shutdown(wait=not error[0], cancel_futures=True)
            for process in processes:
                process.kill()

    def run_ranks(self, ranks: Sequence[Rank], progress: Progress) -> Iterator[Outcome]:
        """Yield outcomes as ranks finish, in order with one worker."""
        if self._workers == 1:
            yield from (_run_rank(rank, number, len(ranks)) for number, rank in enumerate(ranks))
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
                yield _result(future, running)
                del running[future]


def _result(future: Future, running: Mapping[Future, Rank]) -> Outcome:
    try:
        outcome: Outcome = future.result()
        return outcome
    except BrokenProcessPool as error:
        at_work = ", ".join(dict.fromkeys(str(rank[place][1]) for rank in running.values() for place in (0, -1)))
        raise WorkerDied(
            f"a worker process was killed (out of memory, or from outside) near: {at_work}\n"
            "hint: run the same command again, it goes on; with fewer --workers if memory is short"
        ) from error


class RankStep:
    """A datatrove pipeline step that does one rank's works and keeps the outcome."""

    def __init__(self, rank: Rank) -> None:
        """Take the rank."""
        self._rank = rank
        self.outcome: Outcome | None = None

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        """Do the works; the arguments are datatrove's and say nothing that the works do not know."""
        self.outcome = do_rank(self._rank)


def _run_rank(rank: Rank, number: int, world_size: int) -> Outcome:
    """Do a rank as one of a datatrove executor."""
    step = RankStep(rank)
    _executor_class()([step], tasks=world_size, logging_dir=LOGS, skip_completed=False)._run_for_rank(number)
    assert step.outcome is not None
    return step.outcome


@cache
def _executor_class() -> type:
    """Return datatrove's local executor, without a log file for each rank: opening one costs 40 ms of CPU."""
    from datatrove.executor.local import LocalPipelineExecutor
    from loguru import logger

    logger.remove()

    class Executor(LocalPipelineExecutor):
        def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> None:
            data = None
            for step in self.pipeline:
                data = step(data, rank, self.world_size)

    return Executor


def _start_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when the parent does (a pool's workers would wait for work for ever)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
