"""`headrace train-extractor`: from the pages named in pages.yaml to the model file of the extractor."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from tokenizer.errors import explained


@click.command(name="train-extractor")
@click.option(
    "--work",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for what is downloaded, what other extractors say about each page, and the labelled pages; all of it "
    "is used again.",
)
@click.option(
    "--data",
    default=Path("../shared/data"),
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the collections that come with a folder and not with a package.",
)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The model file (.npz) to write; its hash is printed.",
)
@click.option("--collection", "-c", multiple=True, help="Only this collection of pages; give it again for more.")
@click.option("--skip-missing", is_flag=True, help="Do without collections that cannot be had, and say which.")
@click.option("--trees", default=None, type=click.IntRange(1), help="Trees of each stage; 120 if not given.")
@explained
def train_extractor(
    work: Path, data: Path, output: Path, collection: tuple[str, ...], skip_missing: bool, trees: int | None
) -> None:
    """Train the extractor of main content anew, from gold pages and from pages labelled by other extractors.

    The pages, where they come from and how they are labelled are in pipelines/main_content/training/pages.yaml. It
    needs the packages of the extra `extractor`, and an hour for the first time.
    """
    import pyarrow.parquet as pq

    from pipelines.main_content.training.examples import read_examples
    from pipelines.main_content.training.fit import NUM_TREES, fit
    from pipelines.main_content.training.pages import build
    from pipelines.main_content.trees import pack

    table = build(data, work, collection, skip_missing, click.echo)
    examples = []
    with click.progressbar(
        read_examples(pq.read_table(table)), length=pq.read_metadata(table).num_rows, label="aligning pages"
    ) as pages:
        examples = [example for example in pages if len(example.labels)]
    click.echo(f"fitting {sum(len(example.labels) for example in examples):,} blocks of {len(examples):,} pages ...")
    packed = pack(fit(examples, num_trees=trees or NUM_TREES))
    output.write_bytes(packed)
    click.echo(f"{output}  {len(packed):,} bytes  sha256 {hashlib.sha256(packed).hexdigest()}")
