"""Lengths of the documents of each source, in tokens: exact counts of every length, from the shards' indexes.

Quantiles are by nearest rank: the smallest length that at least this share of the documents does not exceed. Bins are
powers of two, [2^k, 2^(k+1)). Costs one sort of each shard's lengths; memory is that of the distinct lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mixtures.documents import Documents
from mixtures.report.errors import ReportError
from mixtures.report.inputs import Source
from tokenizer.manifest import Manifest
from tokenizer.shards import SUFFIXES


def length_figures(sources: Iterable[Source], limits: Sequence[int]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the figures of every source whose shards are all there, and a line for each that is left out.

    `limits` are sequence lengths in tokens: how many documents are longer is counted for each.
    """
    figures, absent = [], []
    for source in sources:
        missing = sum(_is_absent(manifest) for manifest in source.manifests)
        if missing:
            absent.append(f"lengths of {source.name}: the shards of {missing} of its manifests are not there")
        elif source.complete:
            figures.append({"source": source.name} | _describe(*_count(source), limits))
    return figures, absent


def _is_absent(manifest: Manifest) -> bool:
    assert manifest.path is not None, "the manifest was loaded from a file"
    folder = manifest.path.parent
    return not all(
        (folder / f"{shard.name}{ending}").exists() for shard in manifest.shards for ending in SUFFIXES.values()
    )


def _count(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct lengths, ascending, and how many documents have each (int64)."""
    lengths, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for manifest in source.manifests:
        documents, tokens = Documents(manifest), 0
        for part in documents.parts(0, len(documents)):
            some = np.unique(documents.mapped(part.shard).lengths, return_counts=True)
            tokens += int(np.dot(some[0].astype(np.int64), some[1]))
            lengths, counts = _merge(np.concatenate([lengths, some[0]]), np.concatenate([counts, some[1]]))
        if tokens != manifest.totals.tokens:
            raise ReportError(
                f"{manifest.path}: says {manifest.totals.tokens} tokens, its shards' indexes hold {tokens}\n"
                "hint: bring back the shards that the manifest was made with; `headrace verify` names the file"
            )
    return lengths, counts


def _merge(lengths: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distinct, places = np.unique(lengths, return_inverse=True)
    sums = np.zeros(len(distinct), np.int64)
    np.add.at(sums, places, counts)
    return distinct, sums


def _describe(lengths: np.ndarray, counts: np.ndarray, limits: Sequence[int]) -> dict[str, Any]:
    documents, tokens = int(counts.sum()), int(np.dot(lengths, counts))
    longer = [(limit, int(counts[lengths > limit].sum())) for limit in limits]
    return {
        "documents": documents,
        "tokens": tokens,
        "mean": tokens / documents if documents else None,
        "median": quantile(lengths, counts, 1, 2),
        "p99": quantile(lengths, counts, 99, 100),
        "longest": int(lengths[-1]) if documents else None,
        "longer": [
            {"length": limit, "documents": count, "share": count / documents if documents else None}
            for limit, count in longer
        ],
        "bins": _bins(lengths, counts),
    }


def quantile(lengths: np.ndarray, counts: np.ndarray, numerator: int, denominator: int) -> int | None:
    """Return the smallest length that numerator/denominator of the documents do not exceed; None without documents."""
    if not len(lengths):
        return None
    rank = -(-int(counts.sum()) * numerator // denominator)
    return int(lengths[np.searchsorted(np.cumsum(counts), rank)])


def _bins(lengths: np.ndarray, counts: np.ndarray) -> list[dict[str, int]]:
    """Return the bins [from, below) from the first to the last that has documents, empty ones between included."""
    if not len(lengths):
        return []
    places = np.frexp(lengths.astype(np.float64))[1] - 1  # exact: lengths are below 2^53
    bins = range(int(places[0]), int(places[-1]) + 1)
    return [
        {
            "from": 1 << place,
            "below": 1 << (place + 1),
            "documents": int(counts[places == place].sum()),
            "tokens": int(np.dot(lengths[places == place], counts[places == place])),
        }
        for place in bins
    ]
