"""Archives: containers, damage, origins and the balance of bytes, on made, mutated and real files."""

from __future__ import annotations

import gzip
import io
import random
import time
import zlib
from pathlib import Path

import pytest
from archives import (
    BODIES,
    MAX_BLOCK,
    MEMBERS,
    PLAIN,
    RECORDS,
    SHARED,
    WARCS,
    arrow_compress,
    damaged,
    events,
    kept,
    read,
    warc,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import HeadraceError
from pipelines.sources import archive
from pipelines.sources.archive import Origin, Record, read_archive, read_origin

SMALL = [path for path in WARCS if path.stat().st_size < 60_000]
needs_data = pytest.mark.skipif(not WARCS, reason="no shared data")


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
    found = read(data, 200)
    assert sum(event.disk for event in found) == len(data)
    records = [event for event in found if isinstance(event, Record) or event.cause]  # a separator may be cut: padding
    assert [event.block for event in records] == [body[:200] for body in BODIES]
    assert [event.block_size for event in records] == [len(body) for body in BODIES]
    for event in records:
        again = read_origin(io.BytesIO(data), event.origin, 200)
        assert again._replace(disk=event.disk) == event


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
    (bomb,) = read(data)
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
    found = read(data)
    assert time.process_time() - start < 20  # each takes under 1 s; a quadratic one takes minutes
    assert sum(event.disk for event in found) == len(data)
    assert all(len(event.block) <= MAX_BLOCK for event in found if isinstance(event, Record))
    if data.startswith(MEMBERS[0]):
        assert [event.block for event in (found[0], found[-1])] == [BODIES[0]] * 2


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
