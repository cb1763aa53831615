"""What a source is: it cuts its files into splits, and reads a split into batches of documents and a raw-byte account.

Nothing that a source yields depends on workers, on file order or on batch sizes. A record that cannot be read becomes
an `errored` row that names file, offset and cause; reading goes on behind it wherever a record can be found.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, ClassVar, Protocol, runtime_checkable
from urllib.parse import urlsplit

import pyarrow as pa
import xxhash

from pipelines.errors import HeadraceError, RecipeError
from pipelines.schema import CORE
from pipelines.storage.storage import ReadStorage, StoredFile

Verdict = dict[str, str | None]
"""What becomes of a row that is not kept, as the `verdict` column holds it: outcome, reason, value and threshold."""


@dataclasses.dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a batch is full: at `max_rows` rows or once its content and text reach `max_bytes` bytes."""

    max_rows: int = 1024
    max_bytes: int = 32 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """The unit of work and of resume: some files of one source, or a row or byte range of one file.

    `start` and `stop` are rows for Parquet and bytes for JSON lines; `stop` = -1 is the end of the file.
    """

    source: str
    files: tuple[StoredFile, ...]
    start: int = 0
    stop: int = -1
    label: str = ""
    """What people and the ledger call it, where its first file's path would not tell."""

    @property
    def id(self) -> str:
        """A name that is safe in a path and depends on the source and the files only."""
        span = "" if (self.start, self.stop) == (0, -1) else f"{self.start}-{self.stop}"
        identity = "\x00".join([self.source, span, *(f"{file.path}\x00{file.size}" for file in self.files)])
        return xxhash.xxh3_128_hexdigest(identity.encode("utf-8", "surrogateescape"))

    def __str__(self) -> str:
        """Describe the split for people and for the ledger: source, first file, and what of it."""
        if self.label:
            return self.label
        more = f" (+{len(self.files) - 1} files)" if len(self.files) > 1 else ""
        span = "" if (self.start, self.stop) == (0, -1) else f" [{self.start}:{self.stop if self.stop >= 0 else ''}]"
        return f"{self.source}/{self.files[0].path}{more}{span}"


@dataclasses.dataclass(slots=True)
class RawAccount:
    """Raw bytes of a split as they lie on disk: `size = records + sum(gaps)`, and how many records were seen.

    A gap is everything that is no record of the source's kind: damaged bytes, padding, requests and other envelope
    records of an archive, record separators. `seen` counts the rows that the reader means to yield, so that the engine
    can compare it with the rows that arrive.
    """

    size: int = 0
    records: int = 0
    seen: int = 0
    gaps: dict[str, list[int]] = dataclasses.field(default_factory=dict)

    def gap(self, reason: str, num_bytes: int, count: int = 1) -> None:
        """Count `num_bytes` bytes (on disk) as a gap of `count` pieces."""
        entry = self.gaps.setdefault(reason, [0, 0])
        entry[0] += count
        entry[1] += num_bytes


class Reader(Protocol):
    """What a map stage reads from: a split becomes batches of documents."""

    kind: ClassVar[str]
    """The word after `reader:` in a recipe."""
    version: ClassVar[int]
    """Raised whenever the same bytes give other rows."""

    @property
    def name(self) -> str:
        """The source's name in the recipe: part of every doc_id."""
        ...

    @property
    def adds(self) -> pa.Schema:
        """Columns beyond the core that its rows have (a class variable will do)."""
        ...

    def read(
        self, split: Split, storage: ReadStorage, limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        """Yield the split's rows with schema core + `adds`, counting raw bytes in `account` (right at the end only)."""
        ...


@runtime_checkable
class Source(Reader, Protocol):
    """A reader of raw files. Implementations are frozen dataclasses whose fields are what a recipe may set."""

    def splits(self, storage: ReadStorage) -> list[Split]:
        """Cut the source's files (below the storage's root) into splits, in a fixed order."""
        ...


def doc_id(source: str, natural_key: str) -> bytes:
    """Return xxh3_128 of source and natural key: the identity of a document wherever and whenever it is read."""
    return xxhash.xxh3_128_digest(f"{source}\x00{natural_key}".encode("utf-8", "surrogatepass"))


def content_hash(payload: bytes) -> bytes:
    """Return xxh3_128 of a record's payload bytes."""
    return xxhash.xxh3_128_digest(payload)


def host_of(url: str | None) -> str | None:
    """Return the lower-case host name of a URL, or None when there is none that can be told."""
    if not url:
        return None
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return None
    return host or None


def error_verdict(reason: str, cause: str) -> Verdict:
    """Return the verdict of a record that could not be read; `cause` says where and why."""
    return {"outcome": "errored", "reason": reason, "value": cause, "threshold": None}


def damage_verdict(reason: str, path: str, offset: int, cause: str) -> Verdict:
    """Return the verdict of something that cannot be read: its file, where in it, and why."""
    return error_verdict(reason, f"{path} at {offset}: {cause}")


def drop_verdict(reason: str, value: str, threshold: str) -> Verdict:
    """Return the verdict of a record that a reader refuses by rule."""
    return {"outcome": "dropped", "reason": reason, "value": value, "threshold": threshold}


def require_positive(source: str, field: str, value: int | None) -> None:
    """Raise `RecipeError` unless `value` is a positive integer or None."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise RecipeError(f"source {source}: {field} is {value!r}\nhint: use a whole number from 1 on")


class BatchBuilder:
    """Gathers rows given as dicts (missing columns are null) and hands them out as capped batches."""

    def __init__(self, adds: pa.Schema, limits: BatchLimits, account: RawAccount) -> None:
        """Build batches of core + `adds`, counting every row in `account.seen`."""
        self.schema = pa.schema([*CORE, *adds])
        self._limits = limits
        self._account = account
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, row: dict[str, Any]) -> Iterator[pa.RecordBatch]:
        """Add one row; yields a batch when that fills it (`yield from builder.add(row)`)."""
        self._account.seen += 1
        self._rows.append(row)
        self._bytes += len(row.get("content") or b"") + len(row.get("text") or "")
        if len(self._rows) >= self._limits.max_rows or self._bytes >= self._limits.max_bytes:
            yield self._take()

    def flush(self) -> Iterator[pa.RecordBatch]:
        """Yield what is left, if anything."""
        if self._rows:
            yield self._take()

    def _take(self) -> pa.RecordBatch:
        columns = [pa.array([row.get(field.name) for row in self._rows], field.type) for field in self.schema]
        self._rows, self._bytes = [], 0
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def select_files(files: Iterable[StoredFile], include: tuple[str, ...], exclude: tuple[str, ...]) -> list[StoredFile]:
    """Return the files whose path matches any `include` and no `exclude` glob, ordered by path.

    Globs are those of `pathlib.PurePath.full_match` in spirit: `*` stays inside a folder, `**` crosses folders.
    """
    wanted, unwanted = [[_glob(pattern) for pattern in patterns] for patterns in (include, exclude)]
    chosen = [
        file
        for file in files
        if any(pattern.fullmatch(file.path) for pattern in wanted)
        and not any(pattern.fullmatch(file.path) for pattern in unwanted)
    ]
    for file in chosen:
        try:
            file.path.encode()
        except UnicodeEncodeError as error:
            raise HeadraceError(f"{file.path!r}: its name is not UTF-8\nhint: rename it, or exclude it") from error
    return sorted(chosen, key=lambda file: file.path)


@cache
def _glob(pattern: str) -> re.Pattern[str]:
    """Compile a path glob: `**/` any folders, `*` and `?` within a name, the rest literal."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(special.get(part, re.escape(part)) for part in parts), re.DOTALL)
