"""What an engine offers, `map` and `group`, and what all of them do alike: find what is missing, sweep what is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

import pyarrow as pa

from pipelines.commit import Commit, read_commits
from pipelines.sinks.tables import read_table
from pipelines.sources.source import BatchLimits, Split
from pipelines.stage import GroupStage, MapStage, Side
from pipelines.storage import Storage

Report = Callable[[str, int, int], None]
"""Called with (what, done, of all) whenever a piece of a stage is done."""


@dataclasses.dataclass(frozen=True, slots=True)
class StageResult:
    """The commits of a finished stage in the order of its splits (their entries are the ledger), and what was done."""

    commits: tuple[Commit, ...]
    num_done: int
    """Splits or buckets carried out by this run."""
    num_found: int
    """Those that an earlier run had committed."""


class Engine(Protocol):
    """Carries stages out. What comes out does not depend on which engine does."""

    name: str

    def map(
        self, stage: MapStage, splits: list[Split], sides: Mapping[str, StageResult], output: Storage, report: Report
    ) -> StageResult:
        """Carry out a map stage over these splits; `sides` are the finished stages by name, for its side tables."""
        ...

    def group(self, stage: GroupStage, inputs: StageResult, output: Storage, report: Report) -> StageResult:
        """Carry out a group stage over the tables that its input stage committed."""
        ...


def side_files(sides: tuple[Side, ...], results: Mapping[str, StageResult], label: str) -> dict[str, list[str]]:
    """Return, for every side table of a stage, the files that a split of this label reads."""
    return {
        side.table: [
            file.path
            for commit in results[side.stage].commits
            if not side.bucketed or commit.label == label
            for file in commit.files
            if file.table == side.table
        ]
        for side in sides
    }


def read_side(side: Side, files: list[str], output: Storage) -> pa.Table:
    """Read a side table's files whole."""
    tables = [read_table(output, path).cast(side.schema) for path in files]
    return pa.concat_tables([side.schema.empty_table(), *tables]).combine_chunks()


def find_committed(folder: str, wanted: list[str], output: Storage) -> dict[str, Commit]:
    """Return the commits of the wanted splits that are there; delete commits of splits that are wanted no more."""
    found = read_commits(output, folder)
    for split_id in found.keys() - set(wanted):
        output.delete(f"{folder}/commits/{split_id}.json")
    return {split_id: commit for split_id, commit in found.items() if split_id in set(wanted)}


def sweep(folder: str, commits: list[Commit], output: Storage) -> list[str]:
    """Delete the files below a stage's folder that no commit names (attempts that never finished); returns them."""
    named = {file.path for commit in commits for file in commit.files}
    stale = [
        file.path
        for file in output.list(folder)
        if file.path not in named and not file.path.startswith(f"{folder}/commits/")
    ]
    for path in stale:
        output.delete(path)
    return stale


DEFAULT_LIMITS = BatchLimits()
