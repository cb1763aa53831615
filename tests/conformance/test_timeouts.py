"""A time limit is a fault and not a verdict (law 5): the split is marked, and a rerun makes what a clean run makes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from engine_runs import SPARK
from hanging_extract import with_hanging
from made import PROSE, made_recipe, record
from rich.console import Console
from runs import REPOSITORY, SHARED, plan_of
from trees import tree_hashes

from pipelines.engines.datatrove import DatatroveEngine
from pipelines.engines.engine import StageResult
from pipelines.run import Part, run_part, run_plan
from pipelines.storage.local import LocalStorage
from pipelines.summary import show_part
from pipelines.verify import verify_output

ENGINES = {"datatrove": ("datatrove",), "spark": SPARK}
HANGING = f"<p>{PROSE} And hang here.</p>"


@pytest.fixture
def hanging_recipe(tmp_path):
    """The recipe that has every fate of a document, and a second archive in which one of two pages hangs."""
    path = made_recipe(tmp_path)
    pages = record("good", f"<p>{PROSE} It is beside a page that hangs.</p>") + record("copy", HANGING)
    (tmp_path / "input/slow.warc").write_bytes(pages.replace(b"urn:uuid:00000000", b"urn:uuid:11111111"))
    return path


def run(recipe: Path, output: Path, marker: Path, *engine: str) -> dict:
    """Run with the extractor that hangs until the marker is there, in a process of its own."""
    program = "import hanging_extract; hanging_extract.main()"  # not as `__main__`, where no worker would find it
    name, *options = engine
    done = subprocess.run(
        [sys.executable, "-c", program, recipe, output, name, marker, *options],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/support'}", "SPARK_LOCAL_IP": "127.0.0.1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def timeouts(output: Path) -> list[tuple[str, dict]]:
    """Return the path and the verdict of every document of the first stage that met a time limit."""
    rows = [
        row for path in (output / "stages/1-read/rejects").rglob("*.parquet") for row in pq.read_table(path).to_pylist()
    ]
    return [(row["origin_path"], row["verdict"]) for row in rows if row["verdict"]["reason"] == "extract.timeout"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_page_that_hangs_is_a_fault_and_a_rerun_makes_it_good(engine, hanging_recipe, tmp_path):
    marker, clean = tmp_path / "marker", LocalStorage(tmp_path / "clean")
    marker.touch()
    with DatatroveEngine(1) as one:
        assert (
            run_plan(with_hanging(plan_of(hanging_recipe, clean), marker, 9), clean, one, lambda *_: None).not_canonical
            == {}
        )
    marker.unlink()

    first = run(hanging_recipe, tmp_path / "out", marker, *ENGINES[engine])
    assert first["not_canonical"] == {"1-read": {"web/slow.warc": 1}}
    [last] = json.loads((tmp_path / "out/run.json").read_text())["runs"]
    assert last["not_canonical"] == first["not_canonical"]
    assert any("web/slow.warc" in warning and "not canonical" in warning for warning in last["warnings"])
    verdict = {"outcome": "errored", "reason": "extract.timeout", "value": "> 2 seconds", "threshold": "<= 2 seconds"}
    assert timeouts(tmp_path / "out") == [("slow.warc", verdict)]
    assert list(verify_output(tmp_path / "out"))[-1].startswith("faults: NOT CANONICAL: 1 splits")
    assert tree_hashes(tmp_path / "out") != tree_hashes(tmp_path / "clean")

    marker.touch()
    second = run(hanging_recipe, tmp_path / "out", marker, *ENGINES[engine])
    assert second["not_canonical"] == {}
    assert second["found"] >= 3, "the other splits are not done again"
    assert tree_hashes(tmp_path / "out") == tree_hashes(tmp_path / "clean")
    assert not [line for line in verify_output(tmp_path / "out") if line.startswith("faults")]


def test_a_part_says_so_and_a_later_run_tries_again(hanging_recipe, tmp_path):
    """A part is a run of its own: the same part again, as the whole run behind all parts, does the split anew."""
    marker, output, part = tmp_path / "marker", LocalStorage(tmp_path / "out"), Part(1, 1)
    plan = with_hanging(plan_of(hanging_recipe, output), marker, timeout_seconds=1)
    with DatatroveEngine(1) as engine:
        first = run_part(plan, output, engine, lambda *_: None, part)
        assert "1 documents in 1 splits met a time limit" in said_of(part, first)
        marker.touch()
        second = run_part(plan, output, engine, lambda *_: None, part)
        assert (second.num_done, second.num_found) == (1, first.num_done - 1)
        assert "time limit" not in said_of(part, second)
        assert run_plan(plan, output, engine, lambda *_: None).not_canonical == {}


def said_of(part: Part, done: StageResult) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    show_part(part, done, console)
    return console.export_text()


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")
def test_no_page_of_a_normal_recipe_meets_a_time_limit(reference):
    """In CI any time limit that is met is a failure."""
    _, result = reference
    assert result.not_canonical == {}
