"""The commands of the pipelines: run, verify, explain, tune, replay.

Heavy imports happen inside them, so `--help` is quick.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokenizer.errors import explained

if TYPE_CHECKING:
    from pipelines.recipe import Recipe
    from pipelines.run import Part

Options = dict[str, str]


def _not_a_file(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Refuse an output that is a file, which a folder cannot replace."""
    if Path(value).is_file():
        raise click.BadParameter(f"{value!r} is a file")
    return value


def _read_options(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Options:
    """Turn KEY=VALUE texts into a mapping."""
    options: Options = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not separator or not key.strip():
            raise click.BadParameter(f"found {value!r}, allowed is KEY=VALUE")
        if key in options:
            raise click.BadParameter(f"found {key} twice")
        options[key.strip()] = text
    return options


def _read_part(context: click.Context, parameter: click.Parameter, value: str | None) -> Part | None:
    from pipelines.run import Part

    try:
        return None if value is None else Part.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


ENGINE_OPTIONS = (
    click.option(
        "--output",
        "-o",
        required=True,
        callback=_not_a_file,
        help="Folder or s3://BUCKET/PREFIX for the result; made if absent. Run again with the same recipe and output "
        "to go on.",
    ),
    click.option(
        "--workers",
        "-w",
        type=click.IntRange(1),
        default=os.cpu_count() or 1,
        show_default=True,
        help="Local worker processes (cores of a local Spark). The result does not depend on it.",
    ),
    click.option(
        "--engine-option",
        "options",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_read_options,
        help="A setting of the engine's own, may be given again: spark.executor.memory=4g, runner=FlinkRunner, "
        "partition=cpu ... (docs/clusters.md).",
    ),
    click.option(
        "--part",
        metavar="K/N",
        callback=_read_part,
        help="Carry out the first stage for part K of N of the input and stop. Parts may run at once, on any machine; "
        "a run without --part then finds them done and does the rest.",
    ),
    click.option(
        "--limit",
        type=click.IntRange(1),
        help="Read at most this many records of each file (or part of one): a quick trial, with an output of its own.",
    ),
)


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where and how a recipe is run."""
    for option in reversed(ENGINE_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("recipe", type=click.Path(dir_okay=False, path_type=Path))
@engine_options
@click.option(
    "--engine",
    help="What carries the stages out; the recipe's own choice if not given.  [datatrove|slurm|spark|beam]",
)
@click.option("--dry-run", is_flag=True, help="Check the recipe and show splits and stages; write nothing.")
@explained
def run(
    recipe: Path, output: str, workers: int, options: Options, part: Part | None, limit: int | None,
    engine: str | None, dry_run: bool,
) -> None:  # fmt: skip
    """Turn the sources of RECIPE into token shards.

    Reads every source, extracts, filters, deduplicates and tokenizes; writes documents, rejects (with reasons), token
    shards with manifests, and the ledger. What is committed stays: after a crash, a kill or a full disk the same
    command does only what is missing.
    """
    from pipelines.plan import build_plan
    from pipelines.recipe import ENGINES, load_recipe
    from pipelines.run import list_splits
    from pipelines.storage.schemes import open_output
    from pipelines.summary import show_plan
    from tokenizer.terminal import make_console

    loaded = load_recipe(recipe, limit=limit)
    name = engine or loaded.engine
    if name not in ENGINES:
        raise click.BadParameter(f"found {engine!r}, allowed are {', '.join(ENGINES)}", param_hint="--engine")
    if dry_run:
        plan = build_plan(loaded, open_output(output))
        show_plan(plan, list_splits(plan), make_console())
        return
    run_recipe(loaded, output, name, workers, options, part)


def run_recipe(
    recipe: Recipe, output: str, engine: str, workers: int, options: Options, part: Part | None = None
) -> None:
    """Run a recipe on an engine, with progress and a summary in the terminal."""
    from pipelines.engines.registry import make_engine
    from pipelines.plan import build_plan
    from pipelines.run import run_part, run_plan
    from pipelines.storage.schemes import open_output
    from pipelines.summary import show_part, show_summary
    from tokenizer.terminal import make_console, show_progress

    storage, console = open_output(output), make_console()
    plan = build_plan(recipe, storage)
    with show_progress(console) as report, make_engine(engine, workers, options) as at_work:
        if part is not None:
            done = run_part(plan, storage, at_work, report, part)
        else:
            result = run_plan(plan, storage, at_work, report)
    if part is not None:
        show_part(part, done, console)
    else:
        show_summary(plan, result, output.rstrip("/"), console)


@click.command()
@click.argument("output")
@explained
def verify(output: str) -> None:
    """Check a finished run in OUTPUT against its own records.

    Hashes and sizes of every file that a commit or a manifest names, files that none names, row counts, the order of
    documents, the balance of the ledger (within and between stages), and the range and ends of all token ids.
    """
    from pipelines.verify import verify_output
    from tokenizer.terminal import make_console

    console = make_console()
    for line in verify_output(output):
        console.print(line, highlight=False)


@click.command()
@click.argument("output")
@click.argument("doc_id")
@explained
def explain(output: str, doc_id: str) -> None:
    """Show what happened to document DOC_ID (32 hex digits, or the first of them) of the run in OUTPUT.

    Reads the record again at its origin, sends it through the recipe's transforms, and prints each one's verdict with
    the values that it measured and the thresholds; steps that look at many documents are taken from their tables.
    """
    from pipelines.explain import explain_document
    from pipelines.summary import show_explanation
    from tokenizer.terminal import make_console

    show_explanation(explain_document(output, doc_id), make_console())


@click.command()
@click.argument("recipe", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--output", "-o", required=True, help="Folder or s3://BUCKET/PREFIX of a finished run of RECIPE.")
@click.option("--source", metavar="NAME", help="This source alone.")
@click.option("--rule", metavar="FILTER.RULE", help="This rule alone: more thresholds, and documents near its line.")
@click.option(
    "--examples",
    type=click.IntRange(0, 1000),
    default=5,
    show_default=True,
    help="Documents that --rule shows on each side of the line.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object with every number.")
@explained
def tune(recipe: Path, output: str, source: str | None, rule: str | None, examples: int, as_json: bool) -> None:
    """Show what other thresholds of the filters of RECIPE would remove.

    Needs a run whose filters have `values: true` (and `drop: false`, where they should measure and drop nothing), and
    runs nothing again. RECIPE may give other thresholds than the run had: its own are shown.
    """
    import json

    from pipelines.tune import tune_recipe
    from pipelines.tune_report import show_tuning
    from tokenizer.terminal import make_console, show_progress

    console = make_console()
    if as_json or not console.is_terminal:  # the same output for the same run
        tuning = tune_recipe(recipe, output, lambda *_: None, source=source, rule=rule, num_examples=examples)
    else:
        with show_progress(console) as report:
            tuning = tune_recipe(recipe, output, report, source=source, rule=rule, num_examples=examples)
    if as_json:
        click.echo(json.dumps(tuning.as_json(), sort_keys=True))
    else:
        show_tuning(tuning, console)


@click.command()
@click.argument("output")
@click.argument("doc_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: origin, text, ids, loss spans, shard.")
@explained
def replay(output: str, doc_id: str, as_json: bool) -> None:
    """Make document DOC_ID (32 hex digits, or the first of them) of the run in OUTPUT again from its bytes.

    Reads the record at its origin, sends it through the recipe's transforms to token ids, and compares these with the
    token shard's. What steps over many documents have decided is taken from their tables.
    """
    import json

    from pipelines.replay import replay_document
    from pipelines.summary import show_replay
    from tokenizer.terminal import make_console

    replayed = replay_document(output, doc_id)
    if as_json:
        click.echo(json.dumps(replayed.as_json(), sort_keys=True))
    else:
        show_replay(replayed, make_console())
