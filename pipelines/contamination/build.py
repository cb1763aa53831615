"""From evaluation items to an index: what is too short is refused, items of equal words are one, canaries are added."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from pipelines.contamination.canary_words import canary_items
from pipelines.contamination.index import CANARY_SET, ITEMS, MAX_NAME_BYTES, ContaminationIndex
from pipelines.contamination.items import Item
from pipelines.contamination.prepared import MIN_WORDS, THRESHOLD, count_words, prepare, word_hashes
from pipelines.errors import HeadraceError


@dataclasses.dataclass(slots=True)
class SetCounts:
    """What became of the items of a set."""

    read: int = 0
    short: int = 0
    """Refused: fewer than `MIN_WORDS` words, the answer included."""
    copies: int = 0
    """Of equal words with an earlier item, of this set or of another one: found under that one's name."""
    templates: int = 0
    """In the index, but never found: their words are those of many other items."""
    indexed: int = 0


def build_index(
    items: Iterable[tuple[str, Item]], inputs: Iterable[tuple[str, str]]
) -> tuple[ContaminationIndex, dict[str, SetCounts]]:
    """Return the index of items, given with the names of their sets, and what became of those of each set.

    An item with too short a question is its question and its answer. Raises `HeadraceError` for a name that no set may
    have, one that is too long, and if no item is left.
    """
    given = list(items)
    counts: dict[str, SetCounts] = {}
    for set_name, item in given:
        _check_name(set_name, item)
        counts.setdefault(set_name, SetCounts()).read += 1
    questions = [item.question for _, item in given]
    alone = count_words(pa.array(questions, pa.large_string()))
    for place in np.flatnonzero(alone < MIN_WORDS).tolist():
        questions[place] = f"{questions[place]}\n{given[place][1].answer}".strip()
    column = pa.array(questions, pa.large_string())
    seen: set[bytes] = set()
    rows = []
    for (set_name, item), question, words, key in zip(
        given, questions, count_words(column).tolist(), word_hashes(column), strict=True
    ):
        if words < MIN_WORDS:
            counts[set_name].short += 1
        elif key in seen:
            counts[set_name].copies += 1
        else:
            seen.add(key)
            counts[set_name].indexed += 1
            rows.append((item.name, question, item.answer))
    if not rows:
        raise HeadraceError(
            f"{len(given)} items: none has {MIN_WORDS} words\nhint: name the fields of the question with --fields"
        )
    rows += [(item.name, item.question, item.answer) for item in canary_items()]
    columns = [pa.array(list(column), field.type) for column, field in zip(zip(*rows, strict=True), ITEMS, strict=True)]
    index = ContaminationIndex(pa.RecordBatch.from_arrays(columns, schema=ITEMS), tuple(inputs))
    prepared = prepare(index.items.column("item"), index.items.column("question"), THRESHOLD)
    for place in np.flatnonzero(prepared.min_hits == 0).tolist():
        of_set = counts[rows[place][0].partition(":")[0]]
        of_set.indexed, of_set.templates = of_set.indexed - 1, of_set.templates + 1
    return index, counts


def _check_name(set_name: str, item: Item) -> None:
    if set_name == CANARY_SET or not set_name or ":" in set_name:
        raise HeadraceError(f"{set_name!r}: is no name for a set\nhint: use another word, without a colon")
    if (size := len(item.name.encode())) > MAX_NAME_BYTES:
        raise HeadraceError(f"{item.name[:40]}...: the name has {size} bytes, at most {MAX_NAME_BYTES} are allowed")
