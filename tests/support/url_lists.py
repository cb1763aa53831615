"""Lists as files, for tests of what is given them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from pipelines.transforms.given_files import GivenFile


@cache
def listed(*entries: str) -> tuple[GivenFile, ...]:
    """Write a list and return it as a field has it."""
    path = Path(mkdtemp(prefix="headrace-list-"), "list.txt")
    path.write_text("".join(entry + "\n" for entry in entries))
    return (GivenFile.of(path),)
