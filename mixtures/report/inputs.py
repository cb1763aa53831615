"""What `RUN_OR_PLAN` names: a plan, a training run that names its plan, or the output folder of `headrace run`.

What is not there (shards that lie elsewhere, a plan that was moved) is noted in one line each and left out. What is
there and contradicts what names it (a manifest that is not the plan's, a plan that is not the run's) is an error.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from mixtures.errors import PlanError
from mixtures.plan import ManifestReference, Plan
from mixtures.report.errors import ReportError
from tokenizer.manifest import Manifest

RUN_FORMAT, RUN_VERSION = "headrace-training-run", 1
"""What the `run.json` of a training run says of itself."""

OUTPUT_MARKS = ("recipe.json", "ledger.parquet")
"""Files by which an output folder of `headrace run` is known."""

MAX_BYTES = 1 << 28
"""A larger `run.json` or `recipe.json` is none."""

Kind = Literal["plan", "training", "output"]


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A source of the mixture (or, without a plan, of the output) and those of its manifests that are there."""

    name: str
    manifests: tuple[Manifest, ...]
    complete: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Inputs:
    """All that a report is made of. `folder`: what the paths in the report are relative to."""

    kind: Kind
    folder: Path
    plan: Plan | None
    fingerprint: str | None
    recipe_name: str | None
    sources: tuple[Source, ...]
    metrics: Path | None
    absent: tuple[str, ...]


def load_inputs(path: Path) -> Inputs:
    """Find out what `path` is and load what it names; `ReportError` where it is none of the three."""
    if is_output(path):
        return _load_output(path)
    if (path / "run.json").is_file():
        return _load_training(path)
    if path.is_dir():
        raise ReportError(
            f"{path}: holds neither a training run's run.json nor {' and '.join(OUTPUT_MARKS)}\n"
            "hint: name a plan.json, the folder of a training run, or the output folder of `headrace run`"
        )
    return _load_plan(path)


def is_output(folder: Path) -> bool:
    """Return whether a folder is an output folder of `headrace run`."""
    return all((folder / mark).is_file() for mark in OUTPUT_MARKS)


def _load_plan(path: Path) -> Inputs:
    plan = Plan.load(path)
    sources, absent = _planned_sources(plan)
    absent += ["training: the input is a plan, not a training run"]
    return Inputs("plan", path.parent, plan, plan.fingerprint, None, sources, None, tuple(absent))


def _load_training(folder: Path) -> Inputs:
    run = _read_run(folder / "run.json")
    plan, sources, absent = _plan_of_run(folder, run)
    metrics: Path | None = folder / "metrics.jsonl"
    if metrics is not None and not metrics.is_file():
        absent.append("training: the run has no metrics.jsonl")
        metrics = None
    base = folder if plan is None or plan.path is None else plan.path.parent
    return Inputs("training", base, plan, run["fingerprint"], None, sources, metrics, tuple(absent))


def _read_run(path: Path) -> dict[str, Any]:
    run = _read_object(path)
    for key, expected in (("format", RUN_FORMAT), ("version", RUN_VERSION)):
        if run.get(key) != expected:
            raise ReportError(
                f"{path}: {key} is {run.get(key)!r:.100}, expected {expected!r}\n"
                "hint: name the folder of a training run of this version, or a plan.json"
            )
    for key in ("plan", "fingerprint"):
        if not isinstance(run.get(key), str):
            raise ReportError(f"{path}: {key} is {run.get(key)!r:.100}, expected a text\nhint: the file was altered")
    return run


def _plan_of_run(folder: Path, run: dict[str, Any]) -> tuple[Plan | None, tuple[Source, ...], list[str]]:
    path = folder / run["plan"]
    if not path.is_file():
        return None, (), [f"composition, ledger, lengths and padding: the run's plan {path.name} is not at its place"]
    plan = Plan.load(path)
    if plan.fingerprint != run["fingerprint"]:
        raise ReportError(
            f"{path}: has the fingerprint {plan.fingerprint}, {folder / 'run.json'} names {run['fingerprint']}: it is "
            "not the plan of this run\nhint: bring back the plan that the run was started with"
        )
    sources, absent = _planned_sources(plan)
    return plan, sources, absent


def _planned_sources(plan: Plan) -> tuple[tuple[Source, ...], list[str]]:
    sources, absent = [], []
    for name, planned in plan.sources.items():
        found = [ref for ref in planned.manifests if plan.file(ref.path).is_file()]
        manifests = tuple(_load_planned(plan, reference) for reference in found)
        complete = len(found) == len(planned.manifests)
        if not complete:
            missing = len(planned.manifests) - len(found)
            absent.append(f"lengths of {name}: {missing} of its {len(planned.manifests)} manifests are not there")
        sources.append(Source(name, manifests, complete))
    return tuple(sources), absent


def _load_planned(plan: Plan, reference: ManifestReference) -> Manifest:
    """Load a manifest that a plan names; `ReportError` unless it is the one that the plan was made of."""
    try:
        return plan.open_manifest(reference)
    except PlanError as error:
        raise ReportError(str(error)) from error


def _load_output(folder: Path) -> Inputs:
    paths = sorted(folder.glob("tokens/**/manifest.json"))
    by_source: dict[str, list[Manifest]] = {}
    for path in paths:
        manifest = Manifest.load(path)
        by_source.setdefault(manifest.source, []).append(manifest)
    sources = tuple(Source(name, tuple(found), True) for name, found in sorted(by_source.items()))
    absent = ["composition and padding: an output folder has no plan", "training: an output folder has none"]
    if not paths:
        absent.append("ledger and lengths: the output has no manifests, the run did not finish")
    name = _read_object(folder / "recipe.json").get("name")
    return Inputs("output", folder, None, _recipe(sources), str(name), sources, None, tuple(absent))


def _recipe(sources: Iterable[Source]) -> str | None:
    """Return the fingerprint of the recipe that made the manifests; `ReportError` if there are several."""
    found = {manifest.recipe: manifest.path for source in sources for manifest in source.manifests}
    if len(found) > 1:
        names = ", ".join(f"{recipe} in {path}" for recipe, path in sorted(found.items()))
        raise ReportError(f"manifests of one output were made by {len(found)} recipes: {names}\nhint: run it again")
    return next(iter(found), None)


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object, in which floats are allowed."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        data = json.loads(content) if len(content) <= MAX_BYTES else None
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror})\nhint: bring the file back") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: is not JSON ({error})\nhint: bring back the file as it was written") from error
    if not isinstance(data, dict):
        raise ReportError(f"{path}: is no JSON object\nhint: bring back the file as it was written")
    return data
