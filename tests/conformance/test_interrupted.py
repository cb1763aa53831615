"""Law 4: a split finishes once. Killed anywhere and run again, the bytes are the same and only the rest is done."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import REPOSITORY, SHARED, run_recipe, tiny_recipe
from trees import tree_hashes

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")


def test_a_finished_run_has_nothing_left_to_do(recipe, reference):
    output, result = reference
    before = tree_hashes(output)
    again = run_recipe(recipe, output)
    assert again.num_done == 0
    assert again.num_found == result.num_done
    assert tree_hashes(output) == before


def test_a_rerun_makes_only_what_is_missing(recipe, reference, tmp_path):
    output, result = reference
    subprocess.run(["cp", "-r", output, tmp_path / "out"], check=True)
    commits = sorted((tmp_path / "out/stages/1-read/commits").iterdir())
    commits[3].unlink()
    again = run_recipe(recipe, tmp_path / "out")
    assert again.num_done == 1, "the split gives the same file, so nothing behind it is stale"
    assert again.num_found == result.num_done - 1
    assert tree_hashes(tmp_path / "out") == tree_hashes(output)


def die_at(recipe: Path, folder: Path, *options: str) -> list[dict]:
    script = REPOSITORY / "tests/support/die_at.py"
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/support'}"}
    done = subprocess.run(
        [sys.executable, str(script), str(recipe), str(folder), *options],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_deaths(deaths: list[dict]) -> None:
    for death in deaths:
        assert death["killed"], death
        assert death["finished"], death
        assert death["same"], death
        assert death["found"] == death["committed"], death
        assert death["done"] == death["all"] - death["committed"], death


def test_killed_at_every_kind_of_point(tmp_path):
    """Before, in the middle of and after each kind of write of each stage: the same bytes after one more run."""
    deaths = die_at(tiny_recipe(tmp_path), tmp_path)
    check_deaths(deaths)
    operations = {death["operation"].split()[0] for death in deaths}
    assert operations == {"create", "publish", "commit", "replace"}
    stages = {part for death in deaths for part in death["operation"].split("/") if part[0].isdigit()}
    assert {"1-read", "2-identify", "3-find-duplicates", "4-sort-duplicates", "5-tokenize"} <= stages


@pytest.mark.stress
def test_killed_at_every_point(tmp_path):
    check_deaths(die_at(tiny_recipe(tmp_path), tmp_path, "--every", "1"))


def run_in_process(recipe: Path, output: Path, workers: int) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "headrace_main",
        "run",
        str(recipe),
        "--output",
        str(output),
        "--workers",
        str(workers),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/support'}"}
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_at_a_random_moment(seed, recipe, reference, tmp_path):
    """The whole process group dies with SIGKILL at some moment of a run with three workers."""
    output, _ = reference
    process = run_in_process(recipe, tmp_path / "out", 3)
    time.sleep(random.Random(seed).uniform(1.5, 7))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    committed = len(list((tmp_path / "out").rglob("1-read/commits/*.json")))
    result = run_recipe(recipe, tmp_path / "out", workers=2)
    assert result.stages["1-read"].num_found == committed
    assert tree_hashes(tmp_path / "out") == tree_hashes(output)


def test_a_killed_worker_fails_the_run_at_once_and_a_rerun_goes_on(recipe, reference, tmp_path):
    output, _ = reference
    process = run_in_process(recipe, tmp_path / "out", 2)
    worker = first_worker(process.pid)
    os.kill(worker, signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert "a worker process was killed" in said
    assert "run the same command again" in " ".join(said.split())
    assert not Path(f"/proc/{worker}").exists()
    run_recipe(recipe, tmp_path / "out", workers=1)
    assert tree_hashes(tmp_path / "out") == tree_hashes(output)


def first_worker(parent: int) -> int:
    """Wait for a pool worker (not the resource tracker) that has begun to work, and return its process id."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            try:
                command = Path(f"/proc/{child}/cmdline").read_text()
            except OSError:
                continue
            if "spawn_main" in command and Path(f"/proc/{child}/fd").exists():
                threads = len(list(Path(f"/proc/{child}/task").iterdir()))
                if threads > 1:
                    return int(child)
        time.sleep(0.05)
    raise AssertionError("no worker started")
