"""Deflate streams: all that decodes, where it ends, and sound members in one step."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources.inflate import WholeMembers, gunzip, inflate


def drain(chunks) -> tuple[bytes, object]:
    parts = []
    while True:
        try:
            parts.append(next(chunks))
        except StopIteration as stopped:
            return b"".join(parts), stopped.value


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


def test_sound_members_in_one_step() -> None:
    pytest.importorskip("deflate")
    members = [gzip.compress(plain, level, mtime=0) for plain, level in ((b"one", 0), (b"", 6), (b"three" * 50_000, 9))]
    data, decoder, position, found = b"".join(members) + b"tail", WholeMembers(300_000), 0, []
    for _ in members:
        plain, position = decoder.decode(data, position, 1 << 20)
        found.append(bytes(plain))
    assert found == [b"one", b"", b"three" * 50_000]
    assert position == len(data) - 4
    assert decoder.decode(data, position, 1 << 20) is None
    assert decoder.decode(data, len(data), 1 << 20) is None


def test_what_is_not_sound_goes_the_careful_way() -> None:
    pytest.importorskip("deflate")
    plain = random.Random(3).randbytes(5000)
    data, decoder = gzip.compress(plain, mtime=0), WholeMembers(5000)
    assert decoder.decode(data, 0, 1 << 20) is not None
    assert WholeMembers(4999).decode(data, 0, 1 << 20) is None  # too large
    for cut in range(len(data)):
        assert decoder.decode(data[:cut], 0, 1 << 20) is None
    for place in range(len(data)):
        if place not in (3, 4, 5, 6, 7, 8, 9):  # flags, time, effort and system, which no sum covers
            wrong = bytearray(data)
            wrong[place] ^= 4
            assert decoder.decode(bytes(wrong), 0, 1 << 20) is None
    named = data[:3] + b"\x08" + data[4:10] + b"name\0" + data[10:]
    assert gzip.decompress(named) == plain
    assert decoder.decode(data, 0, len(data) - 1) is None  # the limit is what counts, not what happens to be in memory
    assert decoder.decode(named, 0, 1 << 20) is None  # a name has no end that is near for sure
