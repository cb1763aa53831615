"""The rounds of near-deduplication against documents that are decided one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import LedgerImbalance
from pipelines.near_duplicates.decide import Decide, Offer
from pipelines.near_duplicates.finish import Finish
from pipelines.near_duplicates.propose import PROPOSERS, Propose
from pipelines.near_duplicates.tables import (
    BAND_KEYS,
    CHAINS,
    CROWDED,
    KEPT,
    MEMBERS,
    MESSAGE_IDENTITY,
    MESSAGE_ORDER,
    MESSAGES,
    NEAR_DUPLICATES,
    PAIR,
    SHINGLE_SETS,
    STATE,
    UNDECIDED,
    UNDECIDED_DOCUMENTS,
)

SCHEMAS = {
    "messages": MESSAGES,
    "crowded": CROWDED,
    "shingle_sets": SHINGLE_SETS,
    "near_duplicates": NEAR_DUPLICATES,
    "undecided": UNDECIDED_DOCUMENTS,
    "members": MEMBERS,
    "chains": CHAINS,
}
THRESHOLD = 5_000


class Document(NamedTuple):
    """What near-deduplication knows of a document; `generation` 0 is an earlier run."""

    doc_id: bytes
    rank: bytes
    bands: frozenset[int]
    shingles: frozenset[int]

    @property
    def generation(self) -> int:
        return int.from_bytes(self.rank[:2], "big")


def make(number: int, place: int, bands: Iterable[int], shingles: Iterable[int], generation: int = 1) -> Document:
    """Return a document whose place in the total order is (generation, place)."""
    rank = generation.to_bytes(2, "big") + place.to_bytes(14, "big")
    return Document(number.to_bytes(16, "big"), rank, frozenset(bands), frozenset(shingles))


def decided_one_by_one(documents: Sequence[Document], generation: int = 1) -> set[bytes]:
    """Return who stays, by the definition."""
    kept: set[bytes] = set()
    proposers: dict[int, list[Document]] = defaultdict(list)
    for document in sorted(documents, key=lambda one: (one.rank, one.doc_id)):
        similar = any(
            10_000 * len(other.shingles & document.shingles) >= THRESHOLD * len(other.shingles | document.shingles)
            for band in document.bands
            for other in proposers[band]
        )
        if similar and document.generation == generation:
            continue
        kept.add(document.doc_id)
        for band in document.bands:
            if len(proposers[band]) < PROPOSERS:
                proposers[band].append(document)
    return kept


def group(tables: Sequence[pa.Table], order: Sequence[str], reduce: object, cut: int) -> dict[str, pa.Table]:
    """Do what a group stage does, in one bucket, with batches of `cut` rows."""
    rows = pa.concat_tables(tables).combine_chunks()
    rows = rows.sort_by([(name, "ascending") for name in order]).combine_chunks()
    written: dict[str, list[pa.RecordBatch]] = defaultdict(list)
    batches: Iterator[pa.RecordBatch] = iter(rows.to_batches(cut))
    for out in reduce(batches):  # type: ignore[operator]
        for name, batch in out.items():
            written[name].append(batch)
    return {name: pa.Table.from_batches(written[name], schema).combine_chunks() for name, schema in SCHEMAS.items()}


def states_of(asked: pa.Table, documents: Sequence[Document], generation: int) -> pa.Table:
    """Return the states of those whose sets are asked for."""
    by_id = {document.doc_id: document for document in documents}
    rows = [
        {
            "doc_id": doc_id,
            "kind": STATE,
            "rank": by_id[doc_id].rank,
            "state": KEPT if by_id[doc_id].generation < generation else UNDECIDED,
            "place": 0,
            "shingles": sorted(by_id[doc_id].shingles),
        }
        for doc_id in sorted(set(asked.column("doc_id").to_pylist()))
    ]
    return pa.Table.from_pylist(rows, MESSAGES)


def all_rounds(
    documents: Sequence[Document], cut: int, generation: int = 1, finish: bool = False
) -> tuple[set[bytes], list, list, int]:
    """Return who stays, the edges, the crowded buckets and how many rounds it took; checks each edge."""
    bands = [
        {"band_key": (band * 0x9E3779B97F4A7C15 % 2**64).to_bytes(16, "big"), "rank": one.rank, "doc_id": one.doc_id}
        for one in documents
        for band in one.bands
    ]
    message_order = ("doc_id", *MESSAGE_ORDER, *MESSAGE_IDENTITY)
    members = pa.Table.from_pylist(bands, BAND_KEYS)
    messages: list[pa.Table] = []
    edges: list[dict] = []
    crowded: list[dict] = []
    for number in range(1, 1000):
        first = number == 1
        proposed = group([members], ("band_key", "rank", "doc_id"), Propose(generation, first), cut)
        if first:
            messages = [states_of(proposed["shingle_sets"], documents, generation)]
        offered = group([proposed["messages"], *messages], message_order, Offer(first), cut)
        decided = group([offered["messages"]], message_order, Decide(THRESHOLD), cut)
        crowded += proposed["crowded"].to_pylist()
        edges += decided["near_duplicates"].to_pylist()
        members, messages = decided["members"], [decided["messages"]]
        if decided["undecided"].num_rows == 0:
            break
        if finish and members.num_rows == 0:
            finished = group([decided["chains"]], ("chain", "rank", "doc_id", "other"), Finish(), cut)
            edges += finished["near_duplicates"].to_pylist()
            break
    removed = {edge["doc_id"] for edge in edges}
    kept = {document.doc_id for document in documents} - removed
    by_id = {document.doc_id: document for document in documents}
    for edge in edges:
        one, other = by_id[edge["doc_id"]], by_id[edge["kept_doc_id"]]
        assert edge["kept_doc_id"] in kept
        assert (other.rank, other.doc_id) < (one.rank, one.doc_id)
        assert edge["shared"] == len(one.shingles & other.shingles)
        assert edge["total"] == len(one.shingles | other.shingles)
        assert edge["shared"] * 10_000 >= THRESHOLD * edge["total"]
    assert len(removed) == len(edges)
    return kept, edges, crowded, number


def random_documents(seed: int, num: int, num_bands: int, num_topics: int, generations: int = 1) -> list[Document]:
    """Return documents around topics, in chains of similarity and in buckets of any size."""
    rng = np.random.default_rng(seed)
    topics = [rng.integers(0, 40, 10) + 50 * topic for topic in range(num_topics)]
    documents = []
    for number in range(num):
        own = set(topics[rng.integers(num_topics)].tolist()) | set(rng.integers(0, 50 * num_topics, 3).tolist())
        shingles = {one for one in own if rng.random() < 0.8} or {1}
        bands = set((rng.zipf(1.3, 4) % num_bands).tolist())
        generation = int(rng.integers(generations)) if generations > 1 else 1
        documents.append(
            make(int(rng.integers(2**60)) * num + number, int(rng.integers(5)), bands, shingles, generation)
        )
    return documents


@pytest.mark.parametrize("seed", range(6))
def test_the_rounds_decide_like_one_by_one(seed: int) -> None:
    documents = random_documents(seed, 200, [5, 20, 300, 2000][seed % 4], [1, 3, 30][seed % 3])
    expected = decided_one_by_one(documents)
    kept, *_ = all_rounds(documents, cut=[16, 64, 1024][seed % 3])
    assert kept == expected
    assert len(expected) < len(documents)
    finished, _, _, rounds = all_rounds(documents, cut=[16, 64, 1024][seed % 3], finish=True)
    assert finished == expected
    assert rounds <= all_rounds(documents, 1024)[3]


@given(seed=st.integers(0, 2**32 - 1), num=st.integers(1, 80), bands=st.integers(1, 60), topics=st.integers(1, 6))
@settings(max_examples=8, deadline=None)
def test_batches_do_not_matter(seed: int, num: int, bands: int, topics: int) -> None:
    documents = random_documents(seed, num, bands, topics)
    one, other = all_rounds(documents, cut=5), all_rounds(documents, cut=1024)
    assert one == other
    assert one[0] == decided_one_by_one(documents)


@pytest.mark.parametrize("seed", range(6))
def test_a_new_run_against_an_older_one_keeps_what_both_together_keep(seed: int) -> None:
    """A, then B against what A kept, is A and B together where A stands first; buckets are crowded."""
    documents = random_documents(seed, 200, [4, 40][seed % 2], [2, 12][seed % 2], generations=2)
    first = [one for one in documents if one.generation == 0]
    kept_of_first, *_ = all_rounds(first, 64, generation=0)
    older = [one for one in first if one.doc_id in kept_of_first]
    second = [one for one in documents if one.generation == 1]
    kept, *_ = all_rounds([*older, *second], 64, generation=1)

    together = [one._replace(rank=b"\x00\x02" + one.rank[1:2] + one.rank[3:]) for one in documents]
    expected, *_ = all_rounds(together, 64, generation=2)
    assert kept == expected
    assert kept == decided_one_by_one(together, generation=2)


def test_a_chain_is_not_removed_through_what_is_removed_itself() -> None:
    """Each is similar to the next alone: every second one stays."""
    chain = [make(number, number, {0}, range(10 * number, 10 * number + 20)) for number in range(9)]
    threshold_met = [make(one, one, {0}, set(range(one * 4, one * 4 + 12))) for one in range(9)]  # 8 of 16 shared
    kept, edges, _, _ = all_rounds(threshold_met, 4)
    assert sorted(int.from_bytes(one, "big") for one in kept) == [0, 2, 4, 6, 8]
    assert all(edge["shared"] == 8 and edge["total"] == 16 for edge in edges)
    assert all_rounds(chain, 4)[0] == {one.doc_id for one in chain}  # 10 of 30 are shared


def test_a_chain_is_finished_in_one_place():
    """Each revision is similar to the next one alone: as many rounds as documents, or one."""
    chain = [make(1000 - one, one, {0}, set(range(one * 4, one * 4 + 12))) for one in range(16)]
    kept, edges, _, rounds = all_rounds(chain, 4)
    assert rounds > 10
    finished, their_edges, _, few = all_rounds(chain, 4, finish=True)
    assert (finished, few) == (kept, 1)
    assert sorted(edge["kept_doc_id"] for edge in their_edges) == sorted(edge["kept_doc_id"] for edge in edges)


def test_a_bucket_of_templates_counts_what_it_does_not_compare() -> None:
    """1,000 documents of nothing in common in one bucket: all stay, 16 were compared with all."""
    template = [make(one, one, {0}, {one}) for one in range(1000)]
    kept, edges, crowded, rounds = all_rounds(template, 64)
    assert len(kept) == 1000
    assert not edges
    assert [(one["documents"], one["not_compared"]) for one in crowded] == [(1000, 984 * 983 // 2)]
    assert rounds <= 7


def test_a_bucket_of_copies_keeps_one() -> None:
    copies = [make(one, one, {0, 1}, range(20)) for one in range(5000)]
    kept, edges, _, rounds = all_rounds(copies, 1024)
    assert kept == {copies[0].doc_id}
    assert {edge["kept_doc_id"] for edge in edges} == {copies[0].doc_id}
    assert rounds <= 3


def test_a_state_that_is_missing_is_an_error() -> None:
    rows = pa.Table.from_pylist([{"doc_id": b"x" * 16, "kind": PAIR, "other": b"y" * 16}], MESSAGES)
    with pytest.raises(LedgerImbalance, match="its state is not known"):
        group([rows], ("doc_id",), Offer(True), 10)
