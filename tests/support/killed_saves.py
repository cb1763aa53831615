"""Saves of a checkpoint that are killed, or run out of room: `python killed_saves.py FOLDER`.

One process for all: it loads PyTorch once and forks a child for every save, before any thread is started. Prints a JSON
list of (where it was killed, steps of the checkpoints that verify, newest first).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from trainer_bridge.errors import CheckpointError
from trainer_bridge.moe import checkpoint
from trainer_bridge.moe.checkpoint import newest_checkpoint, save_checkpoint
from trainer_bridge.moe.config import ModelConfig
from trainer_bridge.moe.model import Decoder
from trainer_bridge.moe.optimizer import make_optimizer
from trainer_bridge.moe.settings import OptimizerSettings
from trainer_bridge.state import NO_OVERLAY, StreamState

CONFIG = ModelConfig(layers=1, d_model=8, heads=1, head_dim=2, d_ff=8, vocabulary=64, experts=2)


def main() -> None:
    """Kill a save of step 2 at every point, with step 1 saved before."""
    torch.set_num_threads(1)
    found = []
    for name, arrange in POINTS.items():
        folder = Path(sys.argv[1]) / name.replace(" ", "-")
        save(folder, 1)
        child = os.fork()
        if not child:
            arrange()
            try:
                save(folder, 2)
            except CheckpointError as error:
                os._exit(7 if "hint: make room" in str(error) else 1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        newest, problems = newest_checkpoint(folder)
        found.append([name, os.waitstatus_to_exitcode(status), newest.step if newest else None, len(problems)])
        save(folder, 3)
        left = sorted(path.name for path in folder.iterdir())
        assert left[-1] == "step-00000003" and not any(path.startswith(".") for path in left), left
    print(json.dumps(found))


def save(folder: Path, step: int) -> None:
    """Save a model as of this step."""
    model = Decoder(CONFIG, torch.Generator().manual_seed(step))
    state = StreamState("0" * 32, NO_OVERLAY, 4 * step)
    save_checkpoint(folder, step, "00", state, model, make_optimizer(model, OptimizerSettings()), 2)


def die() -> None:
    """End as by kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in(module: object, name: str, call: int, after: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """Return what makes the process die in the n-th call of a function, in place of the call."""

    def arrange() -> None:
        original, calls = getattr(module, name), [0]

        def counted(*args: object, **options: object) -> object:
            calls[0] += 1
            if calls[0] == call:
                after()
                die()
            return original(*args, **options)

        setattr(module, name, counted)

    return arrange


def half_written() -> None:
    """Let the process die when the second part is written and not yet complete."""
    original, calls = torch.save, [0]

    def save_half(part: object, file) -> None:  # type: ignore[no-untyped-def]
        original(part, file)
        calls[0] += 1
        if calls[0] == 2:
            file.flush()
            file.truncate(file.tell() // 2)
            die()

    torch.save = save_half  # type: ignore[assignment]


def no_room() -> None:
    """Let files end at four kilobytes, as a full disk would."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


POINTS = {
    "before anything": kill_in(torch, "save", 1),
    "between the parts": kill_in(torch, "save", 2),
    "in a part": half_written,
    "before the marker": kill_in(checkpoint, "_marker", 1),
    "before the flush": kill_in(checkpoint, "_flush_folder", 1),
    "before the name": kill_in(Path, "rename", 1),
    "after the name": kill_in(checkpoint, "_flush_folder", 2),
    "before old ones go": kill_in(checkpoint, "_remove_old", 1),
    "no room": no_room,
    "nowhere": lambda: None,
}

if __name__ == "__main__":
    main()
