"""The documents of one manifest as one run in canonical order, of which any part can be read: lengths, ids, rows.

Shards are mapped when they are first touched and their sizes compared with the manifest's; hashes are for `headrace
verify`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixtures.errors import PlanError
from tokenizer.columns import running_total
from tokenizer.manifest import Manifest
from tokenizer.shards import ROW_GROUP_ROWS, SUFFIXES, MappedShard


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Documents [first, last) of one shard (number `shard` of the manifest)."""

    shard: int
    first: int
    last: int


class Documents:
    """See the module docstring. `bounds` (int64, shape (shards + 1,)): the documents before each shard."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.bounds = running_total(np.array([shard.documents for shard in manifest.shards], np.int64))
        self._mapped = functools.lru_cache(maxsize=64)(self._map)

    def __len__(self) -> int:
        """Return the number of documents."""
        return int(self.bounds[-1])

    def parts(self, first: int, last: int) -> Iterator[Part]:
        """Yield the parts of shards that documents [first, last) are, in order."""
        shard = int(np.searchsorted(self.bounds, first, side="right")) - 1
        while first < last:
            begin, end = int(self.bounds[shard]), int(self.bounds[shard + 1])
            if end > first:
                yield Part(shard, first - begin, min(last, end) - begin)
                first = min(last, end)
            shard += 1

    def mapped(self, shard: int) -> MappedShard:
        """Return a shard, mapped. `PlanError` where its sizes are not the manifest's."""
        return self._mapped(shard)

    def lengths(self, first: int, last: int) -> np.ndarray:
        """Return the lengths of documents [first, last) in tokens (int32, at least 1 each)."""
        lengths = [np.empty(0, np.int32)]
        for part in self.parts(first, last):
            shard = self.mapped(part.shard)
            lengths.append(shard.lengths[part.first : part.last])
            if lengths[-1].min() < 1:
                raise PlanError(
                    f"{shard.docs}: its index has documents without tokens\nhint: check it by `headrace verify`"
                )
        return np.concatenate(lengths)

    def find(self, doc_id: bytes) -> int | None:
        """Return the place of the document with this id, None where the manifest has none."""
        name = doc_id.hex()
        for number, shard in enumerate(self.manifest.shards):
            if shard.documents and (shard.first_doc_id or "") <= name <= (shard.last_doc_id or ""):
                ids = self.mapped(number).read_docs(0, shard.documents, ["doc_id"]).column("doc_id")
                place = pc.index(ids, pa.scalar(doc_id, pa.binary(16))).as_py()
                return int(self.bounds[number]) + place if place >= 0 else None
        return None

    def take(self, documents: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Return these columns of some documents (their places, ascending, each once); a row group is read once."""
        tables = []
        for part in self.parts(int(documents[0]), int(documents[-1]) + 1):
            shard, begin = self.mapped(part.shard), int(self.bounds[part.shard])
            inside = documents[(documents >= begin + part.first) & (documents < begin + part.last)] - begin
            for group in np.unique(inside // ROW_GROUP_ROWS).tolist():
                first = group * ROW_GROUP_ROWS
                chosen = inside[inside // ROW_GROUP_ROWS == group] - first
                last = first + int(chosen[-1]) + 1
                tables.append(shard.read_docs(first, last, columns).take(pa.array(chosen)))
        return pa.concat_tables(tables)

    def read(self, first: int, last: int, columns: Sequence[str]) -> pa.Table:
        """Return these columns of the document tables for documents [first, last)."""
        tables = [self.mapped(part.shard).read_docs(part.first, part.last, columns) for part in self.parts(first, last)]
        return pa.concat_tables(tables)

    def _map(self, shard: int) -> MappedShard:
        entry = self.manifest.shards[shard]
        assert self.manifest.path is not None, "a manifest of documents was loaded from a file"
        prefix = self.manifest.path.parent / entry.name
        for name, suffix in SUFFIXES.items():
            _check_size(prefix.with_name(prefix.name + suffix), getattr(entry.files, name).bytes)
        mapped = MappedShard.open(prefix)
        found, expected = (len(mapped.lengths), len(mapped.tokens)), (entry.documents, entry.tokens)
        if found != expected:
            raise PlanError(
                f"{prefix}: documents and tokens are {found}, the manifest says {expected}\n"
                "hint: bring back the manifest that was made with the shard"
            )
        return mapped


def _check_size(file: Path, expected: int) -> None:
    try:
        found = file.stat().st_size
    except OSError as error:
        raise PlanError(f"{file}: {error.strerror}\nhint: bring the shard back beside its manifest") from error
    if found != expected:
        raise PlanError(
            f"{file}: has {found} bytes, the manifest says {expected}\n"
            "hint: bring back the shard that the manifest was made with"
        )
