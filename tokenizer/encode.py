"""Encoding of whole Arrow batches: texts, and turns where there are any, become token ids and loss spans.

Every document ends with end-of-text, stored and counted, so none has zero tokens. The ids are the reference's
(`tiktoken.Encoding.encode_ordinary`) whichever encoder made them, and depend on nothing but the document.
"""

from __future__ import annotations

import dataclasses

import pyarrow as pa

from tokenizer.chat import lay_out, segment
from tokenizer.encoders import encoder_named
from tokenizer.encodings import Encoding


@dataclasses.dataclass(frozen=True, slots=True)
class Encoded:
    """One row per document: `ids` is a large_list<int32>, `loss` a list of spans (`chat.LOSS`; null = every token)."""

    ids: pa.LargeListArray
    loss: pa.ListArray


def encode_documents(
    encoding: Encoding, text: pa.LargeStringArray, turns: pa.ListArray | None = None, encoder: str = "gigatoken"
) -> Encoded:
    """Encode documents, of which those with non-null `turns` are conversations (see `tokenizer.chat`).

    `ValueError` for a null text, bytes that are not UTF-8, turns with a fault (`chat.turn_faults` finds them), as many
    turns as texts do not come, or an unknown encoder.
    """
    _check(text, turns)
    segments = segment(encoding, text, turns)
    ids, loss = lay_out(encoding, segments, encoder_named(encoder, encoding)(segments.pieces))
    return Encoded(ids, loss)


def _check(text: pa.LargeStringArray, turns: pa.ListArray | None) -> None:
    if text.type != pa.large_string():
        raise ValueError(f"text: a column of type {text.type}, expected large_string")
    if text.null_count:
        row = text.is_null().index(True).as_py()
        raise ValueError(f"row {row}: its text is null\nhint: only documents that have a text can be encoded")
    if turns is not None and len(turns) != len(text):
        raise ValueError(f"turns: {len(turns)} rows for {len(text)} texts")
    text.validate(full=True)
