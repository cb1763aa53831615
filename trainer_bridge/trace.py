"""From a step of a run back to documents and the bytes that they came from. Computed from the plan, never logged."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
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
    for chosen in range(len(batch)) if row is None else [row]:
        yield from _row(stream, batch, chosen, column)


def _row(stream: Stream, batch: Batch, row: int, column: int | None) -> Iterator[Seen]:
    pieces, first = batch.pieces, 0
    if pieces.offsets[row] == pieces.offsets[row + 1]:
        return  # an empty sequence that fills the last step
    position = batch.first + row
    [place] = stream.places(position, 1)
    for piece in range(int(pieces.offsets[row]), int(pieces.offsets[row + 1])):
        last = first + int(pieces.size[piece])
        if column is None or first <= column < last:
            documents = stream.documents(int(pieces.source[piece]), int(pieces.manifest[piece]))
            number, start = int(pieces.document[piece]), int(pieces.start[piece])
            [facts] = documents.read(number, number + 1, ["doc_id", *ORIGIN, "tokens"]).to_pylist()
            path = documents.manifest.path
            assert path is not None, "a stream's manifests were loaded from files"
            yield Seen(
                row=row,
                first=first,
                last=last,
                sequence=position,
                source=place.source,
                epoch=place.epoch,
                manifest=path,
                output=ledger_of(documents.manifest).parent,
                doc_id=facts["doc_id"].hex(),
                start=start,
                end=start + last - first,
                tokens=facts["tokens"],
                origin={name: facts[name] for name in ORIGIN},
            )
        first = last


def ids_of(stream: Stream, seen: Seen) -> np.ndarray:
    """Return the token ids of a traced piece as a step sees them (int32)."""
    return stream.sequence(seen.sequence).tokens[0, seen.first : seen.last]


def as_json(seen: Seen) -> dict[str, Any]:
    """Return a traced piece as plain data."""
    return dataclasses.asdict(seen) | {"manifest": str(seen.manifest), "output": str(seen.output)}
