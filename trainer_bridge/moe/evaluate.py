"""The loss on held-out documents, and the bar that it must pass: the unigram model of what the run is shown."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from mixtures.plan import Plan
from tokenizer.chat import FULL_WEIGHT
from trainer_bridge.batch import Batch
from trainer_bridge.moe.loss import weighted_cross_entropy
from trainer_bridge.moe.model import Decoder
from trainer_bridge.stream import Stream

MAX_COUNTED = 1 << 27
"""Training tokens that the unigram model is counted on: of a longer plan its first so many, a second of reading."""

ROWS = 64
"""Sequences read at once while counting."""


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluator:
    """Evaluates a model on the same held-out sequences every time; `unigram` is the loss to beat there."""

    plan: Plan
    batch: Batch
    micro_batch: int
    unigram: float

    @classmethod
    def of(cls, plan: Plan, sequences: int, micro_batch: int) -> Evaluator | None:
        """Take the first so many held-out sequences of a plan; None where none bears loss."""
        batch = held_out(plan, sequences)
        if batch is None or not batch.weights.any():
            return None
        return cls(plan, batch, micro_batch, unigram_loss(count_targets(plan), batch))

    def evaluate(self, model: Decoder) -> Evaluation:
        """Return the model's loss."""
        return evaluate(model, self.plan, self.batch, self.micro_batch)


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """A mean loss in nats over weighted targets, in all and for each source that has some."""

    loss: float
    targets: int
    sources: dict[str, float]


def held_out(plan: Plan, sequences: int) -> Batch | None:
    """Return the first so many sequences of the validation split; None where a plan holds nothing out."""
    stream = Stream(plan, "validation")
    count = min(sequences, len(stream))
    return stream.batch(0, count) if count else None


def evaluate(model: Decoder, plan: Plan, batch: Batch, micro_batch: int) -> Evaluation:
    """Return the model's loss on a batch. A sequence is of one source, so its tokens count for that one."""
    names = list(plan.sources)
    nll, weight = np.zeros(len(names)), np.zeros(len(names))
    arrays = (batch.tokens, batch.positions, batch.segments(), batch.labels, batch.weights)
    tensors = [torch.from_numpy(array) for array in arrays]
    sources = batch.pieces.source[batch.pieces.offsets[:-1]]
    with torch.no_grad():
        for first in range(0, len(batch), micro_batch):
            tokens, positions, segments, labels, weights = (tensor[first : first + micro_batch] for tensor in tensors)
            hidden = model(tokens, positions, segments).hidden_BTD
            of_rows = sources[first : first + micro_batch]
            for source in np.unique(of_rows):
                rows = torch.from_numpy(of_rows == source)
                loss = weighted_cross_entropy(hidden[rows], model.output, labels[rows].long(), weights[rows])
                nll[source] += loss.nll.item()
                weight[source] += loss.weight.item()
    by_source = {name: nll[place] / weight[place] for place, name in enumerate(names) if weight[place]}
    return Evaluation(float(nll.sum() / weight.sum()), int((batch.weights > 0).sum()), by_source)


def count_targets(plan: Plan) -> np.ndarray:
    """Return the summed weight of each id among the labels of the plan's training sequences (int64, 1/256)."""
    stream, counts = Stream(plan), np.zeros(plan.tokenizer.vocabulary, np.int64)
    seen = 0
    for phase_first, phase in _phases(plan):
        for first in range(0, phase.sequences, ROWS):
            if seen >= MAX_COUNTED:
                return counts
            batch = stream.batch(phase_first + first, min(ROWS, phase.sequences - first))
            counts += count_labels(batch, len(counts))
            seen += int(batch.used.sum())
    return counts


def _phases(plan: Plan):  # type: ignore[no-untyped-def]
    first = 0
    for phase in plan.phases:
        yield first, phase
        first += phase.sequences


def count_labels(batch: Batch, vocabulary: int) -> np.ndarray:
    """Return the summed weight of each id among a batch's labels (int64, 1/256)."""
    bearing = batch.weights > 0
    sums = np.bincount(batch.labels[bearing], batch.weights[bearing], vocabulary)  # exact: integers far below 2**53
    return sums.astype(np.int64)


def unigram_loss(counts: np.ndarray, batch: Batch) -> float:
    """Return the mean loss (nats) of a batch under the unigram model of these counts, with one added to each id."""
    smoothed = counts + FULL_WEIGHT
    log_share = np.log(smoothed) - np.log(smoothed.sum())
    asked = count_labels(batch, len(counts))
    return float(-(asked * log_share).sum() / asked.sum())
