"""Raw records read again at their origins, for `explain` and `replay`: a record by its offset, or a split once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import VerifyError
from pipelines.finished import FinishedRun
from pipelines.schema import CORE
from pipelines.sources.commoncrawl import CommonCrawl
from pipelines.sources.source import BatchLimits, RawAccount, Source
from pipelines.stage import Chain, MapStage
from pipelines.storage.storage import ReadStorage

Row = dict[str, Any]
"""A document's row of any committed table: `source`, `doc_id` and origin say which record it was."""


def first_stage(run: FinishedRun) -> MapStage:
    """Return the stage that reads."""
    stage = run.plan.stages[0]
    assert isinstance(stage, MapStage)
    return stage


def read_again(run: FinishedRun, rows: Sequence[Row]) -> list[pa.RecordBatch]:
    """Return each row's raw record as a batch of one row, in the order of `rows`.

    Records of an archive are read by their offset, all others with their splits, each once. Raises `VerifyError` where
    a file no longer holds the record.
    """
    found: dict[int, pa.RecordBatch] = {}
    by_source: dict[str, dict[int, Row]] = defaultdict(dict)
    for place, row in enumerate(rows):
        by_source[row["source"]][place] = row
    for name, wanted in by_source.items():
        chain = first_stage(run).chains[name]
        source = chain.source
        if isinstance(source, CommonCrawl):
            found |= {place: _by_offset(source, chain.storage, row) for place, row in wanted.items()}
        elif isinstance(source, Source):
            found |= _by_split(source, chain, wanted)
    return [found[place] for place in range(len(rows))]


def _by_offset(source: CommonCrawl, storage: ReadStorage, row: Row) -> pa.RecordBatch:
    """Read one record of an archive; a compressed member may hold several, told apart by their ids."""
    inner = row.get("origin_inner")
    if inner is None:
        [batch] = _by_split(source, Chain(source, storage, ()), {0: row}).values()
        return batch
    try:
        record = source.read_record(storage, row["origin_path"], row["origin_offset"], row["origin_length"], inner)
    except (ValueError, OSError) as error:
        refuse_record(row, str(error).splitlines()[0])
    if record["doc_id"] != row["doc_id"]:
        refuse_record(row, "another record lies there")
    schema = pa.schema([*CORE, *source.adds])
    columns = [pa.array([record.get(field.name)], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _by_split(source: Source, chain: Chain, wanted: dict[int, Row]) -> dict[int, pa.RecordBatch]:
    """Read the splits that hold the files of these rows, until all are found."""
    found: dict[int, pa.RecordBatch] = {}
    paths = {row["origin_path"] for row in wanted.values()}
    for split in source.splits(chain.storage):
        if (split.files and not paths & {file.path for file in split.files}) or len(found) == len(wanted):
            continue
        for batch in source.read(split, chain.storage, BatchLimits(), RawAccount()):
            for place, row in wanted.items():
                if place not in found and pc.any(same := _is_row(batch, row)).as_py():
                    found[place] = batch.filter(same).slice(0, 1)
    for place, row in wanted.items():
        if place not in found:
            refuse_record(row, "it no longer holds this record")
    return found


def _is_row(batch: pa.RecordBatch, row: Row) -> pa.BooleanArray:
    same = pc.equal(batch.column("doc_id").cast(pa.binary()), row["doc_id"])
    for name in ("origin_path", "origin_offset"):
        same = pc.and_(same, pc.equal(batch.column(name), pa.scalar(row[name])))
    return same


def refuse_record(row: Row, cause: str) -> NoReturn:
    """Raise `VerifyError`: what lies at the row's origin is not what the run read there."""
    raise VerifyError(
        f"{row['source']}: {row['origin_path']} at {row['origin_offset']}: {cause}\n"
        "hint: the input has changed or moved since the run; bring it back, or run the recipe anew"
    )
