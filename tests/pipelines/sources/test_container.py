"""The two ways of opening members, at once and carefully, give one result, wherever windows end."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path

import pytest
from archives import MEMBERS, RECORDS, WARCS, read, warc

from pipelines.sources.archive import read_archive
from pipelines.sources.container import RawFile
from pipelines.sources.inflate import WholeMembers

needs_data = pytest.mark.skipif(not WARCS, reason="no shared data")


@pytest.fixture
def carefully(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Take the careful way always, as where there is no libdeflate; undone by `undo`."""
    monkeypatch.setattr(WholeMembers, "decode", lambda self, data, start, most: None)
    return monkeypatch


@needs_data
@pytest.mark.parametrize("path", [path for path in WARCS if path.suffix == ".gz"], ids=lambda path: path.name)
def test_both_ways_agree_on_real_files(carefully: pytest.MonkeyPatch, path: Path) -> None:
    data = path.read_bytes()
    slow = read(data, 16 << 20)
    carefully.undo()
    assert read(data, 16 << 20) == slow


def test_both_ways_agree_on_damaged_members(carefully: pytest.MonkeyPatch) -> None:
    rng = random.Random(11)
    files = []
    for _ in range(300):
        data = bytearray(b"".join(rng.choices(MEMBERS, k=6)))
        for _ in range(rng.randrange(4)):
            place = rng.randrange(len(data))
            data[place : place + rng.randrange(2)] = rng.randbytes(rng.randrange(3))
        files.append(bytes(data))
    slow = [read(data) for data in files]
    carefully.undo()
    assert [read(data) for data in files] == slow


def test_members_across_windows() -> None:
    """Members of all sizes around the window's 1 MiB and the 256 KiB that must be in it."""
    rng = random.Random(5)
    sizes = [
        1 << 10,
        200 << 10,
        255 << 10,
        256 << 10,
        257 << 10,
        700 << 10,
        1 << 20,
        (1 << 20) + 9,
        3 << 20,
        1,
        0,
        900_000,
    ]
    bodies = [rng.randbytes(size) for size in sizes]
    data = b"".join(gzip.compress(warc(number, body), 1, mtime=0) for number, body in enumerate(bodies))
    assert [event.block for event in read(data, 16 << 20)] == bodies


class Forward(io.BytesIO):
    """A file that says where it was read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.spans: list[tuple[int, int]] = []

    def read(self, size: int | None = -1) -> bytes:
        start = self.tell()
        data = super().read(size)
        self.spans.append((start, start + len(data)))
        return data


@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["members", "plain"])
def test_a_sound_file_is_read_forward_and_once(compress) -> None:
    rng = random.Random(9)
    data = b"".join(compress(warc(number, rng.randbytes(rng.randrange(90_000)))) for number in range(100))
    file = Forward(data)
    assert sum(event.disk for event in read_archive(file, len(data), 1 << 20)) == len(data) > 4 << 20
    assert [start for start, _ in file.spans] == [0, *(stop for _, stop in file.spans[:-1])]
    assert file.spans[-1][1] == len(data)
    assert len(file.spans) < 10


def test_a_window_moves_only_where_it_must() -> None:
    data = bytes(range(256)) * 10_000
    file = RawFile(io.BytesIO(data), len(data))
    for offset in (0, 5, 700_000, 1_048_576, len(data) - 1, 3):
        window, place = file.window(offset, 1000)
        assert window[place : place + 1000] == data[offset : offset + 1000]
    window, place = file.window(3, 1000)
    assert file.window(500, 1000) == (window, place + 497)


def test_a_block_is_there_until_the_next_record_is_read() -> None:
    """A member that is no single record is kept whole, whatever is decoded after it."""
    pair = gzip.compress(RECORDS[0] + RECORDS[1], mtime=0)
    assert [event.block for event in read(MEMBERS[2] + pair + MEMBERS[2])] == [
        event.block for event in read(RECORDS[2] + RECORDS[0] + RECORDS[1] + RECORDS[2])
    ]
