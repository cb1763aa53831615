"""The pages that the extractor of main content is trained and measured on, with where they come from and their labels.

    python -m pipelines.main_content.training.pages --work DIR [--data ../shared/data]

fetches the collections of pages.yaml, asks the tools about pages without gold, and writes DIR/labelled_pages.parquet,
anew and at once. `html` is the page in UTF-8, whatever it came in. Pages of a site and title, or of a URL, that are
among the gate's are dropped from all other collections, and of equal pages the first stays: how many is printed.
"""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.main_content.training.archives import unpacked
from pipelines.main_content.training.catalogue import GATE, Collection, Page, PagesError, read_collections
from pipelines.main_content.training.labels import TOOL, Label, label_page, role_of
from pipelines.main_content.training.readers import READERS
from pipelines.main_content.training.references import page_hash, references

LABELLED_FILE = "labelled_pages.parquet"
DEFAULT_DATA = Path("../shared/data")

MAX_PAGE_CHARS = 2_000_000
"""Longer pages are left out: the tools need minutes, and nobody learns from them."""

SCHEMA = pa.schema(
    [
        pa.field("collection", pa.string(), nullable=False),
        pa.field("page_id", pa.string(), nullable=False),  # unique within its collection
        pa.field("site", pa.string(), nullable=False),  # registered domain: what folds are grouped by
        pa.field("url", pa.string()),
        pa.field("language", pa.string()),  # primary subtag, lower case, as the page or the collection says
        pa.field("html", pa.large_binary(), nullable=False),  # UTF-8
        pa.field("gold", pa.large_string(), nullable=False),  # the label, whatever it comes from
        pa.field("gold_kind", pa.string(), nullable=False),  # hand, tool, parser, empty, snippets, consensus
        pa.field("seconds", pa.list_(pa.large_string()), nullable=False),  # other opinions
        pa.field("page_weight", pa.float64(), nullable=False),
        pa.field("snippets_with", pa.list_(pa.string()), nullable=False),
        pa.field("snippets_without", pa.list_(pa.string()), nullable=False),
        pa.field("role", pa.string(), nullable=False),  # gate, train, report (trained on; snippets free for scores)
    ]
)

_ADDRESS = re.compile(r"https?://(?:www\.)?(?P<host>[^/?#]+)(?P<path>[^?#]*?)/*(?:[?#]|$)", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>([^<]{1,500})", re.IGNORECASE)


def read_pages(
    collections: Iterable[Collection], data: Path, downloads: Path, skip_missing: bool = False
) -> tuple[list[Page], Counter[str]]:
    """Return the pages of all collections in order, and how many were left out, by collection and reason.

    With `skip_missing`, a collection that cannot be had counts as left out and is no error.
    """
    pages: list[Page] = []
    left_out: Counter[str] = Counter()
    for collection in collections:
        try:
            pages += _kept(_found(collection, data, downloads), pages, left_out)
        except PagesError as error:
            if not skip_missing:
                raise
            left_out[f"{collection.name}: {str(error).partition(chr(10))[0]}"] += 1
    return pages, left_out


def labelled_table(pages: Iterable[Page], labels: Iterable[Label]) -> pa.Table:
    """Return the rows of labelled_pages.parquet."""
    rows = [
        {
            **{name: getattr(page, name) for name in ("collection", "page_id", "site", "url", "language")},
            "role": role_of(page),
            "html": page.html.encode(),
            "gold": label.text,
            "gold_kind": label.kind,
            "seconds": label.seconds,
            "page_weight": label.weight,
            "snippets_with": page.snippets_with,
            "snippets_without": page.snippets_without,
        }
        for page, label in zip(pages, labels, strict=True)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def build(
    data: Path,
    work: Path,
    only: Iterable[str] = (),
    skip_missing: bool = False,
    progress: Callable[[str], object] = print,
) -> Path:
    """Read, label and write all pages (or those of some collections); return the table's path."""
    work.mkdir(parents=True, exist_ok=True)
    chosen = [entry for entry in read_collections() if not only or entry.name in only]
    pages, left_out = read_pages(chosen, data, work / "downloads", skip_missing)
    texts = references((page.html for page in pages if page.gold is None or page.gold_kind == TOOL), work)
    labels = [label_page(page, texts.get(page_hash(page.html), {})) for page in pages]
    path = work / LABELLED_FILE
    attempt = path.with_suffix(f".{os.getpid()}")
    pq.write_table(labelled_table(pages, labels), attempt, compression="zstd")
    attempt.replace(path)
    progress("\n".join(_summary(pages, labels, left_out)))
    return path


def _found(collection: Collection, data: Path, downloads: Path) -> Iterator[Page]:
    if collection.package is not None:
        folder = unpacked(collection.package, downloads)
    else:
        folder = data / (collection.folder or ".")
        if not folder.is_dir():
            raise PagesError(f"collection {collection.name}: {folder} is not there\nhint: give the folder with --data")
    return READERS[collection.reader](collection, folder)


def _kept(found: Iterable[Page], before: list[Page], left_out: Counter[str]) -> list[Page]:
    """Return the pages that are new and not the gate's."""
    gate = {name for page in before if page.role == GATE for name in _names(page)}
    seen = {page.html for page in before}
    kept = []
    for page in found:
        if page.html in seen:
            left_out[f"{page.collection}: repeated"] += 1
        elif len(page.html) > MAX_PAGE_CHARS:
            left_out[f"{page.collection}: too long"] += 1
        elif page.role != GATE and not gate.isdisjoint(_names(page)):
            left_out[f"{page.collection}: a page of the gate"] += 1
        else:
            seen.add(page.html)
            kept.append(page)
    return kept


def _names(page: Page) -> set[tuple[str, ...]]:
    """Return what a page is known by: its URL without scheme, query and fragment, and its site with its title."""
    names: set[tuple[str, ...]] = set()
    address = _ADDRESS.match(page.url or "")
    if address is not None and address["path"]:
        names.add(("url", address["host"].lower(), address["path"]))
    title = _TITLE.search(page.html)
    if title is not None:
        names.add(("title", page.site, " ".join(title[1].split()).lower()))
    return names


def _summary(pages: list[Page], labels: list[Label], left_out: Counter[str]) -> Iterator[str]:
    for name in dict.fromkeys(page.collection for page in pages):
        rows = [(page, label) for page, label in zip(pages, labels, strict=True) if page.collection == name]
        kinds = Counter(label.kind for _, label in rows)
        languages = Counter(page.language or "?" for page, _ in rows).most_common(8)
        yield f"{name}: {len(rows)} pages, {dict(kinds)}, {dict(languages)}"
    yield f"left out: {dict(left_out)}"
    yield f"sites: {len({page.site for page in pages})}"


def main() -> None:
    """Run the module as a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for downloads, the tools' texts, the table")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the collections with a `folder`")
    parser.add_argument("--only", action="append", default=[], help="name of a collection; may be repeated")
    parser.add_argument("--skip-missing", action="store_true", help="do without collections that cannot be had")
    arguments = parser.parse_args()
    path = build(arguments.data, arguments.work, arguments.only, arguments.skip_missing, click.echo)
    click.echo(path)


if __name__ == "__main__":
    main()
