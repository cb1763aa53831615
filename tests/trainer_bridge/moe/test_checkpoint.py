"""Checkpoints: whole or not there, whatever happens while they are written; and nothing in one is trusted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainer_bridge.errors import CheckpointError
from trainer_bridge.moe.checkpoint import (
    MARKER,
    PARTS,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    verify_checkpoint,
)
from trainer_bridge.moe.config import ModelConfig
from trainer_bridge.moe.model import Decoder
from trainer_bridge.moe.optimizer import make_optimizer
from trainer_bridge.moe.settings import OptimizerSettings
from trainer_bridge.state import NO_OVERLAY, StreamState

REPOSITORY = Path(__file__).resolve().parents[3]
CONFIG = ModelConfig(layers=1, d_model=8, heads=1, head_dim=2, d_ff=8, vocabulary=32, experts=2)
SETTINGS = OptimizerSettings(learning_rate=0.5)


def made(seed: int, config: ModelConfig = CONFIG) -> tuple[Decoder, torch.optim.AdamW]:
    """A model and an optimizer that has taken a step."""
    model = Decoder(config, torch.Generator().manual_seed(seed))
    optimizer = make_optimizer(model, SETTINGS)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()
    return model, optimizer


def state_at(step: int) -> StreamState:
    return StreamState("ab" * 16, NO_OVERLAY, 4 * step)


def save(folder: Path, step: int, keep: int = 2, seed: int | None = None) -> Path:
    return save_checkpoint(folder, step, f"{step:032x}", state_at(step), *made(seed or step), keep).path


def tensors(model: Decoder, optimizer: torch.optim.AdamW) -> list[torch.Tensor]:
    moments = [value for parameter in model.parameters() for _, value in sorted(optimizer.state[parameter].items())]
    return [*model.state_dict().values(), *moments]


def write_part(checkpoint: Path, name: str, content: object) -> None:
    """Put another part into a checkpoint, with its hash, as somebody could who means harm."""
    torch.save(content, checkpoint / name)
    approve(checkpoint, name)


def approve(checkpoint: Path, name: str) -> None:
    marker = json.loads((checkpoint / MARKER).read_text())
    marker["files"][name]["sha256"] = hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
    (checkpoint / MARKER).write_text(json.dumps(marker))


def test_what_is_saved_is_loaded(tmp_path):
    path = save(tmp_path, 3)
    assert path == tmp_path / "step-00000003"
    checkpoint, problems = newest_checkpoint(tmp_path)
    assert checkpoint is not None and problems == []
    assert (checkpoint.step, checkpoint.digest, checkpoint.state) == (3, f"{3:032x}", state_at(3))
    model, optimizer = made(99)
    load_checkpoint(checkpoint, model, optimizer)
    for mine, theirs in zip(tensors(model, optimizer), tensors(*made(3)), strict=True):
        assert torch.equal(mine, theirs)


def test_the_configuration_says_the_rates_and_not_the_checkpoint(tmp_path):
    save(tmp_path, 3)
    model, _ = made(1)
    optimizer = make_optimizer(model, OptimizerSettings(learning_rate=0.25, weight_decay=0.75))
    checkpoint, _ = newest_checkpoint(tmp_path)
    load_checkpoint(checkpoint, model, optimizer)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.25, 0.75), (0.25, 0.0)]


def test_an_empty_or_missing_folder(tmp_path):
    assert newest_checkpoint(tmp_path) == newest_checkpoint(tmp_path / "none") == (None, [])


def test_the_last_ones_are_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for step in (1, 2, 3, 12):
        save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "step-00000003", "step-00000012"]


def test_a_damaged_one_does_not_count_among_the_last(tmp_path):
    """Else the last good one would be removed in favour of it."""
    for step in (1, 2, 8):
        save(tmp_path, step, keep=3)
    (tmp_path / "step-00000008/model.pt").write_bytes(b"")
    save(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003", "step-00000008"]
    save(tmp_path, 8)
    assert verify_checkpoint(tmp_path / "step-00000008").step == 8


@pytest.mark.parametrize("name", [*PARTS, MARKER])
@pytest.mark.parametrize("damage", ["missing", "torn", "changed"])
def test_a_damaged_newest_one_is_passed_over(tmp_path, name, damage):
    save(tmp_path, 1)
    file = save(tmp_path, 2) / name
    content = file.read_bytes()
    place = content.index(b'"step": 2') + 8 if name == MARKER else len(content) // 2
    if damage == "missing":
        file.unlink()
    else:
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        file.write_bytes(content[:place] if damage == "torn" else changed)
    checkpoint, problems = newest_checkpoint(tmp_path)
    assert checkpoint is not None and checkpoint.step == 1
    assert len(problems) == 1
    assert "step-00000002" in problems[0]


def test_a_save_that_is_killed_or_finds_no_room(tmp_path):
    """At every point: the checkpoint before stays, or the new one is whole; the next save tidies up."""
    command = [sys.executable, REPOSITORY / "tests/support/killed_saves.py", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == [
        ["before anything", -9, 1, 0],
        ["between the parts", -9, 1, 0],
        ["in a part", -9, 1, 0],
        ["before the marker", -9, 1, 0],
        ["before the flush", -9, 1, 0],
        ["before the name", -9, 1, 0],
        ["after the name", -9, 2, 0],
        ["before old ones go", -9, 2, 0],
        ["no room", 7, 1, 0],
        ["nowhere", 0, 2, 0],
    ]


class Harm:
    """What runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("name", PARTS)
def test_code_in_a_part_is_not_run(tmp_path, name):
    path, target = save(tmp_path, 1), tmp_path / "harmed"
    write_part(path, name, {"embedding": Harm(target)})
    assert_refused(tmp_path, f"{path / name}: holds something else than tensors")
    (path / name).write_bytes(pickle.dumps(Harm(target), protocol=2))
    approve(path, name)
    assert_refused(tmp_path, f"{path / name}: holds something else than tensors")
    assert not target.exists()


def assert_refused(folder: Path, said: str) -> None:
    checkpoint, problems = newest_checkpoint(folder)
    assert checkpoint is not None and problems == []
    with pytest.raises(CheckpointError, match=re.escape(said)) as caught:
        load_checkpoint(checkpoint, *made(7))
    assert "hint: " in str(caught.value)


def wrong_parts() -> dict[str, tuple[str, object]]:
    model, optimizer = made(1)
    weights, moments = model.state_dict(), optimizer.state_dict()
    other = {0: moments["state"][0] | {"exp_avg": torch.zeros(3)}}
    fewer = {key: value for key, value in moments["state"].items() if key}
    return {
        "a weight is missing": ("model.pt", {key: value for key, value in weights.items() if key != "output"}),
        "a weight too many": ("model.pt", weights | {"more": torch.zeros(1)}),
        "a weight of another shape": ("model.pt", weights | {"output": torch.zeros(32, 16)}),
        "a weight is no tensor": ("model.pt", weights | {"output": 1}),
        "no mapping": ("model.pt", [1, 2]),
        "a number": ("optimizer.pt", 3),
        "no moments": ("optimizer.pt", {"param_groups": []}),
        "a moment of another shape": ("optimizer.pt", {"state": moments["state"] | other}),
        "moments of one are missing": ("optimizer.pt", {"state": fewer}),
        "moments are no mapping": ("optimizer.pt", {"state": {0: 5}}),
    }


@pytest.mark.parametrize("what", wrong_parts())
def test_parts_that_do_not_fit(tmp_path, what):
    path = save(tmp_path, 1)
    write_part(path, *wrong_parts()[what])
    assert_refused(tmp_path, str(path))


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"},
        {"version": 2},
        {"step": "1"},
        {"step": 2},
        {"digest": 5},
        {"state": {"version": 2}},
        {"state": None},
        {"files": {}},
        {"files": [1]},
        {"files": {"model.pt": 1, "optimizer.pt": 2}},
        {"model": None},
        {"step": 1.5},
    ],
)
def test_markers_of_another_shape(tmp_path, change):
    path = save(tmp_path, 1)
    marker = json.loads((path / MARKER).read_text()) | change
    (path / MARKER).write_text(json.dumps(marker))
    assert newest_checkpoint(tmp_path)[0] is None
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        verify_checkpoint(path)


def test_another_model_is_refused_with_both_values(tmp_path):
    save(tmp_path, 1)
    checkpoint, _ = newest_checkpoint(tmp_path)
    other = dataclasses.replace(CONFIG, heads=2, rope_base=500.0)
    with pytest.raises(
        CheckpointError, match=re.escape("another model: heads 1 (now 2), rope_base 10000.0 (now 500.0)")
    ):
        load_checkpoint(checkpoint, *made(1, other))


def test_the_weights_of_the_routing_losses_may_change(tmp_path):
    """They are no part of the model, and a router that goes wrong is mended by them."""
    save(tmp_path, 1)
    checkpoint, _ = newest_checkpoint(tmp_path)
    load_checkpoint(checkpoint, *made(1, dataclasses.replace(CONFIG, aux_weight=0.5)))
