"""Spark's own shuffle and sort against the merge of the other engines, on rows that are made to tell them apart."""

from __future__ import annotations

import datetime
import random
import warnings

import pyarrow as pa
import pytest
from trees import tree_hashes

from pipelines.commit import Commit, CommittedTable, FileRecord
from pipelines.engines.datatrove import DatatroveEngine
from pipelines.errors import WorkerDied
from pipelines.schema import CORE, DOC_ID
from pipelines.sinks.sink import Place
from pipelines.sinks.tables import TableOutput
from pipelines.stage import GroupStage, TableOf
from pipelines.storage.local import LocalStorage
from pipelines.transforms.exact import SortTable

NASTY = pa.schema(
    [
        pa.field("id", DOC_ID, nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("number", pa.int64()),
        pa.field("small", pa.int16()),
        pa.field("bytes", pa.large_binary()),
        pa.field("text", pa.large_string()),
        pa.field("date", pa.timestamp("us", tz="UTC")),
        pa.field("flag", pa.bool_()),
        pa.field("pairs", pa.list_(pa.struct([pa.field("a", pa.string()), pa.field("b", pa.int16())]))),
        pa.field("set", pa.large_list(pa.field("item", pa.uint64(), nullable=False))),
        pa.field("verdict", pa.struct([pa.field("outcome", pa.string()), pa.field("reason", pa.string())])),
    ]
)
TEXTS = ["", "\0", "a\0b", "a", "\ud7ff", "\ue000", "\U0001f30a", "\uffff", "z" * 5000, "é", "e\u0301", None]
"""UTF-16 code units would put U+1F30A before U+E000; bytes put it behind."""
NUMBERS = [0, -1, 1, 2**63 - 1, -(2**63), None]
BYTES = [b"", b"\0", b"\x7f", b"\x80", b"\xff\xfe", None]
DATES = [
    None,
    *(
        datetime.datetime(*day, tzinfo=datetime.UTC)
        for day in [(1, 1, 1), (1582, 10, 10), (1969, 12, 31, 23, 59, 59, 1)]
    ),
    datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=datetime.UTC),
]
PAIRS = [None, [], [None], [{"a": None, "b": None}], [{"a": "", "b": -1}, None, {"a": "x\0", "b": None}]]
SETS = [None, [], [0], [1, 2**63 - 1, 2**63, 2**64 - 1]]
VERDICTS = [None, {"outcome": None, "reason": None}, {"outcome": "", "reason": None}]


def nasty_rows() -> list[dict]:
    chosen = random.Random(7)
    return [
        {
            "id": chosen.randbytes(16),
            "key": chosen.choice([text for text in TEXTS if text is not None]),
            "number": chosen.choice(NUMBERS),
            "small": chosen.choice([None, 0, -(2**15), 2**15 - 1]),
            "bytes": chosen.choice(BYTES),
            "text": chosen.choice(TEXTS),
            "date": chosen.choice(DATES),
            "flag": chosen.choice([None, True, False]),
            "pairs": chosen.choice(PAIRS),
            "set": chosen.choice(SETS),
            "verdict": chosen.choice(VERDICTS),
        }
        for _ in range(3000)
    ]


def committed(storage: LocalStorage, table: str, schema: pa.Schema, rows: list[dict], label: str) -> Commit:
    """Publish rows as one file of a stage `0-given`."""
    place = Place(storage, storage.new_attempt(), "stages/0-given", label * 16)
    sink = TableOutput(table, schema).open(place)
    sink.write(pa.RecordBatch.from_pylist(rows, schema=schema))
    (pending,) = sink.close()
    storage.publish(place.attempt, pending.name, pending.record.path)
    return Commit(label, label, (pending.record, FileRecord("rejects", "x", 0, "", 0)), ())


@pytest.fixture(scope="module")
def spark():
    from pipelines.engines.spark import SparkEngine

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with SparkEngine(2, {"spark.ui.enabled": "false"}) as engine:
            yield engine


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("key", "order_by", "buckets"),
    [
        ("key", ("text", "number", "date", "bytes", "flag", "small"), 3),
        ("id", (), 1),
        ("number", ("bytes", "text"), 40),
        ("id", ("date",), 5),
    ],
)
def test_the_same_rows_in_the_same_order(key, order_by, buckets, spark, tmp_path):
    rows = [row for row in nasty_rows() if row[key] is not None]
    stage = GroupStage(
        name="1-nasty",
        inputs=(TableOf("0-given", "nasty"),),
        schema=NASTY,
        key=key,
        order_by=order_by,
        identity=("id",),
        buckets=buckets,
        reduce=SortTable("nasty"),
        outputs=(TableOutput("nasty", NASTY),),
    )
    for name, engine in (("spark", spark), ("local", DatatroveEngine(1))):
        storage = LocalStorage(tmp_path / name)
        given = [committed(storage, "nasty", NASTY, rows[start::4], str(start)) for start in range(4)]
        result = engine.group(stage, [CommittedTable(storage, "nasty", tuple(given))], storage, lambda *_: None)
        assert len(result.commits) == buckets
    assert tree_hashes(tmp_path / "spark") == tree_hashes(tmp_path / "local")


@pytest.mark.filterwarnings("ignore")
def test_a_table_without_rows_or_files(spark, tmp_path):
    stage = GroupStage(
        name="1-empty",
        inputs=(TableOf("0-given", "documents"),),
        schema=CORE,
        key="doc_id",
        order_by=(),
        identity=("doc_id",),
        buckets=2,
        reduce=SortTable("other"),
        outputs=(TableOutput("other", CORE),),
    )
    for name, engine in (("spark", spark), ("local", DatatroveEngine(1))):
        storage = LocalStorage(tmp_path / name)
        empty = committed(storage, "documents", CORE, [], "a")
        for commits in ((), (empty,)):
            engine.group(stage, [CommittedTable(storage, "documents", commits)], storage, lambda *_: None)
    assert tree_hashes(tmp_path / "spark") == tree_hashes(tmp_path / "local")


def test_rows_that_are_cut_short_are_no_bucket(tmp_path):
    """Spark closes the socket of a task that it ends, and Arrow takes that for the end of the stream."""
    from pipelines.engines.spark import BUCKET, _ReduceRows, _spark_schema

    stage = GroupStage(
        name="1-nasty",
        inputs=(TableOf("0-given", "nasty"),),
        schema=NASTY,
        key="key",
        order_by=(),
        identity=("id",),
        buckets=1,
        reduce=SortTable("nasty"),
        outputs=(TableOutput("nasty", NASTY),),
    )
    rows = [{**row, BUCKET: 0} for row in nasty_rows()[:10]]
    whole = pa.RecordBatch.from_pylist([*rows, {BUCKET: 0}], schema=_spark_schema(stage))
    reduce = _ReduceRows(stage, {0: "a"}, LocalStorage(tmp_path))
    for cuts in ([11], [4, 11], [10, 11], [0, 10, 10, 11]):
        batches = [whole.slice(start, stop - start) for start, stop in zip([0, *cuts], cuts, strict=False)]
        assert sum(batch.num_rows for batch in reduce._ordered(iter(batches))) == 10
    for stop in (0, 5, 10):
        with pytest.raises(WorkerDied, match="cut short"):
            list(reduce._ordered(iter([whole.slice(0, stop)])))
    with pytest.raises(WorkerDied, match="cut short"):
        list(reduce._ordered(iter([])))
