"""What all errors that people see have in common; each package adds its own below."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click


class HeadraceError(Exception):
    """Anything a user can act on; the command line prints it without a traceback and exits with status 1.

    The message names the thing, what was found, and (on a line that begins with "hint:") the remedy.
    """


def visible(text: str) -> str:
    """Return text as a terminal may be given it: lines as they are, and escapes for what does not print.

    Paths, URLs and causes come from the input, and could otherwise move the cursor or write over what was said.
    """
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def explained(command: Callable[..., None]) -> Callable[..., None]:
    """Print what a user can act on without a traceback, and exit with status 1."""

    @wraps(command)
    def run_command(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except HeadraceError as error:
            raise click.ClickException(visible(str(error))) from error

    return run_command
