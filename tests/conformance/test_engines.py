"""One recipe, every engine: the same bytes, and faults that change nothing. `make stress` has all combinations."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from engine_runs import ENGINES, SPARK, STAGES, counts, start
from runs import SHARED, tiny_recipe
from trees import tree_hashes

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")


def deaths(output: Path) -> set[str]:
    return {path.name for path in Path(f"{output}-deaths").iterdir()}


@pytest.mark.parametrize("engine", ENGINES)
def test_same_bytes_on_every_engine(engine, recipe, reference, tmp_path):
    expected, result = reference
    words = ENGINES[engine]
    first = counts(start(recipe, tmp_path / "out", *words))
    assert tree_hashes(tmp_path / "out") == tree_hashes(expected)
    assert first == {"done": result.num_done, "found": 0}


@pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=() if name == "spark" else pytest.mark.stress) for name in ENGINES]
)
def test_a_rerun_finds_everything_whichever_engine_made_it(engine, recipe, reference, tmp_path):
    expected, result = reference
    subprocess.run(["cp", "-r", expected, tmp_path / "out"], check=True)
    for stage in STAGES[:2]:
        next((tmp_path / f"out/stages/{stage}/commits").iterdir()).unlink()
    again = counts(start(recipe, tmp_path / "out", *ENGINES[engine]))
    assert again == {"done": 2, "found": result.num_done - 2}
    assert tree_hashes(tmp_path / "out") == tree_hashes(expected)


# Law 3: what is wrong comes back as what it is, at once


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("how", "said"),
    [
        pytest.param("loses a row", "LedgerImbalance: 1-read: conversations/", id="loses a row"),
        pytest.param("panic", "HeadraceError: 1-read: conversations/", id="panic", marks=pytest.mark.stress),
        pytest.param("leaves", "HeadraceError: 1-read: conversations/", id="leaves", marks=pytest.mark.stress),
    ],
)
def test_a_careless_transform_fails_the_run(engine, how, said, tmp_path):
    words = (*ENGINES[engine], "--failing", "conversations", how)
    process = start(tiny_recipe(tmp_path), tmp_path / "out", *words)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert said in errors
    assert not (tmp_path / "out/ledger.parquet").exists()


# Law 4, on Spark: workers, executors and the driver die


FATES = [f"publish stages/{stage} half" for stage in STAGES] + [f"commit stages/{stage} after" for stage in STAGES]
ALL_FATES = [
    f"{what} stages/{stage} {when}"
    for what in ("publish", "commit")
    for stage in STAGES
    for when in ("before", "half", "after")
]


@pytest.mark.parametrize(
    "fates", [FATES, pytest.param(ALL_FATES, marks=pytest.mark.stress)], ids=["one of a kind", "all"]
)
def test_workers_that_die_in_every_stage(fates, recipe, reference, tmp_path):
    """In one run, a worker is killed in each stage: within a write, and after a commit that it cannot tell of."""
    expected, _ = reference
    words = [word for fate in fates for word in ("--death", fate)]
    counts(start(recipe, tmp_path / "out", *SPARK, "spark.master=local[2,40]", *words))
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


@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=() if stage == "2-identify" else pytest.mark.stress) for stage in STAGES]
)
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
