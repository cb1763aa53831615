"""The command `headrace train`. Heavy imports happen inside it, so `--help` is quick."""

from __future__ import annotations

from pathlib import Path

import click

from tokenizer.errors import explained

NEEDED = ("torch", "tensorboard")
"""What a trainer needs and the rest of the program does not."""


@click.command()
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--plan", "-p", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The plan that `mix` made."
)
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for checkpoints and logs; if it has checkpoints, the run goes on from the newest.",
)
@click.option(
    "--steps", "-s", type=click.IntRange(1), help="Stop after this step; the same command without it goes on."
)
@explained
def train(config: Path, plan: Path, output: Path, steps: int | None) -> None:
    """Train the mixture-of-experts model that CONFIG describes on a plan.

    Stop it at any time (Ctrl-C lets the step finish and saves) and run the same command again: it goes on with the same
    data and the same weights. Under `torchrun` the global batch is dealt out to the ranks. Losses go to metrics.jsonl
    (for `headrace report`) and to TensorBoard's files.
    """
    from mixtures.plan import Plan
    from tokenizer.errors import visible
    from tokenizer.terminal import make_console
    from trainer_bridge.moe.settings import load_settings

    try:
        from trainer_bridge.moe.panel import show_training
        from trainer_bridge.moe.ranks import join_ranks
        from trainer_bridge.moe.train import train as train_on
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in NEEDED:
            raise
        raise click.ClickException(f"{package}: is not installed\nhint: pip install 'headrace[train]'") from error

    settings, loaded, console = load_settings(config), Plan.load(plan), make_console()
    last = min(steps or loaded.steps, settings.steps or loaded.steps)
    with join_ranks() as ranks:

        def say(line: str) -> None:
            if ranks.first:
                console.print(visible(line), highlight=False, soft_wrap=True)

        console.quiet = not ranks.first
        with show_training(console, last) as show:
            train_on(settings, loaded, output, steps, ranks, show, say)
        say(f"checkpoints and logs in {output}")
