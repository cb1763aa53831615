"""The benchmark of near-duplicates: what it counts, by hand, and what it reads of datatrove's files and of the gold."""

from __future__ import annotations

import math
from pathlib import Path

import dedup_corpus
import numpy as np
import pytest
from dedup_peers import BANDS, ROWS, Found, datatrove_found, run_process

from benchmarks import dedup_quality as benchmark

GOLD = Path(__file__).resolve().parents[2] / "../shared/data/dedup_gold"
needs_gold = pytest.mark.skipif(not GOLD.is_dir(), reason="no labelled texts")

WORDS = [f"w{number}" for number in range(100)]
TEXT, NEAR, PART = " ".join(WORDS), " ".join([*WORDS[:99], "other"]), " ".join(WORDS[:50] + ["x"] * 50)


def test_components_keep_the_first_and_first_come_needs_a_kept_one():
    """0-1-2 is a chain: 2 goes with the component, and stays where 1, which goes, is all that it is found with."""
    chain = [(0, 1), (1, 2), (5, 9), (4, 9)]
    assert benchmark.of_components(chain) == {1: 0, 2: 0, 5: 4, 9: 4}
    assert benchmark.first_come(chain) == {1: 0, 9: 4}
    assert benchmark.first_come([]) == benchmark.of_components([]) == {}


def test_ours_proposes_and_verifies():
    unverified, verified = benchmark.ours([TEXT, PART, NEAR, "", TEXT.upper(), "", "a few words"])
    assert {(0, 2), (0, 4), (2, 4)} == verified.pairs <= unverified.pairs
    assert verified.removed == {2: 0, 4: 0}
    assert benchmark.ours(["one text", "another text"])[1] == Found(frozenset(), {})


def test_similar_is_at_the_threshold():
    three, four = frozenset([("a",), ("b",), ("c",)]), frozenset([("a",), ("b",), ("c",), ("d",)])
    assert benchmark.THRESHOLD == 7_500
    assert benchmark.is_similar(three, four)
    assert not benchmark.is_similar(three, four | {("e",)})
    assert not benchmark.is_similar(frozenset(), frozenset())
    assert benchmark.similar_pairs([three, frozenset(), four, four | {("e",)}]) == [(0, 2), (2, 3)]


def test_the_paired_error_by_hand():
    """Two only by the first, one only by the second, of ten: 1/10, and sqrt(3 - 1/10) / 10."""
    outcomes = [(True, False)] * 2 + [(False, True)] + [(True, True)] * 6 + [(False, False)]
    assert benchmark.paired(outcomes) == pytest.approx((0.1, math.sqrt(2.9) / 10))


def test_precision_by_hand():
    sets = [benchmark.word_shingles(text) for text in (TEXT, NEAR, PART)]
    found = Found(frozenset([(0, 1), (0, 2)]), {1: 0, 2: 0})
    counted = benchmark.precision(sets, {"one": found, "none": Found(frozenset(), {})})
    assert counted["precision"] == {"one": 0.5, "none": None}
    assert counted["removed"] == {"one": 2, "none": 0}
    assert counted["false_removals"] == {"one": 1, "none": 0}
    assert counted["false_removal_share"] == {"one": 0.5, "none": None}
    assert counted["removed_below_050"] == {"one": 1, "none": 0}


def test_a_pair_is_thinned_if_not_both_stay():
    side = Found(frozenset([(0, 1)]), {1: 0, 5: 0})
    assert benchmark.thinned(side, [(0, 1), (4, 5), (0, 4), (1, 5)]) == 0.75
    assert benchmark.recall(side, [(0, 1), (4, 5), (0, 4), (1, 5)]) == 0.25
    assert benchmark.thinned(side, []) is benchmark.recall(side, []) is None


def test_labels_are_counted_apart():
    texts = benchmark.Texts([TEXT, NEAR, PART], {"light": [(0, 1)], "non": [(0, 2)]})
    sides = {"one": Found(frozenset([(0, 1), (0, 2), (1, 2)]), {})}
    counted = benchmark.of_labelled(texts, [benchmark.word_shingles(text) for text in texts.texts], sides)
    assert counted["found_by_label"] == {"one": {"light": 1, "non": 1}}
    assert counted["found_without_label"] == {"one": 2}
    assert counted["recall_of_similar_pairs"] == {"one": 1.0}
    assert counted["similar_pairs"] == 1


@pytest.mark.parametrize(
    ("difference", "false", "missed"),
    [(-0.02, (0, 0, 9), 0), (-0.021, (0, 0, 0), 1), (0.5, (1, 0, 0), 1), (0.0, (0, 2, 0), 1)],
)
def test_what_must_not_be(difference, false, missed):
    part = {"false_removals": dict(zip(("verified", "job", "datatrove"), false, strict=True))}
    result = {
        "threshold": 0.75,
        "generated": part | {"recall_080_difference": difference, "recall_080_standard_error": 0.01},
    }
    assert len(benchmark.failures(result)) == missed


def test_what_datatrove_leaves(tmp_path):
    """Documents 0, 2 and 3 share band 0, and 2 and 5 band 1; of their cluster 3 is kept. 7 and 8 are another one."""
    of_band = np.dtype([("hashes", "<u8", ROWS), ("document", "<u4")])
    for band in range(BANDS):
        rows = np.zeros(6, of_band)
        rows["document"] = [0, 2, 3, 5, 7, 8]
        rows["hashes"] = np.arange(6)[:, None] + 1
        if band == 0:
            rows["hashes"][[0, 1, 2]] = 0
        if band == 1:
            rows["hashes"][[1, 3], :7] = 0  # all but the last hash of the band: nothing in common
            rows["hashes"][[4, 5]] = 2**60
        if band == 2:
            rows["hashes"][[1, 3]] = 0
        folder = tmp_path / f"signatures/bucket_{band:03d}"
        folder.mkdir(parents=True)
        rows.tofile(folder / "00000.minhash.sig")
    clusters = tmp_path / "clusters"
    clusters.mkdir()
    np.array([[0, 1], [2, 1], [3, 1], [5, 1], [7, 9], [8, 9]], "<u4").tofile(clusters / "000000.clusters")
    np.array([0, 2, 5, 8], "<u4").tofile(clusters / "000000.remove")
    found = datatrove_found(tmp_path)
    assert found.pairs == {(0, 2), (0, 3), (2, 3), (2, 5), (7, 8)}
    assert found.removed == {0: 3, 2: 3, 5: 3, 8: 7}


def test_processes(tmp_path):
    done = run_process(["/bin/sh", "-c", "pwd; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"], tmp_path)
    assert done.output == f"{tmp_path}\n"
    assert 0.01 < done.cpu_seconds < 10
    assert 100_000 < done.peak_bytes < 1 << 30
    with pytest.raises(SystemExit, match="/bin/sh failed:\nno"):
        run_process(["/bin/sh", "-c", "echo no; exit 3"], tmp_path)


def test_the_job_keeps_the_longer_and_says_for_what(tmp_path):
    (tmp_path / "input").mkdir()
    longer = f"{TEXT} and"
    texts = [TEXT, PART, NEAR, longer, "another text of some words", TEXT]
    dedup_corpus.write_documents(tmp_path / "input/documents.parquet", iter(texts))
    found = benchmark.job(tmp_path)
    assert found.removed == {0: 3, 2: 3, 5: 3}
    assert found.pairs == {(0, 3), (2, 3), (3, 5)}


@needs_gold
def test_gold():
    sets = benchmark.articles(GOLD)
    assert [len(sets[name].texts) for name in ("articles_100", "articles_1000")] == [100, 1_000]
    assert [len(sets[name].labelled["plagiarised"]) for name in ("articles_100", "articles_1000")] == [5, 10]
    answers = benchmark.answers(GOLD)
    assert len(answers.texts) == 100
    assert {label: len(some) for label, some in answers.labelled.items()} == {
        "cut": 19, "light": 19, "heavy": 19, "non": 38,
    }  # fmt: skip
    assert len(benchmark.news(GOLD).texts) == 350
    assert benchmark.of_judgements(GOLD)["pairs"] == 50 * 49 // 2
