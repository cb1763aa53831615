"""A Slurm of one node for tests: `sbatch`, `srun`, `squeue`, `scancel` and `scontrol` as executables in a folder.

`sbatch` reads the #SBATCH lines as Slurm does (up to the first command, from a copy of the script made at once),
refuses what Slurm refuses, and runs the tasks of the array in the background, at most as many at once as the array
says. State lies in files beside the executables: jobs/ID/{script, options.json, runner.pid, tasks/N.pid}.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PROGRAMS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
OPTIONS = {
    "account", "array", "chdir", "constraint", "cpus-per-task", "error", "exclude", "export", "job-name", "mem",
    "mem-per-cpu", "nice", "nodes", "ntasks", "output", "partition", "qos", "reservation", "time",
}  # fmt: skip
FLAGS = {"exclusive", "no-requeue", "parsable", "requeue"}
TIME = re.compile(r"\d+(:\d{1,2}(:\d{1,2})?)?|\d+-\d{1,2}(:\d{1,2}(:\d{1,2})?)?|UNLIMITED|INFINITE")
ARRAY = re.compile(r"(\d+)-(\d+)(?:%(\d+))?")
MEMORY = re.compile(r"\d+[KMGT]?")
MAX_ARRAY_SIZE = 1001


def install(folder: Path) -> Path:
    """Write the executables into a folder (made if absent) and return it, for the PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        program = folder / name
        program.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"from stand_in_slurm import main\nmain({name!r}, {str(folder)!r}, sys.argv[1:])\n"
        )
        program.chmod(0o755)
    return folder


def jobs(folder: Path) -> list[Path]:
    """Return the folders of all jobs that were ever submitted, in order."""
    return sorted((folder / "jobs").glob("*"), key=lambda path: int(path.name))


def options_of(job: Path) -> dict[str, str]:
    """Return what a job asked for."""
    return json.loads((job / "options.json").read_text())


def live_tasks(job: Path) -> list[int]:
    """Return the ids of the processes (leaders of their groups) of the tasks that run now."""
    return [pid for file in (job / "tasks").glob("*.pid") if _runs(pid := int(file.read_text()))]


def is_alive(job: Path) -> bool:
    """Whether a job has tasks that run or wait."""
    return bool(live_tasks(job)) or ((job / "runner.pid").exists() and _runs(int((job / "runner.pid").read_text())))


def main(program: str, folder: str, arguments: list[str]) -> None:
    """Be one of the programs."""
    {"sbatch": _sbatch, "srun": _srun, "squeue": _squeue, "scancel": _scancel, "scontrol": _scontrol}[program](
        Path(folder), arguments
    )


def _sbatch(folder: Path, arguments: list[str]) -> None:
    if "SLURM_JOB_ID" in os.environ and "RUN_OFFSET" not in os.environ:
        _refuse("sbatch", "no job is submitted from within a job in these tests")
    options, script = _command_line(arguments)
    lines = Path(script).read_text().splitlines()
    if not lines or not lines[0].startswith("#!"):
        _refuse("sbatch", "This does not look like a batch script")
    options = {**_directives(lines), **options}
    _check(options)
    job = _new_job(folder)
    shutil.copy(script, job / "script")
    (job / "options.json").write_text(json.dumps(options))
    place = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {place!r}); import stand_in_slurm; stand_in_slurm.run_job({str(job)!r})"
    runner = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=(job / "runner.log").open("wb"), env=_exported(options),
    )  # fmt: skip
    (job / "runner.pid").write_text(str(runner.pid))
    print(job.name if "parsable" in options else f"Submitted batch job {job.name}")


def _command_line(arguments: list[str]) -> tuple[dict[str, str], str]:
    options: dict[str, str] = {}
    for place, argument in enumerate(arguments):
        if not argument.startswith("-"):
            if place + 1 != len(arguments):
                _refuse("sbatch", "arguments of a script are of no use here")
            return options, argument
        options |= _option(argument)
    return _refuse("sbatch", "no script")


def _directives(lines: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for line in lines[1:]:
        if line.startswith("#SBATCH"):
            for argument in line.removeprefix("#SBATCH").split():
                options |= _option(argument)
        elif line.strip() and not line.startswith("#"):
            break
    return options


def _option(argument: str) -> dict[str, str]:
    name, separator, value = argument.removeprefix("--").partition("=")
    if not argument.startswith("--") or name not in OPTIONS | FLAGS:
        _refuse("sbatch", f"unrecognized option '{argument}'")
    if (name in OPTIONS) != bool(separator and value):
        _refuse("sbatch", f"option '--{name}' {'requires' if name in OPTIONS else 'allows no'} argument")
    return {name: value}


def _check(options: dict[str, str]) -> None:
    if not TIME.fullmatch(options.get("time", "1")):
        _refuse("sbatch", "Invalid --time specification")
    if not MEMORY.fullmatch(options.get("mem-per-cpu", "1")):
        _refuse("sbatch", "Invalid --mem-per-cpu specification")
    if not re.fullmatch(r"[1-9]\d*", options.get("cpus-per-task", "1")):
        _refuse("sbatch", "Invalid numeric value for --cpus-per-task.")
    array = ARRAY.fullmatch(options.get("array", "0-0"))
    if not array or int(array[2]) >= MAX_ARRAY_SIZE or int(array[1]) > int(array[2]) or array[3] == "0":
        _refuse("sbatch", "Batch job submission failed: Invalid job array specification")
    if options.get("partition") == "nowhere":
        _refuse("sbatch", "Batch job submission failed: Invalid partition name specified")


def _new_job(folder: Path) -> Path:
    for number in range(1, 1 << 20):
        job = folder / "jobs" / str(number)
        with suppress(FileExistsError):
            job.mkdir(parents=True)
            (job / "tasks").mkdir()
            return job
    raise AssertionError


def _exported(options: dict[str, str]) -> dict[str, str]:
    first, *pairs = options.get("export", "ALL").split(",")
    assert first == "ALL", "the tests export all"
    return {**os.environ, **dict(pair.split("=", 1) for pair in pairs)}


def run_job(job_folder: str) -> None:
    """Run the tasks of a job to their ends."""
    job = Path(job_folder)
    options = options_of(job)
    found = ARRAY.fullmatch(options.get("array", "0-0"))
    assert found
    waiting = list(range(int(found[1]), int(found[2]) + 1))
    running: list[subprocess.Popen] = []
    while waiting or running:
        while waiting and len(running) < int(found[3] or len(waiting)):
            running.append(_start_task(job, options, waiting.pop(0)))
        running = [task for task in running if task.poll() is None]
        time.sleep(0.05)


def _start_task(job: Path, options: dict[str, str], number: int) -> subprocess.Popen:
    named = options.get("output", "slurm-%A_%a.out").replace("%A", job.name).replace("%a", str(number))
    environment = {
        **os.environ, "SLURM_JOB_ID": str(1000 * int(job.name) + number), "SLURM_ARRAY_JOB_ID": job.name,
        "SLURM_ARRAY_TASK_ID": str(number), "SLURM_NODELIST": "localhost", "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NAME": options.get("job-name", "script"), "SLURM_CPUS_PER_TASK": options.get("cpus-per-task", "1"),
    }  # fmt: skip
    with Path(named).open("ab") as output:
        task = subprocess.Popen(
            ["/bin/bash", str(job / "script")], env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output,
        )  # fmt: skip
    (job / "tasks" / f"{number}.pid").write_text(str(task.pid))
    return task


def _srun(folder: Path, arguments: list[str]) -> None:
    """Run the command as one task of the job step; `-l` would put the task's number before each line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-l", action="store_true")
    parser.add_argument("-n", type=int, choices=[1])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    command = parser.parse_args(arguments).command
    os.execvp(command[0], command)


def _squeue(folder: Path, arguments: list[str]) -> None:
    match arguments:
        case ["-h", "-j", job_id] if (folder / "jobs" / job_id).exists():
            if is_alive(folder / "jobs" / job_id):
                print(f"  {job_id}_0  part headrace user  R  0:01  1 localhost")
        case ["-h", "-j", _]:
            _refuse("slurm_load_jobs", "Invalid job id specified")
        case _:
            _refuse("squeue", f"what are {arguments}")


def _scancel(folder: Path, arguments: list[str]) -> None:
    [job_id] = arguments
    job = folder / "jobs" / job_id
    (job / "cancelled").touch()
    with suppress(ProcessLookupError, FileNotFoundError):
        os.killpg(int((job / "runner.pid").read_text()), signal.SIGKILL)
    for pid in live_tasks(job):
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _scontrol(folder: Path, arguments: list[str]) -> None:
    match arguments:
        case ["show", "hostnames", names]:
            print(names)
        case _:
            _refuse("scontrol", f"what are {arguments}")


def _refuse(program: str, message: str) -> NoReturn:
    print(f"{program}: error: {message}", file=sys.stderr)
    sys.exit(1)


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
