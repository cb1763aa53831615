"""The Slurm engine against a stand-in Slurm, which takes its scripts as Slurm would and runs their tasks."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import stand_in_slurm
from engine_runs import counts, start
from made import made_recipe
from runs import REPOSITORY, run_recipe
from trees import tree_hashes

from pipelines.engines.slurm import SlurmEngine, SlurmOptions
from pipelines.errors import HeadraceError
from pipelines.storage.s3 import S3Storage

GIVEN = {"partition": "cpu", "time": "01:00:00", "poll_seconds": "0.2"}
ENVIRONMENT = f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={REPOSITORY}"
WORDS = tuple(f"{key}={value}" for key, value in GIVEN.items())


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """The folder of a Slurm of its own, on the PATH."""
    folder = stand_in_slurm.install(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """The made recipe, and the hashes of its output."""
    folder = tmp_path_factory.mktemp("plain")
    recipe = made_recipe(folder)
    run_recipe(recipe, folder / "out")
    return recipe, tree_hashes(folder / "out")


def test_same_bytes_by_array_jobs(slurm, plain, tmp_path):
    recipe, expected = plain
    options = {**GIVEN, "cpus_per_task": "2", "mem_per_cpu_gb": "3", "account": "us", "sbatch.nice": "7"}
    result = run_recipe(recipe, tmp_path / "out", engine=SlurmEngine(2, options))
    assert tree_hashes(tmp_path / "out") == expected
    jobs = stand_in_slurm.jobs(slurm)
    assert len(jobs) == 8, "a job for each map, scatter and reduce"
    for job in jobs:
        asked = stand_in_slurm.options_of(job)
        assert asked["partition"] == "cpu"
        assert asked["time"] == "01:00:00"
        assert asked["cpus-per-task"] == "2"
        assert asked["mem-per-cpu"] == "3G"
        assert (asked["account"], asked["nice"]) == ("us", "7")
        assert asked["array"].endswith("%2")
        assert Path(asked["output"]).is_relative_to(tmp_path / "out/.attempts/slurm")
    again = run_recipe(recipe, tmp_path / "out", engine=SlurmEngine(2, options))
    assert (again.num_done, again.num_found) == (0, result.num_done)
    assert len(stand_in_slurm.jobs(slurm)) == len(jobs), "nothing to do, nothing submitted"


def test_an_error_comes_back_as_what_it_is(slurm, plain, tmp_path):
    process = start(plain[0], tmp_path / "out", "slurm", *WORDS, "--failing", "code", "loses a row")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "LedgerImbalance: 1-read: code/" in errors
    assert not any(stand_in_slurm.is_alive(job) for job in stand_in_slurm.jobs(slurm))


def test_a_killed_task_ends_the_run_and_a_rerun_goes_on(slurm, plain, tmp_path):
    recipe, expected = plain
    words = ("slurm", *WORDS, "--workers", "1")
    process = start(recipe, tmp_path / "out", *words, "--death", "commit stages/2-identify after")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "WorkerDied: stage 2-identify" in errors
    assert "hint: run the same command again, it goes on" in errors
    again = counts(start(recipe, tmp_path / "out", *words))
    assert again["found"] > 0
    assert tree_hashes(tmp_path / "out") == expected


def test_an_interrupted_driver_cancels_its_job(slurm, plain, tmp_path):
    process = start(plain[0], tmp_path / "out", "slurm", *WORDS)
    deadline = time.monotonic() + 60
    while not stand_in_slurm.jobs(slurm):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)  # most likely before `sbatch` has told the job's id
    process.communicate(timeout=60)
    assert process.returncode != 0
    [job] = stand_in_slurm.jobs(slurm)
    assert (job / "cancelled").exists()
    deadline = time.monotonic() + 10
    while stand_in_slurm.is_alive(job):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_array_has_no_more_tasks_than_it_may(slurm, plain, tmp_path):
    """The rest of a task's ranks are done when one of them fails, and each rank once."""
    recipe, expected = plain
    run_recipe(recipe, tmp_path / "out", engine=SlurmEngine(5, {**GIVEN, "tasks": "1", "env_command": ENVIRONMENT}))
    assert tree_hashes(tmp_path / "out") == expected
    for job in stand_in_slurm.jobs(slurm):
        assert stand_in_slurm.options_of(job)["array"] == "0-0%5"
        script = (job / "script").read_text()
        assert ENVIRONMENT in script
        assert not [word for word in ("--signal", "--dependency", "--requeue") if f"#SBATCH {word}" in script]


def test_a_job_that_slurm_refuses(slurm, plain, tmp_path):
    with pytest.raises(HeadraceError, match=r"sbatch has refused .*Invalid partition name specified\nhint: "):
        run_recipe(plain[0], tmp_path / "out", engine=SlurmEngine(1, {**GIVEN, "partition": "nowhere"}))
    with pytest.raises(HeadraceError, match=r"sbatch has refused .*unrecognized option '--color=blue'"):
        run_recipe(plain[0], tmp_path / "out", engine=SlurmEngine(1, {**GIVEN, "sbatch.color": "blue"}))


def test_a_time_that_is_none(slurm, plain, tmp_path):
    with pytest.raises(HeadraceError, match=r"sbatch has refused .*Invalid --time specification"):
        run_recipe(plain[0], tmp_path / "out", engine=SlurmEngine(1, {**GIVEN, "time": "soon"}))


def test_without_slurm(plain, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(HeadraceError, match="sbatch is not on the PATH\nhint: run headrace on a node"):
        run_recipe(plain[0], tmp_path / "out", engine=SlurmEngine(1, GIVEN))


def test_an_output_that_nodes_cannot_share_scripts_in():
    engine = SlurmEngine(1, GIVEN)
    with pytest.raises(HeadraceError, match="is no folder that nodes could share .*\nhint: --engine-option folder="):
        engine._jobs_folder(S3Storage("bucket", "out"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partition": "cpu"}, "option time is missing"),
        ({}, "option partition, time is missing"),
        ({**GIVEN, "colour": "blue"}, "no option colour"),
        ({**GIVEN, "tasks": "0"}, "option tasks: found '0'"),
        ({**GIVEN, "cpus_per_task": "1.5"}, "option cpus_per_task: found '1.5'"),
        ({**GIVEN, "env_command": "a\nb"}, "option env_command: found"),
        ({**GIVEN, "sbatch.na me": "x"}, "option sbatch.na me"),
    ],
)
def test_wrong_options(options, said):
    with pytest.raises(HeadraceError, match=said):
        SlurmEngine(1, options)


def test_options_have_their_types():
    found = SlurmOptions.parse({**GIVEN, "tasks": "7", "sbatch.exclusive": ""})
    assert (found.tasks, found.poll_seconds, found.sbatch) == (7, 0.2, (("exclusive", ""),))
