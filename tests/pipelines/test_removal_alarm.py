"""The alarm of deduplication: a share of duplicates that nobody expects stops the run, and how it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from duplicates import Row, rows_of_table, write_corpus, write_recipe
from runs import run_recipe
from trees import tree_hashes

from pipelines.removal_alarm import RemovalAlarm

DATE = "2020-01-01T00:00:00Z"
NUM_CLUSTERS, NUM_ALONE = 12, 10
HOSTILE = "\x1b[2J\x07\u202e{place} copies of a text that would like to clear the screen\r\nand to say more {more}"
NEAR = {"shape": {"bands": 20, "rows": 1, "unit": "word", "ngram": 1}, "threshold": 8_000}


def corpus() -> dict[str, list[Row]]:
    """Return `web`: texts 1 to 12 with as many exact copies as their numbers, and texts alone; and `books`: no copy.

    The first text of web is there once more with another word: a near-duplicate.
    """
    texts = [HOSTILE.format(place=place, more=own_words(100 + place)) for place in range(1, NUM_CLUSTERS + 1)]
    web = [text for place, text in enumerate(texts, start=1) for _ in range(1 + place)]
    web += [own_words(place) for place in range(NUM_ALONE)]
    web += [own_words(0).replace("word0x19", "other")]
    books = [f"book {place} is about {place} mills" for place in range(5)]
    rows = {"web": web, "books": books}
    return {
        source: [Row(f"{place:03d}", f"http://{source}.example/{place}", text, DATE) for place, text in enumerate(some)]
        for source, some in rows.items()
    }


REMOVED = NUM_CLUSTERS * (NUM_CLUSTERS + 1) // 2 + 1
TOTAL = REMOVED + NUM_CLUSTERS + NUM_ALONE
LEAST = 10_000 * REMOVED // TOTAL
"""The largest share below what is removed; 79 of 101 do not divide."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_corpus(folder, corpus())
    return folder


def own_words(place: int) -> str:
    """Return 20 words that no other text has."""
    return " ".join(f"word{place}x{number}" for number in range(20))


def recipe(path: Path, inputs: Path, **expected: list[int]) -> Path:
    settings = {"exact": "all", "near": NEAR, "expect_removed": expected}
    return write_recipe(path, inputs, ("web", "books"), settings)


def commits(output: Path) -> int:
    return len(list(output.glob("stages/*/commits/*.json")))


def test_the_alarm_stops_before_tokens_and_the_run_goes_on(inputs, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(RemovalAlarm) as alarm:
        run_recipe(recipe(tmp_path / "a.yaml", inputs, web=[0, LEAST]), output)
    said = str(alarm.value)
    check_message(said, output)
    assert not (output / "tokens").exists()
    assert not (output / "ledger.parquet").exists()
    assert not list(output.glob("stages/*-tokenize"))

    before = commits(output)
    again = run_recipe(recipe(tmp_path / "a.yaml", inputs, web=[LEAST, LEAST + 1], books=[0, 0]), output)
    assert again.num_found == before, "a stage was done again"
    assert again.num_done == 2, "the buckets of the last stage"
    run_recipe(recipe(tmp_path / "b.yaml", inputs), tmp_path / "quiet")
    assert tree_hashes(output) == tree_hashes(tmp_path / "quiet")


def check_message(said: str, output: Path) -> None:
    lines = said.split("\n")
    assert lines[0] == (
        f"source web: {REMOVED} of {TOTAL} documents ({100 * REMOVED / TOTAL:.2f}%) are duplicates, expected are 0.00% "
        f"to {LEAST / 100:.2f}%; the run stops here"
    )
    assert lines[1] == "the largest clusters:"
    copies: dict[bytes, set[bytes]] = {}
    for row in rows_of_table(output, "find-duplicates", "duplicates"):
        copies.setdefault(row["kept_doc_id"], set()).add(row["doc_id"])
    texts = {row["doc_id"]: row["text"] for row in rows_of_table(output, "identify", "documents")}
    largest = sorted(copies, key=lambda kept: -len(copies[kept]))[:10]
    assert [len(copies[kept]) for kept in largest] == list(range(12, 2, -1))
    pairs = []
    for line, kept in zip(lines[2:12], largest, strict=True):
        begin = f"  {kept.hex()} stands for {len(copies[kept])} others, as "
        assert line.startswith(begin)
        example = bytes.fromhex(line.removeprefix(begin))
        assert example in copies[kept]
        pairs += [kept, example]
    samples = lines[12:18]
    for line, doc_id in zip(samples, pairs[:6], strict=True):
        name, _, text = line.strip().partition(": ")
        assert name == doc_id.hex()[:12]
        words = " ".join(texts[doc_id].split())[:160]
        assert text.startswith("\\x1b[2J\\x07\\u202e")
        assert text[len("\\x1b[2J\\x07\\u202e") :] == words[len("\x1b[2J\x07\u202e") :]
    assert lines[18].startswith("hint: if these are duplicates, change deduplicate.expect_removed")
    assert "run the same command: it goes on from here" in lines[18]
    assert len(lines) == 19
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_fewer_than_expected_are_an_alarm_too(inputs, tmp_path):
    with pytest.raises(RemovalAlarm) as alarm:
        run_recipe(recipe(tmp_path / "a.yaml", inputs, books=[1, 10_000], web=[0, 10_000]), tmp_path / "out")
    lines = str(alarm.value).split("\n")
    assert lines[0] == (
        "source books: 0 of 5 documents (0.00%) are duplicates, expected are 0.01% to 100.00%; the run stops here"
    )
    assert lines[1] == "there are no duplicates"
    assert lines[2].startswith("hint: ")


def test_a_kept_document_of_an_earlier_run_is_named(inputs, tmp_path):
    """Everything of the second run was in the first, whose texts are not read."""
    some = {"web": corpus()["web"][-3:-1]}
    write_corpus(tmp_path / "in", some)
    settings = {"exact": "all", "near": NEAR, "for_later_runs": True}
    run_recipe(write_recipe(tmp_path / "a.yaml", tmp_path / "in", ("web",), settings), tmp_path / "first")
    write_corpus(tmp_path / "new", {"again": some["web"]})
    settings |= {"older": [str(tmp_path / "first")], "expect_removed": {"again": [0, 0]}}
    with pytest.raises(RemovalAlarm) as alarm:
        run_recipe(write_recipe(tmp_path / "b.yaml", tmp_path / "new", ("again",), settings), tmp_path / "second")
    lines = str(alarm.value).split("\n")
    assert lines[0].startswith("source again: 2 of 2 documents (100.00%) are duplicates")
    kept = {row["doc_id"].hex() for row in rows_of_table(tmp_path / "first", "tokenize", "documents")}
    assert {line.split()[0] for line in lines[2:4]} == kept
    assert sum(line.endswith(": (in an earlier run)") for line in lines) == 2
