"""The source `commoncrawl`: archives of the web (WARC, ARC, WET), plain or compressed, one split for each file.

WARC responses and resources and ARC records become rows with `content` (the payload, its codings undone), WET
conversions rows with `text`. Everything else in an archive is a gap by its type (`request`, `metadata`, `revisit` ...);
bytes that cannot be read are gaps `damaged` and, so that nobody misses them, an `errored` row each. A record that is
refused by rule is a row with a verdict and without its payload.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar

import pyarrow as pa
import xxhash

from pipelines.errors import HeadraceError, RecipeError
from pipelines.sources.archive import Gap, Origin, Record, read_archive, read_origin
from pipelines.sources.http_message import (
    Body,
    Message,
    charset,
    declared_media_type,
    decode_body,
    media_type,
    parse_message,
)
from pipelines.sources.record_header import RecordHeader
from pipelines.sources.source import (
    BatchBuilder,
    BatchLimits,
    RawAccount,
    Split,
    content_hash,
    doc_id,
    drop_verdict,
    error_verdict,
    host_of,
    select_files,
)
from pipelines.storage.storage import ReadStorage

ENVELOPES = ("warcinfo", "filedesc", "dns", "request", "metadata", "revisit", "continuation")
"""Record types that are gaps under their own name; a type nobody knows is a gap `other`."""
_ROW_TYPES = ("response", "resource", "conversion")
_UNREADABLE = ("header_cut", "header_too_long", "body_cut")

_WARC_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?)?)?\s*(?:Z|([+-])(\d\d):?(\d\d))?"
)
_ARC_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(?:(\d\d)\d*)?)?")


@dataclasses.dataclass(frozen=True, slots=True)
class CommonCrawl:
    """Web archives below a root.

    `include` and `exclude` are globs over paths; `media_types` are the types that become documents; a record whose
    block or decoded payload is over `max_record_bytes` is dropped; `limit` ends every split after as many rows.
    """

    kind: ClassVar[str] = "commoncrawl"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("media_type", pa.string()),  # of the payload, lower case, without parameters
            pa.field("charset", pa.string()),  # as the HTTP header declares it, lower case
            pa.field("damage", pa.string()),  # what is wrong with a row that was kept, comma separated; null = nothing
            pa.field(
                "decoding_errors", pa.int32()
            ),  # U+FFFD that stand for bytes that are no UTF-8; null = no text yet
            pa.field("origin_inner", pa.int64(), nullable=False),  # see pipelines/sources/archive.py
        ]
    )

    name: str
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    licence: str | None = None
    media_types: tuple[str, ...] = ("text/html", "application/xhtml+xml", "text/plain")
    max_record_bytes: int = 16 << 20
    limit: int | None = None

    def __post_init__(self) -> None:
        """Check the fields. Raises `RecipeError`."""
        if not self.include:
            raise RecipeError(f"source {self.name}: include is empty\nhint: name files, for example **/*.warc.gz")
        if not 0 < self.max_record_bytes <= 1 << 30:
            raise RecipeError(
                f"source {self.name}: max_record_bytes is {self.max_record_bytes}\nhint: 1 to {1 << 30}, usual 16777216"
            )
        if self.limit is not None and self.limit < 1:
            raise RecipeError(f"source {self.name}: limit is {self.limit}\nhint: at least 1, or leave it out")

    def splits(self, storage: ReadStorage) -> list[Split]:
        """Return one split for each file, ordered by path."""
        return [Split(self.name, (file,)) for file in select_files(storage.list(), self.include, self.exclude)]

    def read(
        self, split: Split, storage: ReadStorage, limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of an archive; never raises for what is in it. `account` is right at the end only."""
        (stored,) = split.files
        account.size += stored.size
        builder = BatchBuilder(self.adds, limits, account)
        left = stored.size
        with storage.open(stored.path) as file, _naming(stored.path):
            for event in read_archive(file, stored.size, self.max_record_bytes):
                if self.limit is not None and account.seen >= self.limit:
                    break
                left -= event.disk
                _count(account, event)
                row = self._row(stored.path, event)
                if row is not None:
                    yield from builder.add(row)
        if left:
            account.gap("limit", left)
        yield from builder.flush()

    def read_record(self, storage: ReadStorage, path: str, offset: int, length: int, inner: int) -> dict[str, Any]:
        """Read one record again by its origin and return the row that `read` gave for it.

        Raises `ValueError` if there is none.
        """
        with storage.open(path) as file, _naming(path):
            event = read_origin(file, Origin(offset, length, inner), self.max_record_bytes)
        row = self._row(path, event)
        if row is None:
            raise ValueError(f"{path}: no document at offset {offset} + {inner}\nhint: take an origin from a document")
        return row

    def _row(self, path: str, event: Record | Gap) -> dict[str, Any] | None:
        """Return the row of a record or of damage, None for padding and envelopes."""
        if isinstance(event, Gap):
            return self._damaged_row(path, event.origin, "damaged_record", event.cause) if event.cause else None
        problem = _problem(event)
        if problem is not None:
            return self._damaged_row(path, event.origin, *problem) | self._identity(event.header)
        if _gap_reason(event) is not None:
            return None
        return self._conversion(path, event) if event.header.type == "conversion" else self._payload(path, event)

    def _damaged_row(self, path: str, origin: Origin, reason: str, cause: str) -> dict[str, Any]:
        place = f"{path}@{origin.offset}" + (f"+{origin.inner}" if origin.inner else "")
        return self._place(path, origin, place, content_hash(b"")) | {
            "verdict": error_verdict(reason, f"{place}: {cause}")
        }

    def _place(self, path: str, origin: Origin, natural_key: str, payload_hash: bytes) -> dict[str, Any]:
        """Return the columns that say which row this is."""
        return {
            "doc_id": doc_id(self.name, natural_key),
            "source": self.name,
            "natural_key": natural_key,
            "origin_path": path,
            "origin_offset": origin.offset,
            "origin_length": origin.length,
            "origin_inner": origin.inner,
            "licence": self.licence,
            "content_hash": payload_hash,
        }

    def _identity(self, header: RecordHeader) -> dict[str, Any]:
        """Return the columns that come from the record header."""
        url = _bare(header.fields.get("warc-target-uri", "")) or None
        return {"url": url, "host": host_of(url), "date": parse_date(header.fields.get("warc-date", ""))}

    def _kept(self, path: str, record: Record, payload: bytes, damage: tuple[str, ...]) -> dict[str, Any]:
        """Return the columns that every row of a readable record has."""
        fields = record.header.fields
        key = _bare(fields.get("warc-record-id", ""))
        if not key:
            digest = xxhash.xxh3_128_hexdigest(payload)
            key = f"{_bare(fields.get('warc-target-uri', ''))} {fields.get('warc-date', '')} {digest}"
        noted = (*record.damage, *damage, *(("warc_truncated",) if fields.get("warc-truncated") else ()))
        row = self._place(path, record.origin, key, content_hash(payload)) | self._identity(record.header)
        return row | {"damage": ",".join(noted) or None}

    def _conversion(self, path: str, record: Record) -> dict[str, Any]:
        """Return the row of extracted text (WET)."""
        kind = declared_media_type(record.header.fields.get("content-type", "")) or "text/plain"
        row = self._kept(path, record, record.block, ()) | {"media_type": kind}
        verdict = self._media_type_verdict(kind) or self._size_verdict(record.block_size)
        if verdict is not None:
            return row | {"verdict": verdict}
        text, errors = _decode_text(record.block)
        return row | {"text": text, "decoding_errors": errors}

    def _payload(self, path: str, record: Record) -> dict[str, Any]:
        """Return the row of a payload: an HTTP response, or a resource as it is."""
        message = parse_message(record.block) if _may_be_http(record.header) else Message(None, (), record.block)
        body = decode_body(message, self.max_record_bytes)
        content_type = message.first("content-type")
        declared = declared_media_type(content_type) or _record_media_type(record.header)
        kind = media_type(declared, body.data)
        row = self._kept(path, record, body.data, body.damage) | {
            "http_status": message.status,
            "http_headers": _header_rows(message),
            "media_type": kind,
            "charset": charset(content_type),
        }
        verdict = self._verdict(path, record, message, body, kind)
        return row | ({"content": body.data} if verdict is None else {"verdict": verdict})

    def _verdict(
        self, path: str, record: Record, message: Message, body: Body, kind: str
    ) -> dict[str, str | None] | None:
        """Judge a payload by the rules of the source, in a fixed order; None = kept."""
        if message.status is not None and message.status != 200:
            return drop_verdict("http_status", str(message.status), "200")
        too_large = self._size_verdict(record.block_size, is_more=body.is_too_large)
        verdict = self._media_type_verdict(kind) or too_large
        if verdict is None and body.failed:
            coding = ", ".join(message.tokens("content-encoding"))
            return error_verdict("content_encoding", f"{path}@{record.origin.offset}: nothing decodes as {coding}")
        return verdict

    def _media_type_verdict(self, kind: str) -> dict[str, str | None] | None:
        if kind in self.media_types:
            return None
        return drop_verdict("media_type", kind, "one of " + ", ".join(self.media_types))

    def _size_verdict(self, block_size: int, *, is_more: bool = False) -> dict[str, str | None] | None:
        """Refuse a block over the limit, or (`is_more`) a payload that decodes to more."""
        if block_size <= self.max_record_bytes and not is_more:
            return None
        value = f"> {self.max_record_bytes}" if is_more else str(block_size)
        return drop_verdict("record_too_large", value, f"<= {self.max_record_bytes} bytes")


def parse_date(value: str) -> datetime | None:
    """Return a WARC-Date (W3C-DTF, possibly cut short or with an offset) or ARC date in UTC, None where it is none."""
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


def _problem(record: Record) -> tuple[str, str] | None:
    """Return reason and cause where a record cannot be read at all, None where a part of it is worth keeping.

    Kept is a row type whose header is whole and whose payload begins, as other readers of archives do.
    """
    header, damage = record.header, [name for name in record.damage if name in _UNREADABLE]
    if not header.type:
        return "damaged_record", "no WARC-Type"
    if not damage:
        return None
    if header.type in _ROW_TYPES and (record.block or header.block_length == 0):
        return None
    reason = "damaged_record" if "header_too_long" in damage else "truncated_record"
    return reason, f"{header.type}: {', '.join(record.damage)}"


def _gap_reason(record: Record) -> str | None:
    """Return under which reason a readable record is a gap, None where it is a row."""
    kind, fields = record.header.type, record.header.fields
    if kind not in _ROW_TYPES:
        return kind if kind in ENVELOPES else "other"
    if _bare(fields.get("warc-target-uri", ""))[:4].lower() == "dns:":
        return "dns"
    return None


def _count(account: RawAccount, event: Record | Gap) -> None:
    """Count an event's bytes on disk: records of this source, or gaps by reason."""
    if isinstance(event, Gap):
        account.gap("damaged" if event.cause else "padding", event.disk)
    elif _problem(event) is not None:
        account.gap("damaged", event.disk)
    elif (reason := _gap_reason(event)) is not None:
        account.gap(reason, event.disk)
    else:
        account.records += event.disk


def _may_be_http(header: RecordHeader) -> bool:
    """Whether a record's block is an HTTP message: a response of any label, a resource only if it says so."""
    return header.type == "response" or "application/http" in header.fields.get("content-type", "").lower()


def _record_media_type(header: RecordHeader) -> str:
    """Return the media type that the record header gives for the payload, empty where it speaks of HTTP."""
    kind = declared_media_type(header.fields.get("content-type", ""))
    return "" if kind == "application/http" else kind


def _header_rows(message: Message) -> list[dict[str, str]] | None:
    if message.status is None:
        return None
    return [{"name": name, "value": value} for name, value in message.headers]


def _decode_text(data: bytes) -> tuple[str, int]:
    """Decode UTF-8 and count the replacements; those that stand in the data themselves are none.

    Exact, since 0xEF continues no sequence, so that an encoded U+FFFD decodes as itself behind any damage.
    """
    text = data.decode("utf-8", "replace")
    return text, text.count("\ufffd") - data.count(b"\xef\xbf\xbd")


def _bare(value: str) -> str:
    """Return a URI or id without white space and angle brackets around it."""
    return value.strip().removeprefix("<").removesuffix(">").strip()


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Add the path to an error about a file that changed under the reader."""
    try:
        yield
    except HeadraceError as error:
        raise HeadraceError(f"{path}: {error}") from error
