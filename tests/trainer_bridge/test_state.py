"""A state goes on with its own plan and overlays, or with ones that continue them; with nothing else."""

from __future__ import annotations

import dataclasses

import pytest
from plans import made_plan

from mixtures.plan import Parent, Plan
from trainer_bridge.errors import StateMismatch
from trainer_bridge.state import NO_OVERLAY, ForgetEntry, StreamState, overlay_chain, sequences_after, step_after

FIRST = ForgetEntry(5, ("aa", "bb"))
SECOND = ForgetEntry(9, ("cc",))


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return Plan.load(made_plan(tmp_path_factory.mktemp("plan")))


def at(plan: Plan, step: int, entries=()) -> StreamState:
    return StreamState(plan.fingerprint, overlay_chain(entries)[-1], step * 4)


def test_the_chain_by_hand():
    import hashlib

    first = hashlib.blake2b(f'["{NO_OVERLAY}",5,["aa","bb"]]'.encode(), digest_size=16).hexdigest()
    second = hashlib.blake2b(f'["{first}",9,["cc"]]'.encode(), digest_size=16).hexdigest()
    assert overlay_chain([FIRST, SECOND]) == [NO_OVERLAY, first, second]
    assert overlay_chain([ForgetEntry(5, ("bb", "aa"))])[1] == first


def test_round_trip(plan):
    state = at(plan, 3, [FIRST])
    assert StreamState.from_json(state.to_json()) == state
    assert state.to_json()["version"] == 1
    assert StreamState.start(plan) == StreamState(plan.fingerprint, NO_OVERLAY, 0)


def test_the_same_plan_and_overlays_go_on(plan):
    assert at(plan, 3).resume(plan) == at(plan, 3)
    assert at(plan, 7, [FIRST]).resume(plan, [FIRST]) == at(plan, 7, [FIRST])


def test_entries_may_be_added_from_the_present_step_on(plan):
    assert at(plan, 5).resume(plan, [FIRST]) == at(plan, 5, [FIRST])
    assert at(plan, 9, [FIRST]).resume(plan, [FIRST, SECOND]) == at(plan, 9, [FIRST, SECOND])
    with pytest.raises(StateMismatch, match="overlay entry from step 5: the run has done 6 steps already"):
        at(plan, 6).resume(plan, [FIRST])
    with pytest.raises(StateMismatch, match="does not contain the one of the state"):
        at(plan, 9, [FIRST]).resume(plan, [SECOND])
    with pytest.raises(StateMismatch, match="does not contain the one of the state"):
        at(plan, 9, [FIRST]).resume(plan)


def test_a_continued_plan_takes_its_parents_state(plan):
    child = dataclasses.replace(plan, parent=Parent(plan.fingerprint, 20))
    assert child.fingerprint != plan.fingerprint
    assert at(plan, 5).resume(child) == StreamState(child.fingerprint, NO_OVERLAY, 0)
    with pytest.raises(StateMismatch, match="continues its parent after 20 sequences, the state has consumed 24"):
        at(plan, 6).resume(child)
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
