"""A local folder, or one on a file system that all hosts share (it must know hard links and `flock`)."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipelines.errors import HeadraceError, OutputError
from pipelines.storage.storage import StoredFile

ATTEMPTS, LOCK = ".attempts", ".lock"
"""The storage's own: in no list."""


@dataclasses.dataclass(frozen=True, slots=True)
class LocalStorage:
    """A local folder. Publishing is a rename within the folder's file system, committing a hard link."""

    root: Path

    @property
    def url(self) -> str:
        """The folder's path, as it was given."""
        return str(self.root)

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yield the files below `prefix`; attempts and the lock are invisible.

        Links to folders are not followed, and links to files only where those lie below the root too: what is outside
        is none of the storage's, whoever put the link there.
        """
        top, root = f"{self.root}/", self.root.resolve()
        folders = [f"{top}{prefix}"]  # text: a `Path` a file costs four times as much as the rest
        while folders:
            for entry in _entries(folders.pop()):
                if entry.is_dir(follow_symlinks=False):
                    folders += [entry.path] if entry.path.removeprefix(top) != ATTEMPTS else []
                elif _is_file(entry, root) and (path := entry.path.removeprefix(top)) != LOCK:
                    yield _stored(path, entry.stat())

    def open(self, path: str) -> BinaryIO:
        """Open a file below the root for reading."""
        return (self.root / path).open("rb")

    def read(self, path: str) -> bytes:
        """Return the file's bytes."""
        return (self.root / path).read_bytes()

    def exists(self, path: str) -> bool:
        """Whether the file is there."""
        return (self.root / path).exists()

    def stat(self, path: str) -> StoredFile:
        """Return size and time of a file."""
        return _stored(path, (self.root / path).stat())

    @contextmanager
    def claim(self, *, shared: bool = False) -> Iterator[None]:
        """Hold a lock on a file of the folder, which is made if absent; the kernel lets go of it when we die."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / LOCK).open("a")
        except OSError as error:
            raise explain_os_error(error, str(self.root)) from error
        with lock:
            try:
                fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(
                    f"{self.root}: another run is at work in this folder\nhint: wait for it, or choose another --output"
                ) from error
            if not shared:
                self.delete(ATTEMPTS)
            yield
            if not shared:  # of workers that died, and of others that do not know yet that they came too late
                self.delete(ATTEMPTS)

    def new_attempt(self) -> str:
        """Return a random name."""
        return uuid.uuid4().hex

    def create(self, attempt: str, name: str) -> BinaryIO:
        """Open a new file in the attempt's own folder."""
        with self._explained(name):
            file = self.root / ATTEMPTS / attempt / name
            file.parent.mkdir(parents=True, exist_ok=True)
            return file.open("xb")

    def publish(self, attempt: str, name: str, path: str) -> None:
        """Flush the file to the disk and rename it to its final name."""
        with self._explained(path):
            file, target = self.root / ATTEMPTS / attempt / name, self.root / path
            _make_folder(target.parent)
            _flush(file)
            file.replace(target)
            _flush(target.parent)

    def discard(self, attempt: str) -> None:
        """Remove the attempt's folder."""
        shutil.rmtree(self.root / ATTEMPTS / attempt, ignore_errors=True)

    def commit(self, path: str, record: bytes) -> bool:
        """Link a finished temporary file to `path`; a link, unlike a rename, fails when the name is taken."""
        with self._written(path, record) as temporary:
            try:
                os.link(temporary, self.root / path)
            except FileExistsError:
                return False
            _flush((self.root / path).parent)
            return True

    def replace(self, path: str, record: bytes) -> None:
        """Rename a finished temporary file to `path`."""
        with self._written(path, record) as temporary:
            temporary.replace(self.root / path)
            _flush((self.root / path).parent)

    def delete(self, path: str) -> None:
        """Remove a file or a folder tree."""
        target = self.root / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    @contextmanager
    def _written(self, path: str, record: bytes) -> Iterator[Path]:
        attempt = self.new_attempt()
        try:
            with self._explained(path):
                with self.create(attempt, "record") as file:
                    file.write(record)
                temporary = self.root / ATTEMPTS / attempt / "record"
                _make_folder((self.root / path).parent)
                _flush(temporary)
                yield temporary
        finally:
            self.discard(attempt)

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise explain_os_error(error, str(self.root / path)) from error


def explain_os_error(error: OSError, path: str) -> OutputError:
    """Turn a failed write into an error that says what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space and run the same command again: it goes on from what is committed"
        return OutputError(f"{path}: no space left on the device\nhint: {remedy}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(
            f"{path}: cannot be written ({error.strerror})\nhint: choose another --output, or its rights"
        )
    return OutputError(f"{path}: {error.strerror or error}\nhint: check that the output folder is a writable folder")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Return what is in a folder; nothing where there is none."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:  # what is in there would be missing in silence
        raise HeadraceError(f"{folder}: cannot be listed ({error.strerror})\nhint: mend its rights") from error


def _stored(path: str, status: os.stat_result) -> StoredFile:
    modified = max(status.st_mtime_ns, status.st_ctime_ns)  # a copy may bring an older date along
    return StoredFile(path, status.st_size, modified)


def _is_file(entry: os.DirEntry[str], root: Path) -> bool:
    """Whether this is a file, or a link to one below the (resolved) root: none that leads out of it."""
    if not entry.is_symlink():
        return entry.is_file(follow_symlinks=False)
    file = Path(entry.path)
    return file.is_file() and file.resolve().is_relative_to(root)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each on the disk before anything lies in it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush(folder.parent)
        _flush(folder)


def _flush(path: Path) -> None:
    """Force a file's (or a folder's) bytes to the disk, so that a commit never outlives what it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
