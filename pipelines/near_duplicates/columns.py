"""16-byte columns (ids, keys, ranks) as arrays of numbers, and rows of a schema of which most columns are null."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.schema import DOC_ID


def words_of(column: pa.Array) -> np.ndarray:
    """Return a 16-byte column as uint64 of shape (rows, 2), which compares like the bytes. Nulls are 0."""
    num, offset = len(column), column.offset
    if num == 0:
        return np.zeros((0, 2), np.uint64)
    words = np.frombuffer(column.buffers()[1], ">u8", count=2 * (offset + num))[2 * offset :].astype(np.uint64)
    words = words.reshape(-1, 2)
    if column.null_count:
        words[~np.asarray(column.is_valid())] = 0
    return words


def new_keys(column: pa.Array) -> np.ndarray:
    """Return for every row whether it differs from the row before it (bool, shape (rows,)); the first one does."""
    words = words_of(column)
    new = np.ones(len(words), bool)
    new[1:] = (words[1:] != words[:-1]).any(axis=1)
    return new


def generations(ranks: pa.Array) -> np.ndarray:
    """Return the generation that each rank begins with (int64, shape (rows,)): see `pipelines/transforms/rank.py`."""
    return (words_of(ranks)[:, 0] >> np.uint64(48)).astype(np.int64)


def keys_of(raw: np.ndarray) -> pa.Array:
    """Return uint8 of shape (rows, 16) as a 16-byte column."""
    data = np.ascontiguousarray(raw)
    return pa.Array.from_buffers(DOC_ID, len(data), [None, pa.py_buffer(data)])


def rows_of(schema: pa.Schema, num: int, **columns: pa.Array) -> pa.RecordBatch:
    """Return `num` rows of a schema; the columns that are not given are null."""
    arrays = [columns[field.name] if field.name in columns else pa.nulls(num, field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
