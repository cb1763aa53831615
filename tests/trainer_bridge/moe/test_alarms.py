"""Warnings: what begins is said once, what ends may begin again."""

from __future__ import annotations

from trainer_bridge.moe.alarms import IDLE_STEPS, Alarms
from trainer_bridge.moe.run_log import StepMetrics


def metrics(aux: float = 1.0, loads: tuple[tuple[float, ...], ...] = ((1.0, 1.0), (1.0, 1.0))) -> StepMetrics:
    return StepMetrics(1, 4, 9.0, aux, 0.1, 1.0, 0.001, 100, 90, "00", 0.1, loads)


def test_a_quiet_run():
    alarms = Alarms()
    assert [alarms.look(metrics(aux)) for aux in (1.0, 0.9905, 1.5)] == [()] * 3


def test_a_load_balance_loss_below_its_floor():
    alarms = Alarms()
    said = [alarms.look(metrics(aux)) for aux in (1.0, 0.9, 0.8, 1.0, 0.7)]
    assert [len(found) for found in said] == [0, 1, 0, 0, 1]
    assert "0.9000" in said[1][0]


def test_an_expert_without_tokens():
    alarms, idle = Alarms(), metrics(loads=((1.0, 1.0), (2.0, 0.0)))
    said = [alarms.look(idle) for _ in range(2 * IDLE_STEPS)]
    assert [place for place, found in enumerate(said) if found] == [IDLE_STEPS - 1]
    assert said[IDLE_STEPS - 1][0].startswith("expert 1 of layer 1: no token in 20 steps")
    assert alarms.look(metrics()) == ()
    assert [bool(alarms.look(idle)) for _ in range(IDLE_STEPS)] == [False] * (IDLE_STEPS - 1) + [True]
