"""The job of `spark-submit pipelines/tokenize.py`: a whole recipe on the session that spark-submit has set up.

The script that is submitted is a shim (see there); this module is imported under its own name, so that functions which
go to executors are found by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli import Options, engine_options, run_recipe
from tokenizer.errors import explained

if TYPE_CHECKING:
    from pipelines.run import Part


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--recipe",
    "-r",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The recipe (YAML); read on the driver only.",
)
@engine_options
@explained
def main(recipe: Path, output: str, workers: int, options: Options, part: Part | None, limit: int | None) -> None:
    """Turn the sources of a recipe into token shards on Spark: what `headrace run --engine spark` does."""
    from pipelines.recipe import load_recipe

    run_recipe(load_recipe(recipe, limit=limit), output, "spark", workers, options, part)
