"""`headrace trace`: a step's documents, their origins, and the text that they decode to."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from plans import made_plan

from headrace import main
from mixtures.plan import Plan
from tokenizer.decode import decode
from trainer_bridge.errors import StreamError
from trainer_bridge.stream import Stream
from trainer_bridge.trace import ids_of, trace_step


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return Plan.load(made_plan(tmp_path_factory.mktemp("plan"), global_batch=5))


@pytest.fixture(scope="module")
def stream(plan) -> Stream:
    return Stream(plan)


def call(*words: object):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_pieces_of_a_step_are_its_tokens(stream):
    for step in (0, 7, stream.plan.steps - 1):
        batch, covered = stream.step(step), np.zeros((5, 64), bool)
        for seen in trace_step(stream, step):
            covered[seen.row, seen.first : seen.last] = True
            assert np.array_equal(batch.tokens[seen.row, seen.first : seen.last], ids_of(stream, seen))
            assert seen.end - seen.start == seen.last - seen.first <= seen.tokens
            place = list(stream.plan.sources).index(seen.source)
            documents = stream.documents(place, 0)
            ids = [name.hex() for name in documents.read(0, len(documents), ["doc_id"]).column(0).to_pylist()]
            number = ids.index(seen.doc_id)
            assert documents.lengths(number, number + 1)[0] == seen.tokens
            assert seen.origin["origin_path"] == f"{seen.source}.warc"
            assert seen.origin["origin_offset"] == 1000 * number
            assert seen.manifest == documents.manifest.path
        assert covered.sum() == batch.used.sum()


def test_one_row_and_one_column(stream):
    whole = list(trace_step(stream, 3))
    for row in range(5):
        assert list(trace_step(stream, 3, row)) == [seen for seen in whole if seen.row == row]
        for column in (0, 31, 63):
            expected = [seen for seen in whole if seen.row == row and seen.first <= column < seen.last]
            assert list(trace_step(stream, 3, row, column)) == expected
    with pytest.raises(StreamError, match="row 5: step 3 has 5 sequences"):
        list(trace_step(stream, 3, 5))
    with pytest.raises(StreamError, match="column 64: a sequence has 64 tokens"):
        list(trace_step(stream, 3, 0, 64))


def test_the_command(plan, stream):
    lines = [json.loads(line) for line in call("trace", "--plan", plan.path, "--step", 2, "--json").output.splitlines()]
    seen = list(trace_step(stream, 2))
    assert [line["doc_id"] for line in lines] == [piece.doc_id for piece in seen]
    assert [line["ids"] for line in lines] == [ids_of(stream, piece).tolist() for piece in seen]
    table = call("trace", "-p", plan.path, "-s", 2, "-r", 1).output
    for piece in seen:
        assert (piece.doc_id in table) == (piece.row == 1)
    assert f"headrace replay {seen[0].output}" in table
    text = call("trace", "-p", plan.path, "-s", 2, "-r", 1, "-c", 0, "--text").output
    [first] = trace_step(stream, 2, 1, 0)
    assert first.doc_id in text
    shown = decode(ids_of(stream, first), plan.encoding)
    assert shown.split()[0][:5] in text


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--step", 100_000], 1, "Error: step: the plan has"),
        (["--step", 1, "--column", 3], 2, "--column is a place in a sequence: give its --row"),
        (["--step", -1], 2, "-1 is not in the range x>=0"),
        (["--step", 1, "--row", 9], 1, "Error: row 9: step 1 has 5 sequences"),
    ],
)
def test_what_cannot_be_traced(plan, words, status, said):
    result = call("trace", "--plan", plan.path, *words)
    assert result.exit_code == status
    assert said in result.output


def test_no_plan(tmp_path):
    result = call("trace", "--plan", tmp_path / "none.json", "--step", 0)
    assert result.exit_code == 1
    assert "none.json: cannot be read (No such file or directory)" in result.output
