"""Multi-query attention with rotary positions, isolated between the documents of a packed sequence.

All query heads share one key/value head (Shazeer 2019, arXiv 1911.02150). Query t sees key s if and only if s <= t and
both lie in the same document: masked scores are exactly minus infinity and weigh exactly zero, so what stands in one
document changes no bit of another's attention. Positions restart at every document; the rotation depends on nothing
else (Su et al. 2021, arXiv 2104.09864).

Shapes: B sequences, T tokens, D d_model, H query heads, C head_dim, R = C / 2 rotated pairs.
Cost: the mask is B * T * T bytes, made once for all layers: meant for sequences that a CPU trains on.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer_bridge.moe.config import ModelConfig


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """How the sequences of a batch are packed, in the form that attention takes; all layers share it."""

    mask_B1TT: Tensor
    """bool, [query, key]: may the query see the key?"""
    cos_BT1R: Tensor
    sin_BT1R: Tensor

    @classmethod
    def of(cls, positions_BT: Tensor, documents_BT: Tensor, config: ModelConfig) -> Layout:
        """Build it from each token's position inside its document and its document's number in the sequence."""
        mask_B1TT = document_mask(documents_BT)
        return cls(mask_B1TT, *rotations(positions_BT, config.head_dim, config.rope_base))


def document_mask(documents_BT: Tensor) -> Tensor:
    """Return which key each query sees, bool, shape (B, 1, T, T)."""
    same_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
    return same_BTT.tril_()[:, None]


def rotations(positions_BT: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of `position * base^(-2r / head_dim)` for pair r, float32, shape (B, T, 1, R).

    The angles are float64: in float32 the product alone would be off by 0.002 at position 32,768.
    """
    exponents_R = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions_BT.device) / head_dim
    angles_BTR = positions_BT[..., None] * base**-exponents_R
    return angles_BTR.cos().float().unsqueeze(2), angles_BTR.sin().float().unsqueeze(2)


def rotate(x_BTHC: Tensor, cos_BT1R: Tensor, sin_BT1R: Tensor) -> Tensor:
    """Turn each pair (x[r], x[R + r]) by its token's angle; a dot product then depends on distances only."""
    x_BTHR, y_BTHR = x_BTHC.chunk(2, dim=-1)
    turned = (x_BTHR * cos_BT1R - y_BTHR * sin_BT1R, y_BTHR * cos_BT1R + x_BTHR * sin_BT1R)
    return torch.cat(turned, dim=-1)


class Attention(nn.Module):
    """Many query heads, one key/value head; see the module docstring. No dropout, no bias."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.head_dim = config.head_dim
        self.query = nn.Parameter(torch.empty(config.attention_width, config.d_model))
        self.key_value = nn.Parameter(torch.empty(2 * config.head_dim, config.d_model))
        self.output = nn.Parameter(torch.empty(config.d_model, config.attention_width))

    def forward(self, x_BTD: Tensor, layout: Layout) -> Tensor:
        """Return what each token gathers from its own document up to itself, shape (B, T, D)."""
        q_BTHC = F.linear(x_BTD, self.query).unflatten(-1, (self.heads, self.head_dim))
        k_BT1C, v_BT1C = F.linear(x_BTD, self.key_value).unflatten(-1, (2, 1, self.head_dim)).unbind(2)
        q_BTHC, k_BT1C = (rotate(x, layout.cos_BT1R, layout.sin_BT1R) for x in (q_BTHC, k_BT1C))
        q_BHTC, k_B1TC, v_B1TC = (x.transpose(1, 2) for x in (q_BTHC, k_BT1C, v_BT1C))
        mixed_BHTC = F.scaled_dot_product_attention(q_BHTC, k_B1TC, v_B1TC, attn_mask=layout.mask_B1TT, enable_gqa=True)
        return F.linear(mixed_BHTC.transpose(1, 2).flatten(2), self.output)
