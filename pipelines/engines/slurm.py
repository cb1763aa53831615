"""The Slurm engine: every pass over a stage's works is one array job, made by datatrove's Slurm executor.

The driver hands the ranks over through the output storage, writes datatrove's script and its pickled executor into a
folder that all nodes see, submits the script with `sbatch`, and waits: it looks at the commits for progress, at the
errors that tasks wrote down, and asks `squeue` whether the job is still there. Resuming is by our commits, so
datatrove's completion marks are not looked at; its requeue signal is off, and so is the second job that would merge
statistics. Whatever ends the driver's wait but the job's own end cancels the job.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datatrove.executor.slurm import SlurmPipelineExecutor

from pipelines.engines.engine import DEFAULT_LIMITS, Engine, Progress
from pipelines.engines.handover import Handover
from pipelines.engines.works import Outcome, Rank
from pipelines.errors import HeadraceError, visible
from pipelines.storage.local import ATTEMPTS, LocalStorage
from pipelines.storage.storage import Storage

MOST_TASKS = 1000
"""Of an array; Slurm's MaxArraySize is 1001 unless a site has set it."""
POLL_SECONDS = 10.0
LAST_SECONDS = 1.0
"""Between two looks at the job when all its works are committed."""
SETTLE_POLLS = 6
"""A minute, unless told otherwise: as long as NFS may keep an old listing of a folder (acdirmax)."""
GONE = "Invalid job id"
"""What `squeue` says of a job that ended some minutes ago (MinJobAge)."""
PLAIN_PATH = re.compile(r"[\w./@:+,=-]+")
"""Paths that datatrove can put into a script, where it quotes nothing, and Slurm into a file name pattern."""
SBATCH = "sbatch."


@dataclasses.dataclass(frozen=True, slots=True)
class SlurmOptions:
    """The options of the engine. `sbatch.NAME=VALUE` goes to `sbatch` as `--NAME=VALUE`; with no value, as `--NAME`."""

    partition: str
    time: str
    """Limit of a task, as Slurm writes it (HH:MM:SS, D-HH ...)."""
    cpus_per_task: int = 1
    mem_per_cpu_gb: int = 4
    qos: str = ""
    account: str = ""
    tasks: int = MOST_TASKS
    """Most tasks of an array; the ranks are spread over them."""
    venv: str = ""
    """Folder of a virtual environment that all nodes see; the driver's own unless given."""
    env_command: str = ""
    """One line of shell that makes `launch_pickled_pipeline` and our packages available, instead of `venv`."""
    folder: str = ""
    """For scripts, pickles and logs; must be seen by all nodes. Below a local output unless given."""
    poll_seconds: float = POLL_SECONDS
    sbatch: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> SlurmOptions:
        """Read the engine's options. Raises `HeadraceError` for unknown, missing and malformed ones."""
        kinds: dict[str, Any] = {"partition": str, "time": str}
        for field in dataclasses.fields(cls):
            if field.name != "sbatch":
                kinds.setdefault(field.name, type(field.default))
        own = {key: value for key, value in options.items() if not key.startswith(SBATCH)}
        if unknown := own.keys() - kinds:
            raise HeadraceError(
                f"engine slurm: no option {', '.join(sorted(unknown))}\n"
                f"hint: options are {', '.join(kinds)}; others for sbatch itself are written {SBATCH}NAME=VALUE"
            )
        if missing := [name for name in ("partition", "time") if not own.get(name)]:
            raise HeadraceError(
                f"engine slurm: option {', '.join(missing)} is missing\nhint: --engine-option {missing[0]}=..."
            )
        values = {key: _number(key, value) if kinds[key] is not str else value for key, value in own.items()}
        extra = tuple((key.removeprefix(SBATCH), text) for key, text in options.items() if key.startswith(SBATCH))
        for key, text in options.items():
            if "\n" in text or not re.fullmatch(r"[\w.-]+", key):
                raise HeadraceError(f"engine slurm: option {key}: found {text!r}\nhint: write one line of text")
        typed = {key: kinds[key](value) for key, value in values.items()}
        return cls(**typed, sbatch=extra)

    @property
    def environment(self) -> str:
        """The line of the script that makes our programs and packages available."""
        if self.env_command:
            return self.env_command
        if self.venv:
            return f"source {shlex.quote(self.venv)}/bin/activate"
        packages = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
        return f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH" PYTHONPATH={shlex.quote(packages)}'


def _number(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < math.inf or (key != "poll_seconds" and value != int(value)):
        raise HeadraceError(f"engine slurm: option {key}: found {text!r}\nhint: give a number above 0")
    return value


class SlurmEngine(Engine):
    """Runs stages as array jobs of Slurm, `workers` tasks of them at once. The options are `SlurmOptions`."""

    name = "slurm"

    def __init__(self, workers: int, options: Mapping[str, str] | None = None) -> None:
        """Take the number of tasks at once and the options. Raises `HeadraceError` where one is wrong."""
        self.limits = DEFAULT_LIMITS
        self.options = SlurmOptions.parse(options or {})
        self._workers = workers

    def __exit__(self, *error: object) -> None:
        """Jobs end, or are cancelled, where they are waited for."""

    def run_ranks(self, ranks: Sequence[Rank], progress: Progress) -> Iterator[Outcome]:
        """Do all ranks in one array job; their commits are left to be read from the storage."""
        top = self._jobs_folder(progress.output)
        handover = Handover.of(ranks, progress)
        name = re.sub(r"[^\w.-]+", "-", f"headrace-{progress.what}").strip("-")
        folder = top / f"{name}-{uuid.uuid4().hex[:8]}"
        try:
            job_id = self._run(handover, name, folder, progress)
            problem = f"Slurm job {job_id} has ended"
            handover.check_done(progress, problem, f"{folder}/logs tells why tasks ended early (time, memory)")
        finally:
            handover.clear()
        shutil.rmtree(folder, ignore_errors=True)
        return iter(())

    def _jobs_folder(self, output: Storage) -> Path:
        """Return where jobs have their folders. Raises `HeadraceError` where none was given, or its name is no use."""
        if not self.options.folder and not isinstance(output, LocalStorage):
            raise HeadraceError(
                f"engine slurm: {output.url} is no folder that nodes could share for scripts and logs\n"
                "hint: --engine-option folder=DIRECTORY"
            )
        folder = Path(self.options.folder or Path(output.url) / ATTEMPTS / "slurm").absolute()
        if not PLAIN_PATH.fullmatch(str(folder)):
            raise HeadraceError(
                f"engine slurm: {folder}: has characters that a job script cannot hold\n"
                "hint: --engine-option folder=DIRECTORY, of letters, digits and ./@:+,=-_ only"
            )
        return folder

    def _submit(self, handover: Handover, name: str, folder: Path) -> str:
        """Write the files of a job and submit it; returns its id."""
        options = self.options
        folder.mkdir(mode=0o700, parents=True)
        job = ArrayJob(
            pipeline=[RankOfNumber(handover)],
            tasks=handover.num_ranks,
            tasks_per_job=math.ceil(handover.num_ranks / options.tasks),
            workers=self._workers,
            time=options.time,
            partition=options.partition,
            cpus_per_task=options.cpus_per_task,
            mem_per_cpu_gb=options.mem_per_cpu_gb,
            qos=options.qos,
            job_name=name,
            env_command=options.environment,
            sbatch_args=dict(options.sbatch) | ({"account": options.account} if options.account else {}),
            max_array_size=max(options.tasks, MOST_TASKS),
            logging_dir=str(folder),
            slurm_logs_folder=str(folder / "logs"),
            skip_completed=False,
            requeue=False,
            requeue_signals=None,
        )
        return job.submit(folder)

    def _run(self, handover: Handover, name: str, folder: Path, progress: Progress) -> str:
        """Submit a job, wait until it is gone, return its id. Cancels it when a task fails or we are interrupted."""
        job_id = ""
        try:
            with _interrupts_held():  # a job whose id nobody has heard could not be cancelled
                job_id = self._submit(handover, name, folder)
            while _is_alive(job_id):
                handover.raise_failure()
                done = progress.look() == len(progress.wanted)
                time.sleep(min(self.options.poll_seconds, LAST_SECONDS) if done else self.options.poll_seconds)
            self._settle(progress)
        except BaseException:
            if job_id:
                _call("scancel", job_id)
            raise
        return job_id

    def _settle(self, progress: Progress) -> None:
        """Wait for commits of tasks that have just ended: a shared file system may show them later."""
        end = time.monotonic() + SETTLE_POLLS * self.options.poll_seconds
        while progress.look() < len(progress.wanted) and time.monotonic() < end:
            time.sleep(min(self.options.poll_seconds, LAST_SECONDS))


@dataclasses.dataclass(frozen=True, slots=True)
class RankOfNumber:
    """A datatrove pipeline step that does the rank of the task's number."""

    handover: Handover

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        """Do the rank; errors of its works are written down, and the other ranks of the task go on."""
        self.handover.do(rank)


class ArrayJob(SlurmPipelineExecutor):
    """datatrove's executor, whose `run` does a task's ranks on a node; submitted without jobs before and after it."""

    def submit(self, folder: Path) -> str:
        """Write what `launch_pickled_pipeline` reads, and the script; submit that and return the job's id.

        Raises `HeadraceError` where Slurm refuses the job.
        """
        (folder / "executor.pik").write_bytes(pickle.dumps(self))
        (folder / "ranks_to_run.json").write_text(json.dumps(list(range(self.tasks))))
        num_tasks = math.ceil(self.tasks / self.tasks_per_job)
        command = f"srun -l -n 1 launch_pickled_pipeline {folder}/executor.pik"
        script = folder / "launch_script.slurm"
        script.write_text(self.get_launch_file_contents(self.get_sbatch_args(num_tasks), command))
        answer = _call("sbatch", "--parsable", "--export=ALL,RUN_OFFSET=0", str(script))
        if answer.returncode:
            raise HeadraceError(
                f"engine slurm: sbatch has refused {script}: {visible(answer.stderr.strip())}\n"
                "hint: change the options that it names (--engine-option KEY=VALUE)"
            )
        return answer.stdout.strip().partition(";")[0]  # the cluster's name may follow


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let a Ctrl-C wait until the context ends (a mask would not do: any thread takes the signal for this one)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _is_alive(job_id: str) -> bool:
    """Whether any task of a job waits or runs. A Slurm that does not answer for a while says nothing about that."""
    answer = _call("squeue", "-h", "-j", job_id)
    if answer.returncode:
        return GONE not in answer.stderr
    return bool(answer.stdout.strip())


def _call(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of Slurm's. Raises `HeadraceError` where there is none."""
    try:
        # in a session of its own, or a terminal's Ctrl-C would end it too
        return subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, start_new_session=True
        )
    except FileNotFoundError as error:
        raise HeadraceError(
            f"engine slurm: {program} is not on the PATH\nhint: run headrace on a node of the cluster that submits jobs"
        ) from error
