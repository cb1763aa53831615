"""`group` of 2 GiB of text, one bucket and one key, in a worker of 1 GiB."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.commit import Commit
from pipelines.engines.mapping import conform
from pipelines.schema import CORE, DOC_ID
from pipelines.sinks.sink import Place
from pipelines.sinks.tables import TableOutput
from pipelines.storage.local import LocalStorage

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc"),
]

LARGE, SMALL, NUM_SMALL = 1 << 30, 16 << 20, 64
"""Bytes of text of the inputs: one that is sorted in many runs, and more small ones than are merged at once."""

GROUP = """
import dataclasses, sys
from pathlib import Path
from pipelines.commit import CommittedTable, read_commits
from pipelines.engines.datatrove import DatatroveEngine
from pipelines.schema import CORE, IDENTITY
from pipelines.sinks.tables import TableOutput, text_bytes
from pipelines.stage import GroupStage, TableOf
from pipelines.storage.local import LocalStorage
from pipelines.transforms.exact import SameKey

@dataclasses.dataclass
class Ordered:
    name: str = "ordered"
    text: int = 0
    last: bytes = b""

    def __call__(self, batches):
        for batch in batches:
            ids = [self.last, *batch.column("doc_id").to_pylist()]
            assert ids == sorted(ids), "rows are out of order"
            self.text, self.last = self.text + sum(text_bytes(batch).to_pylist()), ids[-1]
            yield {"documents": batch}

folder, key = Path(sys.argv[1]), sys.argv[2]
reduce = Ordered() if key == "host" else SameKey()
tables, outputs = (TableOf("1-read", "documents"),), (TableOutput("documents", CORE),)
stage = GroupStage("group", tables, CORE, key, (), IDENTITY, 1, reduce, outputs)
given, output = LocalStorage(folder / "in"), LocalStorage(folder / "out")
commits = tuple(sorted(read_commits(given, "stages/1-read").values(), key=lambda commit: commit.label))
with DatatroveEngine(1) as engine:
    result = engine.group(stage, [CommittedTable(given, "documents", commits)], output, lambda *_: None)
rows = {file.table: file.rows for commit in result.commits for file in commit.files}
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(rows["documents"], rows["rejects"], reduce.text if key == "host" else -1, int(status["VmHWM"].split()[0]) >> 10)
"""


def made_documents(num_bytes: int, largest: int, rng: np.random.Generator, hot: bool) -> Iterator[pa.RecordBatch]:
    """Yield about `num_bytes` of text in documents of up to `largest`; all of one host, or (`hot`) of one doc_id."""
    num_rows = max(1, min(1000, (8 << 20) // largest))
    given = 0
    while given < num_bytes:
        sizes = rng.integers(0, largest, num_rows)
        letters = rng.integers(97, 123, sizes.sum(), np.uint8)
        offsets = pa.py_buffer(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
        hashes = pa.Array.from_buffers(DOC_ID, num_rows, [None, pa.py_buffer(rng.bytes(16 * num_rows))])
        columns = {
            "doc_id": pa.array([b"h" * 16] * num_rows, DOC_ID) if hot else hashes,
            "source": pa.array(["web"] * num_rows),
            "natural_key": pa.array(["key"] * num_rows),
            "origin_path": pa.array(["file"] * num_rows),
            "origin_offset": pa.array(rng.integers(0, 1 << 60, num_rows)),
            "origin_length": pa.array([1] * num_rows, pa.int64()),
            "host": pa.array(["host.example"] * num_rows),
            "content_hash": hashes,
            "text": pa.Array.from_buffers(pa.large_string(), num_rows, [None, offsets, pa.py_buffer(letters)]),
        }
        yield conform(pa.RecordBatch.from_pydict(columns), CORE)
        given += int(sizes.sum())


def write_inputs(folder: Path, largest: int, hot: bool) -> tuple[int, int]:
    """Commit the inputs as an earlier stage would; returns their rows and bytes of text."""
    storage, rng = LocalStorage(folder), np.random.default_rng(1)
    num_rows = num_bytes = 0
    for number, size in enumerate([LARGE, *[SMALL] * NUM_SMALL]):
        split_id = f"{number:032x}"
        place = Place(storage, storage.new_attempt(), "stages/1-read", split_id)
        sink = TableOutput("documents", CORE).open(place)
        for batch in made_documents(size, largest, rng, hot):
            sink.write(batch)
        (pending,) = sink.close()
        storage.publish(place.attempt, pending.name, pending.record.path)
        commit = Commit(split_id, f"input {number:03d}", (pending.record,), ())
        storage.commit(f"stages/1-read/commits/{split_id}.json", commit.to_json())
        num_rows += pending.record.rows
        num_bytes += pending.record.detail["sources"]["web"][1]
    return num_rows, num_bytes


@pytest.mark.parametrize(("key", "largest"), [("host", 8 << 10), ("doc_id", 8 << 10), ("host", 4 << 20)])
def test_a_worker_of_1_gib_groups_2_gib_of_one_key(key, largest, tmp_path):
    """By host all documents stay, by doc_id all but one go to the rejects."""
    try:
        rows, text = write_inputs(tmp_path / "in", largest, hot=key == "doc_id")
        assert text >= 2 << 30
        root = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-c", GROUP, str(tmp_path), key]
        found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
        kept, rejected, arrived, peak = map(int, found.stdout.split())
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)
    assert (kept, rejected) == ((rows, 0) if key == "host" else (1, rows - 1))
    assert arrived == (text if key == "host" else -1)
    print(f"group of {rows} documents with {text >> 20} MiB of text by {key}: peak {peak} MiB")
    assert peak < 1024
