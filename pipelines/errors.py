"""The errors that people see. Every message names the thing, what was found, and (after "hint:") the remedy.

HeadraceError
├── RecipeError        a recipe that cannot run: wrong key, type, path, engine or threshold
├── OutputError        an output that cannot be used: unwritable, full, made by another recipe
├── WorkerDied         a worker process was killed; what it had committed stands
├── LedgerImbalance    what went in is not what came out: the run is not to be trusted
└── VerifyError        data on disk is not what its manifest or ledger says
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Anything a user can act on; the command line prints it without a traceback and exits with status 1."""


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


def visible(text: str) -> str:
    """Return text as a terminal may be given it: lines as they are, and escapes for what does not print.

    Paths, URLs and causes come from the input, and could otherwise move the cursor or write over what was said.
    """
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
