"""Which documents are held out for validation: those whose keyed hash falls below a share of the hash's range.

The hash is of the document itself (its id, or its host, so that whole sites are held out together) and of a key, never
of a position; so the same documents are held out whatever is planned, packed or added later. Pure arrays.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Literal

import numba
import numpy as np
import pyarrow as pa
import xxhash

from mixtures.order import mixed
from tokenizer.columns import big_endian_pairs, one_chunk

Column = Literal["doc_id", "host"]


@dataclasses.dataclass(frozen=True, slots=True)
class Validation:
    """The rule: hold out `share` (numerator, denominator) of the values of `column`, chosen by `key`."""

    column: Column
    key: str
    share: tuple[int, int]

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        numerator, denominator = self.share
        if not 0 < numerator < denominator:
            raise ValueError(f"share {numerator}/{denominator}: is allowed between 0 and 1, both excluded")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a shard's document table that `held_out` needs."""
        return ("doc_id",) if self.column == "doc_id" else ("doc_id", self.column)

    def held_out(self, docs: pa.Table) -> np.ndarray:
        """Return which rows of a shard's document table are held out (bool, shape (rows,)).

        A row without a host goes by its doc_id.
        """
        high, low = big_endian_pairs(one_chunk(docs.column("doc_id")))
        if self.column == "host":
            _put_hashes(one_chunk(docs.column("host")), high, low)
        first, second = np.frombuffer(hashlib.blake2b(self.key.encode(), digest_size=16).digest(), "<u8")
        numerator, denominator = self.share
        bound = np.uint64(-(-(numerator << 64) // denominator) - 1)
        return _below(high, low, first, second, bound)


def _put_hashes(column: pa.Array, high: np.ndarray, low: np.ndarray) -> None:
    """Replace the halves of the rows that are not null by those of xxh3_128 of the value (UTF-8)."""
    encoded = column.dictionary_encode()
    digests = b"".join(xxhash.xxh3_128_digest(value.encode()) for value in encoded.dictionary.to_pylist())
    halves = np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)
    present = column.is_valid().to_numpy(zero_copy_only=False)
    places = encoded.indices.drop_null().to_numpy()
    high[present], low[present] = halves[places, 0], halves[places, 1]


@numba.njit(nogil=True, cache=True)
def _below(high, low, first, second, bound):  # type: ignore[no-untyped-def]
    """Return whether the keyed hash of each pair is at most `bound`."""
    chosen = np.empty(len(high), np.bool_)
    for row in range(len(high)):
        chosen[row] = mixed(mixed(high[row] ^ first) + (low[row] ^ second)) <= bound
    return chosen
