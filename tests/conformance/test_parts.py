"""`--part K/N`: parts that run at once, on any engine, and a whole run that finds them done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made import made_recipe
from runs import REPOSITORY, SHARED, plan_of, run_recipe
from trees import tree_hashes

from pipelines import run
from pipelines.engines.datatrove import DatatroveEngine
from pipelines.errors import OutputError
from pipelines.run import Part, claimed, run_part
from pipelines.storage.local import LocalStorage


def start_part(recipe: Path, output: Path, part: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "headrace_main", "run", recipe, "--output", output, "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/support'}"}
    return subprocess.Popen(
        [*map(str, command), "--part", part],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")
def test_parts_at_once_and_then_the_whole(recipe, reference, tmp_path):
    expected, result = reference
    parts = [start_part(recipe, tmp_path / "out", f"{number}/3") for number in (1, 2, 3)]
    said = [part.communicate(timeout=300)[0] for part in parts]
    assert [part.returncode for part in parts] == [0, 0, 0], said
    assert all("0 found committed; when all parts are done, run the recipe without --part" in one for one in said)
    whole = run_recipe(recipe, tmp_path / "out")
    assert whole.stages["1-read"].num_done == 0
    assert whole.num_done + whole.num_found == result.num_done
    assert tree_hashes(tmp_path / "out") == tree_hashes(expected)


def do_part(recipe: Path, output: Path, part: str) -> int:
    storage = LocalStorage(output)
    with DatatroveEngine(1) as engine:
        return run_part(plan_of(recipe, storage), storage, engine, lambda *_: None, Part.parse(part)).num_done


def test_a_part_leaves_the_others_alone_and_is_not_done_twice(tmp_path):
    recipe, output = made_recipe(tmp_path), tmp_path / "out"
    done = [do_part(recipe, output, part) for part in ("1/2", "2/2", "1/2", "1/1")]
    whole = run_recipe(recipe, output)
    assert done == [*done[:2], 0, 0]
    assert sum(done) == whole.stages["1-read"].num_found > 1
    assert whole.stages["1-read"].num_done == 0
    run_recipe(recipe, tmp_path / "plain")
    assert tree_hashes(output) == tree_hashes(tmp_path / "plain")
    assert do_part(recipe, output, "1/2") == 0, "of a finished run nothing is left"
    assert tree_hashes(output) == tree_hashes(tmp_path / "plain")


def test_parts_and_a_whole_run_keep_each_other_out(tmp_path):
    recipe = made_recipe(tmp_path)
    storage = LocalStorage(tmp_path / "out")
    plan = plan_of(recipe, storage)
    both = claimed(plan, storage, shared=True), claimed(plan, storage, shared=True)
    with both[0], both[1], pytest.raises(OutputError, match="another run is at work"):
        run_recipe(recipe, tmp_path / "out")
    with claimed(plan, storage), pytest.raises(OutputError, match="another run is at work"):
        do_part(recipe, tmp_path / "out", "1/2")


def test_a_part_of_another_recipe_is_refused(tmp_path):
    recipe, output = made_recipe(tmp_path), tmp_path / "out"
    do_part(recipe, output, "1/2")
    changed = recipe.with_name("changed.yaml")
    changed.write_text(recipe.read_text().replace("min_words: 40", "min_words: 41"))
    with pytest.raises(OutputError, match="was made by another recipe"):
        do_part(changed, output, "2/2")
    assert json.loads((output / "recipe.json").read_text())["name"] == "made"


def test_two_recipes_that_begin_at_once(tmp_path, monkeypatch):
    """The one that comes second at the recipe's file is refused, though it had seen none."""
    recipe, output = made_recipe(tmp_path), LocalStorage(tmp_path / "out")
    changed = recipe.with_name("changed.yaml")
    changed.write_text(recipe.read_text().replace("min_words: 40", "min_words: 41"))
    other = plan_of(changed, output)
    exists = LocalStorage.exists

    def late(storage, path):
        found = exists(storage, path)
        if path == "recipe.json" and not found:
            storage.commit(path, other.resolved_json())
        return found

    monkeypatch.setattr(LocalStorage, "exists", late)
    with pytest.raises(OutputError, match="was made by another recipe"):
        do_part(recipe, output.root, "1/2")
    assert not list(output.list("stages"))


def test_parts_have_the_same_packages(tmp_path, monkeypatch):
    recipe, output = made_recipe(tmp_path), tmp_path / "out"
    do_part(recipe, output, "1/2")
    ours = run.version
    monkeypatch.setattr(run, "version", lambda name: "99.0" if name == "lxml" else ours(name))
    for _ in range(2):
        with pytest.raises(OutputError, match=r"package lxml was .* and is 99.0 now.*\nhint: use the environment"):
            do_part(recipe, output, "2/2")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "1/2/3", "-1/2", "1/100001", "", "²/3"])
def test_a_part_that_is_none(text):
    with pytest.raises(ValueError, match="allowed is K/N"):
        Part.parse(text)
