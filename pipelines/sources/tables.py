"""Tables as sources: Parquet and JSON lines, with the columns of RefinedWeb, of C4, or as the recipe names them.

Origins. A Parquet row is (row number in the file, 1). A line of JSON is (byte offset, byte length without its newline)
in the uncompressed file: splits of a file are cut by bytes, so a row number would need everything before it.

Raw bytes. Uncompressed lines balance by their spans: a line that is not blank is a record, newlines and blank lines
are gaps `separator`; a split counts its own byte range only, and the rest of a line that began before it is a gap
`continued`. A compressed file is accounted as a whole: what the decoder had read is records, what lies behind damage is
a gap. A Parquet file's bytes are shared evenly among its rows (`size * row // rows`), lost rows are gaps.

Bounds. Lines, texts, decompressed blocks and zstd windows are bounded; string columns are read as dictionaries, so a
value that a hostile file repeats a million times is held once. What is left is one Parquet page, at most 2 GiB.
"""

from __future__ import annotations

import bz2
import dataclasses
import itertools
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO, ClassVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

from pipelines.errors import RecipeError
from pipelines.schema import CORE, DOC_ID, VERDICT
from pipelines.sources.source import (
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
from pipelines.storage import Storage, StoredFile
from pipelines.transform import EMPTY_SCHEMA

READ_BYTES = 1 << 20
"""Bytes of an uncompressed file that are read at a time."""

INPUT_BYTES = 4 << 10
"""Compressed bytes that are fed to gzip and bzip2 at a time."""

ZSTD_INPUT_BYTES = 512
"""The same for zstd, whose output cannot be capped: 512 bytes hold at most 128 run-length blocks of 128 KiB, 16 MiB."""

OUTPUT_BYTES = 64 << 10
"""Decompressed bytes that gzip and bzip2 hand out at a time."""

ZSTD_WINDOW_BYTES = 128 << 20
"""The largest window that the zstd format's own tools accept without being asked to."""

FIELD_BYTES = 64 << 10
"""The longest id, URL, date, language or licence; a longer one is read as null."""

MIN_MICROSECONDS = -62_135_596_800_000_000
MAX_MICROSECONDS = 253_402_300_799_999_999
"""Years 1 to 9999, the dates that every engine can hold; others are read as null."""

COMPRESSED = (".gz", ".zst", ".bz2")

SCHEMAS: dict[str, dict[str, str]] = {
    "refinedweb": {"text": "content", "url": "url", "date": "timestamp"},
    "c4": {"text": "text", "url": "url", "date": "timestamp"},
}
"""Column names of published tables: tiiuae/falcon-refinedweb and allenai/c4, as their dataset cards give them."""

BROKEN_PARQUET = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises for a damaged file; the last for a column's name in the footer."""

FIELDS = ("id", "url", "date", "language", "licence")

Verdict = dict[str, str | None]


# Lines of bytes -----------------------------------------------------------------------------------------------------


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
    if file.path.endswith(COMPRESSED) or file.size <= split_bytes:
        return [Split(source, (file,))]
    starts = range(0, file.size, split_bytes)
    return [Split(source, (file,), start, min(start + split_bytes, file.size)) for start in starts]


def read_lines(
    split: Split, storage: Storage, max_bytes: int, limit: int | None, account: RawAccount
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
        read = _read_compressed if file.path.endswith(COMPRESSED) else _read_range
        yield from read(split, stream, max_bytes, limit, account)


def _unreadable(split: Split, error: OSError, account: RawAccount) -> Iterator[Line]:
    account.gap("unreadable", account.size)
    verdict = damage("unreadable", split.files[0].path, split.start, error.strerror or str(error))
    yield Line(split.start, 0, b"", verdict)


def damage(reason: str, path: str, offset: int, cause: str) -> Verdict:
    """Return the verdict of something that cannot be read: where it lies and why."""
    return error_verdict(reason, f"{path} at {offset}: {cause}")


def _read_range(
    split: Split, stream: BinaryIO, max_bytes: int, limit: int | None, account: RawAccount
) -> Iterator[Line]:
    stop = split.stop if split.stop >= 0 else split.files[0].size
    place = _first_line(stream, split.start, stop)
    if place > split.start:
        account.gap("continued", place - split.start)
    num_lines, separators = 0, 0
    stream.seek(place)
    for line, ended in _cut_lines(_blocks(stream), place, max_bytes):
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
        yield Line(place, 0, b"", damage("damaged_file", split.files[0].path, place, cause))


def _read_compressed(
    split: Split, stream: BinaryIO, max_bytes: int, limit: int | None, account: RawAccount
) -> Iterator[Line]:
    file = split.files[0]
    damaged: list[tuple[int, str]] = []
    num_lines = 0
    for line, _ in _cut_lines(_decompress(stream, file.path, damaged), 0, max_bytes):
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
    yield Line(offset, 0, b"", damage("damaged_file", file.path, offset, cause))


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


def _cut_lines(blocks: Iterable[bytes], offset: int, max_bytes: int) -> Iterator[tuple[Line, bool]]:
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


# Decompression ------------------------------------------------------------------------------------------------------


def _decompress(stream: BinaryIO, path: str, damaged: list[tuple[int, str]]) -> Iterator[bytes]:
    """Yield the decompressed bytes up to the first damage, which is then described in `damaged` as (offset, cause).

    A decoder that meets damage keeps what it had in hand. So the file is then read once more, and behind the last whole
    block byte by byte: every byte that can be decoded comes out, whatever the block sizes.
    """
    decode = {"gz": _gunzip, "bz2": _bunzip, "zst": _unzstd}[path.rpartition(".")[2]]
    errors = (EOFError, ValueError, zlib.error, zstandard.ZstdError)
    sound = 0
    try:
        for block in decode(stream, sys.maxsize):
            sound += len(block)
            yield block
    except errors:
        stream.seek(0)
    else:
        return
    done = 0
    try:
        for block in decode(stream, sound):
            done += len(block)
            yield block[max(0, len(block) - (done - sound)) :] if done > sound else b""
    except errors as error:
        damaged.append((done, str(error) or type(error).__name__))


def _gunzip(stream: BinaryIO, sound: int) -> Iterator[bytes]:
    """Decode the members of a gzip file in blocks, and in single bytes once `sound` bytes are out."""
    produced = 0
    data = stream.read(INPUT_BYTES)
    while data:
        decoder = zlib.decompressobj(wbits=31)
        while not decoder.eof:
            block = decoder.decompress(data, OUTPUT_BYTES if produced < sound else 1)
            produced += len(block)
            yield block
            data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail or stream.read(INPUT_BYTES)
            if not (data or block or decoder.eof):
                raise EOFError("the gzip member is cut short")
        data = _next_member(stream, data)


def _bunzip(stream: BinaryIO, sound: int) -> Iterator[bytes]:
    """Decode the streams of a bzip2 file in blocks, and in single bytes once `sound` bytes are out."""
    produced = 0
    data = stream.read(INPUT_BYTES)
    while data:
        decoder = bz2.BZ2Decompressor()
        while not decoder.eof:
            try:
                block = decoder.decompress(data, OUTPUT_BYTES if produced < sound else 1)
            except OSError as error:  # to be told from a failing read, which is no property of the file
                raise ValueError(str(error)) from None
            produced += len(block)
            yield block
            data = stream.read(INPUT_BYTES) if decoder.needs_input else b""
            if decoder.needs_input and not data:
                raise EOFError("the bzip2 stream is cut short")
        data = _next_member(stream, decoder.unused_data)


def _unzstd(stream: BinaryIO, sound: int) -> Iterator[bytes]:
    """Decode the frames of a zstd file, a few blocks at a time; once `sound` bytes are out, fed with single bytes."""
    produced = 0
    data = stream.read(ZSTD_INPUT_BYTES)
    while data:
        decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()
        while not decoder.eof:
            if not data:
                raise EOFError("the zstd frame is cut short")
            take = ZSTD_INPUT_BYTES if produced < sound else 1
            block = decoder.decompress(data[:take])
            produced += len(block)
            yield block
            data = decoder.unused_data + data[take:] if decoder.eof else data[take:] or stream.read(ZSTD_INPUT_BYTES)
        data = data or stream.read(ZSTD_INPUT_BYTES)


def _next_member(stream: BinaryIO, data: bytes) -> bytes:
    """Return the first bytes of the next member, skipping the zeros with which some tools pad a file."""
    data = data.lstrip(b"\0")
    while not data and (more := stream.read(INPUT_BYTES)):
        data = more.lstrip(b"\0")
    return data


# JSON ---------------------------------------------------------------------------------------------------------------

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


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


# Dates --------------------------------------------------------------------------------------------------------------

DATE = pa.timestamp("us", tz="UTC")

_ISO = (
    r"^(?P<day>\d{4}-\d\d-\d\d)(?:[Tt ](?P<time>\d\d:\d\d(?::\d\d)?)(?:\.(?P<fraction>\d{1,6})\d*)?"
    r"\s?(?P<zone>[Zz]|[+-]\d\d(?::?\d\d)?)?)?$"
)
_EPOCH = r"^\d{9,18}$"


def parse_dates(column: pa.Array) -> pa.Array:
    """Return a column as timestamps in microseconds UTC; what is no date, or lies outside years 1 to 9999, is null.

    Timestamps and days without a zone count as UTC. Strings are ISO 8601, or epochs in digits. Epochs have 9 to 18
    digits and tell their unit by their size: below 10^11 seconds, 10^14 milliseconds, 10^17 microseconds, then
    nanoseconds. Shorter numbers are null: they are years or compact dates and no epochs after March 1973.
    """
    kind = column.type
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("ms"))
        kind = column.type
    if pa.types.is_timestamp(kind):
        scale = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": -1_000}[kind.unit]
        values, valid = _integers(column)
        return _scaled(values, valid, np.full(len(values), scale, np.int64))
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return pa.nulls(len(column), DATE)
    column = column.cast(pa.large_string())
    epochs = pc.if_else(pc.match_substring_regex(column, _EPOCH), column, pa.scalar(None, column.type))
    return pc.coalesce(_parse_epochs(epochs.cast(pa.int64())), _parse_iso(column))


def _integers(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(column.cast(pa.int64()).fill_null(0)), np.asarray(column.is_valid())


def _parse_epochs(column: pa.Array) -> pa.Array:
    values, valid = _integers(column)
    rank = np.searchsorted(np.array([10**11, 10**14, 10**17], np.int64), values, side="right")
    return _scaled(values, valid, np.array([1_000_000, 1_000, 1, -1_000], np.int64)[rank])


def _scaled(values: np.ndarray, valid: np.ndarray, scale: np.ndarray) -> pa.Array:
    """Return int64 `values` times `scale` (or, where negative, divided by it, rounded down) as microseconds."""
    factor = np.maximum(scale, 1)
    fits = (values >= -(-MIN_MICROSECONDS // factor)) & (values <= MAX_MICROSECONDS // factor)
    divided = np.where(scale < 0, values // np.maximum(-scale, 1), np.where(fits, values, 0) * factor)
    fits |= scale < 0
    return pa.array(divided, pa.int64(), mask=~(valid & fits)).cast(DATE)


def _parse_iso(column: pa.Array) -> pa.Array:
    def constant(text: str) -> pa.Scalar:
        return pa.scalar(text, pa.large_string())

    parts = pc.extract_regex(column, _ISO)
    day, time, fraction, zone = (pc.struct_field(parts, name) for name in ("day", "time", "fraction", "zone"))
    time = pc.if_else(pc.equal(time, constant("")), constant("00:00"), time)
    seconds = pc.if_else(pc.equal(pc.binary_length(time), 5), constant(":00."), constant("."))
    fraction = pc.utf8_rpad(fraction, 6, "0")
    zone = pc.if_else(pc.equal(zone, constant("")), constant("Z"), pc.utf8_upper(zone))
    joint = constant("T")
    canonical = pc.binary_join_element_wise(day, joint, time, seconds, fraction, zone, constant(""))
    values, valid = _integers(_cast_dates(canonical))
    return _scaled(values, valid, np.ones(len(values), np.int64))


def _cast_dates(column: pa.Array) -> pa.Array:
    """Cast strings of the one form that is left; days that no calendar has are rare, so they are sought one by one."""
    try:
        return column.cast(DATE)
    except pa.ArrowInvalid:
        return pa.concat_arrays([_cast_date(column.slice(row, 1)) for row in range(len(column))])


def _cast_date(column: pa.Array) -> pa.Array:
    try:
        return column.cast(DATE)
    except pa.ArrowInvalid:
        return pa.nulls(len(column), DATE)


# The source ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows:
    """Rows before they have an identity: one value or null for each row in every column.

    `text` and `fields` are strings (`date` any type that `parse_dates` takes); `verdicts` are None for kept rows.
    """

    path: str
    offsets: pa.Array
    lengths: pa.Array
    text: pa.Array
    fields: dict[str, pa.Array]
    verdicts: list[Verdict | None]


@dataclasses.dataclass(frozen=True, slots=True)
class _Share:
    """The bytes of a Parquet file, shared evenly among its rows; the shares of all ranges add up to the file's size."""

    size: int
    num_rows: int

    def of(self, start: int, stop: int) -> int:
        """Return the bytes that rows [start, stop) stand for; a file without rows is one share."""
        if not self.num_rows:
            return self.size
        return self.size * stop // self.num_rows - self.size * start // self.num_rows


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Rows of Parquet or JSON lines files, one document each.

    `text`, `id`, `url`, `date`, `language` and `licence_column` name columns and override the names that `schema`
    ("refinedweb" or "c4") knows; without either, `text` is read and nothing else. The natural key is the id column,
    else the hash of the text. `limit` is rows per split, `split_bytes` bytes of a file of lines or uncompressed bytes
    of row groups. Raises `RecipeError` for a wrong value, and in `splits` for a Parquet file without the text column.
    """

    kind: ClassVar[str] = "table"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = EMPTY_SCHEMA

    name: str
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    schema: str | None = None
    text: str | None = None
    id: str | None = None
    url: str | None = None
    date: str | None = None
    language: str | None = None
    licence_column: str | None = None
    licence: str | None = None
    max_record_bytes: int = 16 << 20
    split_bytes: int = 64 << 20
    limit: int | None = None

    def __post_init__(self) -> None:
        """Check the values that a recipe may set."""
        if self.schema is not None and self.schema not in SCHEMAS:
            raise RecipeError(
                f"source {self.name}: schema {self.schema!r} is not known\nhint: use one of "
                f"{', '.join(sorted(SCHEMAS))}, or name the columns (text, id, url, date, language, licence_column)"
            )
        require_positive(self.name, "max_record_bytes", self.max_record_bytes)
        require_positive(self.name, "split_bytes", self.split_bytes)
        require_positive(self.name, "limit", self.limit)

    @property
    def columns(self) -> dict[str, str]:
        """The table's column for each of text, id, url, date, language and licence that is read."""
        known = {"text": "text"} | (SCHEMAS[self.schema] if self.schema else {})
        named = {
            "text": self.text,
            "id": self.id,
            "url": self.url,
            "date": self.date,
            "language": self.language,
            "licence": self.licence_column,
        }
        return known | {field: column for field, column in named.items() if column is not None}

    def splits(self, storage: Storage) -> list[Split]:
        """Cut Parquet files between row groups, lines by bytes; files in the order of their paths."""
        splits: list[Split] = []
        for file in select_files(storage.list(), self.include, self.exclude):
            if file.path.endswith(".parquet"):
                splits += self._row_splits(file, storage)
            else:
                splits += line_splits(self.name, file, self.split_bytes)
        return splits

    def read(
        self, split: Split, storage: Storage, limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        """Yield the split's rows, texts as they are, kept or with the reason why not."""
        is_parquet = split.files[0].path.endswith(".parquet")
        rows = self._read_parquet if is_parquet else self._read_json_lines
        for batch in rows(split, storage, limits, account):
            account.seen += batch.num_rows
            yield batch

    # Parquet

    def _row_splits(self, file: StoredFile, storage: Storage) -> list[Split]:
        """Cut a Parquet file by its footer; one whose footer cannot be read is left whole, and `read` reports it."""
        try:
            with storage.open(file.path) as stream:
                footer = pq.ParquetFile(stream)
                names, metadata = footer.schema_arrow.names, footer.metadata
                first_rows = _first_rows(metadata)
        except BROKEN_PARQUET:
            return [Split(self.name, (file,))]
        if names.count(self.columns["text"]) != 1:
            raise RecipeError(
                f"source {self.name}: {file.path} has {names.count(self.columns['text'])} columns "
                f"{self.columns['text']!r}, one is needed for the text\nhint: set text to one of {', '.join(names)}"
            )
        bounds, size = [0], 0
        for group in range(metadata.num_row_groups):
            size += metadata.row_group(group).total_byte_size
            if size >= self.split_bytes or group == metadata.num_row_groups - 1:
                bounds.append(first_rows[group + 1])
                size = 0
        if len(bounds) <= 2:
            return [Split(self.name, (file,))]
        return [Split(self.name, (file,), start, stop) for start, stop in zip(bounds, bounds[1:], strict=False)]

    def _read_parquet(
        self, split: Split, storage: Storage, limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        path = split.files[0].path
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(storage.open(path))
                file = _open_parquet(stream, set(self.columns.values()))
                first_rows = _first_rows(file.metadata)
            except BROKEN_PARQUET as error:
                size = split.files[0].size if split.start == 0 else 0
                account.size += size
                account.gap("unreadable", size)
                yield self._fault(path, split.start, damage("unreadable", path, split.start, _first_words(error)))
                return
            yield from self._read_groups(split, file, first_rows, limits, account)

    def _read_groups(
        self, split: Split, file: pq.ParquetFile, first_rows: list[int], limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        share = _Share(split.files[0].size, first_rows[-1])
        stop = share.num_rows if split.stop < 0 else min(split.stop, share.num_rows)
        last = stop if self.limit is None else min(stop, split.start + self.limit)
        account.size += share.of(split.start, stop)
        for group, (start, end) in enumerate(zip(first_rows, first_rows[1:], strict=False)):
            if split.start <= start < min(end, last):
                yield from self._read_group(split, file, group, (start, min(end, last)), share, limits, account)
        if last < stop:
            account.gap("beyond_limit", share.of(last, stop), stop - last)
        if not share.num_rows:
            account.gap("empty", account.size)

    def _read_group(
        self,
        split: Split,
        file: pq.ParquetFile,
        group: int,
        rows: tuple[int, int],
        share: _Share,
        limits: BatchLimits,
        account: RawAccount,
    ) -> Iterator[pa.RecordBatch]:
        """Yield a row group's rows; where it breaks, one errored row, and reading goes on with the next group."""
        path, (start, end) = split.files[0].path, rows
        names = [name for name in self.columns.values() if file.schema_arrow.names.count(name) == 1]
        cause = ""
        for batch in _batches(file, group, names, limits.max_rows):
            if isinstance(batch, str):
                cause = batch
                break
            batch = batch.slice(0, end - start)
            yield from self._documents_of(path, start, batch, limits)
            account.records += share.of(start, start + batch.num_rows)
            start += batch.num_rows
            if start == end:
                return
        account.gap("damaged", share.of(start, end), end - start)
        cause = f"rows {start} to {end - 1} are lost: {cause or 'the row group ends here'}"
        yield self._fault(path, start, damage("damaged_file", path, start, cause))

    def _documents_of(
        self, path: str, first: int, batch: pa.RecordBatch, limits: BatchLimits
    ) -> Iterator[pa.RecordBatch]:
        """Turn a batch of a Parquet file, whose first row is number `first`, into documents."""
        column = {field: batch.column(name) for field, name in self.columns.items() if name in batch.schema.names}
        text = column.get("text", pa.nulls(batch.num_rows))
        lengths = _byte_lengths(text)
        weights = np.where(lengths > self.max_record_bytes, 0, lengths)
        for start, stop in _cuts(weights, limits.max_bytes):
            part, verdicts = self._decode_texts(text.slice(start, stop - start), lengths[start:stop])
            rows = _Rows(
                path,
                pa.array(np.arange(first + start, first + stop), pa.int64()),
                pa.array(np.ones(stop - start, np.int64)),
                part,
                {field: _field(column[field].slice(start, stop - start)) for field in FIELDS if field in column},
                verdicts,
            )
            yield self._documents(rows)

    def _decode_texts(self, text: pa.Array, lengths: np.ndarray) -> tuple[pa.Array, list[Verdict | None]]:
        """Return texts as large_string, null where there is a verdict, and the verdicts."""
        verdicts: list[Verdict | None] = [None] * len(text)
        for row in np.flatnonzero(lengths > self.max_record_bytes).tolist():
            limit = f"<= {self.max_record_bytes} bytes"
            verdicts[row] = drop_verdict("record_too_large", f"{lengths[row]} bytes", limit)
        for row in np.flatnonzero(lengths == 0).tolist():
            verdicts[row] = _empty()
        for row in np.flatnonzero(lengths < 0).tolist():
            found = "null" if _is_text(text.type) or pa.types.is_null(text.type) else f"type {text.type}"
            verdicts[row] = error_verdict("no_text", f"column {self.columns['text']}: {found}")
        usable = (lengths > 0) & (lengths <= self.max_record_bytes)
        decoded, broken = _decode(_only(text, usable))
        for row, offset in broken.items():
            verdicts[row] = drop_verdict("not_utf8", f"byte {offset}", "UTF-8 throughout")
        return decoded, verdicts

    # JSON lines

    def _read_json_lines(
        self, split: Split, storage: Storage, limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        path = split.files[0].path
        lines: list[Line] = []
        parsed: list[tuple[dict[str, str | None], Verdict | None]] = []
        num_bytes = 0
        for line in read_lines(split, storage, self.max_record_bytes, self.limit, account):
            lines.append(line)
            parsed.append(self._parse_line(path, line))
            num_bytes += line.length if parsed[-1][1] is None else 0
            if len(lines) >= limits.max_rows or num_bytes >= limits.max_bytes:
                yield self._gather(path, lines, parsed)
                lines, parsed, num_bytes = [], [], 0
        if lines:
            yield self._gather(path, lines, parsed)

    def _parse_line(self, path: str, line: Line) -> tuple[dict[str, str | None], Verdict | None]:
        """Return the values of the wanted fields and the verdict of one line."""
        if line.verdict is not None:
            return {}, line.verdict
        try:
            row = parse_json(line.data)
        except ValueError as error:
            return {}, damage("json", path, line.offset, str(error))
        if not isinstance(row, dict):
            return {}, damage("json", path, line.offset, f"an object is needed, not {type(row).__name__}")
        values = {field: _as_string(row.get(column)) for field, column in self.columns.items() if field != "text"}
        text = row.get(self.columns["text"])
        if not isinstance(text, str):
            found = "null" if text is None else f"type {type(text).__name__}"
            cause = f"column {self.columns['text']}: {found if self.columns['text'] in row else 'missing'}"
            return values, damage("no_text", path, line.offset, cause)
        return values | {"text": text or None}, None if text else _empty()

    def _gather(
        self, path: str, lines: list[Line], parsed: list[tuple[dict[str, str | None], Verdict | None]]
    ) -> pa.RecordBatch:
        def gathered(field: str) -> pa.Array:
            return pa.array([values.get(field) for values, _ in parsed], pa.large_string())

        rows = _Rows(
            path,
            pa.array([line.offset for line in lines], pa.int64()),
            pa.array([line.length for line in lines], pa.int64()),
            gathered("text"),
            {field: gathered(field) for field in FIELDS if field in self.columns},
            [verdict for _, verdict in parsed],
        )
        return self._documents(rows)

    # Both

    def _documents(self, rows: _Rows) -> pa.RecordBatch:
        """Give rows their identity: content hash, natural key and doc_id, and lay them out in the core's columns."""
        num_rows = len(rows.text)
        hashes = [content_hash(payload) for payload in _payloads(rows.text)]
        keys = self._natural_keys(rows, hashes)
        columns: dict[str, pa.Array] = {
            "doc_id": pa.array([doc_id(self.name, key) for key in keys], DOC_ID),
            "source": pa.repeat(pa.scalar(self.name), num_rows),
            "natural_key": pa.array(keys, pa.string()),
            "origin_path": pa.repeat(pa.scalar(rows.path), num_rows),
            "origin_offset": rows.offsets,
            "origin_length": rows.lengths,
            "content_hash": pa.array(hashes, DOC_ID),
            "text": rows.text,
            "verdict": pa.array(rows.verdicts, VERDICT),
            "licence": pa.repeat(pa.scalar(self.licence, pa.string()), num_rows),
        }
        for field in ("url", "language"):
            if field in rows.fields:
                columns[field] = rows.fields[field].cast(pa.string())
        if "url" in columns:
            columns["host"] = pa.array([host_of(url) for url in columns["url"].to_pylist()], pa.string())
        if "date" in rows.fields:
            columns["date"] = parse_dates(rows.fields["date"])
        if "licence" in rows.fields:
            columns["licence"] = pc.coalesce(rows.fields["licence"].cast(pa.string()), columns["licence"])
        arrays = [columns.get(field.name, pa.nulls(num_rows, field.type)) for field in CORE]
        return pa.RecordBatch.from_arrays(arrays, schema=CORE)

    def _natural_keys(self, rows: _Rows, hashes: list[bytes]) -> list[str]:
        """Return the id of each row, else its text's hash; a row that has neither is known by its place only."""
        ids = rows.fields["id"].to_pylist() if "id" in rows.fields else [None] * len(hashes)
        has_text = rows.text.is_valid().to_pylist()
        offsets = rows.offsets.to_pylist()
        return [
            key or (digest.hex() if valid else f"{rows.path}:{offset}")
            for key, digest, valid, offset in zip(ids, hashes, has_text, offsets, strict=True)
        ]

    def _fault(self, path: str, offset: int, verdict: Verdict) -> pa.RecordBatch:
        """Return the one row that stands for what could not be read."""
        null = pa.nulls(1, pa.large_string())
        return self._documents(_Rows(path, pa.array([offset]), pa.array([0]), null, {}, [verdict]))


def require_positive(source: str, field: str, value: int | None) -> None:
    """Raise `RecipeError` unless `value` is a positive integer or None."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise RecipeError(f"source {source}: {field} is {value!r}\nhint: use a whole number from 1 on")


def _empty() -> Verdict:
    return drop_verdict("empty", "0 bytes", ">= 1 byte")


def _as_string(value: Any) -> str | None:
    """Return a JSON value as the string that a column of strings would hold; None when it is no plain value."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    return text if len(text) <= FIELD_BYTES and len(text.encode()) <= FIELD_BYTES else None


def _first_words(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _first_rows(metadata: pq.FileMetaData) -> list[int]:
    """Return the number of each row group's first row, and the number of rows at the end."""
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if any(count < 0 for count in counts):
        raise pa.ArrowInvalid("the footer gives a row group a negative number of rows")
    return [0, *itertools.accumulate(counts)]


def _open_parquet(stream: BinaryIO, names: set[str]) -> pq.ParquetFile:
    """Open a file so that memory is bounded: column chunks are streamed, strings are read as dictionaries."""
    footer = pq.ParquetFile(stream)
    known = footer.schema_arrow
    texts = [field.name for field in known if field.name in names and _is_text(field.type)]
    return pq.ParquetFile(stream, metadata=footer.metadata, read_dictionary=texts, buffer_size=READ_BYTES)


def _check_indices(column: pa.Array) -> None:
    """Raise `ArrowInvalid` for indices outside the dictionary: damaged pages hold such, and pyarrow lets them pass."""
    if not pa.types.is_dictionary(column.type) or not len(column) or column.null_count == len(column):
        return
    least, largest = (value.as_py() for value in pc.min_max(column.indices).values())
    if least < 0 or largest >= len(column.dictionary):
        raise pa.ArrowInvalid(f"dictionary index {max(-least, largest)} of {len(column.dictionary)}")


def _batches(file: pq.ParquetFile, group: int, names: list[str], max_rows: int) -> Iterator[pa.RecordBatch | str]:
    """Yield a row group's batches and, where it breaks, the cause."""
    try:
        for batch in file.iter_batches(max_rows, [group], columns=names):
            for column in batch.columns:
                _check_indices(column)
            yield batch
    except BROKEN_PARQUET as error:
        yield _first_words(error)


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    checks: tuple[Callable[[pa.DataType], bool], ...] = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
    )
    return any(check(value) for check in checks)


def _as_bytes(column: pa.Array) -> pa.Array:
    """Return strings or bytes as large_binary; the bytes are not looked at."""
    views = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    column = column.cast(views.get(column.type, column.type))
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    return column.cast(pa.large_binary())


def _byte_lengths(column: pa.Array) -> np.ndarray:
    """Return bytes per row, int64, shape (rows,); -1 where there is no text."""
    if not _is_text(column.type):
        return np.full(len(column), -1, np.int64)
    if pa.types.is_dictionary(column.type):
        lengths = pc.binary_length(_as_bytes(column.dictionary)).take(column.indices)
    else:
        lengths = pc.binary_length(_as_bytes(column))
    return np.asarray(lengths.cast(pa.int64()).fill_null(-1))


def _only(column: pa.Array, mask: np.ndarray) -> pa.Array:
    """Return the column as large_binary, null outside the mask; only masked-in values of a dictionary are repeated."""
    if not _is_text(column.type):
        return pa.nulls(len(column), pa.large_binary())
    if pa.types.is_dictionary(column.type):
        rows = pc.if_else(pa.array(mask), column.indices, pa.scalar(None, column.indices.type))
        return _as_bytes(column.dictionary).take(rows)
    return pc.if_else(pa.array(mask), _as_bytes(column), pa.scalar(None, pa.large_binary()))


def _decode(column: pa.Array) -> tuple[pa.Array, dict[int, int]]:
    """Return bytes as large_string, null where they are no UTF-8, and {row: first bad byte} for those."""
    try:
        return column.cast(pa.large_string()), {}
    except pa.ArrowInvalid:
        broken = {row: offset for row, value in enumerate(column) if (offset := _first_bad_byte(value.as_py())) >= 0}
    sound = np.ones(len(column), bool)
    sound[list(broken)] = False
    return _only(column, sound).cast(pa.large_string()), broken


def _first_bad_byte(value: bytes | None) -> int:
    try:
        (value or b"").decode()
    except UnicodeDecodeError as error:
        return error.start
    return -1


def _field(column: pa.Array) -> pa.Array:
    """Return a column of ids, URLs, dates ... as strings (dates as they are), null where it is no plain value."""
    if _is_text(column.type):
        lengths = _byte_lengths(column)
        return _decode(_only(column, (lengths >= 0) & (lengths <= FIELD_BYTES)))[0]
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return column
    if pa.types.is_integer(column.type):
        return column.cast(pa.large_string())
    return pa.nulls(len(column), pa.large_string())


def _payloads(text: pa.Array) -> Iterator[bytes]:
    """Yield the bytes of each text, none for a null one."""
    _, offsets, data = text.buffers()
    bounds = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1].tolist()
    view = memoryview(data) if data is not None else memoryview(b"")
    return (view[start:stop].tobytes() for start, stop in zip(bounds, bounds[1:], strict=False))


def _cuts(weights: np.ndarray, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield runs of rows; a run ends with the row that brings its weight to `max_bytes`."""
    ends = np.cumsum(weights)
    start = 0
    while start < len(weights):
        before = ends[start - 1] if start else 0
        stop = min(int(np.searchsorted(ends, before + max_bytes)) + 1, len(weights))
        yield start, stop
        start = stop
