"""One HTTP response as an archive holds it: status, headers, and the body with its codings undone.

Bodies are hostile: at most `MAX_CODINGS` codings are undone, into at most `limit` bytes. Labels are often wrong, since
archives store bodies decoded and keep the headers: a coding that the bytes do not bear out is left alone, and what
decodes before damage is kept. HTTP/1.1: RFC 9112; content codings: RFC 9110, section 8.4.1.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import NamedTuple

from pipelines.sources.inflate import CHECKSUM, COMPLETE, Chunks, End, arrow_chunks, gunzip, gzip_header_size, inflate
from pipelines.sources.media_type import declared_media_type, looks_like_text
from pipelines.sources.record_header import find_blank_line

MAX_HEAD = 256 << 10
"""Bytes of status line and headers that are read."""
MAX_HEADERS = 256
"""Headers that are kept; each is cut to `MAX_HEADER_VALUE` characters."""
MAX_HEADER_VALUE = 8192
MAX_CODINGS = 3

_STATUS = re.compile(rb"HTTP(?:/\d(?:\.\d)?)?[ \t]+(\d{3})(?!\d)")
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]{0,1024})?\r?\n")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:+-]{1,40})", re.ASCII | re.IGNORECASE)
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
_FOLDED = (" ", "\t")


class Message(NamedTuple):
    """A response: `status` is None and `headers` empty where it has no status line (HTTP/0.9). `body` is as sent.

    `content_type` is the first value that is not empty, the codings are all of their header's, in order, lower case.
    """

    status: int | None
    headers: tuple[tuple[str, str], ...]
    body: bytes | memoryview
    content_type: str = ""
    content_codings: tuple[str, ...] = ()
    transfer_codings: tuple[str, ...] = ()


class Body(NamedTuple):
    """A decoded body. `damage` names what was wrong; `failed`: a coding is there but nothing of it decodes.

    `is_too_large`: it decodes to more than the limit, and `data` is its beginning.
    """

    data: bytes | memoryview
    damage: tuple[str, ...] = ()
    failed: bool = False
    is_too_large: bool = False


def parse_message(block: bytes | memoryview) -> Message:
    """Split a response into status, headers and body, a part of `block`.

    Never fails: without a status line all is body.
    """
    status = _STATUS.match(block)
    if status is None:
        return Message(None, (), block)
    start, stop = find_blank_line(block, status.end(), MAX_HEAD) or (MAX_HEAD, MAX_HEAD)
    headers, fields = _parse_headers(bytes(block[:start]))
    return Message(
        int(status[1]),
        headers,
        block[stop:],
        fields.get("content-type", ""),
        _codings(fields["content-encoding"]) if "content-encoding" in fields else (),
        _codings(fields["transfer-encoding"]) if "transfer-encoding" in fields else (),
    )


def _parse_headers(head: bytes) -> tuple[tuple[tuple[str, str], ...], dict[str, str]]:
    """Return the headers behind the status line, in order, folded lines joined, and the values that matter here.

    They are decoded as latin-1 (RFC 9110, 5.5).
    """
    text = head.decode("latin-1")
    headers = _plain_headers(text) if len(head) <= MAX_HEADER_VALUE else None
    if headers is None:
        headers = _odd_headers(text)
    fields = {name.lower(): value for name, value in headers}
    if len(fields) < len(headers):
        fields = _joined_fields(headers)
    return tuple(headers), fields


def _plain_headers(text: str) -> list[tuple[str, str]] | None:
    """Return the headers of a short head without folded lines, None for any other."""
    if "\n " in text or "\n\t" in text:
        return None
    parts = [line.partition(":") for line in text.split("\n")[1:]]
    headers = [(name.strip(), value.strip()) for name, colon, value in parts if colon]
    return headers if len(headers) <= MAX_HEADERS else None


def _odd_headers(text: str) -> list[tuple[str, str]]:
    """Return the headers of any head: folded lines joined, long values cut, the first `MAX_HEADERS` of them."""
    headers: list[tuple[str, str]] = []
    for line in text.split("\n")[1:]:
        if line.startswith(_FOLDED) and headers:
            name, value = headers[-1]
            headers[-1] = (name, f"{value} {line.strip()}"[:MAX_HEADER_VALUE])
            continue
        name, colon, value = line.partition(":")
        if colon and len(headers) < MAX_HEADERS:
            headers.append((name.strip()[:MAX_HEADER_VALUE], value.strip()[:MAX_HEADER_VALUE]))
    return headers


def _joined_fields(headers: list[tuple[str, str]]) -> dict[str, str]:
    """Return the values by lower-case name: repeated ones joined by commas, and of Content-Type the first."""
    fields: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        if name == "content-type":
            fields[name] = fields.get(name) or value
        else:
            fields[name] = f"{fields[name]},{value}" if name in fields else value
    return fields


def _codings(value: str) -> tuple[str, ...]:
    """Return the codings of a comma-separated list."""
    return tuple(token.strip() for token in value.lower().split(",") if token.strip())


def decode_body(message: Message, limit: int) -> Body:
    """Undo transfer coding, then content codings, the outermost first; at most `limit` bytes."""
    body = Body(message.body)
    if not (message.content_codings or message.transfer_codings):
        return body if len(body.data) <= limit else body._replace(data=body.data[:limit], is_too_large=True)
    if "chunked" in message.transfer_codings:
        body = Body(*dechunk(bytes(message.body)))
    codings = message.content_codings + tuple(coding for coding in message.transfer_codings if coding != "chunked")
    for coding in codings[: -MAX_CODINGS - 1 : -1]:
        body = _undo(body, coding, limit)
    if codings and len(codings) < MAX_CODINGS and _is_text(message) and body.data[:3] == _GZIP_MAGIC:
        body = _undo(body, "gzip", limit)  # coded twice, declared once
    return body if len(body.data) <= limit else body._replace(data=body.data[:limit], is_too_large=True)


def _is_text(message: Message) -> bool:
    media_type = declared_media_type(message.content_type)
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
    coded = bytes(body.data)
    source = _open_coding(coded, coding)
    if source is None:
        return body
    data, end, is_too_large = _collect(source, limit)
    is_plain = looks_like_text(coded)
    if end.damage is COMPLETE or (data and not is_plain):
        damage = ("coding_checksum",) if end.damage == CHECKSUM else ("coding_cut",) if end.damage else ()
        return Body(data, body.damage + damage, False, body.is_too_large or is_too_large)
    return body if is_plain else body._replace(failed=True)


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


def charset(content_type: str) -> str | None:
    """Return the charset that a Content-Type declares, in lower case, or None."""
    match = _CHARSET.search(content_type)
    return match[1].lower() if match else None


@lru_cache(1024)
def content_type_of(value: str) -> tuple[str, str | None]:
    """Return media type and charset of a Content-Type; few of its values are ever seen."""
    return declared_media_type(value), charset(value)
