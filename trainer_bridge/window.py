"""A window of documents, packed: which pieces make each of its sequences, and where their tokens lie.

It is a function of the manifest and the plan alone. Tokens stay mapped; a window of 20,000 documents takes about a
megabyte.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa

from mixtures.documents import Documents
from mixtures.errors import PlanError
from mixtures.holdout import Validation
from mixtures.packing import Packing, pack
from mixtures.plan import Cut
from tokenizer.columns import one_chunk
from tokenizer.shards import loss_spans


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """See the module docstring. Arrays are by document of the window; a shard is one of the manifest's.

    `first`: the first document's place in the manifest. `spans`: (offsets by document, starts, ends, weights).
    """

    first: int
    packing: Packing
    lengths: np.ndarray
    shards: np.ndarray
    origins: np.ndarray
    plain: np.ndarray
    spans: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    tokens: dict[int, np.ndarray]
    """The mapped ids of each shard."""

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.packing.offsets) - 1


@dataclasses.dataclass(frozen=True, slots=True)
class PackingRule:
    """How documents are chosen and packed; `held_out`: the sequences for validation instead of those for training."""

    length: int
    reserved: int
    cut: Cut
    validation: Validation | None
    held_out: bool


def load_window(documents: Documents, first: int, last: int, rule: PackingRule) -> Window:
    """Read and pack documents [first, last) of a manifest."""
    columns = ["loss", *(rule.validation.columns if rule.validation else ())]
    rows = documents.read(first, last, columns)
    chosen = _chosen(rows, rule)
    lengths = documents.lengths(first, last)
    packing = pack(lengths[chosen], rule.length, rule.reserved, rule.cut == "long")
    packing = dataclasses.replace(packing, document=chosen[packing.document].astype(np.int32))
    plain, spans = loss_spans(one_chunk(rows.column("loss")))
    shards, origins = np.empty(last - first, np.int32), np.empty(last - first, np.int64)
    tokens, place = {}, 0
    for part in documents.parts(first, last):
        shard, count = documents.mapped(part.shard), part.last - part.first
        shards[place : place + count] = part.shard
        origins[place : place + count] = shard.offsets(part.first, part.last)
        inside = slice(place, place + count)
        _check_origins(origins[inside], lengths[inside], len(shard.tokens), shard.docs)
        tokens[part.shard] = shard.tokens.view(np.ndarray)
        place += count
    return Window(first, packing, lengths, shards, origins, plain, spans, tokens)


def _check_origins(origins: np.ndarray, lengths: np.ndarray, tokens: int, docs: Path) -> None:
    """Refuse documents that do not lie one behind the other within the shard's tokens."""
    ends = origins + lengths
    if origins[0] < 0 or ends[-1] > tokens or not np.array_equal(origins[1:], ends[:-1]):
        raise PlanError(
            f"{docs}: positions in the index beside it do not fit the lengths\nhint: `headrace verify` the run"
        )


def _chosen(rows: pa.Table, rule: PackingRule) -> np.ndarray:
    """Return the places of the documents of the rule's part (int64)."""
    if rule.validation is None:
        return np.arange(0 if rule.held_out else rows.num_rows)
    return np.flatnonzero(rule.validation.held_out(rows) == rule.held_out)
