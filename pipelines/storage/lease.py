"""Leases: how a run holds an output on an object store, which has no locks that end with their holder.

A claim is an object that its holder writes anew every third of a lease. Who finds one watches it for a lease, on its
own clock alone, and takes it over, on the condition that it still has the same ETag, only if it did not change: no
clocks of different machines are ever compared. Data does not depend on claims (commits are conditional); they keep
runs from sweeping each other's files.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from pipelines.errors import HeadraceError, OutputError

CLAIMS = ".claims"
"""The storage's own folder: in no list."""
RUN, PART = "run", "part-"
"""Names of claims in it: the one that is held alone, and the beginning of those that are shared."""


class LeasedStorage(Protocol):
    """What claims need of a storage: conditional puts."""

    @property
    def url(self) -> str:
        """Where the root is."""
        ...

    @property
    def lease_seconds(self) -> float:
        """How long a claim lives that is not written anew."""
        ...

    def put(self, path: str, record: bytes, **condition: str) -> str | None:
        """Write an object and return its ETag; None where the condition (IfMatch, IfNoneMatch) does not hold."""
        ...

    def read_tagged(self, path: str) -> tuple[bytes, str]:
        """Return an object's bytes and their ETag. Raises `FileNotFoundError`."""
        ...

    def delete(self, path: str) -> None:
        """Delete an object."""
        ...

    def claims(self) -> dict[str, str]:
        """Return the ETag of every claim by its name."""
        ...


class Claim:
    """An object that is ours as long as it has the ETag of our last write."""

    def __init__(self, storage: LeasedStorage, name: str) -> None:
        """Take nothing yet."""
        self._storage, self._path = storage, f"{CLAIMS}/{name}"
        self._holder = uuid.uuid4().hex
        self._writes = 0
        self._etag: str | None = None
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name=f"claim {self._path}", daemon=True)

    def take(self, dead: str | None) -> None:
        """Create the claim, or take over one whose ETag still is `dead`; then keep it."""
        if not self._write(**({"IfNoneMatch": "*"} if dead is None else {"IfMatch": dead})):
            raise _taken(self._storage)
        self._renewing.start()

    def release(self) -> None:
        """Delete the claim. Raises `OutputError` if it was lost meanwhile."""
        self._ended.set()
        self._renewing.join()
        # a last renewal makes sure that what is deleted is ours
        if self._etag is None or not self._write(IfMatch=self._etag):
            raise OutputError(
                f"{self._storage.url}: was out of reach for longer than {self._storage.lease_seconds:g} s, "
                "and another run took it over\nhint: wait for that one, then run again: what is committed stands"
            )
        self._storage.delete(self._path)

    def _renew(self) -> None:
        while self._etag is not None and not self._ended.wait(self._storage.lease_seconds / 3):
            with suppress(HeadraceError):  # out of reach: the next write tells whether it is still ours
                self._write(IfMatch=self._etag)

    def _write(self, **condition: str) -> bool:
        """Write the claim with a body that was never there before; whether it is ours now."""
        self._writes += 1
        body = f"{self._holder} {self._writes}\n".encode()
        etag = self._storage.put(self._path, body, **condition)
        if etag is None:  # or had an earlier write arrived, and only its answer was lost?
            with suppress(FileNotFoundError):
                standing, standing_etag = self._storage.read_tagged(self._path)
                etag = standing_etag if standing.startswith(self._holder.encode()) else None
        self._etag = etag
        return etag is not None


@contextmanager
def held(storage: LeasedStorage, name: str, dead: str | None = None) -> Iterator[None]:
    """Hold a claim as long as the context lasts; `dead` is the ETag of a claim to take over."""
    claim = Claim(storage, name)
    claim.take(dead)
    try:
        yield
    except BaseException:
        with suppress(HeadraceError):
            claim.release()
        raise
    claim.release()


def dead_claims(storage: LeasedStorage, kind: str) -> dict[str, str]:
    """Watch the claims whose names begin with `kind`; return those that do not change for a lease, with their ETags.

    Raises `OutputError` as soon as one changes: its holder lives. Those that vanish are forgotten.
    """
    watched = {name: etag for name, etag in storage.claims().items() if name.startswith(kind)}
    stop = time.monotonic() + storage.lease_seconds
    while watched and time.monotonic() < stop:
        time.sleep(storage.lease_seconds / 10)
        now = storage.claims()
        if any(now.get(name, etag) != etag for name, etag in watched.items()):
            raise _taken(storage)
        watched = {name: etag for name, etag in watched.items() if name in now}
    return watched


def _taken(storage: LeasedStorage) -> OutputError:
    return OutputError(
        f"{storage.url}: another run is at work in this folder\nhint: wait for it, or choose another --output"
    )
