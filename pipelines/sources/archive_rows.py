"""Rows of archives: which events are records and which are gaps, the columns that every row has, and the batches.

What is read of a record lies in a buffer that the next one overwrites (`archive.Record`), so a payload goes straight
from there into the content column of its batch: the one copy that is made of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import xxhash

from pipelines.errors import HeadraceError, RecipeError
from pipelines.schema import CORE
from pipelines.sources.archive import Gap, Origin, Record, read_archive
from pipelines.sources.record_header import RecordHeader
from pipelines.sources.source import (
    BatchLimits,
    RawAccount,
    Split,
    Verdict,
    content_hash,
    doc_id,
    drop_verdict,
    error_verdict,
    host_of,
)
from pipelines.storage.storage import ReadStorage

Row = dict[str, Any]
"""A row by column; `content` is any bytes-like object, `http_headers` a sequence of (name, value)."""

ENVELOPES = ("warcinfo", "filedesc", "dns", "request", "metadata", "revisit", "continuation")
"""Record types that are gaps under their own name; a type nobody knows is a gap `other`."""

_UNREADABLE = frozenset({"header_cut", "header_too_long", "body_cut"})
_SPARE_BYTES = 1 << 20

_USUAL_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_WARC_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?)?)?\s*(?:Z|([+-])(\d\d):?(\d\d))?"
)
_ARC_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(?:(\d\d)\d*)?)?")
_USUAL_HOST = re.compile(r"https?://([a-z0-9.-]+)(?::\d{0,5})?(?=[/?#]|\Z)", re.ASCII)


class ArchiveSource(Protocol):
    """The fields that all sources of archives have."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def include(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def max_record_bytes(self) -> int: ...  # noqa: D102
    @property
    def limit(self) -> int | None: ...  # noqa: D102


def check_fields(source: ArchiveSource, *, example: str, most: int, usual: int) -> None:
    """Check these fields; `most` and `usual` are of `max_record_bytes`. Raises `RecipeError`."""
    if not source.include:
        raise RecipeError(f"source {source.name}: include is empty\nhint: name files, for example {example}")
    if not 0 < source.max_record_bytes <= most:
        raise RecipeError(
            f"source {source.name}: max_record_bytes is {source.max_record_bytes}\nhint: 1 to {most}, usual {usual}"
        )
    if source.limit is not None and source.limit < 1:
        raise RecipeError(f"source {source.name}: limit is {source.limit}\nhint: at least 1, or leave it out")


class Judged(NamedTuple):
    """What an event gives: a row or none, and under which reason its bytes are a gap, None where it is a record."""

    row: Row | None
    gap: str | None


def read_rows(
    split: Split,
    storage: ReadStorage,
    batches: ArchiveBatches,
    account: RawAccount,
    judge: Callable[[str, Record | Gap], Judged],
    *,
    max_block: int,
    limit: int | None,
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of an archive, `judge` saying what each event gives; counts all of its bytes.

    Ends after `limit` rows; what is not read then is a gap `limit`.
    """
    (stored,) = split.files
    account.size += stored.size
    left = stored.size
    with storage.open(stored.path) as file, naming(stored.path):
        for event in read_archive(file, stored.size, max_block):
            if limit is not None and account.seen >= limit:
                break
            left -= event.disk
            row, gap = judge(stored.path, event)
            if gap is None:
                account.records += event.disk
            else:
                account.gap(gap, event.disk)
            if row is not None:
                account.seen += 1
                if batches.add(row, min(event.block_size, max_block) if isinstance(event, Record) else 0):
                    yield batches.take()
    if left:
        account.gap("limit", left)
    if len(batches):
        yield batches.take()


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Add the path to an error about a file that changed under the reader."""
    try:
        yield
    except HeadraceError as error:
        raise HeadraceError(f"{path}: {error}") from error


class RowMaker(NamedTuple):
    """Makes rows of one source: the columns that do not depend on what a payload is."""

    source: str
    licence: str | None

    def damaged(self, path: str, origin: Origin, reason: str, cause: str, header: RecordHeader | None = None) -> Row:
        """Return the errored row of bytes that cannot be read, or of a record whose header can, or some of it."""
        place = f"{path}@{origin.offset}" + (f"+{origin.inner}" if origin.inner else "")
        row = self._row(path, origin, place, content_hash(b""), {} if header is None else header.fields)
        row["verdict"] = error_verdict(reason, f"{place}: {cause}")
        return row

    def kept(self, path: str, record: Record, payload: bytes | memoryview, damage: tuple[str, ...]) -> Row:
        """Return the columns that every row of a readable record has."""
        fields = record.header.fields
        digest = xxhash.xxh3_128_digest(payload)
        key = bare(fields.get("warc-record-id", ""))
        if not key:
            key = f"{bare(fields.get('warc-target-uri', ''))} {fields.get('warc-date', '')} {digest.hex()}"
        row = self._row(path, record.origin, key, digest, fields)
        noted = record.damage + damage
        if fields.get("warc-truncated"):
            noted += ("warc_truncated",)
        if noted:
            row["damage"] = ",".join(noted)
        return row

    def _row(self, path: str, origin: Origin, key: str, digest: bytes, fields: dict[str, str]) -> Row:
        """Return the columns that say which row this is, and those that come from the record header."""
        url = bare(fields.get("warc-target-uri", "")) or None
        return {
            "doc_id": doc_id(self.source, key),
            "source": self.source,
            "natural_key": key,
            "origin_path": path,
            "origin_offset": origin.offset,
            "origin_length": origin.length,
            "origin_inner": origin.inner,
            "url": url,
            "host": _host(url),
            "date": parse_date(fields.get("warc-date", "")),
            "licence": self.licence,
            "content_hash": digest,
        }


def _host(url: str | None) -> str | None:
    """Return what `host_of` does, at once for the usual spelling."""
    usual = _USUAL_HOST.match(url) if url else None
    return usual[1] if usual else host_of(url)


def problem_of(record: Record, row_types: tuple[str, ...]) -> tuple[str, str] | None:
    """Return reason and cause where a record cannot be read at all, None where a part of it is worth keeping.

    Kept is one of `row_types` whose header is whole and whose payload begins, as other readers of archives do.
    """
    header = record.header
    if not header.type:
        return "damaged_record", "no WARC-Type"
    if _UNREADABLE.isdisjoint(record.damage):
        return None
    if header.type in row_types and (len(record.block) or header.block_length == 0):
        return None
    reason = "damaged_record" if "header_too_long" in record.damage else "truncated_record"
    return reason, f"{header.type}: {', '.join(record.damage)}"


def envelope_of(header: RecordHeader, row_types: tuple[str, ...]) -> str | None:
    """Return under which reason a readable record is a gap, None where it is of one of `row_types`."""
    if header.type not in row_types:
        return header.type if header.type in ENVELOPES else "other"
    uri = header.fields.get("warc-target-uri", "")
    if not uri.startswith("http") and bare(uri)[:4].lower() == "dns:":
        return "dns"
    return None


def size_verdict(block_size: int, max_bytes: int, *, is_more: bool = False) -> Verdict | None:
    """Refuse a block over the limit, or (`is_more`) a payload that decodes to more."""
    if block_size <= max_bytes and not is_more:
        return None
    value = f"> {max_bytes}" if is_more else str(block_size)
    return drop_verdict("record_too_large", value, f"<= {max_bytes} bytes")


def bare(value: str) -> str:
    """Return a URI or id without white space and angle brackets around it."""
    return value.strip().removeprefix("<").removesuffix(">").strip()


def parse_date(value: str) -> datetime | None:
    """Return a WARC-Date (W3C-DTF, possibly cut short or with an offset) or ARC date in UTC, None where it is none."""
    if _USUAL_DATE.fullmatch(value):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return None
    match = _WARC_DATE.fullmatch(value.strip())
    if match is None or (match[2] is None and len(value) != 4):
        match = _ARC_DATE.fullmatch(value)
    if match is None:
        return None
    parts = match.groups()
    year, month, day, hour, minute, second = (int(part) if part else None for part in parts[:6])
    micro = int((parts[6] or "0")[:6].ljust(6, "0")) if len(parts) > 6 else 0
    try:
        zone = timezone(_offset(parts[7:])) if len(parts) > 6 else UTC
        date = datetime(year or 0, month or 1, day or 1, hour or 0, minute or 0, second or 0, micro, zone)
        return date.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _offset(parts: tuple[str | None, ...]) -> timedelta:
    """Return a time zone's offset from sign, hours and minutes."""
    sign, hours, minutes = parts
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    return -offset if sign == "-" else offset


class ArchiveBatches:
    """Gathers rows column by column. A batch is full by its rows, or by the bytes of the records that they are from."""

    def __init__(self, adds: pa.Schema, limits: BatchLimits) -> None:
        """Build batches of core + `adds`."""
        self._schema = pa.schema([*CORE, *adds])
        self._names = self._schema.names
        self._limits = limits
        self._empty()

    def __len__(self) -> int:
        """Return the number of rows that wait."""
        return len(self._rows)

    def add(self, row: Row, num_bytes: int) -> bool:
        """Add a row, copying its content; whether a batch should be taken now.

        `num_bytes` is the record's block, whose headers and links a row may hold beside content and text.
        """
        content = row.pop("content", None)
        if content is not None:
            self._append(content)
        self._has_content.append(content is not None)
        self._stops.append(self._used)
        self._num_bytes += max(num_bytes, len(content or b"") + len(row.get("text") or ""))
        self._rows.append(tuple(map(row.get, self._names)))
        return len(self._rows) >= self._limits.max_rows or self._num_bytes >= self._limits.max_bytes

    def take(self) -> pa.RecordBatch:
        """Return what was gathered and begin anew."""
        values = zip(*self._rows, strict=True)
        columns = [self._column(field, column) for field, column in zip(self._schema, values, strict=True)]
        self._empty()
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _empty(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._has_content: list[bool] = []
        self._stops: list[int] = []
        self._num_bytes = self._used = 0
        self._content, self._view = _buffer(self._limits.max_bytes + _SPARE_BYTES)

    def _append(self, content: bytes | memoryview) -> None:
        stop = self._used + len(content)
        if stop > len(self._view):
            grown, view = _buffer(stop + _SPARE_BYTES)
            view[: self._used] = self._view[: self._used]
            self._content, self._view = grown, view
        self._view[self._used : stop] = content
        self._used = stop

    def _column(self, field: pa.Field, values: tuple[Any, ...]) -> pa.Array:
        if field.name == "content":
            return self._content_column()
        if field.name == "http_headers":
            return _headers(values, field.type)
        if values.count(values[0]) == len(values):
            return pa.repeat(pa.scalar(values[0], field.type), len(values))
        return pa.array(values, field.type)

    def _content_column(self) -> pa.Array:
        size, has_content = len(self._rows), np.array(self._has_content, bool)
        offsets = np.zeros(size + 1, np.int64)
        offsets[1:] = self._stops
        validity = None if has_content.all() else pa.py_buffer(np.packbits(has_content, bitorder="little"))
        if 8 * self._used < len(self._view):  # a small batch holds no more than it needs
            self._view = memoryview(b"")
            self._content.resize(self._used, shrink_to_fit=True)
        data = self._content.slice(0, self._used)
        return pa.Array.from_buffers(pa.large_binary(), size, [validity, pa.py_buffer(offsets), data])


def _buffer(capacity: int) -> tuple[pa.Buffer, memoryview]:
    """Return memory of Arrow's pool (which keeps pages for the next batch) and a view to write it."""
    buffer = pa.allocate_buffer(capacity, resizable=True)
    return buffer, np.frombuffer(buffer, np.uint8).data


def _headers(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    """Return the column of lists of (name, value), null where there is no list."""
    pairs = list(chain.from_iterable(value or () for value in values))
    columns = [pa.array(map(itemgetter(place), pairs), pa.string(), size=len(pairs)) for place in (0, 1)]
    struct = pa.StructArray.from_arrays(columns, fields=list(kind.value_type))
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value or ()) for value in values], out=offsets[1:])
    missing = np.array([value is None for value in values], bool)
    return pa.ListArray.from_arrays(
        pa.array(offsets), struct, type=kind, mask=pa.array(missing) if missing.any() else None
    )
