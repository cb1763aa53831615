"""Deduplication in whole runs: the same bytes on every engine, and removals that are recomputed from the texts."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from duplicates import (
    DEDUPLICATE,
    FOOTER,
    NEAR,
    SOURCES,
    Row,
    corpus,
    edited,
    rounds_of,
    rows_of_table,
    word_shingles,
    write_corpus,
    write_recipe,
)
from engine_runs import ENGINES, counts, start
from runs import SHARED, plan_of, run_recipe
from trees import tree_hashes

from pipelines.errors import RecipeError
from pipelines.explain import explain_document
from pipelines.near_duplicates.propose import PROPOSERS
from pipelines.recipe import load_recipe
from pipelines.replay import replay_document
from pipelines.run import RunResult
from pipelines.sources.source import BatchLimits
from pipelines.storage.local import LocalStorage
from pipelines.verify import verify_output

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")

NOTHING_LEFT = "duplicate_lines.nothing_left"
FOR_LATER = {key: value for key, value in DEDUPLICATE.items() if key != "passages"}


class Run(NamedTuple):
    """A finished run of the corpus."""

    recipe: Path
    output: Path
    result: RunResult

    def rows(self, stage: str, table: str) -> list[dict[str, Any]]:
        return rows_of_table(self.output, stage, table)

    def kept(self) -> set[bytes]:
        """Return the ids of the documents that came to the end."""
        return {row["doc_id"] for row in self.rows("tokenize", "documents")}

    def identified(self) -> dict[bytes, dict[str, Any]]:
        """Return the documents that came into deduplication, by their ids."""
        return {row["doc_id"]: row for row in self.rows("identify", "documents")}

    def duplicates(self) -> dict[bytes, tuple[str, bytes]]:
        """Return the reason and the kept document of each exact copy and each second document of a URL."""
        return {
            row["doc_id"]: (row["reason"], row["kept_doc_id"]) for row in self.rows("sort-duplicates", "duplicates")
        }


def run(folder: Path, inputs: Path, sources: tuple[str, ...], deduplicate: Mapping[str, object]) -> Run:
    folder.mkdir()
    recipe = write_recipe(folder / "recipe.yaml", inputs, sources, deduplicate)
    return Run(recipe, folder / "out", run_recipe(recipe, folder / "out"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_corpus(folder, corpus())
    return folder


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory) -> Run:
    """All sources at once, one worker."""
    return run(tmp_path_factory.mktemp("whole") / "run", inputs, SOURCES, DEDUPLICATE)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Run:
    """The first documents of each source: every stage, and fewer rounds."""
    folder = tmp_path_factory.mktemp("small")
    write_corpus(folder / "in", {source: rows[:20] for source, rows in corpus().items()})
    return run(folder / "run", folder / "in", SOURCES, DEDUPLICATE)


@pytest.fixture(scope="module")
def one_by_one(inputs, tmp_path_factory) -> list[Run]:
    """A run for each source, each against all before it."""
    folder, runs = tmp_path_factory.mktemp("generations"), []
    for source in SOURCES:
        older = {"older": [str(earlier.output) for earlier in runs]}
        runs.append(run(folder / source, inputs, (source,), FOR_LATER | older))
    return runs


# Law 1: the same bytes, whoever does the work


def test_the_corpus_has_everything(whole):
    """What the other tests look at has to be there."""
    reasons = Counter(reason for reason, _ in whole.duplicates().values())
    assert reasons == {"exact_duplicate": reasons["exact_duplicate"], "duplicate_url": 16}
    assert reasons["exact_duplicate"] > 20
    assert rounds_of(whole.output) >= 4
    assert any("pairs were not compared" in warning for warning in whole.result.warnings)
    assert len(whole.rows("sort-near-duplicates", "near_duplicates")) > 50
    assert len(whole.rows("sort-edits", "edits")) > 10
    assert [row["text"] for row in whole.rows("tokenize", "rejects") if row["verdict"]["reason"] == NOTHING_LEFT] == [
        FOOTER
    ]


def test_the_output_verifies(whole):
    assert [line.partition(":")[0] for line in verify_output(whole.output)][:2] == ["files", "strays"]


def test_workers_batches_and_orders_do_not_matter(whole, tmp_path):
    run_recipe(whole.recipe, tmp_path / "out", workers=2, limits=BatchLimits(max_rows=7), shuffle=1)
    assert tree_hashes(tmp_path / "out") == tree_hashes(whole.output)


@pytest.mark.parametrize("engine", ["spark", "beam, one process"])
def test_same_bytes_on_every_engine(engine, small, tmp_path):
    done = counts(start(small.recipe, tmp_path / "out", *ENGINES[engine]))
    assert tree_hashes(tmp_path / "out") == tree_hashes(small.output)
    assert done == {"done": small.result.num_done, "found": 0}


@pytest.mark.stress
@pytest.mark.parametrize("engine", ENGINES)
def test_same_bytes_of_many_rounds(engine, whole, tmp_path):
    counts(start(whole.recipe, tmp_path / "out", *ENGINES[engine]))
    assert tree_hashes(tmp_path / "out") == tree_hashes(whole.output)


def test_files_do_not_matter(small, tmp_path):
    """Other files have other origins; what is decided, and the tokens, are the same."""
    write_corpus(tmp_path / "in", {source: rows[:20] for source, rows in corpus().items()}, num_files=1)
    other = run(tmp_path / "run", tmp_path / "in", SOURCES, DEDUPLICATE)
    for stage, table in (
        ("sort-duplicates", "duplicates"),
        ("sort-near-duplicates", "near_duplicates"),
        ("clusters", "clusters"),
        ("sort-edits", "edits"),
        ("tokenize", "shingle_sets"),
    ):
        assert small.rows(stage, table), table
        assert in_order(other.rows(stage, table)) == in_order(small.rows(stage, table)), table
    assert tokens(other.output) == tokens(small.output)


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a table by document: names of files, and so their order, tell of the input."""
    return sorted(rows, key=lambda row: (row["doc_id"], row.get("start", 0), row.get("end", 0)))


def tokens(output: Path) -> list[bytes]:
    """Return the shards of tokens; their names tell of the input."""
    return sorted(path.read_bytes() for path in output.glob("tokens/**/*.bin"))


# Law 4: a run that is killed between rounds goes on


def test_killed_in_the_third_round_and_run_again(whole, tmp_path):
    output = tmp_path / "out"
    process = start(whole.recipe, output, "datatrove", "--workers", "1")
    deadline = time.monotonic() + 300
    while not list(output.glob("stages/*-round-02-decide/commits/*.json")):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()[-3000:]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(output.glob("stages/*-tokenize"))
    again = run_recipe(whole.recipe, output)
    assert again.num_found > 0
    assert again.num_done + again.num_found == whole.result.num_done
    assert tree_hashes(output) == tree_hashes(whole.output)


def test_rounds_that_are_no_longer_needed_are_swept(whole, small, tmp_path):
    """The input has changed since, and little is crowded any more: what is left is what a new run makes."""
    shutil.copytree(whole.output, tmp_path / "out")
    run_recipe(small.recipe, tmp_path / "out")
    assert rounds_of(tmp_path / "out") == rounds_of(small.output) < rounds_of(whole.output)
    assert tree_hashes(tmp_path / "out") == tree_hashes(small.output)
    assert list(verify_output(tmp_path / "out"))


# Every single removal


def test_every_removal(whole, one_by_one):
    assert check_removals([whole], ngram=3, threshold=8_000) > 50
    # the kept document may be in any of the runs
    assert check_removals(one_by_one, ngram=3, threshold=8_000) > 50


def test_every_removal_in_real_texts(tmp_path):
    """News articles with plagiarised ones among them, and web pages with made copies, the shape of FineWeb."""
    articles = (SHARED / "dedup_gold/minhash_articles/articles_1000.train").read_text().splitlines()
    rows = [Row(name, f"http://article.example/{name}", text, DATE) for name, _, text in map(cut, articles)]
    web = [json.loads(line)["text"] for line in (SHARED / "web_text/c4_sample/c4_all.jsonl").read_text().splitlines()]
    pages = [Row(str(number), f"http://page.example/{number}", text, DATE) for number, text in enumerate(web[:300])]
    pages += list(copies_of(pages))
    write_corpus(tmp_path / "in", {"articles": rows, "pages": pages})
    near = {"preset": "fineweb", "threshold": 7_000}
    made = run(tmp_path / "run", tmp_path / "in", ("articles", "pages"), {"near": near})
    assert check_removals([made], ngram=5, threshold=7_000) > 150
    assert sum(row["cluster_size"] for row in made.rows("tokenize", "documents")) == len(made.identified())


DATE = "2020-01-01T00:00:00Z"


def cut(line: str) -> tuple[str, str, str]:
    return line.partition(" ")


def copies_of(pages: list[Row]) -> Iterator[Row]:
    """Yield three copies of every second page, with 1, 3 and 10 percent of their words changed."""
    random_, words = random.Random(3), " ".join(page.text for page in pages[:20]).split()
    for page in pages[::2]:
        for percent in (1, 3, 10):
            text = edited(page.text, percent / 100, words, random_)
            yield Row(f"{page.id}-{percent}", f"{page.url}/{percent}", text, DATE)


def check_removals(runs: list[Run], ngram: int, threshold: int) -> int:
    """Recompute the similarity of every removed document and the kept one of its edge; returns how many they are."""
    documents = {doc_id: row for run in runs for doc_id, row in run.identified().items()}
    kept = {doc_id for run in runs for doc_id in run.kept()}
    num = 0
    for number, run in enumerate(runs):
        edges = run.rows("sort-near-duplicates", "near_duplicates")
        rejects = [row for row in run.rows("tokenize", "rejects") if row["verdict"]["reason"] == "near_duplicate"]
        assert {row["doc_id"] for row in rejects} == {edge["doc_id"] for edge in edges}
        assert len(rejects) == len(edges)
        for edge in edges:
            gone, stays = documents[edge["doc_id"]], documents[edge["kept_doc_id"]]
            one, other = (word_shingles(row["text"], ngram) for row in (gone, stays))
            assert (edge["shared"], edge["total"]) == (len(one & other), len(one | other))
            assert 10_000 * len(one & other) >= threshold * len(one | other)
            assert stays["doc_id"] in kept
            assert (stays["rank"], stays["doc_id"]) < (gone["rank"], gone["doc_id"])
            assert gone["doc_id"] not in kept
            assert gone["rank"][:2] == number.to_bytes(2, "big")
        num += len(edges)
    return num


def test_who_is_kept_is_what_the_definition_says(whole):
    """Documents one by one in their order, each against the first that were kept in its buckets."""
    documents, gone = whole.identified(), whole.duplicates()
    buckets = defaultdict(set)
    for row in whole.rows("band-keys", "band_keys"):
        buckets[row["doc_id"]].add(row["band_key"])
    assert buckets.keys() == documents.keys() - gone.keys()
    shingles = {doc_id: word_shingles(documents[doc_id]["text"], 3) for doc_id in buckets}
    proposers, removed = defaultdict(list), set()
    for doc_id in sorted(buckets, key=lambda one: (documents[one]["rank"], one)):
        own = shingles[doc_id]
        before = {other for key in buckets[doc_id] for other in proposers[key]}
        if any(10_000 * len(own & shingles[one]) >= 8_000 * len(own | shingles[one]) for one in before):
            removed.add(doc_id)
            continue
        for key in buckets[doc_id]:
            if len(proposers[key]) < PROPOSERS:
                proposers[key].append(doc_id)
    assert removed == {row["doc_id"] for row in whole.rows("sort-near-duplicates", "near_duplicates")}


def test_copies_of_texts_and_urls_have_one_that_stays(whole):
    documents, by_text, by_url = whole.identified(), defaultdict(list), defaultdict(list)
    found = whole.duplicates()
    for doc_id in sorted(documents, key=lambda one: (documents[one]["rank"], one)):
        by_url[documents[doc_id]["url"]].append(doc_id)
    expected = {copy: ("duplicate_url", first) for first, *copies in by_url.values() for copy in copies}
    for first, *_ in by_url.values():  # they are in the order of all
        by_text[documents[first]["text"]].append(first)
    for first, *copies in by_text.values():
        expected |= dict.fromkeys(copies, ("exact_duplicate", first))
    assert found == expected


def test_clusters_sum_up(whole):
    """Every document is in one cluster, but for the copies that were found before."""
    clusters = Counter(row["cluster_id"] for row in whole.rows("clusters", "clusters"))
    sizes = {row["doc_id"]: row["cluster_size"] for row in whole.rows("tokenize", "documents")}
    assert all(row["cluster_id"] == row["doc_id"] for row in whole.rows("tokenize", "documents"))
    assert sizes == {doc_id: 1 + clusters[doc_id] for doc_id in sizes}
    emptied = sum(row["verdict"]["reason"] == NOTHING_LEFT for row in whole.rows("tokenize", "rejects"))
    assert sum(sizes.values()) + emptied == len(whole.identified()) - len(whole.duplicates())


def test_every_long_line_still_stands_somewhere(whole):
    documents = whole.identified()
    gone = set(whole.duplicates()) | {row["doc_id"] for row in whole.rows("sort-near-duplicates", "near_duplicates")}
    before = {line for doc_id in documents.keys() - gone for line in long_lines(documents[doc_id]["text"])}
    after = Counter(line for row in whole.rows("tokenize", "documents") for line in long_lines(row["text"]))
    assert set(after) == before
    assert set(after.values()) == {1}
    assert after[FOOTER] == 1


def long_lines(text: str) -> list[str]:
    """Return the lines of at least 60 characters; the corpus has no breaks but line feeds within its texts."""
    return [line.strip() for line in text.splitlines() if len(line.strip()) >= 60]


def test_replay_and_explain(whole):
    cut_ids = {row["doc_id"] for row in whole.rows("sort-edits", "edits")}
    edited_ids = sorted(cut_ids & whole.kept())
    assert edited_ids
    for doc_id in edited_ids[:2]:
        replay = replay_document(whole.output, doc_id.hex())
        before = whole.identified()[doc_id]["text"]
        assert len(replay.text) < len(before)
        said = explain_document(whole.output, doc_id.hex())
        assert said.end == "is in the token shards"
        lines = [row for row in said.rows if row.step == "duplicate_lines"]
        assert lines
        assert all(" are also in " in row.value for row in lines)
    for reject in {row["verdict"]["reason"]: row for row in whole.rows("tokenize", "rejects")}.values():
        said = explain_document(whole.output, reject["doc_id"].hex())
        assert said.end == f"stopped in stage {said.rows[-1].stage}: dropped[{reject['verdict']['reason']}]"
    edge = whole.rows("sort-near-duplicates", "near_duplicates")[0]
    last = explain_document(whole.output, edge["doc_id"].hex()).rows[-1]
    assert last.rule == "near_duplicate"
    assert last.value == f"{edge['shared']} of {edge['total']} shingles with {edge['kept_doc_id'].hex()}"


# Earlier runs


def test_one_after_the_other_is_all_together(whole, one_by_one):
    """A, then B against A, then C against both: the survivors of all at once where A stands first, and then B."""
    gone = set(whole.duplicates()) | {row["doc_id"] for row in whole.rows("sort-near-duplicates", "near_duplicates")}
    expected = whole.identified().keys() - gone
    assert set.union(*(run.kept() for run in one_by_one)) == expected
    across = [row["kept_doc_id"] for row in one_by_one[2].rows("sort-near-duplicates", "near_duplicates")]
    assert all(set(across) & earlier.kept() for earlier in one_by_one), "no run has removed anything of the last"
    found = [found for run in one_by_one[1:] for found in run.duplicates().values()]
    assert {reason for reason, kept in found if kept in one_by_one[0].kept()} == {"exact_duplicate", "duplicate_url"}
    assert all(run.result.warnings for run in one_by_one[1:]), "no bucket was crowded"
    assert one_by_one[2].rows("candidates", "crowded"), "no bucket had its proposers from the start"
    for run in one_by_one:
        assert list(verify_output(run.output))


def test_an_older_run_may_lie_elsewhere(one_by_one, inputs, tmp_path):
    first, second, _ = one_by_one
    shutil.copytree(first.output, tmp_path / "moved")
    recipe = write_recipe(tmp_path / "b.yaml", inputs, SOURCES[1:2], FOR_LATER | {"older": [str(tmp_path / "moved")]})
    plan = plan_of(recipe, LocalStorage(second.output))
    assert plan.fingerprint == plan_of(second.recipe, LocalStorage(second.output)).fingerprint
    assert plan.resolved_json() == (second.output / "recipe.json").read_bytes()
    assert plan.recipe.deduplicate is not None
    assert plan.recipe.deduplicate.generation == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"near": NEAR | {"threshold": 7_999}}, r"was made with deduplicate\.near \{.*8000.*, here it is \{.*7999"),
        ({"url": None}, r'was made with deduplicate\.url "all", here it is null'),
        ({"exact": "source"}, r'was made with deduplicate\.exact "all", here it is "source"'),
    ],
)
def test_other_settings_are_refused(changed, said, one_by_one, inputs, tmp_path):
    settings = FOR_LATER | changed | {"older": [str(one_by_one[0].output)]}
    with pytest.raises(RecipeError, match=said):
        load_recipe(write_recipe(tmp_path / "b.yaml", inputs, SOURCES[1:2], settings))


def test_a_run_that_left_nothing_is_refused(inputs, tmp_path):
    write_corpus(tmp_path / "in", {"news": corpus()["news"][:3]})
    older = run(tmp_path / "run", tmp_path / "in", ("news",), {"exact": "all"})
    settings = {"exact": "all", "older": [str(older.output)]}
    with pytest.raises(
        RecipeError, match="left nothing for later runs\nhint: run its recipe anew with `for_later_runs"
    ):
        load_recipe(write_recipe(tmp_path / "b.yaml", inputs, SOURCES[1:2], settings))
    settings = {"exact": "all", "older": [str(inputs)]}
    with pytest.raises(RecipeError, match="holds no finished run\nhint: give the folder"):
        load_recipe(write_recipe(tmp_path / "c.yaml", inputs, SOURCES[1:2], settings))
