"""How many hashes a signature has, how they are cut into bands, and the shapes that others have published.

Two documents become a candidate pair if all rows of at least one band agree. With Jaccard similarity s this happens
with probability `1 - (1 - s^rows)^bands`: the S-curve.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

from pipelines.errors import RecipeError

Unit = Literal["word", "character"]

MOST_BANDS, MOST_ROWS, MOST_NGRAM = 2_000, 128, 64


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """Shape of a signature: `bands` times `rows` hashes of shingles of `ngram` units (`shingles.py`).

    `seed` chooses the hash functions. Raises `RecipeError` for numbers out of range.
    """

    bands: int
    rows: int
    unit: Unit
    ngram: int
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no signature can have."""
        for name, value, most in (("bands", self.bands, MOST_BANDS), ("rows", self.rows, MOST_ROWS)):
            _check_number(name, value, 1, most)
        _check_number("seed", self.seed, 0, 2**64 - 1)
        check_shingles(self.unit, self.ngram)

    @property
    def num_hashes(self) -> int:
        """Hashes of a signature."""
        return self.bands * self.rows

    def probability(self, similarity: float) -> float:
        """Return how likely two sets of this Jaccard similarity (0 to 1) are to share a band."""
        agreeing = similarity**self.rows
        return 1.0 if agreeing >= 1.0 else -math.expm1(self.bands * math.log1p(-agreeing))


def check_shingles(unit: str, ngram: int) -> None:
    """Raise `RecipeError` for a unit or an n that no shingle can have."""
    if unit not in get_args(Unit):
        raise RecipeError(f"unit of shingles: {unit!r}\nhint: give {' or '.join(get_args(Unit))}")
    _check_number("ngram", ngram, 1, MOST_NGRAM)


def _check_number(name: str, value: int, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise RecipeError(f"{name} of a MinHash shape: {value!r}\nhint: give a whole number from {least} to {most}")


PRESETS: Mapping[str, Shape] = MappingProxyType(
    {
        "fineweb": Shape(14, 8, "word", 5),
        "slimpajama": Shape(9, 13, "word", 13),
        "refinedweb": Shape(450, 20, "word", 5),
        "curator": Shape(20, 13, "character", 24),
    }
)
"""Published shapes; words, normal form and hash functions are ours.

- fineweb: Penedo et al. 2024 (arXiv 2406.17557), appendix E.1, where the S-curve is printed too.
- slimpajama: 13-grams at a threshold of 0.8 (Cerebras, SlimPajama 2023); 9 x 13 are the 0.8 of RedPajama v2 and TxT360.
- refinedweb: Penedo et al. 2023 (arXiv 2306.01116), appendix G.3.1: 9,000 hashes. The text says 20 buckets of 450;
  only 450 bands of 20 rows have the probabilities printed there.
- curator: NeMo Curator's defaults, characters in the place of words.
"""
