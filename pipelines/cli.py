"""The commands of the pipelines: run, verify, explain. Heavy imports happen inside them, so `--help` is quick."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tokenizer.errors import explained

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("recipe", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--output",
    "-o",
    type=FOLDER,
    required=True,
    help="Folder for the result; made if absent. Run again with the same recipe and folder to go on.",
)
@click.option(
    "--workers",
    "-w",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default=True,
    help="Local worker processes. The result does not depend on it.",
)
@click.option("--engine", help="What carries the stages out; the recipe's own choice if not given.  [datatrove]")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="Read at most this many records of each file (or part of one): a quick trial, with an output of its own.",
)
@click.option("--dry-run", is_flag=True, help="Check the recipe and show splits and stages; write nothing.")
@explained
def run(recipe: Path, output: Path, workers: int, engine: str | None, limit: int | None, dry_run: bool) -> None:
    """Turn the sources of RECIPE into token shards.

    Reads every source, extracts, filters, deduplicates and tokenizes; writes documents, rejects (with reasons), token
    shards with manifests, and the ledger. What is committed stays: after a crash, a kill or a full disk the same
    command does only what is missing.
    """
    from pipelines.plan import build_plan
    from pipelines.recipe import ENGINES, load_recipe
    from pipelines.run import list_splits, run_plan
    from pipelines.storage.local import LocalStorage
    from pipelines.summary import show_plan, show_summary
    from tokenizer.terminal import make_console, show_progress

    loaded = load_recipe(recipe, limit=limit)
    if (engine or loaded.engine) not in ENGINES:
        raise click.BadParameter(f"found {engine!r}, allowed are {', '.join(ENGINES)}", param_hint="--engine")
    storage = LocalStorage(output.absolute())
    plan = build_plan(loaded, storage)
    console = make_console()
    if dry_run:
        show_plan(plan, list_splits(plan), console)
        return
    from pipelines.engines.datatrove import DatatroveEngine

    with show_progress(console) as report, DatatroveEngine(workers) as local:
        result = run_plan(plan, storage, local, report)
    show_summary(plan, result, output, console)


@click.command()
@click.argument("output", type=FOLDER)
@explained
def verify(output: Path) -> None:
    """Check a finished run in OUTPUT against its own records.

    Hashes and sizes of every file that a commit or a manifest names, files that none names, row counts, the order of
    documents, the balance of the ledger (within and between stages), and the range and ends of all token ids.
    """
    from pipelines.verify import verify_output
    from tokenizer.terminal import make_console

    console = make_console()
    for line in verify_output(output.absolute()):
        console.print(line, highlight=False)


@click.command()
@click.argument("output", type=FOLDER)
@click.argument("doc_id")
@explained
def explain(output: Path, doc_id: str) -> None:
    """Show what happened to document DOC_ID (32 hex digits, or the first of them) of the run in OUTPUT.

    Reads the record again at its origin, sends it through the recipe's transforms, and prints each one's verdict with
    the values that it measured and the thresholds; steps that look at many documents are taken from their tables.
    """
    from pipelines.explain import explain_document
    from pipelines.summary import show_explanation
    from tokenizer.terminal import make_console

    show_explanation(explain_document(output.absolute(), doc_id), make_console())


@click.command()
@click.argument("output", type=FOLDER)
@click.argument("doc_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: origin, text, ids, loss spans, shard.")
@explained
def replay(output: Path, doc_id: str, as_json: bool) -> None:
    """Make document DOC_ID (32 hex digits, or the first of them) of the run in OUTPUT again from its bytes.

    Reads the record at its origin, sends it through the recipe's transforms to token ids, and compares these with the
    token shard's. What steps over many documents have decided is taken from their tables.
    """
    import json

    from pipelines.replay import replay_document
    from pipelines.summary import show_replay
    from tokenizer.terminal import make_console

    replayed = replay_document(output.absolute(), doc_id)
    if as_json:
        click.echo(json.dumps(replayed.as_json(), sort_keys=True))
    else:
        show_replay(replayed, make_console())
