"""Declarations of pages, by hand: what counts as a tag, what does not, and hostile pages in linear time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import batch_of, document

from pipelines.transforms.page_tags import MAX_BYTES, MAX_HITS, declarations

NAMES = ("robots", "tdm-reservation")


def declared(*pages: bytes) -> list[tuple[int, str, str]]:
    rows = [document(None, content=page, natural_key=str(place)) for place, page in enumerate(pages)]
    return [tuple(one) for one in declarations(batch_of(rows), NAMES, links=True)]


@pytest.mark.parametrize(
    "page",
    [
        b"<meta name=robots content=noai>",
        b"<META CONTENT='noai' NAME=\"Robots\">", b"<meta\nname = robots\tcontent= noai />",
        b"<meta name='rob&#111;ts' content='no&#x61;i'>", b"<p title='>'><meta property=robots content=noai",
        b"<meta data-x='name=' name=' robots ' name=other content=noai content=x>",
        b"<!-- > --><!doctype html><meta/name='robots'/content=noai>",
        b"<script>'<!--'</script><meta name=robots content=noai>", b"\xef\xbb\xbf<meta name=robots content=noai>",
        b"<!---><meta name=robots content=noai>", b"<a <meta><meta name=robots content=noai>",
        "<meta name=robots content=noai>".encode("utf-16"),
        b"\xfe\xff" + "<meta name=robots content=noai>".encode("utf-16-be"),
        "<title>Вода</title><meta name=robots content=noai>".encode("koi8-r"),
        b"<body><meta name=robots content=noai>",
    ],
)  # fmt: skip
def test_what_counts(page):
    [(row, name, value)] = declared(page)
    assert (row, name, value.rstrip("/")) == (0, "robots", "noai")


@pytest.mark.parametrize(
    "page",
    [
        b"", b"noai", b"<!-- <meta name=robots content=noai> -->", b"<!-- <meta name=robots content=noai>",
        b"<script><meta name=robots content=noai></script>", b"<style><meta name=robots content=noai>",
        b"<textarea><meta name=robots content=noai></textarea>", b"</meta name=robots content=noai>",
        b"<meta name=robots>", b"<meta content=noai>", b"<meta name=robotss content=noai>",
        b"<metaname=robots content=noai>",
        b"<p title='<meta name=robots content=noai>'>", b"<meta =name=robots content=noai>",
        b"< meta name=robots content=noai>",
        b"<meta name=robots/content=noai>", b"&lt;meta name=robots content=noai&gt;", b"<link rel=licensed href=x>",
        b"<a rel='licence' href=x>", b"<a href=license rel=x>", b"<a rel=license>", b"<img rel=license href=x>",
    ],
)  # fmt: skip
def test_what_does_not(page):
    assert declared(page) == []


def test_links_of_licences_in_order_with_their_rows():
    found = declared(
        b"<a rel='nofollow\nLicense' href='//x/y?a&amp;b'>",
        b"<p>",
        b"<link href=l rel=license><area rel=licen&#115;e href=m>",
    )
    assert found == [(0, "rel=license", "//x/y?a&b"), (2, "rel=license", "l"), (2, "rel=license", "m")]


def test_a_page_gives_so_many_and_the_next_one_its_own():
    page = b"<meta name=robots content=noai>"
    found = declared(page * (MAX_HITS + 9), page)
    assert [row for row, _, _ in found] == [0] * MAX_HITS + [1]
    assert declared(b" " * MAX_BYTES + page) == []


HOSTILE = (
    *(
        b"<meta ",
        b"<!--",
        b"<!",
        b"<",
        b"</",
        b"<a rel=",
        b"<script>",
        b"<meta name='",
        b"<a rel='licens",
        b"<meta name=&",
    ),
    *(
        b"<meta name=robots content=noai>",
        b"<meta name=",
        b"\0",
        b"<\0",
        b"<script></scrip",
        b"<!-- -- ->",
        b"<a " + b"b=c " * 9,
    ),
)


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_pages_take_linear_time(piece):
    """Eight times the bytes take less than 30 times the time (quadratic: 64), and less than 3 CPU seconds."""
    declared(piece * 9)
    seconds = []
    for size in (1_250_000, 10_000_000):
        page = piece * (size // len(piece))
        start = time.process_time()
        declared(page)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 30 * max(seconds[0], 0.01)
    assert seconds[1] < 3


@settings(max_examples=200)
@given(st.lists(st.sampled_from([*HOSTILE, b">", b"'", b"-->", b"</script>", b" ", b"="]), max_size=30).map(b"".join))
def test_any_page(page):
    """Nothing fails, and a tag that begins the page is found whatever comes behind it."""
    declared(page)
    assert declared(b"<meta name=tdm-reservation content=1>" + page)[0] == (0, "tdm-reservation", "1")
