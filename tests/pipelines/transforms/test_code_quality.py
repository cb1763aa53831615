"""The code rules: counts by hand, against the published expressions in plain Python, and on the standard library."""

from __future__ import annotations

import json
import re
import sysconfig
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import batch_of, document

from pipelines.transforms.code_comments import EXTENSIONS, SYNTAX_OF, count_comments
from pipelines.transforms.code_files import GENERATED, GROUPS, MINIFIED, TEXT_NAMES, VENDORED, extensions, matched
from pipelines.transforms.code_quality import CodeQuality, count_cells
from pipelines.transforms.code_statistics import (
    ENCODED,
    GENERATED_PHRASES,
    GENERATOR_PHRASES,
    HEADER_PHRASES,
    IS_HTML,
    IS_SCRIPT,
    LONGEST_ENCODED,
    VISIBLE,
    XML_DECLARATION,
    statistics,
)

PUBLISHED = (
    re.compile(r"[a-zA-Z0-9+/\n=]{64,}"),
    re.compile(r"(?:\b(?:0x|\\x)?[0-9a-fA-F]{2}(?:,|\b\s*)){8,}"),
    re.compile(r"(?:\\u[0-9a-fA-F]{4}){8,}"),
)
"""The expressions of arXiv 2402.19173, section 2.1."""


def judge(text: str, path: str = "a.py", **thresholds: object) -> tuple[str, str] | None:
    """Return rule and value of the verdict on one file."""
    batch = batch_of([document(text, origin_path=path)])
    verdict = CodeQuality(**thresholds)(batch).column("verdict")[0].as_py()
    return verdict and (verdict["reason"].removeprefix("code_quality."), verdict["value"])


def count(*texts: str, kind: int = 0, header_lines: int = 5) -> np.ndarray:
    """Return the statistics of texts, int64 (texts, counts)."""
    return statistics(pa.array(texts, pa.large_string()), np.full(len(texts), kind, np.int64), header_lines)


def expected(text: str) -> list[int]:
    """Count as the published code does: characters, lines, their characters, longest, letters, alphanumerics, ..."""
    lines = [len(line) for line in text.splitlines()]
    runs = [len(match.group()) for pattern in PUBLISHED for match in pattern.finditer(text)]
    return [
        len(text), len(lines), sum(lines), max(lines, default=0), sum(map(str.isalpha, text)),
        sum(map(str.isalnum, text)), text.count("\ufffd"), sum(runs), max(runs, default=0),
    ]  # fmt: skip


# text: characters, lines, their characters, longest line, alphabetic, alphanumeric, U+FFFD
GOLDEN = {
    "": [0, 0, 0, 0, 0, 0, 0],
    # a1, a blank line, b; the last break begins no line: 2 + 0 + 1 characters in 3 lines, 4 bytes are breaks
    "a1\r\n\nb\n": [7, 3, 3, 2, 2, 3, 0],
    # CR alone, LS and FF end lines; e with a combining accent is a letter and a mark
    "e\u0301\rx\u2028yy\fz": [9, 4, 6, 2, 5, 5, 0],
    # Han is alphabetic, one half is a number, an emoji neither
    "水½\U0001f30a\ufffd": [4, 1, 4, 4, 1, 2, 1],
    "\n\n": [2, 2, 0, 0, 0, 0, 0],
}


@pytest.mark.parametrize("text", GOLDEN)
def test_golden_counts(text):
    assert count(text)[0, :7].tolist() == GOLDEN[text]


# text: characters in encoded runs, the longest
ENCODED_CASES = {
    "A" * 63: (0, 0),
    "A" * 64: (64, 64),
    # a line break belongs to base64: 32 + 1 + 32; the space does not
    "A" * 32 + "\n" + "b" * 32 + " x": (65, 65),
    "é" + "=" * 64 + "é" + "/" * 70: (134, 70),
    # 8 bytes with a comma each: 8 * 3; with 7 there is no run
    "41," * 8: (24, 24),
    "41," * 7: (0, 0),
    # the last byte needs no comma, but an end: "41g" has none
    "0x41," * 7 + "0x41": (39, 39),
    "41 " * 8 + "41g": (24, 24),
    # "0x41, 0x42": behind the comma comes no byte
    "0x41, " * 20: (0, 0),
    # a boundary must be before the backslash: the first byte is lost, as in the published expression: 8 * 4
    r"\x41" * 9: (32, 32),
    # white space of every kind between bytes, counted in characters: 8 * (2 + 2)
    "4f\u3000\n" * 8: (32, 32),
    r"\u0041" * 8 + r"\u004": (48, 48),
    r"\u0041" * 7: (0, 0),
    # two runs of escapes: 48 + 54
    r"\u00e9" * 8 + " " + r"\u00e9" * 9: (102, 54),
}


@pytest.mark.parametrize("text", ENCODED_CASES)
def test_golden_encoded_runs(text):
    assert tuple(count(text)[0, [ENCODED, LONGEST_ENCODED]].tolist()) == ENCODED_CASES[text]
    assert expected(text)[7:] == list(ENCODED_CASES[text])


PIECES = (
    *("41", "0x41", "\\x41", "\\u0041", "\\u004", "41,", "0x41,", "41 ", "41, ", "0x4", " ", "\n", "\r", "\r\n", "a"),
    *("_", "é", "\u0301", "\u2028", "\x85", "=", "+", "ab" * 32, "Z" * 70, "\\", "'", "\u3000", "中", "½", "\ufffd"),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=4).flatmap(
    lambda some: st.lists(st.lists(st.sampled_from([*some, "41 "]), max_size=50).map("".join), max_size=4)
))  # fmt: skip
def test_counts_are_those_of_the_published_code(texts):
    """Few pieces and many of them, so that there are runs."""
    assert count(*texts)[:, :9].tolist() == [expected(text) for text in texts]


def test_counts_on_the_standard_library():
    """Real files against the published code."""
    texts = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[::3]:
        text = path.read_text("utf-8", "replace")
        if not re.search("[\x1c-\x1e]", text):
            texts.append(text)
    assert len(texts) > 40
    assert count(*texts)[:, :9].tolist() == [expected(text) for text in texts]


# page: characters of visible text
VISIBLE_CASES = {
    "<p>ab <b>c</b></p>": 4,
    "<script>x</script >a<style>\n</style>b<!-- c --><!doctype html>d": 3,
    "a&amp;b&#39;&bogus b": 4 + len("&bogus b"),
    "1 < 2 <3": 8,
    "<a title='>' b=\">\">x</a>": 1,
    "<p é": 0,
    "<script>a": 0,
    "水<br>水": 2,
    "<": 1,
    "&": 1,
    "&;": 2,
}


@pytest.mark.parametrize("page", VISIBLE_CASES)
def test_golden_visible_text(page):
    assert count(page, kind=IS_HTML)[0, VISIBLE] == VISIBLE_CASES[page]
    assert count(page)[0, VISIBLE] == 0


class Visible(HTMLParser):
    """Collects what is neither markup nor script nor style."""

    def __init__(self):
        super().__init__()
        self.skipping, self.size = False, 0

    def handle_starttag(self, tag, attrs):
        self.skipping = tag in ("script", "style")

    def handle_endtag(self, tag):
        self.skipping = False

    def handle_data(self, data):
        self.size += 0 if self.skipping else len(data)


@given(st.lists(st.sampled_from(
    ["<p>", "</p>", "<a b='>'>", "<script>", "</script>", "<style>", "</style>", "<!-- - -->", " x", "é\n", "&amp;"]
), max_size=20).map("".join))  # fmt: skip
def test_visible_text_is_that_of_the_html_parser(page):
    """On whole markup: what is open in the end is closed."""
    page += "</script></style>"
    parser = Visible()
    parser.feed(page)
    parser.close()
    assert count(page, kind=IS_HTML)[0, VISIBLE] == parser.size


def test_phrases_of_generators():
    """Each phrase, in any case; the published ones in the first five lines, generators' in the first forty."""
    for phrase in HEADER_PHRASES:
        assert count("\n" * 4 + phrase.upper())[0, GENERATED_PHRASES] == 1
        assert count("\r\n" * 5 + phrase)[0, GENERATED_PHRASES] == 0
        assert count("\n" + phrase, header_lines=1)[0, GENERATED_PHRASES] == 0
    for phrase in GENERATOR_PHRASES:
        assert count("\n" * 39 + phrase)[0, GENERATED_PHRASES] >= 1
        assert count("\n" * 40 + phrase)[0, GENERATED_PHRASES] == 0
    assert judge("# This file was Auto-Generated\n" + "x = value\n") == ("max_generated_phrases", "1")
    assert judge("x = value\n" * 6 + "# auto-generated\n") is None
    mapped = "var x = value;\n" * 60 + "//# sourceMappingURL=x.js.map\n"
    assert count(mapped, kind=IS_SCRIPT)[0, GENERATED_PHRASES] == 1
    assert judge(mapped, "x.js") == ("max_generated_phrases", "1")
    assert judge(mapped, "x.c") is None


def test_xml_declarations():
    """Within the first 100 characters, in files that are no XML by name."""
    declaration = "<?xml version="
    assert count("é" * 86 + declaration)[0, XML_DECLARATION] == 1
    assert count("é" * 87 + declaration)[0, XML_DECLARATION] == 0
    assert judge('<?xml version="1.0"?><a>text</a>', "a.py") == ("max_xml_declarations", "1")
    assert judge('<?xml version="1.0"?><a>text</a>', "a.xsd") is None


# path: extension, vendored, generated, minified
PATHS = {
    "a/b.PY": ("py", False, False, False),
    "a.b/Makefile": ("", False, False, False),
    ".bashrc": ("", False, False, False),
    "x/node_modules/y.js": ("js", True, False, False),
    "my_node_modules/y.js": ("js", False, False, False),
    "pip/_vendor/x.py": ("py", True, False, False),
    "vendor.go": ("go", False, False, False),
    "third_party/a.c": ("c", True, False, False),
    "js/jquery-3.2.1.js": ("js", True, False, False),
    "js/jquery_plugin.js": ("js", False, False, False),
    "yarn.lock": ("lock", False, True, False),
    "a/go.sum": ("sum", False, True, False),
    "my-package-lock.json": ("json", False, False, False),
    "a_pb2.py": ("py", False, True, False),
    "Form1.Designer.cs": ("cs", False, True, False),
    "Designer.cs": ("cs", False, False, False),
    "app.min.js": ("js", False, False, True),
    "admin.js": ("js", False, False, False),
    None: ("", False, False, False),
}


@pytest.mark.parametrize("path", PATHS)
def test_paths(path):
    column = pa.array([path], pa.string())
    found = (matched(column, pattern)[0].as_py() for pattern in (VENDORED, GENERATED, MINIFIED))
    assert (extensions(column)[0].as_py(), *found) == PATHS[path]


def test_groups_hold_extensions():
    for group in GROUPS.values():
        assert all(extension == extension.lower() and "." not in extension for extension in group)
        assert len(set(group)) == len(group)


@pytest.mark.parametrize("name", ["README.txt", "docs/notes.txt", "requirements-dev.txt", "a/CMakeLists.txt"])
def test_text_that_stays(name):
    assert judge("some text\n", name) is None
    assert matched(pa.array([name]), TEXT_NAMES)[0].as_py()


def test_text_that_goes():
    for name in ("words.txt", "xnotes.txt", "notes.txt/x.txt"):
        assert judge("some text\n", name) == ("max_other_text", "1")
    assert judge("some text\n", "words.txt", max_other_text=None) is None


WORDS = "some words here\n"
# rule: path, a text at the limit, one beyond it, what is measured
LIMITS = {
    # 100 characters a line; 1 more in one of two lines: 201 / 2
    "max_mean_line": ("a.py", ("x y " * 25 + "\n") * 2, "x y " * 25 + "\n" + "x y " * 25 + "z\n", "201/2"),
    "max_longest_line": ("a.py", "x y " * 250 + "\n" + WORDS * 50, "x y " * 250 + "z\n" + WORDS * 50, "1001"),
    "max_longest_markup_line": ("a.md", "x y " * 25_000, "x y " * 25_000 + "z", "100001"),
    # 1 of 4 characters is a letter; 1 of 5
    "min_alphabetic": ("a.py", "a..1", "a...1", "1/5"),
    "min_alphanumeric": ("a.wat", "1...", "1....", "1/5"),
    "max_lines": ("a.py", "x.\n" * 100_000, "x.\n" * 100_001, "100001"),
    "max_encoded_run": ("a.py", ("A" * 32 + "\n") * 31 + " " + WORDS * 90, ("A" * 32 + "\n") * 32 + " " + WORDS * 90,
                        "1056"),
    # 64 of 128 characters and 65 of 128; the words hold no run
    "max_encoded": ("a.py", "A" * 64 + " \n" + "be so " * 10 + "be", "A" * 65 + " \n" + "be so " * 10 + "b", "65/128"),
    "max_data_lines": ("a.yaml", "- a\n" * 512, "- a\n" * 513, "513"),
    "min_visible_characters": ("a.html", "some text " * 10, "some text " * 9 + "some text", "99"),
    # 100 of 500; 100 of 501
    "min_visible": ("a.html", "some text " * 10 + "<" + "p " * 199 + ">", "some text " * 10 + "<" + "p " * 199 + "p>",
                    "100/501"),
    "max_replacements": ("a.py", "\ufffd" + "x y " * 24 + "x y", "\ufffd" + "x y " * 24 + "x ", "1/99"),
}  # fmt: skip


@pytest.mark.parametrize("rule", LIMITS)
def test_limits_are_inclusive(rule):
    path, at_limit, beyond, value = LIMITS[rule]
    assert judge(at_limit, path) is None
    assert judge(beyond, path) == (rule, value)
    assert judge(beyond, path, **{rule: None}) is None


def test_starcoders_sizes_of_data():
    """100 to 5,000 characters, of JSON and YAML alone, off by default."""
    sizes = {"min_data_characters": 100, "max_data_characters": 5000}
    for num, found in ((99, "min_data_characters"), (100, None), (5000, None), (5001, "max_data_characters")):
        verdict = judge("x " * (num // 2) + "x" * (num % 2), "a.json", **sizes)
        assert verdict == (found and (found, str(num)))
    assert judge("x", "a.json") is None
    assert judge("x", "a.py", **sizes) is None


def test_rules_are_about_their_languages():
    """Long lines are usual in markup, digits in WebAssembly; HTML alone has visible text."""
    assert judge("x y " * 300 + "\n", "a.py") == ("max_mean_line", "1200/1")
    assert judge("x y " * 300 + "\n", "a.md") is None
    assert judge("1234 5678\n", "a.wat") is None
    assert judge("1234 5678\n", "a.c") == ("min_alphabetic", "0/10")
    assert judge("<p>", "a.xml") is None
    assert judge("- a\n" * 600, "a.py") is None


def test_single_extensions():
    """What `extensions` sets takes the place of the general threshold, there and nowhere else; null is no limit."""
    wide = "x y " * 20 + "\n"
    given_ = {"fsh": {"max_longest_line": 50, "min_alphabetic": None}, "c": {"max_mean_line": None}}
    assert judge(wide, "a.fsh", extensions=given_) == ("max_longest_line_fsh", "80")
    assert judge("....\n", "a.fsh", extensions=given_) == ("min_alphanumeric", "0/5")
    assert judge(wide, "a.py", extensions=given_) is None
    assert judge(wide * 2, "a.c", extensions=given_, max_mean_line=10) is None
    filter_ = CodeQuality(extensions=given_, values=True)
    batch = batch_of([document(wide, natural_key=path, origin_path=path) for path in ("a.fsh", "a.py")])
    result = filter_(batch)
    assert result.column("code_quality_max_longest_line").to_pylist() == [None, 80.0]
    assert result.column("code_quality_max_longest_line_fsh").to_pylist() == [80.0, None]


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"C++": {"max_lines": 1}}, r"extensions: 'C\+\+' is no extension"),
        ({"c": {"max_data": 1}}, "extensions.c: 'max_data' cannot be set"),
        ({"c": {"max_encoded": 10_001}}, "extensions.c.max_encoded: 10001"),
        ({"c": {"max_lines": -1}}, "extensions.c.max_lines: -1"),
    ],
)
def test_impossible_extensions_are_refused(given_, said):
    with pytest.raises(ValueError, match=said + r"(?s:.*)\nhint: "):
        CodeQuality(extensions=given_)


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_lines", -1), ("max_encoded", 10_001), ("min_data_characters", 5_001), ("header_lines", -1)],
)
def test_impossible_thresholds_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"{field}: {value}.*\nhint: "):
        CodeQuality(max_data_characters=5_000, **{field: value})


def test_notebooks():
    """Two cells with code, one with white space, one of text: 8 + 2 + 3 + 6 characters of sources."""
    cells = [
        {"cell_type": "code", "source": ["x = 1\n", "xy"], "outputs": [{"data": {"text/plain": "A " * 250}}]},
        {"cell_type": "code", "source": "y\n"},
        {"cell_type": "code", "source": ["\n", " \n"]},
        {"cell_type": "markdown", "source": ["# text"]},
        "no cell",
        {"cell_type": "code", "source": 5},
    ]
    assert count_cells(json.dumps({"cells": cells})) == (2, 8 + 2 + 3 + 6)
    old_cells = [{"cell_type": "code", "input": ["x"]}, {"cell_type": "markdown", "source": "t"}]
    old = {"worksheets": [{"cells": old_cells}]}
    assert count_cells(json.dumps(old)) == (1, 2)
    for odd in ("", "[]", "{", "{}", '{"cells": {}}', '{"worksheets": 1}', "[" * 100_000):
        assert count_cells(odd) == (0, 0)
    notebook = json.dumps({"cells": cells})
    assert judge(notebook, "a.ipynb") == ("min_cell_characters", f"19/{len(notebook)}")
    assert judge("{", "a.ipynb")[0] == "min_code_cells"
    assert judge(json.dumps({"cells": [{"cell_type": "code", "source": "x = 1\n" * 200}]}), "a.ipynb") is None


# extension, text, characters in comments
COMMENT_CASES = [
    ("c", "a /* b */ c // d\n", 7 + 4),
    ("c", '"// no" \'/*\' x "open\n// é', 4),
    ("c", "/* open", 7),
    ("c", 'x "\\"// no" /**/', 4),
    ("js", "`// no\n` // c", 4),
    ("py", 'x = 1 # c\n"""doc"""\nx = """no"""\n  r"""y"""\n', 3 + 9 + 7),
    ("py", "x = '#' + '''#\n#''' # é", 3),
    ("sh", "echo $# a#b #c", 2),
    ("lua", "--[[ a\n b]] x -- c", 11 + 4),
    ("sql", "select '--' -- c\n/* d */", 4 + 7),
    ("html", "<p># // <!-- é --></p>", 10),
    ("tex", "a % b", 3),
    ("hs", "x {- a -} -- b", 7 + 4),
]


@pytest.mark.parametrize(("extension", "text", "num"), COMMENT_CASES)
def test_comments(extension, text, num):
    data, comments = text.encode(), np.zeros(1, np.int64)
    offsets = np.array([0, len(data)], np.int64)
    count_comments(offsets, np.frombuffer(data, np.uint8), SYNTAX_OF[[EXTENSIONS.index(extension)]], comments)
    assert comments[0] == num


def test_the_share_of_comments():
    """Off by default; of languages whose comments are known."""
    code = "x = value\n" * 99 + "# 789\n"  # 5 characters of 996: less than 0.01
    assert judge(code) is None
    assert judge(code, min_comments=100) == ("min_comments", "5/996")
    assert judge(code, "a.unknown", min_comments=100) is None
    assert judge("# words but\nxy", max_comments=8_000) is None  # 11 of 14
    assert judge("# words but\nx", max_comments=8_000) == ("max_comments", "11/13")
    assert len(set(EXTENSIONS)) == len(EXTENSIONS)


HOSTILE = [
    "a", " ", "\n", "\0", "QUJD", "4 ", "41 ", "41", "0x4", "\\x41", "\\u0041", "\\u004", "\\", "<", "<a ", "<a b='",
    "&", "&a", "<!--", "<script>", '"', "'''", "/*", "(*", "\u202e\u200b", "\U000e0fff", "\r", "41\u3000", "# ", "--[[",
]  # fmt: skip


@pytest.mark.parametrize("path", ["a.html", "a.py", "a.lua", "a.js", "a.ipynb"])
def test_hostile_texts_are_bounded(path):
    """Half a million bytes of each, in a time that only linear work takes; no exception."""
    judge("warm")
    for unit in HOSTILE:
        start = time.process_time()
        judge(unit * (500_000 // len(unit.encode())), path)
        assert time.process_time() - start < 1, unit


def test_bytes_that_are_no_utf8():
    """A cut sequence at the end of a row takes nothing from the next one."""
    offsets, data = np.array([0, 2, 4, 7], np.int64), b"a\xe4bc4\xff\x80"
    column = pa.Array.from_buffers(pa.large_string(), 3, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    stats = statistics(column, np.full(3, IS_HTML | IS_SCRIPT, np.int64), 5)
    assert stats[:, 0].tolist() == [2, 2, 3]
    assert stats[:, 6].tolist() == [1, 0, 2]
