"""Does the trainer learn? A small mixture of experts on the real data's mixture, against the unigram model.

    python benchmarks/learn.py [--steps N] [--plan PLAN] [--work FOLDER] [--json FILE]

Runs recipes/crawl.yaml, plans its sources (text 2 epochs, code 4, instructions 1, a fiftieth held out) in sequences of
512 tokens, 8 a step, and trains N steps with `headrace train`, which evaluates six times on the way. What must hold
at the end: the loss on held-out documents, which no step saw, is below the unigram model's; it is lower at each of the
last three evaluations than at the one before; and averaged over the last 50 steps no expert of any layer has less than
a quarter of the mean load. Else the exit status is 1. Everything in FOLDER is kept and found again. About 20 minutes on
two cores, of which two make the shards; four fifths of a step are the output matrix of 100,352 rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
CLASSES = {"text": {"epochs": 2}, "code": {"epochs": 4}, "instructions": {"epochs": 1, "cut": "never"}}
SOURCES = {
    "web": "text", "wet": "text", "c4": "text", "refinedweb": "text", "instructions": "instructions", "code": "code",
}  # fmt: skip
EVALUATIONS = 6
RECENT = 50
"""Steps that the experts' loads are averaged over."""
LEAST_LOAD = 0.25
SETTINGS: dict[str, Any] = {
    # Ten times the usual weight of the load-balance loss: in the first hundred steps all tokens look alike to a router,
    # and at this learning rate it would send them all to the same experts.
    "model": {"layers": 4, "d_model": 128, "heads": 4, "head_dim": 32, "d_ff": 256, "aux_weight": 0.1},
    "optimizer": {"learning_rate": 0.003, "warmup_steps": 40},
    "micro_batch": 8,
    "evaluate_sequences": 64,
    "checkpoint_every": 100,
}


def main() -> None:
    """Make what is missing, train, judge, print, and write the result as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=300, help="steps to train; the verdict is meant for 300 and more")
    parser.add_argument("--plan", type=Path, help="train on this plan instead of recipes/crawl.yaml's")
    parser.add_argument("--work", type=Path, help="folder for shards, plan and run; a temporary one if not given")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = (arguments.work or Path(folder)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        plan = arguments.plan.absolute() if arguments.plan else make_plan(work)
        result = judge(train(work, plan, arguments.steps))
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    raise SystemExit(0 if result["learned"] else 1)


def make_plan(work: Path) -> Path:
    """Return the plan over the token shards of recipes/crawl.yaml, which is run if it has not been."""
    headrace("run", REPOSITORY / "recipes/crawl.yaml", "--output", work / "out", "--workers", 2)
    mixture = {
        "name": "learn",
        "seed": 1,
        "classes": CLASSES,
        "sources": {
            name: {"class": kind, "manifests": [f"out/tokens/{name}/**/manifest.json"]}
            for name, kind in SOURCES.items()
        },
        "phases": [{"length": 512, "global_batch": 8}],
        "validation": {"share": "1/50"},
    }
    (work / "mixture.yaml").write_text(yaml.safe_dump(mixture, sort_keys=False))
    headrace("mix", work / "mixture.yaml", "--output", work / "plan.json")
    return work / "plan.json"


def train(work: Path, plan: Path, steps: int) -> list[dict]:
    """Train and return the lines of metrics.jsonl."""
    settings = SETTINGS | {"steps": steps, "evaluate_every": -(-steps // EVALUATIONS)}
    (work / "train.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    output = work / f"training-{steps}"
    headrace("train", work / "train.yaml", "--plan", plan, "--output", output)
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def headrace(*words: object) -> None:
    """Run a command of this repository's `headrace`, its output shown."""
    command = [sys.executable, "-c", "import headrace; headrace.main()", *(str(word) for word in words)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True)


def judge(metrics: list[dict]) -> dict[str, Any]:
    """Return the figures that must hold, and whether they do."""
    steps = [entry for entry in metrics if entry["kind"] == "step"]
    evaluations = [entry for entry in metrics if entry["kind"] == "evaluation"]
    losses = [entry["loss"] for entry in evaluations]
    loads = np.mean([entry["loads"] for entry in steps[-RECENT:]], axis=0)
    last = losses[-4:]
    verdicts = {
        "below_unigram": losses[-1] < evaluations[-1]["unigram"],
        "falling": len(last) == 4 and all(later < earlier for earlier, later in zip(last, last[1:], strict=False)),
        "balanced": bool(loads.min() >= LEAST_LOAD),
    }
    return {
        "steps": steps[-1]["step"],
        "tokens": sum(entry["tokens"] for entry in steps),
        "seconds": sum(entry["seconds"] for entry in steps),
        "first_loss": steps[0]["loss"],
        "last_loss": float(np.mean([entry["loss"] for entry in steps[-RECENT:]])),
        "evaluations": [[entry["step"], entry["loss"]] for entry in evaluations],
        "held_out_loss": losses[-1],
        "unigram_loss": evaluations[-1]["unigram"],
        "held_out_targets": evaluations[-1]["targets"],
        "sources": evaluations[-1]["sources"],
        "least_load": float(loads.min()),
        "greatest_load": float(loads.max()),
        **verdicts,
        "learned": all(verdicts.values()),
    }


def show(result: dict[str, Any]) -> None:
    """Print the evaluations as a table, the other figures, and the verdict."""
    print(f"{'step':>6} {'held-out loss':>14}   the unigram model's is {result['unigram_loss']:.4f}")
    for step, loss in result["evaluations"]:
        print(f"{step:>6} {loss:>14.4f}")
    for name, value in result.items():
        if name not in ("evaluations", "learned"):
            print(f"{name:18}{value}")
    print("it learns" if result["learned"] else "it does not learn: a figure above that is False must be True")


if __name__ == "__main__":
    main()
