"""The Gopher repetition rules: golden counts by hand, an oracle in plain Python, and texts beyond what is looked at."""

from __future__ import annotations

from collections import Counter

import numpy as np
import plain_text
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_text import BROKEN, HOSTILE, TEXTS, bytes_column, column, given_words, real_texts, text_batch

from pipelines.transforms.gopher_repetition import (
    DUPLICATE,
    LINE_CHARACTERS,
    N_GRAMS,
    NUM_STATISTICS,
    TOP,
    WORD_CHARACTERS,
    GopherRepetition,
    _count_lines,
    _count_n_grams,
    _take_given_words,
    _take_words,
    statistics,
)
from pipelines.transforms.hashing import table_size
from pipelines.transforms.spans import CHUNK
from pipelines.transforms.words import code_point_classes


def expected(text: str, *, given: bool = False) -> list[int]:
    """Return the statistics by the docstring. `given`: another tokenizer's words, one character between any two."""
    lines, paragraphs = [line.text for line in plain_text.lines(text)], plain_text.paragraphs(text)
    again = [line for place, line in enumerate(lines) if line in lines[:place]]
    paragraphs_again = [one for place, one in enumerate(paragraphs) if one in paragraphs[:place]]
    stats = [len(lines), len(again), sum(map(len, again)), len(paragraphs), len(paragraphs_again)]
    stats += [sum(len("\n".join(one)) for one in paragraphs_again), len(text), len(text)]
    words = plain_text.words(text)
    says = [(word.text, word.kind) for word in words]
    for n in TOP:
        grams = [tuple(says[k : k + n]) for k in range(len(says) - n + 1)]
        if not grams:
            stats.append(0)
            continue
        counts = Counter(grams)
        most = max(counts.values())
        top = next(gram for gram in grams if counts[gram] == most)
        joins = sum(given or "unspaced" not in (a[1], b[1]) for a, b in zip(top, top[1:], strict=False))
        stats.append(most * (sum(len(word) for word, _ in top) + joins))
    for n in DUPLICATE:
        seen, characters, at = set(), 0, 0
        while at + n <= len(says):
            gram = tuple(says[at : at + n])
            if gram in seen:
                characters += sum(len(word) for word, _ in gram)
                at += n
            else:
                seen.add(gram)
                at += 1
        stats.append(characters)
    return stats


# text -> the statistics, worked out by hand
GOLDEN = {
    # 3 lines, the third is the first again (3 characters); one paragraph; 11 characters. 6 words: "a b" occurs twice,
    # 2 * (1 + 1 + 1); 3-grams once each, the first is "a b c" = 5; 4-grams: "a b c d" = 7; longer ones only once
    "a b\nc d\na b": [3, 1, 3, 1, 0, 0, 11, 11, 6, 5, 7, 0, 0, 0, 0, 0, 0],
    # paragraphs: "x y" (2 lines), "z", "x y" again: 2 lines again (2 characters), paragraph of x, a break, y = 3.
    # 5 words x y z x y: "x y" twice = 6; "x y z" = 5; "x y z x" = 7; the only 5-gram is new; 10 characters
    "x\ny\n\nz\n\nx\ny": [5, 2, 2, 3, 1, 3, 11, 11, 6, 5, 7, 0, 0, 0, 0, 0, 0],
    # 12 words "a": "a a" occurs 11 times * 3; 10 * 5; 9 * 7. 5-grams: new at 0, again at 1 to 5, 6 to 10, then one
    # word is left: 10 characters; 6: at 0 new, 1 to 6, then five are left: 6; 7, 8, 9, 10: once each; 23 characters
    "a a a a a a a a a a a a": [1, 0, 0, 1, 0, 0, 23, 23, 33, 50, 63, 10, 6, 7, 8, 9, 10],
    # letters of Han have nothing between them, and none stands beside them: 水火 twice = 4, 水火水 = 3, all four = 4
    "水火水火": [1, 0, 0, 1, 0, 0, 4, 4, 4, 3, 4, 0, 0, 0, 0, 0, 0],
    "ab 水 ab 水": [1, 0, 0, 1, 0, 0, 9, 9, 2 * 3, 5, 6, 0, 0, 0, 0, 0, 0],
    # case tells words apart: "The the" once each; blank lines are no lines, their characters count
    "The the \n \n\t": [1, 0, 0, 1, 0, 0, 12, 12, 7, 0, 0, 0, 0, 0, 0, 0, 0],
    "": [0] * 17,
}


@pytest.mark.parametrize("text", GOLDEN)
def test_golden(text):
    assert statistics(column([text]))[0].tolist() == GOLDEN[text] == expected(text)


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3))
@example(["\r\n\r\na\r\n\r\n\r\na"])
def test_statistics_are_those_of_python(texts):
    assert statistics(column(texts)).tolist() == [expected(text) for text in texts]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c d", "\n", "\n\n"]), max_size=70).map(" ".join))
def test_n_grams_that_come_again(text):
    """Few words, so that n-grams of each length come again, also overlapping."""
    assert statistics(column([text]))[0].tolist() == expected(text)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=3))
def test_given_words_count_as_ours(texts):
    assert statistics(column(texts), given_words(texts)).tolist() == [expected(text, given=True) for text in texts]


def test_given_words_in_chunks():
    """More words than are read at once, each other, so that what is read twice would be told."""
    texts = ["".join(f"w{k} " for k in range(3 * CHUNK + 5)), "".join(f"w{k} " for k in range(CHUNK))]
    ours = statistics(column(texts))
    assert statistics(column(texts), given_words(texts)).tolist() == ours.tolist()
    assert ours[:, N_GRAMS + len(TOP) :].tolist() == [[0] * len(DUPLICATE)] * 2


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts(name):
    assert statistics(column([HOSTILE[name]]))[0].tolist() == expected(HOSTILE[name])


def test_broken_texts():
    whole = statistics(bytes_column(BROKEN))
    assert whole.tolist() == [statistics(bytes_column([row]))[0].tolist() for row in BROKEN]


@pytest.mark.skipif(not real_texts(1), reason="needs ../shared/data")
def test_real_documents():
    texts = real_texts(100)
    assert statistics(column(texts)).tolist() == [expected(text) for text in texts]


@pytest.mark.parametrize("most", [1, 2, 3, 7, CHUNK, CHUNK + 1])
@pytest.mark.parametrize("given", [False, True])
def test_words_beyond_the_most(most, given):
    """The n-grams are those of the first words, and the text ends with the last of these."""
    text = "".join(f"w{k % 5} é " for k in range(CHUNK))
    kept = plain_text.words(text)[:most]
    data = np.frombuffer(bytearray(text.encode()), np.uint8)
    words, hashes = np.empty((CHUNK + 1, 5), np.int64), np.empty(most, np.int64)
    sums, joins = np.empty(most + 1, np.int64), np.empty(most + 1, np.int64)
    if given:
        spans = given_words([text]).spans
        num, stop = _take_given_words(data, 0, len(data), spans, code_point_classes(), words, hashes, sums, joins)
    else:
        num, stop = _take_words(data, 0, len(data), code_point_classes(), words, hashes, sums, joins)
    assert num == most
    assert stop == len(text[: kept[-1].stop].encode())
    size = table_size(most)
    stats = np.zeros(NUM_STATISTICS, np.int64)
    room = [np.empty(most, np.int64) for _ in range(2)] + [np.empty(size, np.int64) for _ in range(3)]
    _count_n_grams(num, hashes, sums, joins, *room, stats)
    assert stats[N_GRAMS:].tolist() == expected(text[: kept[-1].stop])[N_GRAMS:]


@pytest.mark.parametrize("most", [1, 2, 3, 7, 20, 21])
def test_lines_beyond_the_most(most):
    text = "".join(f"line {k % 4}\n" + "\n" * (k % 3 == 0) for k in range(20))
    data = np.frombuffer(bytearray(text.encode()), np.uint8)
    stats = np.zeros(NUM_STATISTICS, np.int64)
    hashes, sizes, keys = np.empty(most, np.int64), np.empty(most + 1, np.int64), np.empty(table_size(most), np.int64)
    _count_lines(data, 0, len(data), code_point_classes(), keys, hashes, sizes, stats)
    lines = plain_text.lines(text)
    end = len(text) if most > len(lines) else lines[most - 1].stop + 1  # the break behind the last line is read
    assert stats[:LINE_CHARACTERS].tolist() == expected(text[:end])[:LINE_CHARACTERS]
    assert stats[LINE_CHARACTERS] == end
    assert stats[WORD_CHARACTERS] == 0


def test_each_rule_drops_by_its_ratio():
    """Of 20 lines of 3 characters 7 are duplicates: 0.35 > 0.3; with 6 of 20 the text passes that rule."""
    lines = [f"l{k:02}" for k in range(20)]
    judge = GopherRepetition(max_top_2_grams=None, max_top_3_grams=None, max_top_4_grams=None)
    over, at_limit = "\n".join([*lines[:13], *lines[:7]]), "\n".join([*lines[:14], *lines[:6]])
    verdicts = judge(text_batch([over, at_limit])).column("verdict").to_pylist()
    assert (verdicts[0]["reason"], verdicts[0]["value"]) == ("gopher_repetition.max_duplicate_lines", "7/20")
    assert verdicts[0]["threshold"] == "<= 0.3"
    # characters: 6 lines of 3 in 79 are 0.23 > 0.2
    assert (verdicts[1]["reason"], verdicts[1]["value"]) == (
        "gopher_repetition.max_duplicate_line_characters", "18/79",
    )  # fmt: skip
    names = [rule.name for rule in judge.rules]
    assert names[4:] == [*(f"max_top_{n}_grams" for n in TOP), *(f"max_duplicate_{n}_grams" for n in DUPLICATE)]


# rule -> a text that breaks it, and no rule before it that is not switched off
BREAKS = {
    "max_duplicate_paragraphs": "a1\n\nb2\n\na1",  # 1 of 3
    "max_duplicate_paragraph_characters": "a long paragraph\n\na long paragraph\n\nb\n\nc",  # 1 of 4, but 16 of 40
    "max_top_2_grams": "a b a b",  # 2 * 3 of 7
    "max_top_4_grams": "a b c d",  # 7 of 7
    "max_duplicate_5_grams": "a b c d e f a b c d e",  # 5 of 21
}


@pytest.mark.parametrize("rule", BREAKS)
def test_the_first_broken_rule_is_the_reason(rule):
    place = int(rule.removesuffix("_grams")[-1]) if rule.endswith("grams") else 0
    off = {f"max_top_{n}_grams": None for n in TOP if n < place}
    verdict = GopherRepetition(**off)(text_batch([BREAKS[rule]])).column("verdict")[0]
    assert verdict["reason"].as_py() == f"gopher_repetition.{rule}"


@pytest.mark.parametrize("field", ["max_duplicate_lines", "max_duplicate_10_grams"])
def test_impossible_thresholds_are_refused(field):
    with pytest.raises(ValueError, match=rf"{field}: 10001 .*\nhint: "):
        GopherRepetition(**{field: 10_001})
    assert GopherRepetition(max_top_2_grams=20_000).max_top_2_grams == 20_000  # this ratio can pass 1
