"""Cross entropy over a large vocabulary in bounded memory: the logits exist for a few hundred tokens at a time.

The gradients are computed along with the loss, while the logits of a chunk are at hand, so nothing is computed twice:
three matrix products for every token that bears loss, none for the others. Extra memory: one chunk of logits and of
probabilities (2 * 512 * 100,352 floats are 0.4 GB), and the gradient of the output matrix.

Measured on two cores, 2,048 tokens, D = 256, V = 100,352, forward and backward: 2.2 s, of which 2.0 s are the three
products; `cross_entropy` of whole logits takes 4.8 s.

Shapes: B sequences, T tokens, N = B * T, C tokens of a chunk, D d_model, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tokenizer.chat import FULL_WEIGHT
from trainer_bridge.batch import IGNORED

CHUNK_TOKENS = 512


@dataclasses.dataclass(frozen=True, slots=True)
class WeightedLoss:
    """Two sums, float64 scalars: they are added over sequences and ranks, and divided once."""

    nll: Tensor
    """Sum of weight * negative log-likelihood, in nats; carries the gradient."""
    weight: Tensor
    """Sum of the weights, in full weights; exact."""


def weighted_cross_entropy(
    hidden_BTD: Tensor, output_VD: Tensor, labels_BT: Tensor, weights_BT: Tensor
) -> WeightedLoss:
    """Return the loss of the hidden states under the output matrix, both float32.

    `labels_BT` are ids or `IGNORED`, `weights_BT` integers of 0 to 256 in 1/256. Positions without label or weight cost
    nothing.
    """
    hidden_ND, labels_N, weights_N = hidden_BTD.flatten(0, -2), labels_BT.flatten(), weights_BT.flatten()
    bearing = ((labels_N != IGNORED) & (weights_N > 0)).nonzero().squeeze(1)
    labels_N, weights_N = labels_N[bearing], weights_N[bearing]
    nll = _ChunkedCrossEntropy.apply(hidden_ND, output_VD, bearing, labels_N, weights_N, torch.is_grad_enabled())
    return WeightedLoss(nll, weights_N.sum(dtype=torch.float64) / FULL_WEIGHT)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of weight * nll over the rows of `hidden` that `bearing` names, with `labels` and `weights` of these."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, output: Tensor, bearing: Tensor, labels: Tensor, weights: Tensor, train: bool
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        grads = (torch.zeros_like(hidden), torch.zeros_like(output)) if train else None
        # Reused by all chunks: to map so much fresh memory again and again costs a tenth of the whole.
        buffers_2CV = hidden.new_empty(2, min(CHUNK_TOKENS, len(bearing)), len(output))
        chunks = zip(*(x.split(CHUNK_TOKENS) for x in (bearing, labels[:, None], weights[:, None])), strict=True)
        for rows, labels_C1, weights_C1 in chunks:
            scale_C1 = weights_C1.float() / FULL_WEIGHT
            hidden_CD = hidden.index_select(0, rows)
            nll_C1, probabilities_CV = _nll(hidden_CD, output, labels_C1, buffers_2CV[:, : len(rows)])
            total += (nll_C1 * scale_C1).sum(dtype=torch.float64)
            if grads is not None:
                hidden_grad, output_grad = grads
                # The gradient of the logits is the probabilities less one at the label.
                grad_CV = probabilities_CV.scatter_add_(1, labels_C1, torch.full_like(nll_C1, -1))
                hidden_grad.index_copy_(0, rows, (grad_CV @ output).mul_(scale_C1))
                output_grad.addmm_(grad_CV.T, hidden_CD * scale_C1)
        if grads is not None:
            ctx.save_for_backward(*grads)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad, output_grad = ctx.saved_tensors
        factor = grad.to(hidden_grad.dtype)
        return hidden_grad * factor, output_grad * factor, None, None, None, None


def _nll(hidden_CD: Tensor, output_VD: Tensor, labels_C1: Tensor, buffers_2CV: Tensor) -> tuple[Tensor, Tensor]:
    """Return the negative log-likelihoods (C, 1) and the probabilities (C, V), which lie in one of the buffers.

    logsumexp is the largest logit less the logarithm of the largest probability: well conditioned, as that is at least
    1 / V, and a ninth of the time of `logsumexp`.
    """
    logits_CV = torch.mm(hidden_CD, output_VD.T, out=buffers_2CV[0])
    probabilities_CV = torch.softmax(logits_CV, dim=1, out=buffers_2CV[1])
    largest_C1 = logits_CV.amax(dim=1, keepdim=True)
    logsumexp_C1 = largest_C1 - probabilities_CV.amax(dim=1, keepdim=True).log()
    return logsumexp_C1 - logits_CV.gather(1, labels_C1), probabilities_CV
