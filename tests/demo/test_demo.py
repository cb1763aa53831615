"""`make demo`: the same commands, in this environment and in a copy of the folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from pipelines.ledger import stage_total
from pipelines.sinks.tables import read_table
from pipelines.storage import LocalStorage

REPOSITORY = Path(__file__).resolve().parents[2]


def commands() -> list[str]:
    """Return the demo's commands as the Makefile has them, without the environment's folder."""
    makefile = (REPOSITORY / "Makefile").read_text()
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    return [line.strip().replace("$(DEMO_OUTPUT)", "demo/output") for line in recipe[1].splitlines()]


def run(command: str, folder: Path) -> str:
    python = str(Path(sys.executable).parent)
    line = command.replace("$(DEMO_BIN)", python)
    done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_demo(tmp_path):
    shutil.copytree(REPOSITORY / "demo", tmp_path / "demo", ignore=shutil.ignore_patterns("inputs", "output"))
    make_inputs, run_recipe, verify = commands()
    run(make_inputs, tmp_path)
    said = run(run_recipe, tmp_path)
    for word in ("tokens", "exact_duplicate", "damaged_record", "conversation.role", "demo/output/tokens"):
        assert word in said
    assert "ledger:" in run(verify, tmp_path)
    ledger = read_table(LocalStorage(tmp_path / "demo/output"), "ledger.parquet")
    kept = stage_total(ledger, "5-tokenize", last=True)
    assert set(kept) == {"code", "conversations", "web"}
    assert kept["web"][0] > 200
    assert kept["conversations"][0] == 40
    again = run(run_recipe, tmp_path)
    assert "0 splits and buckets done" in again
