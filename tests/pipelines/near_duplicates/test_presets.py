"""Probabilities of the S-curve as they are printed, and shapes that are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pipelines.errors import RecipeError
from pipelines.near_duplicates.presets import PRESETS, Shape

SIMILARITIES = (0.70, 0.75, 0.80, 0.85)


@pytest.mark.parametrize(
    ("bands", "rows", "percents"),
    [
        (14, 8, (56, 77, 92, 98.8)),  # FineWeb, appendix E.1
        (450, 20, (30, 76, 99.5, 100)),  # RefinedWeb prints 76% at 0.75 and 99.4% at 0.8
        (93, 15, (36, 71, 96, 100)),  # DCLM
    ],
)
def test_s_curve_is_the_printed_one(bands: int, rows: int, percents: tuple[float, ...]) -> None:
    shape = Shape(bands, rows, "word", 5)
    for similarity, percent in zip(SIMILARITIES, percents, strict=True):
        digits = 0 if isinstance(percent, int) else 1
        assert round(100 * shape.probability(similarity), digits) == pytest.approx(percent, abs=0.11)


def test_probability_is_the_formula_up_to_its_ends() -> None:
    for shape in PRESETS.values():
        for similarity in (0.0, 0.1, 0.5, 0.72, 0.9, 0.99, 1.0):
            expected = 1 - (1 - similarity**shape.rows) ** shape.bands
            assert shape.probability(similarity) == pytest.approx(expected, abs=1e-12)
        assert shape.probability(0.0) == 0.0
        assert shape.probability(1.0) == 1.0


def test_presets_are_those_published() -> None:
    assert {name: (shape.bands, shape.rows, shape.unit, shape.ngram) for name, shape in PRESETS.items()} == {
        "fineweb": (14, 8, "word", 5),
        "slimpajama": (9, 13, "word", 13),
        "refinedweb": (450, 20, "word", 5),
        "curator": (20, 13, "character", 24),
    }
    assert PRESETS["refinedweb"].num_hashes == 9_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bands", 0),
        ("bands", 2_001),
        ("rows", 0),
        ("rows", 129),
        ("ngram", 0),
        ("ngram", 65),
        ("seed", -1),
        ("seed", 2**64),
        ("bands", 14.0),
        ("rows", True),
        ("unit", "token"),
    ],
)
def test_refuses_what_no_signature_can_have(name: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=name) as raised:
        dataclasses.replace(PRESETS["fineweb"], **{name: value})
    assert repr(value) in str(raised.value)
    assert "hint:" in str(raised.value)


def test_takes_the_ends_of_the_ranges() -> None:
    assert Shape(2_000, 128, "character", 64, 2**64 - 1).num_hashes == 256_000
    assert Shape(1, 1, "word", 1).num_hashes == 1
