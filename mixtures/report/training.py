"""What a training run's `metrics.jsonl` says: one JSON object a line, of kind `step` or `evaluation`.

After a resume a step may stand twice: its last line holds. A torn last line (the run was killed while it wrote) is left
out and counted. Curves are thinned to `POINTS` points, each the mean of a run of consecutive steps (for the experts'
loads the least and the greatest), and of more evaluations than that every n-th is given, so that a page of 200,000
steps stays small.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mixtures.report.errors import ReportError

POINTS = 120
"""Points of a curve: about one every five pixels."""

RECENT = 50
"""Steps that the mean of the last losses is over: the window of the trainer's own gates."""

STEP_INTEGERS = ("step", "sequences", "tokens", "targets")
STEP_NUMBERS = (
    "loss", "aux_loss", "z_loss", "gradient_norm", "learning_rate", "load_min", "load_max", "seconds",
)  # fmt: skip
EVALUATION_INTEGERS = ("step", "sequences", "targets")
EVALUATION_NUMBERS = ("loss", "unigram")

REMEDY = "hint: bring back the file as `headrace train` wrote it"


def training_figures(path: Path) -> dict[str, Any]:
    """Return the figures of a `metrics.jsonl`; `ReportError` names the line that is none."""
    steps: dict[int, dict[str, Any]] = {}
    evaluations: dict[int, dict[str, Any]] = {}
    lines = torn = 0
    for number, entry in _read_lines(path):
        if entry is None:
            torn += 1
        elif entry.get("kind") == "step":
            lines += 1
            steps[_check_step(entry, path, number)] = entry
        elif entry.get("kind") == "evaluation":
            evaluations[_check_evaluation(entry, path, number)] = entry
        else:
            _refuse(path, number, f"kind is {entry.get('kind')!r:.100}, expected 'step' or 'evaluation'")
    ordered = [steps[step] for step in sorted(steps)]
    return {
        "steps": len(steps),
        "repeated": lines - len(steps),
        "torn": torn,
        "not_finite": sum(not math.isfinite(step["loss"]) for step in ordered),
        **_totals(ordered),
        **_curve(ordered),
        "evaluations_made": len(evaluations),
        "evaluations": [_evaluation(evaluations[step]) for step in _thinned(sorted(evaluations))],
    }


def _read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield numbered lines as objects, None for a torn last line."""
    torn: int | None = None
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if torn is not None:
                    _refuse(path, torn, "is no JSON object, and it is not the last line")
                entry = _parse(line)
                torn = number if entry is None else None
                if entry is not None:
                    yield number, entry
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror})\n{REMEDY}") from error
    if torn is not None:
        yield torn, None


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _check(entry: dict[str, Any], integers: tuple[str, ...], numbers: tuple[str, ...], path: Path, line: int) -> int:
    """Check that an entry has these keys with numbers of these kinds; return its step."""
    for key in integers:
        if type(entry.get(key)) is not int or not 0 <= entry[key] < 1 << 63:
            _refuse(path, line, f"{key} is {entry.get(key)!r:.100}, expected an integer from 0")
    for key in numbers:
        if not _is_number(entry.get(key)):
            _refuse(path, line, f"{key} is {entry.get(key)!r:.100}, expected a number")
    step: int = entry["step"]
    return step


def _check_step(entry: dict[str, Any], path: Path, line: int) -> int:
    if not isinstance(entry.get("digest"), str):
        _refuse(path, line, f"digest is {entry.get('digest')!r:.100}, expected a text")
    return _check(entry, STEP_INTEGERS, STEP_NUMBERS, path, line)


def _check_evaluation(entry: dict[str, Any], path: Path, line: int) -> int:
    sources = entry.get("sources")
    if not isinstance(sources, dict) or not all(_is_number(loss) for loss in sources.values()):
        _refuse(path, line, f"sources is {sources!r:.100}, expected a loss for each source")
    return _check(entry, EVALUATION_INTEGERS, EVALUATION_NUMBERS, path, line)


def _is_number(value: object) -> bool:
    """Return whether a value is a float, or an integer that a float can hold exactly."""
    return type(value) is float or (type(value) is int and abs(value) < 1 << 53)


def _refuse(path: Path, line: int, what: str) -> NoReturn:
    raise ReportError(f"{path}: line {line}: {what}\n{REMEDY}")


def _thinned(steps: list[int]) -> list[int]:
    """Return at most `POINTS` steps, evenly chosen, the last one among them."""
    every = -(-len(steps) // POINTS) or 1
    return steps[::-1][::every][::-1]


def _evaluation(entry: dict[str, Any]) -> dict[str, Any]:
    names = (*EVALUATION_INTEGERS, *EVALUATION_NUMBERS, "sources")
    return {name: entry[name] for name in names} | {"below_unigram": entry["unigram"] - entry["loss"]}


def _totals(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return sums over all steps, the mean of the recent losses, and the last step as it is."""
    tokens, targets = (sum(step[name] for step in steps) for name in ("tokens", "targets"))
    seconds = math.fsum(step["seconds"] for step in steps if math.isfinite(step["seconds"]))
    recent = [step["loss"] for step in steps[-RECENT:]]
    names = (*STEP_INTEGERS, *STEP_NUMBERS, "digest")
    return {
        "tokens": tokens,
        "targets": targets,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if seconds > 0 else None,
        "recent": {"steps": len(recent), "loss": sum(recent) / len(recent) if recent else None},
        "last": {name: steps[-1][name] for name in names} if steps else None,
    }


def _curve(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the thinned curves: `steps_per_point` (at most) and the points."""
    if not steps:
        return {"steps_per_point": 0, "curve": []}
    points = min(len(steps), POINTS)
    edges = np.arange(points + 1) * len(steps) // points
    first, after = edges[:-1], edges[1:]
    columns = {name: np.array([step[name] for step in steps], np.float64) for name in STEP_NUMBERS}
    with np.errstate(invalid="ignore", over="ignore"):  # a diverged run has losses that are no numbers
        means = {
            name: np.add.reduceat(columns[name], first) / (after - first)
            for name in ("loss", "learning_rate", "gradient_norm")
        }
        loads = {
            "load_min": np.minimum.reduceat(columns["load_min"], first),
            "load_max": np.maximum.reduceat(columns["load_max"], first),
        }
    curve = [
        {"from_step": steps[begin]["step"], "step": steps[end - 1]["step"]}
        | {name: float(column[place]) for name, column in (means | loads).items()}
        for place, (begin, end) in enumerate(zip(first, after, strict=True))
    ]
    return {"steps_per_point": int(np.max(after - first)), "curve": curve}
