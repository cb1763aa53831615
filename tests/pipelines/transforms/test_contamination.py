"""`contamination`: what is told, dropped and cut of documents that hold items of a small index."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from contamination_indexes import QUESTIONS, small_index
from made import PROSE
from rows import batch_of, document

from pipelines.errors import HeadraceError, RecipeError
from pipelines.schema import with_columns
from pipelines.transforms.contamination import MOST_HITS, REASON, Contamination
from pipelines.transforms.given_files import GivenFile

LONG, WHOLE, GERMAN = QUESTIONS.values()


def run(*texts: str | None, turns: Any = None, **fields: Any) -> list[dict[str, Any]]:
    batch = batch_of(document(text, natural_key=str(n), turns=turns) for n, text in enumerate(texts))
    result = Contamination(index=small_index(), **fields)(batch)
    result.validate(full=True)
    assert result.schema == with_columns(batch.schema, Contamination.adds, ())
    return result.to_pylist()


def hit(text: str, item: str, part: str, score: int = 10_000) -> dict[str, Any]:
    start = len(text[: text.index(part)].encode())
    return {"item": item, "start": start, "end": start + len(part.encode()), "score": score}


def test_clean_texts_are_left_alone():
    for action in ("drop", "cut"):
        for row, text in zip(
            run(PROSE, "", None, WHOLE[:-8], action=action), (PROSE, "", None, WHOLE[:-8]), strict=True
        ):
            assert (row["contamination"], row["verdict"], row["text"]) == (None, None, text)


@pytest.mark.parametrize("item", QUESTIONS)
@pytest.mark.parametrize("form", ["{}", "{0} {1} {0}", "é{0}\n{1}", "{1}\n\n{0}"])
def test_a_document_with_an_item_is_dropped(item, form):
    question = QUESTIONS[item].strip("?")
    text = form.format(PROSE, question)
    if question not in text:
        text += " " + question
    (row,) = run(text)
    assert row["contamination"] == [hit(text, item, question)]
    assert row["text"] == text
    needed = "< 10000" if item == "mill:1" else "< 8000"
    assert row["verdict"] == {
        "outcome": "dropped", "reason": "contamination.contaminated", "value": f"{item} 10000", "threshold": needed
    }  # fmt: skip


def test_case_marks_and_punctuation_do_not_matter():
    for changed in (GERMAN.upper(), GERMAN.replace("ü", "u"), GERMAN.replace(",", " -- ") + "!"):
        (row,) = run(changed)
        assert [(one["item"], one["score"]) for one in row["contamination"]] == [("mill:2", 10_000)]


def test_words_that_are_not_there_lower_the_score():
    """All n-grams are of one item of three, so all words weigh the same: of 32 words 29 are 9062 / 10000."""
    changed = LONG.replace("twelve", "some").replace("metres", "feet").replace("second", "other")
    (row,) = run(changed)
    assert [one["score"] for one in row["contamination"]] == [29 * 10_000 // 32]
    (row,) = run(changed, threshold=9_100)
    assert row["contamination"] is None
    (row,) = run(WHOLE.replace("cat", "dog"))
    assert row["contamination"] is None


def test_cut_takes_out_what_was_found():
    text = f"{PROSE} «{LONG}» {PROSE} {WHOLE}"
    (row,) = run(text, action="cut")
    long, whole = LONG.strip("?"), WHOLE.strip("?")
    assert row["text"] == f"{PROSE} «?» {PROSE} ?"
    assert row["verdict"] is None
    assert row["contamination"] == [hit(text, "mill:0", long), hit(text, "mill:1", whole)]


def test_cut_drops_what_has_no_word_left():
    text = f"{WHOLE} * {LONG}"
    for row in run(text, PROSE, LONG.upper(), action="cut"):
        if row["text"] != PROSE:
            assert row["text"] in (text, LONG.upper())
            assert row["verdict"]["reason"] == REASON


def test_cut_moves_turns():
    question = LONG.strip("?")
    text = f"{question}? Two."
    turns = [
        {"role": "user", "start": 0, "end": len(question) + 1, "weight": 0},
        {"role": "assistant", "start": len(question) + 2, "end": len(text), "weight": 256},
    ]
    (row,) = run(text, turns=turns, action="cut")
    assert row["text"] == "? Two."
    assert [(turn["start"], turn["end"]) for turn in row["turns"]] == [(0, 1), (2, 6)]


def test_at_most_so_many_hits_are_told_and_all_are_cut():
    text = "\n".join(f"{WHOLE} number {number}" for number in range(MOST_HITS + 4))
    (row,) = run(text, action="cut")
    assert len(row["contamination"]) == MOST_HITS
    assert "miller" not in row["text"]
    assert [one["start"] for one in row["contamination"]] == sorted(one["start"] for one in row["contamination"])


def test_the_best_is_told_first():
    text = f"{LONG.replace('twelve', 'some')} {GERMAN}"
    (row,) = run(text)
    assert [one["item"] for one in row["contamination"]] == ["mill:2", "mill:0"]
    assert row["verdict"]["value"] == "mill:2 10000"


def test_evidence_is_that_of_the_verdict():
    batch = batch_of([document(LONG), document(PROSE)])
    (dropped,), (kept,) = Contamination(index=small_index()).evidence(batch)
    assert (dropped.rule, dropped.value, dropped.threshold, dropped.passed) == (REASON, "mill:0 10000", "< 8000", False)
    assert (kept.rule, kept.value, kept.passed) == (REASON, "nothing", True)


def test_rejects_carry_the_evidence():
    from pipelines.sources.tables import Table
    from pipelines.stage import Chain, MapStage
    from pipelines.storage.local import LocalStorage

    transform = Contamination(index=small_index())
    chain = Chain(Table(name="c4", include=("x",)), LocalStorage("unused"), (transform,))
    stage = MapStage("1-read", {"c4": chain}, transform.adds, ())
    assert stage.rejects.field("contamination").type == transform.adds.field("contamination").type


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"action": "mark"}, "allowed are drop, cut"),
        ({"threshold": 4_999}, "5000 to 10000"),
        ({"threshold": 1e4}, "1000"),
    ],
)
def test_fields_that_make_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        Contamination(index=small_index(), **fields)


def test_a_file_that_is_no_index(tmp_path):
    path = tmp_path / "not.index"
    path.write_bytes(b"PAR1 nothing PAR1")
    given = GivenFile.of(path)
    with pytest.raises(HeadraceError, match=r"not\.index: is no contamination index"):
        Contamination(index=given)(batch_of([document()]))
    path.unlink()
    with pytest.raises(RecipeError, match="must lie at this path"):
        Contamination(index=dataclasses.replace(given, sha256="0" * 64))(batch_of([document()]))
