"""Clusters: a kept document and those that were removed because they are similar to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from pipelines.near_duplicates.columns import new_keys, rows_of
from pipelines.near_duplicates.tables import CLUSTER_SIZES, CLUSTERS


@dataclasses.dataclass(frozen=True, slots=True)
class Clusters:
    """Reduce of (kept_doc_id; doc_id) over `NEAR_DUPLICATES`: yields `clusters` and `cluster_sizes`."""

    name: str = "clusters"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Mapping[str, pa.RecordBatch]]:
        """Take batches in which a cluster may span several."""
        last: bytes | None = None
        size = 0
        for batch in batches:
            kept = batch.column("kept_doc_id")
            clusters = rows_of(
                CLUSTERS, batch.num_rows, cluster_id=kept,
                **{name: batch.column(name) for name in ("doc_id", "shared", "total", "place")},
            )  # fmt: skip
            firsts = np.flatnonzero(new_keys(kept))
            ids = kept.take(pa.array(firsts)).to_pylist()
            sizes = np.diff(np.append(firsts, len(kept))).tolist()
            if last is not None and ids[0] == last:
                sizes[0] += size
            elif last is not None:
                ids, sizes = [last, *ids], [size, *sizes]
            *done, (last, size) = zip(ids, sizes, strict=True)
            yield {"clusters": clusters, "cluster_sizes": _sizes(done)}
        if last is not None:
            yield {"cluster_sizes": _sizes([(last, size)])}


def _sizes(clusters: list[tuple[bytes, int]]) -> pa.RecordBatch:
    """Return the sizes of clusters of (kept document, how many were removed)."""
    ids = pa.array([cluster for cluster, _ in clusters], CLUSTER_SIZES.types[0])
    sizes = pa.array([1 + size for _, size in clusters], pa.int64())
    return rows_of(CLUSTER_SIZES, len(clusters), doc_id=ids, cluster_size=sizes)
