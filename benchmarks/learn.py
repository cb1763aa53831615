"""Does the trainer learn? A small mixture of experts on the real data's mixture, against the unigram model.

    python benchmarks/learn.py [--steps N] [--work FOLDER] [--json FILE]

Runs recipes/crawl.yaml, plans its sources (text 2 epochs, code 4, instructions 1, a fiftieth held out) in sequences of
512 tokens, and trains N steps of 8 sequences with `headrace train`. What must hold at the end: the loss on held-out
documents, which no step saw, is below the unigram model's; it is lower at each of the last three evaluations than at
the one before; and averaged over the last 50 steps no expert of any layer has less than a quarter of the mean load.
Everything in FOLDER is kept and found again. About 15 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = {
    "web": "text", "wet": "text", "c4": "text", "refinedweb": "text", "instructions": "instructions", "code": "code",
}  # fmt: skip
RECENT = 50
LEAST_LOAD = 0.25
SETTINGS = {
    "model": {"layers": 4, "d_model": 128, "heads": 4, "head_dim": 32, "d_ff": 256, "aux_weight": 0.02},
    "optimizer": {"learning_rate": 0.003, "warmup_steps": 40},
    "micro_batch": 8,
    "evaluate_sequences": 64,
    "evaluate_every": 50,
    "checkpoint_every": 100,
}


def main() -> None:
    """Make what is missing, train, judge, print, and write the result as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=350, help="steps to train; at least 300 for the verdict")
    parser.add_argument("--work", type=Path, help="folder for shards, plan and run; a temporary one if not given")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = arguments.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        plan = make_plan(work)
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
        "classes": {"text": {"epochs": 2}, "code": {"epochs": 4}, "instructions": {"epochs": 1, "cut": "never"}},
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
    (work / "train.yaml").write_text(yaml.safe_dump(SETTINGS | {"steps": steps}, sort_keys=False))
    headrace("train", work / "train.yaml", "--plan", plan, "--output", work / f"training-{steps}")
    lines = (work / f"training-{steps}" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def headrace(*words: object) -> None:
    """Run a command of this repository's `headrace`, its output shown."""
    command = [sys.executable, "-c", "import headrace; headrace.main()", *(str(word) for word in words)]
    subprocess.run(command, cwd=REPOSITORY, check=True)


def judge(metrics: list[dict]) -> dict:
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


def show(result: dict) -> None:
    """Print the figures, one a line."""
    for name, value in result.items():
        print(f"{name:18}{value}")


if __name__ == "__main__":
    main()
