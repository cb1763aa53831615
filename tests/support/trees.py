"""What law 1 compares: the bytes of everything in an output but the run record."""

from __future__ import annotations

import hashlib
from pathlib import Path

OUTSIDE_THE_LAW = ("run.json", "packages.json", ".lock")


def tree_hashes(output: Path) -> dict[str, str]:
    """Return sha256 by relative path for every file of an output, without the run record and the lock."""
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name not in OUTSIDE_THE_LAW
    }
