"""Scores in integers, worked out by hand; and files that are none, damaged or hostile."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import HeadraceError
from pipelines.quality_classifier.features import list_features
from pipelines.quality_classifier.model import LOGIT_ONE, MAGIC, QualityModel, logistic_table


def column(*texts: str | None) -> pa.Array:
    return pa.array(texts, pa.large_string())


def model_of(weight: int, scale: int = 100, bias: int = 0) -> QualityModel:
    """A model in which every feature has the same weight."""
    return QualityModel(np.full(256, weight, np.int16), scale, bias, {})


@pytest.mark.parametrize(
    ("text", "weight", "bias", "score"),
    [
        ("mill", 0, 0, 5000),  # log-odds 0: 1/2
        ("mill", 100, 0, 7311),  # 100 / (sqrt(1) * 100) = 1: 1 / (1 + e^-1) = 0.73106
        ("mill", -100, 0, 2689),
        # 5 features, root floor(1024 * 2.23607) = 2289; floor(500 * 2**20 / (2289 * 100)) = 2290; 2290 / 1024: 0.90346
        ("mill wheel mill", 100, 0, 9035),
        ("mill", 0, 1024, 7311),
        ("mill", 32767, 0, 10_000),
        ("mill", -32767, 0, 0),
        ("", 100, 1024, 0),  # nothing to judge
        (None, 100, 1024, 0),
        ("\u200b\n", 0, 0, 5000),  # a symbol word
    ],
)
def test_scores_by_hand(text, weight, bias, score):
    assert model_of(weight, bias=bias).scores(column(text)).tolist() == [score]


@given(st.text(), st.integers(-500, 500), st.integers(1, 1000), st.integers(-2000, 2000))
def test_scores_are_near_the_formula(text, weight, scale, bias):
    model = model_of(weight, scale, bias)
    count = int(list_features(column(text), 8).counts.sum())
    [score] = model.scores(column(text))
    if count == 0:
        assert score == 0
        return
    logit = bias / LOGIT_ONE + weight * count / scale / math.sqrt(count)
    # the two divisions that round down are 2 steps of 1/1024 at most, at a slope of at most 1/4
    assert abs(score - 10_000 / (1 + math.exp(-max(-12.0, min(12.0, logit))))) <= 10_000 / 4 * 2 / 1024 + 1


def test_a_text_of_ten_million_words_does_not_overflow():
    text = column("a b " * 5_000_000)
    assert model_of(32767, 1).scores(text).tolist() == [10_000]
    assert model_of(-32767, 1).scores(text).tolist() == [0]


def test_no_entry_of_the_table_is_near_a_tie():
    """So that a last bit of `exp` that another library rounds otherwise changes no entry."""
    table = logistic_table()
    assert (np.diff(table) >= 0).all()
    assert (table[0], table[len(table) // 2], table[-1]) == (0, 5000, 10_000)
    exact = 10_000 / (1 + np.exp(-np.arange(-12 * LOGIT_ONE, 12 * LOGIT_ONE + 1) / LOGIT_ONE))
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-9


def test_weights_are_rounded_to_what_fits():
    model = QualityModel.rounded(np.array([0.5, -1.0, 0.0] + [0.0] * 253), 0.25, {})
    assert model.scale == 32767
    assert model.weights[:3].tolist() == [16384, -32767, 0]  # 16383.5 to even
    assert model.bias == 256
    assert QualityModel.rounded(np.full(256, 1e9), 1e9, {}).bias == 12 * LOGIT_ONE
    assert QualityModel.rounded(np.zeros(256), 0.0, {}).scale == 1


def test_a_packed_model_is_the_same():
    model = model_of(-7, 30, 12)
    again = QualityModel.unpack(model.pack(), "file")
    assert again.weights.tolist() == model.weights.tolist()
    assert (again.scale, again.bias, again.about, again.bits) == (30, 12, {}, 8)
    assert again.pack() == model.pack()


def sealed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def with_header(weights: bytes = b"\0\0" * 256, **changed: object) -> bytes:
    header = {"features": 1, "bits": 8, "scale": 1, "bias": 0, "about": {}} | changed
    encoded = json.dumps(header).encode()
    return sealed(MAGIC + len(encoded).to_bytes(4, "little") + encoded + weights)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "does not begin like one"),
        (b"PK\x03\x04" * 100, "does not begin like one"),
        (model_of(1).pack()[:-1], "damaged or cut short"),
        (model_of(1).pack().replace(b"\1\0\1", b"\1\1\1", 1), "damaged or cut short"),
        (sealed(MAGIC + b"\xff\xff\xff\xff" + b"x" * 100), "header is too long"),
        (sealed(MAGIC + b"\x10\0\0\0" + b"x" * 8), "header is too long"),
        (sealed(MAGIC + b"\x02\0\0\0" + b"[]" + b"\0\0" * 256), "header is damaged"),
        (sealed(MAGIC + b"\x04\0\0\0" + b"[[[[" + b"\0\0" * 256), "header is damaged"),
        (with_header(bits="8"), "header is damaged"),
        (with_header(scale=True), "header is damaged"),
        (with_header(about=None), "header is damaged"),
        (with_header(features=99), "features of version 99"),
        (with_header(bits=9), "512 bytes of weights for 9 bits"),
        (with_header(bits=1 << 40), "bytes of weights for"),
        (with_header(b"", bits=-1), "bytes of weights for"),
        (with_header(scale=0), "out of range"),
        (with_header(bias=1 << 60), "out of range"),
    ],
)
def test_what_is_no_model_is_refused(content, cause):
    with pytest.raises(
        HeadraceError, match=r"quality\.bin: is no model.*\nhint: run headrace train-classifier"
    ) as error:
        QualityModel.unpack(content, "quality.bin")
    assert cause in str(error.value)
