"""HTTP responses: head, transfer and content codings, wrong and damaged ones, and their bounds."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest
from archives import arrow_compress

from pipelines.sources.http_message import Message, charset, dechunk, decode_body, parse_message


def response(body: bytes, *headers: str) -> Message:
    return parse_message("\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode() + body)


HTML = b"<html><body>" + b"some words and more words " * 40 + b"</body></html>"
RAW_DEFLATE = zlib.compressobj(wbits=-15)
RAW = RAW_DEFLATE.compress(HTML) + RAW_DEFLATE.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(HTML, mtime=0)),
        ("x-gzip", gzip.compress(HTML[:99], mtime=0) + gzip.compress(HTML[99:], mtime=0) + b"\0\0"),
        ("deflate", zlib.compress(HTML)),
        ("deflate", RAW),
        ("br", arrow_compress("brotli", HTML)),
        ("zstd", arrow_compress("zstd", HTML)),
        ("deflate, gzip", gzip.compress(zlib.compress(HTML), mtime=0)),
        ("gzip", gzip.compress(gzip.compress(HTML, mtime=0), mtime=0)),  # coded twice, declared once
        ("gzip, gzip", gzip.compress(HTML, mtime=0)),  # declared twice, coded once
        ("br", gzip.compress(HTML, mtime=0)),  # the bytes know better
        ("gzip", HTML),
        ("deflate", HTML),
        ("br", HTML),
        ("utf-8", HTML),
    ],
)
def test_codings(coding: str, body: bytes) -> None:
    decoded = decode_body(response(body, "Content-Type: text/html", f"Content-Encoding: {coding}"), 1 << 20)
    assert (decoded.data, decoded.damage, decoded.failed, decoded.is_too_large) == (HTML, (), False, False)


def test_damaged_coding_keeps_what_decodes() -> None:
    words = b" ".join(b"%d" % (number * 7919) for number in range(3000))
    for coding, body in (("gzip", gzip.compress(words, mtime=0)), ("deflate", zlib.compress(words))):
        decoded = decode_body(response(body[: len(body) // 2], f"Content-Encoding: {coding}"), 1 << 20)
        assert words.startswith(decoded.data)
        assert len(decoded.data) > len(words) // 4
        assert decoded.damage == ("coding_cut",)
    checksum = gzip.compress(words, mtime=0)[:-8] + b"8 bytes."
    assert decode_body(response(checksum, "Content-Encoding: gzip"), 1 << 20).damage == ("coding_checksum",)


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate"])
def test_nothing_decodes(coding: str) -> None:
    junk = b"\xff\x01\x00" + random.Random(1).randbytes(500)
    assert decode_body(response(junk, f"Content-Encoding: {coding}"), 1 << 20).failed


@pytest.mark.parametrize(
    "body", [gzip.compress(bytes(50 << 20), mtime=0), gzip.compress(gzip.compress(bytes(50 << 20), mtime=0), mtime=0)]
)
def test_decoded_body_is_bounded(body: bytes) -> None:
    decoded = decode_body(response(body, "Content-Encoding: gzip, gzip"), 100_000)
    assert (len(decoded.data), decoded.is_too_large) == (100_000, True)


@pytest.mark.parametrize(
    ("coded", "plain", "damage"),
    [
        (b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n", b"hello world", ()),
        (b"5\nhello\n0\n\n", b"hello", ()),
        (b"5\r\nhello\r\n6\r\n wo", b"hello wo", ("chunk_cut",)),
        (b"5\r\nhello\r\n", b"hello", ("chunk_cut",)),
        (b"5\r\nhello\r\nrest is not chunked", b"hellorest is not chunked", ("chunk_wrong",)),
        (b"5\r\nhello\r\n2\r\nab3\r\nxyz\r\n0\r\n\r\n", b"helloab3\r\nxyz\r\n0\r\n\r\n", ("chunk_wrong",)),
        (b"<html>never chunked", b"<html>never chunked", ()),
        (b"12\nis a line of text, no chunk", b"12\nis a line of text, no chunk", ()),
        (b"", b"", ()),
    ],
)
def test_chunks(coded: bytes, plain: bytes, damage: tuple[str, ...]) -> None:
    assert dechunk(coded) == (plain, damage)


@pytest.mark.parametrize(
    ("block", "status", "headers", "body"),
    [
        (b"HTTP/1.1 200\r\nA: b\r\n\r\nx", 200, (("A", "b"),), b"x"),  # no reason phrase
        (b"HTTP/1.1 404 Not\n\n", 404, (), b""),
        (b"HTTP/2 200 OK\nA: b\n c\nno colon\nA: \xe9\n\nx\n\ny", 200, (("A", "b c"), ("A", "é")), b"x\n\ny"),
        (b"HTTP/1.0 200 OK\r\nA: b", 200, (("A", "b"),), b""),
        (b"<html>", None, (), b"<html>"),
        (b"", None, (), b""),
    ],
)
def test_messages(block: bytes, status: int | None, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
    message = parse_message(block)
    assert (message.status, message.headers, bytes(message.body)) == (status, headers, body)
    assert parse_message(memoryview(block)) == message


def test_http_headers_are_bounded() -> None:
    message = parse_message(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n")
    assert len(message.headers) == 256
    assert len(parse_message(b"HTTP/1.1 200 OK\r\na: " + b"b" * 99_999 + b"\r\n\r\n").headers[0][1]) == 8192


def test_charset() -> None:
    assert charset('Text/HTML; Charset = "UTF-8"') == "utf-8"
    assert charset("text/html") is None
