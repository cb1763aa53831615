import dataclasses

import pytest

from trainer_bridge.moe.config import GPT4_SHAPE, ModelConfig

SMALL = ModelConfig(layers=2, d_model=8, heads=3, head_dim=4, d_ff=16, vocabulary=10, experts=4, experts_per_token=2)


def test_counts_worked_by_hand() -> None:
    # A layer's attention: queries 8 x 12, output 12 x 8, key 8 x 4, value 8 x 4.
    assert SMALL.attention_parameters == 2 * (96 + 96 + 32 + 32)
    assert SMALL.expert_parameters == 2 * (128 + 128)
    # Routers 2 x 4 x 8, embedding and output 2 x 80, norms 5 x 8.
    assert SMALL.total_parameters == 512 + 4 * 512 + 64 + 160 + 40
    assert SMALL.active_parameters == 512 + 2 * 512 + 64 + 160 + 40
    # Without the embedding (80) and the norms (40).
    assert SMALL.forward_flops() == 2 * 1680
    # 4 keys on average, 12 wide, scores and values, 2 operations each, 2 layers.
    assert SMALL.forward_flops(7) - SMALL.forward_flops() == 4 * 12 * 2 * 2 * 2


@pytest.mark.parametrize(
    ("measured", "published"),
    [
        (GPT4_SHAPE.total_parameters, 1.83e12),
        (GPT4_SHAPE.active_parameters, 279e9),
        (GPT4_SHAPE.attention_parameters, 55.8e9),
        (GPT4_SHAPE.expert_parameters, 111e9),
        (GPT4_SHAPE.forward_flops(), 558e9),
        (GPT4_SHAPE.forward_flops(8_192) - GPT4_SHAPE.forward_flops(), 42.3e9),
        (GPT4_SHAPE.forward_flops(32_768) - GPT4_SHAPE.forward_flops(), 169e9),
    ],
)
def test_the_leaked_figures(measured: int, published: float) -> None:
    assert measured == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": 0}, "layers: 0 is no count\nhint: give a whole number from 1 up"),
        ({"heads": True}, "heads: True is no count"),
        ({"d_ff": 16.0}, "d_ff: 16.0 is no count"),
        ({"d_model": 12}, "d_model: 12 is no multiple of 8\nhint: give 16"),
        ({"d_ff": 17}, "d_ff: 17 is no multiple of 8\nhint: give 24"),
        ({"head_dim": 5}, "head_dim: 5 is no multiple of 2\nhint: give 6"),
        ({"experts_per_token": 5}, "experts_per_token: 5 is more than there are experts (4)\nhint: give at most 4"),
        ({"aux_weight": -0.1}, "aux_weight: -0.1 is no size\nhint: give a number from 0 up"),
        ({"norm_eps": 0.0}, "norm_eps: 0.0 is no size\nhint: give a number above 0"),
        ({"rope_base": float("nan")}, "rope_base: nan is no size"),
        ({"init_std": float("inf")}, "init_std: inf is no size"),
        ({"z_weight": "1"}, "z_weight: '1' is no size"),
    ],
)
def test_refusals_name_field_value_and_remedy(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError) as refused:
        dataclasses.replace(SMALL, **change)
    assert str(refused.value).startswith(words)


def test_losses_may_weigh_nothing() -> None:
    assert dataclasses.replace(SMALL, aux_weight=0, z_weight=0.0).aux_weight == 0
