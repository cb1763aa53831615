"""Extraction: charsets, bounds, both engines, hostile pages in a process of their own, and real pages."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from pipelines.schema import VERDICT
from pipelines.transform import Transform
from pipelines.transforms import extract as module
from pipelines.transforms.extract import Extract, decode

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT / "../shared/data"
PAGES = SHARED / "warc/built_from_real_html/trafilatura-eval-00001.warc.gz"
LEGACY = SHARED / "langid/udhr_legacy_encodings"

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
            "media_type": pa.array(kinds, pa.string()),
            "charset": pa.array(charsets, pa.string()),
        }
    )


def extract(content: bytes, kind: str = "text/html", charset: str | None = None, **fields: object) -> dict:
    """Return the row that one payload becomes."""
    return Extract(**fields)(batch_of((content, None, kind, charset))).to_pylist()[0]


@pytest.mark.parametrize("engine", ["resiliparse", "trafilatura"])
def test_main_content(engine: str) -> None:
    """The article stays, the navigation goes, the payload goes."""
    row = extract(PAGE.encode(), engine=engine)
    assert row["text"].count("overhead line near Augsburg.") >= 1
    assert "Home" not in row["text"]
    assert row["verdict"] is None
    assert row["content"] is None
    assert row["replacement_chars"] == 0


def test_schema() -> None:
    """Two columns go, one comes, at the end."""
    result = Extract()(batch_of())
    assert result.schema.names == ["content", "text", "verdict", "replacement_chars"]
    assert result.schema.field("replacement_chars").type == pa.int32()
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


CHARSET_CASES = [
    # payload, HTTP charset -> text. First the byte order mark ...
    (b"\xef\xbb\xbf\xc3\xa9", "iso-8859-1", "é"),
    (b"\xff\xfeh\0i\0", "utf-8", "hi"),
    (b"\xfe\xff\0h\0i", None, "hi"),
    # ... then the header: ISO-8859-1 is windows-1252, in which 0x80 is the euro sign
    (b"<meta charset=utf-8>\x80", "ISO-8859-1", "<meta charset=utf-8>€"),
    (b"\xc7\xd1\xb1\xdb \x8c\x63", "ks_c_5601-1987", "한글 똠"),
    (b"\x87\x40", "shift_jis", "①"),
    (b"\x81\x30\x81\x30", "gb2312", "\x80"),
    (b"\xa1\xe3", "gbk", "°"),
    # ... then the page, unless the header's label is unknown or the page's is in a comment
    (b"<meta charset=koi8-r>\xd4", "x-unknown", "<meta charset=koi8-r>т"),
    (b'<META http-equiv="Content-Type" content="text/html; charset=windows-1251">\xf2', None, None),
    (b'<?xml version="1.0" encoding="iso-8859-2"?>\xb1', None, '<?xml version="1.0" encoding="iso-8859-2"?>ą'),
    (b"<!-- <meta charset=koi8-r> -->\xc3\xa9", None, "<!-- <meta charset=koi8-r> -->é"),
    # what was read as ASCII is not UTF-16
    (b"<meta charset=utf-16>\xc3\xa9", None, "<meta charset=utf-16>é"),
    # ... then UTF-8 if valid
    ("Äpfel — 日本".encode(), None, "Äpfel — 日本"),
    # undecodable bytes become U+FFFD one by one
    (b"a\xffb\xc3", "utf-8", "a\ufffdb\ufffd"),
]


@pytest.mark.parametrize(("payload", "charset", "text"), CHARSET_CASES)
def test_charsets(payload: bytes, charset: str | None, text: str | None) -> None:
    """The order of the sources of a charset, and the standard's meaning of labels."""
    expected = payload.decode("cp1251") if text is None else text
    assert decode(payload, charset) == expected


def test_replacements_are_counted() -> None:
    """Each undecodable byte of a text counts."""
    row = extract(b"caf\xe9 na\xefve text", "text/plain", "utf-8")
    assert row["text"] == "caf\ufffd na\ufffdve text"
    assert row["replacement_chars"] == 2


@pytest.mark.skipif(not LEGACY.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("suffix", "codec", "least"), [("UTF8", "utf-8", 90), ("Latin1", "cp1252", 80), ("Cyrillic", "cp1251", 60)]
)
def test_detection_on_real_texts(suffix: str, codec: str, least: int) -> None:
    """Undeclared UTF-8 (also cut in a character) is nearly always found, others mostly; everything decodes."""
    payloads = [file.read_bytes() for file in sorted(LEGACY.glob(f"*-{suffix}"))]
    right = sum(
        decode(payload, None) == payload.removeprefix(b"\xef\xbb\xbf").decode(codec, "replace") for payload in payloads
    )
    print(f"\n{suffix}: {right} of {len(payloads)} detected")
    assert right * 100 >= least * len(payloads) > 0


@pytest.mark.parametrize("detected", [None, "cp865", "unheard-of"])
def test_undetectable_bytes_are_windows_1252(monkeypatch: pytest.MonkeyPatch, detected: str | None) -> None:
    """Also where detection comes up with what the web does not have."""
    monkeypatch.setattr(module, "detect_encoding", lambda *_, **__: detected)
    assert decode(b"\x93b", None) == "\u201cb"


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


@pytest.mark.parametrize("engine", ["resiliparse", "trafilatura"])
def test_numeric_references_to_nothing(engine: str) -> None:
    """Surrogates and U+0000 written as references end as storable text."""
    page = PAGE.replace("Munich", "Mu&#xD800;nich&#0;&#xDFFF;&#x110000;\0")
    row = extract(page.encode(), engine=engine)
    assert "Augsburg" in row["text"]
    assert "\0" not in row["text"]
    row["text"].encode("utf-8")


@pytest.mark.parametrize("error", [ValueError("bad tree"), type("PanicException", (BaseException,), {})("boom")])
def test_library_errors_are_errored_rows(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Also a panic of native code, which is no `Exception`; the other rows come through."""

    def fail_on_bad(page: str, **_: object) -> str:
        if "bad" in page:
            raise error
        return "text"

    monkeypatch.setattr(module, "extract_plain_text", fail_on_bad)
    monkeypatch.setattr(module, "HTMLTree", type("Tree", (), {"parse": staticmethod(lambda page: page)}))
    rows = [(b"good", None, "text/html", None), (b"bad", None, "text/html", None), (b"good", None, "text/html", None)]
    result = Extract()(batch_of(*rows)).to_pylist()
    assert [row["text"] for row in result] == ["text", None, "text"]
    assert result[1]["verdict"]["outcome"] == "errored"
    assert result[1]["verdict"]["reason"] == "extract.failed"
    assert result[1]["verdict"]["value"] == f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_faults_of_the_machine_are_no_verdicts(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """What says nothing about the page is raised."""

    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(module, "extract_plain_text", fail)
    monkeypatch.setattr(module, "_trafilatura", lambda: fail)
    for engine in ("resiliparse", "trafilatura"):
        with pytest.raises(type(error)):
            extract(b"<p>x", engine=engine)


HOSTILE = """
def pages(n=100_000):
    deep = "<div>" * n + "x"
    yield deep
    yield "<div><!-- </div> -->" * n
    yield "<b>" * n + "x"
    yield "".join(f"<b id={i}>" for i in range(3_000)) + "<p>x" * 3_000
    yield "<table><tr><td>" * n
    yield "<a><p>" * n
    yield "<svg>" + "<g>" * n
    yield "<" * 5_000_000
    yield "<p class='" + "a " * 2_500_000 + "'>x"
    yield "<p " + " ".join(f"a{i}" for i in range(500_000)) + ">x"
    yield "<p>" + "&amp;" * 1_000_000
    yield "<p>x" * 1_000_000
    yield "<!--" * 1_000_000
    yield "<!" * 2_000_000
    yield "</a " * 1_000_000
    yield "<div>" * 500 + "</x>" * 1_500_000
    yield "<script>" * 1_000_000
    yield "<p>" + "word " * 1_000_000
    yield ("<p " + " ".join(f"a{i}" for i in range(999)) + ">x") * 50
    yield "<div>" * 100 + "<p>x" * 99_000
"""


@pytest.mark.parametrize("engine", ["resiliparse", "trafilatura"])
def test_hostile_pages_end_soon(engine: str) -> None:
    """In a process of its own: no crash, and no page takes long (the slowest is printed, CPU seconds)."""
    program = HOSTILE + textwrap.dedent(f"""
        import time, sys
        sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
        from test_extract import extract
        extract(b"<p>x", engine={engine!r})
        times = []
        for page in pages():
            start = time.process_time()
            row = extract(page[:8 << 20].encode(), engine={engine!r})
            times.append(time.process_time() - start)
        print(len(times), max(times))
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower()
    num_pages, slowest = done.stdout.split()
    print(f"\n{engine}: slowest of {num_pages} hostile pages {float(slowest):.1f} s")
    assert int(num_pages) == 20
    assert float(slowest) < 8


@pytest.mark.skipif(not PAGES.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize(("engine", "num"), [("resiliparse", 150), ("trafilatura", 20)])
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
    evidence = Extract().evidence(batch_of(*rows))
    assert [rule.rule for rule in evidence[0]] == ["extract.too_large", *["extract.too_complex"] * 3, "extract.empty"]
    assert all(rule.passed for rule in evidence[0])
    assert evidence[1] == []
    first = next(rule for rule in evidence[2] if not rule.passed)
    assert (first.value, first.threshold) == ("depth 200", "depth <= 128")


@pytest.mark.parametrize(("field", "value"), [("engine", "lynx"), ("max_bytes", 0), ("max_depth", -1)])
def test_impossible_settings_are_refused(field: str, value: object) -> None:
    """The message names field and value."""
    with pytest.raises(ValueError, match=rf"{field}: .*{value}.*\nhint: "):
        Extract(**{field: value})


def test_a_library_that_cannot_be_imported_fails_the_run_and_not_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot() -> None:
        raise ImportError("lxml.html.clean module is now a separate project")

    monkeypatch.setattr(module, "_trafilatura", cannot)
    with pytest.raises(ImportError, match="separate project"):
        extract(b"<p>text</p>", engine="trafilatura")
