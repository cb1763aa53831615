"""What the extractor makes of pages whose sites it was not trained on: cross-validation grouped by site."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from pipelines.main_content import scan as s
from pipelines.main_content.choice import Mode
from pipelines.main_content.content import chosen_blocks
from pipelines.main_content.render import render
from pipelines.main_content.training.examples import read_examples
from pipelines.main_content.training.fit import fit, fold_of_site
from pipelines.main_content.trees import Model

FOLDS = 5
Key = tuple[str, str]
"""Collection and page id."""


def out_of_fold(
    pages: pa.Table, mode: Mode = "balanced", seed: int = 7, progress: Callable[[str], None] = print
) -> dict[Key, str]:
    """Return every page's text as a model has it that was fitted on the pages of the other sites' folds."""
    models = fold_models(pages, seed, progress)
    return texts(pages, lambda site: models[fold_of_site(site, FOLDS, seed)], mode)


def fold_models(pages: pa.Table, seed: int, progress: Callable[[str], None]) -> list[Model]:
    """Return for each fold a model fitted on all other folds."""
    examples = [example for example in read_examples(pages) if len(example.labels)]
    folds = [fold_of_site(example.site, FOLDS, seed) for example in examples]
    models = []
    for fold in range(FOLDS):
        models.append(fit([example for example, other in zip(examples, folds, strict=True) if other != fold], seed))
        progress(f"fold {fold + 1} of {FOLDS}: fitted without {folds.count(fold)} of {len(folds)} pages")
    return models


def texts(pages: pa.Table, model_of: Callable[[str], Model], mode: Mode) -> dict[Key, str]:
    """Return every page's text by the model for its site."""
    scanner, found = s.Scanner(), {}
    columns = (pages[name].to_pylist() for name in ("collection", "page_id", "site", "html"))
    for collection, page_id, site, html in zip(*columns, strict=True):
        scan = scanner.scan(np.frombuffer(html, np.uint8))
        found[collection, page_id] = render(scan, chosen_blocks(scan, model_of(site), mode))
    return found
