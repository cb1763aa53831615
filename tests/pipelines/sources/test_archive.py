"""Archives: containers, headers, damage, origins and the balance of bytes, on made, mutated and real files."""

from __future__ import annotations

import dataclasses
import gzip
import io
import random
import time
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import HeadraceError
from pipelines.sources import archive
from pipelines.sources.archive import Gap, Origin, Record, read_archive, read_origin
from pipelines.sources.http_message import Message, charset, dechunk, decode_body, media_type, parse_message
from pipelines.sources.inflate import gunzip, inflate
from pipelines.sources.record_header import MAX_HEADER, find_record, parse_header

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"
WARCS = sorted(path for path in (SHARED / "warc").rglob("*") if path.is_file()) if SHARED.exists() else []
SMALL = [path for path in WARCS if path.stat().st_size < 60_000]
needs_data = pytest.mark.skipif(not WARCS, reason="no shared data")
MAX_BLOCK = 1 << 20


def warc(number: int, body: bytes, *, length: int | str | None = None, kind: str = "response") -> bytes:
    """One WARC record; `length` overrides what Content-Length says, an empty string leaves it out."""
    said = len(body) if length is None else length
    lines = ["WARC/1.0", f"WARC-Type: {kind}", f"WARC-Record-ID: <urn:{number}>"]
    lines += [f"Content-Length: {said}"] if said != "" else []
    return "\r\n".join([*lines, "", ""]).encode() + body + b"\r\n\r\n"


def events(data: bytes, max_block: int = MAX_BLOCK) -> list[Record | Gap]:
    """Read all and check what must always hold: the bytes balance, and every origin leads back to the same thing."""
    found = list(read_archive(io.BytesIO(data), len(data), max_block))
    assert sum(event.disk for event in found) == len(data)
    for event in found:
        if isinstance(event, Record) or event.cause is not None:
            again = read_origin(io.BytesIO(data), event.origin, max_block)
            assert dataclasses.replace(again, disk=event.disk) == event
    return found


def kept(data: bytes) -> list[bytes]:
    return [event.block for event in events(data) if isinstance(event, Record)]


def damaged(data: bytes) -> list[Gap]:
    return [event for event in events(data) if isinstance(event, Gap) and event.cause is not None]


def arrow_compress(codec: str, data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def drain(chunks) -> tuple[bytes, object]:
    parts = []
    while True:
        try:
            parts.append(next(chunks))
        except StopIteration as stopped:
            return b"".join(parts), stopped.value


BODIES = [b"first body", b"second\nWARC/1.0\r\n\r\nbody", bytes(range(256)) * 20, b""]
RECORDS = [warc(number, body) for number, body in enumerate(BODIES)]
PLAIN = b"".join(RECORDS)
MEMBERS = [gzip.compress(record, mtime=0) for record in RECORDS]


# --- sound files ---------------------------------------------------------------------------------------------------


def test_plain_origins_are_byte_spans() -> None:
    found = events(PLAIN)
    offset = 0
    for event, record, body in zip(found, RECORDS, BODIES, strict=True):
        assert (event.origin, event.disk) == (Origin(offset, len(record), 0), len(record))
        assert (event.block, event.block_size, event.damage) == (body, len(body), ())
        offset += len(record)


def test_member_origins_are_the_members() -> None:
    offset = 0
    for event, member in zip(events(b"".join(MEMBERS)), MEMBERS, strict=True):
        assert event.origin == Origin(offset, len(member), 0)
        offset += len(member)


def test_one_member_for_all_shares_its_bytes_by_cumulative_rounding() -> None:
    data = gzip.compress(PLAIN, mtime=0)
    position = 0
    for event, record in zip(events(data), RECORDS, strict=True):
        assert event.origin == Origin(0, len(data), position)
        before = position * len(data) // len(PLAIN)
        position += len(record)
        assert event.disk == position * len(data) // len(PLAIN) - before


@pytest.mark.parametrize("slack", [1 << 20, 100])
@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4"])
@pytest.mark.parametrize("cut", ["one member", "a member each", "members of 100 bytes"])
def test_containers_agree(monkeypatch: pytest.MonkeyPatch, slack: int, codec: str, cut: str) -> None:
    """`slack` = 100 sends every larger member the other way: decoded twice, never held."""
    monkeypatch.setattr(archive, "_SLACK", slack)
    slices = [PLAIN[start : start + 100] for start in range(0, len(PLAIN), 100)]
    parts = {"one member": [PLAIN], "a member each": RECORDS}.get(cut, slices)
    data = b"".join(arrow_compress(codec, part) for part in parts)
    found = list(read_archive(io.BytesIO(data), len(data), 200))
    assert sum(event.disk for event in found) == len(data)
    records = [event for event in found if isinstance(event, Record) or event.cause]  # a separator may be cut: padding
    assert [event.block for event in records] == [body[:200] for body in BODIES]
    assert [event.block_size for event in records] == [len(body) for body in BODIES]
    for event in records:
        again = read_origin(io.BytesIO(data), event.origin, 200)
        assert dataclasses.replace(again, disk=event.disk) == event


def test_plain_and_compressed_parts_may_follow_each_other() -> None:
    assert kept(PLAIN + b"".join(MEMBERS) + PLAIN + arrow_compress("zstd", PLAIN)) == BODIES * 4


def test_gzip_header_fields_are_skipped() -> None:
    raw = MEMBERS[0][10:]
    fields = b"\x05\x00extra" + b"name\0" + b"comment\0" + b"\x12\x34"
    assert kept(b"\x1f\x8b\x08\x1e\0\0\0\0\0\x03" + fields + raw) == BODIES[:1]


@pytest.mark.parametrize(
    "data", [b"", gzip.compress(b"", mtime=0), bytes(70_000), b"\r\n\r\n", b"Q*M\x18\x04\0\0\0skip"]
)
def test_files_without_records_have_no_damage(data: bytes) -> None:
    assert [event.cause for event in events(data)] == [None] * bool(data)


@pytest.mark.parametrize(
    "data", [b"hi\n", gzip.compress(b"abcd", mtime=0), b"<!DOCTYPE html>" * 999, b"\x1f\x8b", b"WARC/1.0"]
)
def test_what_is_no_archive_is_one_gap(data: bytes) -> None:
    (gap,) = damaged(data)
    assert gap.origin == Origin(0, len(data), 0)


def test_padding_between_records_is_padding() -> None:
    found = events(RECORDS[0] + bytes(5000) + RECORDS[1] + b"\r\n\r\n")
    assert [getattr(event, "cause", "record") for event in found] == ["record", None, "record", None]
    assert [event.disk for event in found][1::2] == [5000, 4]


# --- damage --------------------------------------------------------------------------------------------------------


def test_wrong_checksum_keeps_the_record_and_says_so() -> None:
    bad = MEMBERS[0][:-8] + b"\0\0\0\0" + MEMBERS[0][-4:]
    first, second = events(bad + MEMBERS[1])
    assert (first.block, first.damage, second.damage) == (BODIES[0], ("member_checksum",), ())
    assert second.origin.offset == len(bad)


def test_wrong_checksum_marks_every_record_of_its_member() -> None:
    data = gzip.compress(PLAIN, mtime=0)[:-8] + b"8 bytes."
    assert [event.damage for event in events(data)] == [("member_checksum",)] * 4


def test_padding_before_a_cut_is_damage() -> None:
    (_, gap) = events(gzip.compress(RECORDS[0] + bytes(random.Random(0).choices(b"\0\n", k=5000)), mtime=0)[:-100])
    assert gap.cause == "member_cut"


def test_bomb_is_stopped() -> None:
    data = gzip.compress(_HUGE + bytes(100 << 20), 1, mtime=0)
    (bomb,) = read_archive(io.BytesIO(data), len(data), MAX_BLOCK)
    assert (bomb.damage, bomb.origin) == (("body_cut", "member_bomb"), Origin(0, len(data), 0))
    assert 62 << 20 <= bomb.block_size <= 64 << 20


def test_member_cut_in_the_middle_loses_only_its_tail() -> None:
    half = MEMBERS[2][: len(MEMBERS[2]) // 2]
    first, cut, last = events(MEMBERS[0] + half + MEMBERS[1])
    assert cut.damage == ("body_cut", "member_cut")
    assert cut.origin == Origin(len(MEMBERS[0]), len(half), 0)
    assert 0 < cut.block_size < len(BODIES[2])
    assert BODIES[2].startswith(cut.block)
    assert (first.block, last.block) == (BODIES[0], BODIES[1])


def test_garbage_between_members_is_a_gap() -> None:
    data = MEMBERS[0] + b"garbage\x1f\x8b\x08\x00 more" * 9 + MEMBERS[1]
    assert kept(data) == BODIES[:2]
    assert [gap.origin for gap in damaged(data)] == [Origin(len(MEMBERS[0]), len(data) - sum(map(len, MEMBERS[:2])), 0)]


def test_records_before_an_error_in_a_shared_member_are_kept() -> None:
    data = bytearray(gzip.compress(PLAIN * 50, 9, mtime=0))
    data[-30:-20] = b"\xff" * 10
    blocks = kept(bytes(data) + MEMBERS[0])
    assert blocks[: 4 * 40] == BODIES * 40
    assert blocks[-1] == BODIES[0]


@pytest.mark.parametrize(
    ("length", "first", "num_damaged"),
    [
        (10**17, b"first body\r\n\r\n", 0),  # behind the end of the file: cut at the next record
        (60, b"first body\r\n\r\n", 0),  # into the next record
        (4, b"firs", 1),  # short: the rest is a gap
        ("", b"first body", 0),
        (-5, b"first body", 0),
        ("ten", b"first body", 0),
        ("9" * 400, b"first body", 0),
    ],
)
def test_wrong_lengths(length: int | str, first: bytes, num_damaged: int) -> None:
    data = warc(0, BODIES[0], length=length) + RECORDS[1] + RECORDS[2]
    assert kept(data) == [first, *BODIES[1:3]]
    assert len(damaged(data)) == num_damaged


def test_wrong_length_in_a_record_over_many_members() -> None:
    """The record reaches over all members, is cut where the next begins, and the pieces behind are still the next's."""
    data = b"".join([warc(0, BODIES[2], length=10**9), *RECORDS])
    members = [gzip.compress(data[start : start + 150], mtime=0) for start in range(0, len(data), 150)]
    members.insert(20, gzip.compress(b"", mtime=0))
    found = [event for event in events(b"".join(members)) if isinstance(event, Record)]
    assert [event.block for event in found] == [BODIES[2] + b"\r\n\r\n", *BODIES]
    assert [event.damage for event in found] == [("body_cut",), (), (), (), ()]
    assert all(event.disk >= 0 for event in found)


def test_cut_in_header_or_body() -> None:
    header_cut = RECORDS[1][:30]
    body_cut = RECORDS[2][:-3000]
    first, second, third = events(header_cut + RECORDS[0] + body_cut)
    assert (first.damage, first.header.type, first.block) == (("header_cut",), "response", b"")
    assert second.block == BODIES[0]
    assert (third.damage, third.block) == (("body_cut",), BODIES[2][:-2996])


def test_bare_newlines() -> None:
    lines = b"WARC/0.18\nWARC-Type: resource\nfolded: one\n two\nContent-Length: 3\n\nabc\n\n"
    first, second = events(lines + lines)
    assert (first.block, second.block) == (b"abc", b"abc")
    assert first.header.fields["folded"] == "one two"


def test_file_that_shrank_is_an_error() -> None:
    with pytest.raises(HeadraceError, match="hint"):
        list(read_archive(io.BytesIO(PLAIN), len(PLAIN) + 1, MAX_BLOCK))


def test_origin_without_a_record_is_an_error() -> None:
    with pytest.raises(ValueError, match="hint"):
        read_origin(io.BytesIO(MEMBERS[0]), Origin(0, len(MEMBERS[0]), 10_000), MAX_BLOCK)


# --- hostile files -------------------------------------------------------------------------------------------------

_HUGE = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 999999999999999\r\n\r\n"
_STORED = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\0\xff\xff\0\0"
HOSTILE = {
    "zip bomb": MEMBERS[0] + gzip.compress(_HUGE + bytes(200 << 20), 1, mtime=0) + MEMBERS[0],
    "zstd bomb": arrow_compress("zstd", _HUGE + bytes(100 << 20)) + MEMBERS[0],
    "header of many lines": MEMBERS[0] + b"WARC/1.0\r\n" + b"a: b\r\n" * 500_000 + MEMBERS[0],
    "header of one line": MEMBERS[0] + b"WARC/1.0\r\n" + b"a" * 3_000_000 + MEMBERS[0],
    "many magic numbers": b"\x1f\x8b\x08\0" * 500_000,
    "members inside of members": _STORED * 100_000,
    "members with headers inside": (_STORED + b"WARC/1.0\r\n\r\n") * 30_000,
    "every length too large": _HUGE * 10_000,
    "every length too large, one member": gzip.compress(_HUGE * 10_000, mtime=0),
    "every length too large, a member each": gzip.compress(_HUGE, mtime=0) * 3000,
    "every length too large, members of 60 bytes": b"".join(
        gzip.compress((_HUGE * 3000)[start : start + 60], mtime=0) for start in range(0, 3000 * len(_HUGE), 60)
    ),
    "lines like ARC": (b"http:" + b" 1.1.1.1 20080808" * 2000 + b"\n") * 50,
    "one line like ARC": b"http://a 1.1.1.1 " * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_end_soon(name: str) -> None:
    data = HOSTILE[name]
    start = time.process_time()
    found = list(read_archive(io.BytesIO(data), len(data), MAX_BLOCK))
    assert time.process_time() - start < 20  # each takes under 1 s; a quadratic one takes minutes
    assert sum(event.disk for event in found) == len(data)
    assert all(len(event.block) <= MAX_BLOCK for event in found if isinstance(event, Record))
    if data.startswith(MEMBERS[0]):
        assert [event.block for event in (found[0], found[-1])] == [BODIES[0]] * 2


# --- headers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "uri", "date", "media", "length"),
    [
        (b"http://a/ 1.2.3.4 20080430204825 text/html 12\n", "http://a/", "20080430204825", "text/html", 12),
        (
            b"http://a/b c d 1.2.3.4 20080430204825 text/html 12\r\n",
            "http://a/b c d",
            "20080430204825",
            "text/html",
            12,
        ),
        (
            b"http://a/ 1.2.3.4 20080430204825 text/html 200 sum - 55 f.arc 12\n",
            "http://a/",
            "20080430204825",
            "text/html",
            12,
        ),
        (b"http://a/ ::1 20080430204825 text/html; charset=x -1\n", "http://a/", "20080430204825", "text/html;", None),
    ],
)
def test_arc_lines(line: bytes, uri: str, date: str, media: str, length: int | None) -> None:
    header = parse_header(line + b"body")
    assert header is not None
    assert header.fields == {"warc-target-uri": uri, "warc-date": date, "content-type": media}
    assert (header.type, header.size, header.block_length) == ("response", len(line), length)


def test_arc_file_with_damage() -> None:
    head = b"filedesc://x.arc 0.0.0.0 20080430204825 text/plain 20\n1 1 InternetArchive\n\n"
    record = b"http://a/b c 1.2.3.4 20080430204825 text/html 5\nhello\n"
    data = head + record + b"damage\n" + record
    found = events(data)
    assert [event.header.type if isinstance(event, Record) else event.cause for event in found if event.disk > 1] == [
        "filedesc",
        "response",
        "no record header",
        "response",
    ]
    assert kept(gzip.compress(data, mtime=0))[1:] == [b"hello", b"hello"]


def test_first_of_repeated_fields_counts_and_headers_are_bounded() -> None:
    header = parse_header(b"WARC/1.1\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n")
    assert header is not None
    assert (header.block_length, header.damage) == (1, None)
    long = parse_header(b"WARC/1.0\r\n" + b"a" * (MAX_HEADER - 10))
    assert long is not None
    assert long.damage == "header_too_long"


def test_find_record_wants_a_field_and_a_line_of_its_own() -> None:
    assert find_record(b"text WARC/1.0\r\nno field here\r\n", 0) is None
    assert find_record(b"text WARC/1.0\r\nWARC-Type: x\r\n", 0) == 5
    assert find_record(b"x http://a/ 1.2.3.4 20080430204825 text/html 1\n", 0) is None
    assert find_record(b"x\nhttp://a/ 1.2.3.4 20080430204825 text/html 1\n", 0) == 2
    assert find_record(b"http://a/ 1.2.3.4 20080430204825 text/html 1\n", 3) is None


# --- deflate -------------------------------------------------------------------------------------------------------


def bytewise(data: bytes, wbits: int) -> bytes:
    """Decode byte by byte up to the first error: what zlib itself can make of the data."""
    decoder, parts = zlib.decompressobj(wbits), []
    for position in range(len(data)):
        try:
            parts.append(decoder.decompress(data[position : position + 1]))
        except zlib.error:
            break
        if decoder.eof:
            break
    return b"".join(parts)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 400), st.data())
def test_inflate_gives_all_that_decodes(seed: bytes, repeats: int, data: st.DataObject) -> None:
    packed = bytearray(zlib.compress(random.Random(seed).randbytes(200) + seed * repeats))
    for position in data.draw(st.lists(st.integers(0, len(packed) - 1), max_size=3)):
        packed[position] ^= 1 << position % 8
    coded = bytes(packed[: data.draw(st.integers(0, len(packed)))])
    out, _ = drain(inflate(lambda offset, size: coded[offset : offset + size], 0, len(coded), 15))
    assert out == bytewise(coded, 15)


def test_inflate_of_a_cut_stream_gives_what_zlib_holds_back() -> None:
    data = zlib.compress(bytes(3_000_000), 9)
    for cut in range(len(data) * 34 // 100, len(data) * 36 // 100):  # around the first MiB of output
        out, end = drain(inflate(lambda offset, size, cut=cut: data[offset : min(cut, offset + size)], 0, cut, 15))
        assert (len(out), end.stop, end.damage) == (len(bytewise(data[:cut], 15)), cut, "member_cut")


def test_inflate_across_large_outputs_knows_where_the_stream_ends() -> None:
    plain = bytes(range(251)) * 20_000  # several steps of output for one feed
    data = gzip.compress(plain, mtime=0)
    out, end = drain(gunzip(lambda offset, size: (data + b"tail")[offset : offset + size], 0, len(data) + 4))
    assert (out == plain, end.stop, end.damage) == (True, len(data), None)


# --- HTTP ----------------------------------------------------------------------------------------------------------


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
    assert parse_message(block) == Message(status, headers, body)


def test_http_headers_are_bounded() -> None:
    message = parse_message(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n")
    assert len(message.headers) == 256
    assert len(parse_message(b"HTTP/1.1 200 OK\r\na: " + b"b" * 99_999 + b"\r\n\r\n").headers[0][1]) == 8192


@pytest.mark.parametrize(
    ("declared", "data", "expected"),
    [
        ("text/css", b"<html>", "text/css"),
        ("", b"\xef\xbb\xbf \n<!-- x --><!DOCTYPE html>", "text/html"),
        ("application/octet-stream", b"<HTML lang=x>", "text/html"),
        ("text/plain", b"\n<!doctype html>", "text/html"),
        ("text/plain", b"<p>a paragraph", "text/plain"),
        ("", b"<?xml version='1.0'?><html xmlns='x'>", "application/xhtml+xml"),
        ("", b"<?xml version='1.0'?><rss>", "application/xml"),
        ("no-type", b"%PDF-1.4", "application/pdf"),
        ("", b"just text \xc3\xa9", "text/plain"),
        ("", b"\x00\x01binary", "application/octet-stream"),
        ("", b"", "application/octet-stream"),
    ],
)
def test_media_types(declared: str, data: bytes, expected: str) -> None:
    assert media_type(declared, data) == expected


def test_charset() -> None:
    assert charset('Text/HTML; Charset = "UTF-8"') == "utf-8"
    assert charset("text/html") is None


# --- real files and fuzzing ----------------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize("path", WARCS, ids=lambda path: path.name)
def test_real_file_balances_and_every_origin_leads_back(path: Path) -> None:
    events(path.read_bytes(), 16 << 20)


@needs_data
def test_real_member_offsets_are_zlibs() -> None:
    data = (SHARED / "warc/commoncrawl/resiliparse-warcfile.warc.gz").read_bytes()
    expected, rest = [], data
    while rest:
        decoder = zlib.decompressobj(31)
        decoder.decompress(rest)
        expected.append(Origin(len(data) - len(rest), len(rest) - len(decoder.unused_data), 0))
        rest = decoder.unused_data
    assert [event.origin for event in events(data)] == expected


@needs_data
def test_one_crawl_as_arc_and_as_warc_has_the_same_pages() -> None:
    payloads = []
    for name in ("aut-example.arc.gz", "aut-example.warc.gz"):
        found = events((SHARED / "warc/webarchive" / name).read_bytes(), 16 << 20)
        payloads.append(
            {
                event.header.fields["warc-target-uri"]: event.block
                for event in found
                if isinstance(event, Record) and event.header.type == "response" and event.block.startswith(b"HTTP")
            }
        )
    assert payloads[0] == payloads[1]
    assert len(payloads[0]) > 200


def mutate(data: bytearray, rng: random.Random, others: list[bytes]) -> bytearray:
    """Flip, overwrite, cut out, insert, cut off, or splice in a piece of another file."""
    at = rng.randrange(len(data) + 1)
    kind = rng.randrange(6)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at : at + 1] = rng.randbytes(1)
    elif kind == 2:
        del data[at : at + rng.choice([1, 4, 100, 5000])]
    elif kind == 3:
        data[at:at] = rng.randbytes(rng.choice([1, 4, 100]))
    elif kind == 4:
        data = data[:at] if rng.random() < 0.3 else data
    else:
        data[at:at] = rng.choice(others)[: rng.choice([10, 1000, 10_000])]
    return data


def fuzz(seed: int, rounds: int) -> None:
    rng, files = random.Random(seed), [path.read_bytes() for path in SMALL]
    for _ in range(rounds):
        data = bytearray(rng.choice(files))
        if rng.random() < 0.3:  # one member for all, or members that know no records, some empty
            size = rng.choice([len(data), 100, 3000])
            slices = [bytes(data[start : start + size]) for start in range(0, len(data), size or 1)]
            data = bytearray(b"".join(gzip.compress(part, 1, mtime=0) for part in [*slices, b"", *slices[:1]]))
        for _ in range(rng.choice([1, 1, 2, 5, 30])):
            data = mutate(data, rng, files)
        start = time.process_time()
        events(bytes(data))
        assert time.process_time() - start < 10


@needs_data
@pytest.mark.parametrize("slack", [1 << 20, 500])
def test_mutated_files(monkeypatch: pytest.MonkeyPatch, slack: int) -> None:
    monkeypatch.setattr(archive, "_SLACK", slack)
    fuzz(slack, 400)


@needs_data
@pytest.mark.stress
@pytest.mark.parametrize("seed", range(20))
def test_many_mutated_files(seed: int) -> None:
    fuzz(seed, 5000)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*RECORDS, *MEMBERS, b"junk", b"\0\0", b"WARC/1.0\r\n", MEMBERS[2][:40]]), max_size=6))
def test_any_concatenation_balances(parts: list[bytes]) -> None:
    events(b"".join(parts))
