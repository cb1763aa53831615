"""The experts: small networks of which every token passes through a few. Dropless: no capacity, every pair is computed.

The (token, slot) pairs are sorted by expert, all experts are multiplied at once (`grouped_mm`, which knows where each
expert's rows end), and every token gathers its own rows back in the order of its slots, weighted by its gates. Gathers
stand in for scatters in both directions, so nothing is added in an order that a thread decides: the same input gives
the same bits.

Shapes: N tokens, K slots (experts per token), P = N * K pairs, E experts, D d_model, F d_ff.
Cost: 4 * P * D * F operations forward and twice that backward; 0.8 of the time of the loop over experts at D = 256,
F = 1,024, P = 4,096 on two cores.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from trainer_bridge.moe.config import ModelConfig


class Experts(nn.Module):
    """Two matrices for each expert with a GELU between; see the module docstring."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.w_in = nn.Parameter(torch.empty(config.experts, config.d_model, config.d_ff))
        self.w_out = nn.Parameter(torch.empty(config.experts, config.d_ff, config.d_model))

    def forward(self, x_ND: Tensor, indices_NK: Tensor, gates_NK: Tensor) -> Tensor:
        """Return for every token the gate-weighted sum of its experts, shape (N, D)."""
        return experts_grouped(x_ND, self.w_in, self.w_out, indices_NK, gates_NK)


def experts_grouped(x_ND: Tensor, w_in_EDF: Tensor, w_out_EFD: Tensor, indices_NK: Tensor, gates_NK: Tensor) -> Tensor:
    """Return for every token the gate-weighted sum of its experts, shape (N, D)."""
    slots = indices_NK.shape[1]
    sorted_P, pair_P = indices_NK.flatten().sort(stable=True)
    row_P = torch.empty_like(pair_P).scatter_(0, pair_P, torch.arange(len(pair_P), device=pair_P.device))
    every_E = torch.arange(len(w_in_EDF), device=pair_P.device)
    ends_E = torch.searchsorted(sorted_P, every_E, right=True).to(torch.int32)
    x_PD = _Gather.apply(x_ND, pair_P // slots, row_P.view(-1, slots))
    h_PF = functional.gelu(functional.grouped_mm(x_PD, w_in_EDF, offs=ends_E))
    y_PD = functional.grouped_mm(h_PF, w_out_EFD, offs=ends_E)
    y_NKD = _Gather.apply(y_PD, row_P, pair_P.view(-1, 1)).unflatten(0, (-1, slots))
    return (y_NKD * gates_NK[..., None]).sum(dim=1)


def experts_loop(x_ND: Tensor, w_in_EDF: Tensor, w_out_EFD: Tensor, indices_NK: Tensor, gates_NK: Tensor) -> Tensor:
    """Return the same as `experts_grouped`, one expert after the other: the reference that it is tested against."""
    y_ND = torch.zeros_like(x_ND)
    for expert, (w_in_DF, w_out_FD) in enumerate(zip(w_in_EDF, w_out_EFD, strict=True)):
        token, slot = (indices_NK == expert).nonzero(as_tuple=True)
        y_TD = functional.gelu(x_ND[token] @ w_in_DF) @ w_out_FD
        y_ND = y_ND.index_add(0, token, y_TD * gates_NK[token, slot, None])
    return y_ND


class _Gather(torch.autograd.Function):
    """Rows of a matrix, each taken the same number of times; the gradient is a gather too.

    `source` names the row that each output row copies; `copies` (rows, times) names the output rows that each row was
    copied to. The gradients come out contiguous, without which `grouped_mm` refuses them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, source: Tensor, copies: Tensor) -> Tensor:
        ctx.save_for_backward(copies)
        return x.index_select(0, source)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (copies,) = ctx.saved_tensors
        return grad.index_select(0, copies.flatten()).unflatten(0, copies.shape).sum(dim=1), None, None
