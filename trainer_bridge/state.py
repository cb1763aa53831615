"""The state of a stream: which plan, which forget overlays, how many sequences the optimizer has consumed.

Nothing else is needed to go on, on any number of ranks and workers. The overlays' hash is a chain over their entries
(BLAKE2b-128 of the hash before and the entry), so that one can be seen to continue another.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from mixtures.plan import Plan
from trainer_bridge.errors import StateMismatch

VERSION = 1
NO_OVERLAY = "0" * 32
"""The hash of a chain without entries."""


@dataclasses.dataclass(frozen=True, slots=True)
class ForgetEntry:
    """Documents (ids of 32 hex digits) that no step of `plan` (a fingerprint) from `step` (counted from 0) on sees.

    In a plan that continues it they are forgotten from its first step on.
    """

    plan: str
    step: int
    documents: tuple[str, ...]

    def __post_init__(self) -> None:
        """Bring the ids into one form. `StateMismatch` for what is no id."""
        ids = sorted({name.lower() for name in self.documents})
        wrong = [name for name in ids if not re.fullmatch("[0-9a-f]{32}", name)]
        if wrong:
            raise StateMismatch(f"overlay entry: {wrong[0]!r} is no document id of 32 hex digits")
        object.__setattr__(self, "documents", tuple(ids))


def overlay_chain(entries: Sequence[ForgetEntry]) -> list[str]:
    """Return the chain's hash before the first entry, after it, after the second, and so on."""
    chain = [NO_OVERLAY]
    for entry in entries:
        text = json.dumps([chain[-1], entry.plan, entry.step, entry.documents], separators=(",", ":"))
        chain.append(hashlib.blake2b(text.encode(), digest_size=16).hexdigest())
    return chain


@dataclasses.dataclass(frozen=True, slots=True)
class StreamState:
    """Plan fingerprint, overlay hash, sequences consumed by the optimizer (whole steps)."""

    plan: str
    overlay: str
    sequences: int

    @classmethod
    def start(cls, plan: Plan, entries: Sequence[ForgetEntry] = ()) -> StreamState:
        """Return the state before the first step."""
        return cls(plan.fingerprint, overlay_chain(entries)[-1], 0)

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain data, with its version."""
        return {"version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StreamState:
        """Return the state that was saved. Raises `StateMismatch` for one of another version or shape."""
        expected = {"version", "plan", "overlay", "sequences"}
        known = set(data) == expected and data["version"] == VERSION and type(data["version"]) is int
        if not known or type(data["sequences"]) is not int or data["sequences"] < 0:
            raise StateMismatch(f"state {data!r:.200}: is not of version {VERSION}, with the keys {sorted(expected)}")
        return cls(str(data["plan"]), str(data["overlay"]), data["sequences"])

    def resume(self, plan: Plan, entries: Sequence[ForgetEntry] = ()) -> StreamState:
        """Return the state to go on from with this plan and these overlay entries.

        Accepted are the same plan with the same chain, or with one that only adds entries from the present step on; and
        a plan that continues this state's. Raises `StateMismatch` for all else.
        """
        chain = overlay_chain(entries)
        if plan.fingerprint == self.plan:
            self._check_added(plan, entries, chain)
            return StreamState(self.plan, chain[-1], self.sequences)
        if plan.parent is not None and plan.parent.fingerprint == self.plan:
            if plan.parent.sequences != self.sequences:
                raise StateMismatch(
                    f"plan {plan.fingerprint}: continues its parent after {plan.parent.sequences:,} sequences, the "
                    f"state has consumed {self.sequences:,}\n"
                    "hint: take the checkpoint of that point, or plan anew from this one"
                )
            self._check_added(plan, entries, chain)
            return StreamState(plan.fingerprint, chain[-1], 0)
        raise StateMismatch(
            f"plan {plan.fingerprint}: the state belongs to plan {self.plan}, which is not its parent\n"
            "hint: go on with the plan that the run was started with"
        )

    def advanced(self, plan: Plan) -> StreamState:
        """Return the state after one more step of the plan (the last of a phase may hold fewer sequences)."""
        return dataclasses.replace(self, sequences=sequences_after(plan, step_after(plan, self.sequences) + 1))

    def _check_added(self, plan: Plan, entries: Sequence[ForgetEntry], chain: list[str]) -> None:
        if self.overlay not in chain:
            raise StateMismatch(
                f"overlay {chain[-1]}: does not contain the one of the state, {self.overlay}\n"
                "hint: an overlay is only added to; bring back the entries that the run was started with"
            )
        present = step_after(plan, self.sequences) if plan.fingerprint == self.plan else 0
        for entry in entries[chain.index(self.overlay) :]:
            if entry.plan != plan.fingerprint:
                raise StateMismatch(
                    f"overlay entry from step {entry.step:,} of plan {entry.plan}: the run goes on with plan "
                    f"{plan.fingerprint}\nhint: count the steps of new entries in that one"
                )
            if entry.step < present:
                raise StateMismatch(
                    f"overlay entry from step {entry.step:,}: the run has done {present:,} steps already\n"
                    f"hint: forget from step {present:,} on; what was seen before stays seen"
                )


def step_after(plan: Plan, sequences: int) -> int:
    """Return how many steps it takes to consume this many sequences. Raises `StateMismatch` inside of a step."""
    steps = 0
    for phase in plan.phases:
        if sequences >= phase.sequences:
            steps, sequences = steps + phase.steps, sequences - phase.sequences
            continue
        if sequences % phase.global_batch:
            raise StateMismatch(f"state: {sequences:,} sequences are not whole steps of {phase.global_batch:,}")
        return steps + sequences // phase.global_batch
    if sequences:
        raise StateMismatch(f"state: has consumed {sequences:,} sequences more than the plan has")
    return steps


def sequences_after(plan: Plan, steps: int) -> int:
    """Return how many sequences the first `steps` steps consume. Raises `StateMismatch` for more than there are."""
    sequences, left = 0, steps
    for phase in plan.phases:
        if left < phase.steps:
            return sequences + left * phase.global_batch
        sequences, left = sequences + phase.sequences, left - phase.steps
    if left:
        raise StateMismatch(f"step {steps:,}: the plan has {plan.steps:,} steps")
    return sequences
