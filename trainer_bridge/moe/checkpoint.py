"""Checkpoints: a folder is one only if its `checkpoint.json` names every file with its hash, and every hash is right.

Files are written and flushed under another name, then `checkpoint.json`, then the folder gets its own name. Nothing
points to "the latest": the newest folder that verifies is. Older ones are removed only while enough newer ones verify.
Loading trusts nothing: hashes first, then tensors alone (`weights_only`), then names and shapes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from tokenizer.strict_json import JsonError, canonical, read, take
from trainer_bridge.errors import CheckpointError, StateMismatch
from trainer_bridge.moe.model import Decoder
from trainer_bridge.state import StreamState

FORMAT = "headrace-checkpoint"
VERSION = 1
MARKER = "checkpoint.json"
PARTS = ("model.pt", "optimizer.pt")
TRAINING_ONLY = ("aux_weight", "z_weight", "init_std")
"""What a model's configuration says about training and not about the model: it may change on the way."""
_NAME = re.compile(r"step-(\d{8})")


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was verified: its folder, the step after which it was made, the state of the stream."""

    path: Path
    step: int
    digest: str
    """Of the step's data: what the stream must still give."""
    state: StreamState
    model: dict[str, Any]
    """The model's configuration but for `TRAINING_ONLY`; numbers that are not whole are text."""


def save_checkpoint(
    folder: Path,
    step: int,
    digest: str,
    state: StreamState,
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    keep: int,
) -> Checkpoint:
    """Write a checkpoint into `folder`, verify it, and remove what is older than the last `keep` or unfinished.

    Raises `CheckpointError` where it cannot be written or does not verify; what stood before stays.
    """
    path = folder / f"step-{step:08d}"
    attempt = folder / f".{path.name}.{os.getpid()}"
    try:
        shutil.rmtree(attempt, ignore_errors=True)
        attempt.mkdir(parents=True)
        for name, part in zip(PARTS, (model.state_dict(), optimizer.state_dict()), strict=True):
            with (attempt / name).open("wb") as file:
                torch.save(part, file)
                _flush(file)
        with (attempt / MARKER).open("w", encoding="ascii") as file:
            file.write(_marker(attempt, step, digest, state, model))
            _flush(file)
        _flush_folder(attempt)
        shutil.rmtree(path, ignore_errors=True)  # damaged, or the run would have gone on from it
        attempt.rename(path)
        _flush_folder(folder)
    except (OSError, RuntimeError) as error:  # torch.save says a full disk in either way
        shutil.rmtree(attempt, ignore_errors=True)
        raise CheckpointError(
            f"{path}: cannot be written ({error})\nhint: make room, then run the same command again; it goes on from "
            "the checkpoint before"
        ) from error
    checkpoint = verify_checkpoint(path)
    _remove_old(folder, keep)
    return checkpoint


def _marker(folder: Path, step: int, digest: str, state: StreamState, model: Decoder) -> str:
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)} for name in PARTS}
    data = {"format": FORMAT, "version": VERSION, "step": step, "digest": digest, "state": state.to_json()}
    return canonical(data | {"files": files, "model": plain_config(model)})


def plain_config(model: Decoder) -> dict[str, Any]:
    """Return a model's configuration as it stands in a checkpoint: what the weights mean something for."""
    config = dataclasses.asdict(model.config)
    return {
        name: value if isinstance(value, int) else repr(value)
        for name, value in config.items()
        if name not in TRAINING_ONLY
    }


def verify_checkpoint(path: Path) -> Checkpoint:
    """Check the marker and the hash of every file. Raises `CheckpointError`."""
    try:
        data = read(path / MARKER)
        take(data, str(path / MARKER), format=FORMAT, version=VERSION)
        files, step, digest, config = (data[name] for name in ("files", "step", "digest", "model"))
        state = StreamState.from_json(data["state"])
        named = type(step) is int and path.name == f"step-{step:08d}" and isinstance(digest, str)
        if not named or not isinstance(config, dict) or set(files) != set(PARTS):
            raise CheckpointError(f"{path / MARKER}: is of another shape\nhint: use the version that made it")
        for name in PARTS:
            if _sha256(path / name) != files[name]["sha256"]:
                raise CheckpointError(f"{path / name}: its hash is not that of {MARKER}: it is damaged or unfinished")
    except (JsonError, StateMismatch, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: is no finished checkpoint ({error})") from error
    except OSError as error:
        raise CheckpointError(f"{error.filename}: {error.strerror}: the checkpoint is unfinished") from error
    return Checkpoint(path, step, digest, state, config)


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that verifies, and what is wrong with the newer ones."""
    problems: list[str] = []
    for path in reversed(_folders(folder)):
        try:
            return verify_checkpoint(path), problems
        except CheckpointError as error:
            problems.append(str(error))
    return None, problems


def load_checkpoint(checkpoint: Checkpoint, model: Decoder, optimizer: torch.optim.Optimizer) -> None:
    """Put a verified checkpoint's tensors into the model and the optimizer. Raises `CheckpointError`."""
    if checkpoint.model != plain_config(model):
        ours = plain_config(model)
        names = sorted(name for name in ours | checkpoint.model if ours.get(name) != checkpoint.model.get(name))
        found = ", ".join(f"{name} {checkpoint.model.get(name)} (now {ours.get(name)})" for name in names)
        raise CheckpointError(
            f"{checkpoint.path}: is of another model: {found}\nhint: train it in another folder, or set these back"
        )
    weights, moments = (_load(checkpoint.path / name) for name in PARTS)
    try:
        model.load_state_dict(weights)
        # rates, betas and decay are the configuration's to say, and not the checkpoint's
        optimizer.load_state_dict({"state": moments["state"], "param_groups": optimizer.state_dict()["param_groups"]})
        _check_moments(optimizer)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{checkpoint.path}: its tensors do not fit the model ({error})\nhint: remove it; the one before is used"
        ) from error


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """`ValueError` unless every parameter has moments of its own shape."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            shapes = {name: tuple(value.shape) for name, value in state.items()}
            expected = {"step": (), "exp_avg": tuple(parameter.shape), "exp_avg_sq": tuple(parameter.shape)}
            if shapes != expected:
                raise ValueError(f"moments of the shapes {shapes}, expected {expected}")


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(
            f"{path}: holds something else than tensors ({str(error).splitlines()[0]:.200})\n"
            "hint: do not trust it; remove the checkpoint, and the one before is used"
        ) from error


def _verifies(path: Path) -> bool:
    try:
        verify_checkpoint(path)
    except CheckpointError:
        return False
    return True


def _folders(folder: Path) -> list[Path]:
    """Return the checkpoints' folders by step."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if _NAME.fullmatch(path.name) and path.is_dir())


def _remove_old(folder: Path, keep: int) -> None:
    """Remove what is older than the `keep` newest that verify; newer ones that do not are left to be looked at."""
    found = 0
    for path in reversed(_folders(folder)):
        if found == keep:
            shutil.rmtree(path, ignore_errors=True)
        else:
            found += _verifies(path)
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
