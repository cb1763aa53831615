"""Runs of a recipe on any engine, each in a process of its own, for the conformance suite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from runs import REPOSITORY

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
