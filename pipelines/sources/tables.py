"""Tables as sources: Parquet and JSON lines, with the columns of RefinedWeb, of C4, or as the recipe names them.

Origins. A Parquet row is (row number in the file, 1). A line of JSON is (byte offset, byte length without its newline)
in the uncompressed file: splits of a file are cut by bytes, so a row number would need everything before it.
Raw bytes and bounds: see `lines` and `parquet`. Texts and fields are bounded here, before they are copied.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import RecipeError
from pipelines.schema import CORE, DOC_ID, VERDICT
from pipelines.sources.columns import (
    FIELD_BYTES,
    byte_lengths,
    cut_by_bytes,
    decode_utf8,
    is_text,
    only_where,
    payloads,
    plain_field,
)
from pipelines.sources.dates import parse_dates
from pipelines.sources.lines import Line, line_splits, parse_json, read_lines
from pipelines.sources.parquet import read_rows, row_splits
from pipelines.sources.source import (
    BatchLimits,
    RawAccount,
    Split,
    Verdict,
    content_hash,
    damage_verdict,
    doc_id,
    drop_verdict,
    error_verdict,
    host_of,
    require_positive,
    select_files,
)
from pipelines.storage.storage import ReadStorage
from pipelines.transform import EMPTY_SCHEMA

SCHEMAS: dict[str, dict[str, str]] = {
    "refinedweb": {"text": "content", "url": "url", "date": "timestamp"},
    "c4": {"text": "text", "url": "url", "date": "timestamp"},
}
"""Column names of published tables: tiiuae/falcon-refinedweb and allenai/c4, as their dataset cards give them."""

FIELDS = ("id", "url", "date", "language", "licence")

Values = dict[str, str | None]
"""The strings of one JSON line by field; None or absent is null."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows:
    """Rows before they have an identity: one value or null for each row in every column.

    `text` and `fields` are strings (`date` any type that `parse_dates` takes); `verdicts` are None for kept rows.
    """

    path: str
    offsets: pa.Array
    lengths: pa.Array
    text: pa.Array
    fields: dict[str, pa.Array]
    verdicts: list[Verdict | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Rows of Parquet or JSON lines files, one document each.

    `text`, `id`, `url`, `date`, `language` and `licence_column` name columns and override the names that `schema`
    ("refinedweb" or "c4") knows; without either, `text` is read and nothing else. The natural key is the id column,
    else the hash of the text. `limit` is rows per split, `split_bytes` bytes of a file of lines or uncompressed bytes
    of row groups. Raises `RecipeError` for a wrong value, and in `splits` for a Parquet file without the text column.
    """

    kind: ClassVar[str] = "table"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = EMPTY_SCHEMA

    name: str
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    schema: str | None = None
    text: str | None = None
    id: str | None = None
    url: str | None = None
    date: str | None = None
    language: str | None = None
    licence_column: str | None = None
    licence: str | None = None
    max_record_bytes: int = 16 << 20
    split_bytes: int = 64 << 20
    limit: int | None = None

    def __post_init__(self) -> None:
        """Check the values that a recipe may set."""
        if self.schema is not None and self.schema not in SCHEMAS:
            raise RecipeError(
                f"source {self.name}: schema {self.schema!r} is not known\nhint: use one of "
                f"{', '.join(sorted(SCHEMAS))}, or name the columns (text, id, url, date, language, licence_column)"
            )
        require_positive(self.name, "max_record_bytes", self.max_record_bytes)
        require_positive(self.name, "split_bytes", self.split_bytes)
        require_positive(self.name, "limit", self.limit)

    @property
    def columns(self) -> dict[str, str]:
        """The table's column for each of text, id, url, date, language and licence that is read."""
        known = {"text": "text"} | (SCHEMAS[self.schema] if self.schema else {})
        named = {
            "text": self.text,
            "id": self.id,
            "url": self.url,
            "date": self.date,
            "language": self.language,
            "licence": self.licence_column,
        }
        return known | {field: column for field, column in named.items() if column is not None}

    def splits(self, storage: ReadStorage) -> list[Split]:
        """Cut Parquet files between row groups, lines by bytes; files in the order of their paths."""
        splits: list[Split] = []
        for file in select_files(storage.list(), self.include, self.exclude):
            if file.path.endswith(".parquet"):
                splits += row_splits(self.name, file, storage, self.columns["text"], self.split_bytes)
            else:
                splits += line_splits(self.name, file, self.split_bytes)
        return splits

    def read(
        self, split: Split, storage: ReadStorage, limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        """Yield the split's rows, texts as they are, kept or with the reason why not."""
        is_parquet = split.files[0].path.endswith(".parquet")
        rows = self._read_parquet if is_parquet else self._read_json_lines
        for batch in rows(split, storage, limits, account):
            account.seen += batch.num_rows
            yield batch

    def _read_parquet(
        self, split: Split, storage: ReadStorage, limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        path = split.files[0].path
        for run in read_rows(split, storage, self.columns.values(), limits.max_rows, self.limit, account):
            if run.batch is None:
                null = pa.nulls(1, pa.large_string())
                yield self._documents(_Rows(path, pa.array([run.start]), pa.array([0]), null, {}, [run.verdict]))
            else:
                yield from self._documents_of(path, run.start, run.batch, limits)

    def _documents_of(
        self, path: str, first: int, batch: pa.RecordBatch, limits: BatchLimits
    ) -> Iterator[pa.RecordBatch]:
        """Turn a batch of a Parquet file, whose first row is number `first`, into documents."""
        column = {field: batch.column(name) for field, name in self.columns.items() if name in batch.schema.names}
        text = column.get("text", pa.nulls(batch.num_rows))
        lengths = byte_lengths(text)
        weights = np.where(lengths > self.max_record_bytes, 0, lengths)
        for start, stop in cut_by_bytes(weights, limits.max_bytes):
            part, verdicts = self._decode_texts(text.slice(start, stop - start), lengths[start:stop])
            rows = _Rows(
                path,
                pa.array(np.arange(first + start, first + stop), pa.int64()),
                pa.array(np.ones(stop - start, np.int64)),
                part,
                {field: plain_field(column[field].slice(start, stop - start)) for field in FIELDS if field in column},
                verdicts,
            )
            yield self._documents(rows)

    def _decode_texts(self, text: pa.Array, lengths: np.ndarray) -> tuple[pa.Array, list[Verdict | None]]:
        """Return texts as large_string, null where there is a verdict, and the verdicts."""
        verdicts: list[Verdict | None] = [None] * len(text)
        for row in np.flatnonzero(lengths > self.max_record_bytes).tolist():
            limit = f"<= {self.max_record_bytes} bytes"
            verdicts[row] = drop_verdict("record_too_large", f"{lengths[row]} bytes", limit)
        for row in np.flatnonzero(lengths == 0).tolist():
            verdicts[row] = _empty()
        for row in np.flatnonzero(lengths < 0).tolist():
            found = "null" if is_text(text.type) or pa.types.is_null(text.type) else f"type {text.type}"
            verdicts[row] = error_verdict("no_text", f"column {self.columns['text']}: {found}")
        usable = (lengths > 0) & (lengths <= self.max_record_bytes)
        decoded, broken = decode_utf8(only_where(text, usable))
        for row, offset in broken.items():
            verdicts[row] = drop_verdict("not_utf8", f"byte {offset}", "UTF-8 throughout")
        return decoded, verdicts

    def _read_json_lines(
        self, split: Split, storage: ReadStorage, limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        path = split.files[0].path
        lines: list[Line] = []
        parsed: list[tuple[Values, Verdict | None]] = []
        num_bytes = 0
        for line in read_lines(split, storage, self.max_record_bytes, self.limit, account):
            lines.append(line)
            parsed.append(self._parse_line(path, line))
            num_bytes += line.length if parsed[-1][1] is None else 0
            if len(lines) >= limits.max_rows or num_bytes >= limits.max_bytes:
                yield self._gather(path, lines, parsed)
                lines, parsed, num_bytes = [], [], 0
        if lines:
            yield self._gather(path, lines, parsed)

    def _parse_line(self, path: str, line: Line) -> tuple[Values, Verdict | None]:
        """Return the values of the wanted fields and the verdict of one line."""
        if line.verdict is not None:
            return {}, line.verdict
        try:
            row = parse_json(line.data)
        except ValueError as error:
            return {}, damage_verdict("json", path, line.offset, str(error))
        if not isinstance(row, dict):
            return {}, damage_verdict("json", path, line.offset, f"an object is needed, not {type(row).__name__}")
        values = {field: _as_string(row.get(column)) for field, column in self.columns.items() if field != "text"}
        text = row.get(self.columns["text"])
        if not isinstance(text, str):
            found = "null" if text is None else f"type {type(text).__name__}"
            cause = f"column {self.columns['text']}: {found if self.columns['text'] in row else 'missing'}"
            return values, damage_verdict("no_text", path, line.offset, cause)
        return values | {"text": text or None}, None if text else _empty()

    def _gather(self, path: str, lines: list[Line], parsed: list[tuple[Values, Verdict | None]]) -> pa.RecordBatch:
        def gathered(field: str) -> pa.Array:
            return pa.array([values.get(field) for values, _ in parsed], pa.large_string())

        rows = _Rows(
            path,
            pa.array([line.offset for line in lines], pa.int64()),
            pa.array([line.length for line in lines], pa.int64()),
            gathered("text"),
            {field: gathered(field) for field in FIELDS if field in self.columns},
            [verdict for _, verdict in parsed],
        )
        return self._documents(rows)

    def _documents(self, rows: _Rows) -> pa.RecordBatch:
        """Give rows their identity: content hash, natural key and doc_id, and lay them out in the core's columns."""
        num_rows = len(rows.text)
        hashes = [content_hash(payload) for payload in payloads(rows.text)]
        keys = self._natural_keys(rows, hashes)
        columns: dict[str, pa.Array] = {
            "doc_id": pa.array([doc_id(self.name, key) for key in keys], DOC_ID),
            "source": pa.repeat(pa.scalar(self.name), num_rows),
            "natural_key": pa.array(keys, pa.string()),
            "origin_path": pa.repeat(pa.scalar(rows.path), num_rows),
            "origin_offset": rows.offsets,
            "origin_length": rows.lengths,
            "content_hash": pa.array(hashes, DOC_ID),
            "text": rows.text,
            "verdict": pa.array(rows.verdicts, VERDICT),
            "licence": pa.repeat(pa.scalar(self.licence, pa.string()), num_rows),
        }
        for field in ("url", "language"):
            if field in rows.fields:
                columns[field] = rows.fields[field].cast(pa.string())
        if "url" in columns:
            columns["host"] = pa.array([host_of(url) for url in columns["url"].to_pylist()], pa.string())
        if "date" in rows.fields:
            columns["date"] = parse_dates(rows.fields["date"])
        if "licence" in rows.fields:
            columns["licence"] = pc.coalesce(rows.fields["licence"].cast(pa.string()), columns["licence"])
        arrays = [columns.get(field.name, pa.nulls(num_rows, field.type)) for field in CORE]
        return pa.RecordBatch.from_arrays(arrays, schema=CORE)

    def _natural_keys(self, rows: _Rows, hashes: list[bytes]) -> list[str]:
        """Return the id of each row, else its text's hash; a row that has neither is known by its place only."""
        ids = rows.fields["id"].to_pylist() if "id" in rows.fields else [None] * len(hashes)
        has_text = rows.text.is_valid().to_pylist()
        offsets = rows.offsets.to_pylist()
        return [
            key or (digest.hex() if valid else f"{rows.path}:{offset}")
            for key, digest, valid, offset in zip(ids, hashes, has_text, offsets, strict=True)
        ]


def _empty() -> Verdict:
    return drop_verdict("empty", "0 bytes", ">= 1 byte")


def _as_string(value: Any) -> str | None:
    """Return a JSON value as the string that a column of strings would hold; None when it is no plain value."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    return text if len(text) <= FIELD_BYTES and len(text.encode()) <= FIELD_BYTES else None
