"""The figures of docs/decontamination.md, on fewer planted questions: a gate."""

from __future__ import annotations

from functools import cache

import pytest
from runs import SHARED

from benchmarks import contamination as benchmark
from pipelines.contamination.build import build_index
from pipelines.contamination.index import ContaminationIndex
from pipelines.contamination.prepared import THRESHOLD, Prepared, prepare

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")


@cache
def made() -> tuple[ContaminationIndex, Prepared, dict[str, str]]:
    """Return the index of all sets that are here, prepared, and the documents."""
    index, _ = build_index(benchmark.read_sets(SHARED / "benchmarks"), [])
    prepared = prepare(index.items.column("item"), index.items.column("question"), THRESHOLD)
    return index, prepared, {**benchmark.read_english_texts(SHARED), **benchmark.wikipedia(SHARED)}


def test_planted_questions_are_found():
    index, prepared, documents = made()
    result = benchmark.recall(index, prepared, list(documents.values()), 400, {})
    found = {name: one["found"] / one["planted"] for name, one in result.items()}
    assert found["verbatim"] == found["case"] == found["embedded"] == 1
    assert found["punctuation"] >= 0.99
    assert found["one word in ten"] >= 0.97
    assert found["embedded, all edits"] >= 0.97


def test_real_documents_hold_two_quotations_and_nothing_else():
    """Both were read: Jefferson's inaugural address, and the letter of the Continental Congress of 1777."""
    hits = benchmark.hits(*made())
    assert [(hit["document"].partition(":")[0], hit["item"].partition(":")[0]) for hit in hits] == [
        ("nltk/inaugural/1801-Jefferson.txt", "decon_mmlu_test"),
        ("wikipedia/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2", "decon_mmlu_test"),
    ]
