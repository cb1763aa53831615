import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from trainer_bridge.batch import PADDING
from trainer_bridge.moe.attention import Attention, Layout, document_mask, rotate, rotations
from trainer_bridge.moe.config import ModelConfig

CONFIG = ModelConfig(layers=1, d_model=32, heads=4, head_dim=16, d_ff=8, vocabulary=8)


def attention(seed: int = 0) -> Attention:
    module, generator = Attention(CONFIG), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
    return module


def packed(lengths: list[int], padding: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions and documents of one sequence, (1, T)."""
    spans = [*enumerate(lengths), (PADDING, padding)]
    positions = torch.cat([torch.arange(size) for _, size in spans])
    documents = torch.cat([torch.full((size,), number) for number, size in spans])
    return positions[None], documents.to(torch.int32)[None]


def naive(module: Attention, x_TD: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
    """One document, float64, one query and one head at a time, rotations as complex numbers."""
    width = CONFIG.head_dim
    x, q, kv, o = (p.detach().double() for p in (x_TD, module.query, module.key_value, module.output))
    turns = torch.polar(
        torch.ones(len(x), width // 2, dtype=torch.float64),
        positions_T[:, None].double() * 10_000.0 ** (-2.0 * torch.arange(width // 2).double() / width),
    )

    def turned(v_TC: torch.Tensor) -> torch.Tensor:
        pairs = torch.complex(v_TC[:, : width // 2], v_TC[:, width // 2 :]) * turns
        return torch.cat([pairs.real, pairs.imag], dim=1)

    k, v = turned(x @ kv[:width].T), x @ kv[width:].T
    heads = []
    for head in range(CONFIG.heads):
        queries = turned(x @ q[head * width : (head + 1) * width].T)
        rows = []
        for t in range(len(x)):
            weights = torch.softmax(k[: t + 1] @ queries[t] / math.sqrt(width), dim=0)
            rows.append(weights @ v[: t + 1])
        heads.append(torch.stack(rows))
    return torch.cat(heads, dim=1) @ o.T


def test_a_query_sees_its_own_document_up_to_itself() -> None:
    seen = document_mask(torch.tensor([[0, 0, 1, 1, PADDING]], dtype=torch.int32))
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    assert seen.shape == (1, 1, 5, 5)
    assert seen[0, 0].int().tolist() == expected


def test_rotations_by_hand() -> None:
    cos, sin = rotations(torch.tensor([[0, 2]]), head_dim=4, base=100.0)
    assert cos.shape == sin.shape == (1, 2, 1, 2)
    assert cos[0, 0, 0].tolist() == [1.0, 1.0]
    assert sin[0, 0, 0].tolist() == [0.0, 0.0]
    assert cos[0, 1, 0].tolist() == pytest.approx([-0.41614684, 0.98006658])  # of 2 and 0.2
    assert sin[0, 1, 0].tolist() == pytest.approx([0.90929743, 0.19866933])
    turned = rotate(torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 4).expand(1, 2, 1, 4), cos, sin)
    assert turned[0, 1, 0].tolist() == pytest.approx([-0.41614684, 0.98006658, 0.90929743, 0.19866933])


def test_far_positions_are_turned_exactly() -> None:
    cos, _ = rotations(torch.tensor([[32_767]]), head_dim=128, base=10_000.0)
    exact = np.cos(32_767 * 10_000.0 ** (-np.arange(0, 128, 2) / 128))
    np.testing.assert_allclose(cos[0, 0, 0].numpy(), exact, rtol=0, atol=1e-7)


def test_a_dot_product_depends_on_the_distance_only() -> None:
    x_BTHC = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(1))

    def product(query: int, key: int) -> float:
        q, k = (
            rotate(x, *rotations(torch.tensor([[at]]), 16, 1e4)) for x, at in zip(x_BTHC, (query, key), strict=True)
        )
        return float((q * k).sum())

    assert product(7, 3) == pytest.approx(product(1007, 1003), abs=1e-4)
    assert product(7, 3) != pytest.approx(product(7, 4), abs=1e-2)


@pytest.mark.parametrize("lengths", [[1], [5, 1, 9], [16, 16], [3, 40, 2, 70]])
def test_packed_documents_come_out_as_if_alone(lengths: list[int]) -> None:
    module = attention()
    positions_BT, documents_BT = packed(lengths, padding=2)
    x_BTD = torch.randn(1, positions_BT.shape[1], 32, generator=torch.Generator().manual_seed(2))
    y_BTD = module(x_BTD, Layout.of(positions_BT, documents_BT, CONFIG))
    starts = np.cumsum([0, *lengths]).tolist()
    for first, end in itertools.pairwise(starts):
        expected = naive(module, x_BTD[0, first:end], torch.arange(end - first))
        torch.testing.assert_close(y_BTD[0, first:end].double(), expected, rtol=1e-4, atol=1e-5)


def layouts() -> list[tuple[list[int], int]]:
    random = np.random.default_rng(0)
    return [([7, 90, 1, 30], 0), *((random.integers(1, 200, 6).tolist(), number) for number in range(6))]


@pytest.mark.parametrize(("lengths", "perturbed"), layouts())
def test_perturbing_a_document_changes_no_bit_of_another(lengths: list[int], perturbed: int) -> None:
    module, generator = attention(), torch.Generator().manual_seed(3)
    positions_BT, documents_BT = packed(lengths, padding=5)
    layout = Layout.of(positions_BT, documents_BT, CONFIG)
    x_BTD = torch.randn(1, positions_BT.shape[1], 32, generator=generator)
    touched_T = documents_BT[0] == perturbed
    other_BTD = x_BTD.clone()
    other_BTD[0, touched_T] = 50 * torch.randn(int(touched_T.sum()), 32, generator=generator)
    before, after = module(x_BTD, layout), module(other_BTD, layout)
    assert torch.equal(before[0, ~touched_T], after[0, ~touched_T])
    assert not torch.equal(before[0, touched_T], after[0, touched_T])


def test_a_plain_causal_mask_leaks() -> None:
    module, generator = attention(), torch.Generator().manual_seed(4)
    positions_BT, documents_BT = packed([20, 30])
    layout = Layout.of(positions_BT, torch.zeros_like(documents_BT), CONFIG)  # positions reset, documents not told
    x_BTD = torch.randn(1, 50, 32, generator=generator)
    other_BTD = x_BTD.clone()
    other_BTD[0, :20] += 1
    assert (module(x_BTD, layout)[0, 20:] - module(other_BTD, layout)[0, 20:]).abs().max() > 0.01


def test_no_gradient_crosses_documents() -> None:
    module = attention()
    positions_BT, documents_BT = packed([33, 60, 12])
    x_BTD = torch.randn(1, 105, 32, generator=torch.Generator().manual_seed(5)).requires_grad_()
    y_BTD = module(x_BTD, Layout.of(positions_BT, documents_BT, CONFIG))
    (grad_BTD,) = torch.autograd.grad(y_BTD[0, 33:93].square().sum(), x_BTD)
    inside_T = documents_BT[0] == 1
    assert torch.count_nonzero(grad_BTD[0, ~inside_T]) == 0
    assert (grad_BTD[0, inside_T].abs().sum(dim=1) > 0).all()


def test_all_heads_share_one_key_and_value() -> None:
    module = attention()
    assert module.key_value.shape == (2 * 16, 32)
    assert module.query.shape == (4 * 16, 32)
    assert F.linear(torch.zeros(1, 32), module.key_value).shape == (1, 32)
