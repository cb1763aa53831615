"""Stopping between two steps: a signal asks for it instead of ending the process in the middle of one."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what schedulers and `torchrun` send."""


@dataclasses.dataclass(slots=True)
class StopRequest:
    """Whether somebody wants the run to stop."""

    made: bool = False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note the first signal of each kind; a second one of that kind does what it always did. Main thread only."""
    request = StopRequest()
    before: dict[int, Any] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        request.made = True
        signal.signal(number, before[number])

    for kind in SIGNALS:
        before[int(kind)] = signal.signal(kind, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
