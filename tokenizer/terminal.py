"""How every command speaks: progress, tables of numbers, wide lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

Report = Callable[[str, int, int], None]
"""Told as work goes on: what is worked on, how much of it is done, how much there is."""


def make_console() -> Console:
    """Return a console that takes nothing for markup or emoji; a wide one where there is no terminal to ask."""
    console = Console(markup=False, emoji=False)
    return console if console.is_terminal else Console(width=140, markup=False, emoji=False)


@contextmanager
def show_progress(console: Console) -> Iterator[Report]:
    """Show a bar for each kind of work; where there is no terminal, a line when it begins and when it ends."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)
            if done == total:
                progress.stop_task(tasks[what])

        yield report


def _lines(console: Console) -> Report:
    started: dict[str, float] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in started:
            started[what] = time.monotonic()
            console.print(f"{what}: {total - done} of {total} to do", highlight=False)
        elif done == total:
            console.print(f"{what}: done in {time.monotonic() - started[what]:.1f} s", highlight=False)

    return report


def make_table(*titles: str) -> Table:
    """Return an empty table; a title that ends with ">" makes a column of numbers, flush right."""
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title.rstrip(">"), justify="right" if title.endswith(">") else "left", overflow="fold")
    return table


def numbers(*values: int) -> tuple[str, ...]:
    """Return the values with thousands separators."""
    return tuple(f"{value:,}" for value in values)
