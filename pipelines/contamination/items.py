"""Evaluation files as items: JSON lines, plain or compressed, in the shapes in which benchmarks are published.

An item is a question and its answer. What counts as the question depends on the fields that a line has (`SHAPES`), or
is named; of prompts as they are put to a model, the labels ("Question:", "Answer:") and the list of choices are left
out, because a document that holds the question need not hold them. Lines that say of their answer that it is wrong
(`is_correct` is false) are left out: such files have one line for each choice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from pipelines.errors import HeadraceError
from pipelines.sources.decompress import read_blocks

MAX_FILE_BYTES = 1 << 30
"""Of one file, decompressed."""

_LABEL = re.compile(r"(?m)^[ \t]*(?:Question|Passage|Context|Goal|Q)[ \t]*:[ \t]*")
_CHOICES = re.compile(r"\n[ \t]*(?:Choices|Options|Answer)[ \t]*:.*", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One question of an evaluation set."""

    name: str
    """Set and id: "gsm8k:17"."""
    question: str
    """With the passage that it is about, if it has one."""
    answer: str
    """The right one; "" where there is none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """Which fields of a line are what; the answer may be the `gold`-th of a list of choices."""

    question: tuple[str, ...]
    """Joined by line breaks; those that a line lacks are left out."""
    answer: str = ""
    id: str = ""
    """Without one, items are counted from 0."""


SHAPES: dict[str, Shape] = {
    "prompt": Shape(("prompt",), "canonical_solution", "task_id"),  # HumanEval
    "eval_key": Shape(("passage", "question"), "answer", "doc_id"),  # the bundled sets of decon
    "context_options": Shape(("context_options", "continuation")),  # WinoGrande and WSC of llm-foundry
    "continuation": Shape(("context", "continuation")),  # LAMBADA of llm-foundry
    "query": Shape(("query",), "choices"),  # multiple choice of llm-foundry
    "context": Shape(("context",), "answer"),  # MATH, SVAMP and TriviaQA of llm-foundry
    "text": Shape(("text",), "code", "task_id"),  # MBPP
    "question": Shape(("question",), "answer"),  # GSM8K
}
"""By the field that tells them apart, in the order in which it is looked for."""


def read_items(set_name: str, file: Path, shape: Shape | None = None, first: int = 0) -> tuple[list[Item], str]:
    """Return the items of a file, in order, and the sha256 of its content (decompressed).

    `shape` None: told by the fields of each line; items without an id are counted from `first` on. Raises
    `HeadraceError` naming file, line and what is wrong.
    """
    content, sha256 = _read(file)
    items: list[Item] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            item = _item(f"{file}:{number}", set_name, first + len(items), line, shape)
            items += [item] if item else []
    return items, sha256


def _item(where: str, set_name: str, place: int, line: bytes, shape: Shape | None) -> Item | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise HeadraceError(f"{where}: is no JSON: {error}\nhint: give one JSON object a line") from error
    if not isinstance(row, dict):
        raise HeadraceError(f"{where}: found {type(row).__name__}\nhint: give one JSON object a line")
    if row.get("is_correct") is False:
        return None
    given = shape or next((known for field, known in SHAPES.items() if row.get(field) is not None), None)
    if given is None:
        raise HeadraceError(
            f"{where}: its fields are {', '.join(map(str, row))[:200]}, known are questions in {', '.join(SHAPES)}\n"
            "hint: name the fields that hold the question with --fields"
        )
    parts = [_text(where, row, field) for field in given.question]
    question = "\n".join(part for part in parts if part)
    if not question:
        raise HeadraceError(f"{where}: {', '.join(given.question)} hold no text\nhint: name the fields with --fields")
    answer = _text(where, row, given.answer) if given.answer else ""
    identity = row.get(given.id) if given.id else None
    return Item(f"{set_name}:{place if identity is None else identity}", bare(question), answer)


def bare(question: str) -> str:
    """Return a question without the labels of a prompt, its list of choices and the invitation to answer."""
    return _CHOICES.sub("", _LABEL.sub("", question)).strip()


def _text(where: str, row: dict[str, Any], field: str) -> str:
    value = row.get(field)
    if isinstance(value, list):
        gold = row.get("gold")
        value = value[gold] if type(gold) is int and 0 <= gold < len(value) else None
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise HeadraceError(f"{where}: field {field!r} is a {type(value).__name__}, allowed is text")
    return str(value)


def _read(file: Path) -> tuple[bytes, str]:
    digest, pieces, held = hashlib.sha256(), [], 0
    for block in _blocks(file):
        held += len(block)
        if held > MAX_FILE_BYTES:
            raise HeadraceError(f"{file}: holds more than {MAX_FILE_BYTES} bytes\nhint: is it an evaluation set?")
        digest.update(block)
        pieces.append(block)
    return b"".join(pieces), digest.hexdigest()


def _blocks(file: Path) -> Iterator[bytes]:
    try:
        yield from read_blocks(file)
    except OSError as error:
        raise HeadraceError(f"{file}: cannot be read: {error.strerror}\nhint: give files of JSON lines") from error
