"""What a run is warned of while it goes on: routers that go wrong long before the loss says so.

- A load-balance loss below 1: that is its value when the load is even, and a router that evens it comes from above.
  Below, probabilities and choices have come apart, and the loss falls without the load getting any better
  (NVIDIA/Megatron-LM issue 1545).
- An expert that has had no token for `IDLE_STEPS` steps: it learns nothing, so it will hardly get one.
"""

from __future__ import annotations

from trainer_bridge.moe.run_log import StepMetrics

LEAST_BALANCE = 0.99
"""Of the load-balance loss. Chance takes a step of 4,096 tokens of an even router a little below 1: 0.9999 was seen."""

IDLE_STEPS = 20


class Alarms:
    """Looks at steps in order and says what is new; what goes on is not said again."""

    def __init__(self) -> None:
        self._low = False
        self._idle: dict[tuple[int, int], int] = {}

    def look(self, metrics: StepMetrics) -> tuple[str, ...]:
        """Return a warning for everything that began with this step."""
        found = []
        low = metrics.aux_loss < LEAST_BALANCE
        if low and not self._low:
            found.append(f"load-balance loss {metrics.aux_loss:.4f}: below 1, that of an even load")
        self._low = low
        for layer, loads in enumerate(metrics.loads):
            for expert, load in enumerate(loads):
                if self._idle_steps(layer, expert, load) == IDLE_STEPS:
                    found.append(
                        f"expert {expert} of layer {layer}: no token in {IDLE_STEPS} steps; "
                        "a larger aux_weight evens the load"
                    )
        return tuple(found)

    def _idle_steps(self, layer: int, expert: int, load: float) -> int:
        steps = 0 if load else self._idle.get((layer, expert), 0) + 1
        self._idle[layer, expert] = steps
        return steps
