"""What happened to one document: its record read again at its origin and sent through the recipe, rule by rule.

Steps that look at one document are repeated with everything they measure; steps that look at many (one document a key,
deduplication) are taken from the tables of their stages.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.commit import CommittedTable
from pipelines.engines.works import read_side
from pipelines.errors import VerifyError
from pipelines.finished import FinishedRun, open_run
from pipelines.plan import DOCUMENTS
from pipelines.reread import first_stage, read_again
from pipelines.schema import REJECTS
from pipelines.sinks.tables import read_table
from pipelines.stage import MapStage
from pipelines.transform import SideTransform, Transform

FACTS = ("source", "natural_key", "origin_path", "origin_offset", "origin_length", "url", "date", "language", "licence")


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One rule of one step: what it measured, what is allowed, and "kept" or why it stopped here."""

    stage: str
    step: str
    rule: str
    value: str
    threshold: str
    verdict: str


@dataclasses.dataclass(frozen=True, slots=True)
class Explanation:
    """A document's facts, its way through the run, and where it ended."""

    doc_id: str
    end: str
    facts: dict[str, Any]
    rows: tuple[Line, ...]


def explain_document(output: Path | str, doc_id: str) -> Explanation:
    """Explain the document whose id is or begins with `doc_id` (hex).

    Raises `VerifyError` when there is none, or when several ids begin so.
    """
    run = open_run(output)
    found = find_document(run, doc_id)
    stage, table, row = found[0]
    lines = [*_read_again(run, row), *_group_lines(found), *_last_stage(run, row)]
    end = "is in the token shards" if table == DOCUMENTS else f"stopped in stage {stage}: {say_verdict(row['verdict'])}"
    return Explanation(
        row["doc_id"].hex(), end, {name: row[name] for name in FACTS if row[name] is not None}, tuple(lines)
    )


def _id_range(doc_id: str) -> tuple[bytes, bytes]:
    if not re.fullmatch("[0-9a-fA-F]{1,32}", doc_id):
        raise VerifyError(f"doc_id {doc_id!r}: is no hex number of at most 32 digits\nhint: copy it from a table")
    return bytes.fromhex(doc_id.ljust(32, "0")), bytes.fromhex(doc_id.ljust(32, "f"))


def find_document(run: FinishedRun, asked: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (stage, table, row) wherever the document ended: the last stage's documents first, then all rejects.

    Raises `VerifyError` when no id begins with the digits asked for, or several do.
    """
    ids = _id_range(asked)
    last = run.plan.stages[-1].name
    found = [(last, DOCUMENTS, row) for row in _rows(run, last, DOCUMENTS, ids)]
    for stage in reversed(run.plan.document_stages):
        found += [(stage, "rejects", row) for row in _rows(run, stage, "rejects", ids)]
    several = sorted({row["doc_id"].hex() for _, _, row in found})
    if not found:
        raise VerifyError(f"doc_id {asked}: no document or reject of this run has it")
    if len(several) > 1:
        raise VerifyError(
            f"doc_id {asked}: {len(several)} ids begin so: {', '.join(several[:5])}\nhint: give more digits"
        )
    return found


def _rows(run: FinishedRun, stage: str, table: str, ids: tuple[bytes, bytes]) -> Iterator[dict[str, Any]]:
    for file in run.files(stage, table):
        column = read_table(run.storage, file.path, ["doc_id"]).column("doc_id").cast(pa.binary())
        chosen = pc.and_(pc.greater_equal(column, ids[0]), pc.less_equal(column, ids[1]))
        if pc.any(chosen).as_py():
            yield from read_table(run.storage, file.path, REJECTS.names[:-1]).filter(chosen).to_pylist()


def _read_again(run: FinishedRun, row: dict[str, Any]) -> Iterator[Line]:
    """Repeat the chain of the document's source on its record alone."""
    stage = first_stage(run)
    chain = stage.chains[row["source"]]
    [batch] = read_again(run, [row])
    verdict = batch.column("verdict")[0].as_py()
    value, threshold = (verdict["value"] or "", verdict["threshold"] or "") if verdict else ("", "")
    yield Line(stage.name, "read", chain.source.kind, value, threshold, say_verdict(verdict))
    if verdict is None:
        yield from _steps(stage.name, chain.transforms, batch)


def _steps(stage: str, transforms: tuple[Transform, ...], batch: pa.RecordBatch) -> Iterator[Line]:
    """Apply the transforms to one row until one stops it, yielding what each rule measured."""
    for transform in transforms:
        measured = transform.evidence(batch)[0]
        batch = transform(batch)
        verdict = batch.column("verdict")[0].as_py()
        stopped = say_verdict(verdict)
        for rule in measured:
            said = "kept" if rule.passed else stopped if verdict and rule.rule == verdict["reason"] else "fails"
            yield Line(stage, transform.name, rule.rule, rule.value, rule.threshold, said)
        if verdict is not None:
            if not any(rule.rule == verdict["reason"] for rule in measured):
                value, threshold = verdict["value"] or "", verdict["threshold"] or ""
                yield Line(stage, transform.name, verdict["reason"], value, threshold, stopped)
            return
        if not measured:
            yield Line(stage, transform.name, "-", "", "", "kept")


def _group_lines(found: list[tuple[str, str, dict[str, Any]]]) -> Iterator[Line]:
    """Say what the group stages decided about records with this doc_id."""
    for stage, table, row in found:
        if table == "rejects" and row["verdict"]["reason"] == "same_key":
            value = f"{row['origin_path']} at {row['origin_offset']}"
            yield Line(
                stage, "same_key", "same_key", value, row["verdict"]["threshold"] or "", say_verdict(row["verdict"])
            )


def _last_stage(run: FinishedRun, row: dict[str, Any]) -> Iterator[Line]:
    """Repeat the last stage on the document as stage 2 left it, if it came so far."""
    stage, transforms = last_transforms(run)
    for file in run.files("2-identify", DOCUMENTS):
        documents = read_table(run.storage, file.path)
        documents = documents.filter(pc.equal(documents.column("doc_id").cast(pa.binary()), row["doc_id"]))
        if documents.num_rows:
            batch = documents.cast(run.plan.stages[0].schema).combine_chunks().to_batches()[0]
            yield from _steps(stage.name, transforms, batch)


def last_transforms(run: FinishedRun) -> tuple[MapStage, tuple[Transform, ...]]:
    """Return the last stage and its transforms, those that need tables of other stages bound to them."""
    stage = run.plan.stages[-1]
    assert isinstance(stage, MapStage)
    sides = {
        side.given.table: read_side(
            side, CommittedTable(run.storage, side.given.table, tuple(run.commits[side.given.stage]))
        )
        for side in stage.side
    }
    chain = stage.chains[DOCUMENTS]
    return stage, tuple(step.bind(sides) if isinstance(step, SideTransform) else step for step in chain.transforms)


def say_verdict(verdict: dict[str, Any] | None) -> str:
    """Return a verdict in a word: `kept`, `dropped[reason]` and so on."""
    return "kept" if verdict is None else f"{verdict['outcome']}[{verdict['reason']}]"
