"""`headrace contamination-index`: from evaluation files to the index of the transform `contamination`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokenizer.errors import explained

if TYPE_CHECKING:
    from pipelines.contamination.items import Shape


@click.command(name="contamination-index")
@click.argument("sets", nargs=-1, required=True, metavar="NAME=FILE...")
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The index to write; its hash is printed.",
)
@click.option(
    "--fields",
    metavar="QUESTION[,QUESTION...][:ANSWER]",
    help="Fields of the question, and of the answer, where files are of no known shape.",
)
@explained
def contamination_index(sets: tuple[str, ...], output: Path, fields: str | None) -> None:
    """Make an index of evaluation items, for the transform `contamination` of a recipe.

    FILE holds JSON lines (plain or .gz, .zst, .bz2), NAME is what its set is called in the evidence; a set may have
    more files than one. Items that are too short to be told from other texts are refused and counted.
    """
    import hashlib

    from pipelines.contamination.build import build_index
    from pipelines.contamination.items import read_items
    from pipelines.errors import HeadraceError, OutputError
    from tokenizer.terminal import make_console, make_table

    items, inputs, starts = [], [], dict[str, int]()
    for one in sets:
        name, equals, file = one.partition("=")
        if not (name and equals and file):
            raise HeadraceError(
                f"{one}: is no NAME=FILE\nhint: give each file with the name of its set, gsm8k=test.jsonl"
            )
        found, sha256 = read_items(name, Path(file), _shape(fields), starts.get(name, 0))
        starts[name] = starts.get(name, 0) + len(found)
        items += [(name, item) for item in found]
        inputs.append((name, sha256))
    index, counts = build_index(items, inputs)
    packed = index.pack()
    try:
        output.write_bytes(packed)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror}") from error
    console = make_console()
    table = make_table("set", "items>", "indexed>", "copies>", "too short>", "templates>")
    for name, count in counts.items():
        numbers = (count.read, count.indexed, count.copies, count.short, count.templates)
        table.add_row(name, *(f"{number:,}" for number in numbers))
    console.print(table)
    console.print(f"{output}  {len(packed):,} bytes  sha256 {hashlib.sha256(packed).hexdigest()}", highlight=False)


def _shape(fields: str | None) -> Shape | None:
    from pipelines.contamination.items import Shape

    if fields is None:
        return None
    question, _, answer = fields.partition(":")
    return Shape(tuple(question.split(",")), answer)
