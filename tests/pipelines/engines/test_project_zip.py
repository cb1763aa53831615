from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from runs import REPOSITORY
from spark_cluster import bare_python

from pipelines.engines.project_zip import PACKAGES, SUFFIXES, WORKER_ENVIRONMENT, project_zip

MAKE = "import sys, pathlib; from pipelines.engines.project_zip import project_zip; "
ZIP_AGAIN = MAKE + "print(project_zip(pathlib.Path(sys.argv[1])))"
KERNELS = """
import json, sys, pyarrow
from tokenizer import differences
print(json.dumps([differences.__file__, differences.differing(pyarrow.array(sys.argv[1:], "large_string")).tolist()]))
"""
EVERY_MODULE = """
import importlib, pkgutil, pipelines, tokenizer
for package in (pipelines, tokenizer):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        print(importlib.import_module(module.name).__file__)
"""
TEXTS = ["The mill has a wheel.", "\u088f and \U00010940 came with Unicode 17"]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    return project_zip(tmp_path_factory.mktemp("driver") / "zips")


def run_from(zip_file: Path, code: str, *arguments: str, cache: Path, folder: Path) -> str:
    """Run code in a Python that has nothing of ours but this zip, as a worker is started."""
    environment = {
        **WORKER_ENVIRONMENT, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(zip_file), "XDG_CACHE_HOME": str(cache),
    }  # fmt: skip
    command = [str(bare_python(folder)), "-c", code, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_it_holds_what_workers_import_and_no_more(shipped):
    expected = sorted(
        str(path.relative_to(REPOSITORY))
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*")
        if path.suffix in SUFFIXES
    )
    with zipfile.ZipFile(shipped) as archive:
        assert archive.namelist() == expected
        for path in expected:
            assert archive.read(path) == (REPOSITORY / path).read_bytes()
    assert {path.partition("/")[0] for path in expected} == {"pipelines", "tokenizer"}
    assert "pipelines/tokenize.py" in expected


def test_its_name_is_the_hash_of_its_bytes_and_both_are_always_the_same(shipped, tmp_path):
    again = project_zip(tmp_path)
    assert again.name == shipped.name == f"headrace-{hashlib.sha256(shipped.read_bytes()).hexdigest()}.zip"
    assert again.read_bytes() == shipped.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [again.name]


def test_packages_that_come_from_a_zip_make_the_same_zip(shipped, tmp_path):
    made = Path(run_from(shipped, ZIP_AGAIN, str(tmp_path / "again"), cache=tmp_path / "cache", folder=tmp_path))
    assert made.parent == tmp_path / "again"
    assert made.read_bytes() == shipped.read_bytes()


def test_packages_in_site_packages_make_the_same_zip(shipped, tmp_path):
    """With what an installation adds: compiled modules, and data of a kind that is none of ours."""
    site = tmp_path / "site-packages"
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, site / package)
    (site / "pipelines/__pycache__").mkdir(exist_ok=True)
    (site / "pipelines/__pycache__/plan.cpython-311.pyc").write_bytes(b"compiled")
    (site / "tokenizer/py.typed").touch()
    made = Path(run_from(site, ZIP_AGAIN, str(tmp_path / "again"), cache=tmp_path / "cache", folder=tmp_path))
    assert made.read_bytes() == shipped.read_bytes()


def test_other_code_makes_a_zip_of_another_name(shipped, tmp_path):
    site = tmp_path / "site-packages"
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    (site / "pipelines/transforms/rules.json").write_text("{}")
    made = Path(run_from(site, ZIP_AGAIN, str(tmp_path / "again"), cache=tmp_path / "cache", folder=tmp_path))
    assert made.name != shipped.name
    with zipfile.ZipFile(made) as archive:
        assert archive.read("pipelines/transforms/rules.json") == b"{}"


def test_every_module_imports_from_the_zip(shipped, tmp_path):
    files = run_from(shipped, EVERY_MODULE, cache=tmp_path / "cache", folder=tmp_path).splitlines()
    assert len(files) > 60
    assert all(Path(file).is_relative_to(shipped) for file in files)


def test_kernels_are_compiled_once_for_a_zip_wherever_it_lies(shipped, tmp_path):
    """Two executors on one host have the zip in folders of their own and share what numba has compiled."""
    cache = tmp_path / "cache"
    compiled = []
    for name in ("first", "second"):
        copy = tmp_path / name / shipped.name
        copy.parent.mkdir()
        shutil.copy(shipped, copy)
        file, found = json.loads(run_from(copy, KERNELS, *TEXTS, cache=cache, folder=tmp_path))
        assert file == f"{copy}/tokenizer/differences.py"
        assert found == [False, True]
        compiled.append({path: path.stat().st_mtime_ns for path in cache.rglob("*.nb?")})
    assert compiled[0] == compiled[1] != {}
    assert {path.relative_to(cache).parts[:2] for path in compiled[0]} == {("numba", shipped.stem)}


def test_without_a_cache_folder_kernels_are_kept_beside_the_zip(shipped, tmp_path):
    (tmp_path / "executor").mkdir()
    copy = shutil.copy(shipped, tmp_path / "executor" / shipped.name)
    (tmp_path / "file").touch()
    _, found = json.loads(run_from(copy, KERNELS, *TEXTS, cache=tmp_path / "file", folder=tmp_path))
    assert found == [False, True]
    assert any((tmp_path / "executor" / shipped.stem).rglob("*.nbc"))
