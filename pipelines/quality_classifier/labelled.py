"""Labelled texts from JSON lines, plain or compressed, as features: the texts themselves are not kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from pipelines.errors import HeadraceError
from pipelines.quality_classifier.features import SparseRows, list_features
from pipelines.sources.decompress import read_blocks

MAX_LINE_BYTES = 256 << 20
BATCH_BYTES = 8 << 20
"""Text that is turned into features at a time."""
SHOWN = 10
"""Labels that a message lists."""


@dataclasses.dataclass(frozen=True, slots=True)
class Labelled:
    """Documents of a training set, in the order of the files and lines."""

    rows: SparseRows
    labels: np.ndarray
    """bool: whether the label is the positive one."""
    texts: np.ndarray
    """int64: hashes of the texts, by which copies are known."""
    positive: str
    counts: dict[str, int]
    """Documents by label."""
    sha256: str
    """Of all texts and labels in order, however the files cut or compress them."""


def read_labelled(
    files: Sequence[Path], text_field: str, label_field: str, positive: str | None, bits: int,
    report: Callable[[str, int, int], None],
) -> Labelled:  # fmt: skip
    """Read every line of the files.

    A label is text, a number, true or false; `positive` is the one that scores high (as text: 1, true, good ...), and
    may be left out where the labels are 0 and 1, or false and true. Raises `HeadraceError` naming file and line.
    """
    parts, labels, hashes, digest = [], [], [], hashlib.sha256()
    texts: list[str] = []
    held, read, total = 0, 0, sum(_size(file) for file in files)
    report("bytes read", 0, total)
    for file in files:
        for where, line in _lines(file):
            text, label = _fields(where, line, text_field, label_field)
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded + len(label).to_bytes(8, "little"))
            digest.update(label.encode())
            hashes.append(xxhash.xxh3_64_intdigest(encoded))
            labels.append(label)
            texts.append(text)
            held += len(encoded)
            if held >= BATCH_BYTES:
                parts.append(list_features(pa.array(texts, pa.large_string()), bits))
                texts, held = [], 0
        read += _size(file)
        report("bytes read", read, total)
    parts.append(list_features(pa.array(texts, pa.large_string()), bits))
    counts = dict(sorted(Counter(labels).items()))
    chosen = _positive(files, counts, label_field, positive)
    return Labelled(
        SparseRows.joined(parts), np.array([label == chosen for label in labels], bool),
        np.array(hashes, np.uint64).view(np.int64), chosen, counts, digest.hexdigest(),
    )  # fmt: skip


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise _unreadable(file, error) from error


def _lines(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (file:line, content) for every line that is not blank."""
    number, held, pieces = 0, 0, []  # the pieces are those of a line that goes on in the next block
    for block in _blocks(file):
        first, *others = block.split(b"\n")
        pieces.append(first)
        held += len(first)
        if held > MAX_LINE_BYTES:
            raise HeadraceError(
                f"{file}:{number + 1}: the line is longer than {MAX_LINE_BYTES} bytes\nhint: is it JSON lines?"
            )
        for other in others:
            number += 1
            if line := b"".join(pieces).strip():
                yield f"{file}:{number}", line
            pieces, held = [other], len(other)
    if line := b"".join(pieces).strip():
        yield f"{file}:{number + 1}", line


def _blocks(file: Path) -> Iterator[bytes]:
    try:
        yield from read_blocks(file)
    except OSError as error:
        raise _unreadable(file, error) from error


def _fields(where: str, line: bytes, text_field: str, label_field: str) -> tuple[str, str]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise HeadraceError(f"{where}: is no JSON: {error}\nhint: give one JSON object a line") from error
    if not isinstance(row, dict):
        raise HeadraceError(f"{where}: found {type(row).__name__}\nhint: give one JSON object a line")
    text, label = row.get(text_field), row.get(label_field)
    if not isinstance(text, str):
        raise HeadraceError(
            f"{where}: field {text_field!r} is {_kind(text)}, allowed is text\nhint: name the field with --text-field"
        )
    if not isinstance(label, str | bool | int | float):
        raise HeadraceError(
            f"{where}: field {label_field!r} is {_kind(label)}, allowed are text, numbers, true and false\n"
            "hint: name the field with --label-field"
        )
    return text, label if isinstance(label, str) else json.dumps(label)


def _positive(files: Sequence[Path], counts: dict[str, int], label_field: str, positive: str | None) -> str:
    if positive is None:
        positive = next((pair[1] for pair in (("0", "1"), ("false", "true")) if pair == tuple(counts)), None)
    if positive not in counts or len(counts) < 2:
        named = ", ".join(f"{label!r:.40} ({number})" for label, number in list(counts.items())[:SHOWN])
        more = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
        raise HeadraceError(
            f"{files[0]}: labels in field {label_field!r} are {named or 'none'}{more}\n"
            "hint: --positive names the one that should score high; there must be another one beside it"
        )
    return positive


def _kind(value: Any) -> str:
    return "missing or null" if value is None else f"a {type(value).__name__}"


def _unreadable(file: Path, error: OSError) -> HeadraceError:
    return HeadraceError(f"{file}: cannot be read: {error.strerror}\nhint: give files of labelled JSON lines")
