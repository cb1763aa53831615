"""Works: the pieces of a stage as plain data, each of which commits itself; and how a worker does some of them.

This is all that engines hand to their workers. A work can be pickled, done twice, or done at once by two workers: what
it makes depends on it alone, and the first commit stands.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa
import xxhash

from pipelines.commit import Commit, CommittedTable
from pipelines.engines.grouping import Bucket, reduce_bucket, scatter
from pipelines.engines.mapping import map_split
from pipelines.errors import HeadraceError
from pipelines.sinks.tables import read_table
from pipelines.sources.source import BatchLimits, Split
from pipelines.stage import GroupStage, MapStage, Side
from pipelines.storage.local import explain_os_error
from pipelines.storage.storage import Storage

RANK_BYTES, LEAST_BYTES = 1 << 20, 1 << 16
"""Input that makes a rank, and what a work counts at least. Handing a rank out costs about 10 ms: small works share."""


class Work(Protocol):
    """One piece of a stage, which commits itself; its text names it."""

    @property
    def num_bytes(self) -> int:
        """How much it has to read, about."""
        ...

    def __call__(self) -> Commit:
        """Carry it out."""
        ...


Rank = list[tuple[str, Work]]
"""Works that are done one after the other by one worker, each with the id of its commit."""


@dataclasses.dataclass(frozen=True, slots=True)
class MapWork:
    """One split of a map stage."""

    stage: MapStage
    split: Split
    split_id: str
    sides: tuple[CommittedTable, ...]
    output: Storage
    limits: BatchLimits

    def __call__(self) -> Commit:
        """Read the side tables of this split and carry it out."""
        pairs = zip(self.stage.side, self.sides, strict=True)
        tables = {side.given.table: read_side(side, given) for side, given in pairs}
        return map_split(self.stage, self.split, self.split_id, self.output, tables, self.limits)

    @property
    def num_bytes(self) -> int:
        """The size of the split's files."""
        return sum(file.size for file in self.split.files)

    def __str__(self) -> str:
        """Name the split."""
        return f"{self.stage.name}: {self.split}"


@dataclasses.dataclass(frozen=True, slots=True)
class ScatterWork:
    """One commit of an input of a group stage."""

    stage: GroupStage
    given: CommittedTable
    commit: Commit
    split_id: str
    output: Storage
    limits: BatchLimits

    def __call__(self) -> Commit:
        """Scatter it into buckets."""
        files = self.given.files_of(self.commit)
        return scatter(self.stage, files, self.given.storage, self.split_id, self.output, self.limits)

    @property
    def num_bytes(self) -> int:
        """The size of the commit's files."""
        return sum(file.size for file in self.given.files_of(self.commit))

    def __str__(self) -> str:
        """Name the input."""
        return f"{self.stage.name}: {self.commit.label}"


@dataclasses.dataclass(frozen=True, slots=True)
class ReduceWork:
    """One bucket of a group stage."""

    stage: GroupStage
    bucket: Bucket
    split_id: str
    output: Storage
    limits: BatchLimits

    def __call__(self) -> Commit:
        """Reduce the bucket."""
        return reduce_bucket(self.stage, self.bucket, self.split_id, self.output, self.limits)

    @property
    def num_bytes(self) -> int:
        """The bucket's share of the files that its rows are scattered over."""
        return sum(file.size for file in self.bucket.files) // self.bucket.of

    def __str__(self) -> str:
        """Name the bucket."""
        return f"{self.stage.name}: {self.bucket.label}"


@dataclasses.dataclass(slots=True)
class Outcome:
    """What became of a rank: the commits that stand, and the error that ended it early."""

    commits: list[tuple[str, Commit]]
    error: HeadraceError | None = None


def do_rank(rank: Rank) -> Outcome:
    """Do a rank's works in order, up to the first that fails.

    It raises nothing (but a Ctrl-C), so that an engine repeats what a dead worker left and not what is wrong: a panic
    of a native library is no `Exception`, and an error with all its variables is no message.
    """
    outcome = Outcome([])
    for split_id, work in rank:
        try:
            outcome.commits.append((split_id, work()))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: a library that leaves must not end the run as if all well
            outcome.error = explained(error, work)
            break
    return outcome


def explained(error: BaseException, work: object) -> HeadraceError:
    """Return an error that names the work and can be pickled (one that cannot would break a pool of workers)."""
    if isinstance(error, HeadraceError):
        return type(error)(f"{work}: {error}")
    if isinstance(error, OSError) and error.errno is not None:
        if error.filename is None:  # a write to an open file; writes alone do not know their path
            return explain_os_error(error, str(work))
        return HeadraceError(
            f"{work}: {error.filename}: {error.strerror}\nhint: check that this file is there, and run again"
        )
    where = "".join(traceback.format_exception(error, limit=-3))
    return HeadraceError(f"{work}: {type(error).__name__}: {error}\n{where}")


def cut_into_ranks(works: Sequence[tuple[str, Work]]) -> Iterator[Rank]:
    """Cut the works, in order, into ranks of about `RANK_BYTES`."""
    rank: Rank = []
    size = 0
    for split_id, work in works:
        rank.append((split_id, work))
        size += max(work.num_bytes, LEAST_BYTES)
        if size >= RANK_BYTES:
            yield rank
            rank, size = [], 0
    if rank:
        yield rank


def side_of_split(stage: MapStage, sides: Sequence[CommittedTable], label: str) -> tuple[CommittedTable, ...]:
    """Return the side tables cut down to what a split of this label reads.

    Raises `HeadraceError` where a bucketed table has no such bucket: it was cut into another number of them.
    """
    own = []
    for side, given in zip(stage.side, sides, strict=True):
        commits = tuple(commit for commit in given.commits if not side.bucketed or commit.label == label)
        if side.bucketed and not commits:
            raise HeadraceError(
                f"stage {stage.name}: side table {given.table} has no {label}\nhint: cut both into as many buckets"
            )
        own.append(dataclasses.replace(given, commits=commits))
    return tuple(own)


def map_id(split: Split, sides: Sequence[CommittedTable]) -> str:
    """Return the id of a split's commit: that of the split, and of the side tables that it reads if there are any."""
    if not sides:
        return split.id
    return xxhash.xxh3_128_hexdigest("\x00".join([split.id, *(file.path for side in sides for file in side.files())]))


def read_side(side: Side, given: CommittedTable) -> pa.Table:
    """Read a side table whole."""
    tables = [read_table(given.storage, file.path).cast(side.schema) for file in given.files()]
    return pa.concat_tables([side.schema.empty_table(), *tables]).combine_chunks()
