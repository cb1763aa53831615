"""The end of the rounds: what is left undecided, once it is little, is decided in order in one place.

A round decides one document of a chain (each similar to the next), so chains of many documents, as the revisions of a
page are, would take as many rounds. What a round leaves are few documents and the edges between them, which any worker
can hold: if no crowded bucket is open any more, and there are no more than `MOST_CHAINED` documents and edges, there is
no other round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numba
import numpy as np
import pyarrow as pa

from pipelines.near_duplicates.columns import new_keys, rows_of
from pipelines.near_duplicates.tables import NEAR_DUPLICATES, REMOVED

MOST_CHAINED = 1 << 20
"""Rows of about 100 bytes that are held in one place."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finish:
    """Reduce of (chain; rank, doc_id, other) over `CHAINS`: yields `near_duplicates`. Holds all rows of its bucket."""

    name: str = "finish"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Mapping[str, pa.RecordBatch]]:
        """Take the states and edges, in the order of documents."""
        held = list(batches)
        if not held:
            return
        rows = pa.concat_batches(held)
        new = new_keys(rows.column("doc_id"))
        firsts, document = np.flatnonzero(new), np.cumsum(new) - 1
        ids = _ids(rows.column("doc_id"))[firsts]
        order = np.argsort(ids)
        edges = np.flatnonzero(np.asarray(rows.column("other").is_valid()))
        others = order[np.searchsorted(ids[order], _ids(rows.column("other"))[edges])]
        reasons = _reasons(document[edges], others, rows.column("state").to_numpy()[firsts])
        removed = np.flatnonzero(reasons >= 0)
        own, reason = pa.array(firsts[removed]), pa.array(edges[reasons[removed]])
        yield {
            "near_duplicates": rows_of(
                NEAR_DUPLICATES, len(removed), doc_id=rows.column("doc_id").take(own),
                kept_doc_id=rows.column("other").take(reason), shared=rows.column("shared").take(reason),
                total=rows.column("total").take(reason), place=rows.column("place").take(own),
            )
        }  # fmt: skip


def _ids(column: pa.Array) -> np.ndarray:
    """Return 16-byte ids as numpy strings, which sort like the bytes."""
    return np.frombuffer(column.buffers()[1], "S16", len(column), 16 * column.offset)


@numba.njit(nogil=True, cache=True)
def _reasons(document: np.ndarray, others: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return for each document the edge to the first kept one before it, -1 where there is none: int64, (documents,).

    Edges, of undecided documents only, come in the order of documents: all before one are decided.
    """
    reasons = np.full(len(states), -1, np.int64)
    for edge in range(len(document)):
        own, other = document[edge], others[edge]
        if states[other] != REMOVED and reasons[other] < 0 and (reasons[own] < 0 or other < others[reasons[own]]):
            reasons[own] = edge
    return reasons
