"""The command `headrace report`. Heavy imports happen inside it, so `--help` is quick."""

from __future__ import annotations

from pathlib import Path

import click

from tokenizer.errors import explained


@click.command()
@click.argument("run_or_plan", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for report.html and report.json; not inside of a run's output.",
)
@explained
def report(run_or_plan: Path, output: Path) -> None:
    """Write the page that an operator reads and signs, and the same figures as JSON.

    RUN_OR_PLAN is a plan.json, the folder of a training run, or the output folder of `headrace run`. The page shows
    what was asked and what is planned, where every document went, lengths, padding, and the loss curve if there is one.
    """
    from mixtures.report.build import FIGURES, PAGE, build_report
    from tokenizer.errors import visible
    from tokenizer.terminal import make_console

    figures = build_report(run_or_plan, output)
    console = make_console()
    for line in figures["absent"]:
        console.print(visible(f"left out: {line}"), highlight=False, soft_wrap=True)
    console.print(visible(f"report in {output / PAGE}, figures in {output / FIGURES}"), highlight=False, soft_wrap=True)
