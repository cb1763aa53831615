"""A storage whose files are named in a list: for what cannot be listed (the web), or of which only a part is wanted.

A list is UTF-8 text, gzip'ed if its name ends with .gz: one file a line, its path relative to the root and, behind a
tab, its size in bytes. Empty lines and lines that begin with "#" are skipped. A size that is missing is asked for,
which costs a request for each file. A list of 100,000 files is read in about 0.2 s.
"""

from __future__ import annotations

import codecs
import dataclasses
import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from pipelines.errors import HeadraceError
from pipelines.storage.storage import ReadStorage, StoredFile

MAX_LIST_BYTES = 64 << 20
"""Of a list, decompressed: about 400,000 files of a crawl, whose largest dumps have 100,000."""

UNKNOWN_SIZE = -1
"""The size of a file whose line does not tell it."""

_THREADS = 8
_BLOCK = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SIZE = re.compile(r"\d{1,18}", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class ListedStorage:
    """Lists the files of a list file and reads below `base`; it holds the list's path, so it is small when pickled.

    Files that the list does not name can be read too: the list says what a run takes in, and is no fence.
    """

    base: ReadStorage
    listing: Path

    @classmethod
    def of(cls, base: ReadStorage, listing: Path) -> ListedStorage:
        """Return the storage once its list has been read and found right. Raises `HeadraceError`."""
        read_listing(listing)
        return cls(base, listing)

    @property
    def url(self) -> str:
        """Where the files lie."""
        return self.base.url

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yield the listed files below `prefix`; sizes that are missing are asked for. Raises `HeadraceError`."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        files = [file for file in read_listing(self.listing) if file.path.startswith(folder)]
        yield from (file for file in files if file.size != UNKNOWN_SIZE)
        yield from ask_sizes(self.base, [file.path for file in files if file.size == UNKNOWN_SIZE])

    def open(self, path: str) -> BinaryIO:
        """Open a file of the base."""
        return self.base.open(path)

    def read(self, path: str) -> bytes:
        """Return the bytes of a file of the base."""
        return self.base.read(path)

    def exists(self, path: str) -> bool:
        """Whether the base has the file."""
        return self.base.exists(path)

    def stat(self, path: str) -> StoredFile:
        """Return size and time of a file as the base knows them."""
        return self.base.stat(path)


def read_listing(path: Path) -> tuple[StoredFile, ...]:
    """Return the files that a list names, in its order; `UNKNOWN_SIZE` where a line has none.

    Raises `HeadraceError` with file, line and value for what is no path below a root, and for a file named twice.
    """
    try:
        with path.open("rb") as stream:
            return parse_listing(read_bounded(stream, str(path)), str(path))
    except OSError as error:
        raise HeadraceError(f"{path}: cannot be read ({error.strerror or error})\nhint: check `files`") from error


def read_bounded(stream: BinaryIO, name: str) -> bytes:
    """Return a list's bytes, decompressed if its name ends with .gz. Raises `HeadraceError` over `MAX_LIST_BYTES`."""
    try:
        if name.endswith(".gz"):
            with gzip.GzipFile(fileobj=stream) as unpacked:
                data = unpacked.read(MAX_LIST_BYTES + 1)
        else:
            data = stream.read(MAX_LIST_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise HeadraceError(f"{name}: is no whole gzip file ({error})\nhint: fetch or write it again") from error
    if len(data) > MAX_LIST_BYTES:
        raise HeadraceError(
            f"{name}: has more than {MAX_LIST_BYTES} bytes of text\nhint: split the list, and the source with it"
        )
    return data


def parse_listing(data: bytes, name: str) -> tuple[StoredFile, ...]:
    """Return the files that the bytes of a list name; `name` is what errors call it. Raises `HeadraceError`."""
    files: dict[str, StoredFile] = {}
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        try:
            file = _parse_line(line.removesuffix(b"\r").decode())
            if file.path in files:
                raise ValueError("the file is named twice\nhint: delete one of the lines")
        except UnicodeDecodeError:
            raise HeadraceError(f"{name}:{number}: {line[:200]!r}: is not UTF-8\nhint: write paths in UTF-8") from None
        except ValueError as error:
            raise HeadraceError(f"{name}:{number}: {line.decode()[:200]!r}: {error}") from None
        files[file.path] = file
    return tuple(files.values())


def ask_sizes(
    base: ReadStorage, paths: Sequence[str], report: Callable[[int], None] = lambda _: None
) -> Iterator[StoredFile]:
    """Yield what `base` says of each path, in order, asked for by a few threads; `report` is told how many are done.

    Raises `HeadraceError` for a file that is not there.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(paths), _BLOCK):  # 100,000 at once would take 170 MB
            block = paths[start : start + _BLOCK]
            for done, file in enumerate(threads.map(lambda path: _stat(base, path), block), start + 1):
                report(done)
                yield file


def _stat(base: ReadStorage, path: str) -> StoredFile:
    try:
        return base.stat(path)
    except FileNotFoundError as error:
        raise HeadraceError(f"{path}: is listed, but not below {base.url}\nhint: mend the list or the root") from error


def _parse_line(line: str) -> StoredFile:
    """Return the file that a line names. Raises `ValueError` that says what is wrong, and the remedy."""
    path, tab, size = line.partition("\t")
    if _SCHEME.match(path):
        raise ValueError("is a URL\nhint: name the file relative to the source's root")
    if _CONTROL.search(path):
        raise ValueError("has a control character\nhint: a line is PATH or PATH<tab>SIZE")
    if path.startswith("/"):
        raise ValueError("is an absolute path\nhint: name the file relative to the source's root")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError("has an empty part, . or ..\nhint: name the file as it lies below the source's root")
    if tab and not _SIZE.fullmatch(size):
        raise ValueError(
            f"size {size[:40]!r} is no number\nhint: write the size in bytes, or leave it out with its tab"
        )
    return StoredFile(path, int(size) if tab else UNKNOWN_SIZE)
