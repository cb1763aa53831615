"""The training loop: steps of the plan through the model, evaluation, checkpoints; stopping and going on anywhere.

On one machine with one number of threads, a run that is stopped after any step and goes on has the weights of one that
was not, bit for bit: they depend on the seed, the settings and the plan, and nothing is drawn at random on the way.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from mixtures.plan import Plan
from trainer_bridge.batch import step_digest
from trainer_bridge.errors import StateMismatch, TrainingError
from trainer_bridge.moe.alarms import Alarms
from trainer_bridge.moe.checkpoint import Checkpoint, load_checkpoint, newest_checkpoint, save_checkpoint
from trainer_bridge.moe.evaluate import Evaluator
from trainer_bridge.moe.model import Decoder
from trainer_bridge.moe.optimizer import learning_rate, make_optimizer, set_learning_rate
from trainer_bridge.moe.panel import Show
from trainer_bridge.moe.ranks import Ranks
from trainer_bridge.moe.run_log import EvaluationMetrics, RunLog, StepMetrics, write_run_file
from trainer_bridge.moe.settings import TrainingSettings
from trainer_bridge.moe.signals import stop_on_signals
from trainer_bridge.moe.step import StepResult, compute_gradients
from trainer_bridge.state import StreamState, step_after
from trainer_bridge.stream import Stream
from trainer_bridge.torch_data import StepBatch, StreamDataset, make_loader

CHECKPOINTS = "checkpoints"

Say = Callable[[str], None]
"""Given what a user should read, a line at a time."""


@dataclasses.dataclass(slots=True)
class Run:
    """A training run as it stands after `step` steps: the model, its optimizer, what the stream has given."""

    plan: Plan
    settings: TrainingSettings
    folder: Path
    ranks: Ranks
    model: Decoder
    optimizer: torch.optim.AdamW
    state: StreamState
    step: int = 0
    digest: str = ""
    """Of the last step's data."""

    @property
    def steps(self) -> int:
        """The steps that the learning rate decays over."""
        return self.settings.steps or self.plan.steps

    def save(self) -> None:
        """Write a checkpoint."""
        keep = self.settings.keep_checkpoints
        save_checkpoint(self.folder / CHECKPOINTS, self.step, self.digest, self.state, self.model, self.optimizer, keep)


def train(
    settings: TrainingSettings, plan: Plan, folder: Path, until: int | None, ranks: Ranks, show: Show, say: Say
) -> Run:
    """Train on a plan in `folder`, from its newest checkpoint on if there is one, to step `until` (None: to the end).

    `show` is given the metrics, on the first rank. SIGINT or SIGTERM lets the step finish, saves and returns; only the
    main thread hears them. Raises `TrainingError`, `CheckpointError` and `StateMismatch`.
    """
    alone = locked(folder) if ranks.first else nullcontext()
    with alone, reproducible(settings.threads), stop_on_signals() as stop:
        run = _open_run(settings, plan, folder, ranks, say)
        last = min(run.steps, until or run.steps)
        if run.step >= last:
            say(f"nothing to do: {run.step:,} steps are done")
            return run
        dataset = StreamDataset(_path(plan), run.step, last, ranks.rank, ranks.world_size)
        with RunLog(folder, run.step) if ranks.first else nullcontext() as log:
            watch = _Watch(run, log, show, say) if log else None
            for batch in make_loader(dataset, settings.loader_workers):
                metrics = take_step(run, batch)
                stopped = ranks.any(stop.made)
                if watch:
                    watch.after_step(metrics, run.step == last, stopped)
                if stopped:
                    say(f"stopped after step {run.step:,}; the same command goes on from there")
                    break
    return run


def take_step(run: Run, batch: StepBatch) -> StepMetrics:
    """Carry out one step on this rank's part of the global batch and return the metrics of all of it.

    `TrainingError` where the loss or the gradient is no finite number; the weights are then those before the step.
    """
    started = time.monotonic()
    rate = learning_rate(run.settings.optimizer, run.step, run.steps)
    set_learning_rate(run.optimizer, rate)
    result = compute_gradients(run.model, batch, run.settings.micro_batch, run.ranks)
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.settings.optimizer.gradient_clip).item()
    _check_finite(run.step + 1, result, norm)
    run.optimizer.step()
    run.state, run.step, run.digest = run.state.advanced(run.plan), run.step + 1, result.digest
    return StepMetrics(
        step=run.step,
        sequences=run.state.sequences,
        gradient_norm=norm,
        learning_rate=rate,
        seconds=time.monotonic() - started,
        **dataclasses.asdict(result),
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder; `TrainingError` where another process trains in it, or it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise TrainingError(f"{error.filename}: {error.strerror}\nhint: name another --output") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"{folder}: another process is training in it\nhint: wait for it, stop it, or name another --output"
            ) from error
        yield


@contextmanager
def reproducible(threads: int | None) -> Iterator[None]:
    """Let PyTorch refuse what is not deterministic, on so many threads (None: as many as it takes by itself)."""
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # it costs time, and nothing reads such memory
    torch.set_num_threads(threads or before[1])
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        memory.fill_uninitialized_memory = filled
        torch.set_num_threads(before[1])


class _Watch:
    """What the first rank does besides the steps: logs, warnings, evaluation, checkpoints."""

    def __init__(self, run: Run, log: RunLog, show: Show, say: Say) -> None:
        self._run, self._log, self._show, self._say = run, log, show, say
        self._alarms = Alarms()
        self._evaluator = Evaluator.of(run.plan, run.settings.evaluate_sequences, run.settings.micro_batch)
        write_run_file(run.folder, run.plan, run.settings, run.model.config)
        if self._evaluator is None:
            say("no evaluation: the plan holds no document out")
        elif run.step == 0:
            self._evaluate(self._evaluator)

    def after_step(self, metrics: StepMetrics, last: bool, stopped: bool) -> None:
        """Evaluate before saving, so that what a checkpoint goes on from has been logged."""
        run = self._run
        alarms = self._alarms.look(metrics)
        self._log.add_step(metrics, alarms)
        self._show(metrics)
        for alarm in alarms:
            self._say(f"warning: step {metrics.step:,}: {alarm}")
        if self._evaluator and (last or run.step % run.settings.evaluate_every == 0):
            self._evaluate(self._evaluator)
        if last or stopped or run.step % run.settings.checkpoint_every == 0:
            run.save()

    def _evaluate(self, evaluator: Evaluator) -> None:
        run, found = self._run, evaluator.evaluate(self._run.model)
        metrics = EvaluationMetrics(
            step=run.step, sequences=run.state.sequences, unigram=evaluator.unigram, **dataclasses.asdict(found)
        )
        self._log.add_evaluation(metrics)
        self._show(metrics)


def _open_run(settings: TrainingSettings, plan: Plan, folder: Path, ranks: Ranks, say: Say) -> Run:
    """Build the model and put the newest checkpoint that verifies into it."""
    _check_sizes(settings, plan, ranks)
    model = Decoder(settings.model.config(plan.tokenizer.vocabulary), torch.Generator().manual_seed(settings.seed))
    optimizer = make_optimizer(model, settings.optimizer)
    run = Run(plan, settings, folder, ranks, model, optimizer, StreamState.start(plan))
    checkpoint, problems = newest_checkpoint(folder / CHECKPOINTS)
    for problem in problems:
        say(f"warning: {problem}\nthe checkpoint before it is used")
    _check_agreement(run, checkpoint)
    if checkpoint is None:
        say(f"starting: {model.config.total_parameters:,} parameters, {run.steps:,} steps")
        return run
    run.state, run.step, run.digest = checkpoint.state.resume(plan), checkpoint.step, checkpoint.digest
    _check_data(run)
    load_checkpoint(checkpoint, model, optimizer)
    say(f"resuming at step {run.step:,}, sequence {run.state.sequences:,}")
    return run


def _check_sizes(settings: TrainingSettings, plan: Plan, ranks: Ranks) -> None:
    if settings.steps is not None and settings.steps > plan.steps:
        raise TrainingError(
            f"steps: {settings.steps:,} are asked for, the plan has {plan.steps:,}\n"
            "hint: ask for no more, or plan more epochs"
        )
    for phase in plan.phases:
        if phase.global_batch % ranks.world_size:
            raise TrainingError(
                f"{ranks.world_size} ranks: cannot share {phase.global_batch:,} sequences a step equally\n"
                f"hint: start a number of ranks that divides {phase.global_batch:,}"
            )


def _check_agreement(run: Run, checkpoint: Checkpoint | None) -> None:
    """See that all ranks are about to do the same."""
    start = None if checkpoint is None else (checkpoint.step, checkpoint.state)
    mark = repr((run.plan.fingerprint, run.settings, start)).encode()
    if len(set(run.ranks.gather([hashlib.sha256(mark).digest()]))) > 1:
        raise TrainingError(
            f"{run.folder}: the ranks found different plans, configurations or checkpoints\n"
            "hint: give all of them the same files and one folder that they share"
        )


def _check_data(run: Run) -> None:
    """See that the stream still gives what the last step before the checkpoint saw."""
    if step_after(run.plan, run.state.sequences) != run.step:
        raise StateMismatch(
            f"{run.folder}: has checkpoints of another plan, which this one continues\n"
            "hint: name another --output for the plan that continues"
        )
    if run.step:
        found = step_digest(Stream(run.plan).step(run.step - 1).digests())
        if found != run.digest:
            raise StateMismatch(
                f"step {run.step:,}: its data has the digest {found}, when it was trained on it was {run.digest}\n"
                "hint: the token shards have changed: bring back those that the run was started with"
            )


def _check_finite(step: int, result: StepResult, norm: float) -> None:
    if not math.isfinite(result.loss) or not math.isfinite(norm):
        raise TrainingError(
            f"step {step:,}: the loss is {result.loss}, the gradient's norm {norm} (data {result.digest})\n"
            f"hint: `headrace trace --step {step - 1}` shows what it saw; the last checkpoint stands, and a lower "
            "learning_rate may get past it"
        )


def _path(plan: Plan) -> Path:
    assert plan.path is not None, "the plan was loaded from a file"
    return plan.path
