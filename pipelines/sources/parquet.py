"""Parquet files that may be damaged: splits between row groups, and rows with the account of their raw bytes.

A file's bytes are shared evenly among its rows (`size * row // rows`); rows that cannot be read are gaps, and reading
goes on with the next row group. Memory: column chunks are streamed and strings are read as dictionaries; what is left
is one page, at most 2 GiB. Arrow reads in the calling thread only: its own threads, when they still hold a Python file
while the interpreter ends, abort the process.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import RecipeError
from pipelines.sources.columns import is_text
from pipelines.sources.source import RawAccount, Split, Verdict, damage_verdict
from pipelines.storage.storage import ReadStorage, StoredFile

READ_BYTES = 1 << 20
"""Bytes of a column chunk that are read at a time."""

BROKEN = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises for a damaged file; the last for a column's name in the footer."""


@dataclasses.dataclass(frozen=True, slots=True)
class RowRun:
    """Consecutive rows from number `start` on or, with a verdict and no batch, the row at which a file is damaged."""

    start: int
    batch: pa.RecordBatch | None
    verdict: Verdict | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Share:
    """The bytes of a file, shared evenly among its rows; the shares of all ranges add up to the file's size."""

    size: int
    num_rows: int

    def of(self, start: int, stop: int) -> int:
        """Return the bytes that rows [start, stop) stand for; a file without rows is one share."""
        if not self.num_rows:
            return self.size
        return self.size * stop // self.num_rows - self.size * start // self.num_rows


def row_splits(source: str, file: StoredFile, storage: ReadStorage, needed: str, split_bytes: int) -> list[Split]:
    """Cut a file between row groups, at about `split_bytes` uncompressed bytes.

    One whose footer cannot be read is left whole, and `read_rows` reports it. Raises `RecipeError` unless there is
    exactly one column `needed`.
    """
    try:
        with storage.open(file.path) as stream:
            footer = _open(stream)
            names, metadata = footer.schema_arrow.names, footer.metadata
            first_rows = _first_rows(metadata)
    except BROKEN:
        return [Split(source, (file,))]
    if names.count(needed) != 1:
        raise RecipeError(
            f"source {source}: {file.path} has {names.count(needed)} columns "
            f"{needed!r}, one is needed for the text\nhint: set text to one of {', '.join(names)}"
        )
    bounds, size = [0], 0
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).total_byte_size
        if size >= split_bytes or group == metadata.num_row_groups - 1:
            bounds.append(first_rows[group + 1])
            size = 0
    if len(bounds) <= 2:
        return [Split(source, (file,))]
    return [Split(source, (file,), start, stop) for start, stop in itertools.pairwise(bounds)]


def read_rows(
    split: Split, storage: ReadStorage, columns: Collection[str], max_rows: int, limit: int | None, account: RawAccount
) -> Iterator[RowRun]:
    """Yield the split's rows, at most `limit`, in runs of at most `max_rows`, and count all of its raw bytes.

    Of `columns`, those that the file has exactly once are read. Where a row group breaks, one run is a verdict
    `errored`, and reading goes on with the next group; a file that cannot be opened is one such run.
    """
    path = split.files[0].path
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(storage.open(path))
            file = _open_columns(stream, columns)
            first_rows = _first_rows(file.metadata)
        except BROKEN as error:
            size = split.files[0].size if split.start == 0 else 0
            account.size += size
            account.gap("unreadable", size)
            verdict = damage_verdict("unreadable", path, split.start, _first_words(error))
            yield RowRun(split.start, None, verdict)
            return
        yield from _RowGroups(split, file, first_rows, columns, max_rows).read(limit, account)


class _RowGroups:
    """The row groups of one open file that lie in a split."""

    def __init__(
        self, split: Split, file: pq.ParquetFile, first_rows: list[int], columns: Collection[str], max_rows: int
    ) -> None:
        names = file.schema_arrow.names
        self._split, self._file, self._max_rows = split, file, max_rows
        self._bounds = list(itertools.pairwise(first_rows))
        self._share = _Share(split.files[0].size, first_rows[-1])
        self._columns = [name for name in columns if names.count(name) == 1]

    def read(self, limit: int | None, account: RawAccount) -> Iterator[RowRun]:
        """Yield the rows of the groups that begin in the split."""
        first, share = self._split.start, self._share
        stop = share.num_rows if self._split.stop < 0 else min(self._split.stop, share.num_rows)
        last = stop if limit is None else min(stop, first + limit)
        account.size += share.of(first, stop)
        for group, (start, end) in enumerate(self._bounds):
            if first <= start < min(end, last):
                yield from self._read_group(group, start, min(end, last), account)
        if last < stop:
            account.gap("beyond_limit", share.of(last, stop), stop - last)
        if not share.num_rows:
            account.gap("empty", account.size)

    def _read_group(self, group: int, start: int, end: int, account: RawAccount) -> Iterator[RowRun]:
        """Yield the rows [start, end) of a group and, where it breaks, the verdict."""
        cause = "the row group ends here"
        try:
            for batch in self._batches(group):
                batch = batch.slice(0, end - start)
                yield RowRun(start, batch)
                account.records += self._share.of(start, start + batch.num_rows)
                start += batch.num_rows
                if start == end:
                    return
        except BROKEN as error:
            cause = _first_words(error)
        account.gap("damaged", self._share.of(start, end), end - start)
        cause = f"rows {start} to {end - 1} are lost: {cause}"
        yield RowRun(start, None, damage_verdict("damaged_file", self._split.files[0].path, start, cause))

    def _batches(self, group: int) -> Iterator[pa.RecordBatch]:
        for batch in self._file.iter_batches(self._max_rows, [group], columns=self._columns, use_threads=False):
            for column in batch.columns:
                _check_indices(column)
            yield batch


def _open(stream: BinaryIO, **options: Any) -> pq.ParquetFile:
    return pq.ParquetFile(stream, pre_buffer=False, **options)


def _open_columns(stream: BinaryIO, columns: Collection[str]) -> pq.ParquetFile:
    """Open a file so that memory is bounded: column chunks are streamed, strings are read as dictionaries."""
    footer = _open(stream)
    texts = [field.name for field in footer.schema_arrow if field.name in columns and is_text(field.type)]
    return _open(stream, metadata=footer.metadata, read_dictionary=texts, buffer_size=READ_BYTES)


def _first_rows(metadata: pq.FileMetaData) -> list[int]:
    """Return the number of each row group's first row, and the number of rows at the end."""
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if any(count < 0 for count in counts):
        raise pa.ArrowInvalid("the footer gives a row group a negative number of rows")
    return [0, *itertools.accumulate(counts)]


def _check_indices(column: pa.Array) -> None:
    """Raise `ArrowInvalid` for indices outside the dictionary: damaged pages hold such, and pyarrow lets them pass."""
    if not pa.types.is_dictionary(column.type) or not len(column) or column.null_count == len(column):
        return
    least, largest = (value.as_py() for value in pc.min_max(column.indices).values())
    if least < 0 or largest >= len(column.dictionary):
        raise pa.ArrowInvalid(f"dictionary index {max(-least, largest)} of {len(column.dictionary)}")


def _first_words(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
