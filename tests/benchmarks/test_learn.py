"""The benchmark of learning: its verdicts, and twenty steps of it on a small plan."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plans import made_plan

from benchmarks import learn

REPOSITORY = Path(__file__).resolve().parents[2]


def metrics(losses=(11.0, 9.0, 8.0, 7.5, 7.0), unigram=7.25, load=0.5) -> list[dict]:
    """A run of 100 steps whose evaluations have these losses; in its first half an expert has nothing."""
    found = []
    for number in range(1, 101):
        loads = [[1.0, 1.0], [0.0, 2.0] if number <= 50 else [load, 2 - load]]
        found.append({"kind": "step", "step": number, "loss": 9.0, "tokens": 10, "seconds": 0.5, "loads": loads})
    return found + [
        {"kind": "evaluation", "step": 25 * place, "loss": loss, "unigram": unigram, "targets": 9, "sources": {}}
        for place, loss in enumerate(losses)
    ]


def verdict(**changes) -> tuple[bool, bool, bool, bool]:
    result = learn.judge(copy.deepcopy(metrics(**changes)))
    return tuple(result[name] for name in ("below_unigram", "falling", "balanced", "learned"))


def test_a_run_that_learned():
    result = learn.judge(metrics())
    assert (result["steps"], result["tokens"], result["seconds"]) == (100, 1000, 50)
    assert (result["least_load"], result["greatest_load"]) == (0.5, 1.5)
    assert result["learned"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"unigram": 7.0}, (False, True, True, False)),
        ({"losses": (11.0, 6.0, 8.0, 7.5, 7.0)}, (True, False, True, False)),
        ({"losses": (11.0, 8.0, 7.0, 7.5, 6.9)}, (True, False, True, False)),
        ({"losses": (11.0, 8.0, 7.0, 7.0)}, (True, False, True, False)),
        ({"losses": (9.0, 8.0, 7.0)}, (True, False, True, False)),
        ({"load": 0.24}, (True, True, False, False)),
        ({"load": 0.25}, (True, True, True, True)),
    ],
)
def test_each_verdict_can_fail(changes, expected):
    assert verdict(**changes) == expected


def test_twenty_steps(tmp_path):
    """Too few to pass the unigram model, and the script says so; but the held-out loss falls."""
    plan = made_plan(tmp_path, validation={"share": "1/50"})
    target = tmp_path / "result.json"
    command = [sys.executable, "benchmarks/learn.py", "--steps", "20", "--plan", plan, "--work", tmp_path / "work"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # tests run side by side
    ended = subprocess.run(
        [*command, "--json", target], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert target.exists(), ended.stderr
    result = json.loads(target.read_text())
    assert result["steps"] == 20
    losses = [loss for _, loss in result["evaluations"]]
    assert [step for step, _ in result["evaluations"]] == [0, 4, 8, 12, 16, 20]
    assert losses[-1] < losses[0] - 0.1
    assert (ended.returncode, "it does not learn" in ended.stdout) == (1, True)
