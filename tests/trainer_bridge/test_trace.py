"""`headrace trace`: a step's documents, their origins, and the text that they decode to."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest
from click.testing import CliRunner
from plans import made_plan

from headrace import main
from mixtures.plan import Plan
from tokenizer.decode import decode
from trainer_bridge.errors import StreamError
from trainer_bridge.stream import Stream
from trainer_bridge.trace import ids_of, trace_document, trace_step

FRACTIONS = {"text": {"epochs": "3/2"}, "code": {"epochs": 2}, "instructions": {"epochs": 1, "cut": "never"}}


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


def test_a_document_back_to_its_steps(tmp_path):
    """The inverse of all traces, for every document: brute force over the whole run."""
    plan = Plan.load(made_plan(tmp_path, global_batch=5, validation={"share": "1/10"}, classes=FRACTIONS))
    stream, expected = Stream(plan), defaultdict(list)
    for step in range(plan.steps):
        for seen in trace_step(stream, step):
            if (step, seen.row) not in expected[seen.doc_id]:
                expected[seen.doc_id].append((step, seen.row))
    nothing = 0
    for source in range(3):
        documents = stream.documents(source, 0)
        for doc_id in documents.read(0, len(documents), ["doc_id"]).column("doc_id").to_pylist():
            sightings = trace_document(stream, doc_id.hex())
            assert [(sighting.step, sighting.row) for sighting in sightings] == expected[doc_id.hex()]
            nothing += not sightings
    assert nothing > 10
    with pytest.raises(StreamError, match="is in no source of the plan"):
        trace_document(stream, "0" * 32)
    with pytest.raises(StreamError, match="is no id of 32 hex digits"):
        trace_document(stream, "abc")


def test_the_command_for_a_document(plan, stream):
    seen = next(trace_step(stream, 2))
    lines = call("trace", "-p", plan.path, "--document", seen.doc_id, "--json").output.splitlines()
    sightings = trace_document(stream, seen.doc_id)
    assert [json.loads(line)["step"] for line in lines] == [sighting.step for sighting in sightings]
    assert 2 in [sighting.step for sighting in sightings]
    shown = call("trace", "-p", plan.path, "-d", seen.doc_id).output.splitlines()[2:]
    assert [int(line.split("│")[-1]) for line in shown] == [sighting.sequence for sighting in sightings]


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
        (["--step", 100_000], 1, "Error: step 100,000: the plan has"),
        (["--step", 1, "--column", 3], 2, "--column is a place in a sequence: give its --row"),
        ([], 2, "give a --step, or a --document"),
        (["--document", "00", "--row", 1], 2, "--row, --column and --text belong to a --step"),
        (["--step", -1], 2, "-1 is not in the range x>=0"),
        (["--step", 1, "--row", 9], 1, "Error: row 9: step 1 has 5 sequences"),
    ],
)
def test_what_cannot_be_traced(plan, words, status, said):
    result = call("trace", "--plan", plan.path, *words)
    assert result.exit_code == status
    assert said in result.output


def test_where_no_document_stands(plan, stream):
    last = plan.steps - 1
    empty = int(np.flatnonzero(stream.step(last).used == 0)[0])
    words = ("trace", "--plan", plan.path, "--step", last, "--row", empty)
    for more in ((), ("--text",), ("--column", 3)):
        result = call(*words, *more)
        assert (result.exit_code, result.output.count("no document stands there")) == (0, 1)
    assert call(*words, "--json").output == ""


def test_no_plan(tmp_path):
    result = call("trace", "--plan", tmp_path / "none.json", "--step", 0)
    assert result.exit_code == 1
    assert "none.json: cannot be read (No such file or directory)" in result.output
