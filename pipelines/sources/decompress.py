"""Compressed files as streams of bytes (gzip, zstd, bzip2): everything that decodes comes out, whatever the damage.

What a decoder hands out at a time is bounded, and so are zstd's windows, so a file of any ratio takes little memory.
gzip: RFC 1952; zstd: RFC 8878. Archives, whose members are looked for behind damage, have `inflate` and `container`.
"""

from __future__ import annotations

import bz2
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

from pipelines.errors import HeadraceError

SUFFIXES = (".gz", ".zst", ".bz2")
"""Of the files that are taken for compressed."""

INPUT_BYTES = 4 << 10
"""Compressed bytes that are fed to gzip and bzip2 at a time."""

ZSTD_INPUT_BYTES = 512
"""The same for zstd, whose output cannot be capped: 512 bytes hold at most 128 run-length blocks of 128 KiB, 16 MiB."""

OUTPUT_BYTES = 64 << 10
"""Decompressed bytes that gzip and bzip2 hand out at a time."""

ZSTD_WINDOW_BYTES = 128 << 20
"""The largest window that the zstd format's own tools accept without being asked to."""


BLOCK_BYTES = 1 << 20
"""Of a file that is not compressed, read at a time."""


def read_blocks(file: Path) -> Iterator[bytes]:
    """Yield a file's bytes, decompressed where its suffix says so.

    Raises `OSError`, and at the end `HeadraceError` naming the first damage.
    """
    with file.open("rb") as stream:
        if file.suffix not in SUFFIXES:
            while block := stream.read(BLOCK_BYTES):
                yield block
            return
        damaged: list[tuple[int, str]] = []
        yield from decompress(stream, str(file), damaged)
        for place, cause in damaged:
            raise HeadraceError(f"{file}: is damaged behind byte {place} (decompressed): {cause}")


def decompress(stream: BinaryIO, path: str, damaged: list[tuple[int, str]]) -> Iterator[bytes]:
    """Yield the decompressed bytes up to the first damage, which is then described in `damaged` as (offset, cause).

    A decoder that meets damage keeps what it had in hand. So the file is then read once more, and behind the last whole
    block byte by byte: every byte that can be decoded comes out, whatever the block sizes.
    """
    decode = {"gz": _gunzip, "bz2": _bunzip, "zst": _unzstd}[path.rpartition(".")[2]]
    errors = (EOFError, ValueError, zlib.error, zstandard.ZstdError)
    sound = 0
    try:
        for block in decode(stream, sys.maxsize):
            sound += len(block)
            yield block
    except errors:
        stream.seek(0)
    else:
        return
    done = 0
    try:
        for block in decode(stream, sound):
            done += len(block)
            yield block[max(0, len(block) - (done - sound)) :] if done > sound else b""
    except errors as error:
        damaged.append((done, str(error) or type(error).__name__))


def _gunzip(stream: BinaryIO, sound: int) -> Iterator[bytes]:
    """Decode the members of a gzip file in blocks, and in single bytes once `sound` bytes are out."""
    produced = 0
    data = stream.read(INPUT_BYTES)
    while data:
        decoder = zlib.decompressobj(wbits=31)
        while not decoder.eof:
            block = decoder.decompress(data, OUTPUT_BYTES if produced < sound else 1)
            produced += len(block)
            yield block
            data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail or stream.read(INPUT_BYTES)
            if not (data or block or decoder.eof):
                raise EOFError("the gzip member is cut short")
        data = _next_member(stream, data)


def _bunzip(stream: BinaryIO, sound: int) -> Iterator[bytes]:
    """Decode the streams of a bzip2 file in blocks, and in single bytes once `sound` bytes are out."""
    produced = 0
    data = stream.read(INPUT_BYTES)
    while data:
        decoder = bz2.BZ2Decompressor()
        while not decoder.eof:
            try:
                block = decoder.decompress(data, OUTPUT_BYTES if produced < sound else 1)
            except OSError as error:  # to be told from a failing read, which is no property of the file
                raise ValueError(str(error)) from None
            produced += len(block)
            yield block
            data = stream.read(INPUT_BYTES) if decoder.needs_input else b""
            if decoder.needs_input and not data:
                raise EOFError("the bzip2 stream is cut short")
        data = _next_member(stream, decoder.unused_data)


def _unzstd(stream: BinaryIO, sound: int) -> Iterator[bytes]:
    """Decode the frames of a zstd file, a few blocks at a time; once `sound` bytes are out, fed with single bytes."""
    produced = 0
    data = stream.read(ZSTD_INPUT_BYTES)
    while data:
        decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()
        while not decoder.eof:
            if not data:
                raise EOFError("the zstd frame is cut short")
            take = ZSTD_INPUT_BYTES if produced < sound else 1
            block = decoder.decompress(data[:take])
            produced += len(block)
            yield block
            data = decoder.unused_data + data[take:] if decoder.eof else data[take:] or stream.read(ZSTD_INPUT_BYTES)
        data = data or stream.read(ZSTD_INPUT_BYTES)


def _next_member(stream: BinaryIO, data: bytes) -> bytes:
    """Return the first bytes of the next member, skipping the zeros with which some tools pad a file."""
    data = data.lstrip(b"\0")
    while not data and (more := stream.read(INPUT_BYTES)):
        data = more.lstrip(b"\0")
    return data
