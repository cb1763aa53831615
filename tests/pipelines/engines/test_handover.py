"""Ranks by way of the output: only the driver's are loaded, errors come back, what is committed is not redone."""

from __future__ import annotations

import json
import pickle

import pytest

from pipelines.commit import Commit, make_commit
from pipelines.engines.engine import Progress
from pipelines.engines.handover import RANKS_IN_A_FILE, Handover, _read_ranks
from pipelines.errors import HeadraceError, LedgerImbalance, WorkerDied
from pipelines.storage.local import LocalStorage

FOLDER = "stages/1-read"


class Commits:
    """A work that commits itself, counting how often it is done."""

    num_bytes = 1

    def __init__(self, storage, name, error=None):
        self._storage, self._name, self._error = storage, name, error

    def __call__(self):
        log = self._storage.root.parent / "done"
        log.write_text((log.read_text() if log.exists() else "") + f"{self._name}\n")
        if self._error is not None:
            raise self._error
        return make_commit(self._storage, FOLDER, Commit(self._name, self._name, (), ()))

    def __str__(self):
        return f"work {self._name}"


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path / "out")


def handed(storage, works):
    progress = Progress(FOLDER, "1-read", [name for name, _ in works], 0, storage, lambda *_: None)
    return Handover.of([[work] for work in works], progress), progress


def done(storage):
    return (storage.root.parent / "done").read_text().split()


def test_every_rank_is_done_by_its_number_and_committed_ones_are_not_done_again(storage):
    names = [f"{number:03d}" for number in range(RANKS_IN_A_FILE + 2)]
    handover, progress = handed(storage, [(name, Commits(storage, name)) for name in names])
    copy = pickle.loads(pickle.dumps(handover))
    for number in (0, RANKS_IN_A_FILE + 1, 1, 0):
        copy.do(number)
    assert done(storage) == ["000", names[-1], "001"]
    with pytest.raises(WorkerDied, match=f"gone; {len(names) - 3} of {len(names)} pieces"):
        handover.check_done(progress, "gone", "look")
    handover.clear()
    assert not list(storage.list(f"{FOLDER}/handover"))


def test_an_error_comes_back_as_what_it_was(storage):
    handover, progress = handed(
        storage, [("a", Commits(storage, "a")), ("b", Commits(storage, "b", LedgerImbalance("lost\nhint: find it")))]
    )
    handover.do(0)
    handover.do(1)
    with pytest.raises(LedgerImbalance, match="work b: lost\nhint: find it"):
        handover.check_done(progress, "gone", "look")


def test_an_error_of_a_class_that_there_is_none_of_is_still_one(storage):
    handover, _ = handed(storage, [("a", Commits(storage, "a"))])
    storage.replace(
        f"{handover.folder}/failed/00000000.json", json.dumps({"error": "os.system", "message": "x"}).encode()
    )
    with pytest.raises(HeadraceError, match="x") as raised:
        handover.raise_failure()
    assert type(raised.value) is HeadraceError


def test_ranks_that_somebody_else_wrote_are_not_loaded(storage):
    handover, _ = handed(storage, [("a", Commits(storage, "a"))])
    _read_ranks.cache_clear()
    storage.replace(f"{handover.folder}/0.pickle", pickle.dumps([[("a", Commits(storage, "other"))]]))
    with pytest.raises(HeadraceError, match="was changed after it was written"):
        handover.do(0)
    assert not (storage.root.parent / "done").exists()


def test_a_worker_that_does_not_see_the_output_says_so(storage):
    handover, _ = handed(storage, [("a", Commits(storage, "a"))])
    _read_ranks.cache_clear()
    handover.clear()
    with pytest.raises(HeadraceError, match=r"cannot be read by a worker .*\nhint: --output must be a folder"):
        handover.do(0)
