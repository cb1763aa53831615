"""Buckets of words and pairs of words, against Python's own strings; and what hostile texts cost."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.quality_classifier.features import COUNT, TOTAL, SparseRows, list_features, weigh, weigh_rows

BITS = 20
"""The few words of these tests do not share a bucket among so many."""


def column(*texts: str | None) -> pa.Array:
    return pa.array(texts, pa.large_string())


def buckets_of(text: str) -> Counter:
    rows = list_features(column(text), BITS)
    return Counter(dict(zip(rows.buckets.tolist(), rows.counts.tolist(), strict=True)))


def word(text: str) -> int:
    [bucket] = buckets_of(text)
    return bucket


def pair(first: str, second: str) -> int:
    """The bucket that two words have beside their own."""
    [bucket] = buckets_of(f"{first} {second}") - Counter([word(first), word(second)])
    return bucket


def test_words_and_pairs_by_hand():
    expected = Counter([word("the"), word("mill"), word("and"), word("the")])
    expected += Counter([pair("the", "mill"), pair("mill", "and"), pair("and", "the")])
    assert buckets_of("The mill, and the") == expected
    assert len(expected) == 6


def test_only_ascii_case_is_folded():
    assert buckets_of("MILL Wheel") == buckets_of("mill wheel")
    assert buckets_of("ÜBER") != buckets_of("über")
    assert buckets_of("[") != buckets_of("{")  # 0x5B and 0x7B, which differ as "A" and "a" do


def test_a_pair_has_an_order_and_is_no_word():
    assert pair("mill", "wheel") != pair("wheel", "mill")
    assert pair("mill", "wheel") != word("millwheel")


def test_letters_of_scripts_without_spaces_are_words():
    assert buckets_of("水車") == Counter([word("水"), word("車"), pair("水", "車")])


def test_symbol_words_are_words():
    assert buckets_of("mill # mill")[word("#")] == 1


def test_nothing_is_no_feature():
    rows = list_features(column("", " \n", None), BITS)
    assert rows.bounds.tolist() == [0, 0, 0, 0]
    assert weigh(column("", None), np.ones(256, np.int16)).tolist() == [[0, 0], [0, 0]]


texts = st.lists(st.text(st.sampled_from("aB cé\u0301水#.\n\u200b\U000e0fff"), max_size=40), max_size=5)


@given(texts, st.integers(8, 12), st.integers(0, 3))
def test_both_ways_to_weigh_agree(some, bits, seed):
    weights = np.random.default_rng(seed).integers(-32768, 32768, 1 << bits).astype(np.int16)
    sums = weigh(column(*some), weights)
    rows = list_features(column(*some), bits)
    assert sums.tolist() == weigh_rows(rows, weights).tolist()
    for place in range(len(some)):
        own = slice(rows.bounds[place], rows.bounds[place + 1])
        assert (np.diff(rows.buckets[own]) > 0).all()
        assert sums[place, COUNT] == rows.counts[own].sum()
        assert sums[place, TOTAL] == (weights[rows.buckets[own]].astype(int) * rows.counts[own]).sum()


@given(texts, st.integers(0, 5))
def test_rows_taken_and_joined(some, cut):
    whole = list_features(column(*some), 8)
    parts = [list_features(column(*part), 8) for part in (some[:cut], some[cut:])]
    joined = SparseRows.joined(parts)
    every = np.arange(len(whole))
    for one in (joined, whole.take(every), whole.take(every[::-1]).take(every[::-1])):
        for name in ("bounds", "buckets", "counts"):
            assert getattr(one, name).tolist() == getattr(whole, name).tolist()


@pytest.mark.parametrize("chunk", [1, 2, 3, 2047, 2048, 2049, 4097])
def test_pairs_go_over_the_edges_of_chunks(chunk):
    assert buckets_of("mill " * chunk) == Counter(
        {word("mill"): chunk} | ({pair("mill", "mill"): chunk - 1} if chunk > 1 else {})
    )


@pytest.mark.parametrize(
    "piece", ["a", " ", "a ", "\0", "\u202e\u200b", "\U000e0fff\u0378", "e\u0301\u0301", "水", "-"]
)
def test_hostile_texts_cost_linear_time(piece):
    """A text of 4 MB takes no more than 3 times as long as 4 of 1 MB: quadratic would take 4 times as long as that."""
    weights = np.ones(1 << 18, np.int16)
    one = column(piece * (1_000_000 // len(piece.encode())))
    four = column(piece * (4_000_000 // len(piece.encode())))
    weigh(column("warm"), weights)
    times = []
    for text, rounds in ((one, 4), (four, 1)):
        start = time.process_time()
        for _ in range(rounds):
            weigh(text, weights)
        times.append(time.process_time() - start)
    assert times[1] <= 3 * times[0] + 0.05
    assert times[1] < 2
