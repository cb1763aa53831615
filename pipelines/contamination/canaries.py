"""Canaries planted in a run: documents that hold canary items, which the transform must drop, or the run says nothing.

A filter that lost its index, its column or its thresholds drops nothing, and nothing looks like clean data. So every
run with the transform has one more source, of documents made from the index's canary items, as they are and edited.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

import pyarrow as pa

from pipelines.contamination.canary_words import WORDS_PER_SENTENCE
from pipelines.contamination.index import CANARY_SET, ContaminationIndex
from pipelines.contamination.prepared import RATIO, THRESHOLD, required
from pipelines.errors import HeadraceError
from pipelines.ledger import Entry
from pipelines.sources.source import BatchBuilder, BatchLimits, RawAccount, Split, content_hash, doc_id
from pipelines.storage.storage import ReadStorage
from pipelines.transform import EMPTY_SCHEMA
from pipelines.transforms.contamination import REASON, Contamination, read_index

BEFORE = "The water came down from the hills in spring, and the miller's daughter, who had been to school, wrote:"
BEHIND = "and nobody in the valley knew what to make of it, though the wheel went on turning until the autumn."
EVERY = 10
"""Of the words of an edited canary one in so many is replaced."""
REPLACEMENT = "millstone"


def canary_documents(index: ContaminationIndex, threshold: int = THRESHOLD) -> list[str]:
    """Return the texts of the canaries: each verbatim, edited (case, punctuation, words), and both within prose."""
    texts = []
    for name, question in zip(*(index.items.column(key).to_pylist() for key in ("item", "question")), strict=True):
        if name.partition(":")[0] == CANARY_SET:
            changed = edited(question, threshold)
            texts += [question, changed, f"{BEFORE} {question} {BEHIND}", f"{BEFORE} {changed} {BEHIND}"]
    return texts


def edited(question: str, threshold: int) -> str:
    """Return a canary in capitals, with other punctuation, and one word in ten replaced, or as many as may be missing.

    All words of a canary weigh the same.
    """
    words = re.findall(r"\w+", question.upper())
    missing = len(words) * (RATIO - required(len(words), threshold)) // RATIO
    for place in range(EVERY - 1, len(words), EVERY)[:missing]:
        words[place] = REPLACEMENT
    return "\n".join(
        ", ".join(words[start : start + WORDS_PER_SENTENCE]) for start in range(0, len(words), WORDS_PER_SENTENCE)
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Canaries:
    """A reader of the canaries of an index: one split without files, one document for each text."""

    kind: ClassVar[str] = "canaries"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = EMPTY_SCHEMA

    name: str
    transform: Contamination
    """Whose index they are made from."""

    def splits(self, storage: ReadStorage) -> list[Split]:
        """Return the one split; nothing is looked for in the storage."""
        return [Split(self.name, (), label=self.name)]

    def read(
        self, split: Split, storage: ReadStorage, limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        """Yield the documents. They come from no file: there are no raw bytes to account for."""
        builder = BatchBuilder(self.adds, limits, account)
        for place, text in enumerate(canary_documents(read_index(self.transform.index), self.transform.threshold)):
            key = str(place)
            yield from builder.add(
                {
                    "doc_id": doc_id(self.name, key), "source": self.name, "natural_key": key, "origin_path": self.kind,
                    "origin_offset": place, "origin_length": 1, "content_hash": content_hash(text.encode()),
                    "language": "en", "text": text,
                }
            )  # fmt: skip
        yield from builder.flush()


def check_canaries(entries: Iterable[Entry], source: str) -> None:
    """Check by the ledger that every canary of a source was read, and dropped as contaminated.

    `entries` are those of the stage that reads it. Raises `HeadraceError` saying how many were not.
    """
    own = [entry for entry in entries if entry.source == source and entry.table == "documents"]
    planted = sum(entry.rows for entry in own if (entry.step, entry.account) == (0, "in"))
    caught = sum(entry.rows for entry in own if (entry.account, entry.reason) == ("dropped", REASON))
    if planted == 0 or caught != planted:
        raise HeadraceError(
            f"source {source}: of {planted} canary documents {caught} were found contaminated, allowed is all of some\n"
            "hint: decontamination did not work in this run, and what it passed is not to be trusted; make the index "
            "anew with headrace contamination-index, and report it if that does not help"
        )
