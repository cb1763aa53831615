"""A real Spark for tests: `spark-submit` as typed, and a standalone cluster of a master and workers on loopback.

No Python that is started here has anything of ours: each runs without the `site` module, so that the `.pth` file of an
editable install is not read, and finds only the third-party packages. What a job needs of ours must be shipped.
Everything that Spark writes lies below the folder that the test gives (by itself it writes into site-packages).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.engines.java import prepare_java

SITE_PACKAGES = sysconfig.get_path("purelib")
START_SECONDS, SUBMIT_SECONDS = 90.0, 300.0
"""Generous: a JVM starts in 2 s on an idle machine. Neither is reached by a test that passes."""
MASTER_URL = re.compile(r"Starting Spark master at (spark://\S+)")
REGISTERED = "Registering worker "
SHORT_LIVED = "-XX:TieredStopAtLevel=1"
"""JVMs that live for seconds: without the second compiler a job on a cluster costs half the CPU (42 s to 22 s)."""
SMALL = {
    "spark.ui.enabled": "false",
    "spark.driver.memory": "512m",
    "spark.executor.memory": "512m",
    "spark.sql.shuffle.partitions": "2",
}
"""Settings of every submitted job; a test's own come after them."""

BARE_PYTHON = """#!/bin/sh
# Python with third-party packages and nothing of ours: no `site`, hence no .pth file.
PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}"{site_packages}
export PYTHONPATH
exec {python} -S "$@"
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster."""

    url: str
    """For `--master`."""
    workers: tuple[int, ...]
    """The process ids of the workers (JVMs); their executors are children of theirs."""

    def executors(self) -> list[int]:
        """Return the process ids of the executors (JVMs) that run now."""
        return [pid for pid, stat in _processes().items() if stat.parent in self.workers]


def bare_python(folder: Path) -> Path:
    """Write the script that starts a Python without anything of ours into a folder; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bare-python"
    if not path.exists():
        path.write_text(
            BARE_PYTHON.format(site_packages=shlex.quote(SITE_PACKAGES), python=shlex.quote(sys.executable))
        )
        path.chmod(0o755)
    return path


def spark_environment(folder: Path) -> dict[str, str]:
    """Return an environment in which Spark's own scripts run and write below `folder` only."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SPARK", "PYSPARK"))}
    python = str(bare_python(folder))
    (folder / "local").mkdir(exist_ok=True)
    own = {
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "PYSPARK_PYTHON": python,
        "PYSPARK_DRIVER_PYTHON": python,
        "PYTHONWARNINGS": "ignore",
        "SPARK_HOME": str(_spark_home(folder)),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(folder / "local"),
        "SPARK_DAEMON_MEMORY": "256m",
        "JDK_JAVA_OPTIONS": SHORT_LIVED,
    }
    return prepare_java({**kept, **own})


def submit(
    args: Sequence[str | Path], *, cwd: Path, master: str, folder: Path,
    settings: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run `spark-submit --master MASTER ARGS` in `cwd` and return how it ended; `args` begin with the script."""
    confs = [f"--conf={name}={value}" for name, value in {**SMALL, **(settings or {})}.items()]
    script = Path(sysconfig.get_path("scripts")) / "spark-submit"
    return subprocess.run(
        [str(script), "--master", master, *confs, *map(str, args)],
        cwd=cwd,
        env={**spark_environment(folder), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=SUBMIT_SECONDS,
        check=False,
    )


@contextmanager
def standalone_cluster(folder: Path, workers: int = 2, memory: str = "1g") -> Iterator[Cluster]:
    """Run a master and workers of one core each on free ports of loopback; end every process of theirs at exit."""
    environment = spark_environment(folder)
    with ExitStack() as stack:
        log = folder / "master.log"
        stack.enter_context(_daemon("master.Master", ["--port", "0"], log, environment))
        url = _wait(lambda: (found := MASTER_URL.search(log.read_text())) and found[1], log)
        pids = []
        for number in range(workers):
            home = folder / f"worker-{number}"
            options = ["--cores", "1", "--memory", memory, "--work-dir", str(home), "--port", "0", url]
            pids.append(stack.enter_context(_daemon("worker.Worker", options, home.with_suffix(".log"), environment)))
        _wait(lambda: log.read_text().count(REGISTERED) == workers, log)
        yield Cluster(url, tuple(pids))


@contextmanager
def _daemon(name: str, options: list[str], log: Path, environment: Mapping[str, str]) -> Iterator[int]:
    """Run a process of Spark's in a session of its own and yield its id; all of the session ends at exit."""
    script = Path(environment["SPARK_HOME"]) / "bin/spark-class"
    common = ["--host", "127.0.0.1", "--webui-port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(script), f"org.apache.spark.deploy.{name}", *common, *options],
            env=dict(environment), cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process.pid
    finally:
        while members := [pid for pid, stat in _processes().items() if stat.session == process.pid]:
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        process.wait()


def _wait(condition: Callable[[], Any], log: Path) -> Any:
    """Wait until the condition holds and return what it gave; its log tells what is wrong with a process."""
    end = time.monotonic() + START_SECONDS
    while not (value := condition()):
        assert time.monotonic() < end, f"Spark has not started: {log.read_text()[-2000:]}"
        time.sleep(0.05)
    return value


def _spark_home(folder: Path) -> Path:
    """Make a `SPARK_HOME` of links to the installed one: a local cluster puts `work/` there, whatever it is told."""
    spec = importlib.util.find_spec("pyspark")
    assert spec is not None and spec.origin is not None
    home = folder / "spark-home"
    if not home.exists():
        home.mkdir(parents=True)
        for entry in Path(spec.origin).parent.iterdir():
            (home / entry.name).symlink_to(entry)
    return home


@dataclasses.dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    session: int


def _processes() -> dict[int, _Stat]:
    """Return every process that is no zombie, from Linux's /proc (a Python worker leaves its parent's group)."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, _, session = (folder / "stat").read_text().rpartition(") ")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            found[int(folder.name)] = _Stat(int(parent), int(session))
    return found
