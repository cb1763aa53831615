"""`group` out of files: scatter every input into buckets, then order and reduce each bucket.

For engines without a shuffle. Scatter writes one Arrow file an input whose record batches belong to one bucket each;
a bucket is put together from its batches of all files, ordered in memory and streamed through the reduce. Memory is
one bucket's rows: about twice the table's size divided by the number of buckets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from pipelines.commit import Commit, CommittedTable, FileRecord, make_commit
from pipelines.engines.mapping import REJECTS_OUTPUT, Writing, conform, count_written, part
from pipelines.errors import LedgerImbalance
from pipelines.ledger import SplitLedger
from pipelines.sinks.sink import HashingFile
from pipelines.sinks.tables import count_by_source
from pipelines.sources.source import BatchLimits
from pipelines.stage import GroupStage
from pipelines.storage.storage import Storage

HELD_BYTES = 256 << 20
"""Scatter orders this much of its input at a time."""
READ_STEP, REDUCE_STEP, WRITE_STEP = 0, 1, 2


@dataclasses.dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of a group stage, and the scattered files that hold its rows."""

    number: int
    of: int
    files: tuple[FileRecord, ...]
    """Scattered files; `detail["batches"][number]` lists the record batches of the bucket."""

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
    return xxhash.xxh3_128_hexdigest("\x00".join([str(place), commit.split, *(file.path for file in files)]))


def scatter(
    stage: GroupStage, files: Sequence[FileRecord], given: Storage, split_id: str, output: Storage, limits: BatchLimits
) -> Commit:
    """Write files of an input table, which lie in the storage `given`, as an Arrow file in buckets, and commit it."""
    attempt, folder = output.new_attempt(), scatter_folder(stage)
    with ExitStack() as stack:
        stack.callback(output.discard, attempt)
        target = HashingFile(stack.enter_context(closing(output.create(attempt, "scatter.arrow"))))
        batches: dict[str, list[int]] = {}
        rows = number = 0
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_file(target, stage.schema, options=options) as writer:
            for bucket, piece in _pieces(stage, files, given, limits):
                batches.setdefault(str(bucket), []).append(number)
                writer.write_batch(piece)
                number, rows = number + 1, rows + piece.num_rows
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
    """Order one bucket's rows, reduce them, write what comes out and commit it."""
    ledger = SplitLedger(stage.name, bucket.label)
    documents = any(table.table == "documents" for table in stage.outputs)
    outputs = (*stage.outputs, REJECTS_OUTPUT) if documents else stage.outputs
    came, went = _Ids(), _Ids()
    with Writing(output, stage.folder, split_id, outputs) as writing:
        ordered = _ordered(stage, bucket, output, limits)
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
                f"stage {stage.name}, {bucket.label}: {stage.reduce.name} returned other documents than it was given\n"
                "hint: it must return every document and mark what should go by its verdict"
            )
        return writing.commit(split_id, bucket.label, ledger, WRITE_STEP if documents else READ_STEP)


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
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (bucket, rows) over the input files, `HELD_BYTES` at a time."""
    held: list[pa.RecordBatch] = []
    size = 0
    for record in files:
        with given.open(record.path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
            for batch in parquet.iter_batches(batch_size=limits.max_rows, use_threads=False):
                held.append(batch.cast(stage.schema))
                size += batch.nbytes
                if size >= HELD_BYTES:
                    yield from _partition(stage, held)
                    held, size = [], 0
    yield from _partition(stage, held)


def _partition(stage: GroupStage, held: list[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    table = pa.Table.from_batches(held, stage.schema).combine_chunks()
    if table.num_rows == 0:
        return
    rows = table.to_batches()[0]
    buckets = bucket_of(rows.column(stage.key), stage.buckets)
    order = np.argsort(buckets, kind="stable")
    rows, buckets = rows.take(pa.array(order)), buckets[order]
    starts = np.flatnonzero(np.diff(buckets, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(buckets)], strict=True):
        yield int(buckets[start]), rows.slice(start, stop - start)


def _ordered(stage: GroupStage, bucket: Bucket, output: Storage, limits: BatchLimits) -> Iterator[pa.RecordBatch]:
    """Yield the bucket's rows in their total order."""
    pieces: list[pa.RecordBatch] = []
    for record in bucket.files:
        numbers = record.detail["batches"].get(str(bucket.number), [])
        if numbers:
            with output.open(record.path) as file:
                reader = pa.ipc.open_file(file)
                pieces.extend(reader.get_batch(number) for number in numbers)
    table = pa.Table.from_batches(pieces, stage.schema).combine_chunks()
    names = dict.fromkeys((stage.key, *stage.order_by, *stage.identity))
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in names])  # nulls at the end
    for start in range(0, table.num_rows, limits.max_rows):
        ordered = table.take(order.slice(start, limits.max_rows)).combine_chunks()
        yield from ordered.to_batches()
