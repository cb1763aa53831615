import copy
import dataclasses
import math

import pytest
import torch

from trainer_bridge.batch import IGNORED, PADDING
from trainer_bridge.moe.attention import Layout
from trainer_bridge.moe.config import GPT4_SHAPE, ModelConfig
from trainer_bridge.moe.loss import weighted_cross_entropy
from trainer_bridge.moe.model import Decoder, Output

CONFIG = ModelConfig(layers=4, d_model=48, heads=6, head_dim=16, d_ff=64, vocabulary=300, init_std=0.2)
LENGTHS = ([100, 37, 1, 102], [60, 150, 20])
"""Documents of each of the two sequences; the second is padded to the first's 240 tokens."""


@dataclasses.dataclass(frozen=True)
class Batch:
    tokens_BT: torch.Tensor
    positions_BT: torch.Tensor
    documents_BT: torch.Tensor

    def run(self, model: Decoder, replay: tuple[torch.Tensor, ...] | None = None) -> Output:
        return model(self.tokens_BT, self.positions_BT, self.documents_BT, replay=replay)

    def loss(self, model: Decoder, output: Output) -> torch.Tensor:
        """Next tokens inside each document, the language-model loss alone."""
        inside = self.documents_BT[:, 1:] == self.documents_BT[:, :-1]
        labels = torch.full_like(self.tokens_BT, IGNORED)
        labels[:, :-1][inside] = self.tokens_BT[:, 1:][inside]
        weights = torch.full(labels.shape, 256, dtype=torch.int16)
        sums = weighted_cross_entropy(output.hidden_BTD, model.output, labels, weights)
        return sums.nll / sums.weight


def make_batch(seed: int = 0) -> Batch:
    rows = []
    for lengths in LENGTHS:
        padding = 240 - sum(lengths)
        spans = [*enumerate(lengths), (PADDING, padding)]
        positions = torch.cat([torch.arange(size) for _, size in spans])
        documents = torch.cat([torch.full((size,), number) for number, size in spans]).to(torch.int32)
        rows.append((positions, documents))
    tokens_BT = torch.randint(0, 300, (2, 240), generator=torch.Generator().manual_seed(seed))
    return Batch(tokens_BT, *(torch.stack(column) for column in zip(*rows, strict=True)))


def perturbed(batch: Batch, sequence: int, document: int) -> tuple[Batch, torch.Tensor]:
    """Other tokens in one document; also which tokens were left alone, (B, T)."""
    touched_BT = torch.zeros_like(batch.documents_BT, dtype=torch.bool)
    touched_BT[sequence] = batch.documents_BT[sequence] == document
    tokens_BT = torch.where(touched_BT, (batch.tokens_BT * 7 + 11) % 300, batch.tokens_BT)
    return dataclasses.replace(batch, tokens_BT=tokens_BT), ~touched_BT


def make_model(config: ModelConfig = CONFIG, seed: int = 0) -> Decoder:
    return Decoder(config, torch.Generator().manual_seed(seed))


def test_parameters_are_as_many_as_the_formula_says() -> None:
    assert sum(p.numel() for p in make_model().parameters()) == CONFIG.total_parameters


def test_the_large_shape_has_the_formula_s_parameters_without_memory() -> None:
    with torch.device("meta"):
        model = Decoder(GPT4_SHAPE, torch.Generator("cpu"))
    assert sum(p.numel() for p in model.parameters()) == GPT4_SHAPE.total_parameters


def test_weights_are_drawn_as_said() -> None:
    config = dataclasses.replace(CONFIG, layers=8, init_std=0.02)
    for name, parameter in make_model(config).named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter))
        else:
            residual = name.endswith(("attention.output", "experts.w_out"))
            expected = 0.02 / math.sqrt(16) if residual else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.12), name


def test_weights_follow_from_the_generator_alone() -> None:
    torch.manual_seed(1)
    first = make_model(seed=5).state_dict()
    torch.manual_seed(2)
    second, other = make_model(seed=5).state_dict(), make_model(seed=6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embedding"], other["embedding"])


def test_shapes_and_statistics() -> None:
    batch, model = make_batch(), make_model()
    output = batch.run(model)
    assert output.hidden_BTD.shape == (2, 240, 48)
    assert model.logits(output.hidden_BTD[:, :3]).shape == (2, 3, 300)
    assert len(output.routing) == len(output.replay) == 4
    for layer in output.routing:
        assert layer.indices_NK.shape == (480, 2)
        assert layer.pairs_E.sum() == 2 * (480 - 10)  # without padding
        assert layer.load_E.sum().item() == pytest.approx(1.0)
    weighted = sum(1e-2 * layer.aux + 1e-3 * layer.z for layer in output.routing)
    assert output.routing_loss.item() == pytest.approx(weighted.item(), rel=1e-5)


def test_shapes_that_differ_are_refused() -> None:
    batch = make_batch()
    with pytest.raises(ValueError, match=r"\(2, 240\), \(2, 240\), \(240,\)\nhint: give all as \(B, T\)"):
        make_model()(batch.tokens_BT, batch.positions_BT, batch.documents_BT[0])


CHANGES = [(0, 0), (0, 1), (0, 2), (1, 1), (1, PADDING)]


@pytest.mark.parametrize(("sequence", "document"), CHANGES)
def test_with_replay_no_bit_of_another_document_changes(sequence: int, document: int) -> None:
    batch, model = make_batch(), make_model()
    other, alone_BT = perturbed(batch, sequence, document)
    with torch.no_grad():
        before = batch.run(model)
        after = other.run(model, before.replay)
        logits = [model.logits(output.hidden_BTD) for output in (before, after)]
    assert torch.equal(before.hidden_BTD[alone_BT], after.hidden_BTD[alone_BT])
    assert torch.equal(logits[0][alone_BT], logits[1][alone_BT])
    assert not torch.equal(before.hidden_BTD[~alone_BT], after.hidden_BTD[~alone_BT])


@pytest.mark.parametrize(("sequence", "document"), CHANGES)
def test_without_replay_within_rounding(sequence: int, document: int) -> None:
    batch, model = make_batch(), make_model()
    other, alone_BT = perturbed(batch, sequence, document)
    with torch.no_grad():
        before, after = batch.run(model), other.run(model)
    changed = [not torch.equal(a, b) for a, b in zip(before.replay, after.replay, strict=True)]
    assert any(changed)
    torch.testing.assert_close(before.hidden_BTD[alone_BT], after.hidden_BTD[alone_BT], rtol=1e-4, atol=1e-4)


def test_every_layer_of_attention_is_isolated_bit_for_bit() -> None:
    batch, model = make_batch(), make_model()
    layout = Layout.of(batch.positions_BT, batch.documents_BT, CONFIG)
    seen: list[torch.Tensor] = []
    hooks = [
        layer.attention.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for layer in model.layers
    ]
    with torch.no_grad():
        batch.run(model)
        for hook in hooks:
            hook.remove()
        touched_BT = (batch.documents_BT == 1) & (torch.arange(2)[:, None] == 0)
        assert len(seen) == 4
        for layer, x_BTD in zip(model.layers, seen, strict=True):
            other_BTD = torch.where(touched_BT[..., None], -3 * x_BTD + 0.5, x_BTD)
            before, after = layer.attention(x_BTD, layout), layer.attention(other_BTD, layout)
            assert torch.equal(before[~touched_BT], after[~touched_BT])
            assert not torch.equal(before[touched_BT], after[touched_BT])


def test_without_document_numbers_documents_leak() -> None:
    batch, model = make_batch(), make_model()
    other, alone_BT = perturbed(batch, 0, 0)
    one = torch.zeros_like(batch.documents_BT)
    with torch.no_grad():
        before = dataclasses.replace(batch, documents_BT=one).run(model)
        after = dataclasses.replace(other, documents_BT=one).run(model, before.replay)
    assert (before.hidden_BTD[alone_BT] - after.hidden_BTD[alone_BT]).abs().max() > 0.1


def test_a_document_is_the_same_wherever_it_stands() -> None:
    model = make_model()
    document = torch.randint(0, 300, (70,), generator=torch.Generator().manual_seed(3))
    tokens_BT = torch.cat([document, document.flip(0)[:50], document])[None]
    positions_BT = torch.cat([torch.arange(70), torch.arange(50), torch.arange(70)])[None]
    documents_BT = torch.tensor([0] * 70 + [1] * 50 + [2] * 70, dtype=torch.int32)[None]
    with torch.no_grad():
        hidden_TD = model(tokens_BT, positions_BT, documents_BT).hidden_BTD[0]
        alone_TD = model(tokens_BT[:, :70], positions_BT[:, :70], documents_BT[:, :70]).hidden_BTD[0]
        unnumbered_TD = model(tokens_BT, positions_BT, torch.zeros_like(documents_BT)).hidden_BTD[0]
    torch.testing.assert_close(hidden_TD[:70], hidden_TD[120:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(hidden_TD[:70], alone_TD, rtol=1e-4, atol=1e-4)
    assert (unnumbered_TD[:70] - unnumbered_TD[120:]).abs().max() > 0.1


def test_the_order_of_tokens_matters() -> None:
    model, zeros = make_model(), torch.zeros(1, 8, dtype=torch.int32)
    tokens_BT = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
    swapped_BT = torch.tensor([[6, 5, 7, 8, 9, 10, 11, 12]])
    with torch.no_grad():
        a, b = (model(tokens, torch.arange(8)[None], zeros).hidden_BTD[0, -1] for tokens in (tokens_BT, swapped_BT))
        still = [model(tokens, zeros, zeros).hidden_BTD[0, -1] for tokens in (tokens_BT, swapped_BT)]
    assert (a - b).abs().max() > 0.01
    # Without positions one layer could not tell; several can, by what the causal mask lets each token see.
    assert not torch.equal(still[0], still[1])


def test_every_parameter_has_a_gradient() -> None:
    batch, model = make_batch(), make_model()
    output = batch.run(model)
    (batch.loss(model, output) + output.routing_loss).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_the_language_model_loss_alone_reaches_every_gate() -> None:
    config = dataclasses.replace(CONFIG, aux_weight=0.0, z_weight=0.0, init_std=0.02)
    batch, model = make_batch(), make_model(config)
    output = batch.run(model)
    (batch.loss(model, output) + output.routing_loss).backward()
    for layer in model.layers:
        # Of the size of the experts' own gradient, and not the 1e-10 of a gate that is normalised to 1.
        router, expert = (p.grad.square().mean().sqrt().item() for p in (layer.router.weight, layer.experts.w_in))
        assert router > 0.01 * expert
        assert router > 1e-7


def test_with_one_expert_per_token_it_would_not() -> None:
    config = dataclasses.replace(CONFIG, aux_weight=0.0, z_weight=0.0, experts_per_token=1)
    batch, model = make_batch(), make_model(config)
    batch.loss(model, batch.run(model)).backward()
    assert all(layer.router.weight.grad.abs().max() < 1e-9 for layer in model.layers)


def test_twice_from_one_seed_the_same_bits() -> None:
    results = []
    for _ in range(2):
        batch, model = make_batch(), make_model(seed=7)
        output = batch.run(model)
        loss = batch.loss(model, output) + output.routing_loss
        loss.backward()
        results.append([loss, output.hidden_BTD, *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_replaying_a_run_repeats_it() -> None:
    batch, model = make_batch(), make_model()
    with torch.no_grad():
        first = batch.run(model)
        again = batch.run(model, first.replay)
    assert torch.equal(first.hidden_BTD, again.hidden_BTD)
    assert torch.equal(first.routing_loss, again.routing_loss)


def test_a_replay_is_obeyed_in_every_layer() -> None:
    batch, model = make_batch(), make_model()
    with torch.no_grad():
        first = batch.run(model)
        told = tuple((indices + 1 + number) % 16 for number, indices in enumerate(first.replay))
        other = batch.run(model, told)
    assert all(torch.equal(a, b) for a, b in zip(other.replay, told, strict=True))
    assert (first.hidden_BTD - other.hidden_BTD).abs().max() > 0.1


def test_a_replay_of_other_layers_is_refused() -> None:
    batch, model = make_batch(), make_model()
    with torch.no_grad(), pytest.raises(ValueError, match="argument 2"):
        batch.run(model, batch.run(model).replay[:2])


def test_it_learns_a_batch_by_heart() -> None:
    batch, model = make_batch(), make_model(dataclasses.replace(CONFIG, init_std=0.02))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    losses = []
    for _ in range(30):
        output = batch.run(model)
        loss = batch.loss(model, output)
        losses.append(loss.item())
        optimizer.zero_grad()
        (loss + output.routing_loss).backward()
        optimizer.step()
    assert losses[0] == pytest.approx(math.log(300), abs=0.1)
    assert losses[-1] < 0.5 * losses[0]


def test_a_copy_computes_the_same() -> None:
    batch, model = make_batch(), make_model()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        assert torch.equal(batch.run(model).hidden_BTD, batch.run(twin).hidden_BTD)
