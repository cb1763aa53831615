from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from trainer_bridge.batch import IGNORED
from trainer_bridge.moe import loss
from trainer_bridge.moe.loss import weighted_cross_entropy


def reference(
    hidden: torch.Tensor, output: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole logits, float64."""
    logits = hidden.double() @ output.double().T
    nll = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none", ignore_index=IGNORED)
    weight = weights.flatten().double() / 256 * (labels.flatten() != IGNORED)
    return (nll * weight).sum(), weight.sum()


def made(
    tokens: int, width: int = 16, vocabulary: int = 50, seed: int = 0, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = (scale * torch.randn(2, tokens, width, generator=generator)).requires_grad_()
    output = torch.randn(vocabulary, width, generator=generator).requires_grad_()
    labels = torch.randint(0, vocabulary, (2, tokens), generator=generator)
    labels[torch.rand(2, tokens, generator=generator) < 0.2] = IGNORED
    weights = torch.randint(0, 257, (2, tokens), generator=generator).to(torch.int16)
    weights[torch.rand(2, tokens, generator=generator) < 0.2] = 0
    return hidden, output, labels, weights


def test_by_hand() -> None:
    # Logits (ln 2, 0), label 0: -ln(2/3) with weight 1/2; logits (0, 0): ln 2 with weight 1; the third is ignored.
    hidden = torch.tensor([[[0.6931472], [0.0], [5.0]]])
    output = torch.tensor([[1.0], [0.0]])
    labels, weights = torch.tensor([[0, 1, IGNORED]]), torch.tensor([[128, 256, 256]], dtype=torch.int16)
    result = weighted_cross_entropy(hidden, output, labels, weights)
    assert result.nll.item() == pytest.approx(0.5 * 0.4054651 + 0.6931472)
    assert result.weight.item() == 1.5
    assert result.nll.dtype == result.weight.dtype == torch.float64


@given(st.integers(1, 60), st.integers(0, 2**32), st.sampled_from([0.01, 1.0, 30.0]), st.integers(1, 130))
@settings(deadline=None)
def test_whole_logits_give_the_same(tokens: int, seed: int, scale: float, chunk: int) -> None:
    mine, theirs = made(tokens, seed=seed, scale=scale), made(tokens, seed=seed, scale=scale)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "CHUNK_TOKENS", chunk)
        result = weighted_cross_entropy(*mine)
    nll, weight = reference(*theirs)
    assert result.weight.item() == weight.item()
    rounding = 1e-4 * max(1.0, scale)  # of float32 logits, which grow with the scale
    torch.testing.assert_close(result.nll, nll, rtol=1e-5, atol=rounding)
    (result.nll * 0.37).backward()
    (nll * 0.37).backward()
    for a, b in zip(mine[:2], theirs[:2], strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=rounding)


def test_several_chunks_of_the_real_size() -> None:
    mine, theirs = made(1500, vocabulary=300), made(1500, vocabulary=300)
    result, (nll, _) = weighted_cross_entropy(*mine), reference(*theirs)
    torch.testing.assert_close(result.nll, nll, rtol=1e-6, atol=0)
    result.nll.backward()
    nll.backward()
    for a, b in zip(mine[:2], theirs[:2], strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)


def test_an_improbable_label_keeps_its_loss() -> None:
    # The label's probability is exp(-200), which float32 does not hold.
    hidden, output = torch.tensor([[[200.0]]], requires_grad=True), torch.tensor([[1.0], [0.0]])
    result = weighted_cross_entropy(hidden, output, torch.tensor([[1]]), torch.tensor([[256]], dtype=torch.int16))
    assert result.nll.item() == 200.0
    result.nll.backward()
    assert hidden.grad.item() == 1.0


def test_no_position_bears_loss() -> None:
    hidden, output, labels, weights = made(5)
    result = weighted_cross_entropy(hidden, output, torch.full_like(labels, IGNORED), weights)
    result.nll.backward()
    assert (result.nll.item(), result.weight.item()) == (0.0, 0.0)
    assert torch.count_nonzero(hidden.grad) == torch.count_nonzero(output.grad) == 0


def test_positions_without_loss_have_no_gradient() -> None:
    hidden, output, labels, weights = made(40)
    weighted_cross_entropy(hidden, output, labels, weights).nll.backward()
    silent = (labels == IGNORED) | (weights == 0)
    assert torch.count_nonzero(hidden.grad[silent]) == 0
    assert (hidden.grad[~silent].abs().sum(dim=1) > 0).all()


def test_evaluation_computes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = made(40)
    trained = weighted_cross_entropy(*arguments).nll
    monkeypatch.setattr(torch.Tensor, "addmm_", None)
    with torch.no_grad():
        evaluated = weighted_cross_entropy(*arguments).nll
    assert evaluated.item() == trained.item()
    assert trained.requires_grad
    assert not evaluated.requires_grad


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that an operation gave."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_all_logits_never_exist_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_TOKENS", 32)
    hidden, output, labels, weights = made(1000, vocabulary=700)
    with Largest() as largest:
        weighted_cross_entropy(hidden, output, labels, weights).nll.backward()
    assert largest.numel <= 2 * 32 * 700  # both buffers of a chunk; all logits would be 2,000 * 700


def test_positions_without_weight_cost_nothing() -> None:
    hidden, output, labels, weights = made(1000)
    with Largest() as largest, torch.no_grad():
        weighted_cross_entropy(hidden, output, labels, torch.zeros_like(weights))
    assert largest.numel == hidden.numel()


def test_sums_add_up_over_sequences() -> None:
    hidden, output, labels, weights = made(40)
    whole = weighted_cross_entropy(hidden, output, labels, weights)
    parts = [weighted_cross_entropy(hidden[b], output, labels[b], weights[b]) for b in range(2)]
    assert whole.weight.item() == sum(part.weight.item() for part in parts)
    assert whole.nll.item() == pytest.approx(sum(part.nll.item() for part in parts), rel=1e-6)
