"""What a run writes down: read back, cut at a checkpoint, and taken by the report and TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plans import made_plan
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mixtures.plan import Plan
from mixtures.report.training import training_figures
from trainer_bridge.errors import TrainingError
from trainer_bridge.moe.run_log import EvaluationMetrics, RunLog, StepMetrics, write_run_file
from trainer_bridge.moe.settings import ModelSettings, TrainingSettings


def step(number: int, loss: float = 9.0) -> StepMetrics:
    loads = ((0.5, 1.5), (1.23456, 0.76544))
    return StepMetrics(number, 4 * number, loss, 1.01, 0.5, 1.5, 0.001, 250, 240, f"{number:032x}", 0.25, loads)


def evaluation(number: int) -> EvaluationMetrics:
    return EvaluationMetrics(number, 4 * number, 8.5, 100, 8.75, {"web": 8.0, "code": 9.0})


def lines(folder: Path) -> list[tuple[str, int]]:
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(entry["kind"], entry["step"]) for entry in entries]


def write(folder: Path, after: int, *metrics: StepMetrics | EvaluationMetrics) -> None:
    with RunLog(folder, after) as log:
        for found in metrics:
            log.add_evaluation(found) if isinstance(found, EvaluationMetrics) else log.add_step(found)


def test_a_line_says_everything(tmp_path):
    with RunLog(tmp_path / "run", 0) as log:
        log.add_evaluation(evaluation(0))
        log.add_step(step(1))
        log.add_step(step(2), ("a warning",))
    found = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert found[0] == {
        "kind": "evaluation", "step": 0, "sequences": 0, "loss": 8.5, "targets": 100, "unigram": 8.75,
        "sources": {"web": 8.0, "code": 9.0},
    }  # fmt: skip
    assert found[1] == {
        "kind": "step", "step": 1, "sequences": 4, "loss": 9.0, "aux_loss": 1.01, "z_loss": 0.5, "gradient_norm": 1.5,
        "learning_rate": 0.001, "tokens": 250, "targets": 240, "digest": f"{1:032x}", "seconds": 0.25,
        "load_min": 0.5, "load_max": 1.5, "loads": [[0.5, 1.5], [1.2346, 0.7654]],
    }  # fmt: skip
    assert found[2]["alarms"] == ["a warning"]
    figures = training_figures(tmp_path / "run/metrics.jsonl")
    assert (figures["steps"], figures["repeated"], figures["torn"], figures["evaluations_made"]) == (2, 0, 0, 1)


def test_what_came_after_the_checkpoint_is_cut_off(tmp_path):
    write(tmp_path, 0, evaluation(0), step(1), step(2), evaluation(2), step(3), step(4), evaluation(4))
    write(tmp_path, 2, step(3, loss=7.0))
    assert lines(tmp_path) == [("evaluation", 0), ("step", 1), ("step", 2), ("evaluation", 2), ("step", 3)]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["loss"] == 7.0
    write(tmp_path, 0, step(1))
    assert lines(tmp_path) == [("step", 1)]


@pytest.mark.parametrize("torn", ['{"kind": "step", "st', "[1]", '{"step": "1"}', "{}", "\x00\x00", "[" * 100_000])
def test_a_line_that_is_none_is_cut_off(tmp_path, torn):
    write(tmp_path, 0, step(1), step(2))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    write(tmp_path, 2, step(3))
    assert lines(tmp_path) == [("step", 1), ("step", 2), ("step", 3)]


def test_a_line_is_on_disk_before_the_next_step(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.add_step(step(1))
        assert lines(tmp_path) == [("step", 1)]


def test_tensorboard_reads_the_same(tmp_path):
    write(tmp_path, 0, step(1, loss=9.0), step(2, loss=8.0), step(3, loss=1.0), evaluation(3))
    write(tmp_path, 2, step(3, loss=7.0))
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("training/loss")] == [(1, 9.0), (2, 8.0), (3, 7.0)]
    assert {"training/load_min", "training/gradient_norm", "training/learning_rate"} < set(board.Tags()["scalars"])


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="hint: name another --output"):
        RunLog(tmp_path / "file", 0)


def test_the_run_file_names_its_plan(tmp_path):
    plan = Plan.load(made_plan(tmp_path / "plan"))
    settings = TrainingSettings(ModelSettings(layers=1, d_model=8, heads=1, head_dim=2, d_ff=8, experts=4))
    folder = tmp_path / "deep/er"
    folder.mkdir(parents=True)
    config = settings.model.config(16)
    write_run_file(folder, plan, settings, config)
    found = json.loads((folder / "run.json").read_text())
    assert (found["format"], found["version"], found["fingerprint"]) == ("headrace-training-run", 1, plan.fingerprint)
    assert Plan.load(folder / found["plan"]) == plan
    assert not Path(found["plan"]).is_absolute()
    assert found["config"]["model"]["d_model"] == 8
    assert found["parameters"] == {"total": config.total_parameters, "active": config.active_parameters}
    assert [path.name for path in folder.iterdir()] == ["run.json"]
