"""The container of an archive: where on disk its compressed members lie, and what they decode to.

A file is taken by its bytes, never by its name: gzip members, zstd and lz4 frames, uncompressed bytes, in any mixture.
A member that is damaged reaches to the next place where one begins or a record header stands (`Container.find`), and
everything that decodes before its damage can be read. Memory is bounded by `keep` bytes for each member, whatever it
decodes to: a larger one is decoded twice, first to learn its extent, then again while it is read. Sound gzip members
of at most 128 KiB on disk, and usually of up to 1 MiB, are decoded in one step (`inflate.WholeMembers`).

zstd: RFC 8878. lz4: https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md.
"""

from __future__ import annotations

import dataclasses
import re
from typing import BinaryIO, Protocol

from pipelines.errors import HeadraceError
from pipelines.sources.inflate import (
    BOMB_SIZE,
    CHECKSUM,
    CUT,
    Chunks,
    End,
    WholeMembers,
    arrow_chunks,
    gunzip,
    gzip_header_size,
)
from pipelines.sources.record_header import MAX_HEADER, find_record, starts_record

_WINDOW = 1 << 20
_WHOLE = 128 << 10
"""Bytes that are in memory behind the beginning of a member before it is decoded in one step."""
FIRST_STEP = 16 << 10
"""Bytes of the first step of a search, which then grows: the next record is near, or far."""
_PROBE_INPUT, _PROBE_OUTPUT, _PROBE_COST = 64 << 10, 64 << 10, 16 << 10
_STEP_COST = 1 << 10
_GZIP, _ZSTD, _LZ4, _SKIPPABLE = (
    rb"\x1f\x8b\x08",
    rb"\x28\xb5\x2f\xfd",
    rb"\x04\x22\x4d\x18",
    rb"[\x50-\x5f]\x2a\x4d\x18",
)
_MAGIC = re.compile(b"|".join((_GZIP, _ZSTD, _LZ4, _SKIPPABLE)), re.DOTALL)
_EFFORT_FLOOR, _EFFORT_RATIO = 64 << 20, 16


class RawFile:
    """The bytes [start, start + size) of a file, read through a window; offsets count from `start`."""

    def __init__(self, file: BinaryIO, size: int, start: int = 0) -> None:
        self.size = size
        self._file, self._start = file, start
        self._window, self._offset = b"", 0

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        """Return `num_bytes` bytes at `offset`, fewer only at the end of the file."""
        stop = min(offset + num_bytes, self.size)
        if stop <= offset:
            return b""
        if not self._offset <= offset <= stop <= self._offset + len(self._window):
            self._load(offset, max(stop - offset, min(_WINDOW, self.size - offset)))
        return self._window[offset - self._offset : stop - self._offset]

    def window(self, offset: int, num_bytes: int) -> tuple[bytes, int]:
        """Return bytes in memory and where `offset` is in them; `num_bytes` are there behind it, or all that are left.

        Nothing is copied but where the window moves, and then it moves by more than `num_bytes`.
        """
        place, stop = offset - self._offset, self._offset + len(self._window)
        if place < 0 or offset > stop or (stop < self.size and offset + num_bytes > stop):
            self._load(offset, min(_WINDOW, self.size - offset))
            place = 0
        return self._window, place

    def _load(self, offset: int, num_bytes: int) -> None:
        """Move the window, keeping what is in it already: whoever reads forward reads nothing twice."""
        place = offset - self._offset
        kept = self._window[place : place + num_bytes] if place >= 0 else b""
        self._file.seek(self._start + offset + len(kept))
        self._window, self._offset = kept + self._file.read(num_bytes - len(kept)), offset
        if len(self._window) < num_bytes:
            ends, listed = self._start + offset + len(self._window), self._start + self.size
            raise HeadraceError(
                f"archive ends at byte {ends}, {listed} were listed\n"
                "hint: the file changed after the run was planned, start the run again"
            )


class Piece(Protocol):
    """A part of the file that decodes as one stream: `length` bytes at `offset` on disk, `size` bytes decoded."""

    @property
    def offset(self) -> int:
        """Where it begins on disk."""
        ...

    @property
    def length(self) -> int:
        """Bytes on disk."""
        ...

    @property
    def size(self) -> int:
        """Bytes it decodes to."""
        ...

    @property
    def damage(self) -> str | None:
        """Its damage (see `inflate`)."""
        ...

    @property
    def compressed(self) -> bool:
        """Whether it is a member, and not plain bytes."""
        ...

    def read(self, position: int, num_bytes: int) -> bytes:
        """Return decoded bytes, fewer only at the end of the piece."""
        ...


@dataclasses.dataclass(slots=True)
class Plain:
    """Uncompressed bytes, from `offset` to the end of the file."""

    raw: RawFile
    offset: int
    compressed: bool = False
    damage: str | None = None

    @property
    def length(self) -> int:
        """Bytes on disk."""
        return self.raw.size - self.offset

    @property
    def size(self) -> int:
        """Bytes it decodes to: as many."""
        return self.raw.size - self.offset

    def read(self, position: int, num_bytes: int) -> bytes:
        """Return bytes of the file."""
        return self.raw.read_at(self.offset + position, num_bytes)


@dataclasses.dataclass(slots=True)
class Member:
    """A compressed member. Small ones hold their `data`; the others are decoded anew, forward, as they are read."""

    container: Container
    offset: int
    length: int
    size: int
    damage: str | None
    data: bytes | None
    compressed: bool = True
    _chunks: Chunks | None = None
    _buffer: bytes = b""
    _start: int = 0

    def read(self, position: int, num_bytes: int) -> bytes:
        """Return decoded bytes; going back behind what is buffered decodes from the beginning and costs effort."""
        if self.data is not None:
            return self.data[position : position + num_bytes]
        stop = min(position + num_bytes, self.size)
        if self._chunks is None or position < self._start:
            self._restart()
        drop = max(0, position - self._start - self.container.keep)
        parts, self._start = [self._buffer[drop:]], self._start + min(drop, len(self._buffer))
        end = self._start + len(parts[0])
        while end < stop:
            chunk = next(self._chunks or iter(()), b"")
            if not chunk:
                break
            if end <= position:  # all that came before is behind the reader
                parts, self._start = [], end
            parts.append(chunk)
            end += len(chunk)
        self._buffer = b"".join(parts)
        return self._buffer[max(0, position - self._start) : max(0, stop - self._start)]

    def _restart(self) -> None:
        self.container.spend(self._start + len(self._buffer))
        self._chunks = self.container.decode(self.offset, self.offset + self.length)
        self._buffer, self._start = b"", 0


class Container:
    """Opens the members of one file and looks for the next one behind damage."""

    def __init__(self, raw: RawFile, keep: int) -> None:
        """Hold at most `keep` decoded bytes of a member in memory.

        Work on damage (scanning, probing, decoding again) is counted in bytes; when it passes 64 MiB + 16 times the
        file size, the rest of the file is given up, so that no file can cost more than linear time.
        """
        self.raw = raw
        self.keep = keep
        self._effort = _EFFORT_FLOOR + _EFFORT_RATIO * raw.size
        self._decoder = WholeMembers(min(keep, BOMB_SIZE))
        self._is_sound, self._vain = True, -1
        self._latest: tuple[int, Member | None] = (-1, None)

    def spend(self, num_bytes: int) -> None:
        """Count work that only damage causes."""
        self._effort -= num_bytes + _STEP_COST

    @property
    def exhausted(self) -> bool:
        """Whether the damage has cost more than this file is worth."""
        return self._effort <= 0

    def is_member(self, offset: int) -> bool:
        """Whether a compressed member seems to begin at `offset`."""
        return _MAGIC.match(self.raw.read_at(offset, 4)) is not None

    def member(self, offset: int) -> Member | None:
        """Open the member at `offset`; None where there is none or nothing of it decodes."""
        if self._latest[0] != offset:
            self._latest = (offset, self._open(offset) if self.is_member(offset) else None)
        return self._latest[1]

    def find(self, start: int, stop: int) -> int:
        """Return the first offset in [start, stop) where a member begins or a record header stands, else `stop`."""
        position, step = start, FIRST_STEP
        while position < stop and not self.exhausted:
            found = self._find_in_window(position, min(step, stop - position))
            if found is not None:
                return found
            position += step
            step = min(4 * step, _WINDOW)
        return stop

    def _find_in_window(self, position: int, step: int) -> int | None:
        # Windows overlap by a header, and by the byte before (a line begins behind a newline); each looks at the
        # beginnings in its own part.
        lead = min(position, 1)
        base, window = position - lead, self.raw.read_at(position - lead, lead + step + MAX_HEADER)
        record, stop = find_record(window, lead), min(len(window), lead + step)
        if record is not None and record >= stop:
            record = None
        stop = stop if record is None else record
        self.spend(stop - lead)
        for match in _MAGIC.finditer(window, lead, stop + 3):
            if match.start() < stop and self._is_plausible(base + match.start()):
                return base + match.start()
        return None if record is None else base + record

    def _is_plausible(self, offset: int) -> bool:
        """Whether a record header stands in the beginning of what the member decodes to."""
        if self.exhausted:
            return False
        stop = min(self.raw.size, offset + _PROBE_INPUT)
        head = b""
        for chunk in self.decode(offset, stop):
            head += chunk
            if len(head) >= _PROBE_OUTPUT or starts_record(head):
                break
        self.spend(len(head) + _PROBE_COST)
        return starts_record(head) or find_record(head, 0) is not None

    def decode(self, offset: int, stop: int) -> Chunks:
        """Decode the member at `offset`, reading no byte at or behind `stop`."""
        read_at = self.raw.read_at
        if gzip_header_size(read_at, offset) is not None:
            return (yield from gunzip(read_at, offset, stop))
        codec, frame_stop = _frame(self.raw, offset, stop)
        if codec is None:
            return End(stop if frame_stop is None else frame_stop, CUT if frame_stop is None else None)
        end = yield from arrow_chunks(read_at, offset, stop if frame_stop is None else frame_stop, codec)
        return dataclasses.replace(end, damage=CUT) if frame_stop is None else end

    def whole(self, offset: int) -> tuple[memoryview, int] | None:
        """Decode a sound gzip member in one step; returns what it decodes to, and its length.

        What it decodes to is there until the next is decoded. None where there is no such member, and for one that is
        open already. Behind damage there is none until a member is sound again, so that damage costs one vain step.
        """
        if not self._is_sound or offset == self._latest[0] or offset == self._vain:
            return None
        window, place = self.raw.window(offset, _WHOLE)
        decoded = self._decoder.decode(window, place, _WHOLE)
        if decoded is None:
            self._vain = offset
            return None
        data, end = decoded
        return data, end - place

    def adopt(self, offset: int, data: memoryview, length: int) -> Member:
        """Open a member that `whole` gave, so that it stays."""
        member = Member(self, offset, length, len(data), None, bytes(data))
        self._latest = (offset, member)
        return member

    def _open(self, offset: int) -> Member | None:
        whole = self.whole(offset)
        if whole is not None:
            return self.adopt(offset, *whole)
        member = self._open_carefully(offset)
        self._is_sound = member is not None and member.damage is None
        return member

    def _open_carefully(self, offset: int) -> Member | None:
        member = self._measure(offset, self.raw.size)
        end = offset + member.length
        if member.damage is not None:
            self.spend(member.size + member.length)
            stop = self.find(offset + 1, end if member.damage == CHECKSUM else self.raw.size)
            if stop <= end and stop < self.raw.size and (stop < end or member.damage != CHECKSUM):
                # The next member begins where this one still decoded: it was cut off there.
                member = self._measure(offset, stop)
            member.length = stop - offset
        return member if member.size or not member.damage else None

    def _measure(self, offset: int, stop: int) -> Member:
        """Decode the member once for its extent, keeping the data while it is small enough."""
        chunks, parts, size = self.decode(offset, stop), [], 0
        while True:
            try:
                chunk = next(chunks)
            except StopIteration as stopped:
                end: End = stopped.value
                break
            size += len(chunk)
            if size <= self.keep:
                parts.append(chunk)
        data = b"".join(parts) if size <= self.keep else None
        return Member(self, offset, end.stop - offset, size, end.damage, data)


def _frame(raw: RawFile, offset: int, stop: int) -> tuple[str | None, int | None]:
    """Return codec (None = nothing to decode) and end of the zstd, lz4 or skippable frame at `offset`.

    The end is found by walking the frame's blocks, without decoding them; None where `stop` or damage comes first.
    """
    magic = raw.read_at(offset, 4)
    if re.match(_SKIPPABLE, magic, re.DOTALL):
        end = offset + 8 + int.from_bytes(raw.read_at(offset + 4, 4), "little")
        return None, end if end <= stop else None
    if re.match(_ZSTD, magic):
        return "zstd", _zstd_end(raw, offset + 4, stop)
    return "lz4", _lz4_end(raw, offset + 4, stop)


def _zstd_end(raw: RawFile, position: int, stop: int) -> int | None:
    """Return the end of a zstd frame whose header begins at `position`, None if it is not at or before `stop`."""
    descriptor = int.from_bytes(raw.read_at(position, 1), "little")
    single_segment, has_checksum = descriptor >> 5 & 1, descriptor >> 2 & 1
    content_size = (single_segment, 2, 4, 8)[descriptor >> 6]
    position += 1 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3] + content_size
    last = False
    while not last:
        header = raw.read_at(position, 3)
        if len(header) < 3 or position > stop:
            return None
        block = int.from_bytes(header, "little")
        last, kind = bool(block & 1), block >> 1 & 3
        if kind == 3:
            return None
        position += 3 + (1 if kind == 1 else block >> 3)
    position += 4 * has_checksum
    return position if position <= stop else None


def _lz4_end(raw: RawFile, position: int, stop: int) -> int | None:
    """Return the end of an lz4 frame whose header begins at `position`, None if it is not at or before `stop`."""
    flags = int.from_bytes(raw.read_at(position, 1), "little")
    block_checksum, content_size, content_checksum = flags >> 4 & 1, flags >> 3 & 1, flags >> 2 & 1
    position += 2 + 8 * content_size + 4 * (flags & 1) + 1
    while True:
        header = raw.read_at(position, 4)
        if len(header) < 4 or position > stop:
            return None
        position += 4
        size = int.from_bytes(header, "little") & 0x7FFFFFFF
        if header == b"\0\0\0\0":
            position += 4 * content_checksum
            return position if position <= stop else None
        position += size + 4 * block_checksum
