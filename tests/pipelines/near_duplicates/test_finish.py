from __future__ import annotations

import pyarrow as pa
import pytest

from pipelines.near_duplicates.finish import Finish
from pipelines.near_duplicates.tables import CHAINS, KEPT, REMOVED, UNDECIDED


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def rows(states: dict[int, int], edges: list[tuple[int, int]]) -> pa.RecordBatch:
    """Return what a round left of documents whose place in the order is their number; ids are in another order."""
    said = [(one, state, None) for one, state in states.items()] + [(one, UNDECIDED, other) for one, other in edges]
    return pa.RecordBatch.from_pylist(
        [
            {
                "chain": key(0),
                "rank": key(one),
                "doc_id": key(100 - one),
                "state": state,
                "other": None if other is None else key(100 - other),
                "shared": None if other is None else 10 * one + other,
                "total": 1_000,
                "place": 3,
            }
            for one, state, other in sorted(said, key=lambda row: (row[0], 100 - row[2] if row[2] is not None else 200))
        ],
        CHAINS,
    )


@pytest.mark.parametrize("cut", [1, 3, 100])
def test_documents_are_decided_in_order(cut):
    """0 is kept, so 1 goes and 2 stays; 4 was removed by the round, so 5 stays; 6 goes for the first of both."""
    batch = rows(
        {0: KEPT, 1: UNDECIDED, 2: UNDECIDED, 4: REMOVED, 5: UNDECIDED, 6: UNDECIDED},
        [(1, 0), (2, 1), (5, 4), (6, 5), (6, 2), (6, 1)],
    )
    pieces = [batch.slice(start, cut) for start in range(0, len(batch), cut)]
    [tables] = list(Finish()(iter(pieces)))
    assert tables["near_duplicates"].to_pylist() == [
        {"doc_id": key(99), "kept_doc_id": key(100), "shared": 10, "total": 1_000, "place": 3},
        {"doc_id": key(94), "kept_doc_id": key(98), "shared": 62, "total": 1_000, "place": 3},
    ]


def test_nothing_left_is_nothing_to_do():
    assert list(Finish()(iter([]))) == []
