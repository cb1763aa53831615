"""The search against plain Python: words, weights, scores, and what must be found."""

from __future__ import annotations

import math
import random
import unicodedata
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import GERMAN, PROSE

from pipelines.contamination.prepared import (
    LONG,
    MAX_POSTINGS,
    NGRAM,
    RATIO,
    SHORT,
    THRESHOLD,
    Prepared,
    prepare,
    read_words,
    required,
    weight,
)
from pipelines.contamination.search import END, ITEM, MAX_HITS, ROW, SCORE, START, search
from pipelines.near_duplicates.shingles import code_point_forms, shingle_sets
from pipelines.transforms.words import text_view

WORDS = [f"{a}{b}{c}" for a in "bdfg" for b in ("ai", "o", "u", "ee") for c in ("l", "m", "n", "r", "st", "nd", "mp")]
HOSTILE = st.text(st.sampled_from([*"aZé ´'-\n.1٣\u0301水ไ\u200bß", "\U0001d7ce"]), max_size=40)


def column(*texts: str) -> pa.Array:
    return pa.array(texts, pa.large_string())


def prepared(*questions: str, sets: str = "s", threshold: int = THRESHOLD) -> Prepared:
    return prepare(column(*(f"{sets}:{place}" for place in range(len(questions)))), column(*questions), threshold)


def found(index: Prepared, *texts: str) -> list[list[int]]:
    return search(*text_view(column(*texts)), code_point_forms(), index).tolist()


def spans(text: str) -> list[tuple[int, int, int]]:
    offsets, data = text_view(column(text))
    return [
        tuple(row) for row in read_words(data, int(offsets[0]), int(offsets[1]), code_point_forms(), 1 << 40).tolist()
    ]


def plain_words(text: str) -> list[str]:
    """Words of letters and digits of scripts with spaces, folded; marks are as if they were not there."""
    words, inside = [], False
    for letter in text:
        kind = unicodedata.category(letter)[0]
        if kind in "LN":
            base = unicodedata.normalize("NFKD", letter.lower())[0]
            words[-1:] = [words[-1] + base] if inside else [*words[-1:], base]
        inside = kind in "LN" or (inside and kind == "M")
    return words


@settings(max_examples=200, deadline=None)
@given(text=HOSTILE)
def test_words_are_those_of_the_shingles(text):
    """n-grams of the words' hashes, for n = 1, are the word shingles of `near_duplicates`."""
    offsets, hashes = shingle_sets(column(text), "word", 1)
    words = spans(text)
    index_of = prepared(text)
    assert index_of.words.tolist() == [word for *_, word in words]
    from pipelines.near_duplicates.shingles import finish

    assert sorted({int(finish(np.uint64(word & (2**64 - 1)))) for *_, word in words}) == hashes.tolist()
    assert int(offsets[1]) == len({word for *_, word in words})
    encoded = text.encode()
    ends = 0
    for start, stop, _ in words:
        assert ends <= start < stop <= len(encoded)
        encoded[start:stop].decode()
        ends = stop


@pytest.mark.parametrize("text", [PROSE, GERMAN, "e\u0301té, ÉTÉ; x1 y", ""])
def test_equal_words_are_equal_hashes_and_the_spans_are_theirs(text):
    words = spans(text)
    cut = [text.encode()[start:stop].decode() for start, stop, _ in words]
    assert ["".join(plain_words(word)) for word in cut] == plain_words(text)
    by_word = {}
    for word, (_, _, hashed) in zip(plain_words(text), words, strict=True):
        assert by_word.setdefault(word, hashed) == hashed
    assert len(set(by_word.values())) == len(by_word)


@pytest.mark.parametrize("items", [1, 2, 3, 41, 974, 14_042])
def test_weights_are_logarithms(items):
    for holders in {1, items, (items + 1) // 2}:
        exact = 16 * math.log2(1 + items / holders)
        assert weight(items, holders) == math.floor(exact + 1e-9)
    assert weight(974, 1) == 158
    assert weight(items, items) == 16


def test_what_is_required_falls_with_the_length():
    assert [required(num, 8_000) for num in (1, 9, 10, 15, 20, 2_048)] == [10_000, 10_000, 8_500, 8_250, 8_000, 8_000]
    assert [required(num, 10_000) for num in (9, 10, 99)] == [10_000] * 3


def test_words_of_a_template_weigh_little():
    """Three items share six words: the n-grams in them are of all three (weight 16), all others of one (32)."""
    stem = "one two three four five six"
    index = prepared(*(f"{stem} {tail}" for tail in ("a b c d", "e f g h", "i j k l")))
    assert index.weights[: index.offsets[1]].tolist() == [16] * 6 + [32] * 4
    assert index.totals.tolist() == [224] * 3


def made(draw: random.Random, num: int) -> list[str]:
    return draw.choices(WORDS, k=num)


def aligned(item: list[str], weights: list[int], text: list[str]) -> int:
    """Return the weight of the heaviest common subsequence, without a bound on how words are shifted."""

    @cache
    def best(i: int, j: int) -> int:
        if i == len(item) or j == len(text):
            return 0
        skipped = max(best(i + 1, j), best(i, j + 1))
        return max(skipped, weights[i] + best(i + 1, j + 1)) if item[i] == text[j] else skipped

    return best(0, 0)


@pytest.mark.parametrize("seed", range(40))
def test_scores_are_those_of_the_best_alignment(seed):
    """Items of 8 to 60 words, one word in ten replaced from 10 words on, in prose: found, where they stand, with the
    score of the best alignment of the item and the span."""
    draw = random.Random(seed)
    questions = [made(draw, draw.randint(8, 60)) for _ in range(30)]
    index = prepared(*map(" ".join, questions))
    for place, question in enumerate(questions):
        words = list(question)
        for k in draw.sample(range(len(words)), len(words) // 10):
            words[k] = "millstone"
        before, behind = made(draw, draw.randint(0, 30)), made(draw, draw.randint(0, 30))
        text = " ".join([*before, "#", *words, "#", *behind])
        hits = [hit for hit in found(index, text) if hit[ITEM] == place]
        weights = index.weights[index.offsets[place] : index.offsets[place + 1]].tolist()
        kept = sum(one for one, word in zip(weights, words, strict=True) if word != "millstone")
        if kept * RATIO < required(len(words), THRESHOLD) * sum(weights):
            continue  # so short that the words replaced weigh too much
        (hit,) = hits
        span = text.encode()[hit[START] : hit[END]].decode().split()
        best = aligned(question, weights, [word for word in span if word != "#"])
        assert hit[SCORE] == best * RATIO // sum(weights)
        assert best >= kept
        assert span[0] == next(word for word in words if word != "millstone") or best > kept


def test_items_that_must_be_whole_are():
    draw = random.Random(0)
    for num in (8, 9):
        question = made(draw, num)
        index = prepared(" ".join(question))
        assert [hit[SCORE] for hit in found(index, " ".join(question))] == [RATIO]
        for k in range(num):
            changed = [*question[:k], "millstone", *question[k + 1 :]]
            assert found(index, " ".join(changed)) == []


def test_scattered_words_are_not_found():
    draw = random.Random(1)
    question = made(draw, 60)
    index = prepared(" ".join(question))
    halves = [*question[:30], *made(draw, 40), *question[30:]]
    assert found(index, " ".join(halves)) == []
    near = [*question[:30], *made(draw, 5), *question[30:]]
    assert [hit[SCORE] for hit in found(index, " ".join(near))] == [RATIO]


def test_an_item_that_comes_twice_is_found_twice():
    draw = random.Random(2)
    question = " ".join(made(draw, 12))
    index = prepared(question)
    hits = found(index, f"{question} and {question}", "", question.upper())
    size = len(question)
    assert [hit[:3] for hit in hits] == [[0, 0, size], [0, size + 5, 2 * size + 5], [2, 0, size]]


def test_an_ngram_of_many_items_is_no_seed():
    draw = random.Random(3)
    stem = " ".join(made(draw, NGRAM))
    index = prepared(*(f"{stem} {' '.join(made(draw, 7))}" for _ in range(MAX_POSTINGS + 1)))
    assert (index.postings[:, 1] > 0).all()
    few = prepared(*(f"{stem} {' '.join(made(draw, 7))}" for _ in range(MAX_POSTINGS)))
    assert (few.postings[:, 1] == 0).sum() == MAX_POSTINGS


def test_an_item_that_repeats_itself():
    index = prepared("ha " * 500, "the mill " * 20 + "stands by the river")
    assert all(stop - start <= MAX_POSTINGS for start, stop in index.places.tolist())
    (hit,) = found(index, "ha " * 500)  # begun some words too early or too late: all of its words are alike
    assert hit[SCORE] >= required(500, THRESHOLD)
    assert found(index, "ho " * 500) == []


@pytest.mark.parametrize(
    "text", ["ha " * 100_000, "a b c d e " * 40_000, "水" * 60_000, "x" * 1_000_000, "- " * 500_000]
)
def test_hostile_texts_cost_no_more_than_their_length(text):
    """CPU time grows with the text and not with its square: four times the text, at most eight times the time."""
    import time

    draw = random.Random(4)
    index = prepared("ha " * 2_000, "a b c d e " * 300, "水" * 1_000, *(" ".join(made(draw, 20)) for _ in range(50)))

    def seconds(part: str) -> float:
        start = time.process_time()
        found(index, part)
        return time.process_time() - start

    seconds(text[:1_000])
    quarter = min(seconds(text[: len(text) // 4]) for _ in range(3))
    assert seconds(text) < 8 * quarter + 0.2


def test_a_text_with_more_seeds_than_are_looked_at_together():
    """What is found behind the first look has the same words and places: the words are read once for all looks."""
    item = " ".join(made(random.Random(5), 16))
    index = prepared(item)
    times = 2 * MAX_HITS // int((index.postings[:, 0] == 0).sum())
    hits = found(index, f"{item}. " * times)
    assert [hit[START] for hit in hits] == [place * (len(item) + 2) for place in range(times)]
    assert {hit[END] - hit[START] for hit in hits} == {len(item)}


def test_lengths():
    assert NGRAM < SHORT < LONG
    assert ROW == 0
