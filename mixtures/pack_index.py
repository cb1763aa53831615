"""The pack index: how many sequences each window of a manifest makes at a length, as a table of one row a window.

A lengths-only job over `.idx` and `.docs.parquet`, in local processes. A unit of work is the windows that begin in one
shard; finished units lie in `parts/` beside the index and are found by the next run. The index is named by all that its
numbers follow from (`PackKey`), so it is made once, whatever mixtures use it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixtures.documents import Documents
from mixtures.errors import MixtureError, PlanError
from mixtures.holdout import Validation
from mixtures.packing import PACKING_VERSION, count_sequences_of_windows, window_bounds
from mixtures.plan import Cut, Dropped, Packed
from tokenizer.columns import one_chunk, running_total
from tokenizer.manifest import Manifest
from tokenizer.shards import loss_spans
from tokenizer.whole_file import whole_file

_PACKED = ("documents", "tokens", "targets", "cut", "sequences")

INDEX = pa.schema(
    [
        *(pa.field(name, pa.uint32() if name != "tokens" and name != "targets" else pa.uint64()) for name in _PACKED),
        *(
            pa.field(f"held_out_{name}", pa.uint32() if name not in ("tokens", "targets") else pa.uint64())
            for name in _PACKED
        ),
        pa.field("too_long_documents", pa.uint32()),
        pa.field("too_long_tokens", pa.uint64()),
    ]
)
"""A row a window, in order. The first five count what is packed for training, the next what is packed for validation
(held out); `too_long` documents are left out, because they may not be cut."""

KEY = b"headrace.pack"
"""The key of the Parquet metadata that holds the `PackKey` as JSON."""

TOO_LONG = "longer_than_sequence"
"""The reason for which a document leaves a phase."""

SMALL_JOB = 2_000_000
"""Documents below which starting processes takes longer than the work (half a second)."""


@dataclasses.dataclass(frozen=True, slots=True)
class PackKey:
    """All that a pack index follows from. `content_hash` names the tokens, `source` and `partition` whose they are."""

    source: str
    partition: dict[str, str | None]
    content_hash: str
    length: int
    reserved: int
    cut: Cut
    window_documents: int
    validation: Validation | None
    version: int = PACKING_VERSION

    def to_json(self) -> str:
        """Return the canonical text of the key."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @property
    def name(self) -> str:
        """The index's file name without its ending: readable, and distinct for distinct keys."""
        readable = "-".join([self.source, *(f"{column}={value}" for column, value in sorted(self.partition.items()))])
        readable = re.sub(r"[^A-Za-z0-9._=-]", "_", readable)[:80]
        digest = hashlib.blake2b(self.to_json().encode(), digest_size=8).hexdigest()
        return f"{readable}-{self.length}-{digest}"


@dataclasses.dataclass(frozen=True, slots=True)
class PackIndex:
    """A pack index that was read. `sequences`, `held_out_sequences`: int64, one a window."""

    path: Path
    sha256: str
    sequences: np.ndarray
    held_out_sequences: np.ndarray
    unique: Packed
    held_out: Packed
    too_long: Dropped

    @classmethod
    def load(cls, path: Path, key: PackKey) -> PackIndex:
        """Read an index. `PlanError` unless it is a sound one with this key."""
        try:
            table = pq.read_table(pa.BufferReader(path.read_bytes()))
        except (OSError, pa.ArrowException) as error:
            raise PlanError(f"{path}: cannot be read ({error})\nhint: make it anew with `headrace mix`") from error
        found = (table.schema.metadata or {}).get(KEY, b"").decode(errors="replace")
        if not table.schema.equals(INDEX) or found != key.to_json():
            raise PlanError(
                f"{path}: is no pack index of {key.to_json()} (it says {found!r:.300})\n"
                "hint: the manifest or the program has changed since: make the plan anew with `headrace mix`"
            )
        sums = {name: int(np.sum(table.column(name).to_numpy(), dtype=np.uint64)) for name in INDEX.names}
        return cls(
            path,
            _hash(table, key),
            table.column("sequences").to_numpy().astype(np.int64),
            table.column("held_out_sequences").to_numpy().astype(np.int64),
            Packed(*(sums[name] for name in _PACKED)),
            Packed(*(sums[f"held_out_{name}"] for name in _PACKED)),
            Dropped(sums["too_long_documents"], sums["too_long_tokens"]),
        )


def _hash(table: pa.Table, key: PackKey) -> str:
    """Return the sha256 of the key's text and of the columns as little-endian uint64: of the data, not of the file."""
    digest = hashlib.sha256(key.to_json().encode())
    for column in table.columns:
        digest.update(column.to_numpy().astype("<u8").tobytes())
    return digest.hexdigest()


def _find_index(path: Path, key: PackKey) -> PackIndex | None:
    """Return the index of this key, None where there is none or something else in its place, which is made anew."""
    try:
        return PackIndex.load(path, key)
    except PlanError:
        return None


def _is_part(path: Path) -> bool:
    """Whether a finished part lies there whole."""
    try:
        return bool(pq.read_schema(path).equals(INDEX))
    except (OSError, pa.ArrowException):
        return False


@dataclasses.dataclass(frozen=True, slots=True)
class _Unit:
    """The windows of a manifest that begin in one shard."""

    manifest: Path
    key: PackKey
    first_window: int
    last_window: int
    part: Path


def build_pack_indexes(
    jobs: Iterable[tuple[Path, PackKey]], folder: Path, workers: int, report: Callable[[int, int], None]
) -> list[PackIndex]:
    """Make the index of each (manifest, key) that is not in the folder yet, and return all.

    `report` is told the finished units and their number. Raises `MixtureError` when a process was killed; finished
    units stay.
    """
    jobs = list(jobs)
    found = [_find_index(folder / f"{key.name}.parquet", key) for _, key in jobs]
    missing = [job for job, index in zip(jobs, found, strict=True) if index is None]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        units = [unit for path, key in missing for unit in _units(path, key, folder)]
        _carry_out([unit for unit in units if not _is_part(unit.part)], len(units), workers, report)
        for path, key in missing:
            _join(path, key, folder)
    except OSError as error:
        said = error.strerror or str(error)
        raise MixtureError(f"{error.filename or folder}: {said}\nhint: free or name another place") from error
    return [
        index or PackIndex.load(folder / f"{key.name}.parquet", key)
        for (_, key), index in zip(jobs, found, strict=True)
    ]


def _units(path: Path, key: PackKey, folder: Path) -> Iterator[_Unit]:
    documents = _open_documents(path, key.content_hash)
    starts = window_bounds(len(documents), key.window_documents)[:-1]
    places = np.searchsorted(starts, documents.bounds)
    for shard, (first, last) in enumerate(zip(places, places[1:], strict=False)):
        if last > first:
            part = folder / "parts" / key.name / f"{shard:06d}.parquet"
            yield _Unit(path, key, int(first), int(last), part)


@functools.lru_cache(maxsize=16)
def _open_documents(path: Path, content_hash: str) -> Documents:
    """Open a manifest's documents, once in a process; `PlanError` where it is no longer the one that is planned."""
    manifest = Manifest.load(path)
    if manifest.content_hash != content_hash:
        raise PlanError(f"{path}: has changed while it was planned\nhint: run the same command again")
    return Documents(manifest)


def _carry_out(units: list[_Unit], total: int, workers: int, report: Callable[[int, int], None]) -> None:
    found = total - len(units)
    report(found, total)
    manifests = {(unit.manifest, unit.key.content_hash) for unit in units}
    documents = sum(len(_open_documents(*manifest)) for manifest in manifests)
    if workers == 1 or documents < SMALL_JOB or len(units) == 1:
        for done, unit in enumerate(units, found + 1):
            _pack_unit(unit)
            report(done, total)
        return
    try:
        with ProcessPoolExecutor(min(workers, len(units)), mp_context=get_context("spawn")) as pool:
            for done, _ in enumerate(pool.map(_pack_unit, units), found + 1):
                report(done, total)
    except BrokenProcessPool as error:
        raise MixtureError(
            "a process of the packing was killed\nhint: run the same command again, it goes on from what was finished"
        ) from error


def _pack_unit(unit: _Unit) -> None:
    """Count the windows of a unit and publish its part."""
    documents = _open_documents(unit.manifest, unit.key.content_hash)
    bounds = window_bounds(len(documents), unit.key.window_documents)[unit.first_window : unit.last_window + 1]
    parts = [_count_windows(documents, bounds[k : k + 65], unit.key) for k in range(0, len(bounds) - 1, 64)]
    _publish(pa.concat_tables(parts), unit.part)


def _count_windows(documents: Documents, bounds: np.ndarray, key: PackKey) -> pa.Table:
    """Return the rows of some consecutive windows, whose documents are between the bounds."""
    first, last = int(bounds[0]), int(bounds[-1])
    lengths = documents.lengths(first, last)
    rows = documents.read(first, last, [*(key.validation.columns if key.validation else ()), "loss"])
    held_out = key.validation.held_out(rows) if key.validation else np.zeros(len(lengths), np.bool_)
    long = (lengths.astype(np.int64) + key.reserved) > key.length
    too_long = long & (key.cut == "never")
    targets = count_targets(rows.column("loss"), lengths)
    columns: list[np.ndarray] = []
    for chosen in (~held_out & ~too_long, held_out & ~too_long):
        counts = (chosen, lengths * chosen, targets * chosen, long & chosen)
        columns += [_window_sums(values, bounds - first) for values in counts]
        inside = running_total(chosen)[bounds - first]
        of_windows = (lengths[chosen], inside, key.length, key.reserved, key.cut == "long")
        columns.append(count_sequences_of_windows(*of_windows))
    columns += [_window_sums(too_long, bounds - first), _window_sums(lengths * too_long, bounds - first)]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, INDEX, strict=True)]
    return pa.Table.from_arrays(arrays, schema=INDEX)


def _window_sums(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    return np.diff(running_total(values.astype(np.int64))[bounds])


def count_targets(loss: pa.ChunkedArray, lengths: np.ndarray) -> np.ndarray:
    """Return how many tokens of each document a label asks for with a weight above zero (int64).

    The first token of a document is nobody's next one; `loss` null means all others.
    """
    plain, (offsets, starts, ends, _) = loss_spans(one_chunk(loss))
    bearing = np.maximum(ends.astype(np.int64) - np.maximum(starts, 1), 0)
    return np.where(plain, lengths.astype(np.int64) - 1, np.diff(running_total(bearing)[offsets]))


def _join(path: Path, key: PackKey, folder: Path) -> None:
    """Put the parts of an index together, in order, and remove them."""
    parts = [pq.read_table(unit.part) for unit in _units(path, key, folder)]
    table = pa.concat_tables([INDEX.empty_table(), *parts]).combine_chunks()
    _publish(table.replace_schema_metadata({KEY: key.to_json()}), folder / f"{key.name}.parquet")
    shutil.rmtree(folder / "parts" / key.name, ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / "parts").rmdir()


def _publish(table: pa.Table, path: Path) -> None:
    """Write a table: it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as attempt:
        pq.write_table(table, attempt, compression="zstd", version="2.6")
