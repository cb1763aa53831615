"""Token shards: one for each split (bucket) and each partition of each source that has documents in it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipelines.commit import FileRecord
from pipelines.schema import CORE
from pipelines.sinks.sink import Pending, Place
from pipelines.sinks.tables import text_bytes
from pipelines.transforms.encode import Encode
from tokenizer.encodings import encoding_named
from tokenizer.manifest import ShardEntry
from tokenizer.shards import GIVEN, SUFFIXES, ShardWriter

Key = tuple[str | None, ...]
"""A source and the values of its partition columns."""
LONGEST_VALUE = 120
"""Characters of a quoted value in a folder's name; file systems end names at 255 bytes."""
NO_VALUE = "_"
"""Name of the partition of documents whose partition column is null."""


@dataclasses.dataclass(frozen=True, slots=True)
class TokenShards:
    """Megatron shards of an encoding, partitioned by columns of the documents."""

    encoding: str
    partition_by: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """The ledger's word for what is written here."""
        return "tokens"

    @property
    def schema(self) -> pa.Schema:
        """The core and what `Encode` adds."""
        return pa.schema([*CORE, *Encode.adds])

    def open(self, place: Place) -> TokenShardsSink:
        """Begin; files are made as partitions turn up."""
        return TokenShardsSink(self, place)


class TokenShardsSink:
    """Writes the shards of one split. Rows come in canonical order and keep it within their partition."""

    def __init__(self, output: TokenShards, place: Place) -> None:
        """See `TokenShards.open`."""
        self._output, self._place = output, place
        self._shards: dict[Key, _Shard] = {}

    def write(self, batch: pa.RecordBatch) -> None:
        """Send every row to the shard of its source and partition."""
        for key, rows in _by_partition(batch, ("source", *self._output.partition_by)):
            if key not in self._shards:
                self._shards[key] = _Shard(f"shard-{len(self._shards):05d}", self._output.encoding, self._place)
            self._shards[key].write(rows)

    def abort(self) -> None:
        """Close the files of a failed attempt."""
        for shard in self._shards.values():
            shard.abort()

    def close(self) -> list[Pending]:
        """Finish all shards, and name each by its first doc_id (so names sort in canonical order) and its content."""
        pending = []
        for (source, *values), shard in self._shards.items():
            partition = dict(zip(self._output.partition_by, values, strict=True))
            pending += shard.close(str(source), partition)
        return pending


class _Shard:
    """One shard's three files, and the text bytes that went in."""

    def __init__(self, name: str, encoding: str, place: Place) -> None:
        self._name, self._place = name, place
        self._files = [place.storage.create(place.attempt, name + suffix) for suffix in SUFFIXES.values()]
        bin_file, idx_file, docs_file = self._files
        self._writer = ShardWriter(bin_file, idx_file, docs_file, encoding_named(encoding))
        self._text_bytes = 0

    def write(self, rows: pa.RecordBatch) -> None:
        self._text_bytes += pc.sum(text_bytes(rows)).as_py() or 0
        self._writer.write(rows.select(GIVEN.names))

    def abort(self) -> None:
        self._writer.abort()
        for file in self._files:
            with suppress(OSError):
                file.close()

    def close(self, source: str, partition: dict[str, str | None]) -> list[Pending]:
        summary = self._writer.close()
        for file in self._files:
            file.close()
        files = {"bin": summary.bin, "idx": summary.idx, "docs": summary.docs}
        content = hashlib.sha256("".join(file.sha256 for file in files.values()).encode()).hexdigest()
        entry = ShardEntry.of(f"{(summary.first_doc_id or b'').hex()[:8]}-{content[:16]}", summary, self._text_bytes)
        counts = [entry.documents, entry.text_bytes, entry.tokens]
        detail = {"sources": {source: counts}, "partition": partition, "shard": dataclasses.asdict(entry)}
        folders = [partition_folder(*item) for item in partition.items()]
        return [
            Pending(
                self._name + SUFFIXES[kind],
                FileRecord(
                    table="tokens",
                    path="/".join(["tokens", source, *folders, entry.name + SUFFIXES[kind]]),
                    size=file.bytes,
                    sha256=file.sha256,
                    rows=summary.documents,
                    source=source,
                    partition="/".join(folders),
                    detail=detail if kind == "bin" else {},
                ),
            )
            for kind, file in files.items()
        ]


def partition_folder(column: str, value: str | None) -> str:
    """Return the folder of a partition: "language=de"; nothing in a value can lead out of it.

    A value that is too long for a name is cut and told apart by its hash ("+" is in no quoted value).
    """
    if value is None:
        return f"{column}={NO_VALUE}"
    quoted = quote(value, safe="").replace("_", "%5F").replace(".", "%2E")
    if len(quoted) > LONGEST_VALUE:
        quoted = f"{quoted[:LONGEST_VALUE]}+{xxhash.xxh3_128_hexdigest(value)}"
    return f"{column}={quoted}"


def _by_partition(batch: pa.RecordBatch, columns: tuple[str, ...]) -> Iterator[tuple[Key, pa.RecordBatch]]:
    """Yield the rows of every combination of values (null is one), in order within each."""
    codes = np.zeros(batch.num_rows, np.int64)
    dictionaries: list[list[str | None]] = []
    for column in columns:
        encoded = batch.column(column).dictionary_encode(null_encoding="encode")
        dictionaries.append(encoded.dictionary.to_pylist())
        codes = codes * len(dictionaries[-1]) + encoded.indices.to_numpy()
    for code in np.unique(codes):
        key: list[str | None] = []
        rest = int(code)
        for dictionary in reversed(dictionaries):
            rest, place = divmod(rest, len(dictionary))
            key.append(dictionary[place])
        yield tuple(reversed(key)), batch.filter(pa.array(codes == code))
