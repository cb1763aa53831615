from __future__ import annotations

import dataclasses
import datetime
import tempfile
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engines import merging
from pipelines.errors import OutputError
from pipelines.schema import DOC_ID, HEADERS
from pipelines.sources.source import BatchLimits

SCHEMA = pa.schema(
    [
        pa.field("id", DOC_ID),
        pa.field("name", pa.string()),
        pa.field("date", pa.timestamp("us", tz="UTC")),
        pa.field("priority", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("text", pa.large_string()),
        pa.field("headers", HEADERS),
    ]
)
KEYS = ("id", "name", "date", "priority", "offset")
WIDE = BatchLimits(max_rows=10_000, max_bytes=1 << 30)


@dataclasses.dataclass
class ListedRun:
    """A run out of batches in memory, which counts how often it is open and what is read of it."""

    batches: Sequence[pa.RecordBatch]
    num_open: int = 0
    num_read: int = 0
    reading: Generator[pa.RecordBatch, None, None] | None = None
    """The last reader: as long as it is kept here, nothing but a call will close it."""

    @property
    def largest(self) -> int:
        return max([batch.nbytes for batch in self.batches], default=0)

    def read(self) -> Generator[pa.RecordBatch, None, None]:
        self.reading = self._read()
        return self.reading

    def _read(self) -> Generator[pa.RecordBatch, None, None]:
        self.num_open += 1
        try:
            for batch in self.batches:
                self.num_read += 1
                yield batch
        finally:
            self.num_open -= 1


def sorted_rows(rows: Sequence[dict], names: Sequence[str]) -> list[dict]:
    """Order rows in Python: nulls last, strings by their UTF-8 bytes, ties as they come."""

    def key(row: dict) -> list[tuple]:
        values = [row[name].encode() if isinstance(row[name], str) else row[name] for name in names]
        return [(value is None, 0 if value is None else value) for value in values]

    return sorted(rows, key=key)


def run_of(rows: Sequence[dict], names: Sequence[str], size: int) -> ListedRun:
    ordered = pa.RecordBatch.from_pylist(sorted_rows(rows, names), SCHEMA)
    return ListedRun([ordered.slice(start, size) for start in range(0, len(rows), size)])


DATES = [datetime.datetime(2024, 1, day, tzinfo=datetime.UTC) for day in (1, 2)]
ROWS = st.fixed_dictionaries(
    {
        "id": st.one_of(st.none(), st.sampled_from([b"\x00" * 16, b"\x7f" * 16, b"\x80" * 16, b"\x80" * 15 + b"\x81"])),
        "name": st.one_of(st.none(), st.sampled_from(["", "a", "aa", "z", "é", "\uffff", "\U00010000"])),
        "date": st.one_of(st.none(), st.sampled_from(DATES)),
        "priority": st.one_of(st.none(), st.integers(-2, 2)),
        "offset": st.one_of(st.none(), st.sampled_from([-(2**63), 0, 2**63 - 1])),
        "text": st.one_of(st.none(), st.text(max_size=30)),
        "headers": st.one_of(st.none(), st.just([{"name": "a", "value": "b"}, {"name": "c", "value": None}])),
    }
)
RUNS = st.lists(st.tuples(st.lists(ROWS, max_size=12), st.integers(1, 5)), max_size=9)


@given(
    runs=RUNS,
    names=st.lists(st.sampled_from(KEYS), min_size=1, max_size=5),
    fan_in=st.integers(2, 9),
    ahead=st.integers(1, 2),
    rows=st.integers(1, 20),
    size=st.integers(1, 3000),
)
@settings(max_examples=150, deadline=None)
def test_it_is_the_stable_order_of_all_rows(runs, names, fan_in, ahead, rows, size):
    """However rows are cut into runs and batches, and however many passes that takes."""
    limits = BatchLimits(rows, size)
    given = [run_of(some, names, cut) for some, cut in runs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "FAN_IN", fan_in)
        patch.setattr(merging, "AHEAD", ahead)
        merged = list(merging.merge(given, SCHEMA, names, limits))
    # each run's own order first: rows that tie in `names` stay in the order of the runs
    expected = sorted_rows([row for some, _ in runs for row in sorted_rows(some, names)], names)
    assert pa.Table.from_batches(merged, SCHEMA).to_pylist() == expected
    assert all(0 < batch.num_rows <= rows for batch in merged)
    bitmaps = sum(3 for _ in SCHEMA)  # batches with and without nulls come together: up to 20 rows are 3 bytes
    assert all(batch.num_rows == 1 or batch.nbytes <= size + bitmaps for batch in merged)
    assert not any(run.num_open for run in given)


@given(rows=st.lists(ROWS, min_size=1, max_size=30), names=st.permutations(KEYS))
@settings(max_examples=50, deadline=None)
def test_an_order_is_that_of_arrow(rows, names):
    table = pa.RecordBatch.from_pylist(rows, SCHEMA)
    expected = table.take(pa.array(np.arange(len(rows)))).sort_by([(name, "ascending") for name in names])
    assert table.take(merging.order_of(table, names)).equals(expected)


NUMBERS = pa.schema([pa.field("key", pa.int64()), pa.field("run", pa.int32())])


def numbers_run(keys: np.ndarray, number: int, size: int) -> ListedRun:
    columns = [pa.array(keys, pa.int64()), pa.array(np.full(len(keys), number), pa.int32())]
    rows = pa.RecordBatch.from_arrays(columns, schema=NUMBERS)
    return ListedRun([rows.slice(start, size) for start in range(0, len(keys), size)])


@pytest.fixture
def sorted_lengths(monkeypatch):
    """How many rows were sorted, and in how many sorts."""
    lengths: list[int] = []
    order_of = merging.order_of

    def counting(rows, names):
        lengths.append(len(rows))
        return order_of(rows, names)

    monkeypatch.setattr(merging, "order_of", counting)
    return lengths


def keys_of(merged: list[pa.RecordBatch]) -> np.ndarray:
    return np.concatenate([batch.column("key").to_numpy() for batch in merged])


def test_disjoint_runs_are_hardly_sorted(sorted_lengths):
    keys = np.arange(64_000)
    runs = [numbers_run(part, number, 100) for number, part in enumerate(np.split(keys, 64))]
    assert np.array_equal(keys_of(list(merging.merge(runs, NUMBERS, ["key"], WIDE))), keys)
    rows = [length for length in sorted_lengths if length > 2 * 64]  # the others may be edges of buffers
    assert sum(rows) <= 64 * merging.AHEAD * 100, "more than the last batches of every run"
    assert len(sorted_lengths) <= 64 * 10 / merging.AHEAD + 64


@pytest.mark.parametrize("skew", [1, 50])
def test_mixed_runs_are_sorted_once(skew, sorted_lengths):
    """Evenly, and with one run as long as all the others: each row is sorted once, beside the edges of the buffers."""
    rng = np.random.default_rng(5)
    sizes = [2000 * skew, *[2000] * 49]
    runs = [numbers_run(np.sort(rng.integers(0, 1 << 40, size)), n, 100) for n, size in enumerate(sizes)]
    merged = keys_of(list(merging.merge(runs, NUMBERS, ["key"], WIDE)))
    num_batches, num_rounds = sum(sizes) // 100, len(sorted_lengths) / 2
    assert len(merged) == sum(sizes) and np.all(np.diff(merged) >= 0)
    assert num_rounds <= num_batches * (2 / 50 if skew == 1 else 0.6), "a round takes about one batch of every run"
    assert sum(sorted_lengths) <= sum(sizes) + 2 * 50 * num_rounds


def test_one_key_may_be_everything(sorted_lengths):
    runs = [numbers_run(np.zeros(1000, np.int64), number, 64) for number in range(10)]
    merged = pa.Table.from_batches(merging.merge(runs, NUMBERS, ["key"], BatchLimits(max_rows=300)))
    assert merged.column("run").to_pylist() == [number for number in range(10) for _ in range(1000)]


def test_buffers_hold_what_they_may(monkeypatch):
    """Runs of large batches are merged in smaller numbers, and a run is read only as far as its buffer."""
    texts = [
        ListedRun([pa.record_batch([[number], ["x" * 5000]], names=["key", "text"]) for number in range(20)])
        for _ in range(40)
    ]
    monkeypatch.setattr(merging, "RUN_LIMITS", BatchLimits(max_rows=10, max_bytes=1000))
    monkeypatch.setattr(merging, "BUFFERED_BYTES", 60_000)
    read = merging._rounds
    fan_ins = []

    def counting(runs, names):
        fan_ins.append(len(runs))
        return read(runs, names)

    monkeypatch.setattr(merging, "_rounds", counting)
    merged = list(merging.merge(texts, texts[0].batches[0].schema, ["key"], BatchLimits(max_rows=1)))
    assert len(merged) == 800
    assert max(fan_ins) == 60_000 // (2 * 5020)
    few = texts[:5]
    for run in few:
        run.num_read = 0
    with closing(merging.merge(few, texts[0].batches[0].schema, ["key"], BatchLimits(max_rows=1))) as rows:
        next(rows)
        assert [run.num_read for run in few] == [merging.AHEAD] * 5


def test_small_batches_come_together():
    runs = [numbers_run(np.arange(number, 1000, 4), number, 1) for number in range(4)]
    merged = list(merging.merge(runs, NUMBERS, ["key"], BatchLimits(max_rows=256)))
    assert [len(batch) for batch in merged] == [256, 256, 256, 232]


def test_a_small_slice_keeps_no_large_buffer_alive():
    whole = pa.record_batch([pa.array(range(100_000), pa.int64())], names=["key"])
    [piece] = merging.merge([ListedRun([whole.slice(5, 10)])], whole.schema, ["key"], WIDE)
    assert piece.get_total_buffer_size() < 1000


def open_temporary_files(folder: Path) -> list[str]:
    """Return the files below a folder that this process has open; those without a name have a link all the same."""
    links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [str(link) for link in links if link.is_relative_to(folder)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files cannot be listed here")
@pytest.mark.parametrize("end", ["close", "error", "all"])
def test_temporary_files_end_with_the_generator(end, tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "FAN_IN", 3)
    monkeypatch.setattr(merging, "RUN_LIMITS", BatchLimits(max_rows=50, max_bytes=1000))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runs = [numbers_run(np.arange(number, 3000, 10), number, 10) for number in range(10)]
    merged = merging.merge(runs, NUMBERS, ["key"], BatchLimits(max_rows=100))
    assert len(next(merged)) == 100
    assert len(open_temporary_files(tmp_path)) == 3, "the test sees nothing"
    assert list(tmp_path.iterdir()) == [], "a killed process would leave it behind"
    if end == "close":
        merged.close()
    elif end == "error":
        with pytest.raises(KeyError):
            merged.throw(KeyError())
    else:
        assert sum(map(len, merged)) == 2900
    assert open_temporary_files(tmp_path) == []
    assert not any(run.num_open for run in runs)


def test_a_run_that_cannot_be_read_closes_the_others(tmp_path, monkeypatch):
    @dataclasses.dataclass
    class Broken(ListedRun):
        def _read(self):
            yield from self.batches[:3]
            raise FileNotFoundError(2, "No such file", "scattered")

    monkeypatch.setattr(merging, "FAN_IN", 3)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runs = [numbers_run(np.arange(number, 3000, 10), number, 10) for number in range(10)]
    runs[7] = Broken(runs[7].batches)
    with pytest.raises(FileNotFoundError):
        list(merging.merge(runs, NUMBERS, ["key"], WIDE))
    assert not any(run.num_open for run in runs)
    assert open_temporary_files(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_a_full_temporary_folder_is_explained(monkeypatch):
    monkeypatch.setattr(merging, "FAN_IN", 2)
    runs = [numbers_run(np.arange(3000), number, 100) for number in range(3)]
    with Path("/dev/full").open("r+b", buffering=0) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
        with pytest.raises(OutputError, match="No space left on device\nhint: point TMPDIR"):
            list(merging.merge(runs, NUMBERS, ["key"], WIDE))


def test_nothing_gives_nothing():
    assert list(merging.merge([], NUMBERS, ["key"], WIDE)) == []
    assert list(merging.merge([ListedRun([]), numbers_run(np.zeros(0), 0, 1)], NUMBERS, ["key"], WIDE)) == []
