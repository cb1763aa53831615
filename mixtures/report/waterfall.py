"""From what `headrace run` read to what a plan eats: each loss by step and reason, and proof that there is no other.

Read from the ledgers that the manifests name (docs/formats.md, "Ledger"). For every source, stage and step

    documents: in + created = out + dropped + errored + merged
    text bytes: in + created + added = out + dropped + errored + merged + trimmed

each step takes in what the one before put out, the token shards hold what the last stage handed on, and every manifest
holds what its partition in the ledger says. With a plan: its unique, held out and dropped documents are all of them.
A ledger that does not balance is an error, so a page with a waterfall is one whose waterfall balances.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mixtures.plan import PhaseSource
from mixtures.planner import ledger_of
from mixtures.report.errors import ReportError
from mixtures.report.inputs import Inputs
from tokenizer.manifest import Manifest

KEY = ("source", "stage", "step", "transform", "table", "partition", "account", "reason")
SUMS = ("rows", "bytes", "tokens")
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.int32() if name == "step" else pa.string(), nullable=False) for name in KEY),
        *(pa.field(name, pa.int64(), nullable=False) for name in SUMS),
    ]
)
"""The columns of a ledger that are read."""

CREDIT, DEBIT = ("created", "added"), ("dropped", "errored", "merged", "trimmed")
EDITS_ONLY = ("added", "trimmed")
"""Accounts of text bytes in documents that stay: their rows are no part of the account of documents."""

_STAGE = re.compile(r"(\d+)-")


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """Entries of the ledger that differ in nothing but their split, summed up."""

    source: str
    stage: str
    step: int
    transform: str
    table: str
    partition: str
    account: str
    reason: str
    rows: int
    bytes: int
    tokens: int

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in the run: the stage's number, and the step."""
        found = _STAGE.match(self.stage)
        return int(found[1]) if found else 0, self.step


@dataclasses.dataclass(frozen=True, slots=True)
class Amount:
    """Documents, and their text in bytes of UTF-8."""

    documents: int
    text_bytes: int

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.documents:,} documents with {self.text_bytes:,} bytes of text"


class Account:
    """The account of one source in one ledger; counts the equalities that were checked."""

    def __init__(self, ledger: Path, source: str) -> None:
        self.ledger, self.source, self.checks = ledger, source, 0

    def expect(self, what: str, found: object, expected: object) -> None:
        """Raise `ReportError` unless both are the same."""
        self.checks += 1
        if found != expected:
            raise ReportError(
                f"{self.ledger}: source {self.source}: {what}: {found}, expected {expected}: it does not balance\n"
                "hint: the ledger or a manifest is not what the run wrote; `headrace verify` names the file"
            )


def waterfall_figures(inputs: Inputs) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the waterfall of every source of every ledger that is there, and a line for each ledger that is not.

    Raises `ReportError` for a ledger with another hash than the manifests name, and for one that does not balance.
    """
    ledgers: dict[Path, list[Manifest]] = defaultdict(list)
    for source in inputs.sources:
        for manifest in source.manifests:
            ledgers[ledger_of(manifest)].append(manifest)
    figures: list[dict[str, Any]] = []
    absent: list[str] = []
    for path, manifests in sorted(ledgers.items()):
        relative = Path(os.path.relpath(path, inputs.folder.absolute())).as_posix()
        if not path.is_file():
            absent.append(f"ledger {relative}: is not there")
            continue
        entries = _read_ledger(path, manifests)
        for name in sorted({manifest.source for manifest in manifests}):
            mine = [manifest for manifest in manifests if manifest.source == name]
            account = Account(path, name)
            rows = _source_rows(account, entries.get(name, []), mine)
            continued = inputs.plan is not None and _continue(account, rows, inputs, mine)
            raw = _raw(account, entries.get(name, []))
            figures.append(
                {"ledger": relative, "sha256": mine[0].ledger.sha256, "source": name, "raw": raw, "rows": rows}
                | {"continued": continued, "checks": account.checks}
            )
    return figures, absent


def _read_ledger(path: Path, manifests: Sequence[Manifest]) -> dict[str, list[Entry]]:
    """Return the entries of each source, summed over splits, in the order of the run."""
    try:
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        for manifest in manifests:
            if manifest.ledger.sha256 != found:
                raise ReportError(
                    f"{path}: has the hash {found}, {manifest.path} names {manifest.ledger.sha256}: it is another "
                    "run's\nhint: bring back the ledger or the shards of that run, or run its recipe again"
                )
        table = pq.read_table(pa.BufferReader(content), columns=SCHEMA.names).select(SCHEMA.names).cast(SCHEMA)
        sums = table.group_by(list(KEY)).aggregate([(column, "sum") for column in SUMS])
        columns = [sums.column(name).to_pylist() for name in (*KEY, *(f"{column}_sum" for column in SUMS))]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ReportError(f"{path}: cannot be read ({error})\nhint: bring back the ledger of the run") from error
    by_source: dict[str, list[Entry]] = defaultdict(list)
    for values in zip(*columns, strict=True):
        by_source[values[0]].append(Entry(*values))
    return {
        source: sorted(entries, key=lambda entry: (*entry.place, entry.account, entry.reason))
        for source, entries in by_source.items()
    }


def _source_rows(account: Account, entries: Iterable[Entry], manifests: list[Manifest]) -> list[dict[str, Any]]:
    """Check a source's whole account, and return its waterfall from the first step to the token shards."""
    entries = list(entries)
    steps: dict[tuple[int, int], list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.table == "documents":
            steps[entry.place].append(entry)
    rows: list[dict[str, Any]] = []
    at: Amount | None = None
    for place in sorted(steps):
        step = steps[place]
        taken, put_out = _amount(step, "in"), _amount(step, "out")
        if at is None:
            rows.append(_total_row("read", taken))
        else:
            account.expect(f"stage {step[0].stage}, step {step[0].transform} took in", taken, at)
        changes = [_change_row(entry) for entry in step if entry.account in CREDIT + DEBIT]
        rows += changes
        balance = Amount(
            taken.documents + sum(row["documents"] for row in changes),
            taken.text_bytes + sum(row["text_bytes"] for row in changes),
        )
        account.expect(f"stage {step[0].stage}, step {step[0].transform} put out", put_out, balance)
        at = put_out
    at = at or Amount(0, 0)
    tokens = _check_tokens(account, entries, at, manifests)
    rows = [row for row in rows if row["kind"] == "total" or row["documents"] or row["text_bytes"]]
    return [*(rows or [_total_row("read", at)]), _total_row("in token shards", at, tokens)]


def _check_tokens(account: Account, entries: Iterable[Entry], at: Amount, manifests: list[Manifest]) -> int:
    """Check what came to the token shards and what each manifest's partition holds; return all tokens."""
    written = [entry for entry in entries if entry.table == "tokens"]
    account.expect("documents handed to the token shards", _amount(written, "in"), at)
    account.expect("documents that the token shards hold", _amount(written, "out"), at)
    tokens = [sum(entry.tokens for entry in written if entry.account == name) for name in ("in", "out")]
    account.expect("tokens that the token shards hold", tokens[1], tokens[0])
    for manifest in manifests:
        label = _label(manifest)
        held = [entry for entry in written if entry.account == "out" and entry.partition == label]
        found = tuple(sum(getattr(entry, column) for entry in held) for column in ("rows", "tokens", "bytes"))
        totals = manifest.totals
        expected = (totals.documents, totals.tokens, totals.text_bytes)
        account.expect(f"documents, tokens and bytes of partition {label or '(all)'}", found, expected)
    return tokens[1]


def _label(manifest: Manifest) -> str:
    """Return the ledger's name for a manifest's partition: the folders that it lies in ("language=de")."""
    assert manifest.path is not None, "the manifest was loaded from a file"
    depth = len(manifest.partition)
    return "/".join(manifest.path.absolute().parent.parts[-depth:]) if depth else ""


def _amount(entries: Iterable[Entry], account: str) -> Amount:
    chosen = [entry for entry in entries if entry.account == account]
    return Amount(sum(entry.rows for entry in chosen), sum(entry.bytes for entry in chosen))


def _total_row(label: str, amount: Amount, tokens: int | None = None) -> dict[str, Any]:
    return {"kind": "total", "label": label, "stage": None, "step": None} | {
        "documents": amount.documents,
        "text_bytes": amount.text_bytes,
        "tokens": tokens,
    }


def _change_row(entry: Entry) -> dict[str, Any]:
    sign = 1 if entry.account in CREDIT else -1
    return {"kind": "change", "label": f"{entry.account}: {entry.reason}", "stage": entry.stage} | {
        "step": entry.transform,
        "documents": 0 if entry.account in EDITS_ONLY else sign * entry.rows,
        "text_bytes": sign * entry.bytes,
        "tokens": None,
    }


def _raw(account: Account, entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the account of raw bytes on disk: read = in records + gaps by reason."""
    raw = [entry for entry in entries if entry.table == "raw"]
    taken, records = _amount(raw, "in").text_bytes, _amount(raw, "out").text_bytes
    gaps: dict[str, int] = defaultdict(int)
    for entry in raw:
        if entry.account == "gap":
            gaps[entry.reason] += entry.bytes
    account.expect("raw bytes in records and gaps", records + sum(gaps.values()), taken)
    return {"read": taken, "records": records, "gaps": dict(sorted(gaps.items()))}


def _continue(account: Account, rows: list[dict[str, Any]], inputs: Inputs, manifests: list[Manifest]) -> bool:
    """Let the plan's account go on from the token shards, where it can be told for this source alone.

    That is so in a plan of one phase whose sources, as far as they take from this one, take from no other.
    """
    plan = inputs.plan
    assert plan is not None, "without a plan nothing goes on"
    mine = {manifest.path for manifest in manifests}
    sources = [source for source in inputs.sources if mine & {manifest.path for manifest in source.manifests}]
    alone = all(source.complete and {manifest.path for manifest in source.manifests} <= mine for source in sources)
    if len(plan.phases) != 1 or not alone:
        return False
    names = [source.name for source in sources]
    documents, tokens = rows[-1]["documents"], rows[-1]["tokens"]
    given = [sum(getattr(manifest.totals, count) for manifest in manifests) for count in ("documents", "tokens")]
    if given != [documents, tokens]:
        rows.append(_plan_row("partitions not in the plan", given[0] - documents, given[1] - tokens))
    changes = [row for name in names for row in _plan_changes(name, plan.phases[0].sources[name])]
    unique = [plan.phases[0].sources[name].unique for name in names]
    left = tuple(
        amount + sum(row[count] for row in changes)
        for amount, count in zip(given, ("documents", "tokens"), strict=True)
    )
    found = (sum(packed.documents for packed in unique), sum(packed.tokens for packed in unique))
    account.expect("documents and tokens that the plan packs once", found, left)
    rows += [*changes, _plan_row("planned, once", *found) | {"kind": "total"}]
    return True


def _plan_changes(name: str, source: PhaseSource) -> list[dict[str, Any]]:
    """Return the rows of what a plan leaves out of a source: held out for validation, and dropped by reason."""
    losses = [("held out for validation", source.held_out.documents, source.held_out.tokens)]
    losses += [(f"dropped: {reason}", lost.documents, lost.tokens) for reason, lost in sorted(source.dropped.items())]
    return [
        _plan_row(f"{name}: {label}", -documents, -tokens) for label, documents, tokens in losses if documents or tokens
    ]


def _plan_row(label: str, documents: int, tokens: int) -> dict[str, Any]:
    return {"kind": "change", "label": label, "stage": "plan", "step": None} | {
        "documents": documents,
        "text_bytes": None,
        "tokens": tokens,
    }
