"""The profile of the main job: the watch counts every moment once, and the script's JSON adds up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from made import SOURCES as MADE_SOURCES
from made import made_recipe
from runs import run_recipe

from benchmarks import main_job
from pipelines.transforms.registry import TRANSFORMS

REPOSITORY = Path(__file__).resolve().parents[2]
RUN_KEYS = {
    "extractor",
    "cpu_s",
    "spans",
    "overhead_share",
    "bound_by",
    "documents_read",
    "documents",
    "text_bytes",
    "tokens",
    "encode_and_shards_s",
}


@pytest.fixture
def clock(monkeypatch):
    """CPU time that passes only when a test says so."""
    times = [0.0]
    monkeypatch.setattr(main_job.time, "process_time", lambda: times[0])

    def spend(seconds: float) -> None:
        times[0] += seconds

    return spend


def test_nested_spans_are_counted_once(clock):
    watch = main_job.Stopwatch()
    clock(1)
    with watch.span("stage work", "1-read"):
        clock(2)
        with watch.span("encode"):
            clock(4)
            with watch.span("ledger"):
                clock(8)
            clock(16)
        clock(32)
    clock(64)
    assert watch.stop() == {
        ("driver", "everything else"): 65,
        ("1-read", "stage work"): 34,
        ("1-read", "encode"): 20,
        ("1-read", "ledger"): 8,
    }


def test_a_span_that_fails_is_closed(clock):
    watch = main_job.Stopwatch()
    with pytest.raises(ValueError), watch.span("encode"):
        clock(1)
        raise ValueError
    clock(2)
    assert watch.stop() == {("driver", "encode"): 1, ("driver", "everything else"): 2}


def test_a_generator_is_charged_for_its_own_time_alone(clock):
    def read():
        clock(1)
        yield "a"
        clock(2)
        yield "b"
        clock(4)

    watch = main_job.Stopwatch()
    measured = main_job._measured(watch, read, "read")
    seen = []
    for value in measured():
        clock(100)
        seen.append(value)
    assert seen == ["a", "b"]
    assert watch.stop() == {("driver", "read"): 7, ("driver", "everything else"): 200}


def test_calls_are_put_back(tmp_path):
    """Also when the run fails, and even those that two items would share."""
    calls = main_job.wrapped_calls()
    assert len({(id(place), name) for place, name, _ in calls}) == len(calls)
    before = [getattr(place, name) for place, name, _ in calls]
    with pytest.raises(KeyError), main_job.measuring(main_job.Stopwatch()):
        assert all(getattr(place, name) is not old for (place, name, _), old in zip(calls, before, strict=True))
        raise KeyError
    assert [getattr(place, name) for place, name, _ in calls] == before


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What the script says of the made-up recipe, and how it ended."""
    folder = tmp_path_factory.mktemp("bench")
    recipe, target = made_recipe(folder), folder / "report.json"
    command = [sys.executable, "benchmarks/main_job.py", "--recipe", recipe, "--json", target, "--workers", "2"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert target.exists(), ended.stderr
    return recipe, json.loads(target.read_text()), ended


def test_spans_add_up(report):
    _, found, _ = report
    assert set(found) == {"runs", "tiktoken", "processes"}
    assert [run["extractor"] for run in found["runs"]] == ["headrace", "resiliparse", "trafilatura", "readability"]
    for run in found["runs"]:
        assert set(run) == RUN_KEYS
        assert sum(seconds for *_, seconds in run["spans"]) == pytest.approx(run["cpu_s"])
        assert all(seconds >= 0 for *_, seconds in run["spans"])
        overhead = sum(seconds for _, item, seconds in run["spans"] if item in main_job.OVERHEAD)
        assert run["overhead_share"] == pytest.approx(overhead / run["cpu_s"])


def test_every_stage_and_item_is_there(report):
    _, found, _ = report
    for run in found["runs"]:
        stages = {stage for stage, *_ in run["spans"]}
        assert stages == {
            "driver", "1-read", "2-identify", "3-find-duplicates", "4-sort-duplicates", "5-tokenize"
        }  # fmt: skip
        items = {item for _, item, _ in run["spans"]}
        wrapped = {item for *_, item in main_job.wrapped_calls()}
        lacking = {"read table", "read wat", *TRANSFORMS} - {"extract", "language", "gopher_quality"}
        assert wrapped - items == lacking, "calls that never ran: the recipe lacks these readers and transforms"
        assert run["bound_by"] in items


def test_counts_are_those_of_a_run(report, tmp_path):
    recipe, found, _ = report
    ledger = run_recipe(recipe, tmp_path / "out").ledger.to_pylist()
    out = [row for row in ledger if row["table"] == "tokens" and row["account"] == "out"]
    own = found["runs"][0]
    assert {row["source"] for row in out} == set(MADE_SOURCES)
    assert (own["documents"], own["text_bytes"], own["tokens"]) == tuple(
        sum(row[column] for row in out) for column in ("rows", "bytes", "tokens")
    )
    assert own["documents_read"] > own["documents"] > 0


def test_too_much_overhead_is_a_failure(report):
    """A recipe of a few lines is nearly all overhead, but that is the machine's to say."""
    _, found, ended = report
    too_much = found["runs"][0]["overhead_share"] > main_job.MAX_OVERHEAD
    assert ended.returncode == int(too_much)
    assert ("overhead is" in ended.stderr) == too_much
    assert "bound by" in ended.stdout
