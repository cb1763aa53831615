"""RefinedWeb's lines: golden texts and counts by hand, an oracle in plain Python, conversations, hostile texts."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import plain_text
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_text import BROKEN, HOSTILE, bytes_column, column, is_digit, is_letter, is_mark, real_texts, text_batch

from pipelines.transforms.refinedweb_lines import COUNTED, MOST_PHRASES, RefinedWebLines
from pipelines.transforms.words import UPPERCASE, code_point_classes

PIECES = [
    *plain_text.PIECES, "items in cart", " items in cart ", "Items In Cart", "read more", "Read more...", "..",
    "spread more", "\nread more…", "\nsign-in ", "Sign-In", "3 likes",
    "1.2k views", "\n7m\u3000Followers ", "SHOUTING ", "ÀÉ", "٣",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


def folded(text: str) -> str:
    return re.sub("[A-Z]+", lambda match: match[0].lower(), text)


def is_inner(character: str) -> bool:
    return is_letter(character) or is_digit(character) or is_mark(character)


def is_counter(line: str) -> bool:
    """Rule 3, by taking off what it asks for from the front."""
    rest = folded(line)
    while rest and not (is_letter(rest[0]) or is_digit(rest[0])):
        rest = rest[1:]
    number = re.match(r"[0-9][0-9,.]*[kmb]?", rest)
    if not number:
        return False
    rest = rest[number.end() :]
    word = rest.lstrip("".join(plain_text.SPACES))
    found = next((counted for counted in COUNTED if word.startswith(counted)), None)
    return word != rest and found is not None and not any(is_letter(c) or is_digit(c) for c in word[len(found) :])


def without_phrases(line: str) -> list[str]:
    """Return the pieces of a line that rule 5 leaves."""
    low = folded(line)
    if low.startswith("sign-in") and not (len(low) > 7 and is_inner(low[7])):
        line = line[7:].lstrip("".join(plain_text.SPACES))
    more = re.search(r"read more(\.{3,}|…)?\Z", folded(line))
    if more and not (more.start() and is_inner(line[more.start() - 1])):
        line = line[: more.start()].rstrip("".join(plain_text.SPACES))
    pieces, begin, at = [], 0, 0
    while len(pieces) < MOST_PHRASES:
        at = folded(line).find("items in cart", at)
        if at < 0:
            break
        behind = at + len("items in cart")
        if (at > begin and is_inner(line[at - 1])) or (behind < len(line) and is_inner(line[behind])):
            at += 1
            continue
        piece = line[begin:at].rstrip("".join(plain_text.SPACES))
        if piece:
            pieces.append(piece)
        begin = at = behind if pieces else len(line) - len(line[behind:].lstrip("".join(plain_text.SPACES)))
    return [*pieces, *([line[begin:]] if line[begin:] else [])]


def is_uppercase(character: str) -> bool:
    return bool(code_point_classes()[ord(character)] & UPPERCASE)


def expected(text: str, rules: RefinedWebLines) -> tuple[str, list[int]]:
    """Return the text after the cuts, and the statistics, by the docstring."""
    stats = dict.fromkeys(("words", "removed", "lines", "uppercase", "numeric", "counter", "few", "phrases"), 0)
    kept, breaks = "", 1
    for line in plain_text.lines(text):
        breaks = max(breaks, line.blank_before + 1)
        words, pieces, cause = len(plain_text.token_words(line.text)), [line.text], None
        shouted = sum(map(is_uppercase, line.text))
        if rules.max_uppercase_characters is not None and shouted * 10_000 > rules.max_uppercase_characters * len(
            line.text
        ):
            cause = "uppercase"
        elif rules.cut_numeric_lines and all(map(is_digit, line.text)):
            cause = "numeric"
        elif rules.cut_counter_lines and is_counter(line.text):
            cause = "counter"
        elif words < (rules.min_words_per_line or 0):
            cause = "few"
        elif rules.max_phrase_line_words is not None and words <= rules.max_phrase_line_words:
            pieces = without_phrases(line.text)
            cause = "phrases" if pieces != [line.text] else None
        stats["lines"] += 1
        stats["words"] += words
        if cause:
            left = sum(len(plain_text.token_words(piece)) for piece in pieces) if cause == "phrases" else 0
            stats[cause] += 1
            stats["removed"] += words - left
            if cause != "phrases" or not pieces:
                continue
        kept += ("\n" * min(breaks, rules.max_line_breaks) if kept else "") + "".join(pieces)
        breaks = 1
    return kept, list(stats.values())


VARIANTS = [
    RefinedWebLines(),
    RefinedWebLines(
        max_uppercase_characters=None, cut_numeric_lines=False, cut_counter_lines=False, min_words_per_line=None,
        max_phrase_line_words=100, max_line_breaks=1,
    ),
    RefinedWebLines(max_uppercase_characters=0, max_phrase_line_words=None, max_line_breaks=8),
    RefinedWebLines(max_uppercase_characters=10_000, min_words_per_line=1, max_phrase_line_words=4),
]  # fmt: skip


def measure(rules: RefinedWebLines, text: pa.Array) -> tuple[list[str], list[list[int]]]:
    batch, stats = rules.measured(text_batch(text))
    batch.validate(full=True)
    return batch.column("text").to_pylist(), stats.tolist()


# text -> what is left, (words, removed words)
GOLDEN_TEXTS = {
    # 10 of 20 characters are upper case: stays; one more: goes
    "ABCDEFGHIJ klmnopqrs": ("ABCDEFGHIJ klmnopqrs", (2, 0)),
    "ABCDEFGHIJK lmnopqrs": ("", (2, 2)),
    "A line stays.\n12345\n\n\n3 likes\nAnother one.": ("A line stays.\n\nAnother one.", (8, 3)),
    # counters: marks around, thousands, k; not within other words
    "a b\n» 1,234 Comments «\n1.2K\u00a0views!\n3 likes it\nabout 3 likes": (
        "a b\n3 likes it\nabout 3 likes", (14, 6),
    ),
    "one\ntwo words": ("two words", (3, 1)),
    # phrases: at the beginning, at the end with dots, anywhere; the space before them goes
    "Sign-in to see\nThe news read more...\nYou have 2 items in cart now": (
        "to see\nThe news\nYou have 2 now", (14, 6),
    ),
    "Sign-in\u3000|\nread more…\nitems in cart": ("|", (7, 6)),
    # within words, they are none; the dots are none, three or more
    "We spread more\nsign-ins are here\nbitems in cart\nHe read more..": (
        "We spread more\nsign-ins are here\nbitems in cart\nHe read more..", (12, 0),
    ),
    # two in a row do not join the words around them
    "a items in cart items in cart b": ("a b", (8, 6)),
    # eleven words: the phrase stays
    "one two three four five six seven eight items in cart": (
        "one two three four five six seven eight items in cart", (11, 0),
    ),
    "  indented line\r\n\r\n\r\nnext line  ": ("indented line\n\nnext line", (4, 0)),
}  # fmt: skip


@pytest.mark.parametrize("text", GOLDEN_TEXTS)
def test_golden_texts(text):
    left, stats = measure(RefinedWebLines(), column([text]))
    assert (left[0], tuple(stats[0][:2])) == GOLDEN_TEXTS[text]


def test_pages_that_lose_too_much_keep_their_text():
    """1 word of 20 is 0.05: stays; 1 of 19: dropped. Null stays null."""
    lines = "one two three four five six seven eight nine\n"
    over = f"x\n{lines}{lines}"
    at_limit = f"x\n{lines}{lines[:-1]} ten"
    result = RefinedWebLines()(text_batch([over + "y", over, at_limit, None]))
    verdicts = result.column("verdict").to_pylist()
    shown = [verdict and (verdict["reason"], verdict["value"], verdict["threshold"]) for verdict in verdicts]
    reason = "refinedweb_lines.max_removed_words"
    assert shown == [(reason, "2/20", "<= 0.05"), (reason, "1/19", "<= 0.05"), None, None]
    assert result.column("text").to_pylist() == [over + "y", over, at_limit[2:], None]


@pytest.mark.parametrize("place", range(len(VARIANTS)))
@settings(deadline=None, max_examples=150)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
@example(texts=["a" + " items in cart |" * (MOST_PHRASES + 3)])
@example(texts=["\n\n\nx\n\n\n\n\n\n\n\n\n\n\na b", "ก\u0e49\u0e49 ก\u0e49."])
def test_texts_and_statistics_are_those_of_python(place, texts):
    left, stats = measure(VARIANTS[place], column(texts))
    wanted = [expected(text, VARIANTS[place]) for text in texts]
    assert left == [text for text, _ in wanted]
    assert stats == [counts for _, counts in wanted]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts(name):
    for rules in VARIANTS:
        left, stats = measure(rules, column([HOSTILE[name]]))
        assert (left[0], stats[0]) == expected(HOSTILE[name], rules)


def test_more_cuts_than_room():
    text = " a items in cart b items in cart c\r\n1\r\n" * 700
    left, _ = measure(RefinedWebLines(), column([text, "x", text]))
    assert left == ["\n".join(["a b c"] * 700), "", "\n".join(["a b c"] * 700)]


@pytest.mark.skipif(not real_texts(1), reason="needs ../shared/data")
def test_real_documents():
    texts = real_texts(120)
    for rules in VARIANTS[:2]:
        left, stats = measure(rules, column(texts))
        wanted = [expected(text, rules) for text in texts]
        assert left == [text for text, _ in wanted]
        assert stats == [counts for _, counts in wanted]


def test_broken_texts():
    rules = RefinedWebLines(min_words_per_line=0)
    whole, stats = rules.measured(text_batch(bytes_column(BROKEN)))
    parts = [rules.measured(text_batch(bytes_column([row]))) for row in BROKEN]
    as_bytes = [batch.column("text").cast(pa.large_binary())[0].as_py() for batch, _ in parts]
    assert whole.column("text").cast(pa.large_binary()).to_pylist() == as_bytes
    assert np.concatenate([one for _, one in parts]).tolist() == stats.tolist()


def test_turns_move_with_the_lines():
    text = "3 likes\nWhat is it?\nIt is this. Read more..."
    places = [(8, 19), (20, len(text))]
    turns = [[{"role": "user", "start": start, "end": end, "weight": 0} for start, end in places]]
    result, _ = RefinedWebLines().measured(text_batch([text], turns))
    left = result.column("text")[0].as_py()
    moved = [left[turn["start"] : turn["end"]] for turn in result.column("turns")[0].as_py()]
    assert (left, moved) == ("What is it?\nIt is this.", ["What is it?", "It is this."])


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_line_breaks", 0), ("max_line_breaks", 9), ("max_removed_words", 10_001), ("min_words_per_line", -1)],
)
def test_impossible_thresholds_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"{field}: {value} .*\nhint: "):
        RefinedWebLines(**{field: value})


def test_upper_case_is_that_of_unicode():
    """The oracle reads the kernels' table; here it is compared with Python's."""
    for character in "AÀÉАΩⅠⒶ":
        assert is_uppercase(character)
    assert not any(map(is_uppercase, "aé1ª水ǅ"))
    assert unicodedata.category("ǅ") == "Lt"
