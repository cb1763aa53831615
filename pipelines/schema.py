"""The frozen core of the document schema, and the schemas of every other table (see docs/formats.md).

A document is one row. The columns of `CORE` are in every document table, in this order; every other column is
declared, with its type, by the reader or transform that adds it and by the one that drops it. `verdict` is null while
a document is kept. Column types stay inside what Spark and Beam can carry (no unsigned integers).
"""

from __future__ import annotations

import pyarrow as pa

DOC_ID = pa.binary(16)
"""xxh3_128(source, natural key), big endian, so that byte order is numeric order."""

VERDICT = pa.struct(
    [
        pa.field("outcome", pa.string()),  # one of OUTCOMES
        pa.field("reason", pa.string()),  # ledger reason: the rule's name, [a-z0-9_.]+
        pa.field("value", pa.string()),  # what was measured, exact ("12/40", "text/css"), for people and `explain`
        pa.field("threshold", pa.string()),  # what is allowed ("<= 0.3")
    ]
)
"""Why a row stops here; null = kept."""

OUTCOMES = ("dropped", "errored", "merged")

TURNS = pa.list_(
    pa.struct(
        [
            pa.field("role", pa.string()),  # system, user, assistant or tool
            pa.field("start", pa.int64()),  # byte offset into the UTF-8 text, at a code point boundary
            pa.field("end", pa.int64()),  # half open
            pa.field("weight", pa.int16()),  # loss weight in 1/256: 0 = no loss, 256 = full
        ]
    )
)
"""The turns of a conversation over `text`, in order, not overlapping; null = plain text."""

HEADERS = pa.list_(pa.struct([pa.field("name", pa.string()), pa.field("value", pa.string())]))

CORE = pa.schema(
    [
        pa.field("doc_id", DOC_ID, nullable=False),
        pa.field("source", pa.string(), nullable=False),  # the name that the recipe declares
        pa.field("natural_key", pa.string(), nullable=False),
        pa.field("origin_path", pa.string(), nullable=False),  # relative to the source's declared root, "/" separated
        pa.field("origin_offset", pa.int64(), nullable=False),  # byte offset, or row number for tables
        pa.field("origin_length", pa.int64(), nullable=False),  # bytes, or 1 for a table row
        pa.field("url", pa.string()),
        pa.field("host", pa.string()),
        pa.field("date", pa.timestamp("us", tz="UTC")),
        pa.field("language", pa.string()),  # ISO 639-1 where there is one
        pa.field("licence", pa.string()),
        pa.field("content_hash", DOC_ID, nullable=False),  # xxh3_128 of the payload bytes as read
        pa.field("http_status", pa.int32()),
        pa.field("http_headers", HEADERS),
        pa.field("content", pa.large_binary()),  # raw payload; null where the reader gives text, null after extraction
        pa.field("text", pa.large_string()),
        pa.field("turns", TURNS),
        pa.field("verdict", VERDICT),
    ]
)
"""The frozen core: in every document table, in this order, before the declared columns."""

IDENTITY = ("doc_id", "content_hash", "origin_path", "origin_offset", "origin_length")
"""The total order of documents: what breaks every tie."""

REJECTS = pa.schema(
    [*(field for field in CORE if field.name not in ("content", "http_headers")), pa.field("transform", pa.string())]
)
"""A row that stopped: the core without its raw payload (the origin leads back to it), and which transform said so."""

EDITS = pa.schema(
    [
        pa.field("doc_id", DOC_ID, nullable=False),
        pa.field("start", pa.int64(), nullable=False),  # byte span of the text as it was before the step
        pa.field("end", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""What a step inside `group` wants cut from a text; applied by a later `map`."""


def with_columns(schema: pa.Schema, adds: pa.Schema, drops: tuple[str, ...]) -> pa.Schema:
    """Return `schema` after a transform that adds and drops these columns.

    Raises `ValueError` when a column is added twice, or one that is not there (or belongs to the core) is dropped.
    """
    for name in drops:
        if name in CORE.names:
            raise ValueError(f"column {name}: belongs to the core of the schema and cannot be dropped")
        if name not in schema.names:
            raise ValueError(f"column {name}: cannot be dropped, no earlier step adds it")
    for field in adds:
        if field.name in schema.names:
            raise ValueError(
                f"column {field.name}: is already there, added by the source or an earlier step\n"
                "hint: of two filters of one kind in a chain only one can leave its `values`"
            )
    kept = [field for field in schema if field.name not in drops]
    return pa.schema([*kept, *adds])
