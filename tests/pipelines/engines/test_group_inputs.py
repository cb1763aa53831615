"""`group` over tables of earlier runs, which are only read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.commit import Commit, CommittedTable, FileRecord
from pipelines.engines.datatrove import DatatroveEngine
from pipelines.errors import HeadraceError
from pipelines.sinks.sink import Place
from pipelines.sinks.tables import TableOutput, read_table
from pipelines.stage import GroupStage, TableOf
from pipelines.storage.local import LocalStorage
from pipelines.transforms.exact import DUPLICATES, HASHES, FindDuplicates


def key(number: int) -> bytes:
    return bytes([number]) * 16


def committed_hashes(folder: Path, rows: list[tuple[int, int]], label: str) -> CommittedTable:
    """Publish a table of (doc_id, text_hash) in a storage of its own and return it as a run would."""
    storage = LocalStorage(folder)
    place = Place(storage, storage.new_attempt(), "stages/2-identify", label * 16)
    sink = TableOutput("hashes", HASHES).open(place)
    data = [{"doc_id": key(doc_id), "text_hash": key(text), "rank": key(0), "place": 0} for doc_id, text in rows]
    sink.write(pa.RecordBatch.from_pylist(data, schema=HASHES))
    (pending,) = sink.close()
    storage.publish(place.attempt, pending.name, pending.record.path)
    other = FileRecord("rejects", "stages/2-identify/rejects/x.parquet", 0, "", 0)
    return CommittedTable(storage, "hashes", (Commit(label, label, (pending.record, other), ()),))


def stage(*runs: LocalStorage) -> GroupStage:
    return GroupStage(
        name="3-find-duplicates",
        inputs=tuple(TableOf("2-identify", "hashes", run) for run in runs),
        schema=HASHES,
        key="text_hash",
        order_by=("rank",),
        identity=("doc_id",),
        buckets=2,
        reduce=FindDuplicates("text_hash", "exact_duplicate"),
        outputs=(TableOutput("duplicates", DUPLICATES),),
    )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_copies_across_two_earlier_runs_are_found(order, tmp_path):
    tables = [
        committed_hashes(tmp_path / "a", [(1, 50), (2, 200)], "a"),
        committed_hashes(tmp_path / "b", [(3, 50), (4, 200), (5, 90)], "b"),
    ]
    given = [tables[place] for place in order]
    before = [list(table.storage.list()) for table in tables]
    output = LocalStorage(tmp_path / "out")
    with DatatroveEngine(1) as engine:
        result = engine.group(stage(*(table.storage for table in given)), given, output, lambda *_: None)
    found = {}
    for commit in result.commits:
        for file in commit.files:
            for row in read_table(output, file.path).to_pylist():
                found[row["doc_id"]] = row["kept_doc_id"]
    assert found == {key(3): key(1), key(4): key(2)}
    assert [list(table.storage.list()) for table in tables] == before, "an input was written to"
    rows_in = sum(e.rows for commit in result.commits for e in commit.entries if e.step == 0 and e.account == "in")
    assert rows_in == 5


def test_a_damaged_file_of_an_earlier_run_is_named(tmp_path):
    table = committed_hashes(tmp_path / "a", [(1, 50)], "a")
    path = tmp_path / "a" / table.files()[0].path
    path.write_bytes(path.read_bytes()[:-40])
    with (
        DatatroveEngine(1) as engine,
        pytest.raises(HeadraceError, match=r"hashes/.*\.parquet: cannot be read: .*\nhint: delete its commit"),
    ):
        engine.group(stage(table.storage), [table], LocalStorage(tmp_path / "out"), lambda *_: None)


def test_inputs_must_be_one_table():
    with pytest.raises(ValueError, match="tables of one name"):
        GroupStage(
            "x",
            (TableOf("a", "hashes"), TableOf("a", "documents")),
            HASHES,
            "text_hash",
            (),
            (),
            1,
            FindDuplicates("text_hash", "exact_duplicate"),
            (),
        )
