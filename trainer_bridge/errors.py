"""The errors that people see between a plan and a trainer.

HeadraceError
├── StreamError       a position, a world size or a batch that the plan does not have
├── StateMismatch     a state that belongs to other data than the plan and the overlays at hand
├── CheckpointError   a checkpoint that is unfinished, damaged or another model's
└── TrainingError     a configuration that cannot be trained, or a training that has gone wrong
"""

from __future__ import annotations

from tokenizer.errors import HeadraceError


class StreamError(HeadraceError):
    """A position, a rank or a world size that the plan does not have."""


class StateMismatch(HeadraceError):
    """A saved state that belongs to other data: going on would show documents twice or never."""


class CheckpointError(HeadraceError):
    """A checkpoint that is unfinished, damaged, or of another model."""


class TrainingError(HeadraceError):
    """A configuration that cannot be trained, or a training that has gone wrong."""
