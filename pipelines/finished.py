"""A finished run as it lies in its output folder: its plan, rebuilt, and the commits of its stages in order."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines.commit import Commit, FileRecord, read_commits
from pipelines.errors import VerifyError
from pipelines.manifests import LEDGER_FILE
from pipelines.plan import Plan, build_plan
from pipelines.recipe import recipe_of_resolved
from pipelines.run import RECIPE_FILE, RUN_FILE, given_of, roots_of
from pipelines.storage.local import LocalStorage
from pipelines.storage.schemes import open_output
from pipelines.storage.storage import Storage

COPIED = 1 << 20
"""Bytes copied at a time."""


@dataclasses.dataclass(frozen=True, slots=True)
class FinishedRun:
    """What verify and explain look at."""

    storage: Storage
    plan: Plan
    commits: dict[str, list[Commit]]
    """By stage; in the order of their labels."""

    def files(self, stage: str, table: str) -> list[FileRecord]:
        """Return the committed files of a stage's table, in order."""
        return [file for commit in self.commits[stage] for file in commit.files if file.table == table]

    @contextmanager
    def on_disk(self, folder: str) -> Iterator[Path]:
        """Give a folder of the run as a local one: as it lies there, or as a copy that lasts as long as the context."""
        if isinstance(self.storage, LocalStorage):
            yield self.storage.root / folder
            return
        with TemporaryDirectory(prefix="headrace-") as copy:
            for file in self.storage.list(folder):
                target = Path(copy, file.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                with self.storage.open(file.path) as stored, target.open("wb") as written:
                    shutil.copyfileobj(stored, written, COPIED)
            yield Path(copy, folder)


def open_run(output: Path | str) -> FinishedRun:
    """Open the finished run at an address (a folder, or S3).

    Raises `VerifyError` when there is none, or one of another version of Headrace.
    """
    storage = open_output(str(output))
    for name in (RECIPE_FILE, LEDGER_FILE, RUN_FILE):
        if not storage.exists(name):
            raise VerifyError(
                f"{storage.url}/{name}: is missing: the folder holds no finished run\n"
                "hint: give the folder that `headrace run --output` wrote; run that command again if it was interrupted"
            )
    stored, recipe_file = storage.read(RECIPE_FILE), f"{storage.url}/{RECIPE_FILE}"
    try:
        resolved = json.loads(stored)
    except ValueError as error:
        raise VerifyError(f"{recipe_file}: is no JSON ({error})\nhint: run the recipe anew") from error
    plan = build_plan(recipe_of_resolved(Path(recipe_file), resolved, roots_of(storage), given_of(storage)), storage)
    if plan.resolved_json() != stored:
        raise VerifyError(
            f"{recipe_file}: does not resolve to itself: another version of Headrace made it, or it changed\n"
            "hint: use the version that made it, or run the recipe anew"
        )
    commits: dict[str, list[Commit]] = {}
    while True:
        for stage in plan.stages:
            if stage.name not in commits:
                found = read_commits(storage, stage.folder).values()
                commits[stage.name] = sorted(found, key=lambda commit: commit.label)
        more = plan.next_round(commits[plan.last_of_rounds], storage) if plan.last_of_rounds else None
        if more is None:
            return FinishedRun(storage, plan, commits)
        plan = more
