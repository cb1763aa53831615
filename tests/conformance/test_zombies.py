"""Law 4: an attempt that everybody has given up, and that finishes late, changes nothing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from engine_runs import ENGINES, counts, start
from mortal_storage import MortalStorage
from runs import SHARED, plan_of, tiny_recipe
from trees import tree_hashes

from pipelines.engines.engine import DEFAULT_LIMITS
from pipelines.engines.works import MapWork, do_rank
from pipelines.run import list_splits
from pipelines.stage import MapStage
from pipelines.storage.local import LocalStorage

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")

WHOLE = {"datatrove": ("datatrove", "--workers", "1"), "spark": ENGINES["spark"]}


def start_zombie(recipe: Path, output: Path, moment: str) -> int:
    """Fork a worker that reads the first split and stops itself at a moment of its writing; returns its process."""
    marks = output.with_name("moments")
    marks.mkdir()
    child = os.fork()
    if child == 0:
        storage = MortalStorage(output, marks, (moment,), signal.SIGSTOP)
        stage = plan_of(recipe, storage).stages[0]
        assert isinstance(stage, MapStage)
        split = list_splits(plan_of(recipe, storage))["web"][0]
        outcome = do_rank([(split.id, MapWork(stage, split, split.id, (), storage, DEFAULT_LIMITS))])
        os._exit(0 if outcome.error is None else 7)
    deadline = time.monotonic() + 60
    while not any(marks.iterdir()) or Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, "the worker has not come to that moment"
        time.sleep(0.05)
    return child


@pytest.mark.parametrize("engine", [*WHOLE.keys()])
@pytest.mark.parametrize(
    ("moment", "status"),
    [
        ("commit stages/1-read before", 0),  # all of its files are published, and swept by the run if not its own
        ("publish stages/1-read/documents before", 7),  # its attempt is swept
    ],
)
def test_an_attempt_that_finishes_late(engine, moment, status, tmp_path):
    recipe, output = tiny_recipe(tmp_path), tmp_path / "out"
    counts(start(recipe, tmp_path / "plain", "datatrove", "--workers", "1"))
    zombie = start_zombie(recipe, output, moment)
    if moment.startswith("publish"):
        assert not list(LocalStorage(output).list("stages/1-read/commits"))
    # an output that holds anything belongs to a run: begin as the zombie's driver had begun
    (output / "recipe.json").write_bytes((tmp_path / "plain/recipe.json").read_bytes())
    counts(start(recipe, output, *WHOLE[engine]))
    assert tree_hashes(output) == tree_hashes(tmp_path / "plain")
    os.kill(zombie, signal.SIGCONT)
    _, ended = os.waitpid(zombie, 0)
    assert os.waitstatus_to_exitcode(ended) == status
    late = {path: content for path, content in tree_hashes(output).items() if not path.startswith(".attempts/")}
    assert late == tree_hashes(tmp_path / "plain")
    again = counts(start(recipe, output, *WHOLE["datatrove"]))
    assert again["done"] == 0
    assert tree_hashes(output) == tree_hashes(tmp_path / "plain")
