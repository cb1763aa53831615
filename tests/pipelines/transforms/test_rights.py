"""Rights, by hand: lists, headers and pages, whom a directive is addressed to, and what drops."""

from __future__ import annotations

import re

import lxml.html
import pytest
from rows import batch_of, document
from runs import SHARED

from pipelines.sources.commoncrawl import CommonCrawl
from pipelines.sources.source import BatchLimits, RawAccount
from pipelines.storage.local import LocalStorage
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.rights import Rights


def signals(*, header: str | None = None, page: bytes | None = None, name: str = "X-Robots-Tag", **fields) -> list[str]:
    headers = None if header is None else [{"name": "Date", "value": "noai"}, {"name": name, "value": header}]
    batch = batch_of([document(None, natural_key="x", http_headers=headers, content=page)])
    return Rights(**fields)(batch).column("rights_signals")[0].as_py() or []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("noai", ["noai"]),
        (" NOAI , noImageAI", ["noai", "noimageai"]),
        ("noimageai;noarchive", ["noimageai", "noarchive"]),
        ("none", ["noindex"]),
        ("index, follow", []),
        ("googlebot: noindex, noarchive", []),  # both are for Google's
        ("googlebot: noindex, ccbot: noindex", ["noai"]),
        ("CCBot: noindex, nofollow", ["noai"]),
        ("gptbot:none", ["noai"]),
        ("gptbot: noarchive", ["noarchive"]),
        ("otherbot: noai", []),
        ("max-snippet: -1, max-image-preview: large, noarchive", ["noarchive"]),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST, noai", ["noai"]),
        ("noaix, xnoai, no ai", []),
        ("tdm-reservation", []),
        ("", []),
        (":" * 9999, []),
        ("x" * 5000 + ", noai", []),  # beyond what is looked at
    ],
)
def test_headers(header, expected):
    assert signals(header=header) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("1", ["tdm-reservation"]), (" 1 ", ["tdm-reservation"]), ("0", []), ("", [])]
)
def test_the_reservation(value, expected):
    assert signals(header=value, name="TDM-Reservation") == expected
    assert signals(page=f"<meta name='tdm-reservation' content='{value}'>".encode()) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (b'<meta name="robots" content="noai, noimageai">', ["noai", "noimageai"]),
        (b"<META CONTENT='index,NOARCHIVE' NAME='ROBOTS'>", ["noarchive"]),
        (b"<meta name=googlebot content=noindex>", []),
        (b"<meta name=ccbot content=noindex>", ["noai"]),
        (b"<meta name=Google-Extended content='none'>", ["noai"]),
        (b"<meta name=robots content=max-snippet:-1,noindex>", ["noindex"]),
        (b"<meta name=robots content=noarchive><meta name=gptbot content=noai>", ["noai", "noarchive"]),
        (b"<!-- <meta name=robots content=noai> -->", []),
        ("<meta name=robots content=noai>".encode("utf-16"), ["noai"]),
        (b"noai", []),
        (b"", []),
    ],
)
def test_pages(page, expected):
    assert signals(page=page) == expected


def test_header_and_page_together_and_who_counts():
    assert signals(header="noarchive", page=b"<meta name=robots content=noai>") == ["noai", "noarchive"]
    assert signals(header="mybot: noindex", agents=("mybot",)) == ["noai"]
    assert signals(header="ccbot: noindex", agents=("mybot",)) == []
    assert signals(page=b"<meta name=mybot content=noindex>", agents=("mybot",)) == ["noai"]


def test_what_drops_and_in_which_order(tmp_path):
    (tmp_path / "out").write_text("out.example\nok.example/mine\n")
    (tmp_path / "down").write_text("down.example\nout.example/worse\n")
    lists = {"opt_out": (GivenFile.of(tmp_path / "out"),), "takedown": (GivenFile.of(tmp_path / "down"),)}
    pages = [
        ("http://a.out.example/x", b""), ("https://ok.example/mine/1", b""), ("http://out.example/worse", b""),
        ("http://ok.example/", b"<meta name=robots content=noai>"),
        ("http://ok.example/", b"<meta name=robots content=noarchive>"),
        (None, b"<meta name=tdm-reservation content=1>"), ("http://ok.example/", b""),
        ("http://down.example", b"<meta name=robots content=noai>"),
    ]  # fmt: skip
    batch = batch_of([document(None, natural_key=str(k), url=url, content=page) for k, (url, page) in enumerate(pages)])

    def reasons(**fields):
        column = Rights(**lists, **fields)(batch).column("verdict")
        return [verdict and verdict["reason"].removeprefix("rights.") for verdict in column.to_pylist()]

    listed = ["opt_out", "opt_out", "takedown"]
    assert reasons() == [*listed, "noai", None, "tdm_reservation", None, "takedown"]
    assert reasons(drop=()) == [*listed, None, None, None, None, "takedown"]
    assert reasons(drop=("noarchive",)) == [*listed, None, "noarchive", None, None, "takedown"]
    verdict = Rights(**lists)(batch).column("verdict")[1].as_py()
    assert (verdict["value"], verdict["threshold"]) == ("ok.example/mine", "not listed")
    told = Rights(**lists, drop=()).evidence(batch)[3]
    assert [(one.rule, one.value, one.passed) for one in told if one.value != "nothing"] == [
        ("rights.noai", "noai", True)
    ]


@pytest.mark.parametrize(
    "fields", [{"drop": ("noia",)}, {"agents": ("CCBot",)}, {"agents": ("robots",)}, {"agents": ("",)}]
)
def test_wrong_fields(fields):
    with pytest.raises(ValueError, match="drop|agents"):
        Rights(**fields)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")
def test_real_pages():
    """Each page's signals are those that lxml's parser sees; nobody had `noai` when these were fetched."""
    storage = LocalStorage(SHARED / "warc")
    source = CommonCrawl(name="web", include=("commoncrawl/*.warc.gz", "**/trafilatura-eval-*.warc.gz"))
    found, expected = {}, {}
    for split in source.splits(storage):
        for batch in source.read(split, storage, BatchLimits(), RawAccount()):
            rows = zip(*(batch.column(name).to_pylist() for name in ("url", "content")), strict=True)
            told = Rights()(batch).column("rights_signals").to_pylist()
            for (url, page), one in zip(rows, told, strict=True):
                found[url] = set(one or ())
                metas = lxml.html.document_fromstring(page).iter("meta") if page and page.strip() else ()
                robots = [meta for meta in metas if meta.get("name", "").lower() == "robots"]
                words = {word for meta in robots for word in re.split(r"[,\s]+", meta.get("content", "").lower())}
                expected[url] = words & {"noindex", "noarchive", "noai"} | ({"noindex"} if "none" in words else set())
    assert found == expected
    assert len(found) > 700
    assert sum("noarchive" in one for one in found.values()) > 20
    assert not any("noai" in one for one in found.values())
