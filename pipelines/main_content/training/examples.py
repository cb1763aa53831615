"""From labelled pages to what trees are fitted on: features, labels and weights of every block."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.main_content import scan as s
from pipelines.main_content.features import CONTEXT, FEATURES, block_features
from pipelines.main_content.training.align import matched_words

DISAGREEMENT = 0.5
"""Weight of a block about which the tools that labelled the page disagree."""


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One page, scanned and labelled."""

    key: tuple[str, str]
    site: str
    features: np.ndarray
    """float32, shape (blocks, FEATURES and CONTEXT); the columns of the context are still empty."""
    clusters: np.ndarray
    blocks: np.ndarray
    nodes: np.ndarray
    labels: np.ndarray
    """bool, shape (blocks,)."""
    weights: np.ndarray
    """float64, shape (blocks,): a block's words as a share of the gold text's."""


def read_examples(pages: pa.Table) -> Iterator[Example]:
    """Yield the examples of a table of labelled pages (see `pages.SCHEMA`), in order."""
    scanner = s.Scanner()
    for batch in pages.to_batches(max_chunksize=64):
        for page in batch.to_pylist():
            yield example(page, scanner)


def example(page: dict[str, Any], scanner: s.Scanner) -> Example:
    """Scan and label one page."""
    scan = scanner.scan(np.frombuffer(page["html"], np.uint8))
    features, clusters = block_features(scan, len(FEATURES) + len(CONTEXT))
    text = scan.text.tobytes()
    texts = [text[start:end].decode() for start, end in scan.blocks[:, [s.START, s.END]].tolist()]
    labels, lengths, gold_words = _labels(texts, page["gold"] or "")
    weights = lengths / max(gold_words, int(lengths.sum()) // 20, 20)
    for second in page["seconds"] or ():
        other, _, _ = _labels(texts, second)
        weights[other != labels] *= DISAGREEMENT
    if page["gold_kind"] == "snippets":
        _force(texts, page["snippets_with"] or (), labels, weights, is_content=True)
        _force(texts, page["snippets_without"] or (), labels, weights, is_content=False)
    return Example(
        (page["collection"], page["page_id"]),
        page["site"],
        features,
        clusters,
        scan.blocks.copy(),
        scan.nodes.copy(),
        labels,
        weights * page["page_weight"],
    )


def _labels(texts: list[str], gold: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return which blocks are content, the words of each block, and the words that the gold matches."""
    matched, lengths = matched_words(texts, gold)
    return (2 * matched >= lengths) & (matched > 0), np.maximum(lengths, 1), int(matched.sum())


def _force(
    texts: list[str], snippets: Sequence[str], labels: np.ndarray, weights: np.ndarray, *, is_content: bool
) -> None:
    """Set the label of blocks that hold a snippet which somebody looked up by hand."""
    for row, text in enumerate(texts):
        if any(snippet in text for snippet in snippets):
            labels[row] = is_content
            weights[row] = max(weights[row], 0.01)
