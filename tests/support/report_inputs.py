"""Inputs of a report: outputs of documents of given lengths, plans worked out by hand, logs of training runs."""

from __future__ import annotations

import hashlib
import io
import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mixtures.holdout import Validation
from mixtures.plan import (
    Account,
    Cut,
    Dropped,
    ManifestReference,
    Packed,
    PackReference,
    Phase,
    PhaseSource,
    Plan,
    PlannedSource,
    Windows,
)
from tokenizer.encodings import CL100K_BASE
from tokenizer.manifest import LedgerReference, Manifest, ShardEntry
from tokenizer.shards import GIVEN, SUFFIXES, ShardWriter

LEDGER_COLUMNS = (
    "stage", "split", "source", "step", "transform", "table", "partition", "account", "reason",
    "rows", "bytes", "tokens",
)  # fmt: skip


def write_shard(folder: Path, lengths: list[int], first: int) -> ShardEntry:
    rows = [
        {
            "doc_id": (first + place).to_bytes(16, "big"),
            "origin_path": "a",
            "origin_offset": 0,
            "origin_length": 1,
            "ids": [5] * (length - 1) + [CL100K_BASE.end_of_text],
        }
        for place, length in enumerate(lengths)
    ]
    files = {kind: io.BytesIO() for kind in SUFFIXES}
    writer = ShardWriter(files["bin"], files["idx"], files["docs"], CL100K_BASE)
    writer.write(pa.RecordBatch.from_pylist(rows, GIVEN))
    summary = writer.close()
    name = f"shard-{first:08d}"
    for kind, suffix in SUFFIXES.items():
        (folder / f"{name}{suffix}").write_bytes(files[kind].getvalue())
    return ShardEntry.of(name, summary, text_bytes=sum(lengths))


NOTHING = Packed(0, 0, 0, 0, 0)

Shards = dict[str, dict[str | None, list[list[int]]]]
"""Lengths of the documents of each shard, by source and language; a text has as many bytes as its document tokens."""


def write_output(out: Path, shards: Shards, dropped: dict[str, int] | None = None) -> Path:
    """Write an output of one stage: shards, a ledger with as many documents dropped for each reason, manifests."""
    (out / "tokens").mkdir(parents=True)
    entries: list[tuple[Any, ...]] = []
    pending: list[tuple[Path, str, dict[str, str | None], list[ShardEntry]]] = []
    for source, partitions in shards.items():
        documents = sum(len(shard) for some in partitions.values() for shard in some)
        tokens = sum(sum(shard) for some in partitions.values() for shard in some)
        lost = sum((dropped or {}).values())

        def add(
            step: int, table: str, account: str, *sums: int, partition: str = "", reason: str = "", source: str = source
        ) -> None:
            where = ("1-read", source, source, step, ("read", "write")[step])
            entries.append((*where, table, partition, account, reason, *sums))

        add(0, "documents", "in", documents + lost, 0, 0)
        add(0, "documents", "added", documents, tokens, 0, reason="read")
        for reason, count in (dropped or {}).items():
            add(0, "documents", "dropped", count, 0, 0, reason=reason)
        for step, account in ((0, "out"), (1, "in"), (1, "out")):
            add(step, "documents", account, documents, tokens, 0)
        add(1, "tokens", "in", documents, tokens, tokens)
        first = 1
        for number, (language, some) in enumerate(partitions.items()):
            label = f"language={language or '_'}"
            folder = out / "tokens" / f"source{len(pending)}-{number}" / label
            folder.mkdir(parents=True)
            written = []
            for lengths in some:
                written.append(write_shard(folder, lengths, first))
                first += len(lengths)
            pending.append((folder, source, {"language": language}, written))
            add(1, "tokens", "out", *_sums(some), partition=label)
    write_ledger(out, entries)
    sha256 = hashlib.sha256((out / "ledger.parquet").read_bytes()).hexdigest()
    for folder, source, partition, written in pending:
        reference = LedgerReference("../../../ledger.parquet", sha256)
        manifest = Manifest.build(source, partition, CL100K_BASE, reference, "0123456789abcdef", written)
        (folder / "manifest.json").write_text(manifest.to_json())
    (out / "recipe.json").write_text('{"name": "lengths"}')
    return out


def _sums(shards: list[list[int]]) -> tuple[int, int, int]:
    tokens = sum(sum(shard) for shard in shards)
    return sum(len(shard) for shard in shards), tokens, tokens


def write_ledger(out: Path, entries: list[tuple[Any, ...]]) -> None:
    columns = list(zip(*sorted(entries), strict=True))
    types = [pa.int32() if name == "step" else pa.string() for name in LEDGER_COLUMNS[:9]] + [pa.int64()] * 3
    table = pa.table(
        {name: pa.array(column, kind) for name, column, kind in zip(LEDGER_COLUMNS, columns, types, strict=True)}
    )
    pq.write_table(table, out / "ledger.parquet")


def rename_ledger(out: Path) -> None:
    """Make the manifests of an output name its ledger as it now is."""
    sha256 = hashlib.sha256((out / "ledger.parquet").read_bytes()).hexdigest()
    for path in out.glob("tokens/**/manifest.json"):
        data = json.loads(path.read_text())
        data["ledger"]["sha256"] = sha256
        path.write_text(json.dumps(data, sort_keys=True, indent=2) + "\n")


def planned_source(
    plan: Path, manifests: list[Path], class_name: str = "text", cut: Cut = "long"
) -> PlannedSource:  # fmt: skip
    """Name manifests as a plan at `plan` does."""
    references = []
    for path in manifests:
        manifest = Manifest.load(path)
        references.append(
            ManifestReference(
                Path(os.path.relpath(path, plan.parent)).as_posix(),
                manifest.source,
                manifest.partition,
                manifest.content_hash,
                manifest.ledger.sha256,
                manifest.totals.documents,
                manifest.totals.tokens,
            )
        )
    return PlannedSource(class_name, cut, 0, tuple(references))


def phase_source(
    epochs: str, sequences: int, unique: Packed, held_out: Packed = NOTHING,
    dropped: dict[str, Dropped] | None = None, manifests: int = 1,
) -> PhaseSource:  # fmt: skip
    fraction = Fraction(epochs)
    packs = tuple(PackReference(f"packs/{place}.parquet", "0" * 64) for place in range(manifests))
    asked = (fraction.numerator, fraction.denominator)
    return PhaseSource(asked, Account(0, 0), sequences, unique, held_out, dropped or {}, packs)


def write_plan(
    path: Path, sources: dict[str, PlannedSource], given: dict[str, PhaseSource], *, length: int, batch: int = 8,
    name: str = "by hand", key: str = "demo",
) -> Plan:  # fmt: skip
    """Write a plan of one phase."""
    path.parent.mkdir(parents=True, exist_ok=True)
    total = sum(source.sequences for source in given.values())
    phase = Phase(length, batch, total, -(-total // batch), given)
    tokenizer = Manifest.load(path.parent / next(iter(sources.values())).manifests[0].path).tokenizer
    rule = Validation("doc_id", key, (1, 50))
    plan = Plan(name, 7, None, tokenizer, rule, Windows(20_000, 4), sources, (phase,), path)
    path.write_text(plan.to_json())
    return plan


def made_plan(out: Path, path: Path) -> Plan:
    """A plan of 48-token sequences over the made output, packed by hand.

    web has documents of 97 and 104 tokens: 2 full sequences each, and the rests of 1 and 8 share one: 5 sequences.
    code has 6 of 14, one held out: 3 a sequence, 2 sequences. talks has 29 and 57; it is never cut, so 57 is dropped,
    and 1 sequence is left, of which 3/2 epochs are 2 (a half goes up).
    """
    classes: dict[str, tuple[str, Cut]] = {
        "web": ("text", "long"),
        "code": ("code", "long"),
        "talks": ("instructions", "never"),
    }
    sources = {
        name: planned_source(path, sorted(out.glob(f"tokens/{name}/*/manifest.json")), *kind)
        for name, kind in classes.items()
    }
    given = {
        "web": phase_source("2", 10, Packed(2, 201, 199, 2, 5)),
        "code": phase_source("4", 8, Packed(5, 70, 65, 0, 2), Packed(1, 14, 13, 0, 1)),
        "talks": phase_source("3/2", 2, Packed(1, 29, 20, 0, 1), dropped={"longer_than_sequence": Dropped(1, 57)}),
    }
    return write_plan(path, sources, given, length=48)


def step(number: int, **changes: Any) -> dict[str, Any]:
    """A step of a log, of 8 sequences."""
    return {
        "kind": "step", "step": number, "sequences": min(8 * number, 20), "loss": 5.0, "aux_loss": 1.0,
        "z_loss": 0.25, "gradient_norm": 2.0, "learning_rate": 0.001, "tokens": 300, "targets": 290,
        "digest": f"{number:032x}", "load_min": 0.5, "load_max": 1.5, "seconds": 2.0,
    } | changes  # fmt: skip


def evaluation(number: int, loss: float, **changes: Any) -> dict[str, Any]:
    sources = {"web": loss + 0.5, "code": loss - 0.5}
    return {
        "kind": "evaluation", "step": number, "sequences": 8 * number, "loss": loss, "targets": 13, "unigram": 7.5,
        "sources": sources,
    } | changes  # fmt: skip


def write_run(folder: Path, plan: Plan, lines: list[dict[str, Any]], torn: str = "") -> Path:
    """Write the folder of a training run of a plan."""
    assert plan.path is not None
    folder.mkdir(parents=True)
    run = {
        "format": "headrace-training-run",
        "version": 1,
        "plan": os.path.relpath(plan.path, folder),
        "fingerprint": plan.fingerprint,
        "config": {"learning_rate": 3e-4},
    }
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)
    return folder
