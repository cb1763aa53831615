"""The source `commoncrawl`: rows, verdicts, identity, the account, replay, and what other readers keep."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

from pipelines.errors import RecipeError
from pipelines.schema import CORE
from pipelines.sources.archive_rows import parse_date
from pipelines.sources.commoncrawl import CommonCrawl
from pipelines.sources.source import BatchLimits, RawAccount, content_hash, doc_id
from pipelines.storage.local import LocalStorage

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT / "../shared/data"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="no shared data")
SOURCE = CommonCrawl("web", ("**",))
HTML = b"<html><body>hello</body></html>"

Write = Callable[..., LocalStorage]


def record(kind: str, body: bytes, *fields: str, length: int | None = None) -> bytes:
    said = len(body) if length is None else length
    head = "\r\n".join(["WARC/1.1", f"WARC-Type: {kind}", *fields, f"Content-Length: {said}", "", ""])
    return head.encode() + body + b"\r\n\r\n"


def page(
    body: bytes = HTML, *fields: str, status: str = "200 OK", headers: str = "Content-Type: text/html\r\n"
) -> bytes:
    http = f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + body
    return record("response", http, *(fields or ("WARC-Record-ID: <urn:1>",)))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(data: bytes, name: str = "crawl/a.warc") -> LocalStorage:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
        return LocalStorage(tmp_path)

    return write_file


def read_all(
    storage: LocalStorage, source: CommonCrawl = SOURCE, limits: BatchLimits | None = None
) -> tuple[list[dict[str, Any]], RawAccount]:
    """Read every split of a storage and check the account."""
    rows: list[dict[str, Any]] = []
    account = RawAccount()
    for split in source.splits(storage):
        for batch in source.read(split, storage, limits or BatchLimits(), account):
            assert batch.schema == pa.schema([*CORE, *source.adds])
            rows += batch.to_pylist()
    assert account.size == account.records + sum(num_bytes for _, num_bytes in account.gaps.values())
    assert account.seen == len(rows)
    return rows, account


def one(storage: LocalStorage, source: CommonCrawl = SOURCE) -> dict[str, Any]:
    (row,) = read_all(storage, source)[0]
    return row


def reason(row: dict[str, Any]) -> str | None:
    return row["verdict"] and f"{row['verdict']['outcome']}[{row['verdict']['reason']}]"


# --- rows ----------------------------------------------------------------------------------------------------------


def test_response_row(write: Write) -> None:
    fields = (
        "WARC-Record-ID: <urn:uuid:7>",
        "WARC-Target-URI: <http://Example.com/a b>",
        "WARC-Date: 2020-01-02T03:04:05Z",
    )
    headers = "Content-Type: Text/HTML; charset=ISO-8859-1\r\nX-Name: caf\xe9\r\n"
    data = page(gzip.compress(HTML, mtime=0), *fields, headers=headers + "Content-Encoding: gzip\r\n")
    row = one(write(data), CommonCrawl("web", ("**/*.warc",), licence="CC0-1.0"))
    assert row["doc_id"] == doc_id("web", "urn:uuid:7")
    assert (row["source"], row["natural_key"], row["licence"]) == ("web", "urn:uuid:7", "CC0-1.0")
    assert (row["origin_path"], row["origin_offset"], row["origin_length"], row["origin_inner"]) == (
        "crawl/a.warc",
        0,
        len(data),
        0,
    )
    assert (row["url"], row["host"]) == ("http://Example.com/a b", "example.com")
    assert row["date"] == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (row["content"], row["content_hash"], row["text"]) == (HTML, content_hash(HTML), None)
    assert (row["http_status"], row["media_type"], row["charset"], row["damage"]) == (
        200,
        "text/html",
        "iso-8859-1",
        None,
    )
    assert row["http_headers"][1] == {"name": "X-Name", "value": "cafÃ©"}  # latin-1, as RFC 9110 has it
    assert reason(row) is None


def test_conversion_row_replaces_and_counts_bad_bytes(write: Write) -> None:
    body = "good \ufffd ".encode() + b"bad \xff\xf0\x9f end"
    row = one(write(record("conversion", body, "WARC-Record-ID: <urn:2>", "Content-Type: text/plain")))
    assert (row["text"], row["content"]) == ("good \ufffd bad \ufffd\ufffd end", None)
    assert (row["decoding_errors"], row["media_type"]) == (2, "text/plain")
    assert row["content_hash"] == content_hash(body)


def test_arc_rows(write: Write) -> None:
    http = b"HTTP/1.1 200 OK\nContent-Type: text/html\n\n" + HTML
    head = b"filedesc://x.arc 0.0.0.0 20080430204825 text/plain 20\n1 1 InternetArchive\n\n"
    dns = b"dns:a.example 1.2.3.4 20080430204825 text/dns 3\nabc\n"
    line = f"http://a.example/x y 1.2.3.4 20080430204825 text/html {len(http)}\n".encode()
    (row,), account = read_all(write(head + dns + line + http + b"\n"))
    digest = content_hash(HTML).hex()
    assert row["natural_key"] == f"http://a.example/x y 20080430204825 {digest}"
    assert (row["url"], row["host"], row["content"]) == ("http://a.example/x y", "a.example", HTML)
    assert row["date"] == datetime(2008, 4, 30, 20, 48, 25, tzinfo=UTC)
    assert account.gaps == {"filedesc": [1, len(head)], "dns": [1, len(dns)]}
    assert account.records == len(line) + len(http) + 1


def test_resource_row_has_its_own_media_type(write: Write) -> None:
    row = one(write(record("resource", HTML, "WARC-Record-ID: <urn:3>", "Content-Type: text/html; x=y")))
    assert (row["content"], row["media_type"], row["http_status"], row["http_headers"]) == (
        HTML,
        "text/html",
        None,
        None,
    )


def test_envelopes_are_gaps_by_type(write: Write) -> None:
    kinds = ["warcinfo", "request", "metadata", "metadata", "revisit", "continuation", "strange"]
    records = [record(kind, b"x" * number) for number, kind in enumerate(kinds)]
    rows, account = read_all(write(b"".join(records) + page()))
    assert len(rows) == 1
    assert account.records == len(page())
    assert {name: count for name, (count, _) in account.gaps.items()} == {
        **dict.fromkeys(("warcinfo", "request", "revisit.other_file", "continuation", "other"), 1),
        "metadata": 2,
    }
    assert account.gaps["metadata"][1] == len(records[2]) + len(records[3])


@pytest.mark.parametrize(
    ("data", "expected", "value"),
    [
        (page(status="404 Not Found"), "dropped[http_status]", "404"),
        (page(status="304"), "dropped[http_status]", "304"),
        (page(b"a {}", headers="Content-Type: text/css\r\n"), "dropped[media_type.text_css]", "text/css"),
        (page(b"\x89PNG\r\n\x1a\n", headers=""), "dropped[media_type.image]", "image/png"),
        (page(HTML * 40), "dropped[record_too_large]", str(40 * len(HTML) + 44)),
        (
            page(gzip.compress(HTML * 40, mtime=0), headers="Content-Encoding: gzip\r\n"),
            "dropped[record_too_large]",
            "> 1000",
        ),
        (record("conversion", b"x" * 1001), "dropped[record_too_large]", "1001"),
        (record("conversion", b"x", "Content-Type: image/png"), "dropped[media_type.image]", "image/png"),
        (
            page(b"\1\2\3junk", headers="Content-Type: text/html\r\nContent-Encoding: br\r\n"),
            "errored[content_encoding]",
            "crawl/a.warc@0: nothing decodes as br",
        ),
        (b"hi\n", "errored[damaged_record]", "crawl/a.warc@0: no record header"),
        (record("", b""), "errored[damaged_record]", "crawl/a.warc@0: no WARC-Type"),
        (page()[:30], "errored[truncated_record]", "crawl/a.warc@0: response: header_cut"),
        (record("request", b"x", length=9), "errored[truncated_record]", "crawl/a.warc@0: request: body_cut"),
    ],
)
def test_verdicts(write: Write, data: bytes, expected: str, value: str) -> None:
    row = one(write(data), CommonCrawl("web", ("**",), max_record_bytes=1000))
    assert (reason(row), row["verdict"]["value"]) == (expected, value)
    assert (row["content"], row["text"]) == (None, None)
    if expected.startswith("errored[d") or expected.startswith("errored[t"):
        assert row["natural_key"] == "crawl/a.warc@0"


@pytest.mark.parametrize(
    ("headers", "body", "word", "kind"),
    [
        ("Content-Type: text/html\r\n", b"%PDF-1.7\n", "application_pdf", "application/pdf"),
        ("Content-Type: text/html\r\n", b"\xff\xd8\xff\xe0", "image", "image/jpeg"),
        ("Content-Type: text/html\r\n", gzip.compress(HTML, mtime=0), "archive", "application/gzip"),
        ("Content-Type: text/html; charset=utf-8\r\n", b'{"error": null}', "application_json", "application/json"),
        ("Content-Type: application/x-strange\r\n", HTML, "other", "application/x-strange"),
    ],
)
def test_what_is_no_page_is_dropped_as_what_it_is(
    write: Write, headers: str, body: bytes, word: str, kind: str
) -> None:
    row = one(write(page(body, headers=headers)))
    assert (reason(row), row["verdict"]["value"], row["media_type"]) == (f"dropped[media_type.{word}]", kind, kind)


@pytest.mark.parametrize(
    "headers", ["", "Content-Type: application/octet-stream\r\n", "Content-Type: text/xml\r\n", "Content-Type: */*\r\n"]
)
def test_pages_are_kept_whatever_they_are_called(write: Write, headers: str) -> None:
    prologue = b"" if "xml" not in headers else b'<?xml version="1.0"?>\n<!DOCTYPE html>\n'
    row = one(write(page(prologue + HTML, headers=headers)))
    assert (reason(row), row["content"]) == (None, prologue + HTML)


def test_nothing_is_sniffed_that_does_not_decode(write: Write) -> None:
    row = one(write(page(b"\1\2junk", headers="Content-Type: text/css\r\nContent-Encoding: br\r\n")))
    assert (reason(row), row["verdict"]["value"]) == ("dropped[media_type.text_css]", "text/css")


def test_revisits_are_counted_by_where_their_original_is(write: Write) -> None:
    digest, when = "WARC-Payload-Digest: sha1:AA", "2020-01-02T03:04:05Z"
    uri = "WARC-Target-URI: http://a.example/"
    here = [
        record("revisit", b"", "WARC-Record-ID: <urn:9>", "WARC-Refers-To: <urn:1>"),
        record("revisit", b"1", "WARC-Record-ID: <urn:8>", digest),
        record(
            "revisit",
            b"22",
            "WARC-Refers-To: <urn:elsewhere>",
            "WARC-Refers-To-Target-URI: <http://a.example/>",
            f"WARC-Refers-To-Date: {when}",
        ),
    ]
    other = [record("revisit", b"", "WARC-Refers-To: <urn:2>", "WARC-Payload-Digest: sha1:BB"), record("revisit", b"")]
    capture = page(HTML, "WARC-Record-ID: <urn:1>", uri, f"WARC-Date: {when}", digest)
    rows, account = read_all(write(here[0] + other[0] + capture + b"".join(here[1:]) + other[1]))
    assert len(rows) == 1
    assert account.gaps == {
        "revisit.same_file": [3, sum(map(len, here))],
        "revisit.other_file": [2, sum(map(len, other))],
    }


def test_cut_body_is_kept_and_noted(write: Write) -> None:
    row = one(write(page()[:-14]))
    assert (row["content"], row["damage"], reason(row)) == (HTML[:-10], "body_cut", None)
    row = one(write(page(HTML, "WARC-Record-ID: <u>", "WARC-Truncated: length")))
    assert row["damage"] == "warc_truncated"


def test_errors_in_one_member_have_keys_of_their_own(write: Write) -> None:
    rows, _ = read_all(write(gzip.compress(b"junk\n" + page() + b"more junk\n", mtime=0)))
    assert [reason(row) for row in rows] == ["errored[damaged_record]", None, "errored[damaged_record]"]
    assert rows[2]["natural_key"] == f"crawl/a.warc@0+{5 + len(page())}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2014-01-03T03:03:21Z", datetime(2014, 1, 3, 3, 3, 21, tzinfo=UTC)),
        ("2014-01-03T03:03:21.1234567Z", datetime(2014, 1, 3, 3, 3, 21, 123456, tzinfo=UTC)),
        ("2014-01-03T03:03:21+02:00", datetime(2014, 1, 3, 1, 3, 21, tzinfo=UTC)),
        ("2019-08-15T01:02", datetime(2019, 8, 15, 1, 2, tzinfo=UTC)),
        ("2019-08", datetime(2019, 8, 1, tzinfo=UTC)),
        ("2019", datetime(2019, 1, 1, tzinfo=UTC)),
        ("20080430204825", datetime(2008, 4, 30, 20, 48, 25, tzinfo=UTC)),
        ("201404010000000000", datetime(2014, 4, 1, tzinfo=UTC)),
        ("2008-10-294T05:21:46-0700", None),
        ("2020-02-30T00:00:00Z", None),
        ("0001-01-01T00:00:00+05:00", None),
        ("20081332", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_dates(value: str, expected: datetime | None) -> None:
    assert parse_date(value) == expected


def test_fields_are_checked() -> None:
    for wrong in ({"include": ()}, {"include": ("*",), "max_record_bytes": 0}, {"include": ("*",), "limit": 0}):
        with pytest.raises(RecipeError, match="hint"):
            CommonCrawl("web", **wrong)


# --- splits, batches, limit, replay --------------------------------------------------------------------------------


def test_one_split_a_file_in_order(write: Write) -> None:
    for name in ("b/2.warc", "a/1.warc.gz", "b/1.txt"):
        storage = write(page(), name)
    source = CommonCrawl("web", ("**/*.warc", "**/*.warc.gz"))
    assert [split.files[0].path for split in source.splits(storage)] == ["a/1.warc.gz", "b/2.warc"]


def test_limit_ends_a_split_and_balances(write: Write) -> None:
    data = b"".join(page(HTML, f"WARC-Record-ID: <{number}>") for number in range(5))
    rows, account = read_all(write(data), CommonCrawl("web", ("**",), limit=2))
    assert [row["natural_key"] for row in rows] == ["0", "1"]
    assert account.gaps == {"limit": [1, 3 * len(data) // 5]}


@needs_data
def test_rows_do_not_depend_on_batches() -> None:
    storage = LocalStorage(SHARED / "warc/commoncrawl")
    assert (
        read_all(storage)
        == read_all(storage, limits=BatchLimits(max_rows=1))
        == read_all(storage, limits=BatchLimits(7, 9))
    )


@needs_data
def test_every_row_of_the_real_files_can_be_read_again() -> None:
    storage = LocalStorage(SHARED / "warc")
    for split in SOURCE.splits(storage):
        for batch in SOURCE.read(split, storage, BatchLimits(), RawAccount()):
            origin = batch.select(["origin_path", "origin_offset", "origin_length", "origin_inner"]).to_pylist()
            again = [SOURCE.read_record(storage, *place.values()) for place in origin]
            columns = [pa.array([row.get(field.name) for row in again], field.type) for field in batch.schema]
            assert pa.RecordBatch.from_arrays(columns, schema=batch.schema).equals(batch)


def test_small_batches_hold_little_memory(write: Write) -> None:
    data = b"".join(page(HTML * 1000, f"WARC-Record-ID: <{number}>") for number in range(20))
    storage = write(data)
    (split,) = SOURCE.splits(storage)
    before = pa.total_allocated_bytes()
    batches = list(SOURCE.read(split, storage, BatchLimits(max_rows=1), RawAccount()))
    assert len(batches) == 20
    assert pa.total_allocated_bytes() - before < 2 * len(data)


def test_a_batch_grows_beyond_its_limit(write: Write) -> None:
    rows, _ = read_all(
        write(page() + page(HTML * 100_000, "WARC-Record-ID: <urn:2>") + page(HTML, "A: b")), limits=BatchLimits(9, 99)
    )
    assert [len(row["content"]) for row in rows] == [len(HTML), 100_000 * len(HTML), len(HTML)]


def test_replay_of_an_envelope_is_an_error(write: Write) -> None:
    data = record("request", b"x")
    with pytest.raises(ValueError, match="hint"):
        SOURCE.read_record(write(data), "crawl/a.warc", 0, len(data), 0)


# --- real files ----------------------------------------------------------------------------------------------------


@needs_data
def test_pages_are_where_the_gold_says() -> None:
    """The gold list was made by another tool: file, member offset and length, and size of the page."""
    storage = LocalStorage(SHARED / "warc/built_from_real_html")
    rows, _ = read_all(storage, CommonCrawl("web", ("trafilatura-*",)))
    ours = {(row["origin_path"], row["origin_offset"], row["origin_length"]): row for row in rows}
    lines = (SHARED / "html_gold/trafilatura/gold_snippets.jsonl").read_text().splitlines()
    gold = [json.loads(line) for line in lines]
    assert len(rows) == len(gold) == 707
    for page_ in gold:
        row = ours[page_["warc"], page_["offset"], page_["length"]]
        assert (row["url"], len(row["content"]), reason(row)) == (page_["url"], page_["html_bytes"], None)


@needs_data
def test_common_crawl_sample() -> None:
    rows, account = read_all(
        LocalStorage(SHARED / "warc/commoncrawl"), CommonCrawl("web", ("resiliparse-warcfile.warc",))
    )
    assert Counter(reason(row) for row in rows) == {None: 16}
    assert {name: count for name, (count, _) in account.gaps.items()} == {"warcinfo": 1, "request": 17, "metadata": 16}


@needs_data
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        (
            "webarchive/pywb-iana.warc.gz",
            {"revisit.same_file": 123},
        ),  # one crawl that saw the same files again and again
        (
            "webarchive/ukwa-BL-20140325122341434-00000-32090~opera~8443.warc.gz",  # the second crawl of a site
            {"revisit.other_file": 55},
        ),
    ],
)
def test_revisits_of_real_crawls(name: str, counts: dict[str, int]) -> None:
    _, account = read_all(LocalStorage(SHARED / "warc"), CommonCrawl("web", (name,)))
    found = {reason: count for reason, (count, _) in account.gaps.items() if reason.startswith("revisit")}
    assert found == counts
    assert all(account.gaps[reason][1] > 400 * count for reason, count in found.items())


@needs_data
@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("odd/warc2zim-bad-redirections.warc.gz", {"307": 40}),
        ("odd/warc2zim-main-entry-403.warc.gz", {"403": 1, "401": 1}),
        ("webarchive/warc2zim-kiwix-with-redirects.warc.gz", {"301": 3}),
    ],
)
def test_redirects_and_refusals_of_real_crawls(name: str, statuses: dict[str, int]) -> None:
    rows, _ = read_all(LocalStorage(SHARED / "warc"), CommonCrawl("web", (name,)))
    dropped = [row["verdict"] for row in rows if reason(row) == "dropped[http_status]"]
    assert Counter(verdict["value"] for verdict in dropped) == statuses
    assert all(row["content"] is None for row in rows if reason(row))


@needs_data
@pytest.mark.parametrize(
    ("name", "beginning", "size"),
    [
        ("odd/warcio-example-iana.org-chunked.warc", b"<!doctype html>", 7223),
        ("odd/solrwayback-transfer_compression_gzip_chunked.warc.gz", b"<html>\n<head>", 72442),
        ("odd/solrwayback-transfer_compression_brotli.warc", b"<html>\n    <head>", 246),
        ("odd/ukwa-transfer_compression_gzip.warc.gz", b"<html>\n    <head>", 246),
        ("odd/ukwa-transfer_compression_none.warc", b"<html>\n    <head>", 246),
    ],
)
def test_codings_of_real_captures(name: str, beginning: bytes, size: int) -> None:
    """Sizes: of the first two as warcio decodes them; the others are one page, which the last one has as it is."""
    rows, _ = read_all(LocalStorage(SHARED / "warc"), CommonCrawl("web", (name,)))
    row = next(row for row in rows if row["media_type"] == "text/html")
    assert (row["content"][: len(beginning)], len(row["content"]), row["damage"]) == (beginning, size, None)


@needs_data
def test_two_captures_of_one_page_are_two_rows() -> None:
    """Whether a page that was captured twice is kept twice is for deduplication to say: record ids differ."""
    rows, _ = read_all(
        LocalStorage(SHARED / "warc"), CommonCrawl("web", ("odd/pywb-example-url-agnostic*", "odd/*dupes*"))
    )
    assert len({row["doc_id"] for row in rows}) == len(rows)


def load_benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("archive_recovery", ROOT / "benchmarks/archive_recovery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@needs_data
def test_keeps_at_least_what_other_readers_keep() -> None:
    pytest.importorskip("warcio")
    comparisons = load_benchmark().compare_all(SHARED / "warc")
    assert len(comparisons) >= 90
    assert sum(one.warcio for one in comparisons) > 2000
    assert sum(one.fastwarc for one in comparisons) > 1500
    for one_file in comparisons:
        assert (one_file.balanced, one_file.missed, one_file.differ) == (True, (), ()), one_file
    pairs = [(one.ours, max(one.warcio, one.fastwarc)) for one in comparisons]
    assert sum(ours for ours, _ in pairs) >= sum(theirs for _, theirs in pairs)
