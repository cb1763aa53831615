"""`spark-submit pipelines/tokenize.py` as typed: from three folders, on three kinds of master; executors that die."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import REPOSITORY, SHARED
from spark_cluster import Cluster, standalone_cluster, submit
from trees import tree_hashes

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")

LOCAL_CLUSTER = "local-cluster[2,1,1024]"


def check(done: subprocess.CompletedProcess[str], output: Path, expected: Path) -> None:
    assert done.returncode == 0, done.stderr[-3000:]
    assert "splits and buckets done, 0 found committed" in " ".join(done.stdout.split()) + done.stderr
    assert tree_hashes(output) == tree_hashes(expected)


@pytest.mark.parametrize(
    ("script", "cwd", "master"),
    [
        ("pipelines/tokenize.py", REPOSITORY, "local[2]"),
        ("tokenize.py", REPOSITORY / "pipelines", LOCAL_CLUSTER),
        pytest.param("pipelines/tokenize.py", REPOSITORY, LOCAL_CLUSTER, marks=pytest.mark.stress),
        pytest.param("tokenize.py", REPOSITORY / "pipelines", "local[2]", marks=pytest.mark.stress),
        pytest.param(str(REPOSITORY / "pipelines/tokenize.py"), Path("/"), "local[2]", marks=pytest.mark.stress),
        pytest.param(str(REPOSITORY / "pipelines/tokenize.py"), Path("/"), LOCAL_CLUSTER, marks=pytest.mark.stress),
    ],
)
def test_from_every_folder(script, cwd, master, recipe, reference, tmp_path):
    words = [script, "--recipe", recipe, "--output", tmp_path / "out"]
    done = submit(words, cwd=cwd, master=master, folder=tmp_path / "spark")
    check(done, tmp_path / "out", reference[0])


def test_a_standalone_cluster_of_two_workers_of_which_one_loses_its_executor(recipe, reference, tmp_path):
    """Submitted from another folder; the workers have nothing of ours. The executor dies within the second stage."""
    output = tmp_path / "out"
    words = [REPOSITORY / "pipelines/tokenize.py", "--recipe", recipe, "--output", output]
    with standalone_cluster(tmp_path / "spark") as cluster:
        killed: list[int] = []
        watcher = threading.Thread(target=kill_executor, args=(cluster, lambda: stage_has_begun(output), killed))
        watcher.start()
        done = submit(words, cwd=Path("/"), master=cluster.url, folder=tmp_path / "spark")
        watcher.join()
    assert killed, "no executor was there to die"
    check(done, output, reference[0])


def stage_has_begun(output: Path) -> bool:
    return len(list(output.glob("stages/1-read/commits/*.json"))) > 20


def kill_executor(cluster: Cluster, when: Callable[[], bool], killed: list[int]) -> None:
    """Kill one executor of the cluster as soon as `when` holds."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if when() and (executors := cluster.executors()):
            os.kill(executors[0], signal.SIGKILL)
            killed.append(executors[0])
            return
        time.sleep(0.05)
