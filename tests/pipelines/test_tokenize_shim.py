"""The shim in every launch style, in a tree where a stand-in for the job tells what the driver and workers find."""

from __future__ import annotations

import json
import shutil
import subprocess
import tokenize
from pathlib import Path

import pytest
from runs import REPOSITORY
from spark_cluster import bare_python, standalone_cluster, submit

from pipelines.engines.project_zip import PACKAGES

STAND_IN = '''
"""Tells where the driver and, if asked, the workers find the modules in question; in "both", why none are first."""
import argparse, json, os, sys
from pathlib import Path

def facts(_):
    import inspect, linecache, tokenize
    import pipelines, tokenizer
    assert tokenize.generate_tokens and linecache.tokenize is tokenize
    found = [module.__file__ for module in (tokenize, pipelines, tokenizer)]
    yield {"modules": found, "pid": os.getpid(), "executor": os.getppid(), "path": sys.path}

def main():
    from pyspark.sql import SparkSession
    from pipelines.engines.project_zip import WORKER_ENVIRONMENT, project_zip
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path)
    parser.add_argument("--workers", choices=["none", "zip", "bare", "both"], default="none")
    parser.add_argument("--unsafe", action="store_true", help="look for modules in the working folder first")
    options = parser.parse_args()
    told = {"driver": next(facts(None)), "workers": [], "refused": ""}
    if options.workers != "none":
        builder = SparkSession.builder
        for name, value in WORKER_ENVIRONMENT.items():
            if not (options.unsafe and name == "PYTHONSAFEPATH"):
                builder = builder.config(f"spark.executorEnv.{name}", value)
        context = builder.getOrCreate().sparkContext
        job = context.parallelize(range(4), 4).mapPartitions(facts)
        if options.workers == "both":
            try:
                job.collect()
            except Exception as error:
                told["refused"] = str(error)
        if options.workers != "bare":
            context.addPyFile(str(project_zip(options.output.parent)))
            job = context.parallelize(range(4), 4).mapPartitions(facts)
        told["workers"] = job.collect()
        context.stop()
    options.output.write_text(json.dumps(told))
'''


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A checkout of what the launch needs, with the stand-in as its job; nothing of it is installed."""
    root = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "pipelines/submit.py").write_text(STAND_IN)
    return root


def run_python(arguments: list[str | Path], cwd: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(bare_python(folder)), *map(str, arguments)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False
    )  # fmt: skip


def read_facts(output: Path, done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(output.read_text())


def check_driver(told: dict, tree: Path) -> None:
    """The standard library's tokenize, our packages from the tree, and the tree in place of pipelines/ on the path."""
    expected = [tokenize.__file__, str(tree / "pipelines/__init__.py"), str(tree / "tokenizer/__init__.py")]
    assert told["driver"]["modules"] == expected
    assert told["driver"]["path"][0] == str(tree)
    assert str(tree / "pipelines") not in told["driver"]["path"]


def check_workers(told: dict) -> None:
    """The standard library's tokenize, and our packages from the zip."""
    assert len(told["workers"]) == 4
    for worker in told["workers"]:
        own = [path.rpartition(".zip/") for path in worker["modules"][1:]]
        assert worker["modules"][0] == tokenize.__file__
        assert [inner for _, _, inner in own] == ["pipelines/__init__.py", "tokenizer/__init__.py"]
        assert all(Path(shipped).name.startswith("headrace-") for shipped, _, _ in own)


@pytest.mark.parametrize(
    ("arguments", "cwd"),
    [
        (["pipelines/tokenize.py"], "."),
        (["-m", "pipelines.tokenize"], "."),
        (["tokenize.py"], "pipelines"),
        (["../pipelines/tokenize.py"], "tokenizer"),
        (["{tree}/pipelines/tokenize.py"], "/"),
    ],
)
def test_python_finds_everything_from_any_folder(tree, tmp_path, arguments, cwd):
    told = tmp_path / "told.json"
    script = [argument.format(tree=tree) for argument in arguments]
    done = run_python([*script, "--output", told], tree / cwd, tmp_path)
    check_driver(read_facts(told, done), tree)


def test_a_link_to_the_script_leads_to_the_checkout(tree, tmp_path):
    (tmp_path / "tokens.py").symlink_to(tree / "pipelines/tokenize.py")
    told = tmp_path / "told.json"
    done = run_python(["tokens.py", "--output", told], tmp_path, tmp_path)
    check_driver(read_facts(told, done), tree)


def test_without_the_shim_the_same_launch_dies(tree, tmp_path):
    """What the shim is for: a job in a file of this name, started as a script, finds itself for tokenize."""
    copy = tmp_path / "copy/pipelines"
    shutil.copytree(tree / "pipelines", copy)
    (copy / "tokenize.py").write_text((copy / "submit.py").read_text() + "\nmain()\n")
    done = run_python(["tokenize.py", "--output", tmp_path / "told.json"], copy, tmp_path)
    assert done.returncode != 0
    assert "circular import" in done.stderr or "has no attribute" in done.stderr


@pytest.mark.parametrize("name", ["linecache, inspect, tokenize", "tokenize, dataclasses, traceback"])
def test_inside_pipelines_the_name_is_the_standard_library_s(tree, tmp_path, name):
    code = (
        f"import {name}; print(tokenize.__file__, tokenize.__name__, tokenize.__spec__.name, hasattr(tokenize, 'own'))"
    )
    done = run_python(["-c", code], tree / "pipelines", tmp_path)
    assert done.stdout.split() == [tokenize.__file__, "tokenize", "tokenize", "False"], done.stderr


def test_as_a_module_of_the_package_it_does_nothing(tree, tmp_path):
    code = "import sys; before = list(sys.path); import pipelines.tokenize as t; print(sys.path == before, dir(t))"
    done = run_python(["-c", code], tree, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True")
    assert "main" not in done.stdout


def test_spark_submit_inside_pipelines(tree, tmp_path):
    """The hardest folder: by default the driver's and the workers' Python both begin their search in it."""
    told = tmp_path / "told.json"
    arguments = ["tokenize.py", "--output", told, "--workers", "zip"]
    done = submit(arguments, cwd=tree / "pipelines", master="local[2]", folder=tmp_path / "spark")
    facts = read_facts(told, done)
    check_driver(facts, tree)
    check_workers(facts)


def test_a_standalone_cluster_gets_everything_from_the_zip(tree, tmp_path):
    """Two executors that have nothing of ours: without the zip they fail, with it they find all of it."""
    told, script = tmp_path / "told.json", tree / "pipelines/tokenize.py"
    with standalone_cluster(tmp_path / "cluster") as cluster:
        arguments = [script, "--output", told, "--workers", "both"]
        done = submit(arguments, cwd=tmp_path, master=cluster.url, folder=tmp_path / "spark")
        facts = read_facts(told, done)
        workers = cluster.workers
    assert "ModuleNotFoundError: No module named 'pipelines'" in facts["refused"]
    check_driver(facts, tree)
    check_workers(facts)
    assert len({worker["executor"] for worker in facts["workers"]}) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.mark.stress
@pytest.mark.parametrize(("script", "cwd"), [("pipelines/tokenize.py", "."), ("{tree}/pipelines/tokenize.py", "/")])
@pytest.mark.parametrize("master", ["local[2]", "local-cluster[2,1,1024]"])
def test_spark_submit_from_any_folder(tree, tmp_path, master, script, cwd):
    told = tmp_path / "told.json"
    arguments = [script.format(tree=tree), "--output", told, "--workers", "zip"]
    done = submit(arguments, cwd=tree / cwd, master=master, folder=tmp_path / "spark")
    facts = read_facts(told, done)
    check_driver(facts, tree)
    check_workers(facts)


@pytest.mark.stress
def test_workers_that_search_pipelines_first_find_the_standard_library(tree, tmp_path):
    """As when a cluster starts Python without our environment: the shim hands over, and the rest is in the zip."""
    told = tmp_path / "told.json"
    arguments = ["tokenize.py", "--output", told, "--workers", "zip", "--unsafe"]
    done = submit(arguments, cwd=tree / "pipelines", master="local[2]", folder=tmp_path / "spark")
    facts = read_facts(told, done)
    check_workers(facts)
    assert all(worker["path"][0] == str(tree / "pipelines") for worker in facts["workers"])


@pytest.mark.stress
def test_the_script_alone_beside_its_zip(tree, tmp_path):
    """As in YARN's cluster mode: the script lies in a folder by itself, and the packages come by --py-files."""
    code = "from pipelines.engines.project_zip import project_zip; import pathlib; print(project_zip(pathlib.Path(%r)))"
    shipped = run_python(["-c", code % str(tmp_path)], tree, tmp_path).stdout.strip()
    alone = tmp_path / "container"
    alone.mkdir()
    shutil.copy(tree / "pipelines/tokenize.py", alone)
    told = tmp_path / "told.json"
    arguments = ["--py-files", shipped, "tokenize.py", "--output", told, "--workers", "bare"]
    done = submit(arguments, cwd=alone, master="local-cluster[2,1,1024]", folder=tmp_path / "spark")
    facts = read_facts(told, done)
    check_workers(facts)
    assert ".zip/pipelines/" in facts["driver"]["modules"][1]
