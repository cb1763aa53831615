"""AdamW (Loshchilov and Hutter 2019), its learning rate by step, and clipping."""

from __future__ import annotations

import math

import torch

from trainer_bridge.moe.model import Decoder
from trainer_bridge.moe.settings import OptimizerSettings


def make_optimizer(model: Decoder, settings: OptimizerSettings) -> torch.optim.AdamW:
    """Return AdamW with weight decay on matrices only.

    Neither on norms nor on the embedding, whose rare rows it would shrink without their ever being asked for.
    """
    decayed: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (others if parameter.ndim < 2 or name == "embedding" else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, settings.learning_rate, (settings.beta1, settings.beta2), fused=True)


def learning_rate(settings: OptimizerSettings, step: int, steps: int) -> float:
    """Return the rate of a step (counted from 0) of `steps`: linear warm-up, then a half cosine to the final share."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = min(1.0, (step - settings.warmup_steps) / max(1, steps - 1 - settings.warmup_steps))
    share = settings.final_share + (1 - settings.final_share) * (1 + math.cos(math.pi * done)) / 2
    return settings.learning_rate * share


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let the next step go at this rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
