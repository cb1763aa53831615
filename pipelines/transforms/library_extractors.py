"""Main content by libraries: resiliparse, trafilatura and readability-lxml, each behind one function of the same form.

`(page, mode, comments) -> text`, where `page` is valid UTF-8 and so is the text, without U+0000. Modes and comments
that a library does not offer are refused before any page is read. These functions run in a child process
(`sandbox.py`): parsers in C crash on some pages, and loops in Python hang. They raise `Failed` where a library fails on
a page; anything else is a fault of the machine or of the installation. No state is kept between pages. Pages a CPU
second, of 76 kB: resiliparse 900, trafilatura 70, readability-lxml 66.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from pipelines.transforms.sandbox import Failed

if TYPE_CHECKING:  # the child process needs none of our own extractor
    from pipelines.main_content.choice import Mode

MAX_CAUSE = 200
"""Characters of a library's error message that are kept."""


@dataclasses.dataclass(frozen=True, slots=True)
class Library:
    """Where a sandbox finds a library's function, and which of the options it offers."""

    address: str
    modes: tuple[Mode, ...]
    comments: bool


LIBRARIES = {
    "resiliparse": Library(f"{__name__}:extract_resiliparse", ("balanced",), comments=True),
    "trafilatura": Library(f"{__name__}:extract_trafilatura", ("balanced", "precision", "recall"), comments=True),
    "readability": Library(f"{__name__}:extract_readability", ("balanced",), comments=False),
}


def extract_resiliparse(page: bytes, mode: Mode, comments: bool) -> bytes:
    """Return the main content by resiliparse's rules, with line breaks and list bullets."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    def extract() -> str:
        tree = HTMLTree.parse(page.decode())
        return extract_plain_text(tree, preserve_formatting=True, main_content=True, alt_texts=False, comments=comments)

    return _outcome(extract)


def extract_trafilatura(page: bytes, mode: Mode, comments: bool) -> bytes:
    """Return the main content by trafilatura's rules; empty where it finds none."""
    extract = _trafilatura()

    def extracted() -> str:
        options = {"favor_precision": mode == "precision", "favor_recall": mode == "recall"}
        return extract(page.decode(), include_comments=comments, deduplicate=False, **options) or ""

    return _outcome(extracted)


def extract_readability(page: bytes, mode: Mode, comments: bool) -> bytes:
    """Return the text of the element that readability-lxml chooses and cleans."""
    from readability import Document
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    def extract() -> str:
        chosen = HTMLTree.parse(Document(page.decode()).summary(html_partial=True))
        return extract_plain_text(chosen, preserve_formatting=True, main_content=False, alt_texts=False)

    return _outcome(extract)


@cache
def _trafilatura() -> Callable[..., str | None]:
    """Import trafilatura, and keep its log quiet."""
    from trafilatura import extract

    logging.getLogger("trafilatura").addHandler(logging.NullHandler())
    return extract


def _outcome(extract: Callable[[], str]) -> bytes:
    """Return the text in UTF-8 without U+0000. Raises `Failed` for any error but those of the machine.

    A panic of Rust code is no `Exception` and has a class that no module exports.
    """
    try:
        text = extract().replace("\0", "")
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # whatever a bug over a hostile tree may raise
        raise Failed(f"{type(error).__name__}: {error}"[:MAX_CAUSE]) from error
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
