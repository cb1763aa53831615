"""The records and gaps of one archive file (WARC, ARC, WET, WAT), damaged or not, in order, each byte accounted for.

Members are opened one after the other (`container`), record headers are parsed where they must stand, and where none
stands the bytes up to the next one are a gap. A sound member that is one sound record, as nearly all are, is seen to be
that and given out (`only_record`); all else goes the one way for sound and broken files, which would give the same.
A file of n bytes costs O(n) work and bounded memory. Speed: that of fastwarc, most of it libdeflate's
(benchmarks/warc_to_documents.py).

Origins. An uncompressed record is its own byte span, its separator (at most two newlines) included. A record in a
compressed file is (offset of the member in which it begins, length up to the end of the member in which it ends,
`inner`: where it begins in the decoded bytes of the first). With one member for each record, as usual, `inner` is 0
and the span is the record's own; where a member holds several records they share the span and differ by `inner`.
Reading by origin begins there and looks as far ahead as the first reading did, so that damage is judged alike.

Account. The `disk` bytes of all records and gaps add up to the size of the file. In a member that holds several, the
bytes [a, b) of its n decoded bytes take floor(b * length / n) - floor(a * length / n) of its length on disk.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Generator, Iterator
from typing import BinaryIO, NamedTuple

from pipelines.sources.container import FIRST_STEP, Container, Member, Piece, Plain, RawFile
from pipelines.sources.inflate import CHECKSUM
from pipelines.sources.record_header import (
    MAX_HEADER,
    RecordHeader,
    find_record,
    may_start_record,
    parse_header,
    starts_record,
)

_USUAL_HEADER = 4 << 10
_WINDOW = 1 << 20
_PADDING = b"\0\r\n\t "
_SLACK = 1 << 20


class Origin(NamedTuple):
    """Where a record or gap lies: bytes on disk, and the offset in what they decode to (see the module)."""

    offset: int
    length: int
    inner: int


class Record(NamedTuple):
    """One record. `block` holds its first `max_block` bytes, `block_size` counts all that are there.

    A block is there until the next record is asked for: it may lie in a buffer that this overwrites.

    `damage` names what is wrong with it: `header_cut`, `header_too_long`, `length_missing` (the block reaches to the
    next record), `body_cut` (the block is shorter than its length says), `member_*` (see `inflate`).
    """

    header: RecordHeader
    block: bytes | memoryview
    block_size: int
    damage: tuple[str, ...]
    origin: Origin
    disk: int


class Gap(NamedTuple):
    """Bytes that are no record: padding (`cause` None), or damage."""

    cause: str | None
    origin: Origin
    disk: int


def read_archive(file: BinaryIO, size: int, max_block: int) -> Iterator[Record | Gap]:
    """Yield the records and gaps of a seekable file of `size` bytes."""
    reader = _Reader(Container(RawFile(file, size), max_block + _SLACK), max_block)
    position = 0
    while position < size:
        record = reader.only_record(position)
        if record is None:
            position = yield from reader.events(position)
        else:
            yield record
            position += record.disk


def read_origin(file: BinaryIO, origin: Origin, max_block: int) -> Record | Gap:
    """Return the record or the gap that `read_archive` gave with this origin (`disk` apart).

    Raises `ValueError` if nothing begins there.
    """
    raw = RawFile(file, max(0, file.seek(0, os.SEEK_END) - origin.offset), origin.offset)
    reader = _Reader(Container(raw, max_block + _SLACK), max_block)
    event = next(reader.events(0, origin.inner), None)
    if event is None or event.origin != origin._replace(offset=0):
        place = f"{origin.length} bytes at offset {origin.offset} + {origin.inner}"
        raise ValueError(f"no record of {place}\nhint: take the origin of a document of this very file")
    if isinstance(event, Gap):
        return event._replace(origin=origin)
    return event._replace(origin=origin, block=bytes(event.block))


class _Stream:
    """What a piece of the file decodes to, prolonged by the members behind it when a record reaches into them."""

    def __init__(self, container: Container, piece: Piece) -> None:
        self._container = container
        self._pieces = [piece]
        self._ends = [piece.size]
        self._ahead: list[Member] = []

    @property
    def size(self) -> int:
        """Decoded bytes."""
        return self._ends[-1]

    @property
    def stop(self) -> int:
        """Where its last piece ends on disk."""
        return self._pieces[-1].offset + self._pieces[-1].length

    @property
    def broken(self) -> str | None:
        """The damage at which the stream breaks off, if it does."""
        damage = self._pieces[-1].damage
        return None if damage == CHECKSUM else damage

    def read(self, position: int, num_bytes: int) -> bytes:
        """Return decoded bytes, fewer only at the end of the stream."""
        if len(self._pieces) == 1:
            return self._pieces[0].read(position, num_bytes)
        parts, stop = [], position + num_bytes
        for piece, end in zip(self._pieces, self._ends, strict=True):
            start = end - piece.size
            if start < stop and position < end:
                parts.append(piece.read(max(0, position - start), min(stop, end) - max(position, start)))
        return b"".join(parts)

    def extend(self) -> bool:
        """Append the member that follows, unless a record begins with it; whether there was one."""
        if not self._pieces[-1].compressed or self.broken or self._container.exhausted:
            return False
        self._container.spend(0)
        member = self._ahead.pop(0) if self._ahead else self._container.member(self.stop)
        if member is None or starts_record(member.read(0, MAX_HEADER)):
            return False
        self._pieces.append(member)
        self._ends.append(self.size + member.size)
        if self.size > self._container.keep:
            for piece in self._pieces[:-1]:
                if isinstance(piece, Member):
                    piece.data = None
        return True

    def find(self, start: int, stop: int) -> int | None:
        """Return where the first record header in [start, stop) begins, or None."""
        if not self._pieces[0].compressed:
            base = self._pieces[0].offset
            stop = min(stop, self.size)
            found = self._container.find(base + start, base + stop) - base
            return found if found < stop else None
        position, step, stop = start, FIRST_STEP, min(stop, self.size)
        while position < stop and not self._container.exhausted:
            lead = min(position, 1)
            at = find_record(self.read(position - lead, lead + step + MAX_HEADER), lead)
            self._container.spend(step if at is None else at)
            if at is not None and at < lead + step:
                found = position - lead + at
                return found if found < stop else None
            position += step
            step = min(4 * step, _WINDOW)
        return None

    def at_boundary(self, position: int) -> bool:
        """Whether a record may end at `position`: the end, padding, a record header or a member follows."""
        head = self.read(position, 64)
        body = head.lstrip(_PADDING)
        if not body:
            return True
        place = position + len(head) - len(body)
        piece = self._pieces[0]
        if not piece.compressed and self._container.is_member(piece.offset + place):
            return True
        rest = self.read(place, MAX_HEADER)
        return starts_record(rest) or (piece.compressed and may_start_record(rest))

    def locate(self, start: int, stop: int) -> tuple[Origin, int, tuple[str, ...]]:
        """Return origin, bytes on disk and damage of the decoded bytes [start, stop)."""
        first = self._pieces[0]
        if not first.compressed:
            return Origin(first.offset + start, stop - start, 0), stop - start, ()
        disk, inner = 0, 0
        touched: list[tuple[Piece, int]] = []
        for piece, end in zip(self._pieces, self._ends, strict=True):
            begin = end - piece.size
            # An empty member belongs to the record that reached over it.
            if end <= start or begin > stop or (begin == stop and piece.size):
                continue
            if not touched:
                inner = start - begin
            touched.append((piece, end))
            disk += _share(piece, max(start, begin) - begin, min(stop, end) - begin)
        origin, last = touched[0][0].offset, touched[-1][0]
        damage = [piece.damage for piece, end in touched if piece.damage and (piece.damage == CHECKSUM or stop == end)]
        return Origin(origin, last.offset + last.length - origin, inner), disk, tuple(dict.fromkeys(damage))

    def trim(self, position: int) -> int:
        """Begin anew with the piece that holds `position` and return what this becomes.

        The next record sees what it would see if it were the first, so that its origin alone leads back to it.
        """
        first = min(bisect_right(self._ends, position), len(self._pieces) - 1)
        start = self._ends[first] - self._pieces[first].size
        if len(self._pieces) > 1:
            behind = [piece for piece in self._pieces[first + 1 :] if isinstance(piece, Member)]
            self._ahead = behind + self._ahead
            self._pieces, self._ends = [self._pieces[first]], [self._pieces[first].size]
        position -= start
        if position == self.size and self._ahead and self._ahead[0].size:
            member = self._ahead.pop(0)
            self._pieces, self._ends, position = [member], [member.size], 0
        return position


def _share(piece: Piece, start: int, stop: int) -> int:
    """Return the bytes on disk that stand for the decoded bytes [start, stop) of a piece: all of an empty one's."""
    if not piece.size:
        return piece.length
    return stop * piece.length // piece.size - start * piece.length // piece.size


class _Reader:
    """Parses the pieces of a container into records and gaps."""

    def __init__(self, container: Container, max_block: int) -> None:
        self._container = container
        self._max_block = max_block

    def events(self, position: int, inner: int = 0) -> Generator[Record | Gap, None, int]:
        """Yield what begins at `position` on disk (a member's records, or one) and return where it ends."""
        if not inner and (record := self.only_record(position)) is not None:
            yield record
            return position + record.disk
        member = self._container.member(position)
        if member is None:
            event, length = self._plain_event(position)
            yield event
            return position + length
        stream = _Stream(self._container, member)
        if not member.size:
            yield Gap(None, Origin(position, member.length, 0), member.length)
        while inner < stream.size:
            event, stop = self._event(stream, inner)
            yield event
            inner = stream.trim(stop)
        return stream.stop

    def only_record(self, position: int) -> Record | None:
        """Return the record at `position` where a sound member is one sound record with its separator, else None."""
        whole = self._container.whole(position)
        if whole is None:
            return None
        data, length = whole
        if data[-4:] == b"\r\n\r\n":
            header = parse_header(bytes(data[:_USUAL_HEADER]))
            if header is not None and header.damage is None and header.block_length == len(data) - header.size - 4:
                block = data[header.size : header.size + min(header.block_length, self._max_block)]
                return Record(header, block, header.block_length, (), Origin(position, length, 0), length)
        self._container.adopt(position, data, length)
        return None

    def _plain_event(self, position: int) -> tuple[Record | Gap, int]:
        """Return the uncompressed record, padding or damage at `position`, and its length."""
        stream = _Stream(self._container, Plain(self._container.raw, position))
        return self._event(stream, 0)

    def _event(self, stream: _Stream, start: int) -> tuple[Record | Gap, int]:
        """Return the record or gap at `start` and where it ends."""
        header = self._header(stream, start)
        if header is not None:
            return self._record(stream, start, header)
        stop, cause = _padding_end(stream, start), None
        if stop == start:
            found = stream.find(start + 1, stream.size)
            stop, cause = stream.size if found is None else found, "no record header"
        if stop == stream.size and stream.broken:
            cause = stream.broken
        origin, disk, _ = stream.locate(start, stop)
        return Gap(cause, origin, disk), stop

    def _header(self, stream: _Stream, start: int) -> RecordHeader | None:
        header = parse_header(stream.read(start, _USUAL_HEADER))
        if header is None or header.damage:  # an ARC line may be longer as well
            header = parse_header(stream.read(start, MAX_HEADER))
        while _wants_more(stream, start, header) and stream.extend():
            header = parse_header(stream.read(start, MAX_HEADER))
        return header

    def _record(self, stream: _Stream, start: int, header: RecordHeader) -> tuple[Record, int]:
        body = start + header.size
        size, stop, damage = self._block(stream, body, header)
        block = stream.read(body, min(size, self._max_block))
        origin, disk, piece_damage = stream.locate(start, stop)
        return Record(header, block, size, (*damage, *piece_damage), origin, disk), stop

    def _block(self, stream: _Stream, body: int, header: RecordHeader) -> tuple[int, int, tuple[str, ...]]:
        """Return size of a block, where its record ends, and damage."""
        if header.damage == "header_cut":
            return 0, body, ("header_cut",)
        if header.damage or header.block_length is None:
            found = stream.find(body, stream.size)
            stop = stream.size if found is None else found
            if header.damage:
                return 0, stop, (header.damage,)
            return stop - body - _separator_before(stream, body, stop), stop, ("length_missing",)
        stop = body + header.block_length
        while stream.size < stop and stream.extend():
            pass
        if stop > stream.size or not stream.at_boundary(stop):
            # Too long: what follows is inside the block. Too short: the rest is a gap of its own.
            cut = stream.find(body, min(stop, stream.size))
            if cut is not None or stop > stream.size:
                stop = stream.size if cut is None else cut
                return stop - body, stop, ("body_cut",)
        return header.block_length, stop + _separator(stream, stop), ()


def _wants_more(stream: _Stream, start: int, header: RecordHeader | None) -> bool:
    """Whether a header at `start` may go on behind the end of its stream."""
    if header is None:
        return may_start_record(stream.read(start, MAX_HEADER))
    return header.damage == "header_cut"


def _padding_end(stream: _Stream, start: int) -> int:
    """Return where the run of padding at `start` ends."""
    while window := stream.read(start, _WINDOW):
        left = len(window.lstrip(_PADDING))
        start += len(window) - left
        if left:
            break
    return start


def _separator(stream: _Stream, position: int) -> int:
    """Return the size of the at most two newlines at `position`."""
    head, size = stream.read(position, 4), 0
    for _ in range(2):
        size += 2 if head.startswith(b"\r\n", size) else 1 if head.startswith(b"\n", size) else 0
    return size


def _separator_before(stream: _Stream, start: int, stop: int) -> int:
    """Return the size of the at most two newlines that end [start, stop)."""
    tail = stream.read(max(start, stop - 4), min(4, stop - start))
    size = len(tail)
    for _ in range(2):
        tail = tail.removesuffix(b"\n").removesuffix(b"\r") if tail.endswith(b"\n") else tail
    return size - len(tail)
