"""A few fixed phrases looked for in a text at once, ASCII case aside."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numba
import numpy as np

from pipelines.transforms.words import byte_at

COMMON = b" etaoinshrdlcumwfgypbvkjxqz"
"""Characters, the most frequent in English first: a phrase is looked for where its rarest one is."""

PhraseArrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, slots=True)
class Phrases:
    """Up to 63 phrases as arrays that a kernel reads; phrase k of those given has bit k."""

    text: np.ndarray
    """Their bytes one after another, uint8."""
    offsets: np.ndarray
    anchors: np.ndarray
    """Where in each its rarest character stands."""
    bits: np.ndarray
    heads: np.ndarray
    """Phrases whose rarest character is b: those from `heads[b]` to `heads[b + 1]`."""
    is_anchor: np.ndarray
    """Whether a byte is, ASCII case aside, the rarest character of any: bool, shape (256,)."""

    @classmethod
    def of(cls, phrases: Sequence[str]) -> Phrases:
        """Prepare lower-case ASCII phrases."""
        encoded = [phrase.encode("ascii") for phrase in phrases]
        anchors = [max(range(len(one)), key=lambda place, one=one: COMMON.find(one[place])) for one in encoded]  # type: ignore[misc]
        letters = [one[anchor] for one, anchor in zip(encoded, anchors, strict=True)]
        order = sorted(range(len(encoded)), key=lambda k: letters[k])
        heads = np.searchsorted(np.array([letters[k] for k in order]), np.arange(257))
        return cls(
            np.frombuffer(b"".join(encoded[k] for k in order), np.uint8),
            np.cumsum([0, *(len(encoded[k]) for k in order)]).astype(np.int64),
            np.array([anchors[k] for k in order], np.int64),
            np.array([1 << k for k in order], np.int64),
            heads.astype(np.int64),
            np.array([lowered.py_func(byte) in letters for byte in range(256)]),
        )

    @property
    def arrays(self) -> PhraseArrays:
        """The arrays in the order in which `find_phrases` takes them."""
        return self.text, self.offsets, self.anchors, self.bits, self.heads, self.is_anchor


@numba.njit(nogil=True, cache=True)
def find_phrases(data: np.ndarray, start: int, stop: int, phrases: PhraseArrays) -> int:
    """Return the bits of the phrases that occur in `data[start:stop]`."""
    text, offsets, anchors, bits, heads, is_anchor = phrases
    found = 0
    for place in range(start, stop):
        if not is_anchor[data[place]]:
            continue
        letter = lowered(byte_at(data, place))
        for k in range(heads[letter], heads[letter + 1]):
            first = place - anchors[k]
            size = offsets[k + 1] - offsets[k]
            if first >= start and first + size <= stop and matches(data, first, text, offsets[k], size):
                found |= bits[k]
    return found


@numba.njit(nogil=True, cache=True, inline="always")
def lowered(byte: int) -> int:
    """Return an ASCII letter in lower case, every other byte as it is."""
    return byte + 32 if 65 <= byte <= 90 else byte


@numba.njit(nogil=True, cache=True)
def matches(data: np.ndarray, at: int, text: np.ndarray, first: int, size: int) -> bool:
    """Whether `size` bytes from `data[at]` on are those of the lower-case `text[first]` on, but for ASCII case."""
    k = 0
    while k < size and lowered(byte_at(data, at + k)) == text[first + k]:
        k += 1
    return k == size
