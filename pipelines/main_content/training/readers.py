"""How the files of each collection become pages. A reader is `(collection, folder) -> pages`, in a fixed order."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pipelines.main_content.training.catalogue import Collection, Page, language_of
from pipelines.main_content.training.references import plain_text
from pipelines.main_content.training.scores import shingle_score, shingles, site_of
from pipelines.sources.archive import Origin, Record, read_origin
from pipelines.sources.http_message import parse_message
from pipelines.transforms.charset import decode

MAX_RECORD_BYTES = 8 << 20

MIN_OWN_BODY = 0.8
"""Share of a body's shingles that its page holds; what scripts put in is missing, other pages' bodies are near 0."""

MAX_SNIPPET = 300
"""Characters; longer lines are often joined from several elements."""

_CANONICAL = re.compile(
    r"<(?:link\b[^>]{0,200}\brel=[\"']?canonical[\"']?[^>]{0,200}?\bhref"
    r"|meta\b[^>]{0,200}\b(?:property|name)=[\"']?og:url[\"']?[^>]{0,200}?\bcontent)=[\"']?(https?://[^\"'\s>]+)",
    re.IGNORECASE,
)

Reader = Callable[[Collection, Path], Iterator[Page]]


def make_page(
    collection: Collection,
    page_id: str,
    content: bytes | str,
    *,
    url: str | None = None,
    gold: str | None = None,
    snippets: tuple[list[str], list[str]] = ([], []),
) -> Page:
    """Make a page; URL and language are taken from the page where nobody else knows them."""
    html = content if isinstance(content, str) else decode(content, None)
    html = html.encode("utf-8", "replace").decode()  # no lone surrogates
    url = url or _own_url(html)
    return Page(
        collection=collection.name,
        page_id=page_id,
        site=site_of(url or "") or f"{collection.name}/{page_id}",
        url=url,
        language=collection.language or language_of(html),
        html=html,
        gold=gold,
        gold_kind=collection.label,
        weight=collection.weight,
        role=collection.role,
        snippets_with=tuple(snippets[0]),
        snippets_without=tuple(snippets[1]),
    )


def scrapinghub(collection: Collection, folder: Path) -> Iterator[Page]:
    """Read html/ID.html.gz and ground-truth.json (ID -> url, articleBody)."""
    truth = json.loads((folder / "ground-truth.json").read_text(encoding="utf-8"))
    for file in sorted((folder / "html").glob("*.html.gz")):
        page_id = file.name.removesuffix(".html.gz")
        gold = truth[page_id]
        yield make_page(
            collection, page_id, gzip.decompress(file.read_bytes()), url=gold["url"], gold=gold["articleBody"]
        )


def mozilla_readability(collection: Collection, folder: Path) -> Iterator[Page]:
    """Read NAME/source.html and NAME/expected.html."""
    for source in sorted(folder.rglob("source.html")):
        expected = source.with_name("expected.html").read_text(encoding="utf-8")
        yield make_page(collection, source.parent.name, source.read_bytes(), gold=plain_text(expected))


def trafilatura_snippets(collection: Collection, folder: Path) -> Iterator[Page]:
    """Read the pages that html_gold/trafilatura/gold_snippets.jsonl points to, in warc/built_from_real_html."""
    lines = (folder / "html_gold/trafilatura/gold_snippets.jsonl").read_text(encoding="utf-8").splitlines()
    for entry in map(json.loads, lines):
        with (folder / "warc/built_from_real_html" / entry["warc"]).open("rb") as file:
            record = read_origin(file, Origin(entry["offset"], entry["length"], 0), MAX_RECORD_BYTES)
        assert isinstance(record, Record)
        snippets = entry["with"], entry["without"]
        yield make_page(
            collection, entry["eval_key"], bytes(parse_message(record.block).body), url=entry["url"], snippets=snippets
        )


def fundus(collection: Collection, folder: Path) -> Iterator[Page]:
    """Read COUNTRY/PUBLISHER_DATE.html.gz with meta.info (the URLs) and PUBLISHER.json (what the parser must give).

    The JSON has the bodies of several versions of a publisher's pages and does not say which is whose: a body is a
    page's when nearly all of it stands in the page's text. A page without one has no gold.
    """
    for file in sorted(folder.rglob("*.html.gz")):
        html = decode(gzip.decompress(file.read_bytes()), None)
        url = json.loads((file.parent / "meta.info").read_text(encoding="utf-8")).get(file.name, {}).get("url")
        bodies = json.loads((file.parent / f"{file.name.split('_')[0]}.json").read_text(encoding="utf-8"))
        page_id = file.relative_to(folder).as_posix()
        yield make_page(collection, page_id, html, url=url, gold=_own_body(html, [*map(_body_text, bodies.values())]))


READERS: dict[str, Reader] = {
    "fundus": fundus,
    "mozilla_readability": mozilla_readability,
    "scrapinghub": scrapinghub,
    "trafilatura_snippets": trafilatura_snippets,
}


def _body_text(version: dict[str, Any]) -> str:
    """Return the text of one body: summary, then sections with their headlines and paragraphs."""
    body = version.get("body") or {"summary": [], "sections": []}
    sections = [[*section["headline"], *section["paragraphs"]] for section in body["sections"]]
    return "\n\n".join([*body["summary"], *chain.from_iterable(sections)])


def _own_body(html: str, bodies: list[str]) -> str | None:
    page = shingles(plain_text(html))
    recalls = {body: shingle_score(page, shingles(body)).recall for body in bodies if body}
    best = max(recalls, key=recalls.__getitem__, default=None)
    return best if best is not None and recalls[best] >= MIN_OWN_BODY else None


def _own_url(html: str) -> str | None:
    found = _CANONICAL.search(html, 0, 200_000)
    return found[1] if found else None
