"""Spans of a text column cut or replaced, and the turns of conversations moved with the text."""

from __future__ import annotations

import dataclasses

import numba
import numpy as np
import pyarrow as pa

from pipelines.schema import TURNS
from pipelines.transform import replace_column
from pipelines.transforms.words import text_view

ROW, START, END, KIND = range(4)
"""Columns of the spans that the kernels read and write: int64, shape (edits, 4)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Edits:
    """Byte spans to be replaced, all arrays int64 of shape (edits,), ordered by (row, start) and not overlapping."""

    rows: np.ndarray
    starts: np.ndarray
    """Byte offsets into the row's text, at code point boundaries."""
    ends: np.ndarray
    """Half open."""
    kinds: np.ndarray
    """Which replacement takes the span's place."""

    @classmethod
    def of(cls, spans: np.ndarray) -> Edits:
        """Return the edits of a kernel: int64, shape (edits, 4), with the columns above."""
        return cls(spans[:, ROW], spans[:, START], spans[:, END], spans[:, KIND])


def apply_edits(batch: pa.RecordBatch, edits: Edits, replacements: tuple[bytes, ...] = (b"",)) -> pa.RecordBatch:
    """Return the batch with the spans of `text` replaced and `turns` (where the batch has them) moved along.

    Replacements are UTF-8. A turn that begins or ends inside a replaced span begins or ends behind what replaced it.
    Null texts stay null. Without edits the batch itself is returned.
    """
    if len(edits.rows) == 0:
        return batch
    text = batch.column("text")
    offsets, data = text_view(text)
    spans = np.stack([edits.rows, edits.starts, edits.ends, edits.kinds], axis=1).astype(np.int64)
    given = np.frombuffer(b"".join(replacements), np.uint8)
    given_offsets = np.cumsum([0, *map(len, replacements)]).astype(np.int64)
    new_offsets = np.empty(len(text) + 1, np.int64)
    new_data = np.empty(_new_offsets(offsets, spans, given_offsets, new_offsets), np.uint8)
    _splice(offsets, data, spans, given, given_offsets, new_data)
    validity = text.is_valid() if text.null_count else None
    edited = pa.Array.from_buffers(
        pa.large_string(),
        len(text),
        [validity and _bitmap(validity), pa.py_buffer(new_offsets), pa.py_buffer(new_data)],
    )
    result = replace_column(batch, "text", edited)
    if "turns" in batch.schema.names and batch.column("turns").null_count < batch.num_rows:
        result = replace_column(result, "turns", _moved(batch.column("turns"), spans, given_offsets))
    return result


def _bitmap(valid: pa.BooleanArray) -> pa.Buffer:
    """Return a validity bitmap that begins at its first bit."""
    return pa.array(valid.to_numpy(zero_copy_only=False)).buffers()[1]


def _moved(turns: pa.ListArray, spans: np.ndarray, given_offsets: np.ndarray) -> pa.ListArray:
    """Return the turns at their places in the edited text."""
    bounds = turns.offsets.to_numpy()
    flat = turns.values.slice(bounds[0], bounds[-1] - bounds[0])
    bounds = (bounds - bounds[0]).astype(np.int32)
    fields = {field.name: flat.field(place) for place, field in enumerate(TURNS.value_type)}
    for name in ("start", "end"):
        places = np.array(fields[name].to_numpy(zero_copy_only=False), np.int64)
        _move(bounds, places, spans, given_offsets)
        fields[name] = pa.array(places, pa.int64())
    moved = pa.StructArray.from_arrays(list(fields.values()), fields=list(TURNS.value_type))
    return pa.ListArray.from_arrays(pa.array(bounds), moved, type=TURNS, mask=turns.is_null())


@numba.njit(nogil=True, cache=True)
def _new_offsets(offsets: np.ndarray, spans: np.ndarray, given_offsets: np.ndarray, new_offsets: np.ndarray) -> int:
    """Fill in the offsets of the edited texts; returns their bytes in all."""
    edit, new_offsets[0] = 0, 0
    for row in range(len(offsets) - 1):
        size = offsets[row + 1] - offsets[row]
        while edit < len(spans) and spans[edit, ROW] == row:
            size += _growth(spans[edit], given_offsets)
            edit += 1
        new_offsets[row + 1] = new_offsets[row] + size
    return new_offsets[len(offsets) - 1]


@numba.njit(nogil=True, cache=True)
def _splice(
    offsets: np.ndarray, data: np.ndarray, spans: np.ndarray, given: np.ndarray, given_offsets: np.ndarray,
    new_data: np.ndarray,
) -> None:  # fmt: skip
    edit, written = 0, 0
    for row in range(len(offsets) - 1):
        at = offsets[row]
        while edit < len(spans) and spans[edit, ROW] == row:
            stop = offsets[row] + spans[edit, START]
            new_data[written : written + stop - at] = data[at:stop]
            written += stop - at
            first, last = given_offsets[spans[edit, KIND]], given_offsets[spans[edit, KIND] + 1]
            new_data[written : written + last - first] = given[first:last]
            written += last - first
            at = offsets[row] + spans[edit, END]
            edit += 1
        new_data[written : written + offsets[row + 1] - at] = data[at : offsets[row + 1]]
        written += offsets[row + 1] - at


@numba.njit(nogil=True, cache=True)
def _move(bounds: np.ndarray, places: np.ndarray, spans: np.ndarray, given_offsets: np.ndarray) -> None:
    """Move byte offsets (those of row r are `places[bounds[r]:bounds[r + 1]]`) to the edited texts, in place."""
    shifts = np.zeros(len(spans) + 1, np.int64)
    for k in range(len(spans)):
        shifts[k + 1] = shifts[k] + _growth(spans[k], given_offsets)
    first, last = 0, 0
    for row in range(len(bounds) - 1):
        while last < len(spans) and spans[last, ROW] == row:
            last += 1
        for k in range(bounds[row], bounds[row + 1]):
            low, high = first, last
            while low < high:  # for the edits that begin before the place; turns may be in any order
                middle = (low + high) // 2
                if spans[middle, START] < places[k]:
                    low = middle + 1
                else:
                    high = middle
            if low > first:
                places[k] = max(places[k], spans[low - 1, END]) + shifts[low] - shifts[first]
        first = last


@numba.njit(nogil=True, cache=True, inline="always")
def _growth(span: np.ndarray, given_offsets: np.ndarray) -> int:
    """Return by how many bytes a text grows with this edit."""
    return given_offsets[span[KIND] + 1] - given_offsets[span[KIND]] - (span[END] - span[START])


@numba.njit(nogil=True, cache=True)
def with_room(spans: np.ndarray, num: int) -> np.ndarray:
    """Return an array of spans with room for `num`: the same, or a copy that is twice as long or more."""
    if num <= len(spans):
        return spans
    larger = np.empty((2 * num, spans.shape[1]), np.int64)
    larger[: len(spans)] = spans
    return larger


@numba.njit(nogil=True, cache=True)
def is_breaks(data: np.ndarray, start: int, stop: int, num: int) -> bool:
    """Whether `data[start:stop]` is `num` line feeds."""
    if stop - start != num:
        return False
    place = start
    while place < stop and data[place] == 10:
        place += 1
    return place == stop
