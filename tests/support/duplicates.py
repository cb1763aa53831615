"""A small corpus with duplicates of every kind, made of real web texts, and its recipe."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import yaml
from runs import SHARED

C4 = SHARED / "web_text/c4_sample/c4_demo.jsonl"
SOURCES = ("news", "mirror", "late")
FOOTER = "All rights of the publisher are reserved, and no part of this page may be copied without a letter from him."
NUM_TEXTS = 100
"""Texts of the sample that are used."""

NEAR = {"shape": {"bands": 10, "rows": 2, "unit": "word", "ngram": 3}, "threshold": 8_000}
"""Few rows, so that documents of 60% shared boilerplate crowd the buckets."""
DEDUPLICATE = {
    "exact": "all",
    "url": "all",
    "near": NEAR,
    "passages": {"lines": 1, "paragraphs": 1},
    "for_later_runs": True,
}


class Row(NamedTuple):
    """A document of the corpus."""

    id: str
    url: str
    text: str
    timestamp: str


def corpus() -> dict[str, list[Row]]:
    """Return the documents of each source.

    - copies: of a text, in the same source and in others
    - pages: one URL, other texts; of every second one the text that goes, and one similar to another that stays, are
      there once more under other URLs
    - edits: of a text, with some of its words changed, from a few to too many
    - chain: windows that move on over one long text, each similar to the next ones alone
    - forms: 60% of boilerplate, so that one bucket holds all of them and few are similar
    - footers: one long line under many, and a document that has nothing else
    """
    random_ = random.Random(7)
    lines = C4.read_text().splitlines()
    texts = [text for line in lines if 400 <= len(text := json.loads(line)["text"]) <= 1600]
    web, stray = texts[:NUM_TEXTS], " ".join(texts[NUM_TEXTS:]).split()
    made: list[tuple[str, str, str]] = []  # source, url or nothing, text
    for place, text in enumerate(web):
        source = SOURCES[place % 3]
        with_footer = f"{text}\n{FOOTER}" if place % 4 == 0 else text
        made.append((source, "", with_footer))
        if place % 5 == 0:
            made += [(one, "", with_footer) for one in random_.choices(SOURCES, k=2)]
        if place % 3 == 0:
            for share in (0.005, 0.02, 0.05, 0.3):
                made.append((random_.choice(SOURCES), "", edited(text, share, stray, random_)))
    for place in range(8):
        url, copied = f"http://page.example/{place}", place % 2 == 0
        pages = [" ".join([f"Version {version}.", *random_.choices(stray, k=80)]) for version in range(3)]
        if copied:
            pages[0] = edited(web[3 * place], 0.01, stray, random_)
        for source, page in zip(SOURCES, pages, strict=True):
            made.append((source, url, page))
            if copied:
                made.append((random_.choice(SOURCES), "", page))
    walk = random_.choices(stray, k=900)
    made += [(random_.choice(SOURCES), "", " ".join(walk[at : at + 300])) for at in range(0, 600, 12)]
    form = " ".join(random_.choices(stray, k=60))
    for place in range(60):
        made.append((SOURCES[place % 3], "", f"{form} {' '.join(random_.choices(stray, k=40))}"))
        if place % 5 == 0:
            source, _, text = made[-1]
            made.append((random_.choice(SOURCES), "", f"{text} {random_.choice(stray)}"))
    made.insert(30, ("late", "", FOOTER))
    rows: dict[str, list[Row]] = {source: [] for source in SOURCES}
    for number, (source, url, text) in enumerate(made):
        date = f"2020-01-{1 + number % 28:02d}T00:00:00Z"
        rows[source].append(Row(str(number), url or f"http://{source}.example/{number}", text, date))
    return rows


def edited(text: str, share: float, words: Sequence[str], random_: random.Random) -> str:
    """Return a text in which about this share of the words are others, on one line."""
    return " ".join(random_.choice(words) if random_.random() < share else word for word in text.split())


def write_corpus(folder: Path, rows: Mapping[str, Sequence[Row]], num_files: int = 3) -> None:
    """Write each source as so many files of JSON lines."""
    for source, some in rows.items():
        (folder / source).mkdir(parents=True)
        for number in range(num_files):
            lines = (json.dumps(row._asdict()) + "\n" for row in some[number::num_files])
            (folder / source / f"{number}.jsonl").write_text("".join(lines))


def write_recipe(path: Path, inputs: Path, sources: Sequence[str], deduplicate: Mapping[str, object]) -> Path:
    """Write a recipe of these sources of a written corpus and return its path."""
    entries = {
        source: {"reader": "table", "schema": "c4", "id": "id", "root": str(inputs / source), "include": ["*.jsonl"]}
        for source in sources
    }
    recipe = {"name": "duplicates", "sources": entries, "deduplicate": dict(deduplicate), "output": {"buckets": 2}}
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def word_shingles(text: str, ngram: int) -> set[tuple[str, ...]]:
    """Return the word shingles of a text in a script with spaces, by the definition in `shingles.py`, in plain Python.

    The words themselves, not their hashes.
    """
    words = list(_words(text))
    if not words:
        return set()
    return {tuple(words[at : at + ngram]) for at in range(max(1, len(words) - ngram + 1))}


def _words(text: str) -> Iterator[str]:
    word = ""
    for character in text:
        kind = unicodedata.category(character)[0]
        if kind in "LN":
            word += _folded(character)
        elif kind != "M" and word:
            yield word
            word = ""
    if word:
        yield word


@cache
def _folded(letter: str) -> str:
    base = _bases(_bases(letter).lower())
    if base == "" or (len(base) == 1 and unicodedata.category(base)[0] in "LN"):
        return base
    return letter.lower() if len(letter.lower()) == 1 else letter


def _bases(letters: str) -> str:
    return "".join(part for part in unicodedata.normalize("NFKD", letters) if unicodedata.category(part)[0] != "M")


def rows_of_table(output: Path, stage: str, table: str) -> list[dict[str, Any]]:
    """Return the rows of a stage's table, in the order of its files; a stage is named with or without its number."""
    [folder] = [path for path in (output / "stages").iterdir() if stage in (path.name, path.name.partition("-")[2])]
    files = sorted((folder / table).iterdir()) if (folder / table).exists() else []
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def rounds_of(output: Path) -> int:
    """Return how many rounds of near-deduplication a run took."""
    return len({path.parts[-3] for path in output.glob("stages/*-round-*-decide/commits/*.json")})
