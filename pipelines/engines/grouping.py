"""`group` out of files: scatter every input into buckets, then order and reduce each bucket.

For engines without a shuffle. Scatter writes one Arrow file an input: sorted runs of small record batches, each of one
bucket. The runs that a bucket has in all files are merged and streamed through the reduce. Memory is bounded, whatever
the size of an input, of a bucket and of what belongs to one key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipelines.commit import Commit, CommittedTable, FileRecord, make_commit
from pipelines.engines import merging
from pipelines.engines.mapping import REJECTS_OUTPUT, Writing, conform, count_written, part
from pipelines.errors import HeadraceError, LedgerImbalance
from pipelines.ledger import SplitLedger
from pipelines.sinks.sink import HashingFile
from pipelines.sinks.tables import count_by_source, read_batches
from pipelines.sources.source import BatchLimits
from pipelines.stage import GroupStage
from pipelines.storage.storage import Storage

HELD_BYTES = 64 << 20
"""Scatter sorts this much of its input (and what of a row group comes over it) at a time, in twice as much memory."""
NARROW = 16
"""Rows of tables that hold no texts come in batches of so many times the rows of documents."""
REDUCED_BYTES = 2 << 20
"""Of a batch that a reduce sees."""
SCATTER_FORMAT = "runs"
"""Part of every scatter's id, so that what another version scattered is not taken up."""
READ_STEP, REDUCE_STEP, WRITE_STEP = 0, 1, 2


@dataclasses.dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of a group stage, and the scattered files that hold its rows."""

    number: int
    of: int
    files: tuple[FileRecord, ...]
    """Scattered files; `detail["batches"][number]` lists the runs of the bucket in a file, each as [number of its first
    record batch, number of the one behind its last, bytes in memory of its largest]."""

    @property
    def label(self) -> str:
        """What people and the ledger call it."""
        return bucket_label(self.number, self.of)


def bucket_label(number: int, of: int) -> str:
    """Return the label of a bucket: the same in every stage with as many buckets."""
    return f"bucket {number:05d} of {of:05d}"


def bucket_id(stage: GroupStage, number: int, inputs: Sequence[CommittedTable]) -> str:
    """Return the id of a bucket's commit: it depends on what goes in, so a stale commit is never taken for it."""
    paths = sorted(file.path for given in inputs for commit in given.commits for file in given.files_of(commit))
    return xxhash.xxh3_128_hexdigest("\x00".join([stage.name, bucket_label(number, stage.buckets), *paths]).encode())


def bucket_of(keys: pa.Array, buckets: int) -> np.ndarray:
    """Return each key's bucket (int64, shape (rows,)): the high 32 bits of xxh3(key), scaled to `buckets`.

    A 16-byte key is an xxh3_128 already and is its own hash, so buckets follow the order of doc_ids. Other keys are
    hashed: strings and bytes as they are, integers as 8 bytes, little endian.
    """
    if keys.null_count:
        raise ValueError("a group key is null: every row needs one")
    if keys.type == pa.binary(16):
        words = np.frombuffer(keys.buffers()[1], ">u4", count=4 * (keys.offset + len(keys)))
        high = words[4 * keys.offset :: 4].astype(np.int64)
    else:
        numbers = pa.types.is_integer(keys.type)
        values = (
            [key.to_bytes(8, "little", signed=key < 0) for key in keys.to_pylist()] if numbers else keys.to_pylist()
        )
        high = np.array([xxhash.xxh3_64_intdigest(value) >> 32 for value in values], np.int64)
    return (high * buckets) >> 32


def scatter_id(place: int, commit: Commit, files: Sequence[FileRecord]) -> str:
    """Return the id of the scatter of one commit of the input at `place`: it depends on the contents of its files."""
    parts = [SCATTER_FORMAT, str(place), commit.split, *(file.path for file in files)]
    return xxhash.xxh3_128_hexdigest("\x00".join(parts))


def scatter(
    stage: GroupStage, files: Sequence[FileRecord], given: Storage, split_id: str, output: Storage, limits: BatchLimits
) -> Commit:
    """Write files of an input table, which lie in the storage `given`, as an Arrow file in buckets, and commit it."""
    attempt, folder = output.new_attempt(), scatter_folder(stage)
    with ExitStack() as stack:
        stack.callback(output.discard, attempt)
        target = HashingFile(stack.enter_context(closing(output.create(attempt, "scatter.arrow"))))
        batches: dict[str, list[list[int]]] = {}
        rows = number = 0
        with pa.ipc.new_file(target, stage.schema, options=merging.IPC_WRITE) as writer:
            for (bucket, _), pieces in groupby(_pieces(stage, files, given, limits), key=itemgetter(0)):
                first, largest = number, 0
                for _, piece in pieces:
                    writer.write_batch(piece)
                    number, rows, largest = number + 1, rows + piece.num_rows, max(largest, piece.nbytes)
                batches.setdefault(str(bucket), []).append([first, number, largest])
        target.close()
        path = f"{folder}/scattered/{split_id[:16]}-{target.sha256[:16]}.arrow"
        record = FileRecord("scattered", path, target.size, target.sha256, rows, detail={"batches": batches})
        output.publish(attempt, "scatter.arrow", path)
        commit = Commit(split_id, "scatter", (record,), ())
        return make_commit(output, folder, commit)


def scatter_folder(stage: GroupStage) -> str:
    """Return where the scattered files and their commits lie until the stage is done."""
    return f"{stage.folder}/scatter"


def reduce_bucket(stage: GroupStage, bucket: Bucket, split_id: str, output: Storage, limits: BatchLimits) -> Commit:
    """Merge one bucket's scattered runs, reduce them, write what comes out and commit it."""
    with closing(_ordered(stage, bucket, output, limits)) as ordered:
        return reduce_rows(stage, bucket.number, ordered, split_id, output)


def reduce_rows(
    stage: GroupStage, number: int, ordered: Iterator[pa.RecordBatch], split_id: str, output: Storage
) -> Commit:
    """Reduce the rows of the bucket `number`, which come in their total order, write what comes out and commit it.

    Rows of one key may span batches. Raises `LedgerImbalance` when the reduce returns other documents than it was
    given.
    """
    label = bucket_label(number, stage.buckets)
    ledger = SplitLedger(stage.name, label)
    documents = any(table.table == "documents" for table in stage.outputs)
    outputs = (*stage.outputs, REJECTS_OUTPUT) if documents else stage.outputs
    came, went = _Ids(), _Ids()
    with Writing(output, stage.folder, split_id, outputs) as writing:
        arrived = (
            came.seen(_counted(ordered, stage, ledger, documents)) if documents else _counted(ordered, stage, ledger)
        )
        for tables in stage.reduce(arrived):
            for table, rows in tables.items():
                if table == "documents":
                    went.add(rows)
                    _write_documents(stage, rows, writing, ledger)
                else:
                    writing.write(table, rows)
        if came != went:
            raise LedgerImbalance(
                f"stage {stage.name}, {label}: {stage.reduce.name} returned other documents than it was given\n"
                "hint: it must return every document and mark what should go by its verdict"
            )
        return writing.commit(split_id, label, ledger, WRITE_STEP if documents else READ_STEP)


@dataclasses.dataclass(slots=True)
class _Ids:
    """Which documents went by, whatever their order: their number and the sum of their ids."""

    count: int = 0
    total: int = 0

    def add(self, rows: pa.RecordBatch) -> None:
        ids = rows.column("doc_id")
        words = np.frombuffer(ids.buffers()[1], "u8", count=2 * (ids.offset + len(ids)))[2 * ids.offset :]
        self.count += len(ids)
        self.total = (self.total + int(words[0::2].sum()) + 3 * int(words[1::2].sum())) % 2**64

    def seen(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.add(batch)
            yield batch


def _write_documents(stage: GroupStage, rows: pa.RecordBatch, writing: Writing, ledger: SplitLedger) -> None:
    parted = part(rows, REDUCE_STEP, stage.reduce.name, ledger)
    writing.write("rejects", parted.rejected)
    count_written(parted.kept, WRITE_STEP, ledger)
    for output in stage.projections():
        writing.write(output.table, conform(parted.kept, output.schema))


def _counted(
    batches: Iterator[pa.RecordBatch], stage: GroupStage, ledger: SplitLedger, documents: bool = False
) -> Iterator[pa.RecordBatch]:
    """Enter rows as they arrive from the scatter, and (`documents` that must come out again) as they are reduced."""
    steps: tuple[tuple[int, str, tuple[str, ...]], ...] = ((READ_STEP, "read", ("in", "out")),)
    if documents or stage.input_table != "documents":
        steps += ((REDUCE_STEP, stage.reduce.name, ("in",)),)
    for batch in batches:
        for source, rows, size in count_by_source(batch):
            for step, name, accounts in steps:
                for account in accounts:
                    ledger.add(
                        step, name, account, source=source, table=stage.input_table, rows=rows, bytes=size
                    )  # fmt: skip
        yield batch


def _pieces(
    stage: GroupStage, files: Sequence[FileRecord], given: Storage, limits: BatchLimits
) -> Iterator[tuple[tuple[int, int], pa.RecordBatch]]:
    """Yield ((bucket, number of the sort), rows) over the input files: the batches of sorted runs."""
    for number, held in enumerate(_held(stage, files, given, limits)):
        for bucket, rows in _partition(stage, held):
            yield (bucket, number), rows


def _held(
    stage: GroupStage, files: Sequence[FileRecord], given: Storage, limits: BatchLimits
) -> Iterator[list[pa.RecordBatch]]:
    """Yield the rows of the input files, `HELD_BYTES` at a time; the list is the receiver's to empty."""
    held: list[pa.RecordBatch] = []
    size = 0
    for record in files:
        for batch in _read_table(given, record.path, stage.schema, NARROW * limits.max_rows):
            held.append(batch)
            size += batch.nbytes
            del batch  # or it lives on while the held rows are sorted
            if size >= HELD_BYTES:
                yield held
                held, size = [], 0
    yield held


def _read_table(given: Storage, path: str, schema: pa.Schema, max_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table's file. Raises `HeadraceError` for one that is damaged: of an earlier run it may be."""
    try:
        with given.open(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
            for batch in read_batches(parquet, max_rows):
                yield batch.cast(schema)
                del batch
    except pa.ArrowException as error:
        raise HeadraceError(
            f"{given.url}/{path}: cannot be read: {error}\nhint: delete its commit and run its recipe again"
        ) from error


def _partition(stage: GroupStage, held: list[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (bucket, rows) in the order of buckets, and in each in the total order; empties `held`."""
    if not held:
        return
    rows = pa.concat_batches(held)
    held.clear()
    numbers = pa.array(bucket_of(rows.column(stage.key), stage.buckets))
    names = _total_order(stage)
    order = merging.order_of(rows.select(names).add_column(0, "bucket", numbers), ["bucket", *names])
    buckets = numbers.take(order).to_numpy()
    starts = np.flatnonzero(np.diff(buckets, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(buckets)], strict=True):
        for piece in merging.take(rows, order.slice(start, stop - start), merging.RUN_LIMITS):
            yield int(buckets[start]), piece


def _total_order(stage: GroupStage) -> list[str]:
    """Return the columns that order the rows of a bucket."""
    return list(dict.fromkeys((stage.key, *stage.order_by, *stage.identity)))


def _ordered(
    stage: GroupStage, bucket: Bucket, output: Storage, limits: BatchLimits
) -> Generator[pa.RecordBatch, None, None]:
    """Yield the bucket's rows in their total order."""
    runs = []
    for record in bucket.files:
        file = _ScatteredFile(output, record.path)
        found = record.detail["batches"].get(str(bucket.number), [])
        runs += [_ScatteredRun(file, first, stop, largest) for first, stop, largest in found]
    return merging.merge(runs, stage.schema, _total_order(stage), _reduced_at_once(limits))


def _reduced_at_once(limits: BatchLimits) -> BatchLimits:
    """Return the limits of the batches that a reduce sees: rows of a few bytes in larger numbers than documents."""
    return BatchLimits(NARROW * limits.max_rows, min(limits.max_bytes, REDUCED_BYTES))


@dataclasses.dataclass(slots=True)
class _ScatteredFile:
    """A scattered file, open as long as any of its runs is being read."""

    storage: Storage
    path: str
    _users: int = 0
    _open: Any = None
    _reader: Any = None

    @contextmanager
    def reading(self) -> Iterator[pa.ipc.RecordBatchFileReader]:
        """Give its reader."""
        if self._users == 0:
            self._open = self.storage.open(self.path)
        self._users += 1
        try:
            if self._reader is None:
                self._reader = pa.ipc.open_file(self._open, options=merging.IPC_READ)
            yield self._reader
        finally:
            self._users -= 1
            if self._users == 0:
                self._open.close()
                self._open = self._reader = None


@dataclasses.dataclass(frozen=True, slots=True)
class _ScatteredRun:
    """Some consecutive record batches of a scattered file: rows of one bucket in order."""

    file: _ScatteredFile
    first: int
    stop: int
    largest: int

    def read(self) -> Generator[pa.RecordBatch, None, None]:
        """Yield the batches, each read when it is asked for."""
        with self.file.reading() as reader:
            for number in range(self.first, self.stop):
                yield reader.get_batch(number)
