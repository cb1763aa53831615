"""`headrace train-classifier`: from labelled JSON lines to the model file of the transform `quality`."""

from __future__ import annotations

from pathlib import Path

import click

from tokenizer.errors import explained


@click.command(name="train-classifier")
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The model file to write; its hash is printed.",
)
@click.option("--text-field", default="text", show_default=True, help="Name of the field with the text.")
@click.option("--label-field", default="label", show_default=True, help="Name of the field with the label.")
@click.option("--positive", help="The label that should score high; not needed for 0 and 1, or false and true.")
@click.option("--folds", default=5, show_default=True, type=click.IntRange(2, 100), help="Folds of the evaluation.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1))
@click.option(
    "--bits", default=18, show_default=True, type=click.IntRange(8, 24), help="Log2 of the number of weights."
)
@click.option(
    "--penalty", default=0.3, show_default=True, type=click.FloatRange(1e-6, 1e6), help="L2 penalty of the weights."
)
@explained
def train_classifier(
    data: tuple[Path, ...], output: Path, text_field: str, label_field: str, positive: str | None, folds: int,
    seed: int, bits: int, penalty: float,
) -> None:  # fmt: skip
    """Train a classifier of texts from labelled JSON lines (DATA, plain or .gz, .zst, .bz2).

    Shows how well it tells the labels apart on texts that it was not trained on, and what thresholds would keep. The
    model is for the transform `quality` of a recipe.
    """
    import hashlib

    import numpy as np

    from pipelines.errors import HeadraceError, OutputError
    from pipelines.quality_classifier.labelled import read_labelled
    from pipelines.quality_classifier.training import auc_of, bands_of, fit, make_folds, score_fold
    from tokenizer.terminal import make_console, make_table, show_progress

    console = make_console()
    with show_progress(console) as report:
        given = read_labelled(data, text_field, label_field, positive, bits, report)
        assigned = make_folds(given.texts, given.labels, folds, seed)
        smallest = min(len(np.unique(assigned[given.labels == label])) for label in (False, True))
        if smallest < folds:
            raise HeadraceError(
                f"{data[0]}: too few documents for {folds} folds: one of the two classes is in only {smallest}\n"
                "hint: give more labelled documents, or fewer --folds"
            )
        report("models", 0, folds + 1)
        scores = np.zeros(len(given.labels), np.int64)
        for fold in range(folds):
            own = assigned == fold
            scores[own] = score_fold(given.rows, given.labels, own, bits, seed=seed, penalty=penalty)
            report("models", fold + 1, folds + 1)
        auc = auc_of(scores, given.labels)
        about = {
            "positive": given.positive, "documents": len(given.labels), "positives": int(given.labels.sum()),
            "data_sha256": given.sha256, "seed": seed,
            "penalty": penalty, "folds": folds,
            "out_of_fold_auc": [round(part, 4) for part in (auc.value, auc.low, auc.high)],
        }  # fmt: skip
        model = fit(given.rows, given.labels, bits, about, seed=seed, penalty=penalty)
        report("models", folds + 1, folds + 1)
    packed = model.pack()
    try:
        output.write_bytes(packed)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror}") from error
    labels = ", ".join(f"{number:,} {label!r:.40}" for label, number in list(given.counts.items())[:10])
    console.print(f"documents: {len(given.labels):,} ({labels}); positive: {given.positive!r:.40}", highlight=False)
    console.print(
        f"out-of-fold AUC: {auc.value:.4f} (95% interval {auc.low:.4f} to {auc.high:.4f}), {folds} folds",
        highlight=False,
    )
    table = make_table("score", "documents>", "positive>", "min_score>", "keeps>", "of positive>", "of others>")
    for band in bands_of(scores, given.labels):
        share = f"{100 * band.positives / band.documents:.1f}%" if band.documents else ""
        kept = (f"{100 * one:.1f}%" for one in (band.kept, band.kept_positives, band.kept_negatives))
        table.add_row(f"{band.low} to {band.high}", f"{band.documents:,}", share, str(band.low), *kept)
    console.print(table)
    console.print(f"{output}  {len(packed):,} bytes  sha256 {hashlib.sha256(packed).hexdigest()}", highlight=False)
