"""The commit record of a split: which files it made, with their hashes, and its ledger entries.

A split is finished when its commit record exists, and its files are those that the record names; anything else in the
output is left over from an attempt that did not finish. The record is data only: the same on every engine.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipelines.errors import VerifyError
from pipelines.ledger import KEY, Entry
from pipelines.storage.storage import Storage

READERS = 16
"""Commit records read at once: on S3 each costs tens of milliseconds of waiting."""


@dataclasses.dataclass(frozen=True, slots=True)
class FileRecord:
    """A published file: where, how long, its sha256, and what it holds."""

    table: str
    path: str
    size: int
    sha256: str
    rows: int
    source: str = ""
    partition: str = ""
    detail: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What the table's own reader needs (counts of a token shard, batch ranges of buckets)."""


FILE_FIELDS = tuple(field.name for field in dataclasses.fields(FileRecord))


@dataclasses.dataclass(frozen=True, slots=True)
class Commit:
    """What one split made."""

    split: str
    label: str
    files: tuple[FileRecord, ...]
    entries: tuple[Entry, ...]

    @property
    def num_faults(self) -> int:
        """Documents that met a fault: with any, the split is not canonical and is done again by a rerun."""
        return sum(entry.rows for entry in self.entries if entry.is_fault)

    def to_json(self) -> bytes:
        """Return the record's bytes: sorted keys, one trailing newline; entries without the words all share."""
        entries = [[getattr(entry, name) for name in (*KEY, "rows", "bytes", "tokens")] for entry in self.entries]
        record = {
            "split": self.split,
            "label": self.label,
            "files": [{name: getattr(file, name) for name in FILE_FIELDS} for file in self.files],
            "entries": entries,
        }
        return (json.dumps(record, sort_keys=True, ensure_ascii=True) + "\n").encode()

    @classmethod
    def from_json(cls, record: bytes) -> Commit:
        """Read a record back; raises `ValueError` or `KeyError` when it is none."""
        data = json.loads(record)
        return cls(
            data["split"],
            data["label"],
            tuple(FileRecord(**file) for file in data["files"]),
            tuple(Entry(*entry) for entry in data["entries"]),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class CommittedTable:
    """A table as it was committed: the storage that holds it, its name, and the commits of its stage in order."""

    storage: Storage
    table: str
    commits: tuple[Commit, ...]

    def files_of(self, commit: Commit) -> list[FileRecord]:
        """Return the files of this table that one of the commits made."""
        return [file for file in commit.files if file.table == self.table]

    def files(self) -> list[FileRecord]:
        """Return all files of the table, in order."""
        return [file for commit in self.commits for file in self.files_of(commit)]


def faults_of(commits: Iterable[Commit]) -> dict[str, int]:
    """Return how many documents met a fault, by the label of the split, for the splits that are not canonical."""
    return {commit.label: commit.num_faults for commit in commits if commit.num_faults}


def commit_path(folder: str, split_id: str) -> str:
    """Return where the commit record of a split lies, below a stage's folder."""
    return f"{folder}/commits/{split_id}.json"


def make_commit(storage: Storage, folder: str, commit: Commit) -> Commit:
    """Commit a split and return the commit that stands: this one, or that of an attempt which was faster."""
    path = commit_path(folder, commit.split)
    return commit if storage.commit(path, commit.to_json()) else Commit.from_json(storage.read(path))


def read_commits(storage: Storage, folder: str) -> dict[str, Commit]:
    """Return the commit records below a stage's folder by split id. Raises `VerifyError` for a damaged one."""
    found = {}
    files = list(storage.list(f"{folder}/commits"))
    with ThreadPoolExecutor(READERS) as pool:
        records = list(pool.map(storage.read, (file.path for file in files)))
    for file, record in zip(files, records, strict=True):
        try:
            commit = Commit.from_json(record)
            if file.path != commit_path(folder, commit.split):
                raise ValueError(f"it speaks of split {commit.split}")
        except (ValueError, KeyError, TypeError) as error:
            raise VerifyError(
                f"{file.path}: is no commit record ({type(error).__name__}: {error})\n"
                "hint: delete it and run the recipe again"
            ) from error
        found[commit.split] = commit
    return found
