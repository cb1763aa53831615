"""The benchmark of filters by training: its texts, its recipe, its statistics, and two steps of it on made plans."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest
import yaml
from plans import made_plan

from benchmarks import ablation
from mixtures.plan import Plan
from pipelines.recipe import load_recipe
from tokenizer.encodings import CL100K_BASE, build_tiktoken
from trainer_bridge.stream import Stream

PROSE = "the quick brown fox jumps over the lazy dog while nine old cats look on from the wall"
"""18 words."""


@pytest.fixture
def data(tmp_path):
    """One page of each collection, one archive, and held-out text of which some is on a page."""
    folder = tmp_path / "data"
    page = f"<html><body><nav><a href=x>Menu entry</a></nav><p>{PROSE}.</p></body></html>".encode()
    (folder / "html_gold/scrapinghub/html").mkdir(parents=True)
    (folder / "html_gold/scrapinghub/html/a.html.gz").write_bytes(gzip.compress(page))
    (folder / "html_gold/mozilla_readability/b").mkdir(parents=True)
    (folder / "html_gold/mozilla_readability/b/source.html").write_bytes(page)  # the same text: once in the pool
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=latin1\r\n\r\n<p>caf\xe9"
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    (folder / "warc").mkdir()
    (folder / "warc/a.warc").write_bytes(head.encode() + http + b"\r\n\r\n")
    words = PROSE.split()
    for path, text in {
        "web_text/wikipedia/wiki_demo.txt": f"First article.\n\n{' '.join(words[:12])} alone\n{' '.join(words[:13])}\n",
        "web_text/nltk/state_union/a.txt": f"A speech.\n\nIt ends with {PROSE.upper()}",
        "web_text/nltk/state_union/b.txt": "Another.\n\nOf two paragraphs.\n",
        "web_text/nltk/inaugural/a.txt": "One.",
        "dedup_gold/lee_similarity/lee_background.cor": "News.\nMore news.\n",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def texts(work, name) -> list[str]:
    return [json.loads(line)["text"] for line in (work / f"texts/{name}.jsonl").read_text().splitlines()]


def test_texts(data, tmp_path):
    """Twelve words in a row may be on a page, thirteen may not, in capitals neither."""
    left_out = ablation.write_texts(data, tmp_path)
    menu_and_prose, cafe = texts(tmp_path, "pool")
    assert "Menu entry" in menu_and_prose
    assert PROSE in menu_and_prose
    assert cafe == "café"
    assert left_out == {"wikipedia": 1, "state_union": 1, "inaugural": 0, "news": 0}
    assert texts(tmp_path, "wikipedia") == ["First article.", " ".join(PROSE.split()[:12]) + " alone"]
    assert texts(tmp_path, "state_union") == ["Another.\n\nOf two paragraphs."]
    assert texts(tmp_path, "news") == ["News.", "More news."]


def test_texts_are_written_once(data, tmp_path):
    ablation.write_texts(data, tmp_path)
    before = (tmp_path / "texts/pool.jsonl").stat().st_mtime_ns
    ablation.write_texts(data, tmp_path)
    assert (tmp_path / "texts/pool.jsonl").stat().st_mtime_ns == before


def test_the_recipe_loads_and_the_arms_differ_by_the_chain_alone(tmp_path):
    (tmp_path / "texts").mkdir()
    recipe = load_recipe(ablation.write_recipe(tmp_path))
    steps = {source.source.name: source.transforms for source in recipe.sources}
    names = [next(iter(step)) if isinstance(step, dict) else step for step in ablation.CHAIN]
    assert [step.name for step in steps["filtered"]] == ["language", *names]
    assert steps["unfiltered"] == steps["filtered"][:1]
    assert {name for name, transforms in steps.items() if not transforms} == set(ablation.HELD_OUT)


def test_the_chain_is_that_of_the_recipe():
    recipe = yaml.safe_load((ablation.REPOSITORY / "recipes/fineweb.yaml").read_text())
    steps = recipe["sources"]["web"]["transforms"]
    names = [next(iter(step)) if isinstance(step, dict) else step for step in steps]
    families = ("gopher_repetition", "gopher_quality", "c4_quality", "fineweb_quality")
    assert [step for name, step in zip(names, steps, strict=True) if name in families] == ablation.CHAIN


def test_statistics():
    """Of 1, 2, 3: mean 2, deviation 1, error 1 / sqrt(3) = 0.57735; Student's t (0.975, 2) is 4.30265 in tables."""
    found = ablation.statistics([1.0, 2.0, 3.0])
    assert (found["mean"], found["standard_deviation"], found["degrees_of_freedom"]) == (2.0, 1.0, 2)
    assert found["low"] == pytest.approx(2 - 4.30265 * 0.57735, abs=1e-4)
    assert found["high"] == pytest.approx(2 + 4.30265 * 0.57735, abs=1e-4)


@pytest.mark.parametrize("number", [2, 3, 5])
def test_the_smallest_effect_is_found_four_times_in_five(number):
    """By drawing: the share of samples of that effect whose interval is beside 0."""
    given = np.linspace(-1, 1, number)
    effect = ablation.statistics(list(given / given.std(ddof=1)))["smallest_effect"]
    drawn = np.random.default_rng(1).normal(effect, 1, (100_000, number))
    error = drawn.std(axis=1, ddof=1) / math.sqrt(number)
    bound = {2: 12.7062, 3: 4.30265, 5: 2.77645}[number]  # Student's t (0.975, number - 1) in tables
    assert np.mean(np.abs(drawn.mean(axis=1)) > bound * error) == pytest.approx(0.8, abs=0.006)


def run(arm: str, seed: int, bits: float) -> dict:
    return {"arm": arm, "seed": seed, "bits_per_byte": {"news": bits}}


def test_differences_are_paired_by_seed_and_above_0_where_the_filters_help():
    runs = [run("filtered", 2, 1.0), run("unfiltered", 1, 3.0), run("unfiltered", 2, 1.5), run("filtered", 1, 2.0)]
    assert ablation.compare(runs, "news")["differences"] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.2, "filtered is better"),
        (-0.2, -0.1, "unfiltered is better"),
        (-0.1, 0.2, "no difference can be shown"),
        (0.0, 0.2, "no difference can be shown"),
    ],
)
def test_verdicts(low, high, expected):
    assert ablation.verdict({"low": low, "high": high}) == expected


def test_every_model_must_beat_the_unigram_model():
    better, worse = ({"held_out_loss": loss, "unigram_loss": 8.0} for loss in (7.9, 8.0))
    assert ablation.has_learned([better, better])
    assert not ablation.has_learned([better, worse])


def test_bytes_of_targets(tmp_path):
    """Each token's own bytes, end-of-text none; padding and last tokens are no targets."""
    plan = Plan.load(made_plan(tmp_path))
    batch = Stream(plan).batch(0, 8)
    library, found = build_tiktoken(CL100K_BASE), {}
    for row, place in enumerate(batch.pieces.source[batch.pieces.offsets[:-1]].tolist()):
        for label, weight in zip(batch.labels[row].tolist(), batch.weights[row].tolist(), strict=True):
            targets, num_bytes = found.get(place, (0, 0))
            if weight:
                size = 0 if label == CL100K_BASE.end_of_text else len(library.decode_single_token_bytes(label))
                found[place] = (targets + 1, num_bytes + size)
    assert len(found) > 1
    for place, expected in found.items():
        assert ablation.count_text(plan, batch, place) == expected


def test_two_steps_are_scored_once(tmp_path, monkeypatch):
    """The scores of an untrained model: about the logarithm of the vocabulary's size, for random tokens."""
    monkeypatch.setattr(
        ablation, "SETTINGS", ablation.SETTINGS | {"model": ablation.SETTINGS["model"] | {"d_model": 8}}
    )
    few = {"text": {"epochs": "1/8"}, "code": {"epochs": "1/8"}, "instructions": {"epochs": "1/4", "cut": "never"}}
    plan = Plan.load(made_plan(tmp_path, classes=few))
    scores = ablation.train_and_score(tmp_path, plan, plan, "filtered-1", 1, 2)
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "checkpoints").exists()
    assert scores["step"] == 2
    assert scores["held_out_loss"] == pytest.approx(math.log(CL100K_BASE.vocabulary), abs=0.2)
    batch = Stream(plan).batch(0, len(Stream(plan)))
    bits = []
    for place, name in enumerate(plan.sources):
        targets, num_bytes = ablation.count_text(plan, batch, place)
        bits.append(scores["loss"][name] / math.log(2) * targets / num_bytes)
        assert scores["bits_per_byte"][name] == pytest.approx(bits[-1])
    assert scores["bits_per_byte"]["mean"] == pytest.approx(np.mean(bits))
    written = (folder / "metrics.jsonl").stat().st_mtime_ns
    assert ablation.train_and_score(tmp_path, plan, plan, "filtered-1", 1, 2) == scores
    assert (folder / "metrics.jsonl").stat().st_mtime_ns == written
    ablation.train_and_score(tmp_path, plan, plan, "filtered-1", 1, 1)
    assert len(list((tmp_path / "runs").iterdir())) == 2
