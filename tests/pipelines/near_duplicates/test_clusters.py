"""Clusters and their sizes against a count in plain Python."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.near_duplicates.clusters import Clusters
from pipelines.near_duplicates.tables import CLUSTER_SIZES, CLUSTERS, NEAR_DUPLICATES


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 8))
def test_every_removed_document_is_in_the_cluster_of_its_kept_one(kept, cut):
    edges = [
        {"doc_id": key(100 + place), "kept_doc_id": key(cluster), "shared": place, "total": 2 * place, "place": 1}
        for place, cluster in enumerate(sorted(kept))
    ]
    table = pa.Table.from_pylist(edges, NEAR_DUPLICATES).combine_chunks()
    written = list(Clusters()(iter(table.to_batches(cut))))
    clusters = [row for tables in written if "clusters" in tables for row in tables["clusters"].to_pylist()]
    assert clusters == [
        {name: edge["kept_doc_id" if name == "cluster_id" else name] for name in CLUSTERS.names} for edge in edges
    ]
    sizes = [row for tables in written for row in tables["cluster_sizes"].to_pylist()]
    assert sizes == [{"doc_id": key(one), "cluster_size": 1 + num} for one, num in sorted(Counter(kept).items())]
    assert all(tables["cluster_sizes"].schema == CLUSTER_SIZES for tables in written)


def test_no_edges_make_no_cluster():
    assert list(Clusters()(iter([]))) == []
