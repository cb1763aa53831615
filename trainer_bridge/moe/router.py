"""Which experts a token is sent to, with what weight, and how even the load is.

A token goes to the `k` experts of the largest probability (softmax over all experts, float32). Their weights, the
**gates**, are those probabilities scaled to sum 1. With two or more of them a gate depends on the token, so the
language-model loss alone reaches the router; with one it would be the constant 1 and nothing would.

Two losses, each over the tokens of this call that are not padding:
- **aux**, load balance (Fedus et al. 2021, arXiv 2101.03961, eq. 4-6): experts * sum_e f_e P_e, f_e the fraction of the
  (token, slot) pairs sent to e, P_e the mean probability of e over all experts. 1 when even; up to `experts / k` when
  `k` experts take all. The gradient flows through P only.
- **z** (Zoph et al. 2022, arXiv 2202.08906, eq. 5): mean squared logsumexp of the logits, keeps them small.

Shapes: N tokens, D d_model, E experts, K experts per token.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer_bridge.moe.config import ModelConfig


@dataclasses.dataclass(frozen=True, slots=True)
class RoutingStatistics:
    """What one layer's router did. `aux` and `z` are scalars with gradients; the others have none."""

    indices_NK: Tensor
    """int64, the experts of every token (padding too), the likeliest first. Given back as `replay` they repeat it."""
    aux: Tensor
    z: Tensor
    pairs_E: Tensor
    """int64, (token, slot) pairs of each expert without padding: counts, so that they add up over batches and ranks."""

    @property
    def load_E(self) -> Tensor:
        """Fraction of the pairs that each expert takes, float32; sums to 1, or all 0 if everything is padding."""
        return self.pairs_E / self.pairs_E.sum().clamp(min=1)


def route(
    logits_NE: Tensor, experts_per_token: int, real_N: Tensor, replay_NK: Tensor | None = None
) -> tuple[Tensor, RoutingStatistics]:
    """Return the gates (N, K) and what there is to know about the choice.

    `real_N` (bool) says which tokens are no padding. `replay_NK` gives the experts instead of the top k; gates and
    losses still come from the logits. Of equal logits the lower expert wins.
    """
    probabilities_NE = logits_NE.softmax(dim=-1)
    indices_NK = _top(logits_NE, experts_per_token) if replay_NK is None else replay_NK
    # The softmax of the chosen logits is their probabilities scaled to sum 1, without 0 / 0 where a replay chose two
    # experts of vanishing probability.
    gates_NK = logits_NE.gather(1, indices_NK).softmax(dim=-1)
    pairs_E = (_one_hot(indices_NK, logits_NE.shape[1]) * real_N[:, None]).sum(dim=0)
    aux = _balance(probabilities_NE, pairs_E, real_N)
    z = _mean(logits_NE.logsumexp(dim=-1).square(), real_N)
    return gates_NK, RoutingStatistics(indices_NK, aux, z, pairs_E)


class Router(nn.Module):
    """A matrix without bias; see the module docstring."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.experts_per_token = config.experts_per_token
        self.weight = nn.Parameter(torch.empty(config.experts, config.d_model))

    def forward(
        self, x_ND: Tensor, real_N: Tensor, replay_NK: Tensor | None = None
    ) -> tuple[Tensor, RoutingStatistics]:
        """Route tokens; see `route`."""
        logits_NE = F.linear(x_ND.float(), self.weight.float())
        return route(logits_NE, self.experts_per_token, real_N, replay_NK)


def _top(logits_NE: Tensor, k: int) -> Tensor:
    """A stable sort, because `topk` leaves the order of equal values open."""
    return logits_NE.sort(dim=-1, descending=True, stable=True).indices[:, :k]


def _one_hot(indices_NK: Tensor, experts: int) -> Tensor:
    """int64, (N, E): 1 where the token is sent."""
    return torch.zeros(len(indices_NK), experts, dtype=torch.int64, device=indices_NK.device).scatter_(1, indices_NK, 1)


def _balance(probabilities_NE: Tensor, pairs_E: Tensor, real_N: Tensor) -> Tensor:
    fractions_E = pairs_E / pairs_E.sum().clamp(min=1)
    means_E = _mean(probabilities_NE, real_N[:, None])
    return len(pairs_E) * (fractions_E * means_E).sum()


def _mean(values: Tensor, real: Tensor) -> Tensor:
    """Mean over the tokens that are no padding; 0 if all are."""
    return (values * real).sum(dim=0) / real.sum().clamp(min=1)
