"""The index file: the items of evaluation sets as a Parquet file, and nothing that is derived from them.

What the kernels look things up in is worked out when a file is opened (`prepared.py`): so a damaged or hostile file can
name no place outside an array, and the file is small. The schema's metadata, JSON under `KEY`, holds the version and
the names and sha256 of the files that the items came from. The same items in the same order make the same bytes.
"""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import HeadraceError

VERSION = 1
KEY = b"headrace.contamination_index"
ITEMS = pa.schema(
    [
        pa.field("item", pa.large_string(), nullable=False),  # set and id: "gsm8k:17"
        pa.field("question", pa.large_string(), nullable=False),
        pa.field("answer", pa.large_string(), nullable=False),  # "" = none
    ]
)
MAX_ITEMS = 1 << 24
MAX_TEXT_BYTES = 1 << 30
"""Of all texts in one index."""
MAX_NAME_BYTES = 256
"""Of an item's name: it stands in every hit."""
CANARY_SET = "canary"
"""The set of the items that no text holds but those planted in a run; no evaluation set may have this name."""


@dataclasses.dataclass(frozen=True, slots=True)
class ContaminationIndex:
    """The items that texts are searched for."""

    items: pa.RecordBatch
    """Schema `ITEMS`; items of equal words are one."""
    inputs: tuple[tuple[str, str], ...]
    """Set and sha256 of each file, in order."""

    def pack(self) -> bytes:
        """Return the index's file."""
        about = {"version": VERSION, "inputs": [list(pair) for pair in self.inputs]}
        schema = ITEMS.with_metadata({KEY: json.dumps(about, ensure_ascii=False, sort_keys=True).encode()})
        sink = io.BytesIO()
        table = pa.Table.from_batches([self.items.cast(schema)])
        pq.write_table(table, sink, compression="zstd", row_group_size=MAX_ITEMS)
        return sink.getvalue()

    @classmethod
    def unpack(cls, content: bytes, name: str) -> ContaminationIndex:
        """Return the index in a file's content; `name` is for messages. Raises `HeadraceError` where it is none."""
        try:
            file = pq.ParquetFile(pa.BufferReader(content))
            about = _about(file.schema_arrow.metadata, name)
            _check_size(file, name)
            table = file.read()
            table.validate(full=True)
            columns = ", ".join(table.schema.names)
        except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: names of columns that are not UTF-8
            raise no_index(name, f"it is no sound Parquet file ({str(error).partition(chr(10))[0]:.100})") from error
        if not table.schema.equals(ITEMS):
            raise no_index(name, f"its columns are {columns[:200]}, or of other types")
        if table.num_rows == 0:
            raise no_index(name, "it has no items")
        items = table.replace_schema_metadata(None).combine_chunks().to_batches()[0]
        longest = pc.max(pc.binary_length(items.column("item"))).as_py()
        if longest > MAX_NAME_BYTES:
            raise no_index(name, f"the name of an item has {longest} bytes, at most {MAX_NAME_BYTES} are allowed")
        return cls(items, about)


def _about(metadata: dict[bytes, bytes] | None, name: str) -> tuple[tuple[str, str], ...]:
    try:
        about: dict[str, Any] = json.loads((metadata or {})[KEY])
        version = about["version"]
        inputs = tuple((str(set_name), str(sha256)) for set_name, sha256 in about["inputs"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise no_index(name, f"its metadata do not say so ({type(error).__name__})") from error
    if version != VERSION:
        raise no_index(name, f"it is of version {version!r:.40}, here it is {VERSION}")
    return inputs


def _check_size(file: pq.ParquetFile, name: str) -> None:
    """Refuse what would not fit into memory before it is decompressed."""
    size = sum(file.metadata.row_group(place).total_byte_size for place in range(file.metadata.num_row_groups))
    if file.metadata.num_rows > MAX_ITEMS or size > MAX_TEXT_BYTES:
        raise no_index(name, f"{file.metadata.num_rows} items of {size} bytes are more than it may have")


def no_index(name: str, cause: str) -> HeadraceError:
    """Return the error for a file that is no index."""
    return HeadraceError(f"{name}: is no contamination index: {cause}\nhint: run headrace contamination-index")
