"""Columns of a table that may be of any type and hold any bytes: lengths, checked texts, and plain values as strings.

Texts come as strings, bytes, views or dictionaries of them. Nothing is decoded or repeated before its length is known:
a value that a hostile file's dictionary repeats a million times is held once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

FIELD_BYTES = 64 << 10
"""The longest id, URL, date, language or licence; a longer one is read as null."""


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings or bytes, plainly or by a dictionary."""
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


def as_bytes(column: pa.Array) -> pa.Array:
    """Return strings or bytes as large_binary; the bytes are not looked at."""
    views = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    column = column.cast(views.get(column.type, column.type))
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    return column.cast(pa.large_binary())


def byte_lengths(column: pa.Array) -> np.ndarray:
    """Return bytes per row, int64, shape (rows,); -1 where there is no text."""
    if not is_text(column.type):
        return np.full(len(column), -1, np.int64)
    if pa.types.is_dictionary(column.type):
        lengths = pc.binary_length(as_bytes(column.dictionary)).take(column.indices)
    else:
        lengths = pc.binary_length(as_bytes(column))
    return np.asarray(lengths.cast(pa.int64()).fill_null(-1))


def only_where(column: pa.Array, mask: np.ndarray) -> pa.Array:
    """Return the column as large_binary, null outside the mask; only masked-in values of a dictionary are repeated."""
    if not is_text(column.type):
        return pa.nulls(len(column), pa.large_binary())
    if pa.types.is_dictionary(column.type):
        rows = pc.if_else(pa.array(mask), column.indices, pa.scalar(None, column.indices.type))
        return as_bytes(column.dictionary).take(rows)
    return pc.if_else(pa.array(mask), as_bytes(column), pa.scalar(None, pa.large_binary()))


def decode_utf8(column: pa.Array) -> tuple[pa.Array, dict[int, int]]:
    """Return bytes as large_string, null where they are no UTF-8, and {row: first bad byte} for those."""
    try:
        return column.cast(pa.large_string()), {}
    except pa.ArrowInvalid:
        broken = {row: offset for row, value in enumerate(column) if (offset := _first_bad_byte(value.as_py())) >= 0}
    sound = np.ones(len(column), bool)
    sound[list(broken)] = False
    return only_where(column, sound).cast(pa.large_string()), broken


def _first_bad_byte(value: bytes | None) -> int:
    try:
        (value or b"").decode()
    except UnicodeDecodeError as error:
        return error.start
    return -1


def plain_field(column: pa.Array) -> pa.Array:
    """Return a column of ids, URLs, dates ... as strings (dates as they are), null where it is no plain value."""
    if is_text(column.type):
        lengths = byte_lengths(column)
        return decode_utf8(only_where(column, (lengths >= 0) & (lengths <= FIELD_BYTES)))[0]
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return column
    if pa.types.is_integer(column.type):
        return column.cast(pa.large_string())
    return pa.nulls(len(column), pa.large_string())


def payloads(text: pa.Array) -> Iterator[bytes]:
    """Yield the bytes of each text, none for a null one."""
    _, offsets, data = text.buffers()
    bounds = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1].tolist()
    view = memoryview(data) if data is not None else memoryview(b"")
    return (view[start:stop].tobytes() for start, stop in pairwise(bounds))


def cut_by_bytes(weights: np.ndarray, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield runs of rows; a run ends with the row that brings its weight to `max_bytes`."""
    ends = np.cumsum(weights)
    start = 0
    while start < len(weights):
        before = ends[start - 1] if start else 0
        stop = min(int(np.searchsorted(ends, before + max_bytes)) + 1, len(weights))
        yield start, stop
        start = stop
