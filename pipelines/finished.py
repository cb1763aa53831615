"""A finished run as it lies in its output folder: its plan, rebuilt, and the commits of its stages in order."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from pipelines.commit import Commit, FileRecord, read_commits
from pipelines.errors import VerifyError
from pipelines.manifests import LEDGER_FILE
from pipelines.plan import Plan, build_plan
from pipelines.recipe import recipe_of_resolved
from pipelines.run import RECIPE_FILE, RUN_FILE, roots_of
from pipelines.storage import LocalStorage


@dataclasses.dataclass(frozen=True, slots=True)
class FinishedRun:
    """What verify and explain look at."""

    storage: LocalStorage
    plan: Plan
    commits: dict[str, list[Commit]]
    """By stage; in the order of their labels."""

    def files(self, stage: str, table: str) -> list[FileRecord]:
        """Return the committed files of a stage's table, in order."""
        return [file for commit in self.commits[stage] for file in commit.files if file.table == table]


def open_run(output: Path) -> FinishedRun:
    """Open a finished run. Raises `VerifyError` when the folder holds none, or one of another version of Headrace."""
    storage = LocalStorage(output)
    for name in (RECIPE_FILE, LEDGER_FILE, RUN_FILE):
        if not storage.exists(name):
            raise VerifyError(
                f"{output / name}: is missing: the folder holds no finished run\n"
                "hint: give the folder that `headrace run --output` wrote; run that command again if it was interrupted"
            )
    stored = storage.read(RECIPE_FILE)
    try:
        resolved = json.loads(stored)
    except ValueError as error:
        raise VerifyError(f"{output / RECIPE_FILE}: is no JSON ({error})\nhint: run the recipe anew") from error
    recipe = recipe_of_resolved(output / RECIPE_FILE, resolved, roots_of(output))
    plan = build_plan(recipe, storage)
    if plan.resolved_json() != stored:
        raise VerifyError(
            f"{output / RECIPE_FILE}: does not resolve to itself: another version of Headrace made it, or it changed\n"
            "hint: use the version that made it, or run the recipe anew"
        )
    commits = {
        stage.name: sorted(read_commits(storage, stage.folder).values(), key=lambda commit: commit.label)
        for stage in plan.stages
    }
    return FinishedRun(storage, plan, commits)
