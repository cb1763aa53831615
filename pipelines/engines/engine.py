"""What an engine offers, `map` and `group`, and what all of them do alike: find what is missing, sweep what is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import pyarrow as pa
import xxhash

from pipelines.commit import Commit, CommittedTable, FileRecord, commit_path, read_commits
from pipelines.sinks.tables import read_table
from pipelines.sources.source import BatchLimits, Split
from pipelines.stage import GroupStage, MapStage, Side
from pipelines.storage.storage import Storage

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
        self, stage: MapStage, splits: list[Split], sides: Sequence[CommittedTable], output: Storage, report: Report
    ) -> StageResult:
        """Carry out a map stage over these splits; `sides` are its side tables, in the order in which it names them."""
        ...

    def group(
        self, stage: GroupStage, inputs: Sequence[CommittedTable], output: Storage, report: Report
    ) -> StageResult:
        """Carry out a group stage over its input tables, in the order in which it names them."""
        ...


def side_of_split(stage: MapStage, sides: Sequence[CommittedTable], label: str) -> tuple[CommittedTable, ...]:
    """Return the side tables cut down to what a split of this label reads.

    Raises `ValueError` where a bucketed table has no such bucket: it was cut into another number of them.
    """
    own = []
    for side, given in zip(stage.side, sides, strict=True):
        commits = tuple(commit for commit in given.commits if not side.bucketed or commit.label == label)
        if side.bucketed and not commits:
            raise ValueError(
                f"stage {stage.name}: side table {given.table} has no {label}; cut both into as many buckets"
            )
        own.append(dataclasses.replace(given, commits=commits))
    return tuple(own)


def map_id(split: Split, sides: Sequence[CommittedTable]) -> str:
    """Return the id of a split's commit: that of the split, and of the side tables that it reads if there are any."""
    if not sides:
        return split.id
    return xxhash.xxh3_128_hexdigest("\x00".join([split.id, *(file.path for side in sides for file in side.files())]))


def read_side(side: Side, given: CommittedTable) -> pa.Table:
    """Read a side table whole."""
    tables = [read_table(given.storage, file.path).cast(side.schema) for file in given.files()]
    return pa.concat_tables([side.schema.empty_table(), *tables]).combine_chunks()


def find_committed(folder: str, wanted: list[str], output: Storage) -> dict[str, Commit]:
    """Return the commits of the wanted splits that stand; delete those that are wanted no more or lack a file."""
    found, names, commits = {}, set(wanted), read_commits(output, folder)
    present = _files_below({_folder_of(file, folder) for commit in commits.values() for file in commit.files}, output)
    for split_id, commit in commits.items():
        if split_id in names and all(file.path in present for file in commit.files):
            found[split_id] = commit
        else:
            output.delete(commit_path(folder, split_id))
    return found


def _folder_of(file: FileRecord, folder: str) -> str:
    """Return the folder to list for a committed file: the stage's own, or the first part of any other path."""
    return folder if file.path.startswith(f"{folder}/") else file.path.partition("/")[0]


def _files_below(folders: Iterable[str], output: Storage) -> set[str]:
    """Return the paths of all files below some folders: a request for 1,000 of them where each of its own costs one."""
    return {file.path for folder in folders for file in output.list(folder)}


def drop_outdated(folder: str, splits: Sequence[Split], output: Storage) -> None:
    """Delete the commits of splits of which a file was written after them: as long as before, but another maybe."""
    committed = {file.path: file.modified for file in output.list(f"{folder}/commits")}
    for split in splits:
        path = commit_path(folder, split.id)
        if path in committed and any(file.modified > committed[path] for file in split.files):
            output.delete(path)


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
