"""From a step of a run to documents and their bytes, and from a document to the steps: computed, never logged."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mixtures.planner import ledger_of
from trainer_bridge.batch import Batch
from trainer_bridge.errors import StreamError
from trainer_bridge.stream import Stream

ORIGIN = ("origin_path", "origin_offset", "origin_length", "url", "language", "licence")


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """A piece of a document that a step sees: tokens [start, end) of it at columns [first, last) of a row.

    `source` is the mixture's name, `manifest` where the document's shard is listed, `output` the folder of the run that
    made it (what `headrace replay` takes). `origin` holds the columns `ORIGIN`.
    """

    row: int
    first: int
    last: int
    sequence: int
    source: str
    epoch: int
    manifest: Path
    output: Path
    doc_id: str
    start: int
    end: int
    tokens: int
    origin: dict[str, Any]


def trace_step(stream: Stream, step: int, row: int | None = None, column: int | None = None) -> Iterator[Seen]:
    """Yield every piece that a step (counted from 0) sees, or those of one row of it, or the one at a row's column.

    Raises `StreamError` for a step, row or column that there is not.
    """
    batch = stream.step(step)
    if row is not None and not 0 <= row < len(batch):
        raise StreamError(f"row {row}: step {step:,} has {len(batch):,} sequences, counted from 0\nhint: name one")
    if column is not None and not 0 <= column < batch.tokens.shape[1]:
        raise StreamError(f"column {column}: a sequence has {batch.tokens.shape[1]:,} tokens, counted from 0")
    places = _places(batch, range(len(batch)) if row is None else [row], column)
    facts = _facts(stream, batch, [piece for *_, piece in places])
    for chosen, first, piece in places:
        yield _seen(stream, batch, chosen, first, piece, facts[_key(batch, piece)])


def _places(batch: Batch, rows: Iterable[int], column: int | None) -> list[tuple[int, int, int]]:
    """Return (row, first column, piece) of the pieces in these rows, or of those that hold the column."""
    pieces, found = batch.pieces, []
    for row in rows:
        first = 0
        for piece in range(int(pieces.offsets[row]), int(pieces.offsets[row + 1])):
            last = first + int(pieces.size[piece])
            if column is None or first <= column < last:
                found.append((row, first, piece))
            first = last
    return found


def _key(batch: Batch, piece: int) -> tuple[int, int, int]:
    columns = (batch.pieces.source, batch.pieces.manifest, batch.pieces.document)
    return int(columns[0][piece]), int(columns[1][piece]), int(columns[2][piece])


def _facts(stream: Stream, batch: Batch, pieces: list[int]) -> dict[tuple[int, int, int], dict[str, Any]]:
    """Return the rows of the pieces' documents by source, manifest and document: a manifest's are read together."""
    wanted: dict[tuple[int, int], set[int]] = defaultdict(set)
    for source, manifest, document in (_key(batch, piece) for piece in pieces):
        wanted[source, manifest].add(document)
    found: dict[tuple[int, int, int], dict[str, Any]] = {}
    for (source, manifest), documents in wanted.items():
        ordered = sorted(documents)
        rows = stream.documents(source, manifest).take(np.array(ordered), ["doc_id", *ORIGIN, "tokens"]).to_pylist()
        found |= {(source, manifest, document): row for document, row in zip(ordered, rows, strict=True)}
    return found


def _seen(stream: Stream, batch: Batch, row: int, first: int, piece: int, facts: dict[str, Any]) -> Seen:
    source, manifest, _ = _key(batch, piece)
    loaded = stream.documents(source, manifest).manifest
    assert loaded.path is not None, "a stream's manifests were loaded from files"
    [place] = stream.places(batch.first + row, 1)
    start, size = int(batch.pieces.start[piece]), int(batch.pieces.size[piece])
    return Seen(
        row=row,
        first=first,
        last=first + size,
        sequence=batch.first + row,
        source=place.source,
        epoch=place.epoch,
        manifest=loaded.path,
        output=ledger_of(loaded).parent,
        doc_id=facts["doc_id"].hex(),
        start=start,
        end=start + size,
        tokens=facts["tokens"],
        origin={name: facts[name] for name in ORIGIN},
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Sighting:
    """A step (counted from 0) that sees a document, and the row of the global batch that it stands in."""

    source: str
    step: int
    row: int
    sequence: int
    epoch: int


def trace_document(stream: Stream, doc_id: str) -> list[Sighting]:
    """Return every step of the run that sees a piece of the document with this id (32 hex digits), in order.

    None at all: it is held out, or left out as too long. Raises `StreamError` where no source of the plan has it.
    """
    if not re.fullmatch("[0-9a-fA-F]{32}", doc_id):
        raise StreamError(f"document {doc_id!r}: is no id of 32 hex digits\nhint: copy it from a trace or a table")
    found, known = [], False
    for number, (name, source) in enumerate(stream.plan.sources.items()):
        for manifest in range(len(source.manifests)):
            place = stream.documents(number, manifest).find(bytes.fromhex(doc_id))
            if place is not None:
                known = True
                for position in stream.positions(number, manifest, place):
                    [where] = stream.places(position, 1)
                    found.append(Sighting(name, *stream.step_of(position), position, where.epoch))
    if not known:
        raise StreamError(
            f"document {doc_id}: is in no source of the plan\nhint: `headrace explain` says what became of it"
        )
    return sorted(found, key=lambda sighting: sighting.sequence)


def ids_of(stream: Stream, seen: Seen) -> np.ndarray:
    """Return the token ids of a traced piece as a step sees them (int32)."""
    return stream.sequence(seen.sequence).tokens[0, seen.first : seen.last]


def as_json(seen: Seen) -> dict[str, Any]:
    """Return a traced piece as plain data."""
    return dataclasses.asdict(seen) | {"manifest": str(seen.manifest), "output": str(seen.output)}
