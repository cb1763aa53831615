"""The command `headrace mix`. Heavy imports happen inside it, so `--help` is quick."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tokenizer.errors import explained


@click.command()
@click.argument("mixture", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The plan to write, a JSON file; pack indexes are kept in packs/ beside it.",
)
@click.option(
    "--workers",
    "-w",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default=True,
    help="Local processes that count sequences. The plan does not depend on it.",
)
@explained
def mix(mixture: Path, output: Path, workers: int) -> None:
    """Solve MIXTURE into a plan: which documents a training run sees, how often, in how many sequences.

    Counts the sequences that each source's documents make (finished shards are kept, so the command goes on where it
    stopped), and writes a plan of exact integers. The same mixture and token shards give the same plan.
    """
    from mixtures.mixture import load_mixture
    from mixtures.planner import plan_mixture, write_plan
    from mixtures.summary import show_plan
    from tokenizer.terminal import make_console, show_progress

    console = make_console()
    loaded = load_mixture(mixture)
    with show_progress(console) as report:
        plan = plan_mixture(loaded, output, workers, report)
    write_plan(plan)
    show_plan(plan, console)
