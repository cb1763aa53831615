"""The loss on held-out documents, and the unigram model's, against values by hand and plain recomputation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from plans import made_plan
from torch.nn import functional as F

from mixtures.plan import Plan
from tokenizer.manifest import Manifest
from trainer_bridge.batch import IGNORED, Batch
from trainer_bridge.moe import evaluate as module
from trainer_bridge.moe.evaluate import Evaluator, count_labels, count_targets, evaluate, held_out, unigram_loss
from trainer_bridge.moe.model import Decoder
from trainer_bridge.moe.settings import ModelSettings
from trainer_bridge.stream import Stream

MODEL = ModelSettings(layers=1, d_model=8, heads=1, head_dim=2, d_ff=8, experts=4)


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return Plan.load(made_plan(tmp_path_factory.mktemp("plan"), validation={"share": "1/10"}))


@pytest.fixture(scope="module")
def model(plan) -> Decoder:
    return Decoder(MODEL.config(plan.tokenizer.vocabulary), torch.Generator().manual_seed(1))


def labelled(plan: Plan, labels: list[int], weights: list[int]) -> Batch:
    batch = Stream(plan).batch(0, 1)
    return dataclasses.replace(batch, labels=np.array([labels], np.int32), weights=np.array([weights], np.int16))


def test_the_unigram_model_by_hand(plan):
    # Seen: id 0 three times, id 1 once; one more of each of four ids: shares 4/8, 2/8, 1/8, 1/8.
    counts = 256 * np.array([3, 1, 0, 0])
    batch = labelled(plan, [0, 1, 3, IGNORED, 2], [256, 128, 256, 0, 0])
    expected = (math.log(2) + 0.5 * math.log(4) + math.log(8)) / 2.5
    assert unigram_loss(counts, batch) == pytest.approx(expected, abs=1e-12)
    assert count_labels(batch, 4).tolist() == [256, 128, 0, 256]


def test_targets_are_counted_as_often_as_they_are_shown(plan):
    """Two epochs of text, four of code, one of conversations, none of what is held out; by documents, one by one."""
    expected = np.zeros(plan.tokenizer.vocabulary, np.int64)
    for name, source in plan.sources.items():
        epochs = plan.phases[0].sources[name].epochs[0]
        for reference in source.manifests:
            manifest = Manifest.load(plan.file(reference.path))
            for number in range(len(manifest.shards)):
                shard = manifest.open_shard(number)
                held = plan.validation.held_out(shard.docs())
                for place, row in enumerate(shard.docs().to_pylist()):
                    ids = np.array(shard.ids(place))
                    if held[place] or (source.cut == "never" and len(ids) > 64):
                        continue
                    spans = [{"start": 0, "end": len(ids), "weight": 256}] if row["loss"] is None else row["loss"]
                    for span in spans:
                        first = max(1, span["start"])  # nothing comes before a document's first token
                        np.add.at(expected, ids[first : span["end"]], epochs * span["weight"])
    counts = count_targets(plan)
    assert expected.sum() > 0
    np.testing.assert_array_equal(counts, expected)


def test_of_a_long_plan_the_beginning_is_counted(plan, monkeypatch):
    monkeypatch.setattr(module, "MAX_COUNTED", 1)
    np.testing.assert_array_equal(
        count_targets(plan), count_labels(Stream(plan).batch(0, module.ROWS), plan.tokenizer.vocabulary)
    )


def test_the_loss_is_that_of_whole_logits(plan, model):
    batch = held_out(plan, 5)
    found = evaluate(model, plan, batch, 2)
    tokens, positions, segments = map(torch.from_numpy, (batch.tokens, batch.positions, batch.segments()))
    logits = model.logits(model(tokens, positions, segments).hidden_BTD).detach()
    labels = torch.from_numpy(batch.labels).long()
    nll = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED).view(5, -1)
    weights = torch.from_numpy(batch.weights).double() / 256
    assert found.loss == pytest.approx(float((nll * weights).sum() / weights.sum()), rel=1e-5)
    assert found.targets == int((batch.weights > 0).sum())
    sources = batch.pieces.source[batch.pieces.offsets[:-1]]
    assert len(found.sources) == len(set(sources.tolist())) > 1
    for place, name in enumerate(plan.sources):
        if name in found.sources:
            rows = np.flatnonzero(sources == place)
            mean = float((nll[rows] * weights[rows]).sum() / weights[rows].sum())
            assert found.sources[name] == pytest.approx(mean, rel=1e-5)


def test_no_step_sees_what_is_evaluated(plan):
    stream, batch = Stream(plan), held_out(plan, 10_000)
    assert len(batch) == len(Stream(plan, "validation"))

    def documents(batch: Batch) -> set[tuple[int, int, int]]:
        pieces = batch.pieces
        return set(zip(pieces.source.tolist(), pieces.manifest.tolist(), pieces.document.tolist(), strict=True))

    assert documents(batch) and not documents(batch) & documents(stream.batch(0, len(stream)))


def test_an_evaluator_sees_the_same_every_time(plan, model):
    evaluator = Evaluator.of(plan, 4, 4)
    assert evaluator.unigram == unigram_loss(count_targets(plan), held_out(plan, 4))
    first = evaluator.evaluate(model)
    assert evaluator.evaluate(model) == first
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_plan_that_holds_nothing_out(tmp_path):
    assert Evaluator.of(Plan.load(made_plan(tmp_path)), 4, 4) is None
