"""The text as it is written, what the page says of itself, and whole pages with a model made up here."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.main_content import content as c
from pipelines.main_content import render as r
from pipelines.main_content import scan as s
from pipelines.main_content import trees as m
from pipelines.main_content.features import CONTEXT, FEATURES

SCANNER = s.Scanner()


def scanned(page: str) -> s.Scan:
    """Return the scan of a page."""
    return SCANNER.scan(np.frombuffer(page.encode(), np.uint8))


def rendered(page: str, leave: frozenset[int] = frozenset()) -> str:
    """Return the text of all blocks but `leave`."""
    scan = scanned(page)
    return c.render(scan, np.array([row not in leave for row in range(len(scan.blocks))], np.bool_))


# page -> its text
TEXTS = {
    "": "",
    "<h1>T</h1><p>a<p>b": "T\n\na\n\nb",
    "a<br>b<br><br>c": "a\nb\n\nc",
    "<ul><li>a<li>b</ul><p>c": "- a\n- b\n\nc",
    "<p>x<ul><li>a<ul><li>b</ul><li>c</ul><ul><li>d</ul>": "x\n\n- a\n  - b\n- c\n\n- d",
    "<ol><li><p>a<p>b<li>c</ol>": "- a\n  b\n- c",
    "<div><li>a<li>b</div>": "- a\n- b",
    "<table><tr><th>a<th>b<tr><td>c<td>d</table>e": "a | b\nc | d\n\ne",
    "<table><tr><td>a</table><table><tr><td>b</table>": "a\n\nb",
    "<blockquote>a<p>b<blockquote>c</blockquote></blockquote>d": "> a\n\n> b\n\n> > c\n\nd",
    "<blockquote><ul><li>a</ul></blockquote>": "> - a",
    "<pre>\nif x:\n    y\n\n\tz </pre><p>b": "if x:\n    y\n\n\tz\n\nb",
    "<dl><dt>a<dd>b</dl>": "a\n\nb",
    "<p>a <b>b</b> <a href=x>c</a>&amp;</p>": "a b c&",
}


@pytest.mark.parametrize("page", TEXTS)
def test_text(page: str) -> None:
    assert rendered(page) == TEXTS[page]


def test_only_what_is_chosen_is_written() -> None:
    assert rendered("<p>a<p>b<p>c", frozenset({1})) == "a\n\nc"
    assert rendered("<ul><li>a<li>b</ul>", frozenset({0})) == "- b"
    assert rendered("<table><tr><td>a<td>b<td>c</table>", frozenset({1})) == "a | c"
    assert rendered("<p>a", frozenset({0})) == ""


def test_nesting_is_indented_up_to_a_bound() -> None:
    assert rendered("<blockquote>" * 20 + "x") == "> " * r.MAX_NESTING + "x"
    assert rendered("<ul><li>" * 20 + "x") == "  " * (r.MAX_NESTING - 1) + "- x"


def test_the_buffer_holds_the_deepest_nesting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line: 8 quotation marks, 7 indents, the item's mark, a letter, and the end of the line before."""
    sizes: list[int] = []

    def write_nothing(*buffers: np.ndarray) -> int:
        sizes.append(len(buffers[-1]))
        return 0

    monkeypatch.setattr(r, "_render", write_nothing)
    rendered("<blockquote>" * 8 + "<ul><li>" * 8 + "<li>x" * 2_000)
    assert sizes[0] >= 2_000 * (2 * 8 + 2 * 7 + 2 + 1 + 1)


def test_a_page_laid_out_by_a_table_keeps_its_paragraphs() -> None:
    text = rendered("<table><tr><td>menu<td><p>One.</p><p>Two.</p></table>", frozenset({0}))
    assert "|" not in text
    assert text.splitlines()[0] == "One."


def test_code_keeps_the_indentation_of_its_first_line() -> None:
    assert rendered("<pre>\n    a\n    b</pre>") == "    a\n    b"


def test_every_line_of_a_quotation_is_marked() -> None:
    assert rendered("<blockquote>a<br>b</blockquote>") == "> a\n> b"


def test_line_ends_are_line_feeds() -> None:
    assert rendered("<pre>a\r\nb\rc</pre>") == "a\nb\nc"


# page -> title
TITLES = {
    "<title> a\n b </title>": "a b",
    "<title>a &amp; b &#8211; c&nbsp;d</title>": "a & b \u2013 c d",
    "<title>a</title><meta property=og:title content='b &quot;c&quot;'>": 'b "c"',
    "<title>a</title><meta property=og:title content=' '>": "a",
    "<title></title>": None,
    "<title>never closed": "never closed",
    "<p>a": None,
    "": None,
}


@pytest.mark.parametrize("page", TITLES)
def test_title(page: str) -> None:
    assert c._title(scanned(page)) == TITLES[page]


def test_a_title_is_cut() -> None:
    assert c._title(scanned(f"<title>{'a' * 5_000}</title>")) == "a" * c.MAX_TITLE


def test_a_title_with_an_endless_number_has_a_title() -> None:
    assert c._title(scanned(f"<title>a&#{'9' * 5_000};</title>")) is not None


def test_a_title_has_no_controls() -> None:
    assert c._title(scanned("<title>a\0b\x1bc</title>")) == "abc"


# page -> date of publication
DATES = {
    "<meta name=date content=2020-01-02>": "2020-01-02",
    "<meta property=article:published_time content=' 2020-01-02T03:04:05+01:00 '>": "2020-01-02T03:04:05+01:00",
    '<script type=application/ld+json>{"datePublished" : "2020-01-02T03:04Z"}</script>': "2020-01-02T03:04Z",
    "<time datetime=2020-01-02>x</time>": "2020-01-02",
    "<meta name=date content=yesterday><time datetime=2020-01-02>": "2020-01-02",
    '<meta name=date content=2020-01-02><script>"datePublished":"2019-01-02"</script>': "2020-01-02",
    '<time datetime=2020-01-02></time><script>"datePublished":"2019-01-02"</script>': "2019-01-02",
    "<time>2020-01-02</time>": None,
    "<meta name=date content=02.01.2020>": None,
    "": None,
}


@pytest.mark.parametrize("page", DATES)
def test_published(page: str) -> None:
    assert c._published(scanned(page), page.encode()) == DATES[page]


# page -> language
LANGUAGES = {
    "<html lang=de>": "de",
    "<html lang=' en-US '>": "en-us",
    "<html xml:lang=fr>": "fr",
    "<html lang='' ><meta property=og:locale content=pt_BR>": "pt-br",
    "<html lang=zh-Hant-TW>": "zh-hant-tw",
    "<html lang='{{lang}}'>": None,
    "<html lang=x-default>": None,
    "<p lang=de>": None,
    "": None,
}


@pytest.mark.parametrize("page", LANGUAGES)
def test_language_hint(page: str) -> None:
    assert c._language_hint(scanned(page)) == LANGUAGES[page]


def test_a_language_that_is_no_tag_is_no_hint() -> None:
    assert [c._language_hint(scanned(f"<html lang={lang}>")) for lang in ("deutsch", "unknown")] == [None, None]


def test_the_language_in_place_of_a_header() -> None:
    assert c._language_hint(scanned("<meta http-equiv=content-language content=de>")) == "de"


def made_up(seed: int) -> m.Model:
    """Return a model of random trees that finds about half of everything to be content."""
    random = np.random.default_rng(seed)
    stages = [
        m.Trees(
            random.integers(0, columns, (9, m.NUM_INNER)).astype(np.int16),
            random.integers(0, 4, (9, m.NUM_INNER)).astype(np.float32),
            random.integers(-m.LEAF_ONE, m.LEAF_ONE, (9, m.NUM_LEAVES)).astype(np.int32),
        )
        for columns in (len(FEATURES), len(FEATURES) + len(CONTEXT))
    ]
    return m.Model(*stages)


@pytest.fixture
def _model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "load_model", lambda: made_up(1))


@pytest.mark.usefixtures("_model")
@pytest.mark.parametrize("page", [b"", b"<", b"<p>", b" ", b"<!--", b"<title>", b"&", b"<script>x"])
def test_pages_without_text_have_none(page: bytes) -> None:
    found = c.main_content(page)
    assert (found.text if page != b"&" else "", found.published, found.language_hint) == ("", None, None)


@pytest.mark.usefixtures("_model")
def test_a_whole_page_in_every_mode() -> None:
    """A model that finds everything likely: all of it, and what else is known of the page."""
    page = b"<html lang=en><title>T</title><div><p class=a>One, two.</p><p b c>Three.<br>Four.</p></div>"
    for mode in c.MODES:
        found = c.main_content(memoryview(page), mode)
        assert (found.title, found.published, found.language_hint) == ("T", None, "en")
        assert (found.nodes, found.depth, found.attributes) == (6, 2, 2)
        assert set(found.text.split("\n\n")) <= {"One, two.", "Three.\nFour."}
        assert found == c.main_content(page, mode)


@pytest.mark.usefixtures("_model")
def test_a_page_of_end_tags_is_beyond_the_bounds() -> None:
    """150,000 blocks take 800 bytes each, from 5 bytes of page."""
    assert c.main_content(b"x</p>" * 150_000).text == ""


@pytest.mark.parametrize(("leaf", "texts"), [(m.LEAF_ONE, "One.\n\nTwo."), (-m.LEAF_ONE * 20, "")])
def test_what_the_model_says_is_what_is_written(monkeypatch: pytest.MonkeyPatch, leaf: int, texts: str) -> None:
    model = made_up(1)
    for stage in (model.first, model.second):
        stage.leaves[:] = leaf
    monkeypatch.setattr(c, "load_model", lambda: model)
    assert c.main_content(b"<p>One.<p>Two.").text == texts


PARTS = st.sampled_from(
    [
        "<p>", "</p>", "<div class=comments>", "<blockquote>", "<ul><li>", "</ul>", "<table><tr><td>", "<td>", "<tr>",
        "</table>", "<br>", "<pre>", "</pre>", "<h1>", "<a href=x>", "</a>", "word, ", "a b c d e f g h i j k. ",
        "\u4e2d", "&lt;", " ",
    ]
)  # fmt: skip


@pytest.mark.usefixtures("_model")
@settings(max_examples=200, deadline=None)
@given(st.lists(PARTS, max_size=80).map("".join), st.sampled_from(["balanced", "precision", "recall"]), st.booleans())
def test_any_page_gives_the_words_of_its_blocks_in_order(page: str, mode: c.Mode, comments: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(c, "load_model", lambda: made_up(2))
        found = c.main_content(page.encode(), mode, comments)
        assert found == c.main_content(page.encode(), mode, comments)
    assert found.text == found.text.strip("\n")
    assert "\n\n\n" not in found.text or "<pre>" in page
    scan = scanned(page)
    text = scan.text.tobytes()
    whole = b" ".join(text[block[s.START] : block[s.END]] for block in scan.blocks).decode().split()
    rest = iter(whole)
    marks = {"-", ">", "|"}
    assert all(word in rest for word in found.text.split() if word not in marks)


@pytest.mark.usefixtures("_model")
def test_threads_do_not_share_buffers() -> None:
    pages = [f"<p>{letter * 9} b c d e f g h i j k l, m.</p>".encode() * 300 for letter in "xyz"]
    expected = [c.main_content(page) for page in pages]
    found: list[bool] = []

    def extract_often(number: int) -> None:
        found.extend(c.main_content(pages[number]) == expected[number] for _ in range(10))

    threads = [threading.Thread(target=extract_often, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 30
