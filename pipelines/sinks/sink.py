"""What a sink is, and the hashing file that all of them write through.

An `Output` is the description (part of a stage, picklable); opened for one attempt at one split it is a `Sink`. A sink
writes to files of its attempt; `close` finishes them and says which file should be published where. The worker then
publishes all files of all sinks and commits them together.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import BinaryIO, Protocol

import pyarrow as pa

from pipelines.commit import FileRecord
from pipelines.storage.storage import Storage


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where one attempt at one split writes: the storage, the attempt's name, the stage's folder, the split's id."""

    storage: Storage
    attempt: str
    folder: str
    split_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Pending:
    """A finished file of an attempt, to be published as its record says."""

    name: str
    record: FileRecord


class Sink(Protocol):
    """An output that is being written."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows of the table's schema, in order."""
        ...

    def close(self) -> list[Pending]:
        """Finish the files."""
        ...

    def abort(self) -> None:
        """Close the files of a failed attempt; what is in them does not matter, nothing is raised."""
        ...


class Output(Protocol):
    """The description of a sink."""

    @property
    def table(self) -> str:
        """The table's name: what the ledger and the folders call it."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """The columns that it takes."""
        ...

    def open(self, place: Place) -> Sink:
        """Begin to write."""
        ...


class HashingFile:
    """A binary file that knows the sha256 and the length of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        """Wrap an open file; closing this closes it."""
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write and hash."""
        view = memoryview(data)
        self._digest.update(view)
        self.size += view.nbytes
        return self._file.write(view)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self.size

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file.closed

    @property
    def sha256(self) -> str:
        """The hash so far, in hex."""
        return self._digest.hexdigest()
