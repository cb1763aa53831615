"""The scope of deduplication: among which documents copies are looked for."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

Scope = Literal["all", "source", "language", "dump"]
"""All documents together, or those of one source, one language or one dump apart from those of the others."""

DUMP = r"(?P<dump>CC-MAIN-\d{4}(?:-\d{2,4})+)"
"""How CommonCrawl names a dump in the paths of its files: CC-MAIN-2024-10, CC-MAIN-2009-2010."""
_UNKNOWN = xxhash.xxh3_64_intdigest(b"\xff")
"""The hash of null: that of a byte that no value has, as values are UTF-8."""


def scope_hashes(batch: pa.RecordBatch, scope: Scope) -> np.ndarray:
    """Return what is mixed into the hashes of a row, so that they are equal within one scope only: uint64, (rows,).

    It is xxh3_64 of the row's value in the column that the scope names, and 0 for "all". Rows without a value are one
    scope of their own. The dump is what the path of the record says.
    """
    if scope == "all":
        return np.zeros(batch.num_rows, np.uint64)
    values = _dumps(batch) if scope == "dump" else batch.column(scope).dictionary_encode()
    hashes = [_UNKNOWN, *(xxhash.xxh3_64_intdigest(value) for value in values.dictionary.to_pylist())]
    places = values.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return np.array(hashes, np.uint64)[places + 1]


def _dumps(batch: pa.RecordBatch) -> pa.DictionaryArray:
    """Return the dump of every row, null where its path does not tell it."""
    paths = batch.column("origin_path").dictionary_encode()
    found = pc.struct_field(pc.extract_regex(paths.dictionary, DUMP), "dump")
    return found.take(paths.indices).dictionary_encode()
