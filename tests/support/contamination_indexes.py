"""A small contamination index, for tests of what uses one."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from pipelines.contamination.build import build_index
from pipelines.contamination.items import Item
from pipelines.transforms.given_files import GivenFile

QUESTIONS = {
    "mill:0": "A mill wheel with twelve paddles turns four times a minute while the river falls two metres. "
    "How many paddles pass the sluice in one hour if every second paddle is broken?",
    "mill:1": "Why did the miller cat sleep inside the flour?",
    "mill:2": "Welche Farbe hat das Wasser im Kanal, wenn es über das weite Rad der Mühle läuft, und warum ist das so?",
}
"""A long item, one that must be found whole (9 words), one in another language."""


@cache
def small_index() -> GivenFile:
    """Write an index of `QUESTIONS` and return its file."""
    items = [("mill", Item(name, question, "")) for name, question in QUESTIONS.items()]
    index, _ = build_index(items, [("mill", "0" * 64)])
    path = Path(mkdtemp(prefix="headrace-contamination-"), "eval.index")
    path.write_bytes(index.pack())
    return GivenFile.of(path)
