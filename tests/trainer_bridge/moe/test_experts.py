import math

import pytest
import torch

from trainer_bridge.moe.config import ModelConfig
from trainer_bridge.moe.experts import Experts, experts_grouped, experts_loop

WIDTH, INNER, EXPERTS = 24, 40, 16


def inputs(indices_NK: torch.Tensor, seed: int = 0) -> list[torch.Tensor]:
    """Tokens, both matrices and gates, all of which want gradients, and the indices before the gates."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    tensors = [normal(len(indices_NK), WIDTH), normal(EXPERTS, WIDTH, INNER), normal(EXPERTS, INNER, WIDTH)]
    return [*tensors, indices_NK, normal(*indices_NK.shape)]


def distinct(tokens: int, experts: list[int], slots: int, seed: int = 0) -> torch.Tensor:
    keys = torch.rand(tokens, len(experts), generator=torch.Generator().manual_seed(seed))
    return torch.tensor(experts)[keys.argsort(dim=1)[:, :slots]]


CASES = {
    "all experts": distinct(200, list(range(16)), 2),
    "empty experts at both ends and between": distinct(200, [2, 3, 7, 12], 2),
    "two experts take all": distinct(50, [5, 9], 2),
    "the last expert alone": torch.full((7, 1), 15),
    "fewer pairs than experts": distinct(3, list(range(16)), 2),
    "one token": torch.tensor([[4, 1]]),
    "three slots": distinct(60, list(range(16)), 3),
}


@pytest.mark.parametrize("indices_NK", CASES.values(), ids=CASES)
def test_grouped_is_the_loop_forward_and_backward(indices_NK: torch.Tensor) -> None:
    grouped, loop = inputs(indices_NK), inputs(indices_NK)
    y, reference = experts_grouped(*grouped), experts_loop(*loop)
    torch.testing.assert_close(y, reference, rtol=1e-5, atol=1e-4)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(9))
    y.backward(upstream)
    reference.backward(upstream)
    for mine, other in zip(grouped, loop, strict=True):
        if mine.requires_grad:
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-3)


def test_the_loop_by_hand() -> None:
    # Expert e multiplies gelu(x) by e + 1; gelu(1) is the normal distribution function at 1.
    eye = torch.eye(8)
    w_in, w_out = eye.expand(3, 8, 8), eye * torch.arange(1.0, 4.0)[:, None, None]
    indices, gates = torch.tensor([[2, 0], [1, 2]]), torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    x = torch.tensor([1.0, -1.0])[:, None].expand(2, 8)
    cumulative = (1 + math.erf(math.sqrt(0.5))) / 2
    expected = [cumulative * (0.75 * 3 + 0.25 * 1), -(1 - cumulative) * (0.5 * 2 + 0.5 * 3)]
    for compute in (experts_loop, experts_grouped):
        y = compute(x, w_in, w_out, indices, gates)
        torch.testing.assert_close(y, torch.tensor(expected)[:, None].expand(2, 8))


def test_an_expert_without_tokens_has_a_zero_gradient() -> None:
    tensors = inputs(distinct(30, [0, 3], 2))
    experts_grouped(*tensors).square().sum().backward()
    for matrix in tensors[1:3]:
        used = matrix.grad.flatten(1).abs().sum(dim=1) > 0
        assert used.nonzero().flatten().tolist() == [0, 3]


def test_an_expanded_gradient_is_taken() -> None:
    tensors, loop = inputs(CASES["all experts"]), inputs(CASES["all experts"])
    experts_grouped(*tensors).sum().backward()
    experts_loop(*loop).sum().backward()
    torch.testing.assert_close(tensors[0].grad, loop[0].grad, rtol=1e-5, atol=1e-3)


def test_twice_the_same_bits() -> None:
    results = []
    for _ in range(3):
        tensors = inputs(distinct(2000, list(range(16)), 2))
        y = experts_grouped(*tensors)
        y.square().mean().backward()
        results.append([y, *(x.grad for x in tensors if x.requires_grad)])
    for again in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], again, strict=True))


def test_a_token_changes_no_bit_of_another_while_the_routing_stands() -> None:
    indices_NK = CASES["all experts"]
    x, w_in, w_out, _, gates = (t.detach() for t in inputs(indices_NK))
    other = x.clone()
    other[:100] = 10 * other[:100] + 1
    before, after = (experts_grouped(tokens, w_in, w_out, indices_NK, gates) for tokens in (x, other))
    assert torch.equal(before[100:], after[100:])
    assert not torch.equal(before[:100], after[:100])


def test_the_module_holds_stacked_matrices() -> None:
    config = ModelConfig(layers=1, d_model=8, heads=1, head_dim=2, d_ff=16, vocabulary=8, experts=4)
    experts = Experts(config)
    assert {name: tuple(p.shape) for name, p in experts.named_parameters()} == {
        "w_in": (4, 8, 16),
        "w_out": (4, 16, 8),
    }
