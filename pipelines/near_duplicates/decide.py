"""What becomes of the documents in a round: proposers offer themselves, similar ones are found, and some are decided.

Documents are decided as if they came one by one in their total order: one is removed if a kept one before it, which
was proposed to it, is similar, and else it is kept. This is the lexicographically first maximal independent set of the
similar pairs (Blelloch, Fineman, Shun 2012, arXiv 1202.3205, show that rounds find it, and that they are few): no
document is removed because of another that is removed, and the result does not depend on how rows are distributed.

Similar are two documents whose Jaccard similarity, of the sets of their shingles' 64-bit hashes, is at least the
threshold; `shared * 10,000 >= threshold * total`, in integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import LedgerImbalance
from pipelines.near_duplicates.columns import keys_of, new_keys, rows_of, words_of
from pipelines.near_duplicates.jaccard import meets, shared_counts
from pipelines.near_duplicates.tables import (
    CHAINS,
    EDGE,
    KEPT,
    MEMBER,
    MEMBERS,
    MESSAGES,
    NEAR_DUPLICATES,
    NEWS,
    OFFER,
    PAIR,
    PRECEDED,
    REMOVED,
    STATE,
    UNDECIDED,
    UNDECIDED_DOCUMENTS,
)

OFFERED_BYTES = 32 << 20
"""Sets of shingles that are copied at a time."""
_FORWARDED = ("band_key", "proposed", "blocked", "shared", "total", "place")


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """Reduce of (doc_id; kind, other, band_key) over `MESSAGES`: what proposers say to those behind them.

    Pairs become offers (each once, in however many buckets it was proposed), edges become news; a document's own state
    and memberships go on to itself. In the `first` round a document that is preceded by none says that it is kept: it
    will be, and most of those behind it need not wait for another round.
    """

    first: bool
    name: str = "offer"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Mapping[str, pa.RecordBatch]]:
        """Take batches in which a document may span several."""
        held: pa.RecordBatch | None = None  # of the document that the last batch ended in: state, preceded, last row
        for batch in batches:
            rows = batch if held is None else pa.concat_batches([held, batch])
            skipped = len(rows) - len(batch)
            kinds = rows.column("kind").to_numpy()
            new = new_keys(rows.column("doc_id"))
            owner = np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))
            _check_states(rows, kinds, owner)
            others = words_of(rows.column("other"))
            dropped = kinds == PRECEDED
            dropped[1:] |= (
                (others[1:] == others[:-1]).all(axis=1) & ~new[1:] & (kinds[1:] == PAIR) & (kinds[:-1] == PAIR)
            )
            chosen = np.flatnonzero(~dropped[skipped:]) + skipped
            for some in _in_slices(rows, chosen, owner, kinds):
                yield {"messages": _said(rows, some, owner, kinds, self._states(rows, kinds, owner))}
            last = owner[-1]
            preceded = last + np.flatnonzero(kinds[last:] == PRECEDED)[:1]
            held = rows.take(pa.array(np.concatenate([[last], preceded, [len(rows) - 1]])))

    def _states(self, rows: pa.RecordBatch, kinds: np.ndarray, owner: np.ndarray) -> pa.Array:
        """Return what every row's document says its state is."""
        states = rows.column("state").to_numpy(zero_copy_only=False)[owner].astype(np.int8)
        if self.first:
            preceded = np.zeros(len(rows), bool)
            preceded[owner[kinds == PRECEDED]] = True
            states[~preceded[owner] & (states == UNDECIDED)] = KEPT
        return pa.array(states)


def _check_states(rows: pa.RecordBatch, kinds: np.ndarray, owner: np.ndarray) -> None:
    """Every document's messages begin with its state. Raises `LedgerImbalance`: some were lost."""
    if len(rows) and (kinds[owner] != STATE).any():
        doc_id = rows.column("doc_id")[int(np.flatnonzero(kinds[owner] != STATE)[0])].as_py().hex()
        raise LedgerImbalance(
            f"near-deduplication: document {doc_id} is in a pair, but its state is not known\n"
            "hint: the shingle sets of an earlier run do not belong to its band keys; make that run anew"
        )


def _in_slices(rows: pa.RecordBatch, chosen: np.ndarray, owner: np.ndarray, kinds: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the chosen rows in slices whose sets of shingles have about `OFFERED_BYTES`."""
    offsets = rows.column("shingles").offsets.to_numpy()
    sizes = np.where(kinds == PAIR, np.diff(offsets)[owner], np.diff(offsets))[chosen] * 8
    parts = np.cumsum(sizes) // OFFERED_BYTES
    yield from np.split(chosen, np.flatnonzero(np.diff(parts)) + 1)


def _said(
    rows: pa.RecordBatch, chosen: np.ndarray, owner: np.ndarray, kinds: np.ndarray, states: pa.Array
) -> pa.RecordBatch:
    """Return the messages that the chosen rows lead to; `states` are what their documents say."""
    kind = kinds[chosen]
    forwarded = (kind == PAIR) | (kind == EDGE)
    picked, mask = pa.array(chosen), pa.array(forwarded)
    ids = rows.column("doc_id").take(picked)
    others = rows.column("other").take(picked)
    named = pa.array(np.where(kind == PAIR, OFFER, np.where(kind == EDGE, NEWS, kind)).astype(np.int8))
    with_set = pa.array(np.where(kind == PAIR, owner[chosen], chosen), mask=kind == EDGE)

    senders = pa.array(np.where(forwarded, owner[chosen], chosen))
    own_states = rows.column("state").take(picked)
    return rows_of(
        MESSAGES, len(chosen),
        doc_id=pc.if_else(mask, others, ids), kind=named, other=pc.if_else(mask, ids, others),
        rank=rows.column("rank").take(senders),
        state=pc.if_else(mask, states.take(picked), own_states),
        shingles=rows.column("shingles").take(with_set),
        **{name: rows.column(name).take(picked) for name in _FORWARDED},
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Decide:
    """Reduce of (doc_id; kind, other, band_key) over `MESSAGES`: compares what is offered, and decides what can be.

    Yields `near_duplicates` (those removed), `undecided`, for the next round `members` and `messages`, and `chains`.
    """

    threshold: int
    """Least Jaccard similarity of similar documents, in 1/10,000."""
    name: str = "decide"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Mapping[str, pa.RecordBatch]]:
        """Take batches in which a document may span several; of those offered to it, the similar ones are held."""
        held: pa.RecordBatch | None = None
        for batch in batches:
            rows = self._compared(batch if held is None else pa.concat_batches([held, batch]))
            last = int(np.flatnonzero(new_keys(rows.column("doc_id")))[-1])
            if last:
                yield _decided(rows.slice(0, last))
            held = rows.slice(last)
        if held is not None:
            yield _decided(held)

    def _compared(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows with those offers that are similar as news, and the others left out."""
        kinds = rows.column("kind").to_numpy()
        owner = np.maximum.accumulate(np.where(new_keys(rows.column("doc_id")), np.arange(len(rows)), 0))
        _check_states(rows, kinds, owner)
        offers = np.flatnonzero(kinds == OFFER)
        if not len(offers):
            return rows
        sets = rows.column("shingles")
        offsets, hashes = sets.offsets.to_numpy(), sets.values.to_numpy()
        sizes = np.diff(offsets)
        shared = shared_counts(offsets, hashes, offsets, hashes, owner[offers], offers)
        similar = meets(shared, sizes[owner[offers]], sizes[offers], self.threshold)
        total = sizes[owner[offers]] + sizes[offers] - shared
        kept = np.ones(len(rows), bool)
        kept[offers] = similar
        new_kinds, news = kinds.copy(), kinds == OFFER
        new_kinds[offers] = NEWS
        counts = {}
        for name, values in (("shared", shared), ("total", total)):
            numbers = pc.fill_null(rows.column(name), 0).to_numpy(zero_copy_only=False).copy()
            numbers[offers] = values
            known = np.asarray(rows.column(name).is_valid()) | news
            counts[name] = pa.array(numbers, mask=~known)
        no_set = sets.take(pa.array(np.arange(len(rows)), mask=news))
        columns = {name: rows.column(name) for name in rows.schema.names}
        columns |= counts | {"kind": pa.array(new_kinds), "shingles": no_set}
        return rows_of(MESSAGES, len(rows), **columns).filter(pa.array(kept))


def _decided(rows: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
    """Decide complete documents, none of which has offers left."""
    kinds, states = rows.column("kind").to_numpy(), rows.column("state").to_numpy(zero_copy_only=False)
    new = new_keys(rows.column("doc_id"))
    firsts, document = np.flatnonzero(new), np.cumsum(new) - 1
    num = len(firsts)
    state = states[firsts].astype(np.int8)
    was_undecided = state == UNDECIDED

    news = np.flatnonzero((kinds == NEWS) & was_undecided[document])
    ranks, others = words_of(rows.column("rank"))[news], words_of(rows.column("other"))[news]
    order = np.lexsort((others[:, 1], others[:, 0], ranks[:, 1], ranks[:, 0], document[news]))
    news = news[order]
    to_kept, to_undecided = news[states[news] == KEPT], news[states[news] == UNDECIDED]

    removed, place = np.unique(document[to_kept], return_index=True)
    reasons = to_kept[place]
    is_member = kinds == MEMBER
    blocked = np.zeros(num, bool)
    blocked[document[is_member & (pc.fill_null(rows.column("blocked"), False).to_numpy(zero_copy_only=False))]] = True
    blocked[document[to_undecided]] = True
    state = np.where(was_undecided & ~blocked, KEPT, state).astype(np.int8)
    state[removed] = REMOVED

    members = np.flatnonzero(is_member & (state[document] != REMOVED))
    has_members = np.zeros(num, bool)
    has_members[document[members]] = True
    edges = to_undecided[state[document[to_undecided]] == UNDECIDED]
    edges = edges[_first_of_pair(document[edges], words_of(rows.column("other"))[edges])]
    return {
        "near_duplicates": _near_duplicates(rows, firsts[removed], reasons),
        "undecided": rows_of(
            UNDECIDED_DOCUMENTS, int((state == UNDECIDED).sum()),
            doc_id=rows.column("doc_id").take(pa.array(firsts[state == UNDECIDED])),
        ),
        "members": _members(rows, members, firsts[document[members]], state[document[members]]),
        "chains": _chains(rows, firsts, document, state, was_undecided, edges),
        "messages": _next_messages(rows, firsts, document, state, was_undecided, has_members, edges),
    }  # fmt: skip


def _first_of_pair(document: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which rows are the first of their (document, other): equal ones stand side by side (bool, (rows,))."""
    first = np.ones(len(document), bool)
    first[1:] = (document[1:] != document[:-1]) | (others[1:] != others[:-1]).any(axis=1)
    return first


def _near_duplicates(rows: pa.RecordBatch, removed: np.ndarray, reasons: np.ndarray) -> pa.RecordBatch:
    own, reason = pa.array(removed), pa.array(reasons)
    return rows_of(
        NEAR_DUPLICATES, len(removed), doc_id=rows.column("doc_id").take(own),
        kept_doc_id=rows.column("other").take(reason), shared=rows.column("shared").take(reason),
        total=rows.column("total").take(reason), place=rows.column("place").take(own),
    )  # fmt: skip


def _members(rows: pa.RecordBatch, members: np.ndarray, owners: np.ndarray, states: np.ndarray) -> pa.RecordBatch:
    picked = pa.array(members)
    return rows_of(
        MEMBERS, len(members), band_key=rows.column("band_key").take(picked),
        rank=rows.column("rank").take(pa.array(owners)), doc_id=rows.column("doc_id").take(picked),
        state=pa.array(states), proposed=rows.column("proposed").take(picked),
    )  # fmt: skip


def _chains(
    rows: pa.RecordBatch, firsts: np.ndarray, document: np.ndarray, state: np.ndarray, was_undecided: np.ndarray,
    edges: np.ndarray,
) -> pa.RecordBatch:  # fmt: skip
    """Return a row for the state of each document that was undecided, and one for each edge that is left."""
    told = np.flatnonzero(was_undecided)
    documents = np.concatenate([told, document[edges]])
    num, owners, is_state = len(documents), pa.array(firsts[documents]), np.arange(len(documents)) < len(told)
    picked = pa.array(np.where(is_state, 0, np.concatenate([told, edges])), mask=is_state)
    order = np.argsort(documents, kind="stable")
    return rows_of(
        CHAINS, num, chain=keys_of(np.zeros((num, 16), np.uint8)), state=pa.array(state[documents]),
        **{name: rows.column(name).take(owners) for name in ("rank", "doc_id", "place")},
        **{name: rows.column(name).take(picked) for name in ("other", "shared", "total")},
    ).take(pa.array(order))  # fmt: skip


def _next_messages(
    rows: pa.RecordBatch, firsts: np.ndarray, document: np.ndarray, state: np.ndarray, was_undecided: np.ndarray,
    has_members: np.ndarray, edges: np.ndarray,
) -> pa.RecordBatch:  # fmt: skip
    """Return the states that somebody may ask for, with the sets of those that may still be compared, and the edges.

    They come in the order of the documents that say so, however these are cut into batches.
    """
    told = np.flatnonzero(was_undecided | (has_members & (state != REMOVED)))
    own = pa.array(firsts[told])
    with_set = pa.array(firsts[told], mask=~has_members[told])
    states = rows_of(
        MESSAGES, len(told), doc_id=rows.column("doc_id").take(own),
        kind=pa.array(np.full(len(told), STATE, np.int8)), rank=rows.column("rank").take(own),
        state=pa.array(state[told]), place=rows.column("place").take(own),
        shingles=rows.column("shingles").take(with_set),
    )  # fmt: skip
    between = pa.array(edges)
    asked = rows_of(
        MESSAGES, len(edges), doc_id=rows.column("other").take(between),
        kind=pa.array(np.full(len(edges), EDGE, np.int8)), other=rows.column("doc_id").take(between),
        shared=rows.column("shared").take(between), total=rows.column("total").take(between),
    )  # fmt: skip
    order = np.argsort(np.concatenate([told, document[edges]]), kind="stable")
    return pa.concat_batches([states, asked]).take(pa.array(order))
