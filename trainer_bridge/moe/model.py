"""The decoder: embedding, layers of attention and experts, a last norm, and an output matrix of its own.

Norms stand before the parts that they serve (Xiong et al. 2020, arXiv 2002.04745).
It returns hidden states and not logits, because a vocabulary of 100,000 makes them the largest tensor of the step;
`loss.py` takes them in pieces. Attention is isolated between packed documents bit for bit. The whole model is so with
the routing replayed; without, within rounding: an expert's rows change with the company that a token keeps, and with
the number of rows the order of a sum.

Shapes: B sequences, T tokens, N = B * T, D d_model, V vocabulary, K experts per token.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer_bridge.moe.attention import Attention, Layout
from trainer_bridge.moe.config import ModelConfig
from trainer_bridge.moe.experts import Experts
from trainer_bridge.moe.router import Router, RoutingStatistics


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """What a forward pass gives."""

    hidden_BTD: Tensor
    """After the last norm: what `Decoder.logits` and the loss take."""
    routing: tuple[RoutingStatistics, ...]
    """One for each layer."""
    routing_loss: Tensor
    """The weighted auxiliary and z-losses, summed over the layers: add it to the mean loss of the tokens."""

    @property
    def replay(self) -> tuple[Tensor, ...]:
        """The experts that were chosen, to be given to another forward pass."""
        return tuple(layer.indices_NK for layer in self.routing)


class Layer(nn.Module):
    """Attention, then experts, each added to what came in."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.attention = Attention(config)
        self.experts_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.router = Router(config)
        self.experts = Experts(config)

    def forward(
        self, x_BTD: Tensor, layout: Layout, real_N: Tensor, replay_NK: Tensor | None = None
    ) -> tuple[Tensor, RoutingStatistics]:
        """Return the residual stream after this layer, and what its router did."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), layout)
        x_ND = self.experts_norm(x_BTD).flatten(0, 1)
        gates_NK, statistics = self.router(x_ND, real_N, replay_NK)
        return x_BTD + self.experts(x_ND, statistics.indices_NK, gates_NK).view_as(x_BTD), statistics


class Decoder(nn.Module):
    """The model; see the module docstring. The weights are a function of the configuration and the generator."""

    def __init__(self, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocabulary, config.d_model))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.output = nn.Parameter(torch.empty(config.vocabulary, config.d_model))
        self._initialise(generator)

    def forward(
        self, tokens_BT: Tensor, positions_BT: Tensor, documents_BT: Tensor, *, replay: Sequence[Tensor] | None = None
    ) -> Output:
        """Run packed sequences through all layers.

        `positions_BT` count from 0 in every document, `documents_BT` number the documents of a sequence (equal numbers
        see each other; negative is padding). `replay` gives each layer's experts (N, K) instead of its router's choice.
        """
        if not tokens_BT.shape == positions_BT.shape == documents_BT.shape:
            shapes = ", ".join(str(tuple(x.shape)) for x in (tokens_BT, positions_BT, documents_BT))
            raise ValueError(f"tokens, positions and documents differ in shape: {shapes}\nhint: give all as (B, T)")
        layout = Layout.of(positions_BT, documents_BT, self.config)
        real_N = documents_BT.flatten() >= 0
        x_BTD = F.embedding(tokens_BT, self.embedding)
        chosen: Sequence[Tensor | None] = [None] * self.config.layers if replay is None else replay
        routing = []
        for layer, replay_NK in zip(self.layers, chosen, strict=True):
            x_BTD, statistics = layer(x_BTD, layout, real_N, replay_NK)
            routing.append(statistics)
        return Output(self.norm(x_BTD), tuple(routing), self._routing_loss(routing))

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Return the scores of the next token, shape (B, T, V): for a few tokens at a time."""
        return F.linear(hidden_BTD, self.output)

    def _routing_loss(self, routing: Sequence[RoutingStatistics]) -> Tensor:
        aux = torch.stack([layer.aux for layer in routing]).sum()
        z = torch.stack([layer.z for layer in routing]).sum()
        return self.config.aux_weight * aux + self.config.z_weight * z

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        """Draw the matrices in the order of their names' declaration; the norms begin at one."""
        residual_std = self.config.init_std / math.sqrt(2 * self.config.layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                into_residual = name.endswith((".attention.output", ".experts.w_out"))
                parameter.normal_(0.0, residual_std if into_residual else self.config.init_std, generator=generator)
