"""A state goes on with its own plan and overlays, or with ones that continue them; with nothing else."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from plans import made_plan

from mixtures.plan import Parent, Plan
from trainer_bridge.errors import StateMismatch
from trainer_bridge.state import NO_OVERLAY, ForgetEntry, StreamState, overlay_chain, sequences_after, step_after

A, B, C = "a" * 32, "b" * 32, "c" * 32


def first(plan: Plan) -> ForgetEntry:
    return ForgetEntry(plan.fingerprint, 5, (A, B))


def second(plan: Plan) -> ForgetEntry:
    return ForgetEntry(plan.fingerprint, 9, (C,))


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return Plan.load(made_plan(tmp_path_factory.mktemp("plan")))


def at(plan: Plan, step: int, entries=()) -> StreamState:
    return StreamState(plan.fingerprint, overlay_chain(entries)[-1], step * 4)


def test_the_chain_by_hand(plan):
    name = plan.fingerprint
    one = hashlib.blake2b(f'["{NO_OVERLAY}","{name}",5,["{A}","{B}"]]'.encode(), digest_size=16).hexdigest()
    two = hashlib.blake2b(f'["{one}","{name}",9,["{C}"]]'.encode(), digest_size=16).hexdigest()
    assert overlay_chain([first(plan), second(plan)]) == [NO_OVERLAY, one, two]
    assert overlay_chain([ForgetEntry(name, 5, (B, A.upper(), B))])[1] == one
    with pytest.raises(StateMismatch, match="'abc' is no document id"):
        ForgetEntry(name, 5, ("abc",))


def test_round_trip(plan):
    state = at(plan, 3, [first(plan)])
    assert StreamState.from_json(state.to_json()) == state
    assert state.to_json()["version"] == 1
    assert StreamState.start(plan) == StreamState(plan.fingerprint, NO_OVERLAY, 0)


def test_the_same_plan_and_overlays_go_on(plan):
    assert at(plan, 3).resume(plan) == at(plan, 3)
    assert at(plan, 7, [first(plan)]).resume(plan, [first(plan)]) == at(plan, 7, [first(plan)])


def test_entries_may_be_added_from_the_present_step_on(plan):
    assert at(plan, 5).resume(plan, [first(plan)]) == at(plan, 5, [first(plan)])
    assert at(plan, 9, [first(plan)]).resume(plan, [first(plan), second(plan)]) == at(
        plan, 9, [first(plan), second(plan)]
    )
    with pytest.raises(StateMismatch, match="overlay entry from step 5: the run has done 6 steps already"):
        at(plan, 6).resume(plan, [first(plan)])
    with pytest.raises(StateMismatch, match="does not contain the one of the state"):
        at(plan, 9, [first(plan)]).resume(plan, [second(plan)])
    with pytest.raises(StateMismatch, match="does not contain the one of the state"):
        at(plan, 9, [first(plan)]).resume(plan)


def test_a_continued_plan_takes_its_parents_state(plan):
    child = dataclasses.replace(plan, parent=Parent(plan.fingerprint, 20))
    assert child.fingerprint != plan.fingerprint
    assert at(plan, 5).resume(child) == StreamState(child.fingerprint, NO_OVERLAY, 0)
    with pytest.raises(StateMismatch, match="continues its parent after 20 sequences, the state has consumed 24"):
        at(plan, 6).resume(child)
    inherited = at(plan, 5, [first(plan)])
    forgotten = ForgetEntry(child.fingerprint, 0, (C,))
    assert inherited.resume(child, [first(plan), forgotten]).overlay == overlay_chain([first(plan), forgotten])[-1]
    with pytest.raises(StateMismatch, match="count the steps of new entries in that one"):
        inherited.resume(child, [first(plan), second(plan)])
    other = dataclasses.replace(plan, seed=2)
    with pytest.raises(StateMismatch, match="which is not its parent"):
        at(plan, 5).resume(other)


@pytest.mark.parametrize(
    "data",
    [{}, {"version": 2, "plan": "", "overlay": "", "sequences": 1}, {"version": 1, "plan": "", "overlay": ""},
     {"version": 1, "plan": "", "overlay": "", "sequences": 1.5}],
)  # fmt: skip
def test_no_state(data):
    with pytest.raises(StateMismatch, match="is not of version 1"):
        StreamState.from_json(data)


def test_steps_after_sequences(plan):
    assert [step_after(plan, count) for count in (0, 4, 40, plan.sequences)] == [0, 1, 10, plan.steps]
    with pytest.raises(StateMismatch, match="are not whole steps of 4"):
        step_after(plan, 6)
    with pytest.raises(StateMismatch, match="more than the plan has"):
        step_after(plan, plan.sequences + 4)


def test_a_state_advances_by_steps(plan):
    state = StreamState.start(plan)
    for step in range(1, plan.steps + 1):
        state = state.advanced(plan)
        assert step_after(plan, state.sequences) == step
        assert sequences_after(plan, step) == state.sequences
    assert state.sequences == plan.sequences
    with pytest.raises(StateMismatch, match=f"the plan has {plan.steps} steps"):
        state.advanced(plan)
