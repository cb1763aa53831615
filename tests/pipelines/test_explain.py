"""`headrace explain`: the way of a document of every fate, with what was measured and what is allowed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from made import PAGES, made_recipe
from runs import run_recipe

from headrace import main
from pipelines.errors import VerifyError
from pipelines.explain import Explanation, explain_document
from pipelines.sources.source import doc_id


def page_id(name: str) -> str:
    return doc_id("web", f"urn:uuid:00000000-0000-0000-0000-{list(PAGES).index(name):012d}").hex()


def steps(explanation: Explanation) -> list[tuple[str, str, str]]:
    return [(line.stage, line.step, line.verdict) for line in explanation.rows]


def stop(explanation: Explanation) -> tuple[str, str, str, str, str]:
    """Return the one line that says why the document went no further; it is the last."""
    lines = [line for line in explanation.rows if line.verdict not in ("kept", "fails")]
    assert len(lines) == 1
    (line,) = lines
    return line.stage, line.rule, line.value, line.threshold, line.verdict


def test_a_kept_document(finished):
    explanation = explain_document(finished, page_id("twice"))
    assert explanation.doc_id == page_id("twice")
    assert explanation.end == "is in the token shards"
    facts = explanation.facts
    assert (facts["source"], facts["origin_path"], facts["url"]) == ("web", "pages.warc", "http://mill.example/twice")
    assert (facts["language"], str(facts["date"])) == ("en", "2024-05-06 07:08:09+00:00")
    lines = explanation.rows
    assert [line.step for line in lines if line.stage == "1-read"][:2] == ["read", "extract"]
    rules = {line.rule: line for line in lines}
    assert set(rules) >= {"extract.too_large", "language", "language_score", "gopher_quality.min_words", "same_key"}
    assert rules["gopher_quality.min_words"].threshold == ">= 40"
    assert rules["language"].value == "en"
    assert rules["exact_duplicate"].value == "no earlier copy"
    assert rules["encode"].value.endswith(" tokens")
    assert {line.verdict for line in lines} == {"kept", "dropped[same_key]"}


def test_the_tokens_are_those_in_the_shard(finished):
    explanation = explain_document(finished, page_id("twice"))
    said = next(line.value for line in explanation.rows if line.step == "encode")
    for path in finished.glob("tokens/web/*/*.docs.parquet"):
        for row in pq.read_table(path).to_pylist():
            if row["doc_id"].hex() == page_id("twice"):
                assert said == f"{row['tokens']} tokens"
                return
    raise AssertionError("not in the shards")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deep", ("1-read", "extract.too_complex", "depth 61", "depth <= 50", "dropped[extract.too_complex]")),
        ("empty", ("1-read", "extract.empty", "0 characters", ">= 1 character", "dropped[extract.empty]")),
        ("german", ("1-read", "language", "de", "in en", "dropped[language]")),
        ("short", ("1-read", "gopher_quality.min_words", "21", ">= 40", "dropped[gopher_quality.min_words]")),
        ("missing", ("1-read", "commoncrawl", "404", "200", "dropped[http_status]")),
    ],
)
def test_a_dropped_document(name, expected, finished):
    explanation = explain_document(finished, page_id(name))
    assert explanation.end == f"stopped in stage 1-read: {expected[-1]}"
    assert stop(explanation) == expected
    assert explanation.facts["url"] == f"http://mill.example/{name}"


def test_an_errored_record(finished):
    rejects = [row for path in finished.glob("stages/1-read/rejects/*") for row in pq.read_table(path).to_pylist()]
    (torn,) = [row for row in rejects if row["source"] == "web" and row["verdict"]["outcome"] == "errored"]
    explanation = explain_document(finished, torn["doc_id"].hex())
    assert explanation.end == "stopped in stage 1-read: errored[truncated_record]"
    assert stop(explanation)[1:4] == ("commoncrawl", f"pages.warc@{torn['origin_offset']}: response: header_cut", "")
    (talk,) = [row for row in rejects if row["source"] == "talks"]
    assert stop(explain_document(finished, talk["doc_id"].hex()))[-1] == "errored[conversation.type]"


def test_a_second_record_of_a_key_is_told_of(finished):
    explanation = explain_document(finished, page_id("twice"))
    (line,) = [line for line in explanation.rows if line.verdict == "dropped[same_key]"]
    assert line.stage == "2-identify"
    kept_at = explanation.facts["origin_offset"]
    assert line.value.startswith("pages.warc at ")
    assert line.value != f"pages.warc at {kept_at}"


def test_an_exact_duplicate(finished):
    ends = {name: explain_document(finished, page_id(name)) for name in ("good", "copy")}
    first, second = sorted(ends.values(), key=lambda explanation: explanation.doc_id)
    assert first.end == "is in the token shards"
    assert second.end == "stopped in stage 5-tokenize: dropped[exact_duplicate]"
    said = ("5-tokenize", "exact_duplicate", f"same text as {first.doc_id}", "the first of its text")
    assert stop(second) == (*said, "dropped[exact_duplicate]")
    assert not any(line.step == "encode" for line in second.rows)


def test_the_first_digits_are_enough_if_no_other_has_them(finished):
    asked = page_id("good")
    assert explain_document(finished, asked[:8]).doc_id == asked
    assert explain_document(finished, asked.upper()).doc_id == asked


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("0" * 32, "no document or reject of this run has it"),
        ("xyz", "is no hex number of at most 32 digits"),
        ("0" * 33, "is no hex number of at most 32 digits"),
        ("ab  cd", "is no hex number of at most 32 digits"),
        ("", "is no hex number of at most 32 digits"),
    ],
)
def test_an_id_that_there_is_not(asked, said, finished):
    with pytest.raises(VerifyError, match=said):
        explain_document(finished, asked)


def test_an_ambiguous_prefix(finished):
    ids = sorted(page_id(name) for name in PAGES if name != "torn")
    first = next(
        digit for digit in "0123456789abcdef" if sum(id_.startswith(digit) for id_ in ids) > 1
    )  # nine ids over 16 digits: fixed by the recipe
    with pytest.raises(VerifyError, match=r"\d ids begin so: .*\nhint: give more digits"):
        explain_document(finished, first)


def test_an_input_that_has_changed(tmp_path):
    recipe = made_recipe(tmp_path)
    run_recipe(recipe, tmp_path / "out")
    archive = tmp_path / "input/pages.warc"
    content = archive.read_bytes()
    archive.write_bytes(b"x" * len(content))
    with pytest.raises(VerifyError, match="no longer holds this record"):
        explain_document(tmp_path / "out", page_id("good"))
    archive.unlink()
    with pytest.raises(VerifyError, match="no longer holds this record"):
        explain_document(tmp_path / "out", page_id("good"))


def test_explain_needs_no_working_folder(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["explain", str(finished), page_id("deep")[:10]])
    assert result.exit_code == 0, result.output
    for words in (page_id("deep"), "dropped[extract.too_complex]", "depth 61", "depth <= 50", "mill.example/deep"):
        assert words in result.output


def test_what_does_not_print_is_shown_escaped(tmp_path):
    """A URL cannot send the terminal commands."""
    recipe = made_recipe(tmp_path)
    archive = tmp_path / "input/pages.warc"
    archive.write_bytes(archive.read_bytes().replace(b"mill.example/deep", b"mill.example/\x1b[2J"))
    run_recipe(recipe, tmp_path / "out")
    result = CliRunner().invoke(main, ["explain", str(tmp_path / "out"), page_id("deep")])
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert "mill.example/\\x1b[2J" in result.output


def test_no_network_and_no_writes(finished, tmp_path):
    """Explaining changes nothing in the output."""
    copy: Path = tmp_path / "out"
    subprocess.run(["cp", "-r", finished, copy], check=True)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    explain_document(copy, page_id("good"))
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
