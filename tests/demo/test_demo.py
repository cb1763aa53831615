"""`make demo`: the same commands, in this environment and in a copy of the folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mixtures.plan import Plan
from pipelines.ledger import stage_total
from pipelines.sinks.tables import read_table
from pipelines.storage.local import LocalStorage

REPOSITORY = Path(__file__).resolve().parents[2]


def commands(target: str) -> list[str]:
    """Return a target's commands as the Makefile has them."""
    makefile = (REPOSITORY / "Makefile").read_text()
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    return [line.strip() for line in recipe[1].splitlines()]


def run(command: str, folder: Path) -> str:
    python = str(Path(sys.executable).parent)
    line = command.replace("$(DEMO_BIN)", python)
    done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the folder `demo`, in which the tests below run one after the other."""
    folder = tmp_path_factory.mktemp("demo")
    made = ("inputs", "output", "plan", "report", "training")
    shutil.copytree(REPOSITORY / "demo", folder / "demo", ignore=shutil.ignore_patterns(*made))
    return folder


def test_the_demo(folder):
    make_inputs, run_recipe, verify, mix, trace, report = commands("demo")
    run(make_inputs, folder)
    said = run(run_recipe, folder)
    for word in ("tokens", "exact_duplicate", "damaged_record", "conversation.role", "demo/output/tokens"):
        assert word in said
    assert "ledger:" in run(verify, folder)
    ledger = read_table(LocalStorage(folder / "demo/output"), "ledger.parquet")
    kept = stage_total(ledger, "5-tokenize", last=True)
    assert set(kept) == {"code", "conversations", "web"}
    assert kept["web"][0] > 200
    assert kept["conversations"][0] == 41
    again = run(run_recipe, folder)
    assert "0 splits and buckets done" in again
    assert "conversations │ instructions" in run(mix, folder)
    assert Plan.load(folder / "demo/plan/plan.json").phases[0].length == 8192
    assert "<|endoftext|>" in run(trace, folder)
    run(report, folder)
    page = (folder / "demo/report/report.html").read_text()
    assert "conversations" in page
    assert "ledger:" in run(verify, folder), "what follows leaves nothing in the run's folder"


def test_the_demo_trains(folder):
    mix, train, report = commands("demo-train")
    run(mix, folder)
    run(f"{train} --steps 3", folder)
    run(report, folder)
    assert "training" in (folder / "demo/report/report.html").read_text().lower()
