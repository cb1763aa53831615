"""The documents of an earlier stage as a source: one split for each of its files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.commit import Commit
from pipelines.schema import CORE
from pipelines.sinks.tables import read_batches
from pipelines.sources.source import BatchLimits, RawAccount, Split
from pipelines.storage.storage import ReadStorage, StoredFile


@dataclasses.dataclass(frozen=True, slots=True)
class Committed:
    """Reads one table of a finished stage, file by file, in the order in which its rows were written."""

    kind: ClassVar[str] = "committed"
    version: ClassVar[int] = 1
    name: str
    schema: pa.Schema

    @property
    def adds(self) -> pa.Schema:
        """The columns beyond the core."""
        return pa.schema([field for field in self.schema if field.name not in CORE.names])

    def splits_of(self, commits: list[Commit], table: str) -> list[Split]:
        """Return a split for each file of `table` that the commits name, in the commits' order."""
        return [
            Split(self.name, (StoredFile(file.path, file.size),), label=commit.label)
            for commit in commits
            for file in commit.files
            if file.table == table
        ]

    def read(
        self, split: Split, storage: ReadStorage, limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        """Yield the file's rows."""
        with storage.open(split.files[0].path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
            for batch in read_batches(parquet, limits.max_rows):
                account.seen += batch.num_rows
                yield batch.cast(self.schema)
