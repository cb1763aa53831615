"""What all engines have from `Engine`, shown on engines that do less than they should."""

from __future__ import annotations

import pytest
from made import made_recipe
from runs import run_recipe
from trees import tree_hashes

from pipelines.engines.datatrove import DatatroveEngine
from pipelines.engines.engine import DEFAULT_LIMITS, Engine
from pipelines.engines.registry import ENGINES, make_engine
from pipelines.engines.works import Outcome, do_rank
from pipelines.errors import HeadraceError, WorkerDied
from pipelines.recipe import ENGINES as NAMES


class Silent(Engine):
    """Does the ranks, of each only so many works, and says nothing of it."""

    name = "silent"
    limits = DEFAULT_LIMITS

    def __init__(self, most=None):
        self._most = most

    def __exit__(self, *error):
        pass

    def run_ranks(self, ranks, progress):
        for rank in ranks:
            assert do_rank(rank[: self._most]).error is None
        return iter(())


def test_commits_of_which_no_worker_tells_are_found(tmp_path):
    recipe = made_recipe(tmp_path)
    silent = run_recipe(recipe, tmp_path / "silent", engine=Silent())
    plain = run_recipe(recipe, tmp_path / "plain")
    assert tree_hashes(tmp_path / "silent") == tree_hashes(tmp_path / "plain")
    assert (silent.num_done, silent.num_found) == (plain.num_done, plain.num_found)


def test_works_that_no_worker_did_fail_the_run_and_a_rerun_does_them(tmp_path):
    recipe = made_recipe(tmp_path)
    with pytest.raises(
        WorkerDied, match=r"stage 1-read: .* left \d of \d pieces undone\nhint: run the same command again"
    ):
        run_recipe(recipe, tmp_path / "out", engine=Silent(1))
    again = run_recipe(recipe, tmp_path / "out")
    assert again.num_found == 1
    run_recipe(recipe, tmp_path / "plain")
    assert tree_hashes(tmp_path / "out") == tree_hashes(tmp_path / "plain")


def test_an_outcome_without_works_is_no_success(tmp_path):
    class Deaf(Silent):
        def run_ranks(self, ranks, progress):
            yield from (Outcome([]) for _ in ranks)

    with pytest.raises(WorkerDied, match="pieces undone"):
        run_recipe(made_recipe(tmp_path), tmp_path / "out", engine=Deaf())


def test_a_file_of_another_size_is_made_again(tmp_path):
    """What an interrupted copy of an output leaves."""
    recipe, output = made_recipe(tmp_path), tmp_path / "out"
    run_recipe(recipe, output)
    before = tree_hashes(output)
    shard = next(output.rglob("*.bin"))
    shard.write_bytes(shard.read_bytes()[:10])
    again = run_recipe(recipe, output)
    assert again.num_done == 1
    assert tree_hashes(output) == before


def test_workers_that_write_elsewhere_are_noticed(tmp_path):
    """As on a machine that does not share the output: its commits come back, and are not there."""

    class Elsewhere(Silent):
        def run_ranks(self, ranks, progress):
            for rank in ranks:
                yield do_rank(rank)
            progress.output.delete(f"{progress.folder}/commits")

    with pytest.raises(HeadraceError, match="commits of stage 1-read .* are not there\nhint: --output must be"):
        run_recipe(made_recipe(tmp_path), tmp_path / "out", engine=Elsewhere())


def test_every_name_of_a_recipe_is_an_engine():
    assert tuple(ENGINES) == NAMES


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setitem(ENGINES, "spark", ("sparkless", "SparkEngine", "spark"))
    with pytest.raises(
        HeadraceError, match=r"engine spark: package sparkless is not installed\nhint: pip install .*\[spark\]"
    ):
        make_engine("spark", 1, {})


def test_the_embedded_engine_takes_no_options():
    with pytest.raises(HeadraceError, match="takes no option a, b"):
        DatatroveEngine(1, {"a": "1", "b": "2"})
