"""What a training run writes down: `run.json`, `metrics.jsonl` (what `headrace report` reads), TensorBoard's events.

`metrics.jsonl` has an object a line, of kind `step` or `evaluation`. On a resume the lines after the checkpoint, and a
last line that was torn, are cut off before anything is added, so a step stands once.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from mixtures.plan import Plan
from tokenizer.whole_file import whole_file
from trainer_bridge.errors import TrainingError
from trainer_bridge.moe.config import ModelConfig
from trainer_bridge.moe.settings import TrainingSettings

FORMAT = "headrace-training-run"
VERSION = 1
RUN_FILE, METRICS_FILE = "run.json", "metrics.jsonl"


@dataclasses.dataclass(frozen=True, slots=True)
class StepMetrics:
    """One step over the whole global batch. Losses in nats; `aux_loss` and `z_loss` are means over the layers.

    `loads` are the experts' shares of the pairs by layer, as multiples of the mean (1 = even); `load_min` and
    `load_max` are the least and the greatest of them.
    """

    step: int
    sequences: int
    loss: float
    aux_loss: float
    z_loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    targets: int
    digest: str
    seconds: float
    loads: tuple[tuple[float, ...], ...]

    @property
    def load_min(self) -> float:
        """The least load of any expert of any layer."""
        return min(map(min, self.loads))

    @property
    def load_max(self) -> float:
        """The greatest load of any expert of any layer."""
        return max(map(max, self.loads))


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationMetrics:
    """The loss on held-out documents after a step, and the unigram model's on the same targets."""

    step: int
    sequences: int
    loss: float
    targets: int
    unigram: float
    sources: dict[str, float]


class RunLog:
    """Appends to the logs of a run's folder; a context manager. `after` is the step that is gone on from (0: none)."""

    def __init__(self, folder: Path, after: int) -> None:
        self._path = folder / METRICS_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _cut_after(self._path, after)
            self._file = self._path.open("a", encoding="ascii")
        except OSError as error:
            raise TrainingError(f"{error.filename}: {error.strerror}\nhint: name another --output") from error
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=after + 1)

    def __enter__(self) -> RunLog:
        """Return the log."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write out what is left and close."""
        self._file.close()
        self._board.close()

    def add_step(self, metrics: StepMetrics, alarms: tuple[str, ...] = ()) -> None:
        """Write one step, and what it gave warning of."""
        data = dataclasses.asdict(metrics) | {"load_min": metrics.load_min, "load_max": metrics.load_max}
        data["loads"] = [[round(load, 4) for load in layer] for layer in metrics.loads]
        self._add("step", data | ({"alarms": alarms} if alarms else {}))
        for name in ("loss", "aux_loss", "z_loss", "gradient_norm", "learning_rate", "load_min", "load_max"):
            self._board.add_scalar(f"training/{name}", data[name], metrics.step)

    def add_evaluation(self, metrics: EvaluationMetrics) -> None:
        """Write one evaluation."""
        self._add("evaluation", dataclasses.asdict(metrics))
        self._board.add_scalar("validation/loss", metrics.loss, metrics.step)
        self._board.add_scalar("validation/unigram", metrics.unigram, metrics.step)
        for name, loss in metrics.sources.items():
            self._board.add_scalar(f"validation/loss of {name}", loss, metrics.step)

    def _add(self, kind: str, data: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps({"kind": kind, **data}) + "\n")
            self._file.flush()
        except OSError as error:
            raise TrainingError(
                f"{self._path}: {error.strerror}\nhint: mend that and run the same command again"
            ) from error


def _cut_after(path: Path, after: int) -> None:
    """Rewrite the log without the lines of later steps and without a torn one; a run from the start begins it anew."""
    lines = path.read_text(encoding="ascii", errors="replace").splitlines() if after and path.exists() else []
    kept = [line + "\n" for line in lines if 0 <= _step_of(line) <= after]
    with whole_file(path) as attempt:
        attempt.write_text("".join(kept), encoding="ascii")


def _step_of(line: str) -> int:
    """Return the step of a line of the log, -1 if it is none (torn, or written over)."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return -1
    step = entry.get("step") if isinstance(entry, dict) else None
    return step if isinstance(step, int) and line.isascii() else -1


def write_run_file(folder: Path, plan: Plan, settings: TrainingSettings, config: ModelConfig) -> None:
    """Write what the run is: its plan (relative to the folder), its settings, the model's size."""
    assert plan.path is not None, "the plan was loaded from a file"
    data = {
        "format": FORMAT,
        "version": VERSION,
        "plan": os.path.relpath(plan.path.parent.resolve() / plan.path.name, folder.resolve()),
        "fingerprint": plan.fingerprint,
        "config": dataclasses.asdict(settings),
        "parameters": {"total": config.total_parameters, "active": config.active_parameters},
    }
    try:
        with whole_file(folder / RUN_FILE) as attempt:
            attempt.write_text(json.dumps(data, sort_keys=True, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{folder / RUN_FILE}: {error.strerror}\nhint: name another --output") from error
