"""Archives for tests: records and members made here, the real files, and a reader that checks what must always hold."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pyarrow as pa

from pipelines.sources.archive import Gap, Record, read_archive, read_origin

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
WARCS = sorted(path for path in (SHARED / "warc").rglob("*") if path.is_file()) if SHARED.exists() else []
MAX_BLOCK = 1 << 20


def warc(number: int, body: bytes, *, length: int | str | None = None, kind: str = "response") -> bytes:
    """One WARC record; `length` overrides what Content-Length says, an empty string leaves it out."""
    said = len(body) if length is None else length
    lines = ["WARC/1.0", f"WARC-Type: {kind}", f"WARC-Record-ID: <urn:{number}>"]
    lines += [f"Content-Length: {said}"] if said != "" else []
    return "\r\n".join([*lines, "", ""]).encode() + body + b"\r\n\r\n"


BODIES = [b"first body", b"second\nWARC/1.0\r\n\r\nbody", bytes(range(256)) * 20, b""]
RECORDS = [warc(number, body) for number, body in enumerate(BODIES)]
PLAIN = b"".join(RECORDS)
MEMBERS = [gzip.compress(record, mtime=0) for record in RECORDS]


def read(data: bytes, max_block: int = MAX_BLOCK) -> list[Record | Gap]:
    """Read all, keeping the blocks (which are there until the next record is read)."""
    found = read_archive(io.BytesIO(data), len(data), max_block)
    return [event._replace(block=bytes(event.block)) if isinstance(event, Record) else event for event in found]


def events(data: bytes, max_block: int = MAX_BLOCK) -> list[Record | Gap]:
    """Read all and check what must always hold: the bytes balance, and every origin leads back to the same thing."""
    found = read(data, max_block)
    assert sum(event.disk for event in found) == len(data)
    for event in found:
        if isinstance(event, Record) or event.cause is not None:
            again = read_origin(io.BytesIO(data), event.origin, max_block)
            assert again._replace(disk=event.disk) == event
    return found


def kept(data: bytes) -> list[bytes]:
    """The blocks of all records."""
    return [bytes(event.block) for event in events(data) if isinstance(event, Record)]


def damaged(data: bytes) -> list[Gap]:
    """The gaps that are damage."""
    return [event for event in events(data) if isinstance(event, Gap) and event.cause is not None]


def arrow_compress(codec: str, data: bytes) -> bytes:
    """Compress with one of Arrow's stream codecs."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()
