"""Main content by every extractor on the same pages in one run: quality by one formula, speed in CPU seconds.

    python benchmarks/extraction.py [--work DIR] [--data ../shared/data] [--json FILE]

Quality of ours is by 5-fold cross-validation grouped by site: every page's text is from a model that saw no page of its
site. F1 is the mean over pages of scrapinghub's formula (scores.py). Gate, over the 91 scrapinghub pages:
`paired_difference` (mean F1 of ours less trafilatura's precision mode) with `paired_difference_low`, the lower end of
its 95% bootstrap interval by site, and `speed_ratio_to_trafilatura`: the shipped model against the precision mode. Ours
takes the page as UTF-8, the others as str: decoding is left out on both sides, making the text is in on both.

Beside it, ungated: news whose gold is from parsers written for each publisher (fundus), Readability's fixtures (their
gold is Readability's own output), and the snippets of the pages whose snippets chose no label. Pages come from
DIR/labelled_pages.parquet; where it is missing, it is made of the collections that can be had.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.main_content.content import main_content
from pipelines.main_content.training.catalogue import GATE, REPORT
from pipelines.main_content.training.crossval import out_of_fold
from pipelines.main_content.training.pages import LABELLED_FILE, build
from pipelines.main_content.training.references import PRECISION, TOOLS, page_hash, references
from pipelines.main_content.training.scores import (
    SnippetScore,
    mean_scores,
    page_score,
    paired_bootstrap,
    snippet_score,
)

OURS = "headrace"
ROUNDS = 3
SIDE_COLLECTIONS = ("fundus", "mozilla_readability")
"""Collections with gold that are shown beside the gate: by parsers for each publisher, by Readability itself."""
MIN_LANGUAGE_PAGES = 5
"""Languages with fewer pages are together as `others`."""

REPOSITORY = Path(__file__).resolve().parents[1]

Texts = Mapping[str, Mapping[tuple[str, str], str]]
"""Extractor -> page -> text."""


def main() -> None:
    """Measure, print the tables, and write them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--work", type=Path, default=REPOSITORY / "build/extraction", help="folder of the labelled pages"
    )
    parser.add_argument("--data", type=Path, default=REPOSITORY / "../shared/data")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)
    path = arguments.work / LABELLED_FILE
    if not path.exists():
        build(arguments.data, arguments.work, skip_missing=True)
    result = measure(pq.read_table(path), arguments.work)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measure(table: pa.Table, work: Path) -> dict[str, Any]:
    """Return all figures, by the key that they have in the JSON."""
    speed = speeds([page["html"] for page in table.to_pylist() if page["role"] == GATE])
    ours = out_of_fold(table)
    pages = [page for page in table.select(scored_columns(table)).to_pylist() if is_scored(page)]
    texts = {OURS: ours, **reference_texts(pages, work)}
    gate = [page for page in pages if page["role"] == GATE]
    report = [page for page in pages if page["role"] == REPORT]
    difference = paired_f1(gate, texts)
    english = [page for page in report if page["language"] == "en"]
    return {
        "paired_difference": difference["mean"],
        "paired_difference_low": difference["low"],
        "paired_difference_high": difference["high"],
        "speed_ratio_to_trafilatura": speed[OURS] / speed[PRECISION],
        "training_pages": dict(Counter(table["collection"].to_pylist())),
        "pages_per_cpu_second": speed,
        "scrapinghub": quality(gate, texts),
        **{name: quality(of_collection(pages, name), texts) for name in SIDE_COLLECTIONS if of_collection(pages, name)},
        "snippets": snippets_by_language(report, texts),
        "snippets_english_difference": paired_snippets(english, texts),
    }


def scored_columns(table: pa.Table) -> list[str]:
    """Return all columns but the labels' second opinions, which are large."""
    return [name for name in table.column_names if name != "seconds"]


def is_scored(page: Mapping[str, Any]) -> bool:
    """Tell whether a page stands in one of the tables."""
    in_side = page["collection"] in SIDE_COLLECTIONS and page["gold_kind"] in ("tool", "parser")
    return page["role"] in (GATE, REPORT) or in_side


def of_collection(pages: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the pages of one collection."""
    return [page for page in pages if page["collection"] == name]


def reference_texts(pages: list[dict[str, Any]], work: Path) -> dict[str, dict[tuple[str, str], str]]:
    """Return the other extractors' texts, cached in the work folder."""
    by_hash = references((page["html"].decode() for page in pages), work)
    found = {key(page): by_hash[page_hash(page["html"].decode())] for page in pages}
    return {tool: {name: texts[tool] for name, texts in found.items()} for tool in TOOLS}


def quality(pages: list[dict[str, Any]], texts: Texts) -> dict[str, dict[str, float]]:
    """Return each extractor's means over pages with gold."""
    return {
        name: dataclasses.asdict(mean_scores([page_score(found[key(page)], page["gold"]) for page in pages]))
        for name, found in texts.items()
    }


def paired_f1(pages: list[dict[str, Any]], texts: Texts) -> dict[str, float]:
    """Return the difference in F1 of ours to the precision mode, page by page."""
    ours, theirs = (
        [page_score(texts[name][key(page)], page["gold"]).f1 for page in pages] for name in (OURS, PRECISION)
    )
    return paired(ours, theirs, pages)


def paired_snippets(pages: list[dict[str, Any]], texts: Texts) -> dict[str, float]:
    """Return the difference in the pages' snippet scores of ours to the precision mode."""
    ours, theirs = ([snippets(page, texts[name]).mean for page in pages] for name in (OURS, PRECISION))
    return paired(ours, theirs, pages)


def paired(ours: list[float], theirs: list[float], pages: list[dict[str, Any]]) -> dict[str, float]:
    """Return mean and interval of the differences, drawn by site."""
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    return dataclasses.asdict(paired_bootstrap(differences, [page["site"] for page in pages]))


def snippets_by_language(pages: list[dict[str, Any]], texts: Texts) -> dict[str, dict[str, Any]]:
    """Return for each language, and for all, each extractor's share of snippets that are where they should be."""
    counts = Counter(page["language"] for page in pages)
    groups: dict[str, list[dict[str, Any]]] = {"all": pages}
    for page in pages:
        language = page["language"] or "undeclared"
        frequent = counts[page["language"]] >= MIN_LANGUAGE_PAGES
        groups.setdefault(language if frequent else "others", []).append(page)
    return {language: snippet_means(group, texts) for language, group in groups.items()}


def snippet_means(pages: list[dict[str, Any]], texts: Texts) -> dict[str, Any]:
    """Return the mean of both shares over all snippets of some pages, by extractor."""
    nothing = SnippetScore(0, 0, 0, 0)
    means = {name: sum((snippets(page, found) for page in pages), nothing).mean for name, found in texts.items()}
    return {"pages": len(pages), **means}


def snippets(page: Mapping[str, Any], found: Mapping[tuple[str, str], str]) -> SnippetScore:
    """Return one page's snippet score."""
    return snippet_score(found[key(page)], page["snippets_with"], page["snippets_without"])


def key(page: Mapping[str, Any]) -> tuple[str, str]:
    """Return what names a page."""
    return page["collection"], page["page_id"]


def speeds(pages: list[bytes]) -> dict[str, float]:
    """Return pages per CPU second of this process, best of three rounds in which all extractors take turns."""
    decoded = [page.decode() for page in pages]
    main_content(pages[0])  # compiles
    tasks: dict[str, Callable[[], object]] = {OURS: lambda: [main_content(page).text for page in pages]}
    for name, tool in TOOLS.items():
        tasks[name] = partial(run_all, tool, decoded)
    best = dict.fromkeys(tasks, float("inf"))
    for _ in range(ROUNDS):
        for name, task in tasks.items():
            start = time.process_time()
            task()
            best[name] = min(best[name], time.process_time() - start)
    return {name: len(pages) / seconds for name, seconds in best.items()}


def run_all(tool: Callable[[str], str], pages: list[str]) -> list[str]:
    """Return a library's texts of all pages."""
    return [attempt(tool, page) for page in pages]


def attempt(tool: Callable[[str], str], page: str) -> str:
    """Return a library's text, or nothing where it raises."""
    try:
        return tool(page)
    except Exception as error:  # a peer may fail in any way
        logging.debug("%s", error)
        return ""


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    for collection in ("scrapinghub", *(name for name in SIDE_COLLECTIONS if name in result)):
        print(f"\n{collection:24} {'pages':>5} {'F1':>6} {'P':>6} {'R':>6} {'published':>9} {'pages/CPU s':>11}")
        for name, row in result[collection].items():
            figures = " ".join(f"{row[column]:6.4f}" for column in ("f1", "precision", "recall"))
            rate = result["pages_per_cpu_second"][name]
            print(f"{name:24} {row['pages']:5} {figures} {row['published_f1']:9.4f} {rate:11,.0f}")
    names = [OURS, *TOOLS]
    print(f"\n{'snippets':12} {'pages':>5} " + " ".join(f"{name:>21}" for name in names))
    for language, row in result["snippets"].items():
        print(f"{language:12} {row['pages']:5} " + " ".join(f"{row[name]:21.3f}" for name in names))
    english = " ".join(f"{name} {value:+.4f}" for name, value in result["snippets_english_difference"].items())
    print(f"\nEnglish snippets by page, ours less precision mode: {english}")
    for name in ("paired_difference", "paired_difference_low", "paired_difference_high", "speed_ratio_to_trafilatura"):
        print(f"{name:28} {result[name]:+.4f}")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
