import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer_bridge.moe.config import ModelConfig
from trainer_bridge.moe.router import Router, route

LN3 = math.log(3)
FIRST_PAIR = [LN3, LN3, 0.0, 0.0]
LAST_PAIR = [0.0, 0.0, LN3, LN3]


def real(*flags: int) -> torch.Tensor:
    return torch.tensor(flags, dtype=torch.bool)


def test_even_load_by_hand() -> None:
    # Probabilities (3, 3, 1, 1) / 8 and (1, 1, 3, 3) / 8: mean 1/4; every expert has one pair of four.
    gates, statistics = route(torch.tensor([FIRST_PAIR, LAST_PAIR]), 2, real(1, 1))
    assert statistics.indices_NK.tolist() == [[0, 1], [2, 3]]
    assert gates.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert statistics.aux.item() == pytest.approx(1.0)
    assert statistics.z.item() == pytest.approx(math.log(8) ** 2)
    assert statistics.pairs_E.tolist() == [1, 1, 1, 1]
    assert statistics.load_E.tolist() == [0.25] * 4


def test_uneven_load_by_hand() -> None:
    # Both tokens (3, 3, 1, 1) / 8: 4 * (1/2 * 3/8 + 1/2 * 3/8).
    _, statistics = route(torch.tensor([FIRST_PAIR, FIRST_PAIR]), 2, real(1, 1))
    assert statistics.aux.item() == pytest.approx(1.5)
    assert statistics.load_E.tolist() == [0.5, 0.5, 0.0, 0.0]


def test_collapse_costs_experts_over_k() -> None:
    logits = torch.zeros(5, 16)
    logits[:, [3, 7]] = 30.0
    _, statistics = route(logits, 2, real(1, 1, 1, 1, 1))
    assert statistics.aux.item() == pytest.approx(8.0)


def test_gates_are_the_probabilities_scaled_to_one() -> None:
    # Probabilities (1, 8, 3, 4) / 16: the top two are 8 and 4.
    gates, statistics = route(torch.tensor([[1.0, 8.0, 3.0, 4.0]]).log(), 2, real(1))
    assert statistics.indices_NK.tolist() == [[1, 3]]
    assert gates[0].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_padding_is_in_no_statistic() -> None:
    logits = torch.tensor([FIRST_PAIR, [90.0, 0.0, 0.0, 80.0], LAST_PAIR])
    _, statistics = route(logits, 2, real(1, 0, 1))
    assert statistics.aux.item() == pytest.approx(1.0)
    assert statistics.z.item() == pytest.approx(math.log(8) ** 2)
    assert statistics.pairs_E.tolist() == [1, 1, 1, 1]
    assert statistics.indices_NK.tolist() == [[0, 1], [0, 3], [2, 3]]


def test_nothing_but_padding() -> None:
    logits = torch.tensor([FIRST_PAIR, LAST_PAIR], requires_grad=True)
    gates, statistics = route(logits, 2, real(0, 0))
    (gates[:, 0].sum() + statistics.aux + statistics.z).backward()
    assert (statistics.aux.item(), statistics.z.item(), statistics.load_E.tolist()) == (0.0, 0.0, [0.0] * 4)
    assert torch.isfinite(logits.grad).all()


def test_of_equal_experts_the_lower_wins() -> None:
    _, statistics = route(torch.zeros(3000, 16), 2, torch.ones(3000, dtype=torch.bool))
    assert torch.equal(statistics.indices_NK, torch.tensor([[0, 1]]).expand(3000, 2))


def test_replay_takes_the_experts_given_and_the_gates_of_the_input() -> None:
    gates, statistics = route(torch.tensor([FIRST_PAIR]), 2, real(1), torch.tensor([[2, 0]]))
    assert statistics.indices_NK.tolist() == [[2, 0]]
    assert gates[0].tolist() == pytest.approx([0.25, 0.75])
    assert statistics.pairs_E.tolist() == [1, 0, 1, 0]
    assert statistics.aux.item() == pytest.approx(4 * (3 / 8 + 1 / 8) / 2)


def test_replayed_experts_of_vanishing_probability_have_finite_gates() -> None:
    gates, _ = route(torch.tensor([[0.0, -300.0, -300.0]]), 2, real(1), torch.tensor([[1, 2]]))
    assert gates.tolist() == [[0.5, 0.5]]


def test_aux_pushes_the_crowded_experts_down() -> None:
    logits = torch.tensor([FIRST_PAIR, FIRST_PAIR], requires_grad=True)
    route(logits, 2, real(1, 1))[1].aux.backward()
    assert (logits.grad[:, :2] > 0).all()
    assert (logits.grad[:, 2:] < 0).all()


@pytest.mark.parametrize(("experts_per_token", "reaches"), [(2, True), (1, False)])
def test_a_loss_on_the_gates_reaches_the_logits_from_two_experts_on(experts_per_token: int, reaches: bool) -> None:
    logits = torch.randn(50, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    gates, _ = route(logits, experts_per_token, torch.ones(50, dtype=torch.bool))
    (gates * torch.randn(gates.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    assert bool(logits.grad.abs().max() > 0.01) is reaches


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 16), st.data())
def test_against_numpy(seed: int, tokens: int, experts: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, experts))
    random = np.random.default_rng(seed)
    logits = random.integers(-3, 4, (tokens, experts)).astype(np.float32)  # many ties
    flags = random.random(tokens) < 0.7
    gates, statistics = route(torch.from_numpy(logits), k, torch.from_numpy(flags))

    chosen = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    assert np.array_equal(statistics.indices_NK.numpy(), chosen)
    odds = np.exp(logits.astype(np.float64))
    picked = np.take_along_axis(odds, chosen, axis=1)
    np.testing.assert_allclose(gates.numpy(), picked / picked.sum(axis=1, keepdims=True), rtol=1e-5)
    pairs = np.bincount(chosen[flags].ravel(), minlength=experts)
    assert np.array_equal(statistics.pairs_E.numpy(), pairs)
    if flags.any():
        means = (odds / odds.sum(axis=1, keepdims=True))[flags].mean(axis=0)
        expected = experts * (pairs / pairs.sum() * means).sum()
        assert statistics.aux.item() == pytest.approx(expected, rel=1e-5)
        assert statistics.z.item() == pytest.approx((np.log(odds.sum(axis=1))[flags] ** 2).mean(), rel=1e-5)


def test_the_module_computes_in_float32() -> None:
    config = ModelConfig(layers=1, d_model=8, heads=1, head_dim=2, d_ff=8, vocabulary=8, experts=4)
    router = Router(config)
    torch.nn.init.normal_(router.weight, generator=torch.Generator().manual_seed(0))
    router = router.to(torch.bfloat16)
    x_ND = torch.randn(6, 8, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    gates, statistics = router(x_ND, torch.ones(6, dtype=torch.bool))
    exact, _ = route(x_ND.double() @ router.weight.double().T, 2, torch.ones(6, dtype=torch.bool))
    assert gates.dtype == statistics.aux.dtype == torch.float32
    torch.testing.assert_close(gates.double(), exact, rtol=1e-5, atol=1e-6)
