"""The catalogue, the readers, and what is left out of the collections."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.main_content.training.catalogue import (
    GATE,
    Collection,
    Package,
    Page,
    PagesError,
    language_of,
    read_collections,
)
from pipelines.main_content.training.pages import SCHEMA, build, read_pages
from pipelines.main_content.training.readers import READERS, make_page

DATA = Path(__file__).resolve().parents[4] / "../shared/data"

real_pages = pytest.mark.skipif(not (DATA / "html_gold").is_dir(), reason="the real pages are not here")


def collection(**fields: object) -> Collection:
    entry = {
        "name": "some",
        "about": "",
        "licence": "",
        "folder": ".",
        "reader": "html_files",
        "label": "none",
        "role": "train",
        "weight": 1.0,
        **fields,
    }
    return Collection.parse(entry)


def read(folder: Path, **fields: object) -> list[Page]:
    entry = collection(**fields)
    return list(READERS[entry.reader](entry, folder))


def test_the_catalogue_names_readers_and_pins_everything_that_is_fetched() -> None:
    collections = read_collections()
    assert len({entry.name for entry in collections}) == len(collections)
    assert collections[0].role == GATE  # so that nobody else's pages come before it
    assert [entry.name for entry in collections if entry.role == GATE] == ["scrapinghub"]
    for entry in collections:
        assert entry.reader in READERS
        assert (entry.folder is None) != (entry.package is None)
        assert entry.package is None or len(entry.package.pin) == (40 if entry.package.registry == "github" else 64)
        assert 0 < entry.weight <= 1
        assert entry.licence


def test_pages_are_decoded_and_say_their_language_and_url() -> None:
    content = (
        '<html lang="de-AT"><meta charset=iso-8859-1><link rel="canonical" href="https://www.Example.co.at/x">Größe'
    ).encode("latin-1")
    page = make_page(collection(), "1", content)
    assert (page.language, page.url, page.site) == ("de", "https://www.Example.co.at/x", "example.co.at")
    assert "Größe" in page.html


def test_a_page_that_says_nothing_is_a_site_of_its_own() -> None:
    page = make_page(collection(), "1", b"<p>x")
    assert (page.language, page.url, page.site) == (None, None, "some/1")


def test_lone_surrogates_do_not_come_through() -> None:
    assert make_page(collection(), "1", "a\ud800b").html == "a?b"


@pytest.mark.parametrize(
    ("markup", "language"),
    [("<html lang=pt-BR>", "pt"), ("<HTML class='x' LANG='zh'>", "zh"), ("<html>", None), ("<p lang=en>", None)],
)
def test_declared_languages(markup: str, language: str | None) -> None:
    assert language_of(markup) == language


def test_fundus_takes_the_body_that_stands_in_the_page(tmp_path: Path) -> None:
    (tmp_path / "de").mkdir()
    for date, words in (
        ("2023_01_01", "eins zwei drei vier"),
        ("2024_01_01", "one two three four"),
        ("2025_01_01", "x"),
    ):
        (tmp_path / f"de/Paper_{date}.html.gz").write_bytes(gzip.compress(f"<p>{words}<h2>five</h2> six".encode()))
    bodies = {
        "V1": {"body": {"summary": [], "sections": [{"headline": [], "paragraphs": ["eins zwei drei vier"]}]}},
        "V2": {"body": {"summary": ["one two"], "sections": [{"headline": ["three"], "paragraphs": ["four five"]}]}},
        "V3": {},
    }
    (tmp_path / "de/Paper.json").write_text(json.dumps(bodies))
    (tmp_path / "de/meta.info").write_text(json.dumps({"Paper_2024_01_01.html.gz": {"url": "https://paper.de/2"}}))
    pages = read(tmp_path, reader="fundus", label="parser")
    assert [page.gold for page in pages] == ["eins zwei drei vier", "one two\n\nthree\n\nfour five", None]
    assert [page.url for page in pages] == [None, "https://paper.de/2", None]


def test_pages_of_the_gate_and_repeated_ones_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pages(entry: Collection, _folder: Path) -> list[Page]:
        markup = {
            "gate": [("https://a.org/x/", "<title>One  story</title>gate")],
            "some": [
                ("http://www.a.org/x?from=feed#top", "<title>Other</title>1"),  # the URL of the gate's page
                ("https://m.a.org/y", "<title>One story</title>2"),  # its site and title
                ("https://b.org/x", "<title>One story</title>3"),  # another site
                ("https://c.org/z", "<title>One story</title>3"),  # the same bytes
                ("https://a.org/", "<title>Home</title>4"),
            ],
        }[entry.name]
        return [make_page(entry, str(number), html, url=url) for number, (url, html) in enumerate(markup)]

    monkeypatch.setitem(READERS, "html_files", pages)
    found, left_out = read_pages([collection(name="gate", role=GATE), collection()], tmp_path, tmp_path)
    assert [page.key for page in found] == [("gate", "0"), ("some", "2"), ("some", "4")]
    assert left_out == Counter({"some: a page of the gate": 2, "some: repeated": 1})


def test_a_collection_that_is_not_there_is_an_error_unless_one_may_do_without(tmp_path: Path) -> None:
    missing = collection(folder="nowhere")
    with pytest.raises(PagesError, match="nowhere is not there"):
        read_pages([missing], tmp_path, tmp_path)
    assert read_pages([missing], tmp_path, tmp_path, skip_missing=True)[0] == []


def test_a_package_needs_its_globs() -> None:
    with pytest.raises(KeyError):
        Collection.parse({"name": "x", "package": {"registry": "pypi", "name": "x", "version": "1"}})
    assert Package("npm", "@a/b", "1", ("*",), "0" * 64).pin == "0" * 64


@real_pages
def test_the_gate_is_written_as_it_is(tmp_path: Path) -> None:
    table = pq.read_table(build(DATA, tmp_path, only=["scrapinghub"]))
    truth = json.loads((DATA / "html_gold/scrapinghub/ground-truth.json").read_text(encoding="utf-8"))
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    assert len(rows) == 91
    assert {row["page_id"]: row["gold"] for row in rows} == {
        name: entry["articleBody"] for name, entry in truth.items() if name in {row["page_id"] for row in rows}
    }
    assert {(row["role"], row["gold_kind"], row["page_weight"]) for row in rows} == {("gate", "hand", 1.0)}
    assert [path.name for path in tmp_path.iterdir() if "parquet" in path.name] == ["labelled_pages.parquet"]


@real_pages
def test_the_pages_with_snippets_are_there_with_their_markup() -> None:
    (entry,) = [one for one in read_collections() if one.name == "trafilatura"]
    pages = list(READERS[entry.reader](entry, DATA))
    assert len(pages) == 707
    assert sum(len(page.snippets_with) for page in pages) == 2_096
    assert sum(len(page.snippets_without) for page in pages) == 2_102
    assert pages[0].site == "die-partei.net"
    assert "Die GEMA dreht völlig am Zeiger!" in pages[0].html
