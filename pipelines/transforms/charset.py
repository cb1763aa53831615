"""Payloads to valid UTF-8: which character encoding a page is in, and what becomes of bytes that are in none.

The order is that of the HTML standard (13.2.3.2): byte order mark, HTTP header, what the page declares within its
first 1024 bytes, detection; labels mean what the Encoding Standard says (ISO-8859-1 is windows-1252). A browser then
follows a label whatever comes out. Here a label must agree with the bytes, for somebody could read the page once:

- Bytes that are valid UTF-8 and not all ASCII are UTF-8, whatever the label says. Of 41,000 pieces of 40 characters of
  UDHR texts in single-byte encodings none was that by chance; where the label is of a multi-byte encoding, four
  characters are asked for, which no piece of the Chinese and Japanese texts reached.
- Bytes that are UTF-8 but for a few are UTF-8: at least as many characters that are as bytes that are none. Texts in
  other encodings reach a share of .28 by chance at most, pages with stray bytes have .5 and mostly far more. A stray
  byte is windows-1252, as those of real pages are, unless it belongs to a torn or forbidden sequence: an end that was
  cut off, a surrogate, an overlong form.
- Where fewer characters than half of those outside of ASCII are any under the label, the label is wrong and detection
  decides.

Detection is chardetng, that of Firefox: of 176 UDHR texts in legacy encodings 168 come out right. It is told the
top-level domain, as it is there. What is in no encoding becomes U+FFFD. The work is linear in the payload; a payload
that is valid UTF-8 is read once, in native code, and not copied.
"""

from __future__ import annotations

import codecs
import re
from functools import cache

import numpy as np
import pyarrow as pa
from chardetng_py import EncodingDetector
from resiliparse.parse.encoding import map_encoding_to_html5

REPLACEMENT = "\ufffd"

PRESCAN_BYTES = 1024
"""How far a declaration is looked for (HTML standard, 13.2.3.2)."""

DETECTION_BYTES = 64 << 10
"""Of the lines that are not ASCII; chardetng reads 7 MB a CPU second."""

UTF_8, FALLBACK = "utf-8", "cp1252"

LEAST_MULTI_BYTE = 4
"""Characters that show that bytes are UTF-8 where their label is of another multi-byte encoding."""

BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, UTF_8), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))

UTF_16_DECLARATIONS = ((b"<\0?\0x\0", "utf-16-le"), (b"\0<\0?\0x", "utf-16-be"))
"""How an XML declaration begins in UTF-16 without a byte order mark."""

WHATWG_CODECS = {
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "iso8859-11": "cp874",
}
"""Python's codec that decodes all that the standard's encoding does, where it is not the one of the same name."""

MULTI_BYTE = frozenset({"gb18030", "cp932", "cp949", "big5hkscs", "euc_jp", "iso2022_jp"})

JIS_ESCAPES = (b"\x1b$B", b"\x1b$@")
"""With one of these ISO-2022-JP, which is ASCII otherwise, begins its Japanese."""

_HIGH = bytes(range(0x80, 0x100))
_STRAY = re.compile("[\udc80-\udcff]+")
_PIECE = re.compile(rb"[\xc0-\xfd][\x80-\xbf]+|[\x80-\xff]")
"""Of a run of stray bytes: a lead byte with continuations, which is torn or forbidden UTF-8, or else one byte."""

_MARKUP = re.compile(
    rb"<!--.*?(?:-->|\Z)|<(meta)(?=[\s/])|</?[a-z](?:\"[^\"]*\"|'[^']*'|[^>\"'])*|<[!/?][^>]*", re.I | re.S
)
_ATTRIBUTE = re.compile(rb"[\s/]*([^\s/>=][^\s/>=]*)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]*)))?")
_CHARSET = re.compile(rb"charset\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s;\"']+))", re.I)
_XML_ENCODING = re.compile(rb"\s{0,64}<\?xml\s[^>]*?encoding\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.I)
_DOMAIN = re.compile(r"[a-z][a-z0-9-]{1,62}")


def to_utf8(payload: bytes | memoryview, label: str | None = None, domain: str | None = None) -> bytes | memoryview:
    """Return the payload's characters in UTF-8, without a byte order mark: no copy where the payload is that already.

    `label` is the charset of the HTTP header, `domain` the top-level domain of the host.
    """
    head = bytes(payload[:PRESCAN_BYTES])
    for mark, marked in BYTE_ORDER_MARKS:
        if head.startswith(mark):
            rest = payload[len(mark) :]
            return rest if marked == UTF_8 and is_utf8(rest) else _decoded_as(bytes(rest), marked).encode()
    codec = _labelled_codec(head, label)
    if is_utf8(payload) and _may_be_utf8(payload, codec):
        return payload
    return _decoded(bytes(payload), codec, domain).encode()


def decode(payload: bytes | memoryview, label: str | None = None) -> str:
    """Return the payload's characters."""
    return str(to_utf8(payload, label), UTF_8)


def is_utf8(payload: bytes | memoryview) -> bool:
    """Whether the payload is valid UTF-8, by Arrow's validation of strings."""
    ends = pa.py_buffer(np.array([0, len(payload)], np.int64))
    try:
        pa.LargeStringArray.from_buffers(1, ends, pa.py_buffer(payload)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _labelled_codec(head: bytes, label: str | None) -> str | None:
    """Return the codec that header or page name, or None; UTF-16 only where bytes look like it."""
    codec = _codec(label)
    if codec is not None and (not codec.startswith("utf-16") or b"\0" in head):
        return codec
    for start, marked in UTF_16_DECLARATIONS:
        if head.startswith(start):
            return marked
    codec = _declared_codec(head)
    return UTF_8 if codec is not None and codec.startswith("utf-16") else codec  # it was just read as ASCII


def _codec(label: str | None) -> str | None:
    """Return Python's codec for a label of the Encoding Standard, or None for anything else."""
    known = map_encoding_to_html5(label, fallback_utf8=False) if label and label.isascii() else None
    return WHATWG_CODECS.get(known, known) if known else None


def _declared_codec(head: bytes) -> str | None:
    """Return the codec that a page declares: in its first meta element that names one, else in its XML declaration."""
    for tag in _MARKUP.finditer(head):
        if tag[1] and (codec := _codec(_meta_label(head, tag.end()).decode("ascii", "replace"))):
            return codec
    xml = _XML_ENCODING.match(head)
    return _codec((xml[1] or xml[2] or b"").decode("ascii", "replace")) if xml else None


def _meta_label(head: bytes, at: int) -> bytes:
    """Return the label in the meta element whose attributes begin at `at`, whole or cut by the prescan, or nothing."""
    attributes: dict[bytes, bytes] = {}
    while found := _ATTRIBUTE.match(head, at):
        attributes.setdefault(found[1].lower(), found[2] or found[3] or found[4] or b"")
        at = found.end()
    if b"charset" in attributes:
        return attributes[b"charset"]
    if attributes.get(b"http-equiv", b"").lower() != b"content-type":
        return b""
    found = _CHARSET.search(attributes.get(b"content", b""))
    return (found[1] or found[2] or found[3] or b"") if found else b""


def _may_be_utf8(payload: bytes | memoryview, codec: str | None) -> bool:
    """Whether valid UTF-8 is that although its label says `codec` (None: there is no label)."""
    if codec is None or codec == UTF_8:
        return codec is not None or not any(escape in bytes(payload) for escape in JIS_ESCAPES)
    num_characters = np.count_nonzero(np.frombuffer(payload, np.uint8) >= 0xC0)
    return bool(num_characters >= (LEAST_MULTI_BYTE if codec in MULTI_BYTE else 1))


def _decoded(payload: bytes, codec: str | None, domain: str | None) -> str:
    """Return the characters of a payload that is not valid UTF-8, or is none by its label."""
    least = 1 if codec in (None, UTF_8) else LEAST_MULTI_BYTE
    text = payload.decode(UTF_8, "surrogateescape")
    num_stray = sum(len(run) for run in _STRAY.findall(text))
    if num_stray and _num_beyond_ascii(text, payload) - num_stray >= max(least, num_stray):
        return _repaired(text)
    if codec is not None and codec != UTF_8:
        text = _decoded_as(payload, codec)
        num_replaced = text.count(REPLACEMENT)
        if 2 * num_replaced <= max(_num_beyond_ascii(text, payload), 1):
            return text
    return _decoded_as(payload, _detected_codec(payload, domain))


def _decoded_as(payload: bytes, codec: str) -> str:
    """Return the payload in a codec, U+FFFD for what is not in it; UTF-8 is repaired."""
    if codec == UTF_8:
        return _repaired(payload.decode(UTF_8, "surrogateescape"))
    return payload.decode(codec, "replace")


def _num_beyond_ascii(text: str, payload: bytes) -> int:
    """Return how many characters of a payload's text are made of other than ASCII bytes."""
    return max(len(text) - len(payload.translate(None, _HIGH)), 0)


def _repaired(text: str) -> str:
    """Return UTF-8 text with its stray bytes (as surrogates) read as windows-1252, torn sequences as U+FFFD.

    A stray byte that begins other characters of the text is one of them, torn.
    """
    leads = {character.encode()[0] for character in set(_STRAY.sub("", text)) if character > "\x7f"}

    @cache  # there are few, many times
    def repaired(run: str) -> str:
        pieces = _PIECE.findall(run.encode(UTF_8, "surrogateescape"))
        return "".join(
            REPLACEMENT if len(piece) > 1 or piece[0] in leads else piece.decode(FALLBACK, "replace")
            for piece in pieces
        )

    return _STRAY.sub(lambda found: repaired(found[0]), text)


def _detected_codec(payload: bytes, domain: str | None) -> str:
    """Return the codec that chardetng guesses, which knows neither labels nor UTF-16; here it is not UTF-8."""
    if payload.isascii() and any(escape in payload for escape in JIS_ESCAPES):
        return "iso2022_jp"
    lines = b"\n".join(line for line in payload.split(b"\n") if not line.isascii())
    detector = EncodingDetector()
    detector.feed(lines[:DETECTION_BYTES], last=len(lines) <= DETECTION_BYTES)
    known = domain.encode() if domain and _DOMAIN.fullmatch(domain) else None
    return _codec(detector.guess(tld=known, allow_utf8=False)) or FALLBACK
