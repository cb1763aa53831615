"""The header of one archive record: WARC (any version, CRLF or bare LF) or the one-line header of ARC 1 and 2.

Headers are hostile input: at most `MAX_HEADER` bytes of one are looked at, and every pattern here is linear in them.
WARC: ISO 28500, section 4. ARC: https://archive.org/web/researcher/ArcFileFormat.php.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_HEADER = 64 << 10
"""Bytes of a record header that are read; a longer one is damage (longest seen in real crawls: 4 KiB)."""

_WARC_VERSION = re.compile(rb"WARC/\d{1,2}\.\d{1,3}[ \t]*\r?\n", re.IGNORECASE)
_BLANK_LINE = re.compile(rb"\n\r?\n")
_WARC_START = re.compile(rb"WARC/\d{1,2}\.\d{1,3}[ \t]*\r?\n[A-Za-z][A-Za-z0-9-]{0,63}[ \t]*:", re.IGNORECASE)
_ARC_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{1,19}:")
_ARC_MIDDLE = re.compile(rb" (?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f:.]{2,45}|-) (\d{8,20}) ")
"""IP address and date of an ARC line; before them stands the URL, possibly with spaces."""
_FOLDED = (" ", "\t")
_USUAL_NAMES = {
    name: name.lower()
    for name in (
        "WARC-Type",
        "WARC-Date",
        "WARC-Record-ID",
        "WARC-Target-URI",
        "WARC-Payload-Digest",
        "WARC-Block-Digest",
        "WARC-IP-Address",
        "WARC-Warcinfo-ID",
        "WARC-Concurrent-To",
        "WARC-Identified-Payload-Type",
        "WARC-Refers-To",
        "WARC-Truncated",
        "Content-Type",
        "Content-Length",
    )
}
_ARC_LENGTH = re.compile(rb"-?[0-9A-Za-z]{1,20}")


class RecordHeader(NamedTuple):
    """A parsed header. `fields` has lower-case names and first values; `type` is the lower-case WARC-Type.

    An ARC line becomes the fields `warc-target-uri`, `warc-date` and `content-type`, and the type `filedesc`, `dns`,
    `response` (http, https) or `resource`. `size` is in bytes, with the blank line; `block_length` is None where it is
    missing or no natural number; `damage` is None, `header_cut` (it ends with its stream) or `header_too_long`.
    """

    type: str
    fields: dict[str, str]
    size: int
    block_length: int | None
    damage: str | None = None


def starts_record(data: bytes) -> bool:
    """Whether `data` begins with the header of a record."""
    return _WARC_VERSION.match(data) is not None or _parse_arc(data) is not None


def may_start_record(data: bytes) -> bool:
    """Whether `data`, all that is left of a stream, could be the beginning of the first line of a header."""
    if b"\n" in data or len(data) >= MAX_HEADER:
        return False
    return data[:5].upper() == b"WARC/"[: len(data)] or _ARC_SCHEME.match(data) is not None


def find_record(data: bytes, start: int) -> int | None:
    """Return where the first record header after `start` begins, or None.

    A version line must be followed by a field, an ARC line must stand at the beginning of a line.
    """
    match = _WARC_START.search(data, start)
    stop = match.start() if match else len(data)
    arc = _find_arc(data, start, stop)
    return arc if arc is not None else stop if match else None


def _find_arc(data: bytes, start: int, stop: int) -> int | None:
    """Return the first beginning of an ARC line in [start, stop), looking at every line of it once."""
    match = _ARC_MIDDLE.search(data, start, stop)
    while match is not None:
        begin = data.rfind(b"\n", start - 1 if start else 0, match.start()) + 1
        if begin >= max(start, 1) and _parse_arc(data, begin) is not None:
            return begin
        newline = data.find(b"\n", match.end())
        match = _ARC_MIDDLE.search(data, newline, stop) if newline >= 0 else None
    return None


def parse_header(data: bytes) -> RecordHeader | None:
    """Parse the header at the beginning of `data`: the next `MAX_HEADER` bytes, or all that are left.

    Returns None where there is none.
    """
    version = _WARC_VERSION.match(data)
    if version is not None:
        return _parse_warc(data, version.end())
    return _parse_arc(data)


def _parse_warc(data: bytes, start: int) -> RecordHeader:
    # From one byte back, so that a version line followed by a blank line is an empty header.
    end = find_blank_line(data, start - 1, len(data))
    stop, size, damage = (*end, None) if end else (len(data), len(data), "header_cut")
    if damage and size >= MAX_HEADER:
        damage = "header_too_long"
    other = _WARC_START.search(data, start, size) if data.find(b"WARC/", start, size) > 0 else None
    if other is not None:  # cut in its header, the next record follows
        stop, size, damage = other.start(), other.start(), "header_cut"
    fields = _parse_fields(data[start:stop])
    return RecordHeader(
        fields.get("warc-type", "").lower(), fields, size, _natural(fields.get("content-length")), damage
    )


def find_blank_line(data: bytes | memoryview, start: int, stop: int) -> tuple[int, int] | None:
    """Return where the first line end with an empty line behind it begins and ends in [start, stop); None if none does.

    Line ends are CRLF or LF. The expression begins with the one byte that both have, for which it searches fast.
    """
    found = _BLANK_LINE.search(data, start, stop)
    if found is None:
        return None
    begin = found.start()
    return begin - (begin > start and data[begin - 1] == 13), found.end()


def _parse_fields(lines: bytes) -> dict[str, str]:
    """Return the fields of a header: the first value of each name, folded lines joined by a space."""
    text = decode_header(lines)
    usual = _usual_fields(text)
    if usual is not None:
        return usual
    fields: dict[str, str] = {}
    name = ""
    for line in text.split("\n"):
        if line.startswith(_FOLDED) and name:
            fields[name] += " " + line.strip()
            continue
        field, colon, value = line.partition(":")
        field = field.strip().lower()
        name = field if colon and field and field not in fields else ""
        if name:
            fields[name] = value.strip()
    return fields


def _usual_fields(text: str) -> dict[str, str] | None:
    """Return the fields of a header in which all names are usual ones, once each, and all lines plain; else None."""
    lines = text.split("\r\n")
    fields: dict[str, str] = {}
    for line in lines:
        field, _, value = line.partition(":")
        name = _USUAL_NAMES.get(field)
        if name is None:
            return None
        fields[name] = value.strip()
    return fields if len(fields) == len(lines) and text.count("\n") == len(lines) - 1 else None


def _parse_arc(data: bytes, start: int = 0) -> RecordHeader | None:
    """Parse the ARC line at `start`: URL, IP address, date, media type, (ARC 2: four to six more), length."""
    if _ARC_SCHEME.match(data, start) is None:
        return None
    newline = data.find(b"\n", start, start + MAX_HEADER)
    middle = _ARC_MIDDLE.search(data, start, newline) if newline >= 0 else None
    if middle is None:
        return None
    rest, _, length = data[middle.end() : newline].rstrip(b"\r").rpartition(b" ")
    if not _ARC_LENGTH.fullmatch(length):
        return None
    uri, date, kind = (decode_header(part) for part in (data[start : middle.start()], middle[1], rest.split(b" ")[0]))
    fields = {"warc-target-uri": uri, "warc-date": date, "content-type": kind}
    block_length = _natural(length.decode("ascii"))
    return RecordHeader(_arc_type(uri), fields, newline + 1 - start, block_length)


def _arc_type(uri: str) -> str:
    scheme = uri.partition(":")[0].lower()
    return {"filedesc": "filedesc", "dns": "dns", "http": "response", "https": "response"}.get(scheme, "resource")


def _natural(value: str | None) -> int | None:
    """Return a length of at most 18 decimal digits (below 2^63), else None."""
    return int(value) if value and value.isascii() and value.isdigit() and len(value) <= 18 else None


def decode_header(data: bytes) -> str:
    """Decode header bytes: UTF-8, which ISO 28500 prescribes, else latin-1, which never fails."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
