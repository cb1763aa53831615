"""Hashes of whole texts in their normal form (`shingles.py`): equal for texts of the same words in the same order."""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa

from pipelines.near_duplicates.columns import keys_of
from pipelines.near_duplicates.shingles import MOST_NGRAM, UNITS, code_point_forms, finish, read_word_units
from pipelines.transforms.murmur3 import finish_hash, hash_128, hash_block
from pipelines.transforms.words import text_view

WITH_WORDS, WITHOUT_WORDS = 1, 2
"""Seeds: a text without a word is hashed as it is, and is never the same as one with words."""


def normal_text_hashes(text: pa.Array) -> pa.Array:
    """Return 128-bit hashes of a `large_string` column, as 16-byte keys; null is read as empty."""
    offsets, data = text_view(text)
    hashes = np.empty((len(text), 2), np.uint64)
    _hash_texts(offsets, data, code_point_forms(), hashes)
    return keys_of(hashes.astype(">u8").view(np.uint8).reshape(-1, 16))


@numba.njit(nogil=True, cache=True)
def _hash_texts(offsets: np.ndarray, data: np.ndarray, forms: np.ndarray, hashes: np.ndarray) -> None:
    units = np.zeros(UNITS, np.uint64)
    for row in range(len(offsets) - 1):
        at, end, num = offsets[row], offsets[row + 1], 0
        high, low = np.uint64(WITH_WORDS), np.uint64(WITH_WORDS)
        while at < end:
            found, at = read_word_units(data, at, end, forms, units)
            for k in range(MOST_NGRAM, MOST_NGRAM + found):
                word = units[np.uint64(k)]
                high, low = hash_block(high, low, word, finish(word))
            num += found
        if num:
            hashes[row, 0], hashes[row, 1] = finish_hash(high, low, 16 * num)
        else:
            hashes[row, 0], hashes[row, 1] = hash_128(data, offsets[row], end, np.uint64(WITHOUT_WORDS))
