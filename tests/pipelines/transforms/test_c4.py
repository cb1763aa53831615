"""The C4 rules: golden texts and counts by hand, an oracle in plain Python, citations, bad words, conversations."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import plain_text
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_text import BROKEN, HOSTILE, bytes_column, column, real_texts, text_batch

from pipelines.transforms.c4 import ABBREVIATIONS, BAD_WORDS, POLICY_PHRASES, C4Quality
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.words import TERMINAL, code_point_classes

CITATION = re.compile(r"\[[0-9]*\]|\[edit\]|\[citation needed\]")
CLOSING = "\"')]»’”」）"
PIECES = [
    *plain_text.PIECES, "lorem ipsum ", "Lorem Ipsum", "JavaScript", "use cookies", "Privacy Policy ", "{",
    "[citation needed]", "can't. ", "J.", "Inc. ", "U.S. ", "one two three. ", "end.\n", "\n[2] ", ".[1] ", "!?\" ",
    "…) ", "。水水", "co.", "xgen. ",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def folded(text: str) -> str:
    """Return the text with ASCII letters in lower case."""
    return re.sub("[A-Z]+", lambda match: match[0].lower(), text)


def is_terminal(character: str) -> bool:
    return character == "…" or bool(code_point_classes()[ord(character)] & TERMINAL)


def abbreviates(line: str, dot: int) -> bool:
    """Whether the "." at `dot` stands behind a letter or an abbreviation, by the docstring."""
    found = re.search(r"[A-Za-z]+\Z", line[:dot])
    if not found or (len(found[0]) > 1 and found[0].lower() not in ABBREVIATIONS):
        return False
    before = line[: found.start()]
    return not before or (before[-1].isascii() and not before[-1].isalnum() and not re.search(r"[A-Za-z]'\Z", before))


def sentences(line: str, citations: bool) -> int:
    num, at, rest = 0, 0, line
    while at < len(line):
        if not is_terminal(line[at]):
            at += 1
            continue
        first, marks = at, ""
        while at < len(line):
            cited = CITATION.match(line, at) if citations else None
            if cited:
                at = cited.end()
            elif is_terminal(line[at]) or line[at] in CLOSING:
                marks += line[at] if is_terminal(line[at]) else ""
                at += 1
            else:
                break
        if marks == "." and abbreviates(line, first):
            continue
        if at == len(line) or line[at] in plain_text.SPACES:
            num += 1
            while at < len(line) and line[at] in plain_text.SPACES:
                at += 1
            rest = line[at:]
    return num + bool(rest)


def without_citations(line: str) -> tuple[str, str]:
    """Return the line without those at its ends, and without any."""
    edge = rf"(?:(?:{CITATION.pattern})|[{''.join(plain_text.SPACES)}])+"
    core = re.sub(rf"\A{edge}", "", line)
    core = core[: re.search(rf"(?:{edge})?\Z", core).start()] if core else ""
    return core, CITATION.sub("", core)


def expected(text: str, rules: C4Quality) -> tuple[str, list[int]]:
    """Return the text after the cuts, and the statistics, by the docstring."""
    stats, kept, blank = (
        dict.fromkeys(
            (
                "lines",
                "long word",
                "no mark",
                "few",
                "javascript",
                "policy",
                "lorem",
                "curly",
                "sentences",
                "long",
                "bad",
            ),
            0,
        ),
        "",
        False,
    )
    for line in plain_text.lines(text):
        blank |= line.blank_before > 0
        words = plain_text.token_words(line.text)
        core, clean = without_citations(line.text) if rules.cut_citations else (line.text, line.text)
        says = folded(core)
        stats["lines"] += 1
        stats["long"] += len(line.text) >= rules.long_line
        if rules.max_word_length is not None and max(map(len, words)) > rules.max_word_length:
            cause = "long word"
        elif rules.require_end_mark and (not core or core[-1] not in ".?!\"'" or core.endswith("...")):
            cause = "no mark"
        elif len(words) < (rules.min_words_per_line or 0) or not core:
            cause = "few"
        elif "lorem ipsum" in says:
            cause = "lorem"
        elif "javascript" in says and rules.cut_javascript_lines:
            cause = "javascript"
        elif "{" in line.text:
            cause = "curly"
        elif rules.cut_policy_lines and any(phrase in says for phrase in POLICY_PHRASES):
            cause = "policy"
        else:
            cause = "sentences"
        stats[cause] += sentences(core, rules.cut_citations) if cause == "sentences" else 1
        if cause in ("long word", "no mark", "few", "javascript", "policy"):
            continue
        kept += (("\n\n" if blank and rules.keep_blank_lines else "\n") if kept else "") + clean
        blank = False
    return kept, list(stats.values())


ALL_RULES = C4Quality()
LENIENT = C4Quality(
    max_word_length=None,
    require_end_mark=False,
    min_words_per_line=None,
    cut_javascript_lines=False,
    keep_blank_lines=True,
)
VARIANTS = [
    ALL_RULES,
    LENIENT,
    C4Quality(cut_citations=False, cut_policy_lines=False, keep_blank_lines=True, max_word_length=4),
    C4Quality(require_end_mark=False, min_words_per_line=2, long_line=5),
    dataclasses.replace(LENIENT, cut_policy_lines=False, max_word_length=0),
]  # fmt: skip


def measure(rules: C4Quality, text: pa.Array) -> tuple[list[str], list[list[int]]]:
    batch, stats = rules.measured(text_batch(text))
    batch.validate(full=True)
    return batch.column("text").to_pylist(), stats.tolist()


# text -> what is left, sentences
GOLDEN_TEXTS = {
    # a menu line without mark, a line of two words, one that ends in dots, all gone; CR LF becomes LF
    "Home | About\r\nTwo words.\r\nThis is a line.\r\nAnd so on...\r\nAnd another one!": (
        "This is a line.\nAnd another one!", 2,
    ),
    "It uses cookies here.\nPlease enable JavaScript now.\nIt stays as it is.": ("It stays as it is.", 1),
    # citations: at the end with the space before, at the beginning with that behind, within: only they
    "[1] This is [2] [edit]a line. [3][citation needed]": ("This is  a line.", 1),
    "Sentence one.[1] And sentence two.[12] [13]": ("Sentence one. And sentence two.", 2),
    "Not [a] and [1a] and [ 1].": ("Not [a] and [1a] and [ 1].", 1),
    # the quotation mark closes the sentence and ends the line
    'He said "so it is." Then he left (at last!). "Why?"': (
        'He said "so it is." Then he left (at last!). "Why?"', 3,
    ),
    # initials, abbreviations and the U.S. end none; "can't." and "etc." do
    "Mr. J. Smith of Acme Inc. in the U.S. can't. Or won't etc. will he.": (
        "Mr. J. Smith of Acme Inc. in the U.S. can't. Or won't etc. will he.", 3,
    ),
    "第一句。 第二句！ 水火木.": ("第一句。 第二句！ 水火木.", 3),
    " \n\n": ("", 0),
}  # fmt: skip


@pytest.mark.parametrize("text", GOLDEN_TEXTS)
def test_golden_texts(text):
    texts, stats = measure(ALL_RULES, column([text]))
    assert (texts[0], stats[0][8]) == GOLDEN_TEXTS[text]


def test_blank_lines_are_kept_where_they_were():
    text = "\n\nThis is a line.\n \nMenu\n\n\nThis is a line.\nMenu\nThis is a line.\n\nMenu\n"
    assert measure(C4Quality(keep_blank_lines=True), column([text]))[0] == [
        "This is a line.\n\nThis is a line.\nThis is a line."
    ]
    assert measure(ALL_RULES, column([text]))[0] == ["This is a line.\n" * 2 + "This is a line."]


# rule -> a text that breaks it, the value
GOLDEN_RULES = {
    "max_lorem_ipsum_lines": ("Lorem ipsum dolor sit amet.", "1"),
    "max_curly_bracket_lines": ("If this { then that.", "1"),
    "min_sentences": ("One of one. Two of two. Three of three. The last.", "4"),
}


@pytest.mark.parametrize("rule", GOLDEN_RULES)
def test_a_dropped_document_keeps_its_text(rule):
    text, value = GOLDEN_RULES[rule]
    text = f" Menu\n{text}\r\n[1]"
    kept = "One is one. Two are two. A third? A fourth! A fifth."
    result = C4Quality()(text_batch([text, kept + " [1]", None]))
    verdicts = result.column("verdict").to_pylist()
    assert (verdicts[0]["reason"], verdicts[0]["value"]) == (f"c4_quality.{rule}", value)
    assert verdicts[1] is None
    assert verdicts[2]["value"] == "0"
    assert result.column("text").to_pylist() == [text, kept, None]


def test_mc4_asks_for_long_lines():
    rules = C4Quality(min_sentences=None, min_long_lines=3, long_line=20)
    text = "It is twenty long é.\n" * 2
    verdicts = rules(text_batch([text, text + "It is nineteen 19 .\n", text * 2])).column("verdict").to_pylist()
    assert [verdict and verdict["value"] for verdict in verdicts] == ["2", "2", None]


@pytest.mark.parametrize("place", range(len(VARIANTS)))
@settings(deadline=None, max_examples=150)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
@example(texts=["a [1] b.\n[1] [2]\n[1]", "aBcJ. S[1]. x.", "\n[2] Lorem ipsum"])
@example(texts=["ก\u0e49\u0e49\u0e49\u0e49 ก\u0e49."])
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
    """Cuts of lines, of citations in them, and of ends, across rows."""
    text = " A[1] b[2] c[3].\r\n" * 700
    rules = C4Quality(min_sentences=None)
    left, _ = measure(rules, column([text, "x", text]))
    assert left == ["\n".join(["A b c."] * 700), "", "\n".join(["A b c."] * 700)]


@pytest.mark.skipif(not real_texts(1), reason="needs ../shared/data")
def test_real_documents():
    texts = real_texts(120)
    for rules in (ALL_RULES, LENIENT):
        left, stats = measure(rules, column(texts))
        wanted = [expected(text, rules) for text in texts]
        assert left == [text for text, _ in wanted]
        assert stats == [counts for _, counts in wanted]


def test_broken_texts():
    rules = C4Quality(require_end_mark=False, min_words_per_line=0, min_sentences=0)
    whole, stats = rules.measured(text_batch(bytes_column(BROKEN)))
    parts = [rules.measured(text_batch(bytes_column([row]))) for row in BROKEN]
    as_bytes = [batch.column("text").cast(pa.large_binary())[0].as_py() for batch, _ in parts]
    assert whole.column("text").cast(pa.large_binary()).to_pylist() == as_bytes
    assert np.concatenate([one for _, one in parts]).tolist() == stats.tolist()


def test_turns_move_with_the_lines():
    """A question of two lines, of which one goes, and an answer."""
    text = "What is it?\nMenu\nIt is a line. [1]\nAn end of it."
    places = [(0, 16), (17, len(text))]
    turns = [[{"role": "user", "start": start, "end": end, "weight": 0} for start, end in places]]
    result, _ = C4Quality(min_sentences=0).measured(text_batch([text], turns))
    left = result.column("text")[0].as_py()
    assert left == "What is it?\nIt is a line.\nAn end of it."
    moved = [left[turn["start"] : turn["end"]] for turn in result.column("turns")[0].as_py()]
    # the end of the first turn is in what the line break took the place of, so it is behind that
    assert moved == ["What is it?\n", "It is a line.\nAn end of it."]


def bad_words(path: Path, content: bytes) -> C4Quality:
    path.write_bytes(content)
    return C4Quality(bad_words=GivenFile.of(path), min_sentences=None)


def test_bad_words(tmp_path):
    rules = bad_words(tmp_path / "words", "\ufeffbad\r\nvery (bad) word\n\n  naïve \nc++\n".encode())
    texts = [
        "A BAD one.",
        "badly, not_bad_",
        "a very (bad) word",
        "Naïve.",
        "c++",
        "notbad",
        "(bad)",
        None,
        "c+",
        "bad",
    ]
    _, stats = rules.measured(text_batch(texts))
    assert stats[:, BAD_WORDS].tolist() == [1, 0, 1, 1, 1, 0, 1, 0, 0, 1]
    verdict = rules(text_batch(["A BAD one."])).column("verdict")[0].as_py()
    assert (verdict["reason"], verdict["value"], verdict["threshold"]) == ("c4_quality.max_bad_words", "1", "<= 0")


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_a_list_without_words_drops_nothing(content, tmp_path):
    _, stats = bad_words(tmp_path / "words", content).measured(text_batch(["", ", .", "a"]))
    assert stats[:, BAD_WORDS].tolist() == [0, 0, 0]


def test_impossible_thresholds_are_refused():
    with pytest.raises(ValueError, match=r"min_sentences: -1 .*\nhint: "):
        C4Quality(min_sentences=-1)
    with pytest.raises(ValueError, match=r"long_line: 0.5 .*\nhint: "):
        C4Quality(long_line=0.5)
