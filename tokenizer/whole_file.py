"""Files that are there whole or not at all: written under a name of this process, then given their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the path to write to: at the end it becomes `path`, after an error it is removed."""
    attempt = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield attempt
        attempt.replace(path)
    finally:
        attempt.unlink(missing_ok=True)
