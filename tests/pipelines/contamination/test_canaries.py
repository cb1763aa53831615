"""Canaries: what their documents hold, how they are read, and a ledger that says that they were not caught."""

from __future__ import annotations

import re

import pytest
from contamination_indexes import QUESTIONS, small_index

from pipelines.contamination.canaries import Canaries, canary_documents, check_canaries, edited
from pipelines.contamination.canary_words import LENGTHS, canary_items
from pipelines.errors import HeadraceError
from pipelines.ledger import Entry
from pipelines.sources.source import BatchLimits, RawAccount
from pipelines.storage.local import LocalStorage
from pipelines.transforms.contamination import REASON, Contamination, read_index


def test_canaries_are_made_of_words_that_nobody_writes():
    items = canary_items()
    words = [re.findall(r"\w+", item.question.lower()) for item in items]
    assert [len(one) for one in words] == list(LENGTHS)
    assert items[0].question == "Fifiweso tuqeke huzujayomo vagoxi morisokeva kesogomo papasobanu liriqe. Panunuke."
    flat = [word for one in words for word in one]
    assert len(set(flat)) > len(flat) - 3
    assert all(len(word) >= 6 for word in flat)


def test_edited_canaries_have_one_word_in_ten_replaced_where_that_is_allowed():
    short, longer = edited(canary_items()[0].question, 8_000), edited(canary_items()[2].question, 8_000)
    assert "millstone" not in short
    assert longer.count("millstone") == 4
    assert edited(canary_items()[2].question, 9_500).count("millstone") == 2
    assert edited(canary_items()[2].question, 10_000).count("millstone") == 0
    assert short == short.upper()
    assert "." not in short


def test_documents_are_those_of_the_canaries_alone():
    documents = canary_documents(read_index(small_index()))
    assert len(documents) == 4 * len(LENGTHS)
    assert not any(question in text for question in QUESTIONS.values() for text in documents)


@pytest.mark.parametrize("threshold", [5_000, 8_000, 9_500, 10_000])
def test_every_canary_is_caught(threshold):
    transform = Contamination(index=small_index(), threshold=threshold)
    reader, account = Canaries("canary-web", transform), RawAccount()
    storage = LocalStorage("unused")
    (split,) = reader.splits(storage)
    assert (str(split), split.files) == ("canary-web", ())
    (batch,) = reader.read(split, storage, BatchLimits(), account)
    assert (account.seen, account.size, account.records) == (batch.num_rows, 0, 0)
    assert len(set(batch.column("doc_id").to_pylist())) == batch.num_rows
    assert [verdict["reason"] for verdict in transform(batch).column("verdict").to_pylist()] == [
        REASON
    ] * batch.num_rows


def entry(account: str, rows: int, reason: str = "", step: int = 0, source: str = "canary-web") -> Entry:
    return Entry("1-read", "canary-web", source, step, "x", "documents", "", account, reason, rows)


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ([], "of 0 canary documents 0"),
        ([entry("in", 16), entry("out", 16, step=1)], "of 16 canary documents 0"),
        ([entry("in", 16), entry("dropped", 15, REASON, 1), entry("out", 1, step=1)], "of 16 canary documents 15"),
        ([entry("in", 16), entry("dropped", 16, "quality.min_score", 1)], "of 16 canary documents 0"),
        ([entry("in", 16, source="web"), entry("dropped", 16, REASON, 1, "web")], "of 0 canary documents 0"),
    ],
)
def test_canaries_that_were_not_caught(entries, found):
    with pytest.raises(HeadraceError, match=f"source canary-web: {found} were found contaminated"):
        check_canaries(entries, "canary-web")


def test_canaries_that_were_caught():
    check_canaries([entry("in", 16), entry("dropped", 16, REASON, 1), entry("in", 9, source="web")], "canary-web")
