"""Extraction: charsets, bounds, both engines, hostile pages in a process of their own, and real pages."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from pipelines.schema import VERDICT
from pipelines.transform import Transform
from pipelines.transforms import extract as module
from pipelines.transforms.extract import ENGINES, OWN_ENGINE, Extract
from pipelines.transforms.sandbox import Crashed, Failed, SandboxError, TimedOut

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT / "../shared/data"
PAGES = SHARED / "warc/built_from_real_html/trafilatura-eval-00001.warc.gz"

ARTICLE = "<p>The train to Munich does not run today because the storm has damaged the overhead line near Augsburg.</p>"
PAGE = (
    f"<html><head><title>News</title></head><body><nav><a href=/>Home</a></nav><article>{ARTICLE * 4}</article></body>"
)


def batch_of(*rows: tuple[bytes | None, str | None, str | None, str | None]) -> pa.RecordBatch:
    """Return a batch of (content, text, media type, charset)."""
    content, text, kinds, charsets = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.RecordBatch.from_pydict(
        {
            "content": pa.array(content, pa.large_binary()),
            "text": pa.array(text, pa.large_string()),
            "verdict": pa.nulls(len(rows), VERDICT),
            "host": pa.nulls(len(rows), pa.string()),
            "media_type": pa.array(kinds, pa.string()),
            "charset": pa.array(charsets, pa.string()),
        }
    )


def extract(content: bytes, kind: str = "text/html", charset: str | None = None, **fields: object) -> dict:
    """Return the row that one payload becomes."""
    return Extract(**fields)(batch_of((content, None, kind, charset))).to_pylist()[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_main_content(engine: str) -> None:
    """The article stays, the navigation goes, the payload goes."""
    row = extract(PAGE.encode(), engine=engine)
    assert row["text"].count("overhead line near Augsburg.") >= 1
    assert "Home" not in row["text"]
    assert row["verdict"] is None
    assert row["content"] is None
    assert row["replacement_chars"] == 0


def test_schema() -> None:
    """Two columns go, four come, at the end."""
    result = Extract()(batch_of())
    added = ["replacement_chars", "title", "published", "language_hint"]
    assert result.schema.names == ["content", "text", "verdict", "host", *added]
    assert result.schema.types[4:] == [pa.int32(), pa.string(), pa.string(), pa.string()]
    assert isinstance(Extract(), Transform)


def test_rows_with_text_are_left_alone() -> None:
    """Not even U+0000 is removed from a text that a source gives; U+FFFD in it are counted."""
    rows = [
        (None, "a\0 \ufffd\ufffd<p>", "text/plain", None),
        (PAGE.encode(), None, "text/html", None),
        (b"x", "", None, None),
    ]
    result = Extract()(batch_of(*rows)).to_pylist()
    assert [row["text"] if index != 1 else len(row["text"]) > 100 for index, row in enumerate(result)] == [
        "a\0 \ufffd\ufffd<p>",
        True,
        "",
    ]
    assert [row["replacement_chars"] for row in result] == [2, 0, 0]
    assert [row["content"] for row in result] == [None] * 3


def test_plain_text_is_decoded_only() -> None:
    """Markup in plain text is text; U+0000 is removed."""
    row = extract("a < b\0, \r\n <p>ü".encode(), "text/plain")
    assert row["text"] == "a < b, \r\n <p>ü"


def test_replacements_are_counted() -> None:
    """Whatever does not decode."""
    row = extract("für Öl, Äpfel und Öfen, premi".encode() + b"\xc3... \xed\xa0\x80", "text/plain", "utf-8")
    assert row["text"] == "für Öl, Äpfel und Öfen, premi\ufffd... \ufffd"
    assert row["replacement_chars"] == 2


@pytest.mark.parametrize("kind", ["text/html", "text/plain"])
@pytest.mark.parametrize("payload", [b"", b" \n ", b"\0\0", b"<p> <!-- x -->"])
def test_empty(payload: bytes, kind: str) -> None:
    """No text is a reason of its own."""
    row = extract(payload, kind)
    if kind == "text/plain" and payload.startswith(b"<"):
        assert row["text"] == "<p> <!-- x -->"
        return
    assert row["text"] is None
    assert row["verdict"] == {
        "outcome": "dropped",
        "reason": "extract.empty",
        "value": "0 characters",
        "threshold": ">= 1 character",
    }


def test_no_payload_is_empty() -> None:
    """A row with neither payload nor text."""
    row = Extract()(batch_of((None, None, "text/html", None))).to_pylist()[0]
    assert row["verdict"]["reason"] == "extract.empty"


@pytest.mark.parametrize(
    ("payload", "fields", "reason", "value", "threshold"),
    [
        (b"x" * 101, {"max_bytes": 100}, "too_large", "101 bytes", "<= 100 bytes"),
        (b"<p>x" * 11, {"max_nodes": 10}, "too_complex", "nodes 11", "nodes <= 10"),
        (b"<div>" * 11 + b"x", {"max_depth": 10}, "too_complex", "depth 11", "depth <= 10"),
        (b"<p a b c>x", {"max_attributes": 2}, "too_complex", "attributes 3", "attributes <= 2"),
    ],
)
def test_bounds(payload: bytes, fields: dict[str, int], reason: str, value: str, threshold: str) -> None:
    """One more than the bound is dropped with both numbers; the bound itself passes."""
    row = extract(payload, **fields)
    assert row["text"] is None
    assert row["verdict"] == {
        "outcome": "dropped",
        "reason": f"extract.{reason}",
        "value": value,
        "threshold": threshold,
    }
    ((field, bound),) = fields.items()
    assert (extract(payload, **{field: bound + 1})["verdict"] or {}).get("reason") != f"extract.{reason}"


@pytest.mark.parametrize("engine", ENGINES)
def test_numeric_references_to_nothing(engine: str) -> None:
    """Surrogates and U+0000 written as references end as storable text."""
    page = PAGE.replace("Munich", "Mu&#xD800;nich&#0;&#xDFFF;&#x110000;\0")
    row = extract(page.encode(), engine=engine)
    assert "Augsburg" in row["text"]
    assert "\0" not in row["text"]
    row["text"].encode("utf-8")


@pytest.mark.skipif(not PAGES.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("engine", "num"), [(OWN_ENGINE, 150), ("resiliparse", 150), ("trafilatura", 20), ("readability", 20)]
)
def test_real_pages_whatever_the_batches(engine: str, num: int) -> None:
    """One batch, batches of one in reverse order, and a second time: the same rows, nearly all with text."""
    with PAGES.open("rb") as file:
        records = (record.reader.read() for record in ArchiveIterator(file, record_types=WarcRecordType.response))
        rows = [(payload, None, "text/html", None) for payload, _ in zip(records, range(num), strict=False)]
    transform = Extract(engine=engine)
    together = transform(batch_of(*rows)).to_pylist()
    single = [transform(batch_of(row)).to_pylist()[0] for row in reversed(rows)][::-1]
    assert together == single
    assert sum(row["verdict"] is None for row in together) >= 0.95 * len(rows)
    assert all(row["text"] for row in together if row["verdict"] is None)


def test_evidence() -> None:
    """Sizes against bounds; rows with a text have none."""
    rows = [
        (PAGE.encode(), None, "text/html", None),
        (None, "given", None, None),
        (b"<div>" * 200, None, "text/html", None),
    ]
    evidence = Extract(engine="resiliparse").evidence(batch_of(*rows))
    assert [rule.rule for rule in evidence[0]] == ["extract.too_large", *["extract.too_complex"] * 3, "extract.empty"]
    assert all(rule.passed for rule in evidence[0])
    assert evidence[1] == []
    first = next(rule for rule in evidence[2] if not rule.passed)
    assert (first.value, first.threshold) == ("depth 200", "depth <= 128")


@pytest.mark.parametrize(
    ("field", "value"), [("engine", "lynx"), ("max_bytes", 0), ("max_depth", -1), ("timeout_seconds", 0)]
)
def test_impossible_settings_are_refused(field: str, value: object) -> None:
    """The message names field and value."""
    with pytest.raises(ValueError, match=rf"{field}: .*{value}.*\nhint: "):
        Extract(**{field: value})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"engine": "resiliparse", "mode": "precision"}, "mode"),
        ({"engine": "readability", "mode": "recall"}, "mode"),
        ({"engine": "readability", "comments": True}, "comments"),
    ],
)
def test_what_a_library_cannot_do_is_refused(fields: dict, field: str) -> None:
    """With the engine that can."""
    with pytest.raises(ValueError, match=rf"{field}: .*{fields['engine']}.*\nhint: .*engine: {OWN_ENGINE}"):
        Extract(**fields)


@pytest.mark.parametrize(
    ("error", "reason", "value"),
    [
        (Failed("ValueError: bad tree"), "extract.failed", "ValueError: bad tree"),
        (Crashed(-11), "extract.crashed", "SIGSEGV"),
        (TimedOut(), "extract.timeout", "> 60 seconds"),
    ],
)
def test_what_a_sandbox_may_say(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, value: str) -> None:
    """One page is errored, the others come through."""

    def answer(page: memoryview, timeout_seconds: float) -> bytes:
        if b"bad" in bytes(page):
            raise error
        return b"text"

    monkeypatch.setattr(module, "sandbox_of", lambda *_, **__: answer)
    rows = [(page, None, "text/html", None) for page in (b"good", b"bad", b"good")]
    transform = Extract(engine="trafilatura")
    result = transform(batch_of(*rows)).to_pylist()
    assert [row["text"] for row in result] == ["text", None, "text"]
    assert (result[1]["verdict"]["outcome"], result[1]["verdict"]["reason"]) == ("errored", reason)
    assert result[1]["verdict"]["value"] == value
    assert (reason, value) in [(rule.rule, rule.value) for rule in transform.evidence(batch_of(rows[1]))[0]]


def test_a_bug_fails_the_run_and_not_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a library that is not installed does."""

    def cannot(*_: object) -> bytes:
        raise SandboxError("readability: does not start: ModuleNotFoundError")

    monkeypatch.setattr(module, "sandbox_of", lambda *_, **__: cannot)
    with pytest.raises(SandboxError, match="ModuleNotFound"):
        extract(b"<p>text</p>", engine="readability")


def test_what_a_page_says_of_itself() -> None:
    """Our own extractor tells; libraries do not."""
    page = PAGE.replace(
        "<html><head>", "<html lang=en-GB><head><meta property=article:published_time content=2024-05-06>"
    )
    row = extract(page.encode(), engine=OWN_ENGINE)
    assert (row["title"], row["published"], row["language_hint"]) == ("News", "2024-05-06", "en-gb")
    row = extract(page.encode(), engine="resiliparse")
    assert (row["title"], row["published"], row["language_hint"]) == (None, None, None)


def test_the_top_level_domain_reaches_detection() -> None:
    """Four bytes of Chinese are Central European to a detector that does not know where they come from."""
    batch = batch_of(("汉字".encode("gb2312"), None, "text/plain", None))
    host = batch.schema.get_field_index("host")
    chinese = batch.set_column(host, "host", pa.array(["www.example.CN"]))
    assert Extract()(chinese).column("text").to_pylist() == ["汉字"]
    assert Extract()(batch).column("text").to_pylist() != ["汉字"]


def test_payloads_of_a_slice() -> None:
    """Views go by the rows of the batch, wherever it begins."""
    rows = [(f"page {place}".encode(), None, "text/plain", None) for place in range(5)]
    result = Extract()(batch_of(*rows).slice(2, 2))
    assert result.column("text").to_pylist() == ["page 2", "page 3"]
