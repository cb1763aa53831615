"""Evaluation files as items: the published shapes, and files that are none."""

from __future__ import annotations

import gzip
import json

import pytest
from runs import SHARED

from pipelines.contamination.items import Item, Shape, bare, read_items
from pipelines.errors import HeadraceError

SHAPED = [
    (
        {"task_id": "HumanEval/3", "prompt": "def f():", "canonical_solution": "pass"},
        Item("s:HumanEval/3", "def f():", "pass"),
    ),
    ({"task_id": 7, "text": "Write f.", "code": "pass"}, Item("s:7", "Write f.", "pass")),
    ({"question": "How many?", "answer": "4"}, Item("s:0", "How many?", "4")),
    ({"eval_key": "x", "doc_id": 9, "passage": "P.", "question": "Q?", "answer": "A"}, Item("s:9", "P.\nQ?", "A")),
    ({"eval_key": "x", "doc_id": 9, "question": "Q?", "is_correct": True}, Item("s:9", "Q?", "")),
    ({"context": "It was", "continuation": "late"}, Item("s:0", "It was\nlate", "")),
    ({"context": "Roll a die.", "answer": 6}, Item("s:0", "Roll a die.", "6")),
    ({"query": "Question: Why?\nAnswer:", "choices": ["x", "y"], "gold": 1}, Item("s:0", "Why?", "y")),
    ({"context_options": ["a", "b"], "continuation": "c", "gold": 0}, Item("s:0", "a\nc", "")),
]


@pytest.mark.parametrize(("row", "item"), SHAPED)
def test_published_shapes(row, item, tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps(row) + "\n\n")
    assert read_items("s", path)[0] == [item]


def test_named_fields_and_numbers_go_on(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text('{"a": "x", "b": "y", "c": "z"}\n{"b": "w"}\n')
    items, _ = read_items("s", path, Shape(("a", "b"), "c"), first=5)
    assert items == [Item("s:5", "x\ny", "z"), Item("s:6", "w", "")]


def test_wrong_choices_are_left_out_and_compression_does_not_matter(tmp_path):
    lines = '{"eval_key": "x", "question": "Q?", "is_correct": false}\n{"eval_key": "x", "question": "Q?"}\n'
    plain, packed = tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz"
    plain.write_text(lines)
    packed.write_bytes(gzip.compress(lines.encode()))
    assert read_items("s", plain) == read_items("s", packed)
    assert len(read_items("s", plain)[0]) == 1


def test_labels_and_choices_of_prompts():
    assert bare("Passage: Water.\nQuestion: Why?\nChoices:\nA. x\nB. y\nAnswer:") == "Water.\nWhy?"
    assert bare("The Question: why?") == "The Question: why?"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "items.jsonl:1: is no JSON"),
        ("\n[1]", "items.jsonl:2: found list"),
        ('{"x": "y"}', "its fields are x, known are questions in prompt, (?s:.*)--fields"),
        ('{"question": ""}', "question hold no text"),
        ('{"question": {}}', "field 'question' is a dict, allowed is text"),
    ],
)
def test_what_is_no_evaluation_file(content, message, tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text(content)
    with pytest.raises(HeadraceError, match=message):
        read_items("s", path)
    with pytest.raises(HeadraceError, match=r"gone\.jsonl: cannot be read: No such file"):
        read_items("s", tmp_path / "gone.jsonl")
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"question": "a"}')[:-4])
    with pytest.raises(HeadraceError, match=r"cut\.jsonl\.gz: is damaged"):
        read_items("s", cut)


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("file", "number"),
    [
        ("HumanEval.jsonl.gz", 164), ("gsm8k_test.jsonl", 1319), ("mbpp.jsonl", 974), ("llm-foundry/boolq.jsonl", 3270),
        ("llm-foundry/winograd_wsc.jsonl", 273), ("decon/bundled-evals/mmlu_dev-1.jsonl.gz", 285),
    ],
)  # fmt: skip
def test_real_files_have_as_many_items_as_they_should(file, number):
    items, _ = read_items("s", SHARED / "benchmarks" / file)
    assert len(items) == number
    assert all(item.question for item in items)
