"""The Beam engine: its options, workers that die, and what it leaves. Same bytes: tests/conformance/test_engines.py."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions, GoogleCloudOptions, PipelineOptions, WorkerOptions
from engine_runs import counts, start
from made import made_recipe
from runs import run_recipe
from trees import tree_hashes

from pipelines.engines.beam import beam_arguments
from pipelines.errors import HeadraceError

PROCESSES = ("direct_num_workers=2", "direct_running_mode=multi_processing")
"""Worker processes also for a stage of one rank, which would otherwise run in process."""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"runer": "FlinkRunner"}, "Beam has no option runer\nhint: did you mean runner?"),
        ({"runner": "NoRunner"}, "found runner NoRunner\nhint: allowed are"),
        ({"streaming": "perhaps"}, "option streaming is a flag, found 'perhaps'"),
        ({"direct_num_workers": "many"}, "invalid int value: 'many'"),
        ({"direct_running_mode": "sideways"}, "invalid choice: 'sideways'"),
    ],
)
def test_wrong_options_are_refused(options, said):
    with pytest.raises(HeadraceError, match=said.replace("?", r"\?")):
        beam_arguments(2, options)


def test_options_of_flink_and_dataflow_arrive():
    flink = PipelineOptions(beam_arguments(2, {"runner": "FlinkRunner", "flink_master": "here:8081", "streaming": ""}))
    assert flink.view_as(FlinkRunnerOptions).flink_master == "here:8081"
    assert "direct_num_workers" not in flink.get_all_options(drop_default=True)
    given = {"runner": "DataflowRunner", "project": "p", "region": "r", "sdk_container_image": "image"}
    dataflow = PipelineOptions(beam_arguments(2, given))
    assert dataflow.view_as(GoogleCloudOptions).project == "p"
    assert dataflow.view_as(WorkerOptions).sdk_container_image == "image"


def test_local_workers_are_the_default():
    found = PipelineOptions(beam_arguments(3, {})).get_all_options(drop_default=True)
    assert found["direct_num_workers"] == 3
    assert found["direct_running_mode"] == "multi_processing"


@pytest.mark.parametrize("death", ["commit stages/2-identify after", "publish stages/1-read half"])
def test_a_worker_that_is_killed_ends_the_run_and_a_rerun_goes_on(death, tmp_path, monkeypatch):
    """Beam alone would wait for it for ever."""
    recipe = made_recipe(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    process = start(recipe, tmp_path / "out", "beam", *PROCESSES, "--death", death)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert f"WorkerDied: stage {death.split('/')[1].split()[0]}" in errors
    assert "hint: run the same command again, it goes on" in errors
    counts(start(recipe, tmp_path / "out", "beam"))
    again = counts(start(recipe, tmp_path / "out", "beam"))
    assert again["done"] == 0
    monkeypatch.undo()
    run_recipe(recipe, tmp_path / "plain")
    assert tree_hashes(tmp_path / "out") == tree_hashes(tmp_path / "plain")
    left = [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["beam.log"], "only the log that the error names is left"


def test_an_interrupted_driver_leaves_nothing_running(tmp_path):
    process = start(made_recipe(tmp_path), tmp_path / "out", "beam")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("stages/1-read/commits/*")):
        if time.monotonic() > deadline or process.poll() is not None:
            pytest.fail(str(process.communicate()))
        time.sleep(0.02)
    started = below(process.pid)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    deadline = time.monotonic() + 10
    while left := [pid for pid in started if runs(pid)]:
        assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_text() for pid in left]
        time.sleep(0.1)


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def below(parent: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    found: list[int] = []
    for thread in Path("/proc").glob(f"{parent}/task/*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in thread.read_text().split():
                found += [int(child), *below(int(child))]
    return found


def test_a_run_says_nothing_but_what_it_should(tmp_path):
    process = start(made_recipe(tmp_path), tmp_path / "out", "beam")
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert len(said.splitlines()) == 1
    assert errors == ""
    assert (tmp_path / "out/ledger.parquet").exists()
