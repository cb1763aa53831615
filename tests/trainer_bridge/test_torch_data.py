"""The stream as a PyTorch dataset: the same steps whatever the workers, the same global batch whatever the ranks."""

from __future__ import annotations

import numpy as np
import pytest
from plans import made_plan

from mixtures.plan import Plan
from trainer_bridge.batch import PADDING, step_digest
from trainer_bridge.errors import StreamError
from trainer_bridge.stream import Stream
from trainer_bridge.torch_data import StreamDataset, make_loader

STEPS = 7


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return Plan.load(made_plan(tmp_path_factory.mktemp("plan"), global_batch=4))


@pytest.fixture(scope="module")
def digests(plan) -> list[str]:
    """Of every step, from the stream itself."""
    stream = Stream(plan)
    return [step_digest(stream.step(step).digests()) for step in range(plan.steps)]


def test_an_item_is_the_rank_s_part_of_a_step(plan):
    stream = Stream(plan)
    for rank in range(2):
        for step, item in enumerate(StreamDataset(plan.path, 0, STEPS, rank, 2)):
            batch = stream.step(step, rank, 2)
            assert item.step == step
            for name in ("tokens", "labels", "weights", "positions"):
                np.testing.assert_array_equal(getattr(item, name).numpy(), getattr(batch, name))
                assert getattr(item, name).numpy().dtype == getattr(batch, name).dtype
            for row in range(len(batch)):
                used = int(batch.used[row])
                assert (item.segments[row, used:] == PADDING).all()
                starts = batch.bounds(row)[1:-1] if used == 64 else batch.bounds(row)[1:-2]
                changed = 1 + np.flatnonzero(np.diff(item.segments[row, :used].numpy()))
                assert changed.tolist() == starts.tolist()
            assert item.used == int(batch.used.sum())
            assert item.digests == batch.digests()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_order_does_not_depend_on_workers(plan, digests, workers):
    """From step 2 on, as after a resume; the number of steps is no multiple of the workers."""
    items = list(make_loader(StreamDataset(plan.path, 2, STEPS), workers))
    assert [item.step for item in items] == list(range(2, STEPS))
    assert [step_digest(item.digests) for item in items] == digests[2:STEPS]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_global_batch_does_not_depend_on_ranks(plan, digests, world_size):
    """To the last step, which is filled with empty sequences."""
    assert plan.sequences % 4, "the last step is not full"
    ranks = [StreamDataset(plan.path, 0, plan.steps, rank, world_size) for rank in range(world_size)]
    found = [step_digest([digest for part in parts for digest in part.digests]) for parts in zip(*ranks, strict=True)]
    assert found == digests


def test_it_can_be_read_twice(plan):
    dataset = StreamDataset(plan.path, 0, 3)
    assert [item.digests for item in dataset] == [item.digests for item in dataset]


def test_a_step_that_is_none_is_an_error(plan):
    with pytest.raises(StreamError, match=f"the plan has {plan.steps} steps"):
        list(make_loader(StreamDataset(plan.path, plan.steps, plan.steps + 1), 0))
