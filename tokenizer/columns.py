"""Arrow columns seen as the flat numpy buffers that kernels take, whatever slice of a longer array they are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def utf8(text: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the column's bytes (uint8) and row offsets into them (int64, shape (rows + 1,)), without a copy."""
    _, offset_buffer, data_buffer = text.buffers()
    if len(text) == 0:
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    offsets = np.frombuffer(offset_buffer, np.int64)[text.offset : text.offset + len(text) + 1]
    data = np.empty(0, np.uint8) if data_buffer is None else np.frombuffer(data_buffer, np.uint8)
    return data, offsets


def lists(column: pa.ListArray | pa.LargeListArray) -> tuple[np.ndarray, pa.Array]:
    """Return a list column's row offsets (int64, from 0, shape (rows + 1,)) and its items; a null row has no items."""
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return running_total(lengths), column.flatten()


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return a table's column as one array; without a copy where it is one."""
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def running_total(lengths: np.ndarray) -> np.ndarray:
    """Return the offsets of runs of these lengths laid one after the other: int64, shape (runs + 1,), from 0."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def big_endian_pairs(column: pa.FixedSizeBinaryArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the high and low halves (uint64) of a binary(16) column, which compare as the bytes do."""
    if len(column) == 0:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    halves = np.frombuffer(column.buffers()[1], ">u8")[2 * column.offset : 2 * (column.offset + len(column))]
    return halves[0::2].astype(np.uint64), halves[1::2].astype(np.uint64)
