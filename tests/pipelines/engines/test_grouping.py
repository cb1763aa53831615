from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import batch_of, document

from pipelines.commit import Commit, FileRecord
from pipelines.engines import grouping, merging
from pipelines.engines.grouping import Bucket, bucket_of, reduce_bucket, reduce_rows, scatter
from pipelines.schema import CORE, DOC_ID, IDENTITY
from pipelines.sinks.sink import Place
from pipelines.sinks.tables import TableOutput, read_table
from pipelines.sources.source import BatchLimits
from pipelines.stage import GroupStage, Reduce, TableOf
from pipelines.storage.local import LocalStorage
from pipelines.transforms.exact import SameKey

LIMITS = BatchLimits(max_rows=50, max_bytes=100_000)
ORDER = ("content_hash",)


@settings(deadline=None)  # the first call loads much
@given(st.lists(st.binary(min_size=16, max_size=16)), st.integers(1, 65536))
def test_buckets_of_ids_follow_their_order(ids, buckets):
    ids = sorted(ids)
    found = bucket_of(pa.array(ids, DOC_ID), buckets)
    # by hand, in integers of any size: the high 32 bits of the id, scaled
    assert found.tolist() == [int.from_bytes(one[:4], "big") * buckets // 2**32 for one in ids]
    assert np.all(np.diff(found) >= 0)


def test_other_keys_are_hashed():
    keys = ["https://example.org/", "", "ü"]
    found = bucket_of(pa.array(keys), 1000)
    assert found.tolist() == [(xxhash.xxh3_64_intdigest(one) >> 32) * 1000 >> 32 for one in keys]


def test_a_slice_has_the_buckets_of_its_rows():
    ids = pa.array([bytes([number]) * 16 for number in range(256)], DOC_ID)
    assert bucket_of(ids.slice(128, 3), 256).tolist() == [128, 129, 130]


def test_a_null_key_is_refused():
    with pytest.raises(ValueError, match="null"):
        bucket_of(pa.array([None], DOC_ID), 2)


# Scattered runs and their merge


@dataclasses.dataclass(frozen=True, slots=True)
class WatchedStorage(LocalStorage):
    """Keeps what was opened for reading."""

    opened: list[tuple[str, BinaryIO]] = dataclasses.field(default_factory=list)

    def open(self, path: str) -> BinaryIO:
        file = LocalStorage.open(self, path)
        self.opened.append((path, file))
        return file


def group_stage(key: str, buckets: int, reduce: Reduce) -> GroupStage:
    return GroupStage(
        name="2-identify",
        inputs=(TableOf("1-read", "documents"),),
        schema=CORE,
        key=key,
        order_by=ORDER,
        identity=IDENTITY,
        buckets=buckets,
        reduce=reduce,
        outputs=(TableOutput("documents", CORE),),
    )


def documents(seed: int, num_rows: int) -> list[dict]:
    """Return documents of which many share a doc_id and some a whole order but for their place."""
    rng = random.Random(seed)
    return [
        document(
            "word " * rng.randrange(400),
            natural_key=f"key {rng.randrange(num_rows // 2)}",
            origin_path=rng.choice(["a", "b", "é", "\U00010000"]),
            origin_offset=1000 * seed + place,
            host=rng.choice(["a.example", "b.example"]),
        )
        for place in range(num_rows)
    ]


def published(storage: LocalStorage, rows: Sequence[dict]) -> list[FileRecord]:
    """Write documents as an earlier stage would."""
    place = Place(storage, storage.new_attempt(), "stages/1-read", "f" * 32)
    sink = TableOutput("documents", CORE).open(place)
    sink.write(batch_of(rows))
    pending = sink.close()
    for file in pending:
        storage.publish(place.attempt, file.name, file.record.path)
    return [file.record for file in pending]


def scattered(stage: GroupStage, inputs: Sequence[Sequence[dict]], output: LocalStorage) -> list[FileRecord]:
    commits = [
        scatter(stage, published(output, rows), output, f"{number:032x}", output, LIMITS)
        for number, rows in enumerate(inputs)
    ]
    return [file for commit in commits for file in commit.files]


def in_order(rows: Sequence[dict], key: str) -> list[dict]:
    """Order documents in Python (no null is in these columns; strings by their UTF-8 bytes)."""

    def total(row: dict) -> list:
        values = [row[name] for name in (key, *ORDER, *IDENTITY)]
        return [value.encode() if isinstance(value, str) else value for value in values]

    return sorted(rows, key=total)


def places(rows: Sequence[dict]) -> list[tuple]:
    return [(row["doc_id"], row["origin_path"], row["origin_offset"], row["text"]) for row in rows]


@pytest.fixture
def small(monkeypatch):
    """Sorts and runs so small that a hundred documents need many."""
    monkeypatch.setattr(grouping, "HELD_BYTES", 60_000)
    monkeypatch.setattr(grouping, "NARROW", 1)
    monkeypatch.setattr(merging, "RUN_LIMITS", BatchLimits(max_rows=16, max_bytes=6000))


@pytest.mark.parametrize(("key", "buckets"), [("doc_id", 1), ("doc_id", 3), ("host", 2), ("source", 1)])
def test_scattered_files_are_sorted_runs(key, buckets, small, tmp_path):
    rows = documents(1, 200)
    output = LocalStorage(tmp_path)
    [file] = scattered(group_stage(key, buckets, SameKey()), [rows], output)
    with output.open(file.path) as handle:
        reader = pa.ipc.open_file(handle)
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    found = []
    for bucket, runs in file.detail["batches"].items():
        assert len(runs) > 1
        for first, stop, largest in runs:
            run = [row for batch in batches[first:stop] for row in batch.to_pylist()]
            assert places(run) == places(in_order(run, key))
            assert set(bucket_of(pa.array([row[key] for row in run], CORE.field(key).type), buckets)) == {int(bucket)}
            # validity bitmaps without a null are not written
            assert 0 <= largest - max(batch.nbytes for batch in batches[first:stop]) <= 2 * len(CORE)
            found += list(range(first, stop))
    assert sorted(found) == list(range(len(batches))), "every batch is of one run"
    assert all(batch.num_rows <= 16 and (batch.num_rows == 1 or batch.nbytes <= 6000) for batch in batches)
    assert sorted(places([row for batch in batches for row in batch.to_pylist()])) == sorted(places(rows))


@dataclasses.dataclass
class Seen:
    """Reduce that keeps its rows as they are, and what they were in."""

    name: str = "seen"
    batches: list[pa.RecordBatch] = dataclasses.field(default_factory=list)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Mapping[str, pa.RecordBatch]]:
        for batch in batches:
            self.batches.append(batch)
            yield {"documents": batch}


@pytest.mark.parametrize("fan_in", [2, 64])
@pytest.mark.parametrize(("key", "buckets"), [("doc_id", 1), ("doc_id", 3), ("host", 2), ("source", 1)])
def test_a_bucket_arrives_in_its_total_order(key, buckets, fan_in, small, tmp_path, monkeypatch):
    """However many runs there are; source and host are keys that span many batches and all files."""
    monkeypatch.setattr(merging, "FAN_IN", fan_in)
    inputs = [documents(seed, num_rows) for seed, num_rows in [(1, 200), (2, 70), (3, 2)]]
    output = WatchedStorage(tmp_path)
    seen = Seen()
    stage = group_stage(key, buckets, seen)
    files = tuple(scattered(stage, inputs, output))
    output.opened.clear()
    rows = [row for some in inputs for row in some]
    of_bucket = bucket_of(pa.array([row[key] for row in rows], CORE.field(key).type), buckets)
    for number in range(buckets):
        seen.batches.clear()
        commit = reduce_bucket(stage, Bucket(number, buckets, files), f"{number:032x}", output, LIMITS)
        expected = in_order([row for row, bucket in zip(rows, of_bucket, strict=True) if bucket == number], key)
        arrived = [row for batch in seen.batches for row in batch.to_pylist()]
        assert places(arrived) == places(expected)
        assert all(len(batch) <= LIMITS.max_rows and batch.nbytes <= LIMITS.max_bytes for batch in seen.batches)
        written = [row for file in commit.files if file.table == "documents" for row in table_rows(output, file)]
        assert places(written) == places(expected)
        if fan_in == 64:
            paths = [path for path, _ in output.opened]
            assert len(paths) == len(set(paths)), "a file was opened twice for a bucket"
        assert all(handle.closed for _, handle in output.opened)
        output.opened.clear()


def table_rows(storage: LocalStorage, file: FileRecord) -> list[dict]:
    return read_table(storage, file.path).to_pylist()


def reduced(folder: Path, inputs: Sequence[Sequence[dict]]) -> list[Commit]:
    output = LocalStorage(folder)
    stage = group_stage("doc_id", 2, SameKey())
    files = tuple(scattered(stage, inputs, output))
    return [reduce_bucket(stage, Bucket(number, 2, files), f"{number:032x}", output, LIMITS) for number in range(2)]


def test_sizes_of_runs_change_no_byte(tmp_path, monkeypatch):
    inputs = [documents(seed, 150) for seed in range(4)]
    expected = reduced(tmp_path / "a", inputs)
    monkeypatch.setattr(merging, "FAN_IN", 3)
    for held, rows in [(1, 1), (30_000, 7), (200_000, 1000)]:
        monkeypatch.setattr(grouping, "HELD_BYTES", held)
        monkeypatch.setattr(merging, "RUN_LIMITS", BatchLimits(max_rows=rows, max_bytes=1 << 20))
        assert reduced(tmp_path / f"{held}", inputs) == expected


def test_rows_that_another_engine_ordered_give_the_same_commit(tmp_path):
    inputs = [documents(seed, 150) for seed in range(4)]
    expected = reduced(tmp_path / "a", inputs)
    rows = in_order([row for some in inputs for row in some], "doc_id")
    stage = group_stage("doc_id", 2, SameKey())
    for number in range(2):
        own = [row for row in rows if row["doc_id"][0] >> 7 == number]
        batches = (batch_of(own[start : start + 3]) for start in range(0, len(own), 3))
        assert reduce_rows(stage, number, batches, f"{number:032x}", LocalStorage(tmp_path / "b")) == expected[number]


def test_a_reduce_that_fails_leaves_no_file_open(small, tmp_path):
    @dataclasses.dataclass
    class Failing(Seen):
        def __call__(self, batches):
            next(batches)
            raise KeyError("row")
            yield {}

    output = WatchedStorage(tmp_path)
    stage = group_stage("doc_id", 1, Failing())
    files = tuple(scattered(stage, [documents(1, 200)], output))
    with pytest.raises(KeyError) as _failure:  # kept, and with it the frames that hold the files
        reduce_bucket(stage, Bucket(0, 1, files), "0" * 32, output, LIMITS)
    assert all(handle.closed for _, handle in output.opened)


def test_a_bucket_without_rows_is_committed(tmp_path):
    output = LocalStorage(tmp_path)
    stage = group_stage("doc_id", 1, SameKey())
    files = tuple(scattered(stage, [[]], output))
    commit = reduce_bucket(stage, Bucket(0, 1, files), "0" * 32, output, LIMITS)
    assert [(file.table, file.rows) for file in commit.files] == [("documents", 0), ("rejects", 0)]
