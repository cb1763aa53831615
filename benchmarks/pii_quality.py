"""How well `pii` finds what people labelled: recall and precision by kind, with intervals.

Labels of real documents (tests/pii_labels/real.jsonl) name a file of ../shared/data, a record and a byte range, and
hold spans and no values; the text's hash is checked. Made ones come from tests/pii_labels/made_sentences.py.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import html
import importlib.util
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.pii.tables import KINDS
from pipelines.schema import VERDICT
from pipelines.transforms.pii import Pii

LABELS = Path(__file__).resolve().parents[1] / "tests/pii_labels"
DATA = Path(__file__).resolve().parents[1] / "../shared/data"
OVERLAP = (9, 10)
"""A label counts as found if a span of its kind and it share at least this part of the longer of the two."""
MARKUP = re.compile(r"(?is)<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>")

Span = tuple[int, int, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Labelled:
    """A text that was read whole: what is not among the spans is none."""

    half: str
    """development, reporting or made."""
    text: str
    spans: tuple[Span, ...]
    place: str


@dataclasses.dataclass
class Score:
    """Counts of one kind in one set."""

    labelled: int = 0
    recalled: int = 0
    found: int = 0
    right: int = 0


def half_of(label: dict[str, Any]) -> str:
    """Return the half of a document, by a hash of its place: excerpts of one document are in one half."""
    place = f"{label['file']} {label['record']} {label['string']}"
    return ("development", "reporting")[hashlib.sha256(place.encode()).digest()[0] & 1]


def real(data: Path = DATA) -> list[Labelled]:
    """Return the labelled excerpts of real documents. Raises `ValueError` where a text is not the one that was read."""
    documents = []
    for line in (LABELS / "real.jsonl").read_text(encoding="utf-8").splitlines():
        label = json.loads(line)
        content = text_of(data, label["file"], label["record"], label["string"]).encode()
        text = content[label["start"] : label["end"]]
        place = f"{label['file']} {label['record']}.{label['string']} {label['start']}"
        if hashlib.sha256(text).hexdigest() != label["sha256"]:
            raise ValueError(f"{place}: is not the text that was labelled")
        spans = tuple((start, end, kind) for start, end, kind in label["spans"])
        documents.append(Labelled(half_of(label), text.decode(), spans, place))
    return documents


def made() -> list[Labelled]:
    """Return the made sentences."""
    spec = importlib.util.spec_from_file_location("made_sentences", LABELS / "made_sentences.py")
    assert spec and spec.loader
    sentences = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sentences)
    return [Labelled("made", text, spans, text) for text, spans in sentences.documents()]


def text_of(data: Path, file: str, record: int, string: int) -> str:
    """Return the text that a label is about: a string of a JSON record, or a page without its markup."""
    return _pages(data / file)[record] if file.endswith(".warc.gz") else _records(data / file)[record][string]


@cache
def _records(path: Path) -> list[list[str]]:
    raw = path.read_bytes()
    content = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    if content.lstrip().startswith("[") and ".jsonl" not in path.name:
        return [list(_strings(record)) for record in json.loads(content)]
    return [list(_strings(json.loads(line))) for line in content.split("\n") if line.strip()]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


@cache
def _pages(path: Path) -> dict[int, str]:
    """Return the text of a web archive's HTML responses, by their place among its responses.

    Tags are cut by one expression and not by an extractor: extractors leave out footers, where addresses are, and
    labels must not depend on their versions.
    """
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    pages = {}
    with path.open("rb") as stream:
        for place, record in enumerate(ArchiveIterator(stream, record_types=WarcRecordType.response)):
            if record.http_headers is not None and "html" in (record.http_content_type or ""):
                text = html.unescape(MARKUP.sub("\n", record.reader.read().decode("utf-8", "replace")))
                pages[place] = re.sub(r"\s*\n\s*", "\n", text).strip()
    return pages


def found(documents: list[Labelled]) -> list[list[Span]]:
    """Return what the transform finds in each document."""
    texts = pa.array([document.text for document in documents], pa.large_string())
    batch = pa.RecordBatch.from_pydict({"text": texts, "verdict": pa.nulls(len(documents), VERDICT)})
    column = Pii(replace=False)(batch).column("pii").to_pylist()
    return [[(hit["start"], hit["end"], hit["kind"]) for hit in hits or ()] for hits in column]


def is_same(left: Span, right: Span) -> bool:
    """Whether two spans are of one kind and share most of the longer one."""
    shared = min(left[1], right[1]) - max(left[0], right[0])
    longer = max(left[1] - left[0], right[1] - right[0])
    return left[2] == right[2] and shared * OVERLAP[1] >= longer * OVERLAP[0]


def scores(documents: list[Labelled], hits: list[list[Span]]) -> dict[tuple[str, str], Score]:
    """Return the counts by set ("development", "reporting", "real", "made") and kind ("all" for their sum)."""
    result: dict[tuple[str, str], Score] = {}
    for document, spans in zip(documents, hits, strict=True):
        sets = ["made"] if document.half == "made" else [document.half, "real"]
        for name in sets:
            for kind in (*KINDS, "all"):
                score = result.setdefault((name, kind), Score())
                labelled = [span for span in document.spans if kind in (span[2], "all")]
                detected = [span for span in spans if kind in (span[2], "all")]
                score.labelled += len(labelled)
                score.found += len(detected)
                score.recalled += sum(any(is_same(span, hit) for hit in detected) for span in labelled)
                score.right += sum(any(is_same(hit, span) for span in labelled) for hit in detected)
    return result


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson 1927); (0, 1) of nothing."""
    if total == 0:
        return 0.0, 1.0
    z, share = 1.959964, right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def table(result: dict[tuple[str, str], Score]) -> str:
    """Return the scores as text."""
    lines = [
        f"{'set':<12} {'kind':<13} {'labelled':>8} {'recalled':>8} {'recall':>20}"
        f" {'found':>6} {'right':>6} {'precision':>20}"
    ]
    for (name, kind), score in sorted(result.items()):
        if not score.labelled and not score.found:
            continue
        recall, precision = shown(score.recalled, score.labelled), shown(score.right, score.found)
        lines.append(
            f"{name:<12} {kind:<13} {score.labelled:>8} {score.recalled:>8} {recall:>20}"
            f" {score.found:>6} {score.right:>6} {precision:>20}"
        )
    return "\n".join(lines)


def shown(right: int, total: int) -> str:
    """Return a share with its interval, or "-"."""
    low, high = wilson(right, total)
    return f"{right / total:.3f} ({low:.3f}-{high:.3f})" if total else "-"
