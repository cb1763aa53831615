"""The errors that people see. Every message names the thing, what was found, and (after "hint:") the remedy.

HeadraceError
├── RecipeError        a recipe that cannot run: wrong key, type, path, engine or threshold
├── OutputError        an output that cannot be used: unwritable, full, made by another recipe
├── WorkerDied         a worker process was killed; what it had committed stands
├── LedgerImbalance    what went in is not what came out: the run is not to be trusted
└── VerifyError        data on disk is not what its manifest or ledger says
"""

from __future__ import annotations

from tokenizer.errors import HeadraceError, visible

__all__ = ["HeadraceError", "LedgerImbalance", "OutputError", "RecipeError", "VerifyError", "WorkerDied", "visible"]


class RecipeError(HeadraceError):
    """A recipe that cannot run, found before any work."""


class OutputError(HeadraceError):
    """The output folder is unusable: no permission, no space, or made by another recipe."""


class WorkerDied(HeadraceError):
    """A worker process was killed from outside (memory, signal); a rerun goes on from what was committed."""


class LedgerImbalance(HeadraceError):
    """Rows, bytes or tokens disappeared or appeared between two steps: a bug in a transform or an engine."""


class VerifyError(HeadraceError):
    """What lies on disk differs from what its manifest, ledger or commit says."""
