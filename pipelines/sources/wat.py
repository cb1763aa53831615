"""The source `wat`: metadata of a crawl (WAT files of Common Crawl), what a page says of itself and what it links to.

A WAT file is a WARC file whose `metadata` records hold one JSON object each, made from one record of the crawl: its
headers, the HTTP message's, and of HTML the head and every link. A row is made for each of a response or resource;
those that speak of requests, metadata and so on are gaps by that type, and so are all records of other types.
Format: https://commoncrawl.org/blog/web-archiving-file-formats-explained, and the writer's own source,
https://github.com/commoncrawl/ia-web-commons (ExtractingResourceProducer, HTMLMetaData).

`text` is the title and the texts of the links, one a line, so that a row can go through all that a document can; a page
that has none of them has an empty one (exact deduplication takes all of these for copies). The page's text itself is in
none of the files: `commoncrawl` reads that, and `refers_to` is its natural key there.

JSON is hostile: at most `max_record_bytes` of it are parsed, by a parser that limits depth, and a field of another type
than it should have is as if it were missing. What is no JSON object is `errored[json]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import orjson
import pyarrow as pa

from pipelines.sources.archive import Gap, Record
from pipelines.sources.archive_rows import (
    ENVELOPES,
    ArchiveBatches,
    Judged,
    Row,
    RowMaker,
    bare,
    check_fields,
    envelope_of,
    parse_date,
    problem_of,
    read_rows,
    size_verdict,
)
from pipelines.sources.source import BatchLimits, RawAccount, Split, error_verdict, select_files
from pipelines.storage.storage import ReadStorage

ROW_TYPES = ("metadata",)

CAPTURES = ("response", "resource")
"""Types of the crawl's records whose metadata become rows."""

META = pa.list_(pa.struct([pa.field("name", pa.string()), pa.field("content", pa.string())]))
LINKS = pa.list_(
    pa.struct(
        [
            pa.field("url", pa.string()),  # as the page has it: often relative to the page, or to its base
            pa.field("path", pa.string()),  # element and attribute: A@/href, IMG@/src
            pa.field("text", pa.string()),  # between the tags, or of the attribute alt
            pa.field("rel", pa.string()),
        ]
    )
)
MAX_LINKS = 50_000
"""Links of one page that are kept; `damage` says where there were more. Pages as people make them have hundreds."""
_LISTED = (("Links", None), ("Head", "Link"), ("Head", "Scripts"))
"""Where links stand in the metadata of HTML."""
_META_NAMES = ("name", "property", "http-equiv", "itemprop")


@dataclasses.dataclass(frozen=True, slots=True)
class Wat:
    """WAT files below a root; fields as those of `CommonCrawl`."""

    kind: ClassVar[str] = "wat"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("refers_to", pa.string()),  # id of the crawl's record: the natural key of its page
            pa.field("warc_path", pa.string()),  # name of the WARC file, without folders, that the record is in
            pa.field("warc_offset", pa.int64()),  # and its byte offset there
            pa.field("title", pa.string()),
            pa.field("base", pa.string()),  # what relative links are relative to, where the page says so
            pa.field("meta", META),  # meta tags; their names as written
            pa.field("links", LINKS),  # in the order: body, link tags, scripts
            pa.field("damage", pa.string()),  # what is wrong with a row that was kept; null = nothing
            pa.field("origin_inner", pa.int64(), nullable=False),  # see pipelines/sources/archive.py
        ]
    )

    name: str
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    licence: str | None = None
    max_record_bytes: int = 8 << 20
    limit: int | None = None

    def __post_init__(self) -> None:
        """Check the fields. Raises `RecipeError`."""
        check_fields(self, example="**/*.warc.wat.gz", most=64 << 20, usual=8388608)

    def splits(self, storage: ReadStorage) -> list[Split]:
        """Return one split for each file, ordered by path."""
        return [Split(self.name, (file,)) for file in select_files(storage.list(), self.include, self.exclude)]

    def read(
        self, split: Split, storage: ReadStorage, limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a file; never raises for what is in it. `account` is right at the end only."""
        batches = ArchiveBatches(self.adds, limits)
        yield from read_rows(
            split, storage, batches, account, self._judge, max_block=self.max_record_bytes, limit=self.limit
        )

    def _judge(self, path: str, event: Record | Gap) -> Judged:
        """Return the row of a record or of damage, none for padding and what is no metadata of a capture."""
        make = RowMaker(self.name, self.licence)
        if isinstance(event, Gap):
            if event.cause is None:
                return Judged(None, "padding")
            return Judged(make.damaged(path, event.origin, "damaged_record", event.cause), "damaged")
        problem = problem_of(event, ROW_TYPES)
        if problem is not None:
            return Judged(make.damaged(path, event.origin, *problem, event.header), "damaged")
        gap = envelope_of(event.header, ROW_TYPES)
        if gap is None and not event.header.fields.get("content-type", "").startswith("application/json"):
            gap = "metadata"
        return Judged(None, gap) if gap is not None else self._metadata(make, path, event)

    def _metadata(self, make: RowMaker, path: str, record: Record) -> Judged:
        """Return the row of one JSON object, unless it is about something else than a capture."""
        block = bytes(record.block)
        verdict = size_verdict(record.block_size, self.max_record_bytes)
        envelope: dict[str, Any] = {}
        container: dict[str, Any] = {}
        if verdict is None:
            try:
                parsed = orjson.loads(block)
                envelope, container = _child(parsed, "Envelope"), _child(parsed, "Container")
                cause = None if envelope else "no Envelope"
            except orjson.JSONDecodeError as error:
                cause = str(error)
            if cause is not None:
                verdict = error_verdict("json", f"{path}@{record.origin.offset}: {cause}")
        if verdict is None and (kind := _captured_type(envelope)) not in CAPTURES:
            return Judged(None, kind if kind in ENVELOPES else "other")
        row = make.kept(path, record, block, ())
        if verdict is not None:
            row["verdict"] = verdict
            return Judged(row, None)
        captured = parse_date(_text(_child(envelope, "WARC-Header-Metadata").get("WARC-Date")) or "")
        row["date"] = captured or row["date"]
        row["refers_to"] = bare(record.header.fields.get("warc-refers-to", "")) or None
        columns = _container_columns(container) | _message_columns(envelope)
        if len(columns["links"]) > MAX_LINKS:
            columns["links"] = columns["links"][:MAX_LINKS]
            row["damage"] = ",".join(filter(None, (row.get("damage"), "links_cut")))
        return Judged(row | columns, None)


def _captured_type(envelope: dict[str, Any]) -> str:
    """Return the type of the record that the metadata are about; where it is not said, by the message in it."""
    said = _text(_child(envelope, "WARC-Header-Metadata").get("WARC-Type"))
    if said:
        return said.lower()
    return "request" if "HTTP-Request-Metadata" in _child(envelope, "Payload-Metadata") else "response"


def _container_columns(container: dict[str, Any]) -> Row:
    """Return where the captured record lies."""
    offset = container.get("Offset")
    text = str(offset) if isinstance(offset, str | int) else ""
    is_offset = text.isascii() and text.isdigit() and len(text) <= 18
    return {"warc_path": _text(container.get("Filename")), "warc_offset": int(text) if is_offset else None}


def _message_columns(envelope: dict[str, Any]) -> Row:
    """Return the columns that come from the HTTP message and its HTML."""
    message = _child(_child(envelope, "Payload-Metadata"), "HTTP-Response-Metadata")
    status = _text(_child(message, "Response-Message").get("Status")) or ""
    html = _child(message, "HTML-Metadata")
    head = _child(html, "Head")
    title, links = _text(head.get("Title")), _links(html)
    words = [title, *(link["text"] for link in links)]
    return {
        "http_status": int(status) if len(status) == 3 and status.isascii() and status.isdigit() else None,
        "http_headers": _headers(message.get("Headers")),
        "title": title,
        "base": _text(head.get("Base")),
        "meta": _meta(head.get("Metas")),
        "links": links,
        "text": "\n".join(" ".join(word.split()) for word in words if word),
    }


def _headers(headers: object) -> list[tuple[str, str]] | None:
    """Return HTTP headers; a repeated one has a list of values."""
    if not isinstance(headers, dict):
        return None
    pairs: list[tuple[str, str]] = []
    for name, given in headers.items():
        values = given if isinstance(given, list) else [given]
        pairs += [(name, value) for value in values if isinstance(value, str)]
    return pairs


def _meta(tags: object) -> list[Row]:
    """Return the meta tags that have a name of one of the usual kinds, or a charset."""
    found = []
    for tag in _objects(tags):
        name = next((tag[key] for key in _META_NAMES if isinstance(tag.get(key), str)), None)
        if name is not None:
            found.append({"name": name, "content": _text(tag.get("content"))})
        elif isinstance(tag.get("charset"), str):
            found.append({"name": "charset", "content": _text(tag["charset"])})
    return found


def _links(html: dict[str, Any]) -> list[Row]:
    """Return every link of a page that has an address."""
    found: list[Row] = []
    for outer, inner in _LISTED:
        listed = html.get(outer) if inner is None else _child(html, outer).get(inner)
        for link in _objects(listed):
            url = _text(link.get("url")) or _text(link.get("href"))  # of style sheets, as the writer has it
            if url and len(found) <= MAX_LINKS:
                text = _text(link.get("text")) or _text(link.get("alt"))
                found.append({"url": url, "path": _text(link.get("path")), "text": text, "rel": _text(link.get("rel"))})
    return found


def _child(value: object, key: str) -> dict[str, Any]:
    """Return the object under a key, an empty one where there is none."""
    child = value.get(key) if isinstance(value, dict) else None
    return child if isinstance(child, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    """Return the objects in a list, none where it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: object) -> str | None:
    """Return a string without U+0000, which databases and C strings choke on; None for anything else."""
    return value.replace("\0", "") if isinstance(value, str) else None
