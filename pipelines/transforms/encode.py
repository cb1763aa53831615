"""Text to token ids: the last transform of the main job."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.transform import Evidence, set_verdict, verdicts
from tokenizer.chat import invalid_turns
from tokenizer.encode import encode_documents
from tokenizer.shards import LOSS


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
        text, turns = batch.column("text"), batch.column("turns")
        no_text = pc.is_null(text).to_numpy(zero_copy_only=False)
        bad_turns = invalid_turns(pc.fill_null(text, ""), turns) & ~no_text
        failed = no_text | bad_turns
        reasons: list[str | None] = ["encode.no_text" if empty else "encode.turns" for empty in no_text[failed]]
        nothing: list[str | None] = [None] * len(reasons)
        batch = set_verdict(batch, verdicts(failed, reasons, nothing, nothing, "errored"))
        mask = pa.array(failed)
        text = pc.if_else(mask, "", text)
        turns = pc.if_else(mask, pa.nulls(len(mask), turns.type), turns) if np.any(failed) else turns
        encoded = encode_documents(self.encoding, text, turns, encoder=self.encoder)
        schema = pa.schema([*batch.schema, *self.adds])
        return pa.RecordBatch.from_arrays([*batch.columns, encoded.ids, encoded.loss], schema=schema)

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Return how many tokens every document has."""
        counts = pc.list_value_length(self(batch).column("ids")).to_pylist()
        return [[Evidence(self.name, f"{count} tokens", "text, and turns that fit it", True)] for count in counts]
