"""What a terminal is shown, and what a log file is."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from trainer_bridge.moe.panel import show_training
from trainer_bridge.moe.run_log import EvaluationMetrics, StepMetrics

LOADS = ((0.0, 2.0), (1.0, 1.0))


def step(number: int) -> StepMetrics:
    return StepMetrics(number, 4 * number, 9.25, 1.125, 0.5, 1.5, 0.001, 500, 480, "00", 2.0, LOADS)


EVALUATION = EvaluationMetrics(2, 8, 8.5, 1_000, 8.75, {"web": 8.5})


def shown(terminal: bool) -> str:
    console = Console(file=StringIO(), force_terminal=terminal, width=140, color_system=None)
    with show_training(console, 62) as show:
        for metrics in (step(1), step(2), EVALUATION):
            show(metrics)
    return console.file.getvalue()


def test_a_terminal_gets_a_panel():
    panel = shown(terminal=True)
    for said in (
        "2 of 62, about 2 minutes left",
        "9.2500   learning rate 1.00e-03   250 tokens a second",
        "1.125 (1 = even)   z-loss 0.500",
        "experts 0      ▁█",
        "experts 1      ▅▅",
        "after step 2: held-out loss 8.5000, the unigram model's is 8.7500 (1,000 targets)",
    ):
        assert said in panel


def test_a_file_gets_lines():
    """Of steps that follow each other in no time the first, and every evaluation."""
    assert shown(terminal=False).splitlines() == [
        "step 1 of 62: loss 9.2500, 250 tokens a second, gradient norm 1.50, experts 0.00 to 2.00 of the mean",
        "after step 2: held-out loss 8.5000, the unigram model's is 8.7500 (1,000 targets)",
    ]
