"""The ledger: for every split and step, what came in and where it went. Nothing may disappear (law 3).

One row an entry, in long form. For documents, at every step of every split:

    rows:  in + created = out + dropped + errored + merged
    bytes: in + created + added = out + dropped + errored + merged + trimmed

where all but `in` and `out` are by reason, and bytes are those of text (0 before extraction). `in` of a step and `out`
of the step before it are counted separately and must agree, within a split and between stages. For the raw bytes of a
source (table "raw"): in = out + gap[reason]. Tables other than documents count rows. The ledger holds data only: no
time, host or attempt.

A reason whose last word is in `FAULTS` is none of the document's: the machine was too slow, or something hung. Numbers
with such an entry balance like all others, but another run may come to others: a rerun does these splits again (law 5).
"""

from __future__ import annotations

import dataclasses
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import LedgerImbalance

LEDGER = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # what was worked on, readable: source/path, or the bucket
        pa.field("source", pa.string(), nullable=False),  # source of the documents counted
        pa.field("step", pa.int32(), nullable=False),  # 0 = the reader, then the transforms in order, then the sinks
        pa.field("transform", pa.string(), nullable=False),  # name of the step
        pa.field("table", pa.string(), nullable=False),  # documents, raw, tokens, or a table of the stage
        pa.field("partition", pa.string(), nullable=False),  # "language=de" where a sink partitions, else ""
        pa.field("account", pa.string(), nullable=False),  # one of ACCOUNTS
        pa.field("reason", pa.string(), nullable=False),  # "" for in and out
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
    ]
)
KEY = LEDGER.names[:9]
CREDIT = ("in", "created", "added")
DEBIT = ("out", "dropped", "errored", "merged", "trimmed", "gap")
ACCOUNTS = CREDIT + DEBIT
BALANCED = ("documents", "raw", "tokens")
"""Tables whose steps must balance; others (rejects, pairs, clusters ...) count what they put out."""
FAULTS = ("timeout",)
"""Last words of reasons for which a document is `errored` in one run and may not be in the next."""
EDITS_ONLY = ("added", "trimmed")
"""Accounts of bytes whose rows (how many documents were edited) are no part of the balance of rows."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One row of the ledger: a key of nine words and three sums."""

    stage: str
    split: str
    source: str
    step: int
    transform: str
    table: str
    partition: str
    account: str
    reason: str
    rows: int = 0
    bytes: int = 0
    tokens: int = 0

    @property
    def key(self) -> tuple[str | int, ...]:
        """What identifies the entry."""
        return dataclasses.astuple(self)[:9]

    @property
    def is_fault(self) -> bool:
        """Whether this says something about the run and not about the documents."""
        return self.account == "errored" and self.reason.rpartition(".")[2] in FAULTS


class SplitLedger:
    """Adds up the entries of one split while it is worked on."""

    def __init__(self, stage: str, split: str) -> None:
        """Count for one split (or bucket) of one stage."""
        self._stage, self._split = stage, split
        self._sums: dict[tuple, list[int]] = defaultdict(lambda: [0, 0, 0])

    def add(
        self,
        step: int,
        transform: str,
        account: str,
        *,
        source: str,
        reason: str = "",
        table: str = "documents",
        partition: str = "",
        rows: int = 0,
        bytes: int = 0,
        tokens: int = 0,
    ) -> None:
        """Add to an entry, making it where it is not there yet (an `in` or `out` of zero is an entry too)."""
        assert account in ACCOUNTS, account
        sums = self._sums[self._stage, self._split, source, step, transform, table, partition, account, reason]
        sums[0] += rows
        sums[1] += bytes
        sums[2] += tokens

    def entries(self) -> list[Entry]:
        """Return the entries in their canonical order."""
        return [Entry(*key, *sums) for key, sums in sorted(self._sums.items())]


def check_split(entries: Iterable[Entry], last_step: int) -> None:
    """Check one split's entries: every step balances, and each step took in what the one before put out.

    `last_step` is the step of the sinks: what reaches it must reach it. Raises `LedgerImbalance` naming stage, split,
    step and both sums.
    """
    steps: dict[tuple, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.table in BALANCED:
            steps[entry.stage, entry.split, entry.source, entry.table, entry.step].append(entry)
    for step in steps.values():
        _check_step(step)
    for *where, number in sorted(steps):
        step = steps[*where, number]
        later = steps.get((*where, number + 1), [])
        if step[0].table != "documents" or number == last_step:
            continue
        put_out, took_in = _total(step, "out"), _total(later, "in")
        if put_out != took_in:
            raise LedgerImbalance(
                f"{_where(step[0])}: put out {_say(put_out)}, but the next step took in {_say(took_in)}\n"
                "hint: rows were lost, added or changed outside every transform; the result is not to be trusted"
            )


def check_stages(ledger: pa.Table, stages: list[str]) -> None:
    """Check that each stage took in, per source, what the stage before it put out (documents and text bytes).

    `stages` are the names of the stages that hand documents on, in order.
    """
    for earlier, later in zip(stages, stages[1:], strict=False):
        put_out, took_in = stage_total(ledger, earlier, last=True), stage_total(ledger, later, last=False)
        if put_out != took_in:
            raise LedgerImbalance(
                f"stage {later}: took in {took_in}, but stage {earlier} put out {put_out} (source: documents, bytes)\n"
                "hint: files between the two stages are missing, doubled or stale; run `headrace verify`"
            )


def check_tables(
    ledger: pa.Table, between: list[tuple[str, str, str]], of_older_runs: Mapping[tuple[str, str], int]
) -> None:
    """Check for tables other than documents that a stage took in all rows that another put out.

    `between` holds (table, stage that puts it out, stage that takes it in); what several put out is taken in together,
    and with it what comes from older runs, by (table, stage that takes it in).
    """
    put_out: dict[tuple[str, str], int] = defaultdict(int)
    took_in: dict[tuple[str, str], int] = defaultdict(int)
    for entry in ledger.to_pylist():
        where = (entry["stage"], entry["table"])
        if entry["account"] == "out" and entry["transform"] == "write":
            put_out[where] += entry["rows"]
        if entry["account"] == "in" and entry["step"] == 0:
            took_in[where] += entry["rows"]
    suppliers: dict[tuple[str, str], list[str]] = defaultdict(list)
    for table, earlier, later in between:
        suppliers[table, later].append(earlier)
    for (table, later), stages in suppliers.items():
        given = sum(put_out[stage, table] for stage in stages) + of_older_runs.get((table, later), 0)
        taken = took_in[later, table]
        if given != taken:
            raise LedgerImbalance(
                f"stage {later}: took in {taken} rows of {table}, but stage {' and '.join(stages)} put out {given}\n"
                "hint: files between the two stages are missing, doubled or stale; run `headrace verify`"
            )


def stage_total(ledger: pa.Table, stage: str, *, last: bool) -> dict[str, tuple[int, int]]:
    """Return, per source, documents and text bytes that a stage put out (`last`) or took in; empty sources left out."""
    rows = [row for row in ledger.to_pylist() if row["stage"] == stage and row["table"] == "documents"]
    account, edge = ("out", max) if last else ("in", min)
    edges: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["account"] in ("in", "out"):
            where = (row["source"], row["split"])
            edges[where] = edge(edges.get(where, row["step"]), row["step"])
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        if row["account"] == account and row["step"] == edges[row["source"], row["split"]]:
            totals[row["source"]][0] += row["rows"]
            totals[row["source"]][1] += row["bytes"]
    return {source: (rows_, bytes_) for source, (rows_, bytes_) in sorted(totals.items()) if rows_}


def to_table(entries: Iterable[Entry]) -> pa.Table:
    """Return the entries as a table of schema `LEDGER`, in canonical order."""
    ordered = sorted(entries)
    columns = [pa.array([getattr(entry, field.name) for entry in ordered], field.type) for field in LEDGER]
    return pa.Table.from_arrays(columns, schema=LEDGER)


def to_parquet(table: pa.Table) -> bytes:
    """Return the ledger's file: same entries, same bytes."""
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", row_group_size=1 << 16)
    return sink.getvalue()


def _check_step(step: list[Entry]) -> None:
    for column in ("rows", "bytes", "tokens"):
        counted = [entry for entry in step if column != "rows" or entry.account not in EDITS_ONLY]
        came = sum(getattr(entry, column) for entry in counted if entry.account in CREDIT)
        went = sum(getattr(entry, column) for entry in counted if entry.account in DEBIT)
        if came != went:
            raise LedgerImbalance(
                f"{_where(step[0])}: {column} do not balance: {came} came in, {went} are accounted for "
                f"({', '.join(f'{entry.account}[{entry.reason}]={getattr(entry, column)}' for entry in step)})\n"
                "hint: a transform must return every row it was given; mark what should go by its verdict"
            )


def _total(step: list[Entry], account: str) -> tuple[int, int]:
    chosen = [entry for entry in step if entry.account == account]
    return sum(entry.rows for entry in chosen), sum(entry.bytes for entry in chosen)


def _where(entry: Entry) -> str:
    return f"stage {entry.stage}, {entry.split}, step {entry.step} ({entry.transform}), {entry.table}"


def _say(total: tuple[int, int]) -> str:
    return f"{total[0]} documents with {total[1]} bytes"
