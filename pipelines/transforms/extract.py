"""Raw payloads to text: the charset is found, HTML is cut down to its main content by a library, the rest is decoded.

Charset, first that is known: byte order mark, HTTP header, `<meta>` or XML declaration within the first 1024 bytes,
valid UTF-8, detection (uchardet), windows-1252. Labels mean what the WHATWG Encoding Standard says (ISO-8859-1 is
windows-1252), and a wrong label is followed as a browser would. Bytes that do not decode become U+FFFD, which
`replacement_chars` counts (with those that the page brought). The text is always valid UTF-8. U+0000 is removed: it
means nothing in a text, and databases and C strings choke on it.

Every page costs bounded work, by counts and not by clocks: bytes, and the elements, depth and attributes that
`markup.measure_markup` finds before a parser sees them. The worst page found within the default bounds takes
resiliparse 3 and trafilatura 6 CPU seconds. The libraries keep no state between pages. Ordinary pages a CPU second:
resiliparse about 700 (50 MB), trafilatura about 70 (5 MB).
"""

from __future__ import annotations

import codecs
import dataclasses
import logging
import re
from collections.abc import Callable
from functools import cache
from typing import ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

from pipelines.schema import VERDICT
from pipelines.transform import Evidence, replace_column
from pipelines.transforms.markup import measure_markup

REPLACEMENT = "\ufffd"

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})

PRESCAN_BYTES = 1024
"""How far a charset declaration is looked for (HTML standard, section 13.2.3.2)."""

DETECTION_BYTES = 128 << 10

FALLBACK = "cp1252"
"""Where detection finds nothing, or an encoding that the web does not have (DOS code pages): the standard's default."""

BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))

WHATWG_CODECS = {
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "iso8859-11": "cp874",
}
"""Python's codec that decodes all that the standard's encoding does, where it is not the one of the same name."""

MAX_CAUSE = 200
"""Characters of a library's error message that are kept."""

_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_DECLARATION = re.compile(
    rb"<meta\s[^>]{0,512}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})"
    rb"|\A\s{0,64}<\?xml\s[^>]{0,256}?encoding\s*=\s*[\"']([\w.:-]{1,40})",
    re.IGNORECASE,
)


class ExtractionError(ValueError):
    """A library failed on one page; the message names what it raised."""


@dataclasses.dataclass(frozen=True, slots=True)
class Extract:
    """Fills `text` from `content`, sets `content` to null, adds `replacement_chars`. Rows with a text keep it as it is.

    HTML gives its main content, any other media type that the source lets through its decoded characters.

    A page beyond a bound is `dropped[extract.too_large]` (bytes) or `dropped[extract.too_complex]` (nodes, depth,
    attributes), one without text `dropped[extract.empty]`, one on which the library fails `errored[extract.failed]`.
    """

    name: ClassVar[str] = "extract"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = pa.schema([pa.field("replacement_chars", pa.int32())])
    drops: ClassVar[tuple[str, ...]] = ("media_type", "charset")

    engine: Literal["resiliparse", "trafilatura"] = "resiliparse"
    max_bytes: int = 8 << 20
    """Of the payload."""
    max_nodes: int = 100_000
    """Elements that a parser might build; the most seen in 1,217 real pages is 46,000."""
    max_depth: int = 128
    """Elements open at once; the most seen is 42, browsers stop at 512."""
    max_attributes: int = 1_000
    """Of one tag; the most seen is 43. Parsers look for duplicates in quadratic time."""

    def __post_init__(self) -> None:
        """Refuse bounds that let nothing through, and engines that are not there."""
        if self.engine not in ENGINES:
            raise ValueError(f"engine: {self.engine!r} is unknown\nhint: {' or '.join(ENGINES)}")
        for bound in ("max_bytes", "max_nodes", "max_depth", "max_attributes"):
            if getattr(self, bound) < 1:
                raise ValueError(f"{bound}: {getattr(self, bound)} lets nothing through\nhint: give a number from 1 up")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Extract every row that has no text yet."""
        texts: list[str | None] = []
        verdicts: list[dict[str, str | None] | None] = [None] * batch.num_rows
        for row, kind, charset in _rows_without_text(batch):
            text, verdicts[row] = self._extract(_payload(batch, row), kind, charset)
            texts.append(text)
        given = batch.column("text")
        text_column = pc.replace_with_mask(given, pc.is_null(given), pa.array(texts, pa.large_string()))
        batch = replace_column(batch, "text", text_column)
        batch = replace_column(batch, "content", pa.nulls(batch.num_rows, pa.large_binary()))
        batch = replace_column(batch, "verdict", pa.array(verdicts, VERDICT))
        replaced = pc.count_substring(pc.fill_null(text_column, ""), REPLACEMENT).cast(pa.int32())
        return batch.drop_columns(list(self.drops)).append_column(self.adds.field(0), replaced)

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Return the sizes of every payload against the bounds, and its text's length; `[]` for rows with a text."""
        evidence: list[list[Evidence]] = [[] for _ in range(batch.num_rows)]
        for row, kind, charset in _rows_without_text(batch):
            payload = _payload(batch, row)
            rules = [
                (
                    "extract.too_large",
                    f"{len(payload)} bytes",
                    f"<= {self.max_bytes} bytes",
                    len(payload) <= self.max_bytes,
                )
            ]
            if kind in HTML_TYPES and len(payload) <= self.max_bytes:
                rules += [("extract.too_complex", *measure) for measure in self._measures(decode(payload, charset))]
            text, verdict = self._extract(payload, kind, charset)
            if verdict is not None and verdict["reason"] == "extract.failed":
                rules.append(("extract.failed", verdict["value"] or "", "no error", False))
            rules.append(("extract.empty", f"{len(text or '')} characters", ">= 1 character", bool(text)))
            evidence[row] = [Evidence(*rule) for rule in rules]
        return evidence

    def _extract(
        self, payload: bytes, kind: str | None, charset: str | None
    ) -> tuple[str | None, dict[str, str | None] | None]:
        """Return the text of a payload, or None and the verdict."""
        if len(payload) > self.max_bytes:
            return None, _dropped("too_large", f"{len(payload)} bytes", f"<= {self.max_bytes} bytes")
        text = decode(payload, charset)
        if kind in HTML_TYPES:
            for value, threshold, passed in self._measures(text):
                if not passed:
                    return None, _dropped("too_complex", value, threshold)
            try:
                text = ENGINES[self.engine](text)
            except ExtractionError as error:
                cause = {"outcome": "errored", "reason": "extract.failed", "value": str(error), "threshold": None}
                return None, cause
        text = _storable(text)
        if not text or text.isspace():
            return None, _dropped("empty", "0 characters", ">= 1 character")
        return text, None

    def _measures(self, page: str) -> list[tuple[str, str, bool]]:
        """Return value, threshold and whether it is met, for each bound on markup."""
        markup = measure_markup(page.encode("utf-8", "replace"))
        bounds = (
            ("nodes", markup.nodes, self.max_nodes),
            ("depth", markup.depth, self.max_depth),
            ("attributes", markup.attributes, self.max_attributes),
        )
        return [(f"{name} {found}", f"{name} <= {bound}", found <= bound) for name, found, bound in bounds]


def _rows_without_text(batch: pa.RecordBatch) -> list[tuple[int, str | None, str | None]]:
    """Return row number, media type and charset of every row that has no text."""
    no_text = pc.is_null(batch.column("text")).to_pylist()
    kinds, charsets = (batch.column(name).to_pylist() for name in ("media_type", "charset"))
    return [(row, kinds[row], charsets[row]) for row in range(batch.num_rows) if no_text[row]]


def _payload(batch: pa.RecordBatch, row: int) -> bytes:
    """Return a row's payload; none is an empty one."""
    return batch.column("content")[row].as_py() or b""


def _dropped(rule: str, value: str, threshold: str) -> dict[str, str | None]:
    return {"outcome": "dropped", "reason": f"extract.{rule}", "value": value, "threshold": threshold}


def _storable(text: str) -> str:
    """Return `text` without U+0000, and with U+FFFD for surrogates, which UTF-8 cannot hold."""
    text = text.replace("\0", "")
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def decode(payload: bytes, charset: str | None) -> str:
    """Return the payload's characters, U+FFFD for what does not decode; `charset` is that of the HTTP header."""
    for mark, marked in BYTE_ORDER_MARKS:
        if payload.startswith(mark):
            return payload[len(mark) :].decode(marked, "replace")
    codec = _codec(charset) or _declared_codec(payload)
    if codec is not None:
        return payload.decode(codec, "replace")
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError:
        detected = _codec(detect_encoding(payload, DETECTION_BYTES, html5_compatible=False))
        return payload.decode(_ascii_compatible(detected or FALLBACK), "replace")


def _codec(label: str | None) -> str | None:
    """Return Python's codec for a label of the Encoding Standard, or None for anything else."""
    known = map_encoding_to_html5(label, fallback_utf8=False) if label else None
    return WHATWG_CODECS.get(known, known) if known else None


def _declared_codec(payload: bytes) -> str | None:
    """Return the codec that the page itself declares, or None."""
    found = _DECLARATION.search(_COMMENT.sub(b"", payload[:PRESCAN_BYTES]))
    codec = _codec((found[1] or found[2]).decode("ascii", "replace")) if found else None
    return _ascii_compatible(codec) if codec else None


def _ascii_compatible(codec: str) -> str:
    """Return UTF-8 for UTF-16: what was just read, or detected without a byte order mark, as ASCII is not UTF-16."""
    return "utf-8" if codec.startswith("utf-16") else codec


def _extract_resiliparse(page: str) -> str:
    """Return the main content by resiliparse's rules, with line breaks and list bullets, without comments."""
    try:
        return extract_plain_text(
            HTMLTree.parse(page), preserve_formatting=True, main_content=True, alt_texts=False, comments=False
        )
    except (ValueError, RuntimeError) as error:
        raise _failure(error) from error
    except BaseException as error:
        if not _is_rust_panic(error):
            raise
        raise _failure(error) from error


def _extract_trafilatura(page: str) -> str:
    """Return the main content by trafilatura's precision rules, without comments; empty where it finds none."""
    extract = _trafilatura()  # outside of the `try`: where it cannot be imported, the run fails and not every page
    try:
        return extract(page, favor_precision=True, include_comments=False, deduplicate=False) or ""
    except MemoryError:
        raise
    except Exception as error:  # pure Python over hostile trees: its bugs are of any kind; no Rust within
        raise _failure(error) from error


@cache
def _trafilatura() -> Callable[..., str | None]:
    """Import trafilatura when it is asked for (it costs 0.7 s), and keep its log out of the user's terminal."""
    from trafilatura import extract

    logging.getLogger("trafilatura").addHandler(logging.NullHandler())
    return extract


def _is_rust_panic(error: BaseException) -> bool:
    """Whether this is pyo3's PanicException, a BaseException that no module exports."""
    return type(error).__name__ == "PanicException"


def _failure(error: BaseException) -> ExtractionError:
    return ExtractionError(f"{type(error).__name__}: {error}"[:MAX_CAUSE])


ENGINES = {"resiliparse": _extract_resiliparse, "trafilatura": _extract_trafilatura}
"""From a page to its main content; they raise `ExtractionError` alone."""
