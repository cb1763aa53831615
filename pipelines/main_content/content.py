"""Main content of a page: scanned, its blocks judged by two stages of trees, the best choice written as text.

What the text looks like is in `render.py`.
"""

from __future__ import annotations

import dataclasses
import html
import re
import threading

import numpy as np

from pipelines.main_content import scan as s
from pipelines.main_content.choice import MODES, Mode, add_comments, choose, complete_rows, drop_duplicates
from pipelines.main_content.features import CONTEXT, FEATURES, add_context, block_features
from pipelines.main_content.render import render
from pipelines.main_content.trees import Model, load_model

MAX_TITLE = 1_000
"""Characters of a title that are kept."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?", re.ASCII)
_JSON_DATE = re.compile(rb'"datePublished"\s*:\s*"([^"]{8,40})"')
_CONTROL = re.compile(r"[\0-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]")
_LONG_NUMBER = re.compile(r"&#[xX]?[0-9a-fA-F]{20,};?")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:[-_][a-z0-9]{1,8}){0,3}(?![a-z0-9])")

_threads = threading.local()


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """What a page holds, and what it cost."""

    text: str
    title: str | None
    published: str | None
    """ISO 8601 as the page states it."""
    language_hint: str | None
    """A BCP 47 tag in lower case, from `lang` of the html element, else from a meta element."""
    nodes: int
    """Elements, or blocks of text where there are more."""
    depth: int
    """Open elements at once, inline ones apart."""
    attributes: int
    """Of the tag that has most."""
    steps: int
    """Open elements that were looked at to find which one a tag ends."""


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """What a page may have; the text of one that has more is not looked for."""

    nodes: int = 100_000
    depth: int = 512
    attributes: int = 10_000


def main_content(
    page: bytes | memoryview, mode: Mode = "balanced", comments: bool = False, bounds: Bounds = Bounds()
) -> Content:
    """Return the main content of `page`, which is valid UTF-8; no text where it is beyond the bounds.

    `comments`: readers' comments too, where the page names them so.
    """
    if not hasattr(_threads, "scanner"):
        _threads.scanner = s.Scanner()
    scan = _threads.scanner.scan(np.frombuffer(page, np.uint8))
    nodes, depth, attributes = (int(scan.state[place]) for place in (s.ELEMENTS, s.DEEPEST, s.ATTRIBUTES))
    depth -= 1  # the page itself is the first
    nodes = max(nodes, len(scan.blocks))
    fits = nodes <= bounds.nodes and depth <= bounds.depth and attributes <= bounds.attributes
    return Content(
        text=render(scan, chosen_blocks(scan, load_model(), mode, comments)) if fits else "",
        title=_title(scan),
        published=_published(scan, page),
        language_hint=_language_hint(scan),
        nodes=nodes,
        depth=depth,
        attributes=attributes,
        steps=int(scan.state[s.STEPS]),
    )


def chosen_blocks(scan: s.Scan, model: Model, mode: Mode = "balanced", comments: bool = False) -> np.ndarray:
    """Return which of a page's blocks are main content, bool of shape (blocks,)."""
    features, clusters = block_features(scan, len(FEATURES) + len(CONTEXT))
    if not len(features):
        return np.zeros(0, np.bool_)
    add_context(scan.blocks, scan.nodes, clusters, model.first.probabilities(features), features, len(FEATURES))
    chosen = choose(scan.blocks, scan.nodes, model.second.probabilities(features), MODES.index(mode))
    complete_rows(scan.blocks, scan.nodes, chosen)
    if comments:
        add_comments(scan.blocks, scan.nodes, chosen)
    drop_duplicates(scan.text, scan.blocks, scan.nodes, chosen)
    return chosen


def _title(scan: s.Scan) -> str | None:
    """Return og:title, else the title element, white space collapsed."""
    for place in (s.META_TITLE_SPAN, s.TITLE_SPAN):
        title = _LONG_NUMBER.sub("\ufffd", (scan.span(place) or "")[: 8 * MAX_TITLE])
        title = " ".join(_CONTROL.sub("", html.unescape(title)).split())
        if title:
            return title[:MAX_TITLE]
    return None


def _published(scan: s.Scan, page: bytes | memoryview) -> str | None:
    """Return the date of publication from meta elements, else JSON-LD, else the first time element."""
    for place in (s.PUBLISHED_SPAN, s.TIME_SPAN):
        match = _DATE.match((scan.span(place) or "").strip())
        if match:
            return match[0]
        if place == s.PUBLISHED_SPAN:
            found = _JSON_DATE.search(page)
            match = _DATE.match(found[1].decode("ascii", "replace")) if found else None
            if match:
                return match[0]
    return None


def _language_hint(scan: s.Scan) -> str | None:
    """Return what the page says its language is."""
    for place in (s.LANGUAGE_SPAN, s.LOCALE_SPAN):
        match = _LANGUAGE.match((scan.span(place) or "").strip().lower())
        if match:
            return match[0].replace("_", "-")
    return None
