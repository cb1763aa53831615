"""Canaries in whole runs: they are caught, or the run fails."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from contamination_indexes import QUESTIONS, small_index
from runs import plan_of

from pipelines.engines.datatrove import DatatroveEngine
from pipelines.errors import HeadraceError, RecipeError
from pipelines.ledger import stage_total
from pipelines.plan import Plan, build_plan
from pipelines.recipe import load_recipe
from pipelines.run import RunResult, run_plan
from pipelines.storage.local import LocalStorage
from pipelines.transforms.contamination import Contamination
from pipelines.verify import verify_output

RECIPE = """
sources:
  web:
    reader: table
    schema: c4
    root: .
    include: ["in.jsonl"]
    transforms: [contamination: {{index: eval.index{settings}}}]
deduplicate: {{exact: all}}
output: {{buckets: 2}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with an index, a recipe, and two documents of which one holds a question."""
    shutil.copy(small_index().path, tmp_path / "eval.index")
    texts = [f"Somebody asked: {QUESTIONS['mill:0']} I could not say.", "Rain fell on the mill all day long."]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(settings=""))
    return tmp_path


def run(plan: Plan, folder: Path) -> RunResult:
    with DatatroveEngine(1) as engine:
        return run_plan(plan, LocalStorage(folder / "out"), engine, lambda *_: None)


@pytest.mark.parametrize("settings", ["", ", action: cut"])
def test_all_canaries_are_caught_and_none_is_tokenized(folder, settings):
    (folder / "recipe.yaml").write_text(RECIPE.format(settings=settings))
    result = run(plan_of(folder / "recipe.yaml", LocalStorage(folder / "out")), folder)
    read = stage_total(result.ledger, "1-read", last=False)
    assert read["canary-web"][0] >= 4
    assert set(stage_total(result.ledger, "1-read", last=True)) == {"web"}
    assert stage_total(result.ledger, "3-find-duplicates", last=True) == {}
    assert not any("canary" in warning for warning in result.warnings)
    assert list(verify_output(folder / "out"))


def test_a_run_whose_search_finds_nothing_fails(folder):
    """A search that lost its thresholds looks like clean data, but for its canaries."""
    plan = plan_of(folder / "recipe.yaml", LocalStorage(folder / "out"))
    chain = plan.stages[0].chains["canary-web"]
    blind = tuple(Blind(index=step.index) if isinstance(step, Contamination) else step for step in chain.transforms)
    plan.stages[0].chains["canary-web"] = dataclasses.replace(chain, transforms=blind)
    with pytest.raises(HeadraceError, match="canary-web: of .* canary documents 0 were found contaminated"):
        run(plan, folder)
    assert not (folder / "out/ledger.parquet").exists()


class Blind(Contamination):
    """Finds nothing."""

    def _found(self, batch):
        return super()._found(batch)[:0]


def test_a_source_cannot_be_called_like_canaries(folder):
    text = (
        (folder / "recipe.yaml")
        .read_text()
        .replace("deduplicate", "  canary-web: {reader: table, root: .}\ndeduplicate")
    )
    (folder / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"sources\.canary-web"):
        build_plan(load_recipe(folder / "recipe.yaml"), LocalStorage(folder / "out"))
