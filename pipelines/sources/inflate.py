"""Deflate streams that may be damaged: everything that decodes comes out, and where and why it stopped is known.

The output is a function of the bytes alone: on an error the last input is fed again byte by byte, so that what comes
before the error is complete whatever the size of the feeds. No step makes much more than `MAX_CHUNK` bytes, and a
stream that is nothing but repetition is stopped (`BOMB`).

Sound gzip members, which nearly all are, go another way first (`WholeMembers`): libdeflate decodes one in a single step
3.5 times as fast as zlib, or says that it is not whole, and then the careful way decides what is wrong with it.
gzip: RFC 1952; deflate: RFC 1951; zlib: RFC 1950. MB of output a CPU second: libdeflate 1,250, isal 910, zlib 350
(members of 70 kB of real pages; benchmarks/warc_to_documents.py holds what became of that).
"""

from __future__ import annotations

import ctypes
import dataclasses
import io
import weakref
import zlib
from collections.abc import Callable, Generator
from functools import cache

import numpy as np
import pyarrow as pa

MAX_CHUNK = 1 << 20
"""Bytes that one step yields, give or take 32 KiB."""

BOMB_SIZE, MAX_RATIO = 64 << 20, 200
"""A stream of more than `BOMB_SIZE` bytes and `MAX_RATIO` times its compressed size is a bomb.

Text compresses 3 to 20 times; the limit of deflate is 1,032, of zstd 32,768, and such a run of one byte is no document.
"""

_FIRST_FEED, _MAX_FEED, _SALVAGE_FEED = 16 << 10, 256 << 10, 1 << 10
_MAX_GZIP_HEADER = 64 << 10
_ARROW_STEP, _ARROW_SALVAGE = 64 << 10, 256

ReadAt = Callable[[int, int], bytes]
"""`read_at(offset, num_bytes)`: bytes of the input, fewer only at its end."""

COMPLETE, CUT, CORRUPT, CHECKSUM, BOMB = None, "member_cut", "member_corrupt", "member_checksum", "member_bomb"
"""How a compressed stream ended: whole, cut by the end of the input, undecodable, whole but of wrong sum, or a bomb."""


@dataclasses.dataclass(frozen=True, slots=True)
class End:
    """Where the input of a compressed stream ended (absolute offset, exclusive) and its damage (see `COMPLETE`)."""

    stop: int
    damage: str | None


Chunks = Generator[bytes, None, End]
"""Yields decoded bytes and returns how the stream ended."""


def gzip_header_size(read_at: ReadAt, start: int) -> int | None:
    """Return the size of the gzip header at `start`; 0 if it is cut off by the end of the input, None if it is none."""
    head = read_at(start, 10)
    if head[:3] != b"\x1f\x8b\x08"[: len(head)] or (len(head) > 3 and head[3] & 0xE0):
        return None
    if len(head) < 10:
        return 0
    if not head[3]:
        return 10
    return _optional_fields_end(read_at(start, _MAX_GZIP_HEADER), head[3])


def _optional_fields_end(head: bytes, flags: int) -> int | None:
    """Return where the header ends whose optional fields (FEXTRA, FNAME, FCOMMENT, FHCRC) `flags` announces."""
    size = 10
    if flags & 4:
        size += 2 + int.from_bytes(head[size : size + 2], "little")
    for flag in (8, 16):
        if flags & flag:
            zero = head.find(b"\0", size)
            if zero < 0:
                return 0 if len(head) < _MAX_GZIP_HEADER else None
            size = zero + 1
    size += 2 if flags & 2 else 0
    return size if size <= len(head) else 0


def gunzip(read_at: ReadAt, start: int, stop: int) -> Chunks:
    """Decode the gzip member at `start`, reading no byte at or behind `stop`."""
    header = gzip_header_size(read_at, start)
    if header is None:
        return End(start, CORRUPT)
    if header == 0 or start + header > stop:
        return End(stop, CUT)
    checksum = size = 0
    chunks = inflate(read_at, start + header, stop, -zlib.MAX_WBITS)
    while True:
        try:
            chunk = next(chunks)
        except StopIteration as stopped:
            end: End = stopped.value
            break
        checksum, size = zlib.crc32(chunk, checksum), size + len(chunk)
        yield chunk
    if end.damage:
        return end
    trailer = read_at(end.stop, max(0, min(8, stop - end.stop)))
    expected = checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
    return End(end.stop + len(trailer), COMPLETE if trailer == expected else CHECKSUM)


class WholeMembers:
    """Decodes sound gzip members, each in one step, into a buffer of fixed size. Not for several threads at once."""

    def __init__(self, capacity: int) -> None:
        """Decode members of at most `capacity` bytes."""
        self._library = _libdeflate()
        if self._library is None:
            return
        buffer = np.empty(capacity, np.uint8)  # its pages take memory once a member is as large
        self._view = buffer.data
        self._taken, self._made = ctypes.c_size_t(), ctypes.c_size_t()
        self._out = (buffer.ctypes.data, capacity, ctypes.addressof(self._taken), ctypes.addressof(self._made))
        self._data, self._address = b"", 0  # what was decoded of last, held while its address is
        self._decompress = self._library.libdeflate_gzip_decompress_ex
        self._decoder = self._library.libdeflate_alloc_decompressor()
        if not self._decoder:
            raise MemoryError("libdeflate could not allocate a decompressor")
        weakref.finalize(self, self._library.libdeflate_free_decompressor, self._decoder)

    def decode(self, data: bytes, start: int, most: int) -> tuple[memoryview, int] | None:
        """Return what the member at `start` decodes to, which is there until the next is decoded, and where it ends.

        None where it is not whole in `data` and in `most` bytes, damaged, of a wrong sum, larger than the
        capacity, or no member at all; and always on a platform for which there is no libdeflate.
        """
        if self._library is None or not _has_usual_header(data, start):
            return None
        if data is not self._data:
            self._data, self._address = data, ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
        size = min(len(data) - start, most)
        if self._decompress(self._decoder, self._address + start, size, *self._out):
            return None
        return self._view[: self._made.value], start + self._taken.value


def _has_usual_header(data: bytes, start: int) -> bool:
    """Whether a gzip header without optional fields stands there: they may be long, and the careful way bounds them."""
    return data.startswith(b"\x1f\x8b\x08", start) and len(data) > start + 3 and data[start + 3] <= 1


@cache
def _libdeflate() -> ctypes.CDLL | None:
    """Return libdeflate with its own interface, as the package `deflate` carries it; None where it does not.

    The package's Python functions do not say where in their input a member ends.
    """
    try:
        from deflate import _deflate

        library = ctypes.CDLL(_deflate.__file__)
        decompress = library.libdeflate_gzip_decompress_ex
        library.libdeflate_alloc_decompressor.restype = ctypes.c_void_p
        library.libdeflate_free_decompressor.argtypes = [ctypes.c_void_p]
    except (ImportError, OSError, AttributeError):
        return None
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    decompress.argtypes = [pointer, pointer, size, pointer, size, pointer, pointer]
    decompress.restype = ctypes.c_int
    return library


def inflate(read_at: ReadAt, start: int, stop: int, wbits: int) -> Chunks:
    """Decode one deflate (`wbits` = -15) or zlib (15) stream at `start`, reading no byte at or behind `stop`."""
    decoder = zlib.decompressobj(wbits)
    position, size, step, feed, chunk = start, 0, _FIRST_FEED, b"", b""
    while not decoder.eof:
        if not feed and len(chunk) < MAX_CHUNK:  # else there is more to come of what went in
            feed = read_at(position, min(step, stop - position))
            step = min(2 * step, _MAX_FEED)
            if not feed:
                return End(stop, CUT)
        fed = len(feed)
        try:
            chunk = decoder.decompress(feed, MAX_CHUNK)
        except zlib.error:
            return (yield from _salvage(read_at, (start, position, position + fed), size, wbits))
        # At the end of the stream, zlib leaves what follows in both of its tails.
        feed, left = (b"", decoder.unused_data) if decoder.eof else (decoder.unconsumed_tail,) * 2
        position += fed - len(left)
        size += len(chunk)
        if size > BOMB_SIZE and size > MAX_RATIO * (position - start):
            return End(position, BOMB)
        if chunk:
            yield chunk
    return End(position, COMPLETE)


def _salvage(read_at: ReadAt, span: tuple[int, int, int], size: int, wbits: int) -> Chunks:
    """Yield what decodes behind the first `size` output bytes of a stream that fails in (its start, from, to)."""
    start, clean, failed = span
    decoder, skip = zlib.decompressobj(wbits), size
    for position in range(start, failed, _SALVAGE_FEED):
        feed = read_at(position, min(_SALVAGE_FEED, failed - position))
        before = decoder.copy() if position + len(feed) > clean else None
        try:
            chunk = decoder.decompress(feed)
        except zlib.error:
            if before is None:  # cannot be: these bytes have been decoded before
                raise
            chunk, count = _decode_bytewise(before, feed)
            if chunk[skip:]:
                yield chunk[skip:]
            return End(position + count, CORRUPT)
        skip, chunk = max(0, skip - len(chunk)), chunk[skip:]
        if chunk:
            yield chunk
    return End(failed, CORRUPT)


def _decode_bytewise(decoder: zlib._Decompress, feed: bytes) -> tuple[bytes, int]:
    """Return what decodes of `feed` before an error and how many of its bytes went in."""
    parts: list[bytes] = []
    for count in range(len(feed)):
        try:
            parts.append(decoder.decompress(feed[count : count + 1]))
        except zlib.error:
            return b"".join(parts), count
    return b"".join(parts), len(feed)


def arrow_chunks(read_at: ReadAt, start: int, stop: int, codec: str) -> Chunks:
    """Decode the bytes [start, stop) with one of Arrow's stream codecs (`brotli`, `lz4`, `zstd`).

    What precedes an error comes out up to `_ARROW_SALVAGE` bytes short.
    """
    yielded = 0
    for step in (_ARROW_STEP, _ARROW_SALVAGE):
        stream = pa.CompressedInputStream(pa.PythonFile(_Slice(read_at, start, stop), "r"), codec)
        try:
            skip = yielded
            while chunk := stream.read(step):
                skip, chunk = max(0, skip - len(chunk)), chunk[skip:]
                yielded += len(chunk)
                if yielded > BOMB_SIZE and yielded > MAX_RATIO * (stop - start):
                    return End(stop, BOMB)
                if chunk:
                    yield chunk
            return End(stop, COMPLETE)
        except OSError:
            continue
    return End(stop, CORRUPT)


class _Slice(io.RawIOBase):
    """The bytes [start, stop) of an input as a file."""

    def __init__(self, read_at: ReadAt, start: int, stop: int) -> None:
        self._read_at, self._position, self._stop = read_at, start, stop

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        left = self._stop - self._position
        data = self._read_at(self._position, left if size < 0 else min(size, left))
        self._position += len(data)
        return data
