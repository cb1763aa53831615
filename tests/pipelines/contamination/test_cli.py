"""`headrace contamination-index`: what it writes, says and refuses."""

from __future__ import annotations

import hashlib
import json

from click.testing import CliRunner, Result
from contamination_indexes import QUESTIONS

from headrace import main
from pipelines.contamination.index import ContaminationIndex


def make(*words: object) -> Result:
    return CliRunner().invoke(main, ["contamination-index", *(str(word) for word in words)])


def test_files_become_an_index(tmp_path):
    one, two, output = tmp_path / "one.jsonl", tmp_path / "two.jsonl", tmp_path / "eval.index"
    questions = list(QUESTIONS.values())
    one.write_text("".join(json.dumps({"question": text}) + "\n" for text in [questions[0], "Short?"]))
    two.write_text(json.dumps({"question": questions[1]}))
    result = make(f"mill={one}", f"mill={two}", f"copy={one}", "-o", output)
    assert result.exit_code == 0, result.output
    index = ContaminationIndex.unpack(output.read_bytes(), "eval.index")
    assert index.items.column("item").to_pylist()[:2] == ["mill:0", "mill:2"]
    assert index.inputs == tuple(
        (name, hashlib.sha256(file.read_bytes()).hexdigest())
        for name, file in [("mill", one), ("mill", two), ("copy", one)]
    )
    lines = [line.replace("│", " ").split() for line in result.output.splitlines()]
    assert ["mill", "3", "2", "0", "1", "0"] in lines
    assert ["copy", "2", "0", "1", "1", "0"] in lines
    assert hashlib.sha256(output.read_bytes()).hexdigest() in result.output


def test_named_fields(tmp_path):
    file, output = tmp_path / "own.jsonl", tmp_path / "eval.index"
    file.write_text(json.dumps({"story": QUESTIONS["mill:0"], "ask": "Why?", "is": "So."}))
    assert make(f"own={file}", "-o", output).exit_code == 1
    assert make(f"own={file}", "-o", output, "--fields", "story,ask:is").exit_code == 0
    index = ContaminationIndex.unpack(output.read_bytes(), "x")
    assert index.items.slice(0, 1).to_pylist() == [
        {"item": "own:0", "question": f"{QUESTIONS['mill:0']}\nWhy?", "answer": "So."}
    ]


def test_what_is_refused(tmp_path):
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps({"question": QUESTIONS["mill:0"]}))
    for words, message in (
        ((file,), "is no NAME=FILE"),
        ((f"canary={file}",), "is no name for a set"),
        ((f"a={tmp_path / 'gone'}",), "cannot be read"),
    ):
        result = make(*words, "-o", tmp_path / "eval.index")
        assert result.exit_code == 1
        assert message in result.output.replace("\n", " ")
    result = make(f"a={file}", "-o", tmp_path / "no/eval.index")
    assert "cannot be written" in result.output
