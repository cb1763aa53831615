"""Lists that a recipe gives as files: one entry a line, UTF-8, `#` comments, plain or gzip (by its first bytes).

A line loses its white space at both ends; a line that begins with `#`, and what stands behind white space and `#`, is
a comment. The file is taken apart in Arrow: 4.6 million lines never become Python objects.
"""

from __future__ import annotations

import zlib
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import RecipeError
from pipelines.transforms.given_files import GivenFile

MAX_BYTES = 1 << 30
"""Of a list, unpacked: 4.6 million domains are 80 MB."""

GZIP = b"\x1f\x8b"
COMMENT = r"(^|\s)#.*$"


def list_entries(given: GivenFile) -> pa.LargeStringArray:
    """Return the entries in the order of the file, none of them empty.

    Raises `RecipeError` where the file is gone, was changed, is no UTF-8, damaged, or larger than `MAX_BYTES`.
    """
    content = given.load()
    content = _unpacked(given, content) if content.startswith(GZIP) else content
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{given.path}: has more than {MAX_BYTES} bytes\nhint: split the list")
    try:
        whole = pa.array([content.removeprefix(b"\xef\xbb\xbf")], pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid as error:
        raise RecipeError(f"{given.path}: is no UTF-8\nhint: write the list in UTF-8, one entry a line") from error
    lines = pc.list_flatten(pc.split_pattern(whole, "\n"))
    lines = pc.utf8_trim_whitespace(pc.replace_substring_regex(lines, COMMENT, ""))
    return cast(pa.LargeStringArray, lines.filter(pc.not_equal(lines, "")))


def _unpacked(given: GivenFile, content: bytes) -> bytes:
    """Return what is in a gzip file (all of its members), one byte more than allowed at most."""
    parts, size, pending = [], 0, content
    while pending and size <= MAX_BYTES:
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(pending, MAX_BYTES + 1 - size)
        except zlib.error as error:
            raise RecipeError(f"{given.path}: is no sound gzip file ({error})\nhint: pack the list anew") from error
        parts.append(part)
        size += len(part)
        if not member.eof and size <= MAX_BYTES:
            raise RecipeError(f"{given.path}: is cut off\nhint: pack the list anew")
        pending = member.unused_data
    return b"".join(parts)
