"""Files that a recipe gives to a transform (lists, models): what is in them counts, not where they lie.

A recipe names a file by its path (relative to the recipe); the loader makes a `GivenFile` of it. The resolved recipe
holds the hash alone, so that the same list at another place is the same run.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import os
import typing
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipelines.errors import RecipeError


@dataclasses.dataclass(frozen=True, slots=True)
class GivenFile:
    """A file and what it held when the recipe was loaded."""

    path: str
    """Absolute; it must be there on every machine that works on the run."""
    sha256: str

    @classmethod
    def of(cls, path: Path) -> GivenFile:
        """Hash a file. Raises `OSError`, also for what is no regular file: reading a device or a pipe may never end."""
        with _open(path) as file:
            return cls(str(path.resolve()), hashlib.file_digest(file, "sha256").hexdigest())

    def read(self) -> bytes:
        """Return the content, read once a process.

        Raises `RecipeError` where the file is gone, cannot be read or holds something else by now.
        """
        return _read(self.path, self.sha256)

    def load(self) -> bytes:
        """Return the content, read anew: for large files that are kept in another form. Raises as `read` does."""
        return _checked(self.path, self.sha256)


def given_fields(transform: type) -> tuple[str, ...]:
    """Return the fields of a transform that are given files: `GivenFile`, also with None, or a tuple of them."""
    hints = typing.get_type_hints(transform)
    fields = (field.name for field in dataclasses.fields(transform))
    return tuple(name for name in fields if GivenFile in (hints[name], *typing.get_args(hints[name])))


def given_files(transform: Any) -> list[GivenFile]:
    """Return the files that were given to a transform."""
    found: list[GivenFile] = []
    for name in given_fields(type(transform)):
        value = getattr(transform, name)
        found += [] if value is None else [value] if isinstance(value, GivenFile) else value
    return found


def _open(path: Path) -> io.BufferedReader:
    """Open a regular file (or the folder, so that the system says what it is)."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
    path.stat()  # the system's own error where there is none
    if not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return path.open("rb")


@lru_cache(maxsize=64)
def _read(path: str, sha256: str) -> bytes:
    return _checked(path, sha256)


def _checked(path: str, sha256: str) -> bytes:
    try:
        with _open(Path(path)) as file:
            content = file.read()
    except OSError as error:
        raise RecipeError(
            f"{path}: {error.strerror}\nhint: the file must lie at this path on every machine of the run"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise RecipeError(
            f"{path}: was changed since the recipe was loaded (sha256 {found[:12]}, then {sha256[:12]})\n"
            "hint: run again; a changed file makes another run, with an output of its own"
        )
    return content
