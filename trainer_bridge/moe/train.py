"""The training loop: steps of the plan through the model, checkpoints, evaluation; stopping and going on anywhere.

The loss of a step is the mean over the weighted labels of the global batch, whatever ranks and micro-batches it is cut
into; the routing losses are means over its tokens. On one machine with one number of threads, a run that is stopped
after any step and goes on has the weights of one that was not, bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixtures.plan import Plan
from trainer_bridge.batch import FULL_WEIGHT, step_digest
from trainer_bridge.errors import StateMismatch, TrainingError
from trainer_bridge.moe.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from trainer_bridge.moe.evaluate import count_targets, evaluate, held_out, unigram_loss
from trainer_bridge.moe.loss import weighted_cross_entropy
from trainer_bridge.moe.model import Decoder
from trainer_bridge.moe.optimizer import learning_rate, make_optimizer, set_learning_rate
from trainer_bridge.moe.panel import Show
from trainer_bridge.moe.ranks import Ranks
from trainer_bridge.moe.run_log import EvaluationMetrics, RunLog, StepMetrics, logged_digest, write_run_file
from trainer_bridge.moe.settings import TrainingSettings
from trainer_bridge.state import StreamState, step_after
from trainer_bridge.stream import Stream
from trainer_bridge.torch_data import StepBatch, StreamDataset, make_loader

CHECKPOINTS = "checkpoints"

BALANCE_FLOOR = 0.99
"""The load-balance loss is 1 when the load is even; well below it the router has found a way around the loss."""

Say = Callable[[str], None]


@dataclasses.dataclass(slots=True)
class Run:
    """A training run as it stands: the model, its optimizer, and how far the stream is consumed."""

    plan: Plan
    settings: TrainingSettings
    folder: Path
    ranks: Ranks
    model: Decoder
    optimizer: torch.optim.AdamW
    state: StreamState
    step: int
    """Steps done."""

    @property
    def steps(self) -> int:
        """The steps that the learning rate decays over."""
        return self.settings.steps or self.plan.steps


def train(
    settings: TrainingSettings,
    plan: Plan,
    folder: Path,
    until: int | None,
    ranks: Ranks,
    show: Show,
    say: Say,
) -> Run:
    """Train on a plan in `folder`, from its newest checkpoint on if there is one, to step `until` (None: to the end).

    `show` is given the metrics, `say` what a user should read. Raises `TrainingError`, `CheckpointError` and
    `StateMismatch`. A signal to stop (SIGINT, SIGTERM) lets the step finish, saves, and returns.
    """
    torch.use_deterministic_algorithms(True)
    run = _open_run(settings, plan, folder, ranks, say)
    last = min(run.steps, until or run.steps)
    dataset = StreamDataset(_path(plan), run.step, last, ranks.rank, ranks.world_size)
    with _stopping() as stopped, RunLog(folder, run.step, writes=ranks.first) as log:
        evaluator = _Evaluator(run, log, show)
        evaluator.evaluate()
        for batch in make_loader(dataset, settings.loader_workers):
            metrics = take_step(run, batch)
            log.add_step(metrics)
            show(metrics)
            for warning in _alarms(metrics):
                say(warning)
            asked = ranks.sum_(torch.tensor(int(stopped.is_set)))
            ends = run.step == last or bool(asked)
            if ends or run.step % settings.evaluate_every == 0:
                evaluator.evaluate()
            if ends or run.step % settings.checkpoint_every == 0:
                _save(run)
            if asked:
                say(f"stopped after step {run.step:,}; the same command goes on from there")
                break
    return run


def take_step(run: Run, batch: StepBatch) -> StepMetrics:
    """Carry out one step on this rank's share of the global batch, and return the metrics of all of it."""
    started = time.monotonic()
    rate = learning_rate(run.settings.optimizer, run.step, run.steps)
    set_learning_rate(run.optimizer, rate)
    digest = step_digest(run.ranks.gather(batch.digests))
    sums = _backward(run, batch)
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.settings.optimizer.gradient_clip).item()
    run.state, run.step = run.state.advanced(run.plan), run.step + 1
    if not math.isfinite(sums.loss) or not math.isfinite(norm):
        raise TrainingError(
            f"step {run.step:,}: the loss is {sums.loss}, the gradient's norm {norm} (data {digest})\n"
            "hint: lower the learning rate; `headrace trace` shows what the step saw; the last checkpoint stands"
        )
    run.optimizer.step()
    run.optimizer.zero_grad()
    return StepMetrics(
        step=run.step,
        sequences=run.state.sequences,
        loss=sums.loss,
        aux_loss=sums.aux,
        z_loss=sums.z,
        gradient_norm=norm,
        learning_rate=rate,
        tokens=sums.tokens,
        targets=sums.targets,
        digest=digest,
        seconds=time.monotonic() - started,
        loads=sums.loads,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Sums:
    """What a step comes to over all ranks."""

    loss: float
    aux: float
    z: float
    tokens: int
    targets: int
    loads: tuple[tuple[float, ...], ...]


def _backward(run: Run, batch: StepBatch) -> _Sums:
    """Leave the gradients of the global batch's loss in the parameters, summed over the ranks."""
    counts = torch.tensor([int(batch.weights.sum()), batch.used, int((batch.weights > 0).sum())])
    weights, tokens, targets = (int(count) for count in run.ranks.sum_(counts))
    weight = max(weights, 1) / FULL_WEIGHT  # a batch without a label has no gradient to scale
    config = run.model.config
    losses, pairs = torch.zeros(3, dtype=torch.float64), torch.zeros((config.layers, config.experts), dtype=torch.int64)
    for first in range(0, len(batch.tokens), run.settings.micro_batch):
        rows = slice(first, first + run.settings.micro_batch)
        segments = batch.segments[rows]
        output = run.model(batch.tokens[rows], batch.positions[rows], segments)
        labels = batch.labels[rows].long()
        nll = weighted_cross_entropy(output.hidden_BTD, run.model.output, labels, batch.weights[rows]).nll
        share = int((segments >= 0).sum()) / max(tokens, 1)
        (nll / weight + output.routing_loss * share).backward()
        aux = torch.stack([layer.aux.detach() for layer in output.routing]).mean()
        z = torch.stack([layer.z.detach() for layer in output.routing]).mean()
        losses += torch.stack([nll.detach() / weight, aux.double() * share, z.double() * share])
        pairs += torch.stack([layer.pairs_E for layer in output.routing])
    for parameter in run.model.parameters():
        assert parameter.grad is not None, "every parameter takes part in every step"
        run.ranks.sum_(parameter.grad)
    loss, aux_sum, z_sum = run.ranks.sum_(losses).tolist()
    return _Sums(loss, aux_sum, z_sum, tokens, targets, _loads(run.ranks.sum_(pairs)))


def _loads(pairs_LE: Tensor) -> tuple[tuple[float, ...], ...]:
    """Return each expert's share of its layer's pairs as a multiple of the mean."""
    means = pairs_LE.sum(dim=1, keepdim=True).clamp(min=1) / pairs_LE.shape[1]
    return tuple(tuple(layer) for layer in (pairs_LE / means).tolist())


def _alarms(metrics: StepMetrics) -> Iterator[str]:
    if metrics.aux_loss < BALANCE_FLOOR and metrics.tokens:
        yield f"warning: step {metrics.step:,}: load-balance loss {metrics.aux_loss:.3f} is below 1, where even load is"


class _Evaluator:
    """Evaluates on the same held-out sequences every time; where a plan holds nothing out, never."""

    def __init__(self, run: Run, log: RunLog, show: Show) -> None:
        self._run, self._log, self._show = run, log, show
        self._batch = held_out(run.plan, run.settings.evaluate_sequences) if run.ranks.first else None
        if self._batch is not None:
            self._unigram = unigram_loss(count_targets(run.plan), self._batch)

    def evaluate(self) -> None:
        """Evaluate on the first rank while the others wait."""
        run = self._run
        if self._batch is not None:
            found = evaluate(run.model, run.plan, self._batch, run.settings.micro_batch)
            counts = (run.step, run.state.sequences)
            metrics = EvaluationMetrics(*counts, found.loss, found.targets, self._unigram, found.sources)
            self._log.add_evaluation(metrics)
            self._show(metrics)
        run.ranks.wait()


def _open_run(settings: TrainingSettings, plan: Plan, folder: Path, ranks: Ranks, say: Say) -> Run:
    """Build the model and put the newest checkpoint that verifies into it."""
    if settings.steps is not None and settings.steps > plan.steps:
        raise TrainingError(
            f"steps: {settings.steps:,} are asked for, the plan has {plan.steps:,}\n"
            "hint: ask for no more, or plan more epochs"
        )
    model = Decoder(settings.model.config(plan.tokenizer.vocabulary), torch.Generator().manual_seed(settings.seed))
    run = Run(
        plan, settings, folder, ranks, model, make_optimizer(model, settings.optimizer), StreamState.start(plan), 0
    )
    checkpoint, problems = newest_checkpoint(folder / CHECKPOINTS)
    for problem in problems:
        say(f"warning: {problem}: the checkpoint before is used")
    if checkpoint is not None:
        run.state = checkpoint.state.resume(plan)
        run.step = step_after(plan, run.state.sequences)
        _check_digest(run, checkpoint.step)
        load_checkpoint(checkpoint, model, run.optimizer)
        say(f"resuming at step {run.step:,}, sequence {run.state.sequences:,}, from {checkpoint.path}")
    else:
        say(f"starting: {model.config.total_parameters:,} parameters, {plan.steps:,} steps in the plan")
    if ranks.first:
        folder.mkdir(parents=True, exist_ok=True)
        write_run_file(folder, plan, settings, model.config)
    ranks.wait()
    return run


def _check_digest(run: Run, step: int) -> None:
    """See that the stream still gives what the last step saw."""
    logged = logged_digest(run.folder, step)
    if logged is None or run.step != step or not step:
        return
    found = step_digest(Stream(run.plan).step(step - 1).digests())
    if found != logged:
        raise StateMismatch(
            f"step {step:,}: its data has the digest {found}, when it was trained on it was {logged}\n"
            "hint: the token shards have changed: bring back those that the run was started with"
        )


def _save(run: Run) -> None:
    if run.ranks.first:
        folder = run.folder / CHECKPOINTS
        save_checkpoint(folder, run.step, run.state, run.model, run.optimizer, run.settings.keep_checkpoints)
    run.ranks.wait()


def _path(plan: Plan) -> Path:
    assert plan.path is not None, "the plan was loaded from a file"
    return plan.path


@dataclasses.dataclass(slots=True)
class _Stopped:
    is_set: bool = False


@contextmanager
def _stopping() -> Iterator[_Stopped]:
    """Note a signal to stop instead of dying of it; a second one does what it always did."""
    stopped = _Stopped()
    before: dict[int, Any] = {}

    def note(number: int, _frame: object) -> None:
        stopped.is_set = True
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, note)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
