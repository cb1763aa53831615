"""One recipe, every engine: the same bytes, and faults that change nothing. `make stress` has all combinations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import REPOSITORY, SHARED, tiny_recipe
from trees import tree_hashes

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")

STAGES = ("1-read", "2-identify", "3-find-duplicates", "4-sort-duplicates", "5-tokenize")
SPARK = ("spark", "spark.ui.enabled=false")
ENGINES = {
    "spark": (*SPARK, "spark.master=local[2]"),
    "beam, one process": ("beam", "direct_num_workers=1"),
    "beam, two processes": ("beam",),
    "beam, portable": ("beam", "runner=PortableRunner", "job_endpoint=embed", "environment_type=LOOPBACK"),
}
"""The embedded engine is in test_laws.py, with 1 to 3 workers; Slurm in test_slurm.py."""


def start(recipe: Path, output: Path | str, *words: str) -> subprocess.Popen:
    """Start a run on an engine, in a process group and a current folder of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/support'}",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
    }
    script = REPOSITORY / "tests/support/run_on.py"
    return subprocess.Popen(
        [sys.executable, str(script), str(recipe), str(output), *words],
        env=environment, cwd=recipe.parent, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def counts(process: subprocess.Popen) -> dict[str, int]:
    """Wait for a run and return how many splits and buckets it did and found."""
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(said.splitlines()[-1])


def deaths(output: Path) -> set[str]:
    return {path.name for path in Path(f"{output}-deaths").iterdir()}


@pytest.mark.parametrize("engine", ENGINES)
def test_same_bytes_on_every_engine(engine, recipe, reference, tmp_path):
    expected, result = reference
    words = ENGINES[engine]
    first = counts(start(recipe, tmp_path / "out", *words))
    assert tree_hashes(tmp_path / "out") == tree_hashes(expected)
    assert first == {"done": result.num_done, "found": 0}


@pytest.mark.parametrize("engine", ["spark"])
def test_a_rerun_finds_everything_whichever_engine_made_it(engine, recipe, reference, tmp_path):
    expected, result = reference
    subprocess.run(["cp", "-r", expected, tmp_path / "out"], check=True)
    for stage in STAGES[:2]:
        next((tmp_path / f"out/stages/{stage}/commits").iterdir()).unlink()
    again = counts(start(recipe, tmp_path / "out", *ENGINES[engine]))
    assert again == {"done": 2, "found": result.num_done - 2}
    assert tree_hashes(tmp_path / "out") == tree_hashes(expected)


# Law 4, on Spark: workers, executors and the driver die


def test_workers_that_die_in_every_stage(recipe, reference, tmp_path):
    """In one run, a worker is killed in each stage: within a write, and after a commit that it cannot tell of."""
    expected, _ = reference
    fates = [f"publish stages/{stage} half" for stage in STAGES] + [f"commit stages/{stage} after" for stage in STAGES]
    words = [word for fate in fates for word in ("--death", fate)]
    counts(start(recipe, tmp_path / "out", *SPARK, "spark.master=local[2,12]", *words))
    assert len(deaths(tmp_path / "out")) == len(fates), "not everybody died who should have"
    assert tree_hashes(tmp_path / "out") == tree_hashes(expected)


def test_a_worker_that_dies_too_often_fails_the_run_and_a_rerun_goes_on(tmp_path):
    recipe, output = tiny_recipe(tmp_path), tmp_path / "out"
    process = start(recipe, output, *SPARK, "spark.master=local[1]", "--death", "commit stages/2-identify before")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "WorkerDied: stage 2-identify: Spark gave up" in errors
    assert "hint: run the same command again, it goes on" in errors
    committed = len(list(output.glob("stages/*/commits/*.json")))
    again = counts(start(recipe, output, "datatrove", "--workers", "1"))
    assert again["found"] == committed > 0
    counts(start(recipe, tmp_path / "plain", "datatrove", "--workers", "1"))
    assert tree_hashes(output) == tree_hashes(tmp_path / "plain")


@pytest.mark.parametrize("stage", ["2-identify"])
def test_a_driver_that_is_killed_and_run_again(stage, recipe, reference, tmp_path):
    expected, result = reference
    output = tmp_path / "out"
    process = start(recipe, output, *ENGINES["spark"])
    wait_for_commits(process, output, stage)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    again = counts(start(recipe, output, *ENGINES["spark"]))
    assert again["found"] > 0
    assert again["done"] + again["found"] == result.num_done
    assert tree_hashes(output) == tree_hashes(expected)


def wait_for_commits(process: subprocess.Popen, output: Path, stage: str) -> None:
    """Wait until a stage has its first commit."""
    deadline = time.monotonic() + 180
    while not list(output.glob(f"stages/{stage}/commits/*.json")):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()[-3000:]
        time.sleep(0.02)
