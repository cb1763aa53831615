"""A share of a source by score: whole side tables on every engine, in the ledger, in `verify`, `explain`, `replay`.

On texts made on the spot: the sources have 40 and 12 documents in several files, so that no split knows the line.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from engine_runs import ENGINES, counts, start
from made import PROSE
from quality_models import BAD, small_model
from runs import run_recipe
from trees import tree_hashes

from pipelines.explain import explain_document
from pipelines.replay import replay_document
from pipelines.sources.source import BatchLimits
from pipelines.verify import verify_output

RECIPE = """
name: top
sources:
  web:
    reader: table
    schema: c4
    root: web
    include: ["*.jsonl"]
    transforms: [quality: {model: quality.bin, keep_top: 2500, values: true}]
  books:
    reader: table
    schema: c4
    root: books
    include: ["*.jsonl"]
    transforms: [quality: {model: quality.bin, keep_top: 10000, min_score: 1}]
  talks:
    reader: table
    schema: c4
    root: talks
    include: ["*.jsonl"]
deduplicate: {exact: all}
output: {buckets: 3}
"""
NUM_WEB, NUM_BOOKS = 40, 12


def mixed(number: int, of: int) -> str:
    """Return prose with more and more debris: `number` tells how much of it is prose."""
    words = PROSE.split()
    return " ".join([*words[: 2 + number], *(BAD[0].split() * of)[: 2 * (of - number)], str(number)])


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("top")
    for source, num in (("web", NUM_WEB), ("books", NUM_BOOKS), ("talks", 3)):
        (folder / source).mkdir()
        for part in range(3):
            rows = [
                {"url": f"http://mill.example/{source}/{number}", "text": f"{source} {mixed(number, num)}"}
                for number in range(part, num, 3)
            ]
            (folder / source / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(small_model().path, folder / "quality.bin")
    (folder / "top.yaml").write_text(RECIPE)
    return folder / "top.yaml"


@pytest.fixture(scope="module")
def output(recipe, tmp_path_factory):
    output = tmp_path_factory.mktemp("reference") / "out"
    run_recipe(recipe, output)
    return output


def table(output: Path, stage: str, name: str) -> list[dict]:
    return pq.read_table(output / f"stages/{stage}/{name}").to_pylist()


def test_the_best_quarter_is_kept(output):
    """By the definition, from the scores of the first stage, which are in its documents."""
    scores = [row["quality_score"] for row in table(output, "1-read", "documents") if row["source"] == "web"]
    assert len(scores) == NUM_WEB
    assert len(set(scores)) > 10, "a line among equal scores shows nothing"
    fits = [line for line in range(10_002) if 4 * sum(score >= line for score in scores) <= NUM_WEB]
    kept = [row for row in table(output, "5-tokenize", "documents") if row["source"] == "web"]
    assert sorted(row["quality_score"] for row in kept) == sorted(score for score in scores if score >= fits[0])
    assert 0 < len(kept) <= NUM_WEB // 4
    dropped = table(output, "5-tokenize", "rejects")
    assert {row["verdict"]["reason"] for row in dropped} == {"quality.keep_top"}
    assert {row["verdict"]["threshold"] for row in dropped} == {f">= {fits[0]}"}
    assert {row["source"] for row in dropped} == {"web"}
    assert len(dropped) == NUM_WEB - len(kept)


def test_the_histograms_hold_every_kept_document(output):
    sums = {"web": 0, "books": 0}
    for row in table(output, "1-read", "quality_scores"):
        sums[row["source"]] += row["documents"]
    stopped = [row for row in table(output, "1-read", "rejects") if row["verdict"]["reason"] == "quality.min_score"]
    assert sums == {"web": NUM_WEB, "books": NUM_BOOKS - len(stopped)}


def test_the_ledger_tells_of_it(output):
    ledger = pq.read_table(output / "ledger.parquet").to_pylist()
    assert sum(row["rows"] for row in ledger if row["reason"] == "quality.keep_top") == len(
        table(output, "5-tokenize", "rejects")
    )
    written = sum(row["rows"] for row in ledger if (row["table"], row["account"]) == ("quality_scores", "out"))
    read = {}
    for row in ledger:
        if (row["table"], row["account"]) == ("quality_scores", "in"):
            read[row["split"]] = row["rows"]
    assert written == len(table(output, "1-read", "quality_scores"))
    assert set(read.values()) == {written}, "every bucket reads the whole table"
    assert list(verify_output(output))


def test_explain_and_replay(output):
    stopped = table(output, "5-tokenize", "rejects")[0]
    said = explain_document(output, stopped["doc_id"].hex())
    assert said.end == "stopped in stage 5-tokenize: dropped[quality.keep_top]"
    last = said.rows[-1]
    assert (last.rule, last.value, last.threshold) == (
        "quality.keep_top", stopped["verdict"]["value"], stopped["verdict"]["threshold"],
    )  # fmt: skip
    kept = next(row for row in table(output, "5-tokenize", "documents") if row["source"] == "web")
    assert any(
        line.rule == "quality.keep_top" and line.verdict == "kept"
        for line in explain_document(output, kept["doc_id"].hex()).rows
    )
    assert len(replay_document(output, kept["doc_id"].hex()).ids) > 10
    beside = next(row for row in table(output, "5-tokenize", "documents") if row["source"] == "talks")
    assert replay_document(output, beside["doc_id"].hex()).source == "talks"


def test_batches_workers_and_orders_do_not_matter(recipe, output, tmp_path):
    run_recipe(recipe, tmp_path / "out", workers=2, limits=BatchLimits(max_rows=3), shuffle=1)
    assert tree_hashes(tmp_path / "out") == tree_hashes(output)


@pytest.mark.parametrize("engine", ["spark", "beam, one process"])
def test_same_bytes_on_every_engine(engine, recipe, output, tmp_path):
    counts(start(recipe, tmp_path / "out", *ENGINES[engine]))
    assert tree_hashes(tmp_path / "out") == tree_hashes(output)


def test_another_share_is_another_run(recipe, output, tmp_path):
    """Without `keep_top` there is no histogram, and nothing is dropped in the last stage."""
    shutil.copytree(recipe.parent, tmp_path / "in")
    path = tmp_path / "in/top.yaml"
    path.write_text(RECIPE.replace("keep_top: 2500, ", "").replace("keep_top: 10000", "drop: false"))
    run_recipe(path, tmp_path / "out")
    assert not (tmp_path / "out/stages/1-read/quality_scores").exists()
    assert len(table(tmp_path / "out", "5-tokenize", "documents")) == NUM_WEB + NUM_BOOKS + 3
