"""Texts of the benchmarks of deduplication: the same by seed, with as many copies, changes and shared words as said."""

from __future__ import annotations

import random
import statistics
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import dedup_corpus
from benchmarks.dedup_corpus import (
    CHANGES,
    Sentences,
    jaccard,
    make_documents,
    make_pairs,
    make_templates,
    share_for,
    word_shingles,
    write_documents,
)


def made_up(num: int = 400) -> Sentences:
    """Sentences of words that come from everywhere in a vocabulary, eight to a text."""
    rng = random.Random(7)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(3, 8))) for _ in range(2_000)]
    sentences = tuple(" ".join(rng.choices(words, k=rng.randint(6, 20))).capitalize() + "." for _ in range(num))
    return Sentences(sentences, tuple(range(0, num + 1, 8)))


@pytest.fixture(scope="module")
def sentences() -> Sentences:
    return made_up()


def test_a_seed_makes_the_same_texts(sentences):
    first, again, other = (list(make_documents(sentences, 200, seed)) for seed in (3, 3, 4))
    assert first == again != other
    assert list(make_pairs(sentences, 20, 3)) == list(make_pairs(sentences, 20, 3))
    assert list(make_templates(sentences, 2, 3, 3)) == list(make_templates(sentences, 2, 3, 3))


def test_a_fifth_of_the_documents_are_copies(sentences):
    texts = list(make_documents(sentences, 500))
    assert all(texts[number] in texts[:number] for number in range(4, 500, 10))
    sets = [word_shingles(text) for text in texts]
    nearest = [max(jaccard(sets[number], other) for other in sets[:number]) for number in range(9, 500, 10)]
    assert min(nearest) > 0.2
    assert 0.7 < statistics.mean(nearest) < 0.9
    assert 1_000 < statistics.mean(len(text) for text in make_documents(sentences, 2_000)) < 1_700


def test_blocks_are_strange_to_each_other_and_alike(sentences, monkeypatch):
    monkeypatch.setattr(dedup_corpus, "BLOCK", 200)
    texts = list(make_documents(sentences, 400))
    first, second = ([word_shingles(text) for text in texts[start : start + 200 : 10]] for start in (0, 200))
    assert max(jaccard(one, other) for one in first for other in second) < 0.02
    assert max(jaccard(one, other) for one in first for other in first if one is not other) > 0.05


def test_rewording_keeps_lengths_and_which_words_are_equal(sentences):
    reworded = sentences.reworded(random.Random(0))
    assert [len(one) for one in reworded.sentences] == [len(one) for one in sentences.sentences]
    before, after = (" ".join(one.sentences).lower().split() for one in (sentences, reworded))
    assert before != after
    assert len(set(before)) > 100
    capitalised = sum(word[0].isupper() for word in " ".join(sentences.sentences).split())
    assert capitalised == sum(word[0].isupper() for word in " ".join(reworded.sentences).split())


@pytest.mark.parametrize("change", CHANGES)
def test_a_share_brings_about_the_jaccard_that_it_is_for(sentences, change):
    rng = random.Random(1)
    words = sentences.patched(rng, 20_000).split()
    for wanted in (0.6, 0.8, 0.9):
        share = share_for(wanted, change)
        found = statistics.mean(
            jaccard(
                word_shingles(" ".join(words)), word_shingles(" ".join(CHANGES[change](rng, words, share, sentences)))
            )
            for _ in range(5)
        )
        assert found == pytest.approx(wanted, abs=0.05)


def test_changes_are_what_their_names_say(sentences):
    rng = random.Random(2)
    words = [f"word{number}" for number in range(1_000)]
    changed, inserted, deleted, moved = (change(rng, words, 0.1, sentences) for change in CHANGES.values())
    assert len(changed) == 1_000
    assert 850 < sum(one == other for one, other in zip(words, changed, strict=True)) < 950
    assert [word for word in inserted if word in set(words)] == words
    assert 1_050 < len(inserted) < 1_150
    assert 850 < len(deleted) < 950
    assert set(deleted) < set(words)
    assert sorted(deleted, key=words.index) == deleted
    assert sorted(moved) == sorted(words)
    assert moved != words
    assert 680 < sum(int(b[4:]) - int(a[4:]) == 1 for a, b in pairwise(moved)) < 780


def test_pairs_take_changes_in_turn_and_spread(sentences):
    pairs = list(make_pairs(sentences, 400))
    assert [pair.change for pair in pairs[:8]] == list(CHANGES) * 2
    found = [jaccard(word_shingles(pair.original), word_shingles(pair.changed)) for pair in pairs]
    assert min(sum(low <= one < low + 0.1 for one in found) for low in (0.5, 0.6, 0.7, 0.8)) > 30
    assert sum(one >= 0.8 for one in found) > 100


def test_families_share_60_percent_of_the_words(sentences):
    for family in make_templates(sentences, 5, 4):
        (first, *others) = [set(word_shingles(text, 1)) for text in family]
        assert all(len(text.split()) == len(family[0].split()) for text in family)
        shared = [word for word in zip(*(text.split() for text in family), strict=True) if len(set(word)) == 1]
        assert len(shared) / len(family[0].split()) == pytest.approx(0.6, abs=0.03)
        assert all(first != other for other in others)
        sets = [word_shingles(text) for text in family]
        assert 0.3 < jaccard(sets[0], sets[1]) < 0.55


def test_shingles_and_jaccard_by_hand():
    assert word_shingles("Été, a_b  C3!") == {("ete", "a", "b", "c3")}
    folded = {("ete",), ("\ufb01n",), ("ix",), ("strasse",), ("½",)}
    assert word_shingles("e\u0301te \ufb01n \u0130x STRASSE ½", 1) == folded
    assert word_shingles("日本go", 2) == {("日", "本"), ("本", "go")}
    assert word_shingles("a b c", 2) == {("a", "b"), ("b", "c")}
    assert word_shingles("... _") == frozenset()
    assert jaccard(word_shingles("a b c d", 2), word_shingles("a b c e", 2)) == 2 / 4
    assert jaccard(frozenset(), frozenset()) == 0.0


def test_documents_on_disk(tmp_path, sentences, monkeypatch):
    monkeypatch.setattr(dedup_corpus, "ROW_GROUP", 8)
    texts = list(make_documents(sentences, 20))
    num_bytes = write_documents(tmp_path / "documents.parquet", iter(texts))
    table = pq.read_table(tmp_path / "documents.parquet")
    assert table.column("text").to_pylist() == texts
    assert table.column("id").to_pylist() == [f"d{number}" for number in range(20)]
    assert num_bytes == sum(len(text.encode()) for text in texts)


@pytest.mark.skipif(not Path("../shared/data/web_text").is_dir(), reason="no sample texts")
def test_real_sentences():
    real = Sentences.read(Path("../shared/data"))
    assert len(real.starts) > 2_000
    assert real.starts[-1] == len(real.sentences) > 50_000
    texts = list(make_documents(real, 2_000))
    assert 1_100 < statistics.mean(len(text.encode()) for text in texts) < 1_500
