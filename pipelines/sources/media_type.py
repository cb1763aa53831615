"""What a payload is, from its first bytes and from what its headers say together, and how the ledger calls it.

After the MIME Sniffing Standard (https://mimesniff.spec.whatwg.org, sections 5 to 7), whose patterns these are. It
tells a browser what may be shown; here the question is whether there is a page to keep. So this goes beyond it in both
directions. A text, HTML or XML type is not believed where the bytes are a PDF, an image, an archive or JSON, and HTML
is recognized behind types that the standard believes: application/octet-stream, XML types (XHTML) and, if it begins
with its doctype or root, text/plain. A type that says anything else of its own is believed.
"""

from __future__ import annotations

import re

import orjson

HEADER_BYTES = 1445
"""How much of a payload decides where its type is to be believed but for a signature (section 5.2)."""

PROLOGUE_BYTES = 8 << 10
"""How much decides where HTML is looked for behind another type: comments and XML declarations may precede it."""

MAX_PARSED_JSON = 1 << 20
"""A longer payload is JSON by how it begins."""

GENERIC_TYPES = frozenset(
    {
        "",
        "*/*",
        "application/octet-stream",
        "application/unknown",
        "binary/octet-stream",
        "no-type",
        "unknown/unknown",
    }
)
"""Media types that say nothing, `no-type` being that of ARC."""

HTML, XHTML = "text/html", "application/xhtml+xml"
BINARY, TEXT = "application/octet-stream", "text/plain"

_MEDIA_TYPE = re.compile(r"\s*([\w.+*-]{1,64}/[\w.+*-]{1,64})\s*(?:[;,]|$)", re.ASCII)
_SPACE = re.compile(rb"(?:[\t\n\x0c\r \0]|\xef\xbb\xbf)*")
_TAGS = (
    rb"!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p"  # of the standard
    rb"|meta|link"
)
_HTML_START = re.compile(rb"<(?:(?:%b)[\t\n\x0c\r />]|!--|!doctype\s+html\b)" % _TAGS, re.IGNORECASE)
_HTML_ROOT = re.compile(rb"<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_XML_PROLOGUE = re.compile(rb"(?:\s|<\?[^>]{0,1024}\?>|<!--.{0,4096}?-->)*", re.DOTALL)
_FEED_START = re.compile(
    rb"(?:\xef\xbb\xbf)?(?>[\t\n\x0c\r ]++|<!--.{0,1445}?-->|<!(?!--)[^>]*+>|<\?.{0,1445}?\?>)*+<(rss|feed|rdf:RDF)",
    re.DOTALL,
)
_JSON_START = re.compile(rb"\s*(?:\{\s*[\"}]|\[\s*[\[{\"\]\dtfn-])")
_BINARY_BYTES = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_UTF_16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}

_SIGNATURES = (
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"{\\rtf", "application/rtf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\0\0\1\0", "image/x-icon"),
    (b"\0\0\2\0", "image/x-icon"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"Rar \x1a\x07\0", "application/x-rar-compressed"),
    (b"Rar!\x1a\x07", "application/x-rar-compressed"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"OggS\0", "application/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"MThd\0\0\0\x06", "audio/midi"),
    (b".snd", "audio/basic"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
    (b"FWS", "application/x-shockwave-flash"),
    (b"CWS", "application/x-shockwave-flash"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"OTTO", "font/otf"),
    (b"\0\1\0\0", "font/ttf"),
    (b"ttcf", "font/collection"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wave", b"AVI ": "video/avi"}
_MOSTLY_TEXT = frozenset(
    {"audio/mpeg", "audio/basic", "application/x-shockwave-flash", "font/collection", "font/otf", "font/woff"}
)
"""Types whose signature is a word that a text may begin with: they count where binary bytes follow."""
_FIRST_BYTES = frozenset(signature[:1] for signature, _ in _SIGNATURES)


def declared_media_type(content_type: str) -> str:
    """Return the media type of a Content-Type in lower case and without parameters; empty where there is none."""
    match = _MEDIA_TYPE.match(content_type)
    return match[1].lower() if match else ""


def media_type(declared: str, data: bytes | memoryview) -> str:
    """Return what a payload is. `declared` is in lower case and without parameters."""
    if declared == HTML and data[:1] == b"<":  # no signature begins so
        return _feed(bytes(data[:HEADER_BYTES])) or HTML
    is_generic = declared in GENERIC_TYPES
    is_xml = _is_xml(declared)
    if not (is_generic or is_xml or declared in (HTML, TEXT)):
        return declared
    head = _ascii(bytes(data[: HEADER_BYTES if declared == HTML else PROLOGUE_BYTES]))
    signed = _signature(head) or _json(head, data, declared)
    if signed is not None:
        return signed
    if is_generic:
        return _generic(head)
    return _declared_xml(head, declared) if is_xml else _declared_text(head, declared)


def _declared_text(head: bytes, declared: str) -> str:
    """Tell feeds from what says that it is HTML (section 7.3), and HTML and binary data from what says plain text."""
    if declared == HTML:
        return _feed(head) or HTML
    if _HTML_ROOT.match(head, _content_start(head)):
        return HTML
    return TEXT


def _declared_xml(head: bytes, declared: str) -> str:
    """Recognize XHTML, and HTML, in what says that it is XML."""
    if declared == XHTML:
        return _feed(head) or XHTML
    start = _XML_PROLOGUE.match(head, _content_start(head))
    assert start is not None
    return XHTML if _HTML_ROOT.match(head, start.end()) else declared


def _generic(head: bytes) -> str:
    """Sniff what nothing is said about (section 7.1)."""
    start = _content_start(head)
    if _HTML_START.match(head, start):
        return HTML
    if head.startswith(b"<?xml", start):
        return _feed(head) or _declared_xml(head, "application/xml")
    return TEXT if head and looks_like_text(head) else BINARY


def _content_start(head: bytes) -> int:
    """Return where white space (and a byte order mark) ends."""
    space = _SPACE.match(head)
    assert space is not None
    return space.end()


def _ascii(head: bytes) -> bytes:
    """Return the ASCII of UTF-16 with a byte order mark, anything else as it is."""
    codec = _UTF_16.get(head[:2])
    if codec is None:
        return head
    text = head[2 : len(head) & ~1].decode(codec, "replace")
    return text.encode("ascii", "replace")


def _signature(head: bytes) -> str | None:
    """Return the type whose signature (sections 6.1, 6.2, 6.4) the data begin with, if there is one."""
    if head[:1] not in _FIRST_BYTES:
        return None
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return None if kind in _MOSTLY_TEXT and looks_like_text(head) else kind
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12])
    return "video/mp4" if head[4:8] == b"ftyp" and head[:2] == b"\0\0" else None


def _json(head: bytes, data: bytes | memoryview, declared: str) -> str | None:
    """Return JSON's type for what is whole JSON, an object or a list, and called HTML or nothing at all."""
    if declared == TEXT or not _JSON_START.match(head):
        return None
    if len(data) > MAX_PARSED_JSON:  # its beginning says so, if its end does not contradict
        return "application/json" if bytes(data[-64:]).rstrip()[-1:] in (b"]", b"}") else None
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return "application/json"


def _feed(head: bytes) -> str | None:
    """Tell RSS and Atom from HTML (section 7.3)."""
    feed = _FEED_START.match(head)
    if feed is None:
        return None
    if feed[1] == b"feed":
        return "application/atom+xml"
    return "application/rss+xml" if feed[1] == b"rss" or b"http://purl.org/rss/1.0/" in head else None


def _is_xml(kind: str) -> bool:
    return kind in ("text/xml", "application/xml") or kind.endswith("+xml")


def looks_like_text(data: bytes | memoryview) -> bool:
    """Whether there is no binary data byte (section 4.2) among the first 512."""
    return _BINARY_BYTES.search(data, 0, 512) is None


_NAMED = {
    "application/json": "application_json",
    "application/octet-stream": "application_octet_stream",
    "application/ogg": "audio",
    "application/pdf": "application_pdf",
    "application/x-shockwave-flash": "application_flash",
    "application/xhtml+xml": "application_xhtml_xml",
    "application/rss+xml": "feed",
    "application/atom+xml": "feed",
    "text/calendar": "text_calendar",
    "text/css": "text_css",
    "text/csv": "text_csv",
    "text/html": "text_html",
    "text/plain": "text_plain",
}
_SCRIPT = frozenset(
    f"{top}/{name}"
    for top in ("application", "text")
    for name in ("javascript", "x-javascript", "ecmascript", "x-ecmascript", "jscript")
)
_ARCHIVE = re.compile(
    r"application/(?:x-)?(?:zip|zip-compressed|gzip|gtar|tar|rar|rar-compressed|7z-compressed|bzip2?|xz|java-archive)"
)
_DOCUMENT = re.compile(
    r"application/(?:msword|rtf|postscript|epub\+zip|x-ole-storage|vnd\.(?:ms-|openxmlformats|oasis\.opendocument).*)|text/rtf"
)
_FONT = re.compile(r"application/(?:x-)?font.*|application/vnd\.ms-fontobject")
TYPE_REASONS = frozenset(_NAMED.values()) | {
    "application_xml", "archive", "audio", "document", "font", "image", "other", "text_javascript", "video",
}  # fmt: skip
"""Every word that `type_reason` returns."""


def type_reason(kind: str) -> str:
    """Return the ledger's word for a media type, one of `TYPE_REASONS`: crawls hold thousands of types."""
    named = _NAMED.get(kind)
    if named is not None:
        return named
    top = kind.partition("/")[0]
    if _FONT.fullmatch(kind) or top == "font":
        return "font"
    if top in ("image", "audio", "video"):
        return top
    if kind in _SCRIPT:
        return "text_javascript"
    if _DOCUMENT.fullmatch(kind):
        return "document"
    if _ARCHIVE.fullmatch(kind):
        return "archive"
    if kind.endswith("+json"):
        return "application_json"
    return "application_xml" if _is_xml(kind) else "other"
