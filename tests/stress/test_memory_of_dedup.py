"""Band keys of 5 million generated documents, and their candidates, in less than 4 GiB: what is grouped lies on disk.

Other numbers of documents by the environment variable `DEDUP_DOCUMENTS`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc"),
]

NUM_DOCUMENTS = int(os.environ.get("DEDUP_DOCUMENTS", "5_000_000"))
LIMIT = 4 << 30
BANDS = 14
COPY_OF_LAST = 10
"""Every tenth document is a copy of the one before."""

RECIPE = """
sources:
  web: {reader: table, schema: c4, root: in, include: ["*.jsonl"]}
deduplicate: {near: {preset: fineweb}}
output: {buckets: 16}
"""

RUN = """
import sys, time
from pathlib import Path
import numpy as np
import pyarrow as pa
from pipelines.commit import Commit, CommittedTable
from pipelines.engines.datatrove import DatatroveEngine
from pipelines.engines.engine import StageResult
from pipelines.engines.grouping import bucket_label
from pipelines.engines.mapping import conform
from pipelines.near_duplicates.columns import keys_of
from pipelines.plan import DOCUMENTS, build_plan
from pipelines.recipe import load_recipe
from pipelines.sinks.sink import Place
from pipelines.sinks.tables import TableOutput
from pipelines.storage.local import LocalStorage

WORDS, AT_ONCE = 40, 20_000  # words of a document, documents that are made at a time

def batches(num, schema, rng):
    vocabulary = rng.integers(97, 123, (20_000, 6), np.uint8)
    vocabulary[:, 5] = 32
    while num:
        some = min(num, AT_ONCE)
        num -= some
        words = rng.integers(0, len(vocabulary), (some, WORDS))
        words[copy_of_last - 1 :: copy_of_last] = words[copy_of_last - 2 :: copy_of_last][: some // copy_of_last]
        text = pa.py_buffer(vocabulary[words].reshape(-1))
        offsets = pa.py_buffer(np.arange(some + 1) * (6 * WORDS))
        ids = keys_of(rng.integers(0, 256, (some, 16), np.uint8))
        ranks = np.zeros((some, 16), np.uint8)
        ranks[:, 4:12] = rng.integers(0, 256, (some, 8))
        columns = {
            "doc_id": ids, "content_hash": ids, "rank": keys_of(ranks), "place": pa.array(np.zeros(some, np.int32)),
            "text": pa.Array.from_buffers(pa.large_string(), some, [None, offsets, text]),
            "source": pa.array(["web"] * some), "natural_key": pa.array(["key"] * some),
            "origin_path": pa.array(["file"] * some), "origin_offset": pa.array(np.arange(some)),
            "origin_length": pa.array(np.ones(some, np.int64)),
        }
        yield conform(pa.RecordBatch.from_pydict(columns), schema)

folder, num_documents, copy_of_last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
output = LocalStorage(folder / "out")
plan = build_plan(load_recipe(folder / "recipe.yaml"), output)
identify = plan.stages[1]
keys, candidates = (next(one for one in plan.stages if one.name.endswith(name)) for name in ("band-keys", "candidates"))
rng, commits = np.random.default_rng(1), []
for number in range(identify.buckets):
    place = Place(output, output.new_attempt(), identify.folder, f"{number:032x}")
    sink = TableOutput(DOCUMENTS, identify.schema).open(place)
    share = num_documents // identify.buckets + (number < num_documents % identify.buckets)
    for batch in batches(share, identify.schema, rng):
        sink.write(batch)
    (pending,) = sink.close()
    output.publish(place.attempt, pending.name, pending.record.path)
    label = bucket_label(number, identify.buckets)
    commits.append(Commit(f"{number:032x}", label, (pending.record,), ()))

def rows(result, table):
    return sum(file.rows for commit in result.commits for file in commit.files if file.table == table)

quiet = lambda *_: None
with DatatroveEngine(2) as engine:
    started = time.monotonic()
    splits = keys.chains[DOCUMENTS].source.splits_of(commits, DOCUMENTS)
    banded = engine.map(keys, splits, (), output, quiet)
    between = time.monotonic()
    given = [CommittedTable(output, "band_keys", banded.commits)]
    found = engine.group(candidates, given, output, quiet)
    ended = time.monotonic()
print(rows(banded, "band_keys"), rows(found, "shingle_sets"))
print(f"band keys {between - started:.1f} s, candidates {ended - between:.1f} s", file=sys.stderr)
"""


def peaks_of(parent: int) -> dict[int, int]:
    """Return the most memory (bytes resident) that each process of a tree has held so far, by process id."""
    peaks, left = {}, [parent]
    while left:
        process = left.pop()
        try:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
            left += map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
        except (OSError, ValueError):
            continue  # it has just ended
        if "VmHWM" in status:
            peaks[process] = int(status["VmHWM"].split()[0]) << 10
    return peaks


def bytes_in(folder: Path) -> int:
    """Return how large the files of a folder are that may be deleted meanwhile."""
    total = 0
    for path in folder.glob("**/*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def test_band_keys_and_candidates_of_5_million_documents(tmp_path):
    """The sum of the peaks of all processes, the making of the documents included."""
    (tmp_path / "in").mkdir()
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    command = [sys.executable, "-c", RUN, str(tmp_path), str(NUM_DOCUMENTS), str(COPY_OF_LAST)]
    root, peaks, spilled = Path(__file__).resolve().parents[2], {}, 0
    try:
        process = subprocess.Popen(
            command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        while process.poll() is None:
            peaks |= peaks_of(process.pid)
            spilled = max(spilled, sum(bytes_in(one) for one in tmp_path.glob("out/stages/*/scatter")))
            time.sleep(0.2)
        said, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)
    keys, asked = map(int, said.split())
    assert keys == BANDS * NUM_DOCUMENTS
    copies = NUM_DOCUMENTS // COPY_OF_LAST
    assert asked >= 2 * BANDS * 0.95 * copies, "both of a pair are asked for in every band"
    assert spilled >= 24 * keys, "the keys were not sorted on disk"
    peak = sum(peaks.values())
    print(
        f"{NUM_DOCUMENTS:,} documents, {keys:,} keys, {asked:,} rows that ask: peak {peak >> 20} MiB in {len(peaks)} "
        f"processes, {spilled >> 20} MiB on disk; {errors.strip().splitlines()[-1]}"
    )
    assert peak < LIMIT
