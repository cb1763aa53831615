"""Peak memory of a worker: a WARC of 1 GiB, and single documents of 200 MB in every kind of source."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made import PROSE, record
from runs import REPOSITORY, SHARED

pytestmark = pytest.mark.stress

MOST_BYTES = 3 << 29
"""1.5 GiB, what a worker may take at its peak."""
LARGE = 200_000_000
CHILD = """
import json, re, sys
from pathlib import Path
from pipelines.engines.datatrove import DatatroveEngine
from pipelines.plan import build_plan
from pipelines.recipe import load_recipe
from pipelines.run import run_plan
from pipelines.storage.local import LocalStorage
output = LocalStorage(Path(sys.argv[2]))
with DatatroveEngine(1) as engine:
    result = run_plan(build_plan(load_recipe(Path(sys.argv[1])), output), output, engine, lambda *_: None)
rows = [[row["account"], row["reason"], row["rows"]] for row in result.ledger.to_pylist() if row["stage"] == "1-read"]
# not ru_maxrss, which begins with that of the process that started this one
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"peak": peak, "rows": rows}))
"""


def run_alone(recipe: Path, output: Path) -> dict:
    """Run a recipe in a process of its own, with one worker; returns its peak memory and what became of documents."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(recipe), str(output)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def write_recipe(folder: Path, source: str) -> Path:
    path = folder / "one.yaml"
    path.write_text(f"sources: {{one: {{root: input, {source}}}}}\noutput: {{buckets: 4}}\n")
    (folder / "input").mkdir()
    return path


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")
def test_a_warc_of_one_gibibyte(tmp_path):
    recipe = write_recipe(tmp_path, "reader: commoncrawl, include: ['*.warc.gz'], transforms: [extract]")
    member = (SHARED / "warc/webarchive/dolma-sample-0000.warc.gz").read_bytes()
    with (tmp_path / "input/large.warc.gz").open("wb") as file:
        while file.tell() < 1 << 30:
            file.write(member)
    result = run_alone(recipe, tmp_path / "out")
    print(f"peak {result['peak'] / 2**20:.0f} MiB")
    assert result["peak"] < MOST_BYTES


def write_warc(folder: Path) -> None:
    (folder / "one.warc").write_bytes(record("good", f"<p>{PROSE * (LARGE // len(PROSE))}</p>"))


def write_lines(folder: Path) -> None:
    (folder / "one.jsonl").write_text(json.dumps({"text": PROSE * (LARGE // len(PROSE)), "url": "http://a.example"}))


def write_conversation(folder: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": PROSE * (LARGE // len(PROSE))}]
    (folder / "one.jsonl").write_text(json.dumps({"messages": turns}) + "\n")


def write_table(folder: Path) -> None:
    pq.write_table(
        pa.table({"content": [PROSE * (LARGE // len(PROSE))], "url": ["http://a.example"]}), folder / "one.parquet"
    )


def write_code(folder: Path) -> None:
    (folder / "one.py").write_text("VALUE = 7\n" * (LARGE // 10))


@pytest.mark.parametrize(
    ("source", "write"),
    [
        ("reader: commoncrawl, include: ['*.warc'], transforms: [extract]", write_warc),
        ("reader: table, schema: c4, include: ['*.jsonl']", write_lines),
        ("reader: conversations, include: ['*.jsonl']", write_conversation),
        ("reader: table, schema: refinedweb, include: ['*.parquet']", write_table),
        ("reader: code, repository: r, include: ['*.py']", write_code),
    ],
)
def test_a_single_document_of_200_megabytes(source, write, tmp_path):
    recipe = write_recipe(tmp_path, source)
    write(tmp_path / "input")
    result = run_alone(recipe, tmp_path / "out")
    print(f"peak {result['peak'] / 2**20:.0f} MiB, {result['rows']}")
    assert result["peak"] < MOST_BYTES
    stopped = [row for row in result["rows"] if row[0] in ("dropped", "errored")]
    assert len(stopped) == 1
    assert stopped[0][2] == 1
