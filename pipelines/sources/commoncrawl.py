"""The source `commoncrawl`: archives of the web (WARC, ARC, WET), plain or compressed, one split for each file.

WARC responses and resources and ARC records become rows with `content` (the payload, its codings undone), WET
conversions rows with `text`. Everything else in an archive is a gap by its type (`request`, `metadata` ...); bytes that
cannot be read are gaps `damaged` and, so that nobody misses them, an `errored` row each. A record that is refused by
rule is a row with a verdict and without its payload. Media types are judged by `media_type`, and what is not wanted is
`dropped[media_type.TYPE]`, its exact type being the verdict's value.

A revisit (ISO 28500, section 6.7) says that the crawler saw a payload again. It is a gap `revisit.same_file` where the
capture it refers to is in the same file, so that nothing is lost, and `revisit.other_file` where it is in another one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa
import xxhash

from pipelines.sources.archive import Gap, Origin, Record, read_origin
from pipelines.sources.archive_rows import (
    ArchiveBatches,
    Judged,
    Row,
    RowMaker,
    bare,
    check_fields,
    envelope_of,
    naming,
    problem_of,
    read_rows,
    size_verdict,
)
from pipelines.sources.http_message import Body, Message, content_type_of, decode_body, parse_message
from pipelines.sources.media_type import declared_media_type, media_type, type_reason
from pipelines.sources.record_header import RecordHeader
from pipelines.sources.source import (
    BatchLimits,
    RawAccount,
    Split,
    Verdict,
    drop_verdict,
    error_verdict,
    select_files,
)
from pipelines.storage.storage import ReadStorage

ROW_TYPES = ("response", "resource", "conversion")


@dataclasses.dataclass(frozen=True, slots=True)
class CommonCrawl:
    """Web archives below a root.

    `include` and `exclude` are globs over paths; `media_types` are the types that become documents; a record whose
    block or decoded payload is over `max_record_bytes` is dropped; `limit` ends every split after as many rows.
    """

    kind: ClassVar[str] = "commoncrawl"
    version: ClassVar[int] = 2
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
        check_fields(self, example="**/*.warc.gz", most=1 << 30, usual=16777216)

    def splits(self, storage: ReadStorage) -> list[Split]:
        """Return one split for each file, ordered by path."""
        return [Split(self.name, (file,)) for file in select_files(storage.list(), self.include, self.exclude)]

    def read(
        self, split: Split, storage: ReadStorage, limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of an archive; never raises for what is in it. `account` is right at the end only."""
        make, revisits = RowMaker(self.name, self.licence), _Revisits()

        def judge(path: str, event: Record | Gap) -> Judged:
            judged = self._judge(make, path, event)
            if isinstance(event, Record):
                revisits.see(event, judged.gap)
            return judged

        batches = ArchiveBatches(self.adds, limits)
        yield from read_rows(split, storage, batches, account, judge, max_block=self.max_record_bytes, limit=self.limit)
        revisits.settle(account)

    def read_record(self, storage: ReadStorage, path: str, offset: int, length: int, inner: int) -> dict[str, Any]:
        """Read one record again by its origin and return the row that `read` gave for it.

        Raises `ValueError` if there is none.
        """
        with storage.open(path) as file, naming(path):
            event = read_origin(file, Origin(offset, length, inner), self.max_record_bytes)
        row, _ = self._judge(RowMaker(self.name, self.licence), path, event)
        if row is None:
            raise ValueError(f"{path}: no document at offset {offset} + {inner}\nhint: take an origin from a document")
        return row

    def _judge(self, make: RowMaker, path: str, event: Record | Gap) -> Judged:
        """Return the row of a record or of damage, none for padding and envelopes."""
        if isinstance(event, Gap):
            if event.cause is None:
                return Judged(None, "padding")
            return Judged(make.damaged(path, event.origin, "damaged_record", event.cause), "damaged")
        header = event.header
        if header.type == "response" and not event.damage and header.fields.get("warc-target-uri", "")[:4] == "http":
            return Judged(self._payload(make, path, event), None)  # the usual case, of which what follows says the same
        problem = problem_of(event, ROW_TYPES)
        if problem is not None:
            return Judged(make.damaged(path, event.origin, *problem, header), "damaged")
        gap = envelope_of(header, ROW_TYPES)
        if gap is not None:
            return Judged(None, gap)
        is_text = header.type == "conversion"
        return Judged((self._conversion if is_text else self._payload)(make, path, event), None)

    def _conversion(self, make: RowMaker, path: str, record: Record) -> Row:
        """Return the row of extracted text (WET)."""
        kind = declared_media_type(record.header.fields.get("content-type", "")) or "text/plain"
        block = bytes(record.block)
        row = make.kept(path, record, block, ())
        row["media_type"] = kind
        verdict = self._media_type_verdict(kind) or size_verdict(record.block_size, self.max_record_bytes)
        if verdict is None:
            row["text"], row["decoding_errors"] = _decode_text(block)
        else:
            row["verdict"] = verdict
        return row

    def _payload(self, make: RowMaker, path: str, record: Record) -> Row:
        """Return the row of a payload: an HTTP response, or a resource as it is."""
        message = parse_message(record.block) if _may_be_http(record.header) else Message(None, (), record.block)
        body = decode_body(message, self.max_record_bytes)
        declared, charset = content_type_of(message.content_type)
        declared = declared or _record_media_type(record.header)
        kind = declared if body.failed and declared else media_type(declared, body.data)
        row = make.kept(path, record, body.data, body.damage)
        row["http_status"] = message.status
        row["http_headers"] = None if message.status is None else message.headers
        row["media_type"] = kind
        row["charset"] = charset
        verdict = None
        if message.status != 200 or body.failed or not self._is_wanted(record, body, kind):
            verdict = self._verdict(path, record, message, body, kind)
        if verdict is None:
            row["content"] = body.data
        else:
            row["verdict"] = verdict
        return row

    def _is_wanted(self, record: Record, body: Body, kind: str) -> bool:
        """Whether a payload is of a wanted type and not too large."""
        return kind in self.media_types and record.block_size <= self.max_record_bytes and not body.is_too_large

    def _verdict(self, path: str, record: Record, message: Message, body: Body, kind: str) -> Verdict | None:
        """Judge a payload by the rules of the source, in a fixed order; None = kept."""
        if message.status is not None and message.status != 200:
            return drop_verdict("http_status", str(message.status), "200")
        too_large = size_verdict(record.block_size, self.max_record_bytes, is_more=body.is_too_large)
        verdict = self._media_type_verdict(kind) or too_large
        if verdict is None and body.failed:
            coding = ", ".join(message.content_codings)
            return error_verdict("content_encoding", f"{path}@{record.origin.offset}: nothing decodes as {coding}")
        return verdict

    def _media_type_verdict(self, kind: str) -> Verdict | None:
        if kind in self.media_types:
            return None
        return drop_verdict(f"media_type.{type_reason(kind)}", kind, "one of " + ", ".join(self.media_types))


class _Revisits:
    """Finds out which revisits refer to a capture of the same file, whichever of both comes first.

    Names are kept as digests: headers may be long, and a file has millions of captures.
    """

    def __init__(self) -> None:
        self._captures: set[bytes] = set()
        self._revisits: list[tuple[list[bytes], int]] = []

    def see(self, record: Record, gap: str | None) -> None:
        """Note a capture, which is a record and no gap, or a readable revisit, which is a gap."""
        get = record.header.fields.get
        if gap is None:
            self._captures.update(
                _names(get("warc-record-id"), get("warc-target-uri"), get("warc-date"), get("warc-payload-digest"))
            )
        elif gap == "revisit":
            names = (
                get("warc-refers-to"),
                get("warc-refers-to-target-uri"),
                get("warc-refers-to-date"),
                get("warc-payload-digest"),
            )
            self._revisits.append((_names(*names), record.disk))

    def settle(self, account: RawAccount) -> None:
        """Count the revisits apart."""
        if not self._revisits:
            return
        del account.gaps["revisit"]
        for names, num_bytes in self._revisits:
            elsewhere = self._captures.isdisjoint(names)
            account.gap("revisit.other_file" if elsewhere else "revisit.same_file", num_bytes)


def _names(record_id: str | None, uri: str | None, date: str | None, digest: str | None) -> list[bytes]:
    """Return what a capture is referred to by: digests of its id, of address and time, of its payload's digest."""
    capture = f"{bare(uri)} {date}" if uri and date else ""
    return [xxhash.xxh3_128_digest(name) for name in (bare(record_id or ""), capture, digest) if name]


def _may_be_http(header: RecordHeader) -> bool:
    """Whether a record's block is an HTTP message: a response of any label, a resource only if it says so."""
    return header.type == "response" or "application/http" in header.fields.get("content-type", "").lower()


def _record_media_type(header: RecordHeader) -> str:
    """Return the media type that the record header gives for the payload, empty where it speaks of HTTP."""
    kind = declared_media_type(header.fields.get("content-type", ""))
    return "" if kind == "application/http" else kind


def _decode_text(data: bytes) -> tuple[str, int]:
    """Decode UTF-8 and count the replacements; those that stand in the data themselves are none.

    Exact, since 0xEF continues no sequence, so that an encoded U+FFFD decodes as itself behind any damage.
    """
    text = data.decode("utf-8", "replace")
    return text, text.count("\ufffd") - data.count(b"\xef\xbf\xbd")
