"""The FineWeb rules: golden counts by hand, an oracle in plain Python, thresholds at their limits."""

from __future__ import annotations

import plain_text
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_text import BROKEN, HOSTILE, TEXTS, bytes_column, column, given_words, real_texts, text_batch

from pipelines.transforms.fineweb import FineWebQuality, statistics
from pipelines.transforms.words import TERMINAL, code_point_classes


def expected(text: str, short_line: int = 30, *, ignore_trailing_space: bool = True) -> list[int]:
    """Return the statistics by the docstring."""
    lines = plain_text.lines(text)
    breaks = plain_text.BREAK.findall(text)
    punctuated = [
        line
        for line in lines
        if code_point_classes()[ord(line.text[-1])] & TERMINAL
        and (ignore_trailing_space or line.stop == len(text) or plain_text.BREAK.match(text, line.stop))
    ]
    texts = [line.text for line in lines]
    return [
        len(lines),
        len(punctuated),
        sum(len(line) <= short_line for line in texts),
        sum(len(line) for place, line in enumerate(texts) if line in texts[:place]),
        len(text) - sum(map(len, breaks)),
        len(breaks),
        len(plain_text.words(text)),
    ]


# text -> lines, punctuated, short ones (of at most 5), characters in duplicates, characters, line breaks, words
GOLDEN = {
    # the space behind "one." is no part of the line; CR LF is one break of two characters
    "Line one. \r\nLine one.\r\n\r\nshort\nlonger": [4, 2, 1, 9, 10 + 9 + 5 + 6, 4, 6],
    "a!\na?\na\u3002\na\u0964\na\u06d4\na\u2026\na.\u201d": [7, 5, 7, 0, 15, 6, 7],
    "five5\nsix666\n\u00e9\u00e9\u00e9\u00e9\u00e9": [3, 0, 2, 0, 16, 2, 3],
    # each of these breaks lines; a blank line is never a duplicate
    "a\u2028a\u2029a\x85a\x0ba\x0ca\n\n\n": [6, 0, 6, 5, 6, 8, 6],
    " \n ": [0, 0, 0, 0, 2, 1, 0],
    "": [0, 0, 0, 0, 0, 0, 0],
}


@pytest.mark.parametrize("text", GOLDEN)
def test_golden(text):
    assert statistics(column([text]), 5)[0].tolist() == GOLDEN[text] == expected(text, 5)


def test_white_space_behind_a_mark():
    text = "a. \nb.\u3000\nc.\nd.\t\r\ne.\r\nf. "
    assert statistics(column([text]))[0, 1] == 6
    assert statistics(column([text]), ignore_trailing_space=False)[0, 1] == 2  # c and e


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3), st.integers(0, 9), st.booleans())
@example(["a. \r\na."], 3, False)
def test_statistics_are_those_of_python(texts, short_line, ignore):
    found = statistics(column(texts), short_line, ignore_trailing_space=ignore)
    assert found.tolist() == [expected(text, short_line, ignore_trailing_space=ignore) for text in texts]
    given = statistics(column(texts), short_line, given_words(texts), ignore_trailing_space=ignore)
    assert given.tolist() == found.tolist()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts(name):
    assert statistics(column([HOSTILE[name]]))[0].tolist() == expected(HOSTILE[name])


def test_broken_texts():
    whole = statistics(bytes_column(BROKEN))
    assert whole.tolist() == [statistics(bytes_column([row]))[0].tolist() for row in BROKEN]


@pytest.mark.skipif(not real_texts(1), reason="needs ../shared/data")
def test_real_documents():
    texts = real_texts(150)
    assert statistics(column(texts)).tolist() == [expected(text) for text in texts]


LONG = "This line has more than thirty characters"
SHORT = "xxxxxxxxxx yyyyyyyyyyyyyyy"
"""26 characters, so that a space, two digits and a mark make 30."""

# rule -> a text at the limit, one beyond it, the value and what is allowed
LIMITS = {
    # 3 of 25 lines are 0.12; 3 of 26 are less
    "min_punctuated_lines": (
        "".join(f"{LONG} {k}\n" for k in range(100, 122)) + f"{LONG} x.\n{LONG} y!\n{LONG} z?",
        "".join(f"{LONG} {k}\n" for k in range(100, 123)) + f"{LONG} x.\n{LONG} y!\n{LONG} z?",
        "3/26", ">= 0.12",
    ),
    # 67 of 100 lines of 30 characters are 0.67; 68 are more; one of 31 characters is not short
    "max_short_lines": (
        "".join(f"{SHORT} {k}.\n" for k in range(10, 77)) + "".join(f"{LONG} {k}.\n" for k in range(10, 43)),
        "".join(f"{SHORT} {k}.\n" for k in range(10, 78)) + "".join(f"{LONG} {k}.\n" for k in range(10, 42)),
        "68/100", "<= 0.67",
    ),
    # a duplicate of 41 characters in 4,100 is 0.01; in 4,099 more. Three lines of 41, the rest in one line
    "max_duplicate_line_characters": (
        f"{LONG}\n{LONG}\n{'word ' * 803 + 'ab'}.",
        f"{LONG}\n{LONG}\n{'word ' * 803 + 'a'}.",
        "41/4099", "<= 0.01",
    ),
    # 3 breaks for 10 words are 0.3; for 9 they are more
    "max_line_breaks": (
        f"{LONG}.\n\n\nOne two thirtyfourfivesixseveneight.",
        f"{LONG}.\n\n\nOnetwo thirtyfourfivesixseveneight.",
        "3/9", "<= 0.3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", LIMITS)
def test_limits_are_inclusive(rule):
    at_limit, beyond, value, threshold = LIMITS[rule]
    verdicts = FineWebQuality()(text_batch([at_limit, beyond, None])).column("verdict").to_pylist()
    assert verdicts == [
        None,
        {"outcome": "dropped", "reason": f"fineweb_quality.{rule}", "value": value, "threshold": threshold},
        None,  # no line, no word: 0/0 passes
    ]


def test_the_threshold_of_the_paper():
    """0.05 of the characters are in duplicates: dropped by the code's threshold, kept by the paper's."""
    text = f"{LONG}\n{LONG}\n" + "word " * 147 + "w."
    assert FineWebQuality()(text_batch([text])).column("verdict")[0]["value"].as_py() == "41/819"
    assert FineWebQuality(max_duplicate_line_characters=1_000)(text_batch([text])).column("verdict")[0].as_py() is None


def test_impossible_thresholds_are_refused():
    with pytest.raises(ValueError, match=r"max_short_lines: 10001 .*\nhint: "):
        FineWebQuality(max_short_lines=10_001)
    with pytest.raises(ValueError, match=r"short_line: -1 .*\nhint: "):
        FineWebQuality(short_line=-1)
