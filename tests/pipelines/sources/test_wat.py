"""The source `wat`: rows of metadata, gaps, hostile JSON, and real files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from archives import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import RecipeError
from pipelines.sources.source import BatchLimits, RawAccount, content_hash, doc_id
from pipelines.sources.wat import MAX_LINKS, Wat
from pipelines.storage.local import LocalStorage

needs_data = pytest.mark.skipif(not SHARED.exists(), reason="no shared data")
SOURCE = Wat("wat", ("*",))


def record(block: bytes, *fields: str, kind: str = "metadata", content_type: str = "application/json") -> bytes:
    head = ["WARC/1.0", f"WARC-Type: {kind}", *fields, f"Content-Type: {content_type}", f"Content-Length: {len(block)}"]
    return "\r\n".join([*head, "", ""]).encode() + block + b"\r\n\r\n"


def wat(envelope: dict[str, Any], *fields: str, **container: Any) -> bytes:
    return record(json.dumps({"Container": container, "Envelope": envelope}).encode(), *fields)


def message(html: Any = None, *, kind: str = "response", **fields: Any) -> dict[str, Any]:
    response = {"Response-Message": {"Status": "200"}, "HTML-Metadata": html, **fields}
    return {
        "WARC-Header-Metadata": {"WARC-Type": kind, "WARC-Date": "2024-05-18T01:58:10Z"},
        "Payload-Metadata": {"HTTP-Response-Metadata": response},
    }


def one(read_all, folder: Path, data: bytes) -> dict[str, Any]:
    (folder / "a.wat").write_bytes(data)
    (row,), _ = read_all(SOURCE, folder)
    return row


def test_row(read_all, tmp_path):
    html = {
        "Head": {
            "Title": " A\n title ",
            "Base": "http://a.example/base/",
            "Metas": [
                {"name": "description", "content": "words"},
                {"property": "og:type", "content": "x"},
                {"charset": "u"},
            ],
            "Link": [{"path": "LINK@/href", "url": "a.css", "rel": "stylesheet", "type": "text/css"}],
            "Scripts": [{"path": "SCRIPT@/src", "url": "a.js", "type": "text/javascript"}],
        },
        "Links": [
            {"path": "A@/href", "url": "/b", "text": "to b"},
            {"path": "IMG@/src", "url": "c.png", "alt": "a picture"},
            {"path": "STYLE/#text", "href": "d.css"},
            {"path": "A@/href"},
        ],
    }
    headers = {"Content-Type": "text/html", "Set-Cookie": ["a=1", "b=2"]}
    data = wat(
        message(html, Headers=headers),
        "WARC-Record-ID: <urn:1>",
        "WARC-Refers-To: <urn:0>",
        "WARC-Target-URI: http://A.example/",
        "WARC-Date: 2024-05-31T01:17:49Z",
        Filename="a.warc.gz",
        Offset="806",
    )
    row = one(read_all, tmp_path, data)
    assert (row["natural_key"], row["doc_id"], row["refers_to"]) == ("urn:1", doc_id("wat", "urn:1"), "urn:0")
    assert (row["url"], row["host"]) == ("http://A.example/", "a.example")
    assert row["date"] == datetime(2024, 5, 18, 1, 58, 10, tzinfo=UTC)  # of the capture
    assert (row["http_status"], row["warc_path"], row["warc_offset"]) == (200, "a.warc.gz", 806)
    assert [(header["name"], header["value"]) for header in row["http_headers"]] == [
        ("Content-Type", "text/html"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
    ]
    assert (row["title"], row["base"]) == (" A\n title ", "http://a.example/base/")
    assert [(tag["name"], tag["content"]) for tag in row["meta"]] == [
        ("description", "words"),
        ("og:type", "x"),
        ("charset", "u"),
    ]
    assert [tuple(link.values()) for link in row["links"]] == [
        ("/b", "A@/href", "to b", None),
        ("c.png", "IMG@/src", "a picture", None),
        ("d.css", "STYLE/#text", None, None),
        ("a.css", "LINK@/href", None, "stylesheet"),
        ("a.js", "SCRIPT@/src", None, None),
    ]
    assert row["text"] == "A title\nto b\na picture"
    assert (row["content"], row["verdict"], row["damage"]) == (None, None, None)
    assert row["content_hash"] == content_hash(data.split(b"\r\n\r\n")[1])
    assert (row["origin_offset"], row["origin_length"], row["origin_inner"]) == (0, len(data), 0)


def test_what_is_no_capture_is_a_gap(read_all, tmp_path):
    request = {"Payload-Metadata": {"HTTP-Request-Metadata": {}}}
    records = [
        record(b"x", kind="warcinfo", content_type="application/warc-fields"),
        wat(message(kind="request")),
        wat(request),
        wat(message(kind="metadata")),
        wat(message(kind="strange")),
        record(b"via: x", content_type="application/warc-fields"),
        record(b"HTTP/1.1 200 OK\r\n\r\n", kind="response", content_type="application/http"),
    ]
    (tmp_path / "a.wat").write_bytes(b"".join(records))
    rows, [account] = read_all(SOURCE, tmp_path)
    assert rows == []
    assert account.records == 0
    assert account.gaps == {
        "warcinfo": [1, len(records[0])],
        "request": [2, len(records[1]) + len(records[2])],
        "metadata": [2, len(records[3]) + len(records[5])],
        "other": [2, len(records[4]) + len(records[6])],
    }


@pytest.mark.parametrize(
    ("block", "cause"),
    [
        (b"", "zero-length"),
        (b"{", "unexpected"),
        (b'{"Envelope": {"a": "\\ud800"}}', "surrogate"),
        (b'{"Envelope": {"a": "\xff"}}', "utf-8"),
        (b"[" * 100_000 + b"]" * 100_000, "depth"),
        (b'{"Container": {}}', "no Envelope"),
        (b"[]", "no Envelope"),
        (b'{"Envelope": []}', "no Envelope"),
        (b"NaN", "unexpected"),
    ],
)
def test_what_cannot_be_read_is_errored(read_all, tmp_path, block, cause):
    sound = wat(message(), "WARC-Record-ID: <urn:2>")
    (tmp_path / "a.wat").write_bytes(record(block, "WARC-Record-ID: <urn:1>") + sound)
    (row, after), _ = read_all(SOURCE, tmp_path)
    assert (row["verdict"]["outcome"], row["verdict"]["reason"], row["natural_key"]) == ("errored", "json", "urn:1")
    assert row["verdict"]["value"].startswith("a.wat@0: ")
    assert cause.lower() in row["verdict"]["value"].lower()
    assert after["verdict"] is None


def test_too_large(read_all, tmp_path):
    (tmp_path / "a.wat").write_bytes(wat(message({"Head": {"Title": "x" * 2000}})))
    (row,), _ = read_all(Wat("wat", ("*",), max_record_bytes=1000), tmp_path)
    assert (row["verdict"]["reason"], row["title"]) == ("record_too_large", None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_fields_of_any_type_make_no_harm(read_all, tmp_path_factory, data):
    """Every field of the format in turn becomes something else; the reader's own schema check looks at each row."""

    def some(usual: Any) -> Any:
        return data.draw(json_values) if data.draw(st.integers(0, 4)) == 0 else usual

    link = {"url": some("u"), "path": some("A@/href"), "text": some("t"), "alt": some("a"), "rel": some("r")}
    head = {"Title": some("t"), "Base": some("b"), "Metas": some([{"name": some("n"), "content": some("c")}])}
    head |= {"Link": some([link]), "Scripts": some([link])}
    html = some({"Head": some(head), "Links": some([some(link)])})
    envelope = message(html, Headers=some({"a": some("b"), "c": some(["d", some("e")])}))
    envelope["Payload-Metadata"]["HTTP-Response-Metadata"]["Response-Message"] = some({"Status": some("200")})
    block = json.dumps({"Container": some({"Filename": some("f"), "Offset": some(5)}), "Envelope": envelope})
    folder = tmp_path_factory.mktemp("wat")
    row = one(read_all, folder, record(block.replace("NaN", "1").replace("Infinity", "1").encode()))
    assert row["verdict"] is None
    assert row["text"] is not None


def test_fields_are_checked():
    for wrong in ({"include": ()}, {"include": ("*",), "max_record_bytes": 0}, {"include": ("*",), "limit": 0}):
        with pytest.raises(RecipeError, match="hint"):
            Wat("wat", **wrong)


@needs_data
def test_real_common_crawl_file_as_it_is_and_compressed(read_all):
    folder = SHARED / "warc/commoncrawl"
    plain, [account] = read_all(Wat("wat", ("whirlwind.warc.wat",)), folder)
    packed, [packed_account] = read_all(Wat("wat", ("whirlwind.warc.wat.gz",)), folder)
    counts = {reason: count for reason, (count, _) in account.gaps.items()}
    assert counts == {reason: count for reason, (count, _) in packed_account.gaps.items()}
    assert counts == {"warcinfo": 1, "request": 1}  # the sample has the request's metadata alone
    assert plain == packed == []


@needs_data
def test_fragments_of_common_crawl(read_all):
    """Objects cut down to a part of the format each, made by the authors of another reader."""
    rows, accounts = read_all(Wat("wat", ("*",)), SHARED / "warc/odd/toimik-wat")
    by_file = {row["origin_path"].partition("Extractor_")[2]: row for row in rows if row["verdict"] is None}
    assert [link["url"] for link in by_file["metadata2.warc"]["links"]] == [
        "/foo.css",
        "foobar.css",
        "https://www.example.com/foo.css",
        "http://www.example.com/foobar.js",
        "http://www.example.sg/foobar.js",
    ]
    assert [link["path"] for link in by_file["metadata3.warc"]["links"]] == ["SCRIPT@/src"]
    assert by_file["Optional_missing.warc"]["links"] == []  # a script without an address
    assert by_file["Optional_head.warc"]["host"] == "www.example.com"
    broken = [row for row in rows if row["verdict"] is not None]
    assert [row["verdict"]["reason"] for row in broken] == ["json"]
    assert sum(account.gaps.get("metadata", [0, 0])[0] for account in accounts) == 1


def test_links_without_end_are_cut_and_that_is_noted(read_all, tmp_path):
    links = [{"path": "A@/href", "url": f"/{number}"} for number in range(MAX_LINKS + 1)]
    row = one(read_all, tmp_path, wat(message({"Links": links}), "WARC-Record-ID: <urn:1>"))
    assert (len(row["links"]), row["damage"]) == (MAX_LINKS, "links_cut")
    row = one(read_all, tmp_path, wat(message({"Links": links[1:]}), "WARC-Record-ID: <urn:1>"))
    assert (len(row["links"]), row["damage"]) == (MAX_LINKS, None)


def test_a_batch_is_full_by_the_records_that_its_rows_are_from(tmp_path):
    """Links and headers weigh too: three records of 40 kB of links do not wait for 1,024 rows."""
    links = [{"path": "A@/href", "url": f"/{number}"} for number in range(1_000)]
    data = wat(message({"Links": links}), "WARC-Record-ID: <urn:1>")
    (tmp_path / "a.wat").write_bytes(data * 3)
    storage = LocalStorage(tmp_path)
    (split,) = SOURCE.splits(storage)
    batches = list(SOURCE.read(split, storage, BatchLimits(max_bytes=len(data)), RawAccount()))
    assert [batch.num_rows for batch in batches] == [2, 1]
