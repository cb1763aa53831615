"""Reading a source whole, with what must hold for every reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.schema import CORE
from pipelines.sources.source import BatchLimits, RawAccount, Source
from pipelines.storage.local import LocalStorage

ReadAll = Callable[..., tuple[list[dict], list[RawAccount]]]


def _read_all(source: Source, root: Path, limits: BatchLimits | None = None) -> tuple[list[dict], list[RawAccount]]:
    storage = LocalStorage(root)
    rows: list[dict] = []
    accounts = []
    for split in source.splits(storage):
        account, before = RawAccount(), len(rows)
        for batch in source.read(split, storage, limits or BatchLimits(), account):
            assert batch.schema == pa.schema([*CORE, *source.adds])
            batch.validate(full=True)
            rows += batch.to_pylist()
        assert account.seen == len(rows) - before
        assert account.size == account.records + sum(num_bytes for _, num_bytes in account.gaps.values())
        accounts.append(account)
    return rows, accounts


@pytest.fixture(scope="session")
def read_all() -> ReadAll:
    """Read every split and check the schema, the rows seen and the balance of bytes; rows and accounts."""
    return _read_all
