"""Canary items: texts that nobody wrote, the same in every index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pipelines.contamination.index import CANARY_SET
from pipelines.contamination.items import Item

LENGTHS = (9, 16, 40, 120)
"""Words of each canary: one that must be found whole, and longer ones."""
SYLLABLES = [
    "ba",
    "de",
    "fi",
    "go",
    "hu",
    "ja",
    "ke",
    "li",
    "mo",
    "nu",
    "pa",
    "qe",
    "ri",
    "so",
    "tu",
    "va",
    "we",
    "xi",
    "yo",
    "zu",
]
SEED = b"headrace canary 1"
WORDS_PER_SENTENCE = 8


def canary_items() -> list[Item]:
    """Return the canaries, in the order of `LENGTHS`."""
    return [
        Item(f"{CANARY_SET}:{place}", " ".join(_sentences(place, length)), "") for place, length in enumerate(LENGTHS)
    ]


def _sentences(place: int, length: int) -> Iterator[str]:
    words = [_word(place, number) for number in range(length)]
    for start in range(0, length, WORDS_PER_SENTENCE):
        yield " ".join(words[start : start + WORDS_PER_SENTENCE]).capitalize() + "."


def _word(place: int, number: int) -> str:
    """Return a word of three to five syllables, chosen by a hash."""
    digest = hashlib.sha256(SEED + bytes([place, number])).digest()
    return "".join(SYLLABLES[byte % len(SYLLABLES)] for byte in digest[: 3 + digest[-1] % 3])
