"""Ranks handed to workers by way of the output storage, and their errors brought back the same way.

For engines whose workers share nothing with the driver but that storage (Beam, Slurm): a worker gets a `Handover` and
the number of a rank. Ranks lie in files of `RANKS_IN_A_FILE`, so that a stage, which all its works name, is written
once for many of them; as elements of a pipeline 100,000 ranks would be some hundred megabytes, more than Dataflow
takes.

A pickle is code. A worker loads a file only if its SHA-256 is the one that came with the handover itself, so that who
can write to the output can run nothing on the workers. Errors come back as JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Iterator, Sequence
from functools import lru_cache

from pipelines.commit import commit_path
from pipelines.engines.engine import Progress
from pipelines.engines.works import Rank, do_rank
from pipelines.errors import HeadraceError, WorkerDied
from pipelines.storage.storage import Storage

RANKS_IN_A_FILE = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Handover:
    """The ranks of one call of `run_ranks`. Plain data that can be pickled, small whatever the number of ranks."""

    output: Storage
    stage_folder: str
    folder: str
    """Where ranks and errors lie, below the stage's folder: a name of its own, so that no earlier call's are found."""
    num_ranks: int
    digests: tuple[str, ...]
    """SHA-256 of the files of ranks, in order."""

    @classmethod
    def of(cls, ranks: Sequence[Rank], progress: Progress) -> Handover:
        """Write the ranks into the output of a stage's progress."""
        output = progress.output
        folder = f"{progress.folder}/handover/{output.new_attempt()}"
        digests: list[str] = []
        for start in range(0, len(ranks), RANKS_IN_A_FILE):
            content = pickle.dumps(ranks[start : start + RANKS_IN_A_FILE])
            output.replace(f"{folder}/{len(digests)}.pickle", content)
            digests.append(hashlib.sha256(content).hexdigest())
        return cls(output, progress.folder, folder, len(ranks), tuple(digests))

    def do(self, number: int) -> None:
        """Do the works of a rank that no other attempt has committed; an error of theirs is written down, not raised.

        Raises `HeadraceError` where the ranks cannot be read: this worker does not see the driver's output.
        """
        place, index = divmod(number, RANKS_IN_A_FILE)
        rank = _read_ranks(self, place)[index]
        left = [(split_id, work) for split_id, work in rank if not self._is_committed(split_id)]
        outcome = do_rank(left)
        if outcome.error is not None and self.output.exists(self._ranks_path(place)):  # the driver still wants to know
            error = {"error": type(outcome.error).__name__, "message": str(outcome.error)}
            self.output.replace(f"{self.folder}/failed/{number:08d}.json", json.dumps(error).encode())

    def raise_failure(self) -> None:
        """Raise the error of the first rank that failed, if any did, as what it was."""
        for file in sorted(self.output.list(f"{self.folder}/failed"))[:1]:
            record = json.loads(self.output.read(file.path))
            kind = next((kind for kind in _kinds(HeadraceError) if kind.__name__ == record["error"]), HeadraceError)
            raise kind(record["message"])

    def check_done(self, progress: Progress, problem: str, remedy: str) -> None:
        """Raise the error of a rank, or `WorkerDied` with the problem where works are neither committed nor failed."""
        self.raise_failure()
        num_missing = len(progress.wanted) - progress.look()
        if num_missing:
            raise WorkerDied(
                f"stage {progress.what}: {problem}; {num_missing} of {len(progress.wanted)} pieces of work are undone\n"
                f"hint: run the same command again, it goes on; {remedy}"
            )

    def clear(self) -> None:
        """Delete ranks and errors; workers that are late say nothing more."""
        self.output.delete(self.folder)

    def _ranks_path(self, place: int) -> str:
        return f"{self.folder}/{place}.pickle"

    def _is_committed(self, split_id: str) -> bool:
        return self.output.exists(commit_path(self.stage_folder, split_id))


@lru_cache(maxsize=2)
def _read_ranks(handover: Handover, place: int) -> list[Rank]:
    path = handover._ranks_path(place)
    try:
        content = handover.output.read(path)
    except OSError as error:
        raise HeadraceError(
            f"{handover.output.url}/{path}: cannot be read by a worker ({error})\n"
            "hint: --output must be a folder that all workers share at the same path, or on S3"
        ) from error
    if hashlib.sha256(content).hexdigest() != handover.digests[place]:
        raise HeadraceError(
            f"{handover.output.url}/{path}: was changed after it was written\nhint: see who else writes to the output"
        )
    ranks: list[Rank] = pickle.loads(content)
    return ranks


def _kinds(cls: type[HeadraceError]) -> Iterator[type[HeadraceError]]:
    """Yield a class of error and all below it."""
    yield cls
    for below in cls.__subclasses__():
        yield from _kinds(below)
