"""Evaluation items in texts: the document is dropped, or what it repeats is cut out, with evidence for each hit.

The index is made by `headrace contamination-index`; what is found, and when, is in the modules of
`pipelines/contamination/` and in docs/decontamination.md. The column `contamination` names, for each document, the
items and the bytes of the text *as it was before this step*; null where there are none. Cost: see
docs/decontamination.md.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from pipelines.contamination.index import ContaminationIndex
from pipelines.contamination.prepared import RATIO, THRESHOLD, Prepared, count_words, prepare, required
from pipelines.contamination.search import END, ITEM, ROW, SCORE, START, search
from pipelines.near_duplicates.shingles import code_point_forms
from pipelines.transform import Evidence, set_verdict, verdicts
from pipelines.transforms.edits import Edits, apply_edits
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.words import text_view

REASON = "contamination.contaminated"
LEAST_THRESHOLD = 5_000
"""An item of which half is missing is another one."""
MOST_HITS = 16
"""Of one document that are told of: the best, then the first, ones."""

HITS = pa.list_(
    pa.struct(
        [
            pa.field("item", pa.string()),  # set and id: "gsm8k:17"
            pa.field("start", pa.int64()),  # byte offset into the text before this step, at a code point boundary
            pa.field("end", pa.int64()),  # half open
            pa.field("score", pa.int32()),  # how much of the item is there, in 1/10,000
        ]
    )
)
"""What was found in a document, the best first; null = nothing."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contamination:
    """Finds items of evaluation sets; drops the documents that hold them, or cuts them out.

    A document of which nothing but what is cut has words is dropped, with its text as it was.
    """

    name: ClassVar[str] = "contamination"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = pa.schema([pa.field("contamination", HITS)])
    value_columns: ClassVar[pa.Schema] = adds
    """What rejects carry beside their core."""
    drops: ClassVar[tuple[str, ...]] = ()

    index: GivenFile
    """Made by `headrace contamination-index`."""
    action: Literal["drop", "cut"] = "drop"
    threshold: int = THRESHOLD
    """How much of a long item must be there, in 1/10,000; of short ones more (`prepared.required`)."""

    def __post_init__(self) -> None:
        """Refuse what finds nothing, or anything."""
        if self.action not in ("drop", "cut"):
            raise ValueError(f"action: found {self.action!r}, allowed are drop, cut")
        if type(self.threshold) is not int or not LEAST_THRESHOLD <= self.threshold <= RATIO:
            raise ValueError(f"threshold: found {self.threshold!r}, allowed is {LEAST_THRESHOLD} to {RATIO}")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Add what is found; set the verdict of documents that hold items, or cut these out."""
        found = self._found(batch)
        told = batch.append_column(self.adds.field(0), self._hits(found, batch.num_rows))
        if len(found) == 0:
            return told
        stops = self._stops(batch, found)
        if self.action == "cut":
            told = apply_edits(told, _cuts(found[~stops[found[:, ROW]]]))
        judged = [one for one in self._judged(batch, found) if one and not one.passed]
        values: list[str | None] = [one.value for one in judged]
        thresholds: list[str | None] = [one.threshold for one in judged]
        return set_verdict(told, verdicts(stops, [REASON] * len(judged), values, thresholds, "dropped"))

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Return the best hit of every row, and how much of its item would have been too little."""
        judged = self._judged(batch, self._found(batch))
        return [[one or Evidence(REASON, "nothing", f"< {self.threshold}", True)] for one in judged]

    def _found(self, batch: pa.RecordBatch) -> np.ndarray:
        """Return what `search` does, the best of each row first."""
        found = search(*text_view(batch.column("text")), code_point_forms(), _prepared(self.index, self.threshold))
        return found[np.lexsort((found[:, ITEM], found[:, START], -found[:, SCORE], found[:, ROW]))]

    def _hits(self, found: np.ndarray, num_rows: int) -> pa.Array:
        """Return what was found as a column: type `HITS`, shape (num_rows,)."""
        place = np.arange(len(found)) - np.searchsorted(found[:, ROW], found[:, ROW])
        found = found[place < MOST_HITS]
        counts = np.bincount(found[:, ROW], minlength=num_rows)
        names = read_index(self.index).items.column("item")
        flat = pa.StructArray.from_arrays(
            [
                names.take(pa.array(found[:, ITEM])).cast(pa.string()),
                pa.array(found[:, START]),
                pa.array(found[:, END]),
                pa.array(found[:, SCORE].astype(np.int32)),
            ],
            fields=list(HITS.value_type),
        )
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), flat, type=HITS, mask=pa.array(counts == 0))

    def _stops(self, batch: pa.RecordBatch, found: np.ndarray) -> np.ndarray:
        """Return which rows are dropped: bool, shape (rows,)."""
        stops = np.bincount(found[:, ROW], minlength=batch.num_rows) > 0
        if self.action == "cut" and len(found):
            stops &= count_words(apply_edits(batch, _cuts(found)).column("text")) == 0
        return stops

    def _judged(self, batch: pa.RecordBatch, found: np.ndarray) -> list[Evidence | None]:
        """Return what the best hit of every row comes to, None for rows without one."""
        judged: list[Evidence | None] = [None] * batch.num_rows
        stops = self._stops(batch, found)
        names = read_index(self.index).items.column("item")
        counts = np.diff(_prepared(self.index, self.threshold).offsets)
        rows, firsts = np.unique(found[:, ROW], return_index=True)
        for row, (*_, item, score) in zip(rows.tolist(), found[firsts].tolist(), strict=True):
            allowed = f"< {required(int(counts[item]), self.threshold)}" + (" or cut" if self.action == "cut" else "")
            judged[row] = Evidence(REASON, f"{names[item].as_py()} {score}", allowed, bool(not stops[row]))
        return judged


def _cuts(found: np.ndarray) -> Edits:
    """Return what is found as cuts: spans of a row that overlap or touch are one."""
    spans = found[np.lexsort((found[:, START], found[:, ROW]))][:, [ROW, START, END, END]]
    spans[:, 3] = 0
    joined: list[list[int]] = []
    for row, start, end, kind in spans.tolist():
        if joined and joined[-1][0] == row and start <= joined[-1][2]:
            joined[-1][2] = max(joined[-1][2], end)
        else:
            joined.append([row, start, end, kind])
    return Edits.of(np.array(joined, np.int64).reshape(-1, 4))


@lru_cache(maxsize=4)
def read_index(given: GivenFile) -> ContaminationIndex:
    """Return the index of a file, read once a process. Raises `HeadraceError` for a file that is none."""
    return ContaminationIndex.unpack(given.load(), given.path)


@lru_cache(maxsize=4)
def _prepared(given: GivenFile, threshold: int) -> Prepared:
    items = read_index(given).items
    return prepare(items.column("item"), items.column("question"), threshold)
