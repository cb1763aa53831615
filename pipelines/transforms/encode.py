"""Text to token ids: the last transform of the main job."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.transform import Evidence, set_verdict, verdicts
from tokenizer.chat import LOSS, TURN_FAULTS, turn_faults
from tokenizer.encode import encode_documents
from tokenizer.encodings import encoding_named

NO_TEXT = 255
"""A fault beside those of `TURN_FAULTS`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Encode:
    """Adds token ids (each document ends with the end-of-text id) and the spans that bear loss (null = every token).

    A document without text, or whose turns do not fit its text, is `errored`.
    """

    name: ClassVar[str] = "encode"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = pa.schema([pa.field("ids", pa.large_list(pa.int32())), pa.field("loss", LOSS)])
    drops: ClassVar[tuple[str, ...]] = ()

    encoding: str
    encoder: Literal["gigatoken", "tiktoken"] = "gigatoken"

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Encode every text."""
        given, turns = batch.column("text"), batch.column("turns")
        text = pc.fill_null(given, "")
        faults = np.where(pc.is_null(given), NO_TEXT, turn_faults(text, turns))
        failed = faults > 0
        if failed.any():
            batch = set_verdict(batch, _verdict(faults))
            text, turns = pc.if_else(pa.array(failed), "", text), _without(turns, failed)
        encoded = encode_documents(encoding_named(self.encoding), text, turns, self.encoder)
        schema = pa.schema([*batch.schema, *self.adds])
        return pa.RecordBatch.from_arrays([*batch.columns, encoded.ids, encoded.loss], schema=schema)

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Return how many tokens every document has."""
        encoded = self(batch)
        counts = pc.list_value_length(encoded.column("ids")).to_pylist()
        reasons = pc.struct_field(encoded.column("verdict"), "reason").to_pylist()
        return [
            [Evidence(reason or self.name, f"{count} tokens", "text, and turns that fit it", reason is None)]
            for count, reason in zip(counts, reasons, strict=True)
        ]


def _verdict(faults: np.ndarray) -> pa.Array:
    names = ["no_text" if fault == NO_TEXT else TURN_FAULTS[fault] for fault in faults[faults > 0]]
    nothing: list[str | None] = [None] * len(names)
    return verdicts(faults > 0, [f"encode.{name}" for name in names], nothing, nothing, "errored")


def _without(turns: pa.Array, failed: np.ndarray) -> pa.Array:
    """Return the turns with those of failed documents made null."""
    places = pa.array(np.arange(len(turns)), mask=failed)
    return turns.take(places)
