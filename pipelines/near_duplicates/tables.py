"""The tables that near-deduplication hands from stage to stage, and the states that a document goes through.

A document is *undecided* until it is *kept* or *removed*; those of earlier runs are kept from the start. Rounds of
`group` bring documents together as messages do in a graph: every row of `MESSAGES` has a recipient (`doc_id`).
"""

from __future__ import annotations

import pyarrow as pa

from pipelines.schema import DOC_ID

UNDECIDED, KEPT, REMOVED = 0, 1, 2
"""States. Only undecided and kept ones travel."""

SHINGLES = pa.large_list(pa.field("item", pa.uint64(), nullable=False))
"""A set of 64-bit hashes of shingles, ascending."""

BAND_KEYS = pa.schema(
    [
        pa.field("band_key", DOC_ID, nullable=False),  # hash of the scope, the band and its part of the signature
        pa.field("rank", DOC_ID, nullable=False),  # the total order of documents, with doc_id
        pa.field("doc_id", DOC_ID, nullable=False),
    ]
)
"""One row for each band of a document: documents with one key are proposed to each other."""

MEMBERS = pa.schema(
    [
        *BAND_KEYS,
        pa.field("state", pa.int8(), nullable=False),
        pa.field("proposed", pa.bool_(), nullable=False),  # was compared with all behind it in this bucket
    ]
)
"""The documents of crowded buckets that are not removed, between two rounds."""

SHINGLE_SETS = pa.schema(
    [
        pa.field("doc_id", DOC_ID, nullable=False),
        pa.field("rank", DOC_ID, nullable=False),
        pa.field("shingles", SHINGLES),  # null: this document's set is asked for
    ]
)
WANTED = pa.schema([pa.field("doc_id", DOC_ID, nullable=False)])
"""Documents of this run whose set of shingles is needed: those in some bucket with another one."""

STATE, PRECEDED, MEMBER, PAIR, EDGE, OFFER, NEWS = range(7)
"""Kinds of message, in the order in which a document reads them.

- `STATE`: its own state, and where it may be needed its set of shingles
- `PRECEDED`: another stands before it in some bucket; who never hears so in the first round is kept
- `MEMBER`: its place in a crowded bucket (`band_key`); `blocked`: this bucket does not let it be kept yet
- `PAIR`: offer yourself to `other`, which stands behind you in a bucket
- `EDGE`: tell `other`, which was found similar (`shared` of `total` shingles), what has become of you
- `OFFER`: `other` stands before you, is in `state` and has these `shingles`
- `NEWS`: `other`, which you are similar to, is in `state`
"""

MESSAGES = pa.schema(
    [
        pa.field("doc_id", DOC_ID, nullable=False),
        pa.field("kind", pa.int8(), nullable=False),
        pa.field("other", DOC_ID),
        pa.field("rank", DOC_ID),  # of the recipient, for OFFER and NEWS of the other
        pa.field("state", pa.int8()),
        pa.field("band_key", DOC_ID),
        pa.field("proposed", pa.bool_()),
        pa.field("blocked", pa.bool_()),
        pa.field("shared", pa.int64()),
        pa.field("total", pa.int64()),
        pa.field("place", pa.int32()),  # of the recipient's source in the recipe; null for documents of earlier runs
        pa.field("shingles", SHINGLES),
    ]
)
MESSAGE_ORDER = ("kind",)
MESSAGE_IDENTITY = ("other", "band_key")

NEAR_DUPLICATES = pa.schema(
    [
        pa.field("doc_id", DOC_ID, nullable=False),
        pa.field("kept_doc_id", DOC_ID, nullable=False),  # the kept document that it is similar to
        pa.field("shared", pa.int64(), nullable=False),  # shingles in both
        pa.field("total", pa.int64(), nullable=False),  # shingles in either: shared / total is the Jaccard similarity
        pa.field("place", pa.int32(), nullable=False),  # of its source in the recipe
    ]
)
"""The edge for which a document was removed."""

UNDECIDED_DOCUMENTS = pa.schema([pa.field("doc_id", DOC_ID, nullable=False)])

CHAINS = pa.schema(
    [
        pa.field("chain", DOC_ID, nullable=False),  # zeros: all are brought together
        pa.field("rank", DOC_ID, nullable=False),
        pa.field("doc_id", DOC_ID, nullable=False),
        pa.field("state", pa.int8(), nullable=False),
        pa.field("other", DOC_ID),  # a document before it that it is similar to; null: the row says its state alone
        pa.field("shared", pa.int64()),
        pa.field("total", pa.int64()),
        pa.field("place", pa.int32()),
    ]
)
"""What a round has made of the documents that were undecided, and the edges that are left between them."""

CROWDED = pa.schema(
    [
        pa.field("band_key", DOC_ID, nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("not_compared", pa.int64(), nullable=False),  # pairs that this bucket did not propose
    ]
)
"""Buckets with more documents than may propose, when their proposers were settled."""

CLUSTERS = pa.schema(
    [
        pa.field("cluster_id", DOC_ID, nullable=False),  # doc_id of the kept document
        pa.field("doc_id", DOC_ID, nullable=False),
        pa.field("shared", pa.int64(), nullable=False),
        pa.field("total", pa.int64(), nullable=False),
        pa.field("place", pa.int32(), nullable=False),
    ]
)
"""Every removed document by its cluster."""

CLUSTER_SIZES = pa.schema(
    [
        pa.field("doc_id", DOC_ID, nullable=False),  # the kept document
        pa.field("cluster_size", pa.int64(), nullable=False),  # with the kept one
    ]
)
