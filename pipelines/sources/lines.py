"""Files of lines, plain or compressed: the lines of a byte range, the account of its raw bytes, and JSON values.

Bytes balance by spans: a line that is not blank is a record, newlines and blank lines are gaps `separator`; a split
counts its own byte range only, and the rest of a line that began before it is a gap `continued`. A compressed file is
accounted as a whole: what the decoder had read is records, what lies behind damage is a gap. Memory is bounded by one
line's limit and one block.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import orjson

from pipelines.sources.decompress import SUFFIXES, decompress
from pipelines.sources.source import RawAccount, Split, Verdict, damage_verdict, drop_verdict
from pipelines.storage.storage import ReadStorage, StoredFile

READ_BYTES = 1 << 20
"""Bytes of an uncompressed file that are read at a time."""

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank, or (with `verdict`) one that is too long, or the place where a file is damaged.

    `offset` and `length` are bytes in the uncompressed file, the newline not counted; `data` is empty with a verdict.
    """

    offset: int
    length: int
    data: bytes
    verdict: Verdict | None = None


def line_splits(source: str, file: StoredFile, split_bytes: int) -> list[Split]:
    """Cut a file of lines into byte ranges of `split_bytes`; a compressed or a small one stays whole."""
    if file.path.endswith(SUFFIXES) or file.size <= split_bytes:
        return [Split(source, (file,))]
    starts = range(0, file.size, split_bytes)
    return [Split(source, (file,), start, min(start + split_bytes, file.size)) for start in starts]


def read_lines(
    split: Split, storage: ReadStorage, max_bytes: int, limit: int | None, account: RawAccount
) -> Iterator[Line]:
    """Yield the lines whose first byte lies in the split, at most `limit`, and count all of its raw bytes.

    A line longer than `max_bytes` carries the verdict `dropped[record_too_large]` and reading goes on behind it. A file
    that cannot be opened, or that ends or breaks before its time, gives one last line `errored`, after what was read.
    """
    file = split.files[0]
    account.size += file.size if split.stop < 0 else split.stop - split.start
    try:
        stream = storage.open(file.path)
    except OSError as error:
        yield from _unreadable(split, error, account)
        return
    with stream:
        read = _read_compressed if file.path.endswith(SUFFIXES) else _read_range
        yield from read(split, stream, max_bytes, limit, account)


def _unreadable(split: Split, error: OSError, account: RawAccount) -> Iterator[Line]:
    account.gap("unreadable", account.size)
    verdict = damage_verdict("unreadable", split.files[0].path, split.start, error.strerror or str(error))
    yield Line(split.start, 0, b"", verdict)


def _read_range(
    split: Split, stream: BinaryIO, max_bytes: int, limit: int | None, account: RawAccount
) -> Iterator[Line]:
    stop = split.stop if split.stop >= 0 else split.files[0].size
    place = _first_line(stream, split.start, stop)
    if place > split.start:
        account.gap("continued", place - split.start)
    num_lines, separators = 0, 0
    stream.seek(place)
    for line, ended in cut_lines(_blocks(stream), place, max_bytes):
        if line.offset >= stop or num_lines == limit:
            break
        place = min(line.offset + line.length + ended, stop)
        span = min(line.offset + line.length, stop) - line.offset
        separators += place - line.offset - (0 if _is_blank(line) else span)
        if not _is_blank(line):
            num_lines += 1
            account.records += span
            yield line
    if separators:
        account.gap("separator", separators)
    if place < stop and num_lines == limit:
        account.gap("beyond_limit", stop - place)
    elif place < stop:
        account.gap("damaged", stop - place)
        cause = f"the file ends here, {stop - place} bytes before the end that the plan saw"
        yield Line(place, 0, b"", damage_verdict("damaged_file", split.files[0].path, place, cause))


def _read_compressed(
    split: Split, stream: BinaryIO, max_bytes: int, limit: int | None, account: RawAccount
) -> Iterator[Line]:
    file = split.files[0]
    damaged: list[tuple[int, str]] = []
    num_lines = 0
    for line, _ in cut_lines(decompress(stream, file.path, damaged), 0, max_bytes):
        if num_lines == limit:
            break
        if not _is_blank(line):
            num_lines += 1
            yield line
    consumed = min(stream.tell(), file.size)
    if not damaged:
        account.records += consumed
        if consumed < file.size:
            account.gap("beyond_limit", file.size - consumed)
        return
    offset, cause = damaged[0]
    read = consumed if num_lines else 0
    account.records += read
    account.gap("damaged", file.size - read)
    yield Line(offset, 0, b"", damage_verdict("damaged_file", file.path, offset, cause))


def _is_blank(line: Line) -> bool:
    return line.verdict is None and (not line.data or line.data.isspace())


def _first_line(stream: BinaryIO, start: int, stop: int) -> int:
    """Return where the first line that begins in [start, stop) begins, or `stop`; reads nothing outside."""
    if start == 0:
        return 0
    place = start - 1
    stream.seek(place)
    while place < stop - 1:
        block = stream.read(min(READ_BYTES, stop - 1 - place))
        newline = block.find(b"\n")
        if newline >= 0:
            return place + newline + 1
        if not block:
            break
        place += len(block)
    return stop


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    while block := stream.read(READ_BYTES):
        yield block


def cut_lines(blocks: Iterable[bytes], offset: int, max_bytes: int) -> Iterator[tuple[Line, bool]]:
    """Yield each line and whether a newline ends it, holding at most `max_bytes` of one line and one block."""
    held: list[bytes] = []
    length = 0
    for block in blocks:
        *ended, rest = block.split(b"\n")
        for piece in ended:
            length += len(piece)
            yield _line(offset, length, [*held, piece], max_bytes), True
            offset += length + 1
            held, length = [], 0
        length += len(rest)
        if length <= max_bytes:
            held.append(rest)
        else:
            held.clear()
    if length:
        yield _line(offset, length, held, max_bytes), False


def _line(offset: int, length: int, pieces: list[bytes], max_bytes: int) -> Line:
    if length > max_bytes:
        return Line(offset, length, b"", drop_verdict("record_too_large", f"{length} bytes", f"<= {max_bytes} bytes"))
    return Line(offset, length, pieces[0] if len(pieces) == 1 else b"".join(pieces))


def parse_json(data: bytes) -> Any:
    """Parse one JSON value; half a surrogate pair, which is no character, becomes U+FFFD.

    Raises `ValueError` for anything that is not JSON, nesting beyond the parser's depth included.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        if not _SURROGATE_ESCAPE.search(data):
            raise
    try:
        return _without_surrogates(json.loads(data.decode(), parse_constant=_refuse_constant))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value
