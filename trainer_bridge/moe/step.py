"""The gradient of one step: that of the global batch's mean loss, whichever ranks and passes the batch is cut into.

loss = sum(weight * nll) / sum(weight) + sum over passes of (the pass's share of the tokens) * its routing losses,
where both sums run over all labels of the global batch: they are known before the first backward pass, so nothing is
scaled afterwards, and neither a rank nor a pass with few labels counts for more. A pass is the unit over which the load
is balanced; the first term does not depend on it but for rounding.

Shapes: L layers, E experts.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from tokenizer.chat import FULL_WEIGHT
from trainer_bridge.batch import step_digest
from trainer_bridge.moe.loss import weighted_cross_entropy
from trainer_bridge.moe.model import Decoder
from trainer_bridge.moe.ranks import Ranks
from trainer_bridge.torch_data import StepBatch


@dataclasses.dataclass(frozen=True, slots=True)
class StepResult:
    """What a step was, over all ranks. Losses in nats and unweighted; those of routing are means over the layers."""

    loss: float
    aux_loss: float
    z_loss: float
    tokens: int
    """Without padding."""
    targets: int
    """Labels of a weight above 0."""
    digest: str
    loads: tuple[tuple[float, ...], ...]
    """By layer and expert: (token, slot) pairs as a multiple of the mean."""


def compute_gradients(model: Decoder, batch: StepBatch, micro_batch: int, ranks: Ranks) -> StepResult:
    """Leave the step's gradient in the parameters of every rank; `batch` is the rank's part of the global batch."""
    counts = ranks.add(torch.tensor([int(batch.weights.sum()), batch.used, int((batch.weights > 0).sum())]))
    weight_256, tokens, targets = counts.tolist()
    weight = max(1, weight_256) / FULL_WEIGHT  # no label of the batch may bear loss
    config = model.config
    losses_3 = torch.zeros(3, dtype=torch.float64)
    pairs_LE = torch.zeros(config.layers, config.experts, dtype=torch.int64)
    model.zero_grad()
    for first in range(0, len(batch.tokens), micro_batch):
        rows = slice(first, first + micro_batch)
        output = model(batch.tokens[rows], batch.positions[rows], batch.segments[rows])
        loss = weighted_cross_entropy(output.hidden_BTD, model.output, batch.labels[rows].long(), batch.weights[rows])
        share = int((batch.segments[rows] >= 0).sum()) / tokens
        (loss.nll / weight + share * output.routing_loss).backward()
        aux, z = (torch.stack([getattr(layer, name) for layer in output.routing]).mean() for name in ("aux", "z"))
        losses_3 += torch.stack([loss.nll.detach() / weight, share * aux.detach(), share * z.detach()])
        pairs_LE += torch.stack([layer.pairs_E for layer in output.routing])
    for parameter in model.parameters():
        assert parameter.grad is not None, "every parameter takes part in every pass"
        ranks.add(parameter.grad)
    loss_sum, aux_sum, z_sum = ranks.add(losses_3).tolist()
    digest = step_digest(ranks.gather(batch.digests))
    return StepResult(loss_sum, aux_sum, z_sum, tokens, targets, digest, _loads(ranks.add(pairs_LE)))


def _loads(pairs_LE: Tensor) -> tuple[tuple[float, ...], ...]:
    loads_LE = pairs_LE / pairs_LE.double().mean(dim=1, keepdim=True)
    return tuple(map(tuple, loads_LE.tolist()))
