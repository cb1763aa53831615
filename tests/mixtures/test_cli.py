"""`headrace mix`: a plan on disk, and a table that says what the run gets."""

from __future__ import annotations

from click.testing import CliRunner
from plans import made_documents, write_mixture, write_tokens

from headrace import main
from mixtures.plan import Plan


def call(*words: object):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_a_mixture_becomes_a_plan(tmp_path):
    web = write_tokens(tmp_path / "out", "web", made_documents("web", (10, 20, 30, 64, 100)))
    talks = write_tokens(tmp_path / "out", "talks", made_documents("talks", (40, 65, 5)))
    mixture = write_mixture(tmp_path, {"web": (web, "text"), "talks": (talks, "instructions")})
    result = call("mix", mixture, "--output", tmp_path / "plan.json", "--workers", 1)
    assert result.exit_code == 0, result.output
    plan = Plan.load(tmp_path / "plan.json")
    rows = {
        line.split("│")[0].strip(): [cell.strip() for cell in line.split("│")[1:]]
        for line in result.output.splitlines()
        if "│" in line
    }
    assert rows["web"] == ["text", "5", "224", "0", "2", "448", "8", "88.89%", "12.50%"]
    assert rows["talks"] == ["instructions", "2", "45", "0", "1", "45", "1", "11.11%", "29.69%"]
    assert rows["total"] == ["", "7", "269", "0", "", "493", "9", "100.00%", "14.41%"]
    assert "talks: 1 documents of 65 tokens dropped[longer_than_sequence]" in result.output
    assert "3 steps of 4 sequences of 64 tokens, the last one of 1 sequences" in result.output
    assert f"plan {plan.fingerprint} in " in result.output
    again = call("mix", mixture, "--output", tmp_path / "plan.json")
    assert again.exit_code == 0
    assert Plan.load(tmp_path / "plan.json") == plan


def test_a_fraction_is_said_to_be_one(tmp_path):
    web = write_tokens(tmp_path / "out", "web", made_documents("web", (60, 61, 62, 63)))
    mixture = write_mixture(tmp_path, {"web": (web, "text")}, classes={"text": {"epochs": "1/2"}})
    output = call("mix", mixture, "--output", tmp_path / "plan.json").output
    assert "≈ 123" in output
    assert "a fraction of an epoch ends in the middle of a window" in output


def test_a_mixture_that_cannot_be(tmp_path):
    result = call("mix", tmp_path / "none.yaml", "--output", tmp_path / "plan.json")
    assert result.exit_code == 1
    assert "Error: " in result.output
    assert "hint: give the path of a mixture file" in result.output
    assert not (tmp_path / "plan.json").exists()
