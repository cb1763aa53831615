"""The command `headrace trace`. Heavy imports happen inside it, so `--help` is quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokenizer.errors import explained

if TYPE_CHECKING:
    from rich.console import Console

    from trainer_bridge.stream import Stream
    from trainer_bridge.trace import Seen, Sighting

SHOWN = 40
"""Pieces that the table shows; a step of a large run has tens of thousands, `--json` gives them all."""

SHOWN_TEXT = 400
"""Characters of a piece that `--text` shows, unless one token was asked for, whose piece is shown whole."""


@click.command()
@click.option(
    "--plan", "-p", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The plan of the run."
)
@click.option("--step", "-s", type=click.IntRange(0), help="The step, counted from 0 (metrics.jsonl counts from 1).")
@click.option("--row", "-r", type=click.IntRange(0), help="One sequence of the step's global batch, counted from 0.")
@click.option("--column", "-c", type=click.IntRange(0), help="One token of that sequence, counted from 0.")
@click.option("--document", "-d", help="Instead of a step: a document's id; shows every step that sees it.")
@click.option("--text", is_flag=True, help="Show the text that each piece decodes to (its begin and end).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each piece, all of them.")
@explained
def trace(
    plan: Path, step: int | None, row: int | None, column: int | None, document: str | None, text: bool, as_json: bool
) -> None:
    """Show which documents a training step sees and where the bytes of each lie, or which steps see a document.

    Computed from the plan: nothing was logged for it, and any step, past or to come, can be asked for. The command
    `headrace replay` reads an origin again and shows that the same tokens come out.
    """
    if (step is None) == (document is None):
        raise click.UsageError("give a --step, or a --document")
    if document is not None and (text or row is not None or column is not None):
        raise click.UsageError("--row, --column and --text belong to a --step")
    if column is not None and row is None:
        raise click.UsageError("--column is a place in a sequence: give its --row, too")
    from mixtures.plan import Plan
    from tokenizer.terminal import make_console
    from trainer_bridge.stream import Stream
    from trainer_bridge.trace import trace_document, trace_step

    stream = Stream(Plan.load(plan))
    if step is None:
        _show_sightings(trace_document(stream, str(document)), as_json, make_console())
        return
    seen = list(trace_step(stream, step, row, column))
    if as_json:
        for piece in seen:
            click.echo(json.dumps(_plain(stream, piece, text), sort_keys=True))
    elif not seen:
        click.echo("no document stands there: an empty sequence that fills the last step, or padding")
    elif text:
        _show_text(stream, seen, make_console(), whole=column is not None)
    else:
        _show_table(seen, make_console())


def _plain(stream: Stream, piece: Seen, text: bool) -> dict[str, object]:
    from trainer_bridge.trace import as_json, ids_of

    ids = ids_of(stream, piece)
    decoded = {"text": _decoded(stream, ids)} if text else {}
    return as_json(piece) | {"ids": ids.tolist()} | decoded


def _decoded(stream: Stream, ids) -> str:  # type: ignore[no-untyped-def]
    from tokenizer.decode import decode

    return decode(ids, stream.plan.encoding)


def _show_table(seen: list[Seen], console: Console) -> None:
    from tokenizer.errors import visible
    from tokenizer.terminal import make_table

    table = make_table("row>", "columns>", "source", "epoch>", "document", "tokens>", "origin", "offset>", "length>")
    for piece in seen[:SHOWN]:
        origin = piece.origin
        table.add_row(
            str(piece.row),
            f"{piece.first}-{piece.last}",
            visible(piece.source),
            str(piece.epoch),
            piece.doc_id,
            f"{piece.start}-{piece.end} of {piece.tokens}",
            visible(origin["origin_path"]),
            f"{origin['origin_offset']:,}",
            f"{origin['origin_length']:,}",
        )
    console.print(table)
    if len(seen) > SHOWN:
        console.print(f"{len(seen) - SHOWN:,} more pieces: --row shows those of one sequence, --json all of them")
    console.print(
        visible(f"headrace replay {seen[0].output} {seen[0].doc_id} reads the first one's origin again"),
        highlight=False,
        soft_wrap=True,
    )


def _show_sightings(sightings: list[Sighting], as_json: bool, console: Console) -> None:
    import dataclasses

    from tokenizer.errors import visible
    from tokenizer.terminal import make_table, numbers

    if as_json:
        for sighting in sightings:
            click.echo(json.dumps(dataclasses.asdict(sighting), sort_keys=True))
        return
    table = make_table("source", "epoch>", "step>", "row>", "sequence>")
    for sighting in sightings:
        counts = (sighting.epoch, sighting.step, sighting.row, sighting.sequence)
        table.add_row(visible(sighting.source), *numbers(*counts))
    console.print(table if sightings else "no step sees it: it is held out, or longer than a sequence and never cut")


def _show_text(stream: Stream, seen: list[Seen], console: Console, whole: bool) -> None:
    from tokenizer.errors import visible
    from trainer_bridge.trace import ids_of

    for piece in seen:
        origin = f"{piece.origin['origin_path']} at {piece.origin['origin_offset']:,}"
        head = f"row {piece.row}, columns {piece.first}-{piece.last}: {piece.source}, {piece.doc_id}, {origin}"
        console.print(visible(head), style="bold", highlight=False, soft_wrap=True)
        text = _decoded(stream, ids_of(stream, piece))
        if not whole and len(text) > 2 * SHOWN_TEXT:
            left_out = f"\n[... {len(text) - SHOWN_TEXT - SHOWN_TEXT // 4:,} characters ...]\n"
            text = text[:SHOWN_TEXT] + left_out + text[-SHOWN_TEXT // 4 :]
        console.print(visible(text), highlight=False, soft_wrap=True)
