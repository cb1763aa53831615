"""Whose sets of shingles are asked for: once each, and answered from what earlier runs left where they have them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from pipelines.near_duplicates.columns import generations, new_keys, rows_of
from pipelines.near_duplicates.tables import KEPT, MESSAGES, STATE, WANTED


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """Reduce of (doc_id; rank) over `SHINGLE_SETS`: rows without a set ask for one, those with one are of earlier runs.

    Yields `wanted` (documents of this run that are asked for) and `messages` (states of earlier ones that are).
    """

    generation: int
    name: str = "ask"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Mapping[str, pa.RecordBatch]]:
        """Take batches in which a document may span several; the rows of one are held."""
        held: pa.RecordBatch | None = None
        for batch in batches:
            rows = batch if held is None else pa.concat_batches([held, batch])
            last = int(np.flatnonzero(new_keys(rows.column("doc_id")))[-1])
            if last:
                yield self._answered(rows.slice(0, last))
            held = _one_of_each(rows.slice(last))
        if held is not None:
            yield self._answered(held)

    def _answered(self, rows: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        firsts = np.flatnonzero(new_keys(rows.column("doc_id")))
        has_set = np.asarray(rows.column("shingles").is_valid())
        asks = np.logical_or.reduceat(~has_set, firsts)
        own = generations(rows.column("rank").take(pa.array(firsts))) == self.generation
        wanted = rows.column("doc_id").take(pa.array(firsts[asks & own]))
        document = np.repeat(np.arange(len(firsts)), np.diff(np.append(firsts, len(rows))))
        given = np.flatnonzero(has_set & asks[document])
        given = given[np.unique(document[given], return_index=True)[1]]  # an earlier run may have been given twice
        sets = rows.take(pa.array(given))
        num = len(given)
        messages = rows_of(
            MESSAGES, num, doc_id=sets.column("doc_id"), kind=pa.array(np.full(num, STATE, np.int8)),
            rank=sets.column("rank"), state=pa.array(np.full(num, KEPT, np.int8)), shingles=sets.column("shingles"),
        )  # fmt: skip
        return {"wanted": rows_of(WANTED, len(wanted), doc_id=wanted), "messages": messages}


def _one_of_each(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return of one document's rows the first that asks and the first that has a set."""
    has_set = np.asarray(rows.column("shingles").is_valid())
    places = [np.flatnonzero(some)[:1] for some in (~has_set, has_set)]
    return rows.take(pa.array(np.concatenate(places)))
