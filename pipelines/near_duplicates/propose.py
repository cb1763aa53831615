"""Which documents of a bucket are compared: a bucket are all documents with one band key.

Documents stand in their total order (rank, doc_id). The *proposers* of a bucket are its first `PROPOSERS` documents
that are kept in the end: a document is compared with the proposers before it, of every bucket that it is in. So the
rule names one result, whatever the order of work; in most buckets, which hold fewer documents, all pairs are compared.

Who is kept is known only in the end, so a crowded bucket goes by rounds. In each, the first `PROPOSERS` documents that
are not removed are looked at: those among them that have not proposed yet do so now, to all documents behind them (the
kept ones, and of the others in a crowded bucket `NEW_PROPOSERS` at most, as the first often removes the next). One of
them that is kept in the end is among the first that are kept, so nothing is proposed too much. A document that stands
behind them is *blocked* as long as any of them is undecided, as another proposer could still move up; one in front of
which one has not proposed yet, likewise. A bucket is settled, and its rows end, when all of the first `PROPOSERS` are
kept and have proposed, or when it has no more than these and all have. What the documents behind are not compared with
is counted then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numba
import numpy as np
import pyarrow as pa

from pipelines.near_duplicates.columns import generations, new_keys, rows_of
from pipelines.near_duplicates.tables import (
    BAND_KEYS,
    CROWDED,
    KEPT,
    MEMBER,
    MEMBERS,
    MESSAGES,
    PAIR,
    PRECEDED,
    SHINGLE_SETS,
    UNDECIDED,
)

PROPOSERS = 16
"""Kept documents of a bucket that all others are compared with."""
NEW_PROPOSERS = 4
"""Undecided documents of a crowded bucket that propose in one round."""


@dataclasses.dataclass(slots=True)
class _Open:
    """A bucket that the batches so far ended in: its rows, or, if they are too many, the first `PROPOSERS`."""

    rows: pa.RecordBatch
    seen: int
    """Rows that were taken already, 0 while all of them are in `rows`."""
    undecided: bool
    """Whether any of the rows that were taken is undecided."""


@dataclasses.dataclass(frozen=True, slots=True)
class Propose:
    """Reduce of (band_key; rank, doc_id) over `MEMBERS`, or in the first round over `BAND_KEYS`.

    Yields `messages` (pairs to their proposers, members of buckets that are not settled), `crowded`, and in the first
    round `shingle_sets`: whose sets are asked for. `generation` is that of this run: documents whose rank begins with
    an earlier one are kept from the start.
    """

    generation: int
    first: bool
    name: str = "propose"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Mapping[str, pa.RecordBatch]]:
        """Take batches in which a bucket may span several; holds two batches and `PROPOSERS` rows."""
        held: _Open | None = None
        for batch in batches:
            rows = self._members(batch) if self.first else batch
            if held is not None:
                rows = pa.concat_batches([held.rows, rows])
            tables, held = self._take(rows, held, last=False)
            yield tables
        if held is not None:
            yield self._take(held.rows, held, last=True)[0]

    def _members(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return band keys as members: kept are those of earlier runs, and nobody has proposed."""
        earlier = generations(batch.column("rank")) < self.generation
        states = pa.array(np.where(earlier, KEPT, UNDECIDED).astype(np.int8))
        return rows_of(
            MEMBERS, batch.num_rows, state=states, proposed=pa.array(np.zeros(batch.num_rows, bool)),
            **{name: batch.column(name) for name in BAND_KEYS.names},
        )  # fmt: skip

    def _take(
        self, rows: pa.RecordBatch, held: _Open | None, last: bool
    ) -> tuple[Mapping[str, pa.RecordBatch], _Open | None]:
        """Return what the buckets say, and the last one where it is to go on.

        Where `held` was taken from in part, `rows` begins with its first `PROPOSERS` rows once more.
        """
        seen, undecided = (held.seen, held.undecided) if held else (0, False)
        starts = np.flatnonzero(new_keys(rows.column("band_key")))
        stop = len(rows)
        if not last and stop - starts[-1] <= PROPOSERS and not (seen and len(starts) == 1):
            stop, starts = int(starts[-1]), starts[:-1]  # too few to tell whether the bucket is crowded
        states = rows.column("state").to_numpy()
        proposed = rows.column("proposed").to_numpy(zero_copy_only=False)
        bounds = np.append(starts, stop).astype(np.int64)
        said, asked, crowded, num_open, open_undecided = _propose(
            bounds, states, proposed, seen, undecided, not last and stop == len(rows), self.first
        )
        tables = {"messages": _messages(rows, said), "crowded": _crowded(rows, crowded)}
        if self.first:
            chosen = rows.take(pa.array(asked))
            tables["shingle_sets"] = rows_of(
                SHINGLE_SETS, chosen.num_rows, doc_id=chosen.column("doc_id"), rank=chosen.column("rank")
            )
        if last:
            return tables, None
        if stop < len(rows):
            return tables, _Open(rows.slice(stop), 0, False)
        return tables, _Open(rows.slice(starts[-1], PROPOSERS), num_open, open_undecided)


def _messages(rows: pa.RecordBatch, said: np.ndarray) -> pa.RecordBatch:
    """Return messages of (kind, row of the recipient, row of the other or -1, proposed, blocked)."""
    kind, to, other = said[:, 0].astype(np.int8), said[:, 1], said[:, 2]
    is_pair = kind == PAIR
    others = pa.array(np.where(is_pair, other, 0), mask=~is_pair)
    is_member = kind == MEMBER
    places = pa.array(to, mask=~is_member)
    return rows_of(
        MESSAGES, len(said), doc_id=rows.column("doc_id").take(pa.array(to)), kind=pa.array(kind),
        other=rows.column("doc_id").take(others), band_key=rows.column("band_key").take(places),
        proposed=pa.array(said[:, 3] != 0, mask=~is_member), blocked=pa.array(said[:, 4] != 0, mask=~is_member),
    )  # fmt: skip


def _crowded(rows: pa.RecordBatch, crowded: np.ndarray) -> pa.RecordBatch:
    """Return the crowded buckets of (first row, documents)."""
    behind = crowded[:, 1] - PROPOSERS
    return rows_of(
        CROWDED, len(crowded), band_key=rows.column("band_key").take(pa.array(crowded[:, 0])),
        documents=pa.array(crowded[:, 1]), not_compared=pa.array(behind * (behind - 1) // 2),
    )  # fmt: skip


@numba.njit(nogil=True, cache=True)
def _propose(
    bounds: np.ndarray,
    states: np.ndarray,
    proposed: np.ndarray,
    seen: int,
    undecided: bool,
    goes_on: bool,
    first_round: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, bool]:
    """Go through the buckets `bounds[k]:bounds[k + 1]`, of which the last may go on behind these rows.

    `seen` rows of the first bucket were taken before, the first `PROPOSERS` of which stand in front again;
    `undecided`: one of them was. Returns messages (int64, (n, 5)), rows that are asked for, crowded buckets
    (int64, (n, 2)), and of the last bucket how many rows were seen and whether one is undecided.
    """
    num_rows = bounds[-1]
    said = np.empty((num_rows * (PROPOSERS + 2), 5), np.int64)
    asked = np.empty(num_rows, np.int64)
    crowded = np.empty((len(bounds), 2), np.int64)
    after = np.zeros(PROPOSERS, np.bool_)
    new = np.zeros(PROPOSERS, np.bool_)
    num_said, num_asked, num_crowded, num, any_undecided = 0, 0, 0, 0, False
    for k in range(len(bounds) - 1):
        low, high = bounds[k], bounds[k + 1]
        taken = seen if k == 0 else 0
        first = low + PROPOSERS if taken else low  # the first row that was not taken before
        num = taken + high - first
        any_undecided = undecided and k == 0
        is_crowded = num > PROPOSERS
        head = min(num, PROPOSERS)
        most_new = NEW_PROPOSERS if is_crowded else PROPOSERS
        all_kept, all_proposed, some, num_new = True, True, is_crowded, 0
        for j in range(head):
            new[j] = not proposed[low + j] and (num_new < most_new or states[low + j] == KEPT)
            num_new += new[j]
            after[j] = proposed[low + j] or new[j]
            all_kept &= states[low + j] == KEPT
            all_proposed &= after[j]
            some |= states[low + j] == UNDECIDED
        settled = all_proposed and (all_kept or not is_crowded)
        for i in range(first, high):
            before = taken + i - first
            is_undecided = states[i] == UNDECIDED
            any_undecided |= is_undecided
            if num > 1 and (is_undecided or (before < PROPOSERS and some) or not settled):
                asked[num_asked] = i
                num_asked += 1
            if first_round and is_undecided and before > 0:
                said[num_said, 0], said[num_said, 1], said[num_said, 2] = PRECEDED, i, -1
                num_said += 1
            blocked = before > PROPOSERS and not all_kept
            for j in range(min(before, head)):
                blocked |= not after[j]
                if new[j] and is_undecided:
                    said[num_said, 0], said[num_said, 1], said[num_said, 2] = PAIR, low + j, i
                    num_said += 1
            if not settled:
                said[num_said, 0], said[num_said, 1], said[num_said, 2] = MEMBER, i, -1
                said[num_said, 3] = before < PROPOSERS and after[before]
                said[num_said, 4] = blocked
                num_said += 1
        if settled and is_crowded and any_undecided and not (goes_on and k == len(bounds) - 2):
            crowded[num_crowded, 0], crowded[num_crowded, 1] = low, num
            num_crowded += 1
    return said[:num_said].copy(), asked[:num_asked].copy(), crowded[:num_crowded].copy(), num, any_undecided
