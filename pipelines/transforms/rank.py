"""The total order of documents: of copies, the one with the lowest rank stays.

A rank is 16 bytes that compare like what they are made of, in the order that the recipe gives: the generation of the
run (2 bytes; documents of earlier runs come first), then for each word of `prefer` a field of fixed width, then zeros.
Documents of one rank are ordered by doc_id.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.quality_classifier.model import SCORE_ONE
from pipelines.schema import DOC_ID
from pipelines.transform import Evidence
from pipelines.transforms.quality import SCORE

Preference = Literal["source", "quality", "length", "oldest", "newest"]
"""What makes a document stay: the place of its source in the recipe, a high `quality_score`, a long text, its date."""

WIDTHS = {"source": 2, "quality": 2, "length": 4, "oldest": 6, "newest": 6}
"""Bytes of a field: 65,536 sources, scores up to 10,000, texts up to 4 GiB (longer are equals), seconds since 1970."""
GENERATION_BYTES = 2
RANK_BYTES = 16
MOST_SECONDS = (1 << 48) - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Rank:
    """Adds the rank of every document, and the place of its source."""

    name: ClassVar[str] = "rank"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("rank", DOC_ID, nullable=False),
            pa.field("place", pa.int32(), nullable=False),  # of the source in the recipe
        ]
    )
    drops: ClassVar[tuple[str, ...]] = ()

    place: int
    prefer: tuple[Preference, ...] = ("source", "quality", "length", "oldest")
    generation: int = 0

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Add both columns."""
        num = batch.num_rows
        raw = np.zeros((num, RANK_BYTES), np.uint8)
        at = _write(raw, 0, GENERATION_BYTES, np.full(num, self.generation, np.uint64))
        for word in self.prefer:
            at = _write(raw, at, WIDTHS[word], self._values(word, batch))
        rank = pa.Array.from_buffers(DOC_ID, num, [None, pa.py_buffer(raw)])
        places = pa.array(np.full(num, self.place, np.int32))
        return pa.RecordBatch.from_arrays([*batch.columns, rank, places], schema=pa.schema([*batch.schema, *self.adds]))

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """It has no rule."""
        return [[] for _ in range(batch.num_rows)]

    def _values(self, word: Preference, batch: pa.RecordBatch) -> np.ndarray:
        """Return one field of every row (uint64, (rows,)): the lower, the sooner it stays; unknown is last."""
        num = batch.num_rows
        if word == "source":
            return np.full(num, self.place, np.uint64)
        if word == "quality":
            if SCORE.name not in batch.schema.names:
                return np.full(num, SCORE_ONE, np.uint64)
            scores = pc.fill_null(batch.column(SCORE.name), 0).to_numpy(zero_copy_only=False)
            return (SCORE_ONE - scores.astype(np.int64)).astype(np.uint64)
        if word == "length":
            sizes = pc.fill_null(pc.binary_length(batch.column("text")), 0).to_numpy(zero_copy_only=False)
            most = (1 << 32) - 1
            return (most - np.minimum(sizes.astype(np.int64), most)).astype(np.uint64)
        dates = batch.column("date")
        known = np.asarray(dates.is_valid())
        micros = pc.fill_null(dates.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
        seconds = np.clip(micros // 1_000_000, 0, MOST_SECONDS - 1)
        field = seconds if word == "oldest" else MOST_SECONDS - 1 - seconds
        return np.where(known, field, MOST_SECONDS).astype(np.uint64)


def _write(raw: np.ndarray, at: int, width: int, values: np.ndarray) -> int:
    """Write numbers as big-endian fields of `width` bytes; returns where the next field begins."""
    raw[:, at : at + width] = values.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - width :]
    return at + width
