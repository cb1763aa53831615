"""The Beam engine: ranks of works as the elements of a pipeline, on whichever runner the options name.

Create (the numbers of the ranks) -> Reshuffle (so that a runner spreads them and fuses nothing) -> ParDo (do the rank).
Rows move in the Arrow files of a group stage's scatter and not through Beam, which holds all values of a key in memory
on some runners; so a key may be of any size on every runner, and there are as many files as the recipe has buckets.

Pipelines are submitted by a process of their own, one for all stages, in a session of its own. It keeps Beam's and its
workers' output in a log, finds our packages wherever this process does (PYTHONPATH), leaves Ctrl-C to this one, and can
be ended with all of its workers: Beam 2.77 waits for ever for a local worker that was killed. Its thread that waits for
such a worker does notice and raises; nobody listens in Beam, so the submitting process does, and ends itself.

Where the options name no runner, or DirectRunner, Beam's FnApiRunner is taken: DirectRunner is that one after it has
tried to download and run another, Prism.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pipelines.engines.engine import DEFAULT_LIMITS, Engine, Progress
from pipelines.engines.handover import Handover
from pipelines.engines.works import Outcome, Rank
from pipelines.errors import HeadraceError, WorkerDied, visible


@contextmanager
def _quiet_root() -> Iterator[None]:
    """Keep the root logger as it is: the import of Beam warns of Google's packages, and gives it a handler."""
    before, disabled = list(logging.root.handlers), logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        for handler in [handler for handler in logging.root.handlers if handler not in before]:
            logging.root.removeHandler(handler)


with _quiet_root():
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, _BeamArgumentParser
    from apache_beam.runners.runner import PipelineResult, PipelineState

CANCEL_SECONDS = 30.0
"""How long a runner has to cancel a job, once we are told to end."""
PARENT_SECONDS = 0.5
LINE_CHARS, LOG_BYTES = 500, 1 << 16
"""How much of a cause is shown, and of a log is looked at."""
TEMPORARY = "tmp"
LOST_WORKER_THREAD = "run_worker"
"""Beam's name for the thread that waits for a local worker process."""

_one_rank = threading.Lock()
"""One rank at a time in a process: threads of a worker would share the interpreter, and multiply its memory."""
_jobs: list[PipelineResult] = []
"""The job that this process has submitted."""


class BeamEngine(Engine):
    """Runs stages as Beam pipelines. The options are those of Beam: `runner=FlinkRunner`, `flink_master=...` ..."""

    name = "beam"

    def __init__(self, workers: int, options: Mapping[str, str] | None = None) -> None:
        """Take the number of local worker processes, for the DirectRunner, and Beam's own options.

        Raises `HeadraceError` for an option that Beam does not know (it would ignore it) or cannot read.
        """
        self.limits = DEFAULT_LIMITS
        self._workers, self._options = workers, dict(options or {})
        beam_arguments(workers, self._options)
        self._folder = Path()
        self._pool: ProcessPoolExecutor | None = None
        self._process = 0

    def __enter__(self) -> BeamEngine:
        """Make a folder for the log and for what Beam leaves behind."""
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-beam-"))
        (self._folder / TEMPORARY).mkdir()
        return self

    def __exit__(self, *error: object) -> None:
        """End the submitting process and its workers. The log stays only where an error message names it."""
        self._end()
        left = self._folder / TEMPORARY if isinstance(error[1], WorkerDied) else self._folder
        shutil.rmtree(left, ignore_errors=True)

    def run_ranks(self, ranks: Sequence[Rank], progress: Progress) -> Iterator[Outcome]:
        """Do all ranks in one pipeline; their commits are left to be read from the storage."""
        handover = Handover.of(ranks, progress)
        try:
            problem = self._run(beam_arguments(min(self._workers, len(ranks)), self._options), handover, progress)
            remedy = f"with fewer --workers if memory is short ({self._log} tells more)"
            handover.check_done(progress, f"Beam gave up: {visible(problem)}" if problem else "Beam has ended", remedy)
        finally:
            handover.clear()
        return iter(())

    def _run(self, arguments: list[str], handover: Handover, progress: Progress) -> str:
        """Run the pipeline in the submitting process, reporting meanwhile; returns what went wrong, or nothing."""
        future: Future[str] = Future()
        try:
            future = self._started_pool().submit(run_pipeline, arguments, handover)
            progress.watch(future)
            return future.result()
        except BrokenProcessPool:
            self._end()
            return telling_line(_end_of(self._log))
        except BaseException:
            self._cancel(future)
            raise

    @property
    def _log(self) -> Path:
        return self._folder / "beam.log"

    def _started_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, initializer=_start, initargs=(os.getpid(), self._log))
            self._process = self._pool.submit(os.getpid).result()
        return self._pool

    def _cancel(self, future: Future[str]) -> None:
        """Let the runner cancel its job, where it can, then end the submitting process."""
        if self._process:
            with suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGTERM)
            wait([future], timeout=CANCEL_SECONDS)
        self._end()

    def _end(self) -> None:
        """End the submitting process and all that it started."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process, signal.SIGKILL)
        if self._pool is not None:
            self._pool.shutdown()
        self._pool, self._process = None, 0


class DoRank(beam.DoFn):
    """Does the rank of a number."""

    def __init__(self, handover: Handover) -> None:
        """Take what has the ranks."""
        self._handover = handover

    def process(self, element: int) -> Iterator[None]:
        """Do it, and yield nothing. Raises only what concerns the worker: the runner then tries again elsewhere."""
        with _one_rank:
            self._handover.do(element)
        return iter(())


def run_pipeline(arguments: list[str], handover: Handover) -> str:
    """Do all ranks of a handover in a pipeline, in this process's runner; returns what went wrong, or nothing."""
    try:
        pipeline = beam.Pipeline(options=PipelineOptions(arguments))
        numbers = pipeline | "Ranks" >> beam.Create(range(handover.num_ranks))
        numbers | "Spread" >> beam.Reshuffle() | "Do" >> beam.ParDo(DoRank(handover))
        result = pipeline.run()
        _jobs.append(result)
        state = result.wait_until_finish()
    except SystemExit:
        _jobs.pop().cancel()
        raise
    except Exception as error:  # what a runner's own client raises: gRPC's, Google's or Java's, and RuntimeError
        traceback.print_exc()
        return telling_line(f"{type(error).__name__}: {error}")
    _jobs.clear()
    return "" if state in (PipelineState.DONE, None) else f"the job has ended as {state}"


def telling_line(story: str) -> str:
    """Return the last line of a log or a traceback that tells a cause."""
    lines = [line.strip() for line in story.splitlines() if line.strip() and not line.lstrip().startswith("at ")]
    causes = [line for line in lines if re.search(r"Error|Exception|exited with", line)] or lines
    return causes[-1][:LINE_CHARS] if causes else "it has said nothing"


def _end_of(log: Path) -> str:
    """Return the last piece of a log; nothing where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _start(parent: int, log: Path) -> None:
    """Make the submitting process what the module says of it."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ["TMPDIR"] = tempfile.tempdir = str(log.parent / TEMPORARY)
    os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    os.environ["PYTHONSAFEPATH"] = "1"  # a worker's folder is none of the places to import from
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    threading.excepthook = _end_if_worker_was_lost
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _stop(signum: int, frame: FrameType | None) -> None:
    """Have the job cancelled, or, while a local runner is at work, end with it."""
    if not _jobs:
        os.killpg(0, signal.SIGKILL)
    raise SystemExit


def _end_if_worker_was_lost(failed: threading.ExceptHookArgs) -> None:
    """Say what a thread raised; if it waited for a worker process, end: what Beam does next is to wait for ever."""
    threading.__excepthook__(failed)
    sys.stderr.flush()
    if failed.thread is not None and failed.thread.name == LOST_WORKER_THREAD:
        os.killpg(0, signal.SIGKILL)


def _end_with(parent: int) -> None:
    """End, with all workers, when the parent does."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os.killpg(0, signal.SIGKILL)


def beam_arguments(workers: int, options: Mapping[str, str]) -> list[str]:
    """Return the options as Beam's command line, with the default runner's where no runner is named.

    A flag takes no value, or true or false. Raises `HeadraceError` for unknown names and values that Beam refuses.
    """
    given = {**_defaults(workers, options), **options}
    if given["runner"] == "DirectRunner":
        given["runner"] = "FnApiRunner"
    parser = _option_parser()
    known = {name.removeprefix("--"): action for action in parser._actions for name in action.option_strings}
    unknown = [key for key in given if key not in known]
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {close[0]}?" if close else "give Beam's pipeline options, without --, as KEY=VALUE"
        raise HeadraceError(f"engine beam: Beam has no option {', '.join(unknown)}\nhint: {hint}")
    arguments = [argument for key, value in given.items() for argument in _argument(key, value, known[key])]
    parser.parse_args(arguments)
    if "." not in given["runner"] and given["runner"] not in StandardOptions.KNOWN_RUNNER_NAMES:
        names = ", ".join(StandardOptions.KNOWN_RUNNER_NAMES)
        raise HeadraceError(f"engine beam: found runner {given['runner']}\nhint: allowed are {names}")
    return arguments


def _defaults(workers: int, options: Mapping[str, str]) -> dict[str, str]:
    """Return the options of local worker processes, unless a runner is named that has none."""
    if options.get("runner", "DirectRunner") not in ("DirectRunner", "FnApiRunner"):
        return {}
    mode = "multi_processing" if workers > 1 else "in_memory"
    return {"runner": "DirectRunner", "direct_num_workers": str(workers), "direct_running_mode": mode}


def _argument(key: str, value: str, action: argparse.Action) -> list[str]:
    """Return an option as an argument; a flag that is false as none."""
    if action.nargs != 0:
        return [f"--{key}={value}"]
    if value not in ("", "true", "false"):
        raise HeadraceError(f"engine beam: option {key} is a flag, found {value!r}\nhint: write {key}=true or leave it")
    return [] if value == "false" else [f"--{key}"]


class _OptionParser(_BeamArgumentParser):
    """Beam's parser, raising what people see instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise `HeadraceError`."""
        raise HeadraceError(f"engine beam: {message}\nhint: see Beam's documentation of its pipeline options")


def _option_parser() -> _OptionParser:
    """Return a parser of all options that Beam and its runners have."""
    parser = _OptionParser(allow_abbrev=False, add_help=False)
    for cls in PipelineOptions.__subclasses__():
        cls._add_argparse_args(parser)
    return parser
