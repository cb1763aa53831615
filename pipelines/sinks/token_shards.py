"""Token shards: one for each split (bucket) and each partition of each source that has documents in it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.commit import FileRecord
from pipelines.schema import CORE
from pipelines.sinks.sink import Pending, Place
from pipelines.sinks.tables import text_bytes
from pipelines.transforms.encode import Encode
from tokenizer.encodings import get_encoding
from tokenizer.shards import DOCS, ShardWriter

SUFFIXES = {"bin": ".bin", "idx": ".idx", "docs": ".docs.parquet"}
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
        self._shards: dict[tuple[str, ...], _Shard] = {}

    def write(self, batch: pa.RecordBatch) -> None:
        """Send every row to the shard of its source and partition."""
        for key, rows in _by_partition(batch, ("source", *self._output.partition_by)):
            if key not in self._shards:
                self._shards[key] = _Shard(f"shard-{len(self._shards):05d}", self._output.encoding, self._place)
            self._shards[key].write(rows)

    def close(self) -> list[Pending]:
        """Finish all shards, and name each by its first doc_id (so names sort in canonical order) and its content."""
        pending = []
        for (source, *values), shard in sorted(self._shards.items()):
            partition = dict(zip(self._output.partition_by, values, strict=True))
            folder = "/".join([f"tokens/{source}", *(partition_folder(*item) for item in partition.items())])
            pending += shard.close(source, partition, folder)
        return pending


class _Shard:
    """One shard's three files, and the text bytes that went in."""

    def __init__(self, name: str, encoding: str, place: Place) -> None:
        self._name, self._place = name, place
        files = [place.storage.create(place.attempt, name + suffix) for suffix in SUFFIXES.values()]
        self._writer = ShardWriter(*files, get_encoding(encoding))
        self._files = files
        self._text_bytes = 0

    def write(self, rows: pa.RecordBatch) -> None:
        self._text_bytes += pc.sum(text_bytes(rows)).as_py() or 0
        self._writer.write(rows.select([*(name for name in DOCS.names if name != "tokens"), "ids"]))

    def close(self, source: str, partition: dict[str, str], folder: str) -> list[Pending]:
        summary = self._writer.close()
        for file in self._files:
            file.close()
        content = hashlib.sha256("".join(summary.files[kind].sha256 for kind in SUFFIXES).encode()).hexdigest()
        name = f"{summary.first_doc_id[:8]}-{content[:16]}"
        pending = []
        for kind, suffix in SUFFIXES.items():
            file = summary.files[kind]
            detail = {}
            if kind == "bin":
                counts = [summary.documents, self._text_bytes, summary.tokens]
                detail = {"sources": {source: counts}, "partition": partition, "shard": dataclasses.asdict(summary)}
            path = f"{folder}/{name}{suffix}"
            record = FileRecord(
                "tokens", path, file.bytes, file.sha256, summary.documents, source,
                "/".join(partition_folder(*item) for item in partition.items()), detail,
            )  # fmt: skip
            pending.append(Pending(self._name + suffix, record))
        return pending


def partition_folder(column: str, value: str) -> str:
    """Return the folder of a partition: "language=de"; nothing in a value can lead out of it."""
    return f"{column}={quote(value, safe='').replace('_', '%5F').replace('.', '%2E') if value else NO_VALUE}"


def _by_partition(batch: pa.RecordBatch, columns: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], pa.RecordBatch]]:
    """Yield the rows of every combination of values (null counts as ""), in order within each."""
    codes = np.zeros(batch.num_rows, np.int64)
    dictionaries = []
    for column in columns:
        encoded = pc.fill_null(batch.column(column), "").dictionary_encode()
        dictionaries.append(encoded.dictionary.to_pylist())
        codes = codes * len(dictionaries[-1]) + encoded.indices.to_numpy()
    for code in np.unique(codes):
        key, rest = [], int(code)
        for dictionary in reversed(dictionaries):
            rest, place = divmod(rest, len(dictionary))
            key.append(dictionary[place])
        yield tuple(reversed(key)), batch.filter(pa.array(codes == code))
