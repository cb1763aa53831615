"""What `headrace train` shows while it works: a panel in a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from trainer_bridge.moe.run_log import EvaluationMetrics, StepMetrics

EVERY_SECONDS = 10.0
"""Between two lines where there is no terminal."""

Metrics = StepMetrics | EvaluationMetrics
Show = Callable[[Metrics], None]


@contextmanager
def show_training(console: Console, steps: int) -> Iterator[Show]:
    """Show metrics as they come; `steps` is the last step of the run."""
    if not console.is_terminal:
        yield _Lines(console, steps)
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield _Panel(live, steps)


class _Lines:
    """A line for every evaluation, and for a step now and then."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console, self._steps, self._last = console, steps, 0.0

    def __call__(self, metrics: Metrics) -> None:
        if isinstance(metrics, EvaluationMetrics):
            self._print(_evaluation_line(metrics))
        elif metrics.step == self._steps or time.monotonic() - self._last > EVERY_SECONDS:
            self._last = time.monotonic()
            self._print(
                f"step {metrics.step:,} of {self._steps:,}: loss {metrics.loss:.4f}, {_speed(metrics)}, gradient norm "
                f"{metrics.gradient_norm:.2f}, experts {metrics.load_min:.2f} to {metrics.load_max:.2f} of the mean"
            )

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)


class _Panel:
    """A table that is drawn over."""

    def __init__(self, live: Live, steps: int) -> None:
        self._live, self._steps = live, steps
        self._step: StepMetrics | None = None
        self._evaluation: EvaluationMetrics | None = None

    def __call__(self, metrics: Metrics) -> None:
        if isinstance(metrics, EvaluationMetrics):
            self._evaluation = metrics
        else:
            self._step = metrics
        self._live.update(self._draw())

    def _draw(self) -> Table:
        table = Table.grid(padding=(0, 2))
        if self._step:
            step = self._step
            left = (self._steps - step.step) * step.seconds
            table.add_row("step", f"{step.step:,} of {self._steps:,}, about {left / 60:.0f} minutes left")
            table.add_row("loss", f"{step.loss:.4f}   learning rate {step.learning_rate:.2e}   {_speed(step)}")
            table.add_row("gradient norm", f"{step.gradient_norm:.3f}")
            table.add_row("load balance", f"{step.aux_loss:.3f} (1 = even)   z-loss {step.z_loss:.3f}")
            for number, layer in enumerate(step.loads):
                table.add_row(f"experts {number}", "".join(_bar(load) for load in layer))
        if self._evaluation:
            table.add_row("validation", _evaluation_line(self._evaluation))
        return table


def _bar(load: float) -> str:
    """Return a block as high as an expert's load; the mean is in the middle."""
    return "▁▂▃▄▅▆▇█"[min(7, int(load * 4))]


def _speed(metrics: StepMetrics) -> str:
    return f"{metrics.tokens / metrics.seconds:,.0f} tokens a second"


def _evaluation_line(metrics: EvaluationMetrics) -> str:
    return (
        f"after step {metrics.step:,}: held-out loss {metrics.loss:.4f}, the unigram model's is {metrics.unigram:.4f} "
        f"({metrics.targets:,} targets)"
    )
