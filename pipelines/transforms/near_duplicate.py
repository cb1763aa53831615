"""Near-duplicates as steps of a map: what is looked at (band keys, sets of shingles), and the verdict in the end.

What lies between, who is proposed to whom and who stays, is `pipelines/near_duplicates/`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.near_duplicates.columns import rows_of
from pipelines.near_duplicates.presets import Shape, Unit
from pipelines.near_duplicates.shingles import shingle_sets
from pipelines.near_duplicates.signatures import KEY_BYTES, text_band_keys
from pipelines.near_duplicates.tables import BAND_KEYS, MESSAGES, SHINGLE_SETS, SHINGLES, STATE, UNDECIDED
from pipelines.schema import DOC_ID
from pipelines.transform import Evidence, set_verdict, verdicts
from pipelines.transforms.scope import Scope, scope_hashes

BAND_KEYS_COLUMN, SHINGLES_COLUMN = "band_keys", "shingles"


@dataclasses.dataclass(frozen=True, slots=True)
class BandKeys:
    """Adds the keys of all bands of a document, end to end; null for one without a word, or that is a copy already."""

    name: ClassVar[str] = "band_keys"
    version: ClassVar[int] = 1
    drops: ClassVar[tuple[str, ...]] = ()

    shape: Shape
    scope: Scope = "all"
    duplicates: pa.Table | None = None

    @property
    def adds(self) -> pa.Schema:
        """One column."""
        return pa.schema([pa.field(BAND_KEYS_COLUMN, pa.binary(self.shape.bands * KEY_BYTES))])

    def bind(self, side: Mapping[str, pa.Table]) -> BandKeys:
        """Take the table `duplicates` where there is one: its documents are not looked at."""
        return dataclasses.replace(self, duplicates=side.get("duplicates"))

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Compute the keys of the rows that are looked at."""
        asked = np.ones(batch.num_rows, bool) if self.duplicates is None else ~_is_in(batch, self.duplicates)
        places = pa.array(np.flatnonzero(asked))
        scopes = scope_hashes(batch, self.scope)[asked]
        keys, numbers = text_band_keys(batch.column("text").take(places), self.shape, scopes)
        width = self.shape.bands * KEY_BYTES
        all_keys = pa.Array.from_buffers(pa.binary(width), len(keys), [None, pa.py_buffer(keys)])
        known = np.zeros(batch.num_rows, bool)
        known[asked] = numbers > 0
        column = all_keys.take(pa.array(np.maximum(np.cumsum(asked) - 1, 0), mask=~known))
        return batch.append_column(self.adds.field(0), column)

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """It has no rule."""
        return [[] for _ in range(batch.num_rows)]


def band_key_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a row of `BAND_KEYS` for each band of each document."""
    known = batch.filter(pc.is_valid(batch.column(BAND_KEYS_COLUMN)))
    column = known.column(BAND_KEYS_COLUMN)
    bands, start = column.type.byte_width // KEY_BYTES, column.offset * column.type.byte_width
    num = len(column) * bands
    raw = column.buffers()[1].slice(start, num * KEY_BYTES) if num else pa.py_buffer(b"")
    keys = pa.Array.from_buffers(DOC_ID, num, [None, raw])
    places = pa.array(np.repeat(np.arange(len(column)), bands))
    return rows_of(
        BAND_KEYS,
        num,
        band_key=keys,
        rank=known.column("rank").take(places),
        doc_id=known.column("doc_id").take(places),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class ShingleSets:
    """Adds the set of shingles of every document, or, where it is bound to a table `wanted`, of those in it alone."""

    name: ClassVar[str] = "shingle_sets"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = pa.schema([pa.field(SHINGLES_COLUMN, SHINGLES)])
    drops: ClassVar[tuple[str, ...]] = ()

    unit: Unit
    ngram: int
    wanted: pa.Table | None = None

    def bind(self, side: Mapping[str, pa.Table]) -> ShingleSets:
        """Take the table `wanted` where there is one."""
        return dataclasses.replace(self, wanted=side.get("wanted"))

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Compute the sets."""
        asked = np.ones(batch.num_rows, bool) if self.wanted is None else _is_in(batch, self.wanted)
        offsets, hashes = shingle_sets(
            batch.column("text").take(pa.array(np.flatnonzero(asked))), self.unit, self.ngram
        )
        sizes = np.zeros(batch.num_rows, np.int64)
        sizes[asked] = np.diff(offsets)
        all_offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]))
        sets = pa.LargeListArray.from_arrays(all_offsets, pa.array(hashes), type=SHINGLES, mask=pa.array(~asked))
        return batch.append_column(self.adds.field(0), sets)

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """It has no rule."""
        return [[] for _ in range(batch.num_rows)]


def state_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the state, with its set of shingles, of every document that has one: rows of `MESSAGES`."""
    known = batch.filter(pc.is_valid(batch.column(SHINGLES_COLUMN)))
    num = known.num_rows
    return rows_of(
        MESSAGES, num, doc_id=known.column("doc_id"), kind=pa.array(np.full(num, STATE, np.int8)),
        rank=known.column("rank"), state=pa.array(np.full(num, UNDECIDED, np.int8)), place=known.column("place"),
        shingles=known.column(SHINGLES_COLUMN),
    )  # fmt: skip


def shingle_set_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the sets of all documents, for later runs: rows of `SHINGLE_SETS`."""
    columns = {name: batch.column(name) for name in SHINGLE_SETS.names}
    return rows_of(SHINGLE_SETS, batch.num_rows, **columns)


@dataclasses.dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Drops the documents that a kept one is similar to, and tells kept ones how many they stand for."""

    name: ClassVar[str] = "near_duplicate"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("cluster_id", DOC_ID),  # doc_id of the kept document: its own
            pa.field("cluster_size", pa.int64()),  # documents of the cluster, 1 = it is alone
        ]
    )
    drops: ClassVar[tuple[str, ...]] = ()

    threshold: int
    """In 1/10,000 of Jaccard similarity."""
    edges: pa.Table | None = None
    sizes: pa.Table | None = None

    def bind(self, side: Mapping[str, pa.Table]) -> NearDuplicate:
        """Take the tables `near_duplicates` (edges of removed documents) and `cluster_sizes`."""
        return dataclasses.replace(self, edges=side["near_duplicates"], sizes=side["cluster_sizes"])

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Set the verdict by doc_id and add both columns."""
        if self.edges is None or self.sizes is None:
            raise ValueError("near_duplicate: is not bound to its tables")
        place = _places_in(batch, self.edges)
        failed = np.asarray(place.is_valid())
        edges = self.edges.take(place.drop_null()).to_pylist()
        verdict = verdicts(
            failed,
            [self.name] * len(edges),
            [f"{edge['shared']} of {edge['total']} shingles with {edge['kept_doc_id'].hex()}" for edge in edges],
            [f"< {self.threshold} / 10000"] * len(edges),
            "dropped",
        )
        sizes = self.sizes.column("cluster_size").take(_places_in(batch, self.sizes)).combine_chunks()
        columns = [*set_verdict(batch, verdict).columns, batch.column("doc_id"), pc.fill_null(sizes, 1)]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema([*batch.schema, *self.adds]))

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Say for every row which kept document it is similar to, or how large its cluster is."""
        judged = self(batch)
        found, sizes = judged.column("verdict").to_pylist(), judged.column("cluster_size").to_pylist()
        return [
            [
                Evidence(
                    self.name,
                    verdict["value"] if verdict else f"cluster of {size}",
                    f"< {self.threshold} / 10000",
                    not verdict,
                )
            ]
            for verdict, size in zip(found, sizes, strict=True)
        ]


def _places_in(batch: pa.RecordBatch, table: pa.Table) -> pa.Array:
    """Return the place of every document in a table, null where it is not in it."""
    return pc.index_in(batch.column("doc_id"), value_set=table.column("doc_id").combine_chunks())


def _is_in(batch: pa.RecordBatch, table: pa.Table) -> np.ndarray:
    return np.asarray(_places_in(batch, table).is_valid())
