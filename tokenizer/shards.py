r"""A token shard: three files that hold the same documents in the same order, and nothing that depends on batches.

- `NAME.bin`: the token ids, int32 little endian, document after document.
- `NAME.idx`: Megatron-Core's index of them, every document being one sequence and one document of Megatron's:
  `MMIDIDX\0\0`, uint64 version 1, uint8 dtype code 4 (int32), uint64 sequences, uint64 document bounds
  (sequences + 1), then the sequences' lengths (int32), their byte positions in `.bin` (int64) and the document bounds
  (int64), all little endian (layout read from megatron-core 0.16.1, megatron/core/datasets/indexed_dataset.py).
- `NAME.docs.parquet`: one row per document (`DOCS`), zstd, in row groups of `ROW_GROUP_ROWS`.

Rules that the writer enforces and `Shard.verify` checks again: doc_ids strictly ascend; every document ends with
end-of-text, which occurs nowhere else; role ids occur only where `loss` is not null; every other id is one that text
can produce; loss spans ascend within the document, with weights 1 to 256, equal neighbours merged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tokenizer.chat import FULL_WEIGHT, LOSS
from tokenizer.columns import big_endian_pairs, lists, running_total
from tokenizer.encodings import Encoding
from tokenizer.errors import HeadraceError

DOCS = pa.schema(
    [
        pa.field("doc_id", pa.binary(16), nullable=False),
        pa.field("origin_path", pa.string(), nullable=False),
        pa.field("origin_offset", pa.int64(), nullable=False),
        pa.field("origin_length", pa.int64(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("host", pa.string()),
        pa.field("language", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("loss", LOSS),
    ]
)
"""The columns of `.docs.parquet`."""

GIVEN = pa.schema([*(field for field in DOCS if field.name != "tokens"), pa.field("ids", pa.large_list(pa.int32()))])
"""The columns that `ShardWriter.write` takes: `DOCS` without the count, and the ids."""

ROW_GROUP_ROWS = 8_192
"""Rows of a full row group: a window of 20,000 documents touches three or four, a look-up by doc_id reads one."""

COMPRESSION_LEVEL = 3
"""zstd's own default, named because the bytes depend on it."""

SUFFIXES = {"bin": ".bin", "idx": ".idx", "docs": ".docs.parquet"}
"""File name endings by the names that the manifest uses."""

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_VERSION, _INT32 = 1, 4
_TOKEN_BYTES = 4

_DICTIONARY = ["origin_path", "host", "language", "licence"]
"""Columns whose values repeat; the others would only fill a dictionary and drop it."""


class ShardError(HeadraceError, ValueError):
    """Documents that may not stand in a shard, or files that are no sound shard."""


@dataclasses.dataclass(frozen=True, slots=True)
class FileSummary:
    """A finished file: its size and the sha256 of its bytes."""

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True)
class ShardSummary:
    """What a shard holds. `loss_tokens` are tokens with a weight above zero; the ids are null in an empty shard."""

    documents: int
    tokens: int
    loss_tokens: int
    first_doc_id: bytes | None
    last_doc_id: bytes | None
    bin: FileSummary
    idx: FileSummary
    docs: FileSummary


class _HashedFile:
    """A file object that hashes and counts what passes through it; closing it leaves the caller's file open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._bytes = 0
        self.closed = False

    def write(self, data: bytes | memoryview | pa.Buffer) -> int:
        size = memoryview(data).nbytes
        self._file.write(data)
        self._hash.update(data)
        self._bytes += size
        return size

    def tell(self) -> int:
        return self._bytes

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True

    def summary(self) -> FileSummary:
        return FileSummary(self._bytes, self._hash.hexdigest())


class _Checker:
    """Checks documents batch by batch against the rules of the module docstring, and counts them."""

    def __init__(self, encoding: Encoding) -> None:
        self._kinds = _id_kinds(encoding)
        self.documents = 0
        self.tokens = 0
        self.loss_tokens = 0
        self.first: bytes | None = None
        self.last: bytes | None = None

    def check(self, doc_ids: pa.FixedSizeBinaryArray, ids: np.ndarray, offsets: np.ndarray, loss: pa.ListArray) -> None:
        """Check some further documents; `ShardError` naming the first that breaks a rule."""
        if len(doc_ids) == 0:
            return
        self._check_order(doc_ids)
        span_offsets, spans = lists(loss)
        columns = [spans.field(name).to_numpy(zero_copy_only=False) for name in ("start", "end", "weight")]
        trained = loss.is_null().to_numpy(zero_copy_only=False)
        row, fault, weighted = _first_fault(ids, offsets, self._kinds, trained, span_offsets, *columns)
        if fault:
            raise ShardError(f"document {doc_ids[row].as_py().hex()}: {_FAULTS[fault]}")
        self.documents += len(doc_ids)
        self.tokens += len(ids)
        self.loss_tokens += int(weighted)

    def _check_order(self, doc_ids: pa.FixedSizeBinaryArray) -> None:
        joined = doc_ids if self.last is None else pa.concat_arrays([pa.array([self.last], doc_ids.type), doc_ids])
        high, low = big_endian_pairs(joined)
        ascends = (high[:-1] < high[1:]) | ((high[:-1] == high[1:]) & (low[:-1] < low[1:]))
        if not ascends.all():
            row = int(np.argmin(ascends))
            before, after = joined[row].as_py().hex(), joined[row + 1].as_py().hex()
            raise ShardError(f"document {after}: stands behind {before}\nhint: sort documents by doc_id, none twice")
        self.first = self.first if self.first is not None else doc_ids[0].as_py()
        self.last = doc_ids[-1].as_py()


_ORDINARY, _ROLE, _END_OF_TEXT, _FORBIDDEN = range(4)

_FAULTS = (
    "",
    "has no tokens",
    "has an id outside of the vocabulary",
    "has a special id that may not stand in a document",
    "has a role id although it is no conversation (its loss is null)",
    "has end-of-text before its end",
    "does not end with end-of-text",
    "has loss spans that are empty, outside of it, out of order, or not merged",
    "has a loss weight outside of 1..256",
)
_NO_TOKENS, _OUTSIDE, _SPECIAL, _ROLE_IN_TEXT, _EARLY_END, _NO_END, _SPAN, _WEIGHT = range(1, len(_FAULTS))


def _id_kinds(encoding: Encoding) -> np.ndarray:
    """Return what each id below the padded vocabulary size is (uint8)."""
    kinds = np.full(encoding.vocabulary, _FORBIDDEN, np.uint8)
    kinds[: encoding.ordinary] = _ORDINARY
    kinds[[encoding.roles.end_of_turn, *encoding.role_ids()]] = _ROLE
    kinds[encoding.end_of_text] = _END_OF_TEXT
    return kinds


@numba.njit(nogil=True, cache=True)
def _first_fault(ids, offsets, kinds, trained, span_offsets, starts, ends, weights):  # type: ignore[no-untyped-def]
    """Return (row, fault, tokens that bear loss) of the first faulty document; fault 0 = all are sound."""
    total = 0
    for row in range(len(offsets) - 1):
        first, last = offsets[row], offsets[row + 1]
        fault = _id_fault(ids[first:last], kinds, trained[row])
        if fault:
            return row, fault, 0
        if trained[row]:
            total += last - first
        previous_end, previous_weight = 0, 0
        for span in range(span_offsets[row], span_offsets[row + 1]):
            start, end, weight = int(starts[span]), int(ends[span]), int(weights[span])
            if start < previous_end or end <= start or end > last - first:
                return row, _SPAN, 0
            if weight < 1 or weight > FULL_WEIGHT:
                return row, _WEIGHT, 0
            if start == previous_end and weight == previous_weight:
                return row, _SPAN, 0
            total += end - start
            previous_end, previous_weight = end, weight
    return 0, 0, total


@numba.njit(nogil=True, cache=True)
def _id_fault(ids, kinds, plain):  # type: ignore[no-untyped-def]
    """Return what is wrong with the ids of one document, or 0."""
    if len(ids) == 0:
        return _NO_TOKENS
    for place in range(len(ids)):
        if ids[place] < 0 or ids[place] >= len(kinds):
            return _OUTSIDE
        kind = kinds[ids[place]]
        if kind == _FORBIDDEN:
            return _SPECIAL
        if kind == _ROLE and plain:
            return _ROLE_IN_TEXT
        if kind == _END_OF_TEXT and place != len(ids) - 1:
            return _EARLY_END
    return 0 if kinds[ids[-1]] == _END_OF_TEXT else _NO_END


Spans = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Loss spans of a column of documents: offsets by document (int64), then starts, ends (int32) and weights (int16)."""


def loss_spans(loss: pa.ListArray) -> tuple[np.ndarray, Spans]:
    """Return which documents bear loss in every token (bool: their `loss` is null), and the spans of the others."""
    offsets, spans = lists(loss)
    starts, ends, weights = (spans.field(name).to_numpy() for name in ("start", "end", "weight"))
    return loss.is_null().to_numpy(zero_copy_only=False), (offsets, starts, ends, weights)


class ShardWriter:
    """Streams documents into the three files, which stay the caller's: open before, to be closed and published after.

    Memory: 4 bytes for each document and up to a row group of `DOCS` rows. After an error the files are worthless.
    """

    def __init__(self, bin_file: BinaryIO, idx_file: BinaryIO, docs_file: BinaryIO, encoding: Encoding) -> None:
        self._bin, self._idx, self._docs = (_HashedFile(file) for file in (bin_file, idx_file, docs_file))
        self._checker = _Checker(encoding)
        self._lengths: list[np.ndarray] = []
        self._waiting: list[pa.RecordBatch] = []
        self._parquet = pq.ParquetWriter(
            pa.PythonFile(self._docs, mode="w"),
            DOCS,
            compression="zstd",
            compression_level=COMPRESSION_LEVEL,
            use_dictionary=_DICTIONARY,
            version="2.6",
        )

    def write(self, batch: pa.RecordBatch) -> None:
        """Add the documents of a batch with (at least) the columns of `GIVEN`; `ShardError` if a rule is broken."""
        columns = _given_columns(batch)
        offsets, items = lists(columns["ids"])
        ids = items.to_numpy()
        self._checker.check(columns["doc_id"], ids, offsets, columns["loss"])
        self._bin.write(np.ascontiguousarray(ids, "<i4").view(np.uint8).data)
        lengths = np.diff(offsets)
        self._lengths.append(lengths.astype("<i4"))
        columns["tokens"] = pa.array(lengths)
        self._waiting.append(pa.RecordBatch.from_arrays([columns[name] for name in DOCS.names], schema=DOCS))
        self._write_row_groups()

    def _write_row_groups(self, last: bool = False) -> None:
        """Write the full row groups that wait (and the rest of the last one), each from columns in one chunk."""
        rows = sum(batch.num_rows for batch in self._waiting)
        if rows < ROW_GROUP_ROWS and not (last and rows):
            return
        table = pa.Table.from_batches(self._waiting, DOCS)
        full = rows if last else rows - rows % ROW_GROUP_ROWS
        for start in range(0, full, ROW_GROUP_ROWS):
            size = min(ROW_GROUP_ROWS, full - start)
            self._parquet.write_table(table.slice(start, size).combine_chunks(), row_group_size=ROW_GROUP_ROWS)
        self._waiting = table.slice(full).combine_chunks().to_batches()

    def close(self) -> ShardSummary:
        """Finish the three files and return what they hold."""
        self._write_row_groups(last=True)
        self._parquet.close()
        lengths = np.concatenate([np.empty(0, "<i4"), *self._lengths])
        for part in _index_parts(lengths):
            self._idx.write(part)
        return _summary(self._checker, self._bin.summary(), self._idx.summary(), self._docs.summary())

    def abort(self) -> None:
        """Give up after an error: let go of the files, whatever is in them; nothing is raised."""
        with suppress(OSError, pa.ArrowException):
            self._parquet.close()
        self._parquet.is_open = False  # or its destructor tries again


def _summary(checker: _Checker, bin: FileSummary, idx: FileSummary, docs: FileSummary) -> ShardSummary:
    counts = (checker.documents, checker.tokens, checker.loss_tokens)
    return ShardSummary(*counts, checker.first, checker.last, bin, idx, docs)


def _given_columns(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Return the batch's columns by name; `ShardError` for an absent one, another type, or nulls where none may be."""
    columns: dict[str, pa.Array] = {}
    for field in GIVEN:
        if field.name not in batch.schema.names:
            raise ShardError(f"column {field.name}: is missing\nhint: a shard takes the columns {GIVEN.names}")
        column = batch.column(field.name)
        if not column.type.equals(field.type):
            raise ShardError(f"column {field.name}: of type {column.type}, expected {field.type}")
        if column.null_count and not (field.nullable and field.name != "ids"):
            raise ShardError(f"column {field.name}: has {column.null_count} nulls, none are allowed")
        columns[field.name] = column
    spans = columns["loss"].flatten()
    if columns["ids"].flatten().null_count or spans.null_count or any(part.null_count for part in spans.flatten()):
        raise ShardError("columns ids, loss: null items, none are allowed")
    return columns


def _index_parts(lengths: np.ndarray) -> Iterator[bytes]:
    """Yield the parts of the index of documents of these lengths (int32)."""
    count = len(lengths)
    yield _HEADER.pack(_MAGIC, _VERSION, _INT32, count, count + 1)
    yield lengths.astype("<i4").tobytes()
    yield (running_total(lengths)[:-1] * _TOKEN_BYTES).astype("<i8").tobytes()
    yield np.arange(count + 1, dtype="<i8").tobytes()


@dataclasses.dataclass(frozen=True, slots=True)
class MappedShard:
    """A shard of which only sizes were checked, all of it mapped: it opens at once and costs what is read of it.

    `lengths` (int32) are in tokens, `positions` (int64) the documents' first bytes in `.bin`, `tokens` (int32) all ids.
    Its `.docs.parquet` has row groups of `ROW_GROUP_ROWS`. What `Shard.open` or `verify` found sound once need not be
    read whole again for a few documents of it.
    """

    docs: Path
    lengths: np.ndarray
    positions: np.ndarray
    tokens: np.ndarray

    @classmethod
    def open(cls, prefix: Path) -> MappedShard:
        """Map the files `prefix` + suffix of a shard that has documents; `ShardError` where sizes do not fit."""
        file = _file(prefix, "idx")
        size = _size(file)
        with file.open("rb") as stream:
            count = _read_count(stream, file, size)
        if not count:
            raise ShardError(f"{file}: has no documents, nothing can be mapped")
        index = np.memmap(file, np.uint8, "r", _HEADER.size)
        lengths, positions = index[: 4 * count].view("<i4"), index[4 * count : 12 * count].view("<i8")
        tokens = int(positions[-1]) // _TOKEN_BYTES + int(lengths[-1])
        return cls(_file(prefix, "docs"), lengths, positions, _map_tokens(_file(prefix, "bin"), tokens))

    def offsets(self, first: int, last: int) -> np.ndarray:
        """Return where in `tokens` the documents [first, last) begin (int64)."""
        return np.asarray(self.positions[first:last]) // _TOKEN_BYTES

    def read_docs(self, first: int, last: int, columns: Sequence[str]) -> pa.Table:
        """Return these columns of the document table, rows [first, last); only their row groups are read."""
        groups = range(first // ROW_GROUP_ROWS, -(-last // ROW_GROUP_ROWS))
        try:
            with pq.ParquetFile(self.docs) as file:
                table = file.read_row_groups(list(groups), columns=list(columns))
        except (OSError, pa.ArrowException) as error:
            raise ShardError(f"{self.docs}: cannot be read ({error})") from error
        return table.slice(first - groups.start * ROW_GROUP_ROWS, last - first)


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """A shard opened for reading; `.bin` is mapped, not read. Use `Shard.open`.

    `lengths` (int32) and `offsets` (int64, shape (documents + 1,)) are in tokens.
    """

    prefix: Path
    encoding: Encoding
    lengths: np.ndarray
    offsets: np.ndarray
    tokens: np.ndarray

    @classmethod
    def open(cls, prefix: Path, encoding: Encoding) -> Shard:
        """Open the files `prefix` + suffix and check that magic, dtype, counts and sizes agree; else `ShardError`."""
        lengths = _read_index(_file(prefix, "idx"))
        offsets = running_total(lengths)
        shard = cls(prefix, encoding, lengths, offsets, _map_tokens(_file(prefix, "bin"), int(offsets[-1])))
        rows = shard._docs_file().metadata.num_rows
        if rows != len(lengths):
            raise ShardError(f"{_file(prefix, 'docs')}: {rows} rows, the index has {len(lengths)} documents")
        return shard

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.lengths)

    def ids(self, document: int) -> np.ndarray:
        """Return the ids (int32, read-only, mapped) of the document at this place, counted from 0."""
        if not 0 <= document < len(self):
            raise IndexError(f"{self.prefix}: document {document}, there are {len(self)}")
        return self.tokens[self.offsets[document] : self.offsets[document + 1]]

    def doc_ids(self) -> pa.ChunkedArray:
        """Return the doc_id column (binary(16)), ascending."""
        with self._docs_file() as file:
            return file.read(["doc_id"]).column("doc_id")

    def docs(self) -> pa.Table:
        """Return the whole document table (`DOCS`)."""
        with self._docs_file() as file:
            return file.read()

    def verify(self) -> ShardSummary:
        """Read and hash everything, and check every rule that the writer enforces; `ShardError` if one is broken.

        The hashes are those of the files as they are: the caller compares them with the manifest's.
        """
        checker = _Checker(self.encoding)
        row = 0
        for batch in self._docs_batches():
            self._verify_batch(checker, batch, row)
            row += batch.num_rows
        return _summary(checker, *(_hash_file(_file(self.prefix, name)) for name in SUFFIXES))

    def _verify_batch(self, checker: _Checker, batch: pa.RecordBatch, row: int) -> None:
        offsets = self.offsets[row : row + batch.num_rows + 1]
        if not np.array_equal(batch.column("tokens").to_numpy(), self.lengths[row : row + batch.num_rows]):
            raise ShardError(f"{self.prefix}: token counts of its documents and of its index differ")
        ids = np.asarray(self.tokens[offsets[0] : offsets[-1]])
        try:
            checker.check(batch.column("doc_id"), ids, offsets - offsets[0], batch.column("loss"))
        except ShardError as error:
            raise ShardError(f"{self.prefix}: {error}") from error

    def _docs_batches(self) -> Iterator[pa.RecordBatch]:
        with self._docs_file() as file:
            try:
                yield from file.iter_batches(ROW_GROUP_ROWS)
            except (OSError, pa.ArrowException) as error:
                raise ShardError(f"{_file(self.prefix, 'docs')}: cannot be read ({error})") from error

    def _docs_file(self) -> pq.ParquetFile:
        path = _file(self.prefix, "docs")
        try:
            file = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise ShardError(f"{path}: cannot be read ({error})") from error
        if not file.schema_arrow.equals(DOCS):
            file.close()
            raise ShardError(f"{path}: its columns are not those of a shard\nhint: expected {DOCS.names}")
        return file


def _file(prefix: Path, name: str) -> Path:
    return prefix.with_name(prefix.name + SUFFIXES[name])


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise ShardError(f"{file}: cannot be read ({error.strerror})") from error


def _map_tokens(file: Path, tokens: int) -> np.ndarray:
    size = _size(file)
    if size != tokens * _TOKEN_BYTES:
        raise ShardError(f"{file}: {size} bytes, the index speaks of {tokens * _TOKEN_BYTES}")
    # an empty file cannot be mapped
    return np.memmap(file, "<i4", "r") if size else np.empty(0, "<i4")


def _read_count(stream: BinaryIO, file: Path, size: int) -> int:
    """Read the header of an index of `size` bytes; return how many documents; `ShardError` where it does not fit."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise ShardError(f"{file}: {size} bytes, too short for an index")
    magic, version, dtype, count, bounds = _HEADER.unpack(header)
    found, expected = (magic, version, dtype, bounds), (_MAGIC, _VERSION, _INT32, count + 1)
    if found != expected:
        raise ShardError(f"{file}: magic, version, dtype and bounds are {found}, expected {expected}")
    if size != _HEADER.size + 20 * count + 8:
        raise ShardError(f"{file}: {size} bytes for {count} documents, expected {_HEADER.size + 20 * count + 8}")
    return int(count)


def _read_index(file: Path) -> np.ndarray:
    """Return the documents' lengths (int32); `ShardError` unless every byte of the index is what it must be."""
    size = _size(file)
    with file.open("rb") as stream:
        count = _read_count(stream, file, size)
        body = stream.read()
    lengths = np.frombuffer(body, "<i4", count).copy()
    if (lengths < 1).any() or body != b"".join(list(_index_parts(lengths))[1:]):
        raise ShardError(f"{file}: lengths, positions and bounds do not fit together")
    return lengths


def _hash_file(file: Path) -> FileSummary:
    with file.open("rb") as stream:
        return FileSummary(_size(file), hashlib.file_digest(stream, "sha256").hexdigest())
