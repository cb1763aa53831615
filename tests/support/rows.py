"""Documents made up for tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from pipelines.schema import CORE
from pipelines.sources.source import content_hash, doc_id


def document(text: str | None = "text", **columns: Any) -> dict[str, Any]:
    """Return one document as a dict of core columns."""
    source, key = columns.pop("source", "web"), columns.pop("natural_key", text or "")
    row = {
        "doc_id": doc_id(source, key),
        "source": source,
        "natural_key": key,
        "origin_path": "file",
        "origin_offset": 0,
        "origin_length": 1,
        "content_hash": content_hash((text or "").encode()),
        "text": text,
    }
    return {**row, **columns}


def batch_of(rows: Iterable[dict[str, Any]], adds: Iterable[pa.Field] = ()) -> pa.RecordBatch:
    """Return the rows as a batch of the core schema and further columns."""
    return pa.RecordBatch.from_pylist(list(rows), schema=pa.schema([*CORE, *adds]))
