"""Whose sets of shingles are asked for, against the same rule in plain Python."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.near_duplicates.ask import Ask
from pipelines.near_duplicates.tables import KEPT, MESSAGES, SHINGLE_SETS, STATE, WANTED

GENERATION = 2


class Asked(NamedTuple):
    """A document: its generation, how many buckets ask for it, and how many earlier runs gave its set."""

    generation: int
    num_asked: int
    num_sets: int


documents = st.lists(
    st.one_of(
        st.builds(Asked, st.just(GENERATION), st.integers(1, 4), st.just(0)),
        st.builds(Asked, st.integers(0, GENERATION - 1), st.integers(0, 4), st.integers(1, 2)),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def rank(document: Asked) -> bytes:
    return document.generation.to_bytes(2, "big") + b"\7" * 14


@settings(deadline=None)
@given(documents, st.integers(1, 6), st.randoms())
def test_own_documents_are_wanted_once_and_earlier_ones_answer_once(given_documents, cut, random_):
    rows = []
    for number, document in enumerate(given_documents):
        shingles = [None] * document.num_asked + [[number, number + 50]] * document.num_sets
        random_.shuffle(shingles)  # nothing orders those that ask and those that answer
        rows += [{"doc_id": key(number), "rank": rank(document), "shingles": one} for one in shingles]
    table = pa.Table.from_pylist(rows, SHINGLE_SETS).combine_chunks()
    written = list(Ask(GENERATION)(iter(table.to_batches(cut))))
    assert all(tables["wanted"].schema == WANTED and tables["messages"].schema == MESSAGES for tables in written)
    wanted = [row["doc_id"] for tables in written for row in tables["wanted"].to_pylist()]
    assert wanted == [key(place) for place, one in enumerate(given_documents) if one.generation == GENERATION]
    messages = [row for tables in written for row in tables["messages"].to_pylist()]
    nothing = dict.fromkeys(MESSAGES.names)
    assert messages == [
        nothing | {
            "doc_id": key(place), "kind": STATE, "rank": rank(one), "state": KEPT, "shingles": [place, place + 50],
        }
        for place, one in enumerate(given_documents)
        if one.num_asked and one.num_sets
    ]  # fmt: skip


def test_an_earlier_document_without_a_set_is_not_made_up():
    """Its state stays unknown, which the rounds refuse."""
    table = pa.Table.from_pylist([{"doc_id": key(1), "rank": b"\0" * 16, "shingles": None}], SHINGLE_SETS)
    [written] = Ask(GENERATION)(iter(table.to_batches()))
    assert written["wanted"].num_rows == written["messages"].num_rows == 0
