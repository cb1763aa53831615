"""From an address to its storage: a path, `s3://bucket/prefix`, or (to read) `https://host/prefix`."""

from __future__ import annotations

import re
from pathlib import Path

from pipelines.errors import OutputError
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import ReadStorage, Storage

SCHEMES = ("s3", "https", "http")


def scheme_of(address: str) -> str:
    """Return the scheme of an address; "" for a path."""
    scheme, separator, _ = address.partition("://")
    return scheme if separator and scheme in SCHEMES else ""


def open_storage(address: str) -> ReadStorage:
    """Return the storage to read from at an address. Raises `HeadraceError` for a URL that is none."""
    if scheme_of(address) in ("https", "http"):
        from pipelines.storage.https import HttpsStorage

        return HttpsStorage.from_url(address)
    return open_output(address)


def open_output(address: str) -> Storage:
    """Return the storage to write to at an address: a folder or S3. Raises `OutputError` for what is only read."""
    scheme = scheme_of(address)
    if not scheme and (found := re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", address)):
        raise OutputError(
            f"{address}: {found[0]}... is no address that is known\n"
            "hint: write a path, s3://BUCKET/PREFIX, or (to read) https://HOST/PATH"
        )
    if scheme == "s3":
        from pipelines.storage.s3 import S3Storage

        return S3Storage.from_url(address)
    if scheme:
        raise OutputError(f"{address}: cannot be written to\nhint: give a folder or s3://BUCKET/PREFIX as --output")
    return LocalStorage(Path(address).absolute())
