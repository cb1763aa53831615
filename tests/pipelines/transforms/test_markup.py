"""Counts of markup: golden pages, evasions, and the truth of a real parser as a lower bound."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given, settings
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree, traverse_dom

from pipelines.transforms.charset import decode
from pipelines.transforms.markup import Markup, measure_markup

PAGES = Path(__file__).resolve().parents[3] / "../shared/data/warc/built_from_real_html/trafilatura-eval-00000.warc.gz"

# page -> nodes, depth, attributes
GOLDEN = {
    "": (0, 0, 0),
    "no < markup > at <5 all": (0, 0, 0),
    "<div><section>x</section></div><div></div>": (3, 2, 0),
    # the end tag of an outer block closes the inner one; one that closes nothing is ignored
    "<div><section></div></article><div>": (3, 2, 0),
    # void elements and those that close themselves add no depth
    "<ul><li>a<li>b<br><img src=x></ul><p>c<p>d": (7, 1, 1),
    # b stays open and may be built anew in each of the two paragraphs: 1 + (1 + 1) + (1 + 1)
    "<b><p>x<p>y": (5, 1, 0),
    "<b>x</b><p>x": (2, 1, 0),
    # a second link closes the first
    "<a><a><a>": (5, 1, 0),
    # four attributes, one with ">" in quotes, one with spaces around "="
    "<p a='>' b = \"<div>\" c d/>": (1, 0, 4),
    "<p a=<b>x": (1, 0, 1),
    # comments, also those that end at once; declarations
    "<!-- <div> --><!doctype html><?php <div> ?>": (0, 0, 0),
    "<!--><div>--><!---><div>--><!-- a --!><div>": (3, 3, 0),
    "<!-- <div>": (0, 0, 0),
    "</ <div>><div>": (1, 1, 0),
    # raw text up to its own end tag
    "<script>'<div><b>'</scripty></SCRIPT ><div>": (2, 1, 0),
    "<textarea><div></textarea><title><b></title>": (2, 0, 0),
    # where scripts are no raw text, what is in them counts
    "<svg><style><g><g></style></svg><div>": (5, 3, 0),
    "<select><xmp><div>": (3, 2, 0),
    # end tags do not reach through a table, those of inline elements not through a block
    "<div><table></div><div><table></div>": (4, 4, 0),
    "<span><div></span><span><div></span>": (4, 4, 0),
    "<DIV><Div>": (2, 2, 0),
    "<div": (1, 1, 0),
    "<": (0, 0, 0),
    "</": (0, 0, 0),
    "<!": (0, 0, 0),
    "<!-": (0, 0, 0),
}


@pytest.mark.parametrize("page", GOLDEN)
def test_golden(page: str) -> None:
    """Counts by hand."""
    assert measure_markup(page.encode()) == Markup(*GOLDEN[page])


@pytest.mark.parametrize(
    ("page", "least"),
    [
        ("<div>" * 5_000, 5_000),
        ("<div><!-- </div> -->" * 5_000, 5_000),
        ("<div><p title='</div>'>" * 5_000, 5_000),
        ("<div><script></div></script>" * 5_000, 5_000),
        ("<x-a></x-b>" * 5_000, 5_000),
        ("<table><tr><td>" * 5_000, 5_000),
        ("<b class=1><p>" * 5_000, 5_000),
    ],
)
def test_deep_pages_are_deep_in_any_disguise(page: str, least: int) -> None:
    """End tags that a parser does not see, or that fit nothing, make no page shallower."""
    assert measure_markup(page.encode()).depth >= least


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(page: bytes) -> None:
    """No bytes break it, and there is no more than one element and one attribute for every byte."""
    markup = measure_markup(page)
    assert 0 <= markup.depth <= len(page)
    assert markup.attributes <= len(page)


_TAGS = """
<div> </div> <b> </b> <p> </p> <span> </span> <table> </table> <td> <a> </a> <section> </section> <!-- --> <svg> </svg>
<script> </script> <select> </select> x <ul> <li> </ul> <x> </x> <style> </style> <title> </title>
"""
TAGS = _TAGS.split()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(TAGS), max_size=60))
def test_is_no_less_than_what_a_parser_builds(tags: list[str]) -> None:
    """Elements and depth of the tree are within the counts and what the parser adds (html, head, body, tbody ...)."""
    page = "".join(tags)
    nodes, depth = _parsed(page)
    markup = measure_markup(page.encode())
    assert nodes <= 4 * markup.nodes + 3
    assert depth <= 4 * markup.depth + 6


def _parsed(page: str) -> tuple[int, int]:
    """Return the elements of the parsed page, and how deep they lie."""
    elements: list[int] = [0]
    traverse_dom(
        HTMLTree.parse(page).document, lambda context: elements.append(context.depth), None, elements_only=True
    )
    return len(elements) - 1, max(elements)


@pytest.mark.skipif(not PAGES.exists(), reason="needs ../shared/data")
def test_real_pages_are_far_from_the_bounds() -> None:
    """200 news pages: no more than a quarter of the default bounds, and never less than the parser's own elements."""
    with PAGES.open("rb") as file:
        records = (record.reader.read() for record in ArchiveIterator(file, record_types=WarcRecordType.response))
        pages = [decode(payload, None) for payload, _ in zip(records, range(200), strict=False)]
    for page in pages:
        markup, (nodes, depth) = measure_markup(page.encode()), _parsed(page)
        assert nodes <= markup.nodes * 3 // 2 + 10
        assert depth <= 2 * markup.depth + 10
        assert markup.nodes <= 50_000
        assert markup.depth <= 64
