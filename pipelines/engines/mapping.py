"""`map` for one split: read it, send every batch through the chain, count, write, publish, commit.

This is the same function on every engine. The counts that it keeps do not trust the transforms: rows and bytes are
measured before and after each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.commit import Commit, FileRecord, make_commit
from pipelines.errors import HeadraceError, LedgerImbalance
from pipelines.ledger import SplitLedger, check_split
from pipelines.schema import CORE, REJECTS, with_columns
from pipelines.sinks.sink import Output, Place, Sink
from pipelines.sinks.tables import TableOutput, count_by_source, text_bytes
from pipelines.sources.source import BatchLimits, RawAccount, Split
from pipelines.stage import MapStage
from pipelines.storage.storage import ReadStorage, Storage
from pipelines.transform import SideTransform, Transform

COMMITTED = "committed"
"""Kind of the source that reads an earlier stage's table."""

REJECTS_OUTPUT = TableOutput("rejects", REJECTS)


class Parted(NamedTuple):
    """The rows of a batch that go on, and those that stop (as rejects), with the mask that parted them."""

    kept: pa.RecordBatch
    rejected: pa.RecordBatch
    stops: np.ndarray


def map_split(
    stage: MapStage, split: Split, split_id: str, output: Storage, side: dict[str, pa.Table], limits: BatchLimits
) -> Commit:
    """Carry out a map stage for one split and commit it under `split_id`; returns the commit that stands.

    `side` holds the stage's side tables by name, cut to this split. Raises `LedgerImbalance` when rows were lost.
    """
    chain = stage.chains[split.source]
    transforms = [_bound(transform, side) for transform in chain.transforms]
    ledger, account = SplitLedger(stage.name, str(split)), RawAccount()
    documents = any(table.table == "documents" for table in stage.outputs)
    last_step = len(transforms) + 1 if documents else len(transforms)
    for name, rows in side.items():
        ledger.add(0, "side", "in", source="", table=name, rows=rows.num_rows)
    rejects = TableOutput(REJECTS_OUTPUT.table, stage.rejects)
    with Writing(output, stage.folder, split_id, (*stage.outputs, rejects)) as writing:
        for batch in _read(stage, split, limits, account):
            count_read(batch, chain.source.kind, ledger)
            kept, rejected = apply_all(transforms, batch, ledger, rejects.schema)
            writing.write("rejects", rejected)
            if documents:
                count_written(kept, last_step, ledger)
            for table in stage.outputs:
                writing.write(table.table, conform(kept, table.schema))
        if chain.source.kind != COMMITTED:
            _check_size(account, split)
            _check_unchanged(chain.storage, split)
            _count_raw(account, split.source, ledger)
        return writing.commit(split_id, str(split), ledger, last_step)


def apply_all(
    transforms: list[Transform], batch: pa.RecordBatch, ledger: SplitLedger, rejects_schema: pa.Schema = REJECTS
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Send a batch as it was read through the chain; returns kept rows, and rejects in the order of the records.

    That order, and not the order of the steps, is what stays the same however rows are grouped into batches.
    """
    parted = part(batch, 0, "read", ledger, rejects_schema)
    places = np.arange(batch.num_rows)
    rejects, reject_places = [parted.rejected], [places[parted.stops]]
    for step, transform in enumerate(transforms, start=1):
        places = places[~parted.stops]
        parted = apply(transform, parted.kept, step, ledger, rejects_schema)
        rejects.append(parted.rejected)
        reject_places.append(places[parted.stops])
    order = np.argsort(np.concatenate(reject_places))
    return parted.kept, pa.concat_batches(rejects).take(pa.array(order))


def apply(
    transform: Transform, batch: pa.RecordBatch, step: int, ledger: SplitLedger, rejects_schema: pa.Schema = REJECTS
) -> Parted:
    """Apply one transform to kept rows and count what it did to them, by source.

    Raises `LedgerImbalance` when it does not return the same rows in the same order, or another schema than declared.
    """
    for source, num_rows, num_bytes in count_by_source(batch):
        _add(ledger, step, transform.name, "in", source, num_rows, num_bytes)
    result = transform(batch)
    _check_rows(transform, batch, result)
    change = text_bytes(result).to_numpy() - text_bytes(batch).to_numpy()
    for account, edited in (("added", np.maximum(change, 0)), ("trimmed", np.maximum(-change, 0))):
        if edited.any():
            table = pa.table({"source": batch.column("source"), "bytes": edited, "rows": (edited > 0).astype(np.int64)})
            sums = table.group_by("source").aggregate([("rows", "sum"), ("bytes", "sum")])
            for row in sums.to_pylist():
                source, num_rows, num_bytes = row["source"], row["rows_sum"], row["bytes_sum"]
                _add(ledger, step, transform.name, account, source, num_rows, num_bytes, transform.name)
    return part(result, step, transform.name, ledger, rejects_schema)


def part(
    batch: pa.RecordBatch, step: int, name: str, ledger: SplitLedger, rejects_schema: pa.Schema = REJECTS
) -> Parted:
    """Part kept rows from those with a verdict, and count both, by source and reason."""
    stops = pc.is_valid(batch.column("verdict")).to_numpy(zero_copy_only=False)
    kept = batch.filter(pa.array(~stops)) if stops.any() else batch
    rejected = batch.filter(pa.array(stops)) if stops.any() else batch.slice(0, 0)
    for source, num_rows, num_bytes in count_by_source(kept):
        _add(ledger, step, name, "out", source, num_rows, num_bytes)
    if rejected.num_rows:
        verdicts = rejected.column("verdict")
        sums = pa.table(
            {
                "source": rejected.column("source"),
                "outcome": pc.struct_field(verdicts, "outcome"),
                "reason": pc.struct_field(verdicts, "reason"),
                "bytes": text_bytes(rejected),
            }
        ).group_by(["source", "outcome", "reason"])
        for row in sums.aggregate([("bytes", "count"), ("bytes", "sum")]).to_pylist():
            _add(ledger, step, name, row["outcome"], row["source"], row["bytes_count"], row["bytes_sum"], row["reason"])
    return Parted(kept, _as_rejects(rejected, name, rejects_schema), stops)


def count_read(batch: pa.RecordBatch, kind: str, ledger: SplitLedger) -> None:
    """Enter rows as they arrive: from an earlier stage as `in`, from a source their text as `added`."""
    account, reason = ("in", "") if kind == COMMITTED else ("added", "read")
    for source, num_rows, num_bytes in count_by_source(batch):
        _add(ledger, 0, "read", account, source, num_rows, num_bytes, reason)


def count_written(kept: pa.RecordBatch, step: int, ledger: SplitLedger) -> None:
    """Enter what is handed to the sinks; what they put out is counted by themselves."""
    for source, num_rows, num_bytes in count_by_source(kept):
        _add(ledger, step, "write", "in", source, num_rows, num_bytes)
    if "ids" in kept.schema.names:
        table = pa.table(
            {
                "source": kept.column("source"),
                "bytes": text_bytes(kept),
                "tokens": pc.list_value_length(kept.column("ids")),
            }
        )
        sums = table.group_by("source").aggregate([("tokens", "count"), ("bytes", "sum"), ("tokens", "sum")])
        for row in sums.to_pylist():
            ledger.add(
                step, "write", "in", source=row["source"], table="tokens",
                rows=row["tokens_count"], bytes=row["bytes_sum"], tokens=row["tokens_sum"],
            )  # fmt: skip


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch with exactly the columns of `schema`, those that it lacks being null."""
    names = set(batch.schema.names)
    columns = [
        batch.column(field.name) if field.name in names else pa.nulls(batch.num_rows, field.type) for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class Writing:
    """The sinks of one attempt at one split: opened together, published together, committed once.

    A context manager: whatever is unpublished when it ends is discarded.
    """

    def __init__(self, storage: Storage, folder: str, split_id: str, outputs: tuple[Output, ...]) -> None:
        """Open every output for a new attempt."""
        self._place = Place(storage, storage.new_attempt(), folder, split_id)
        self._outputs = outputs
        self._sinks: dict[str, Sink] = {}
        self._exit = ExitStack()

    def __enter__(self) -> Writing:
        """Open the files."""
        self._exit.callback(self._place.storage.discard, self._place.attempt)
        try:
            for output in self._outputs:
                self._sinks[output.table] = output.open(self._place)
        except BaseException as error:
            self.__exit__(error)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Discard what was not published."""
        if error[0]:
            for sink in self._sinks.values():
                sink.abort()
        self._exit.close()

    def write(self, table: str, rows: pa.RecordBatch) -> None:
        """Hand rows to the sink of a table; no rows, no work."""
        if rows.num_rows:
            self._sinks[table].write(rows)

    def commit(self, split_id: str, label: str, ledger: SplitLedger, last_step: int) -> Commit:
        """Finish and publish the files, enter what the sinks put out, check the balance, and commit."""
        pending = [file for sink in self._sinks.values() for file in sink.close()]
        for file in pending:
            _count_written(file.record, last_step, ledger)
        entries = ledger.entries()
        check_split(entries, last_step)
        for file in pending:
            self._place.storage.publish(self._place.attempt, file.name, file.record.path)
        files = sorted((file.record for file in pending), key=lambda record: (record.table, record.path))
        commit = Commit(split_id, label, tuple(files), tuple(entries))
        return make_commit(self._place.storage, self._place.folder, commit)


def _read(stage: MapStage, split: Split, limits: BatchLimits, account: RawAccount) -> Iterator[pa.RecordBatch]:
    """Yield the split's batches; an empty split yields one empty batch, so that every step is entered and checked."""
    chain = stage.chains[split.source]
    empty = True
    for batch in chain.source.read(split, chain.storage, limits, account):
        empty = False
        yield batch
    if empty:
        yield pa.RecordBatch.from_pylist([], schema=pa.schema([*CORE, *chain.source.adds]))


def _bound(transform: Transform, side: dict[str, pa.Table]) -> Transform:
    return transform.bind(side) if isinstance(transform, SideTransform) else transform


def _check_size(account: RawAccount, split: Split) -> None:
    """Whole files are read whole: the reader's account is held against their listed sizes."""
    listed = sum(file.size for file in split.files)
    if (split.start, split.stop) == (0, -1) and account.size != listed:
        raise LedgerImbalance(
            f"{split}: the reader accounts for {account.size} bytes, the files had {listed} when they were listed\n"
            "hint: run again if a file was being written; otherwise its reader lost bytes"
        )


def _check_unchanged(storage: ReadStorage, split: Split) -> None:
    """Refuse what was read of a file that was written meanwhile, where the storage tells."""
    for file in split.files:
        now = storage.stat(file.path) if file.modified else file
        if (now.size, now.modified) != (file.size, file.modified):
            raise HeadraceError(
                f"{split}: {file.path} was written to since it was listed\n"
                "hint: run again when nothing writes to the input any more"
            )


def _count_raw(account: RawAccount, source: str, ledger: SplitLedger) -> None:
    """Enter what the reader says of its bytes and of how many records it saw."""
    _add(ledger, 0, "read", "in", source, account.seen, 0)
    ledger.add(0, "read", "in", source=source, table="raw", bytes=account.size)
    ledger.add(0, "read", "out", source=source, table="raw", bytes=account.records)
    for reason, (_, num_bytes) in account.gaps.items():
        ledger.add(0, "read", "gap", source=source, table="raw", reason=reason, bytes=num_bytes)


def _count_written(record: FileRecord, step: int, ledger: SplitLedger) -> None:
    for source, sums in record.detail.get("sources", {}).items():
        rows, size, *tokens = sums
        table = record.table
        ledger.add(
            step, "write", "out", source=source, table=table, partition=record.partition, rows=rows, bytes=size,
            tokens=tokens[0] if tokens else 0,
        )  # fmt: skip


def _check_rows(transform: Transform, before: pa.RecordBatch, after: pa.RecordBatch) -> None:
    expected = with_columns(before.schema, transform.adds, transform.drops)
    if after.schema != expected:
        raise LedgerImbalance(
            f"transform {transform.name}: returned columns {after.schema.names}, declared are {expected.names}\n"
            "hint: declare every column it adds or drops in `adds` and `drops`"
        )
    if after.num_rows != before.num_rows or not after.column("doc_id").equals(before.column("doc_id")):
        raise LedgerImbalance(
            f"transform {transform.name}: was given {before.num_rows} documents and returned {after.num_rows}, "
            "or others, or in another order\nhint: it must return every row and mark what should go by its verdict"
        )


def _as_rejects(rejected: pa.RecordBatch, transform: str, schema: pa.Schema) -> pa.RecordBatch:
    """Return rows that stop as rejects; what no filter before the one that stopped them measured is null."""
    place = schema.get_field_index("transform")
    named = pa.array([transform] * rejected.num_rows, pa.string())
    return conform(rejected, schema.remove(place)).add_column(place, schema.field(place), named)


def _add(
    ledger: SplitLedger, step: int, name: str, account: str, source: str, rows: int, size: int, reason: str = ""
) -> None:
    ledger.add(step, name, account, source=source, reason=reason, rows=rows, bytes=size)
