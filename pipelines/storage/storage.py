"""What a storage is. Every write is an attempt under a name of its own, then a publish, then one atomic commit record.

Data files are published under content-addressed names, so two attempts at the same work either agree (same name, same
bytes) or never touch each other's files; a commit record is created only if it is absent. A killed worker leaves at
most an unpublished attempt and unreferenced files, which `sweep` removes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class StoredFile:
    """A file below a storage's root: "/"-separated relative path and size in bytes."""

    path: str
    size: int
    modified: int = dataclasses.field(default=0, compare=False)
    """When it was last written, in ns; 0 = not told. No part of what the file is."""


class ReadStorage(Protocol):
    """A tree of files that can be read. Paths are relative to its root, "/" separated; picklable."""

    @property
    def url(self) -> str:
        """Where the root is: an absolute path or a URL, without credentials and without a "/" at its end."""
        ...

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yield the files below the folder `prefix` in no particular order; nothing when it does not exist."""
        ...

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading; seekable. Raises `OSError` (`FileNotFoundError`) with the file's name."""
        ...

    def read(self, path: str) -> bytes:
        """Return a whole (small) file."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a complete file of this name is there."""
        ...

    def stat(self, path: str) -> StoredFile:
        """Return what `list` would say of one file. Raises `FileNotFoundError`."""
        ...


class Storage(ReadStorage, Protocol):
    """A tree of files that a run can write to, from many processes and hosts."""

    def claim(self, *, shared: bool = False) -> AbstractContextManager[None]:
        """Hold the tree against other runs as long as the context lasts.

        Held alone, unfinished attempts of runs that ended are swept; `shared` holders only keep those out who want it
        alone. Raises `OutputError` when somebody else holds it.
        """
        ...

    def new_attempt(self) -> str:
        """Return a name that no other attempt has."""
        ...

    def create(self, attempt: str, name: str) -> BinaryIO:
        """Open a new file of an attempt for writing; nobody else sees it before it is published."""
        ...

    def publish(self, attempt: str, name: str, path: str) -> None:
        """Make a finished file of an attempt visible at `path`, at once and whole."""
        ...

    def discard(self, attempt: str) -> None:
        """Remove what an attempt left unpublished."""
        ...

    def commit(self, path: str, record: bytes) -> bool:
        """Create `path` with `record` at once, only if it is absent; whether this call created it."""
        ...

    def replace(self, path: str, record: bytes) -> None:
        """Write `path` at once and whole, over whatever was there."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file, or everything below a folder; absent is fine."""
        ...
