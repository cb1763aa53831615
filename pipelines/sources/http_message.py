"""One HTTP response as an archive holds it: status, headers, and the body with its codings undone.

Bodies are hostile: at most `MAX_CODINGS` codings are undone, into at most `limit` bytes. Labels are often wrong, since
archives store bodies decoded and keep the headers: a coding that the bytes do not bear out is left alone, and what
decodes before damage is kept. HTTP/1.1: RFC 9112; content codings: RFC 9110, section 8.4.1.
"""

from __future__ import annotations

import dataclasses
import re
import zlib

from pipelines.sources.inflate import CHECKSUM, COMPLETE, Chunks, End, arrow_chunks, gunzip, gzip_header_size, inflate

MAX_HEAD = 256 << 10
"""Bytes of status line and headers that are read."""
MAX_HEADERS = 256
"""Headers that are kept; each is cut to `MAX_HEADER_VALUE` characters."""
MAX_HEADER_VALUE = 8192
MAX_CODINGS = 3

GENERIC_TYPES = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/unknown", "unknown/unknown", "no-type"}
)
"""Media types that say nothing, `no-type` being that of ARC."""

_STATUS = re.compile(rb"HTTP(?:/\d(?:\.\d)?)?[ \t]+(\d{3})(?!\d)")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]{0,1024})?\r?\n")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:+-]{1,40})", re.ASCII | re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"\s*([\w.+-]{1,64}/[\w.+-]{1,64})\s*(?:[;,]|$)", re.ASCII)
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
_MARKUP_SPACE = re.compile(rb"(?:[\s\0]|\xef\xbb\xbf|\xff\xfe|\xfe\xff|<!--.{0,2048}?-->)*", re.DOTALL)
_HTML_START = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|meta|script|div|table|h1|p|a)\b", re.IGNORECASE)
_BINARY_BYTES = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_SIGNATURES = (
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"PK\x03\x04", "application/zip"),
    (_GZIP_MAGIC, "application/gzip"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """A response: `status` is None and `headers` empty where it has no status line (HTTP/0.9). `body` is as sent."""

    status: int | None
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def first(self, name: str) -> str:
        """Return the first non-empty value of a header (`name` in lower case), else an empty string."""
        return next((value for key, value in self.headers if value and key.lower() == name), "")

    def tokens(self, name: str) -> list[str]:
        """Return the comma-separated lower-case tokens of all headers of this name, in order."""
        values = ",".join(value for key, value in self.headers if key.lower() == name)
        return [token.strip() for token in values.lower().split(",") if token.strip()]


@dataclasses.dataclass(frozen=True, slots=True)
class Body:
    """A decoded body. `damage` names what was wrong; `failed`: a coding is there but nothing of it decodes.

    `is_too_large`: it decodes to more than the limit, and `data` is its beginning.
    """

    data: bytes
    damage: tuple[str, ...] = ()
    failed: bool = False
    is_too_large: bool = False


def parse_message(block: bytes) -> Message:
    """Split a response into status, headers and body. Never fails: without a status line all is body."""
    status = _STATUS.match(block)
    if status is None:
        return Message(None, (), block)
    end = _HEAD_END.search(block, status.end(), MAX_HEAD)
    head, body = (block[: end.start()], block[end.end() :]) if end else (block[:MAX_HEAD], block[MAX_HEAD:])
    return Message(int(status[1]), _parse_headers(head), body)


def _parse_headers(head: bytes) -> tuple[tuple[str, str], ...]:
    """Return the headers behind the status line in order, folded lines joined, decoded as latin-1 (RFC 9110, 5.5)."""
    headers: list[tuple[str, str]] = []
    for line in head.decode("latin-1").split("\n")[1:]:
        if line[:1] in (" ", "\t") and headers:
            name, value = headers[-1]
            headers[-1] = (name, f"{value} {line.strip()}"[:MAX_HEADER_VALUE])
            continue
        name, colon, value = line.partition(":")
        if colon and len(headers) < MAX_HEADERS:
            headers.append((name.strip()[:MAX_HEADER_VALUE], value.strip()[:MAX_HEADER_VALUE]))
    return tuple(headers)


def decode_body(message: Message, limit: int) -> Body:
    """Undo transfer coding, then content codings, the outermost first; at most `limit` bytes."""
    transfer = message.tokens("transfer-encoding")
    data, damage = dechunk(message.body) if "chunked" in transfer else (message.body, ())
    codings = message.tokens("content-encoding") + [coding for coding in transfer if coding != "chunked"]
    body = Body(data, damage)
    for coding in codings[: -MAX_CODINGS - 1 : -1]:
        body = _undo(body, coding, limit)
    if codings and len(codings) < MAX_CODINGS and _is_text(message) and body.data.startswith(_GZIP_MAGIC):
        body = _undo(body, "gzip", limit)  # coded twice, declared once
    return dataclasses.replace(body, data=body.data[:limit], is_too_large=body.is_too_large or len(body.data) > limit)


def _is_text(message: Message) -> bool:
    media_type = declared_media_type(message.first("content-type"))
    return media_type.startswith("text/") or media_type == "application/xhtml+xml"


def dechunk(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Undo the chunked transfer coding; from where the chunks are wrong on, the rest is taken as it is.

    Data that do not begin with a chunk are whole: archives often store them so and keep the header.
    """
    parts: list[bytes] = []
    position = 0
    while chunk := _CHUNK.match(data, position):
        size, start = int(chunk[1], 16), chunk.end()
        if size == 0:
            return b"".join(parts), ()
        parts.append(data[start : start + size])
        position = start + size
        if position >= len(data):
            return b"".join(parts), ("chunk_cut",)
        newline = 2 if data.startswith(b"\r\n", position) else 1 if data.startswith(b"\n", position) else 0
        if not newline:
            break
        position += newline
    if position == 0 or (len(parts) == 1 and not data.startswith(b"\n", position - 1)):
        return data, ()
    rest = data[position:]
    return b"".join([*parts, rest]), ("chunk_wrong" if rest.strip() else "chunk_cut",)


def _undo(body: Body, coding: str, limit: int) -> Body:
    """Undo one content coding, or leave the body alone where its bytes are not coded so."""
    if not body.data or body.failed:
        return body
    source = _open_coding(body.data, coding)
    if source is None:
        return body
    data, end, is_too_large = _collect(source, limit)
    is_plain = _looks_plain(body.data)
    if end.damage is COMPLETE or (data and not is_plain):
        damage = ("coding_checksum",) if end.damage == CHECKSUM else ("coding_cut",) if end.damage else ()
        return Body(data, body.damage + damage, False, body.is_too_large or is_too_large)
    return body if is_plain else dataclasses.replace(body, failed=True)


def _open_coding(data: bytes, coding: str) -> Chunks | None:
    """Return a decoder for what the data are: the magic number decides before the label. None = not coded."""

    def read_at(offset: int, num_bytes: int) -> bytes:
        return data[offset : offset + num_bytes]

    coding = coding.removeprefix("x-")
    if coding not in ("gzip", "deflate", "br", "zstd"):
        return None
    if gzip_header_size(read_at, 0):
        return _gunzip_all(data)
    if data.startswith(_ZSTD_MAGIC):
        return arrow_chunks(read_at, 0, len(data), "zstd")
    if coding == "deflate":
        is_zlib = data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
        return inflate(read_at, 0, len(data), zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)
    if coding == "br":
        return arrow_chunks(read_at, 0, len(data), "brotli")
    return gunzip(read_at, 0, len(data))  # no magic number: nothing decodes


def _gunzip_all(data: bytes) -> Chunks:
    """Decode all gzip members of a body; what follows them is ignored (servers pad)."""

    def read_at(offset: int, num_bytes: int) -> bytes:
        return data[offset : offset + num_bytes]

    end = yield from gunzip(read_at, 0, len(data))
    while not end.damage and data.startswith(_GZIP_MAGIC, end.stop):
        end = yield from gunzip(read_at, end.stop, len(data))
    return end


def _collect(chunks: Chunks, limit: int) -> tuple[bytes, End, bool]:
    """Return what is decoded, how it ended, and whether it passed `limit` (then it is cut off there)."""
    parts, size = [], 0
    while size <= limit:
        try:
            parts.append(next(chunks))
        except StopIteration as stopped:
            return b"".join(parts), stopped.value, False
        size += len(parts[-1])
    return b"".join(parts), End(0, COMPLETE), True


def _looks_plain(data: bytes) -> bool:
    """Whether the beginning of the data could be text in an encoding that keeps ASCII."""
    return _BINARY_BYTES.search(data, 0, 512) is None


def charset(content_type: str) -> str | None:
    """Return the charset that a Content-Type declares, in lower case, or None."""
    match = _CHARSET.search(content_type)
    return match[1].lower() if match else None


def declared_media_type(content_type: str) -> str:
    """Return the media type of a Content-Type in lower case and without parameters; empty where there is none."""
    match = _MEDIA_TYPE.match(content_type)
    return match[1].lower() if match else ""


def media_type(declared: str, data: bytes) -> str:
    """Return the declared media type, unless it is generic (`GENERIC_TYPES`), or plain text that begins like HTML.

    Then the first bytes decide: an HTML tag or doctype behind white space and comments, an XML declaration (XHTML
    with an html tag in the first 2 KiB), a signature, else plain text unless there are binary bytes among the first
    512 (after https://mimesniff.spec.whatwg.org, section 7, cut down to what matters here).
    """
    if declared not in GENERIC_TYPES and declared != "text/plain":
        return declared
    start = _MARKUP_SPACE.match(data, 0, 8192)
    position = start.end() if start else 0
    if declared == "text/plain":
        return (
            "text/html" if re.match(rb"<(?:!doctype\s+html|html)\b", data[position : position + 64], re.I) else declared
        )
    if _HTML_START.match(data, position):
        return "text/html"
    if data.startswith(b"<?xml", position):
        return "application/xhtml+xml" if b"<html" in data[position : position + 2048] else "application/xml"
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    return "text/plain" if data and _looks_plain(data) else "application/octet-stream"
