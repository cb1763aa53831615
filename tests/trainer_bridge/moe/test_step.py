"""The gradient of a step: that of the mean over the global batch, however it is cut into ranks and passes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from plans import made_plan
from thread_ranks import on_ranks
from torch.nn import functional as F

from mixtures.plan import Plan
from trainer_bridge.batch import IGNORED
from trainer_bridge.moe.model import Decoder
from trainer_bridge.moe.ranks import Ranks
from trainer_bridge.moe.settings import ModelSettings
from trainer_bridge.moe.step import StepResult, compute_gradients
from trainer_bridge.stream import Stream
from trainer_bridge.torch_data import StepBatch

MODEL = ModelSettings(layers=2, d_model=8, heads=1, head_dim=2, d_ff=8, experts=4, aux_weight=0.5, z_weight=0.1)
ALONE = Ranks()


@pytest.fixture(scope="module")
def stream(tmp_path_factory) -> Stream:
    """Three sources, among them conversations with labels of half weight and of none; the last step is half empty."""
    plan = Plan.load(made_plan(tmp_path_factory.mktemp("plan"), global_batch=8))
    assert 0 < plan.sequences % 8 <= 6
    return Stream(plan)


def made(model: ModelSettings = MODEL) -> Decoder:
    return Decoder(model.config(100_352), torch.Generator().manual_seed(5))


def gradients(model: Decoder) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def step(stream: Stream, number: int, micro_batch: int, world_size: int) -> tuple[StepResult, dict]:
    """Return what every rank finds, which must be the same."""

    def work(ranks) -> tuple[StepResult, dict]:
        model = made()
        batch = StepBatch.of(number, stream_of(stream).step(number, ranks.rank, world_size))
        return compute_gradients(model, batch, micro_batch, ranks), gradients(model)

    first, *others = on_ranks(world_size, work)
    for other in others:
        assert other[0] == first[0]
        assert all(torch.equal(grad, other[1][name]) for name, grad in first[1].items())
    return first


def stream_of(stream: Stream) -> Stream:
    """A stream is not to be shared between threads."""
    return Stream(stream.plan)


def assert_same(mine: tuple[StepResult, dict], theirs: tuple[StepResult, dict]) -> None:
    exact = ("tokens", "targets", "digest", "loads")
    assert all(getattr(mine[0], name) == getattr(theirs[0], name) for name in exact)
    for name in ("loss", "aux_loss", "z_loss"):
        assert getattr(mine[0], name) == pytest.approx(getattr(theirs[0], name), rel=1e-6)
    assert mine[1].keys() == theirs[1].keys() == dict(made().named_parameters()).keys()
    for name, grad in mine[1].items():
        torch.testing.assert_close(grad, theirs[1][name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_change_nothing(stream, world_size):
    assert_same(step(stream, 0, 2, world_size), step(stream, 0, 2, 1))


@pytest.mark.parametrize("world_size", [2, 4])
def test_nor_do_ranks_without_a_sequence(stream, world_size):
    last = stream.plan.steps - 1
    assert Stream(stream.plan).step(last, world_size - 1, world_size).used.sum() == 0
    assert_same(step(stream, last, 2, world_size), step(stream, last, 2, 1))


def test_the_loss_and_its_gradient_are_those_of_the_definition(stream):
    """Whole logits of the whole batch, float64; routing losses left out here."""
    settings = dataclasses.replace(MODEL, aux_weight=0, z_weight=0)
    batch = StepBatch.of(0, stream.step(0))
    weights = batch.weights.double() / 256
    assert 0 < weights[weights > 0].min() < 1, "some labels weigh less"
    mine, theirs = made(settings), made(settings)
    found = compute_gradients(mine, batch, 3, ALONE)
    logits = theirs.logits(theirs(batch.tokens, batch.positions, batch.segments).hidden_BTD).double()
    labels = batch.labels.long().flatten()
    nll = F.cross_entropy(logits.flatten(0, 1), labels, reduction="none", ignore_index=IGNORED)
    loss = (nll * weights.flatten()).sum() / weights.sum()
    loss.backward()
    assert found.loss == pytest.approx(loss.item(), rel=1e-6)
    assert found.targets == int((weights > 0).sum())
    assert found.tokens == int((batch.segments >= 0).sum())
    for name, grad in gradients(mine).items():
        torch.testing.assert_close(grad, gradients(theirs)[name], rtol=1e-4, atol=1e-7)


def test_passes_change_rounding_only_but_for_the_balance(stream):
    settings = dataclasses.replace(MODEL, aux_weight=0)
    batch = StepBatch.of(0, stream.step(0))
    whole, cut = made(settings), made(settings)
    results = [compute_gradients(model, batch, size, ALONE) for model, size in ((whole, 8), (cut, 1))]
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-6)
    assert results[0].z_loss == pytest.approx(results[1].z_loss, rel=1e-5)
    assert results[0].loads == results[1].loads
    for name, grad in gradients(whole).items():
        torch.testing.assert_close(grad, gradients(cut)[name], rtol=1e-4, atol=1e-7)


def test_routing_losses_reach_the_router(stream):
    batch = StepBatch.of(0, stream.step(0))
    with_aux, without = made(), made(dataclasses.replace(MODEL, aux_weight=0, z_weight=0))
    for model in (with_aux, without):
        compute_gradients(model, batch, 8, ALONE)
    router = "layers.0.router.weight"
    assert not torch.allclose(gradients(with_aux)[router], gradients(without)[router])


def test_loads_are_multiples_of_the_mean(stream):
    found = compute_gradients(made(), StepBatch.of(0, stream.step(0)), 4, ALONE)
    assert len(found.loads) == 2
    for layer in found.loads:
        assert len(layer) == 4
        assert sum(layer) == pytest.approx(4)


def test_the_gradients_of_the_step_before_are_gone(stream):
    model, batch = made(), StepBatch.of(0, stream.step(0))
    compute_gradients(model, batch, 8, ALONE)
    first = gradients(model)
    compute_gradients(model, batch, 8, ALONE)
    assert all(torch.equal(grad, first[name]) for name, grad in gradients(model).items())


def test_a_step_without_a_label(stream):
    batch = StepBatch.of(0, stream.step(0))
    batch = batch._replace(labels=torch.full_like(batch.labels, IGNORED), weights=torch.zeros_like(batch.weights))
    found = compute_gradients(made(), batch, 4, ALONE)
    assert (found.loss, found.targets) == (0.0, 0)
    assert found.tokens > 0
