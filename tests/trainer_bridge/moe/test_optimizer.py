"""AdamW and its learning rate, against values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from trainer_bridge.moe.config import ModelConfig
from trainer_bridge.moe.model import Decoder
from trainer_bridge.moe.optimizer import learning_rate, make_optimizer, set_learning_rate
from trainer_bridge.moe.settings import OptimizerSettings

CONFIG = ModelConfig(layers=1, d_model=8, heads=1, head_dim=2, d_ff=8, vocabulary=16, experts=4)


def rates(steps: int, count: int, **settings: float) -> list[float]:
    chosen = OptimizerSettings(learning_rate=1.0, **settings)
    return [learning_rate(chosen, step, steps) for step in range(count)]


def test_warm_up_then_half_a_cosine():
    # Four steps of warm-up; then cos(0), cos(pi/4), cos(pi/2), cos(3pi/4), cos(pi) between 1 and 0.1.
    half = 0.9 * 0.7071067811865476 / 2
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 0.55 + half, 0.55, 0.55 - half, 0.1]
    assert rates(9, 9, warmup_steps=4, final_share=0.1) == pytest.approx(expected)


def test_without_warm_up_and_down_to_nothing():
    assert rates(3, 3, warmup_steps=0, final_share=0.0) == pytest.approx([1.0, 0.5, 0.0])


def test_the_rate_stays_at_its_floor():
    assert rates(3, 6, warmup_steps=0, final_share=0.25)[2:] == pytest.approx([0.25] * 4)


def test_runs_shorter_than_their_warm_up():
    assert rates(2, 2, warmup_steps=4) == pytest.approx([0.25, 0.5])
    assert rates(1, 1, warmup_steps=0, final_share=0.1) == pytest.approx([1.0])


def test_one_update_by_hand():
    """With a gradient of 2 everywhere AdamW's first update is the rate; matrices also shrink by rate * decay."""
    model = Decoder(CONFIG, torch.Generator().manual_seed(1))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(model, OptimizerSettings(weight_decay=0.5))
    set_learning_rate(optimizer, 0.125)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    optimizer.step()
    spared = {"embedding", "norm.weight", "layers.0.attention_norm.weight", "layers.0.experts_norm.weight"}
    assert spared < before.keys()
    for name, parameter in model.named_parameters():
        kept = 1.0 if name in spared else 1 - 0.125 * 0.5
        torch.testing.assert_close(parameter.detach(), before[name] * kept - 0.125, rtol=1e-6, atol=1e-6)
