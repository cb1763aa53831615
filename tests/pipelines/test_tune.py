"""`headrace tune`: values in documents and rejects, shares by threshold, documents on both sides of the line."""

from __future__ import annotations

import dataclasses
import json
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from made import PROSE
from quality_models import small_model
from rows import batch_of, document
from runs import REPOSITORY, SHARED, run_recipe
from trees import tree_hashes

from headrace import main
from pipelines.errors import RecipeError, VerifyError
from pipelines.explain import explain_document
from pipelines.ledger import stage_total
from pipelines.recipe import load_recipe
from pipelines.schema import REJECTS
from pipelines.transforms.conversation_quality import ConversationQuality
from pipelines.transforms.pii import Pii
from pipelines.transforms.quality import Quality
from pipelines.transforms.registry import TRANSFORMS
from pipelines.transforms.rules import Rule, RuleFilter
from pipelines.tune import Example, FilterTuning, RuleTuning, Threshold, Tuning, strictest_limit, tune_recipe
from pipelines.tune import _breaks as breaks
from pipelines.verify import verify_output

RECIPE = """
name: notes
sources:
  notes:
    reader: table
    root: in
    include: ["*.jsonl"]
    transforms:
      - gopher_quality: {{values: {values}, drop: {drop}, min_words: {min_words}, min_stop_words: 1{more}}}
  others: {{reader: table, root: others, include: ["*.jsonl"]}}
output: {{buckets: 2}}
"""
HOSTILE = "\x1b[2J\u202eriver\0 " * 3 + "[bold]"


def write_recipe(folder: Path, name: str = "notes.yaml", **given: object) -> Path:
    """Write a recipe whose filter has two rules that matter, with values."""
    settings = {"values": "true", "drop": "true", "min_words": 5, "more": "", **given}
    path = folder / name
    path.write_text(RECIPE.format(**settings))
    return path


def note(number: int) -> str:
    """Return a note of `number` words, the last of which, where the number is even, is the only stop word."""
    return " ".join(["river"] * (number - 1) + ["the" if number % 2 == 0 else "mill"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Notes of 1 to 20 words in two files, and one line that is no row; a source without filters; a finished run."""
    folder = tmp_path_factory.mktemp("tune")
    for name in ("in", "others"):
        (folder / name).mkdir()
    rows = [json.dumps({"text": note(number)}) for number in range(1, 21)]
    (folder / "in/a.jsonl").write_text("\n".join([*rows[:7], "{broken", *rows[7:9]]) + "\n")
    (folder / "in/b.jsonl").write_text("\n".join(rows[9:]) + "\n")
    (folder / "others/c.jsonl").write_text(json.dumps({"text": "another source"}) + "\n")
    run_recipe(write_recipe(folder), folder / "out")
    return folder


def tune(recipe: Path, output: Path, **given: object) -> Tuning:
    return tune_recipe(recipe, output, lambda *_: None, **given)


def rule_of(tuning: Tuning, name: str) -> RuleTuning:
    ((found,),) = [[rule for rule in one.rules if rule.rule == name] for one in tuning.filters]
    return found


def rows_of(output: Path, table: str, stage: str = "1-read") -> list[dict]:
    return [row for path in sorted(output.glob(f"stages/{stage}/{table}/*")) for row in pq.read_table(path).to_pylist()]


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


# Values in rejects


def test_rejects_have_the_values_of_the_rows_that_the_filter_itself_rejects(folder):
    rejects = rows_of(folder / "out", "rejects")
    words = [
        (row["transform"], row["gopher_quality_min_words"], row["gopher_quality_min_stop_words"]) for row in rejects
    ]
    # notes of 1 to 4 words, and the odd ones, which have no stop word
    expected = [(number, (number + 1) % 2) for number in range(1, 21) if number < 5 or number % 2]
    assert sorted(words, key=str) == sorted(
        [("read", None, None), *(("gopher_quality", float(a), float(b)) for a, b in expected)], key=str
    )
    kept = {(row["source"], row["gopher_quality_min_words"]) for row in rows_of(folder / "out", "documents")}
    assert kept == {("others", None), *(("notes", float(number)) for number in range(6, 21, 2))}


def test_rejects_have_more_columns_only_where_values_are_asked_for(folder, tmp_path):
    for values, more in (("true", 10), ("false", 0)):
        recipe = write_recipe(folder, f"{values}.yaml", values=values)
        run_recipe(recipe, tmp_path / values)
        read, later = (
            [pq.read_schema(path) for path in (tmp_path / values).glob(f"stages/{stage}/rejects/*")]
            for stage in ("1-read", "[!1]*")
        )
        assert all(schema.equals(REJECTS) for schema in later)
        for schema in read:
            assert schema.names[: len(REJECTS)] == REJECTS.names
            assert all(schema.field(place).type == pa.float64() for place in range(len(REJECTS), len(schema)))
            assert len(schema) == len(REJECTS) + more


def test_a_run_with_values_verifies_and_explains(folder):
    assert list(verify_output(folder / "out"))
    (row,) = [row for row in rows_of(folder / "out", "rejects") if row["gopher_quality_min_words"] == 3]
    explained = explain_document(folder / "out", row["doc_id"].hex())
    assert [line.value for line in explained.rows if line.rule == "gopher_quality.min_words"] == ["3"]


@pytest.mark.parametrize("batch_rows", [1, 4])
def test_batches_change_no_byte_of_rejects_with_values(folder, tmp_path, batch_rows):
    from pipelines.sources.source import BatchLimits

    run_recipe(folder / "notes.yaml", tmp_path / "out", limits=BatchLimits(max_rows=batch_rows), shuffle=1)
    assert tree_hashes(tmp_path / "out") == tree_hashes(folder / "out")


def test_two_filters_of_a_kind_cannot_both_leave_values(folder):
    recipe = folder / "twice.yaml"
    lines = (folder / "notes.yaml").read_text().splitlines()
    place = next(place for place, line in enumerate(lines) if "gopher_quality" in line)
    recipe.write_text("\n".join([*lines[: place + 1], *lines[place:]]))
    with pytest.raises(RecipeError, match="gopher_quality_min_words: is already there(.|\n)*hint: of two filters"):
        run_recipe(recipe, folder / "twice")


def test_of_two_filters_of_a_kind_the_one_with_values_is_shown(folder, tmp_path):
    recipe = folder / "second.yaml"
    text = (folder / "notes.yaml").read_text()
    first = "- gopher_quality: {min_words: 3, min_stop_words: null}\n"
    recipe.write_text(text.replace("- gopher_quality", f"{first}      - gopher_quality"))
    run_recipe(recipe, tmp_path / "out")
    tuning = tune(recipe, tmp_path / "out")
    (one,) = tuning.filters
    assert (one.read, one.reached, tuning.unmeasured) == (21, 18, ("notes: gopher_quality",))
    assert rule_of(tuning, "min_words").marked("recipe").removed == 2, "the notes of 3 and 4 words"


# Shares by threshold


def test_golden_shares(folder):
    """Twenty notes of 1 to 20 words, a stop word in each even one; at least 5 words and 1 stop word are asked for."""
    tuning = tune(folder / "notes.yaml", folder / "out")
    (one,) = tuning.filters
    assert (one.source, one.filter, one.read, one.reached) == ("notes", "gopher_quality", 21, 20)
    assert one.removed == 12, "4 short ones and 10 odd ones, of which 2 are short too"
    words = rule_of(tuning, "min_words")
    assert dataclasses.replace(words, thresholds=()) == RuleTuning("min_words", ">=", 1, 20, 5, 50, ())
    assert words.thresholds == (
        Threshold(1, 0, 0, ("0.1%", "1%")),  # of 20 documents 1% is none: the shortest note must stay
        Threshold(2, 1, 0, ("5%",)),
        Threshold(3, 2, 1, ("10%",)),  # 1 and 2 go; 2 has a stop word
        Threshold(5, 4, 2, ("recipe",)),  # 1 to 4 go; 2 and 4 have a stop word
        Threshold(6, 5, 2, ("25%",)),
        Threshold(50, 20, 10, ("default",)),
    )
    stops = rule_of(tuning, "min_stop_words")
    assert stops.thresholds == (
        Threshold(0, 0, 0, ("0.1%", "1%", "5%", "10%", "25%")),
        Threshold(1, 10, 8, ("recipe",)),  # the odd ones; 5 to 19 are long enough
        Threshold(2, 20, 16, ("default",)),
    )


def test_thresholds_of_at_most(folder):
    """`max_words` orders the other way: what removes most comes last."""
    words = rule_of(tune(folder / "notes.yaml", folder / "out"), "max_words")
    assert [(row.limit, row.removed, row.marks) for row in words.thresholds] == [
        (100_000, 0, ("recipe", "default")), (20, 0, ("0.1%", "1%")), (19, 1, ("5%",)), (18, 2, ("10%",)),
        (15, 5, ("25%",)),
    ]  # fmt: skip


def test_the_recipe_may_have_other_thresholds_by_now(folder):
    changed = write_recipe(folder, "other.yaml", min_words=7, values="false", drop="false")
    tuning = tune(changed, folder / "out")
    assert [dataclasses.astuple(change) for change in tuning.changed] == [("notes", "gopher_quality.min_words", 5, 7)]
    words = rule_of(tuning, "min_words")
    assert (words.limit, words.marked("recipe").removed, words.marked("recipe").removed_only) == (7, 6, 3)
    assert tuning.filters[0].removed == 13, "2, 4, 6 and the ten odd ones"
    said = call("tune", changed, "-o", folder / "out").output
    assert "notes: gopher_quality.min_words: the run had 5, the recipe has 7: shown as the recipe's" in said


def test_a_rule_that_is_off(folder):
    off = write_recipe(folder, "off.yaml", min_words="null")
    tuning = tune(off, folder / "out")
    words = rule_of(tuning, "min_words")
    assert (words.limit, words.marked("recipe"), words.marked("default").removed) == (None, None, 20)
    assert tuning.filters[0].removed == 10
    assert call("tune", off, "-o", folder / "out", "--rule", "gopher_quality.min_words").exit_code == 0


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("min_words: 5", "stop_word_languages: [de]", "stop_word_languages"),
        ("buckets: 2", "buckets: 3", "output.buckets"),
        ("  others:", "  another:", "another"),
        ("transforms:", "transforms:\n      - language", "transforms"),
        ('include: ["*.jsonl"]\n    t', 'include: ["a.jsonl"]\n    t', "include"),
    ],
)
def test_another_recipe_is_refused(folder, old, new, said):
    other = folder / "another.yaml"
    assert old in (folder / "notes.yaml").read_text()
    other.write_text((folder / "notes.yaml").read_text().replace(old, new, 1))
    with pytest.raises(RecipeError, match=f"is not the recipe of .*{said}(.|\n)*hint: thresholds"):
        tune(other, folder / "out")


def test_a_trial_run_of_the_recipe_will_do(folder, tmp_path):
    assert call("run", folder / "notes.yaml", "-o", tmp_path / "out", "--limit", 2, "-w", 1).exit_code == 0
    (one,) = tune(folder / "notes.yaml", tmp_path / "out").filters
    assert (one.read, one.reached) == (4, 4)


def test_what_is_missing_is_named(folder, tmp_path):
    recipe = write_recipe(folder, "without.yaml", values="false")
    run_recipe(recipe, tmp_path / "out")
    with pytest.raises(RecipeError, match="holds no values(.|\n)*notes: gopher_quality(.|\n)*set `values: true`"):
        tune(recipe, tmp_path / "out")
    with pytest.raises(RecipeError, match="source 'web': there is none\nhint: its sources are notes, others"):
        tune(folder / "notes.yaml", folder / "out", source="web")
    with pytest.raises(RecipeError, match="holds no values of filters of source others"):
        tune(folder / "notes.yaml", folder / "out", source="others")
    with pytest.raises(RecipeError, match=r"rule 'min_words': has no values\nhint: .*gopher_quality\.min_words, "):
        tune(folder / "notes.yaml", folder / "out", rule="min_words")
    with pytest.raises(VerifyError, match="holds no finished run"):
        tune(folder / "notes.yaml", tmp_path / "none")


def test_a_damaged_file_is_named_without_a_traceback(folder, tmp_path):
    run_recipe(folder / "notes.yaml", tmp_path / "out")
    damaged = next((tmp_path / "out/stages/1-read/documents").iterdir())
    damaged.write_bytes(b"PAR1" + b"\0" * 20 + b"PAR1")
    result = call("tune", folder / "notes.yaml", "-o", tmp_path / "out")
    assert (result.exit_code, "Traceback" in result.output) == (1, False)
    assert all(word in result.output for word in (damaged.name, "hint: `headrace verify`"))
    damaged.unlink()
    result = call("tune", folder / "notes.yaml", "-o", tmp_path / "out")
    assert (result.exit_code, damaged.name in result.output) == (1, True)


# Both sides of the line


def test_documents_nearest_to_the_line(folder):
    (one,) = tune(folder / "notes.yaml", folder / "out", rule="gopher_quality.min_words", num_examples=2).filters
    seen = [(example.removed, example.value, example.also) for example in one.examples]
    assert seen == [(False, 6, ()), (False, 5, ("min_stop_words",)), (True, 4, ()), (True, 3, ("min_stop_words",))]
    assert [example.text for example in one.examples] == [note(number) for number in (6, 5, 4, 3)]
    ids = {
        row["doc_id"].hex(): row["text"]
        for row in rows_of(folder / "out", "documents") + rows_of(folder / "out", "rejects")
    }
    assert all(ids[example.doc_id] == example.text for example in one.examples)
    assert one.examples[0].origin_path == "a.jsonl"
    assert len(one.rules) == 1


def test_ties_are_cut_by_doc_id(folder):
    """Ten odd notes have no stop word, ten even ones have one: all are as near as can be."""
    (one,) = tune(folder / "notes.yaml", folder / "out", rule="gopher_quality.min_stop_words", num_examples=3).filters
    for removed in (False, True):
        rows = [
            row
            for row in rows_of(folder / "out", "documents") + rows_of(folder / "out", "rejects")
            if row["gopher_quality_min_stop_words"] == 1 - removed
        ]
        expected = sorted(row["doc_id"].hex() for row in rows)[:3]
        assert len(rows) == 10
        assert sorted(example.doc_id for example in one.examples if example.removed == removed) == expected


def test_a_text_is_shown_as_a_terminal_may_see_it(tmp_path):
    for name in ("in", "others"):
        (tmp_path / name).mkdir()
    rows = [{"text": text} for text in (HOSTILE, "x" * 100_000)]
    (tmp_path / "in/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = write_recipe(tmp_path)
    run_recipe(recipe, tmp_path / "out")
    words = ("tune", recipe, "-o", tmp_path / "out", "--rule", "gopher_quality.min_words")
    shown, as_json = call(*words).output, call(*words, "--json").output
    assert shown.isprintable() or all(char.isprintable() or char == "\n" for char in shown)
    assert "\\x1b[2J\\u202eriver\\x00" in shown
    assert "[bold]" in shown
    assert as_json.isascii()
    texts = [example["text"] for example in json.loads(as_json)["filters"][0]["examples"]]
    assert sorted(texts) == [HOSTILE, "x" * 300]


# The command


def test_the_output_is_the_same_every_time(folder):
    words = ("tune", folder / "notes.yaml", "-o", folder / "out")
    for more in ((), ("--json",), ("--rule", "gopher_quality.min_words", "--examples", 3)):
        first = call(*words, *more)
        assert first.exit_code == 0, first.output
        assert first.output == call(*words, *more).output
    data = json.loads(call(*words, "--json").output)
    assert data == json.loads(json.dumps(tune(folder / "notes.yaml", folder / "out").as_json()))
    assert list(data) == sorted(data)
    assert "of 21 documents read, 20 reached this filter; its rules remove 12 (60.00%)" in call(*words).output


def test_json_has_no_infinity():
    example = Example("web", True, float("inf"), "00", "a", 0, None, (), "")
    tuning = Tuning(None, (), (), (FilterTuning("web", "f", 1, 1, 1, (), (example,)),))
    json.dumps(tuning.as_json(), allow_nan=False)
    assert tuning.as_json()["filters"][0]["examples"][0]["value"] is None


DOCUMENT = REPOSITORY / "docs/tuning.md"


def test_the_walk_through_shows_what_is_so(tmp_path):
    text = DOCUMENT.read_text()
    (recipe,) = re.findall(r"^```yaml\n(# tuning.yaml\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    path = tmp_path / "tuning.yaml"
    path.write_text(recipe.replace("root: demo", f"root: {REPOSITORY / 'demo'}"))
    run_recipe(path, tmp_path / "out")
    shown = re.findall(r"^```bash\nheadrace tune (.*?)\n```\n```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(shown) == 2
    for words, output in shown:
        result = call("tune", *words.replace("tuning.yaml", str(path)).replace("OUT", str(tmp_path / "out")).split())
        assert result.exit_code == 0, result.output
        assert [line.rstrip() for line in result.output.strip().splitlines()] == output.strip().splitlines()


# Exactness


@st.composite
def judged(draw) -> tuple[Rule, np.ndarray]:
    """A rule with a limit, and statistics of documents that are near it, on it, or anywhere."""
    scale = draw(st.sampled_from([1, 100, 10_000]))
    limit, ratio = draw(st.integers(0, 10_000)), draw(st.booleans())
    rule = Rule("r", 0, 1 if ratio else None, draw(st.booleans()), limit, scale)
    rows = []
    for _ in range(draw(st.integers(1, 8))):
        denominator = draw(st.sampled_from([0, 1, 3, scale, 7 * scale]) | st.integers(0, 2**38 - 1))
        exact = limit * denominator // scale
        near = st.integers(max(exact - 2, 0), exact + 2)
        rows.append([draw(near | st.integers(0, 2**40)), denominator])
    return rule, np.array(rows, np.int64)


@settings(max_examples=300, deadline=None)
@given(judged())
def test_values_and_thresholds_give_the_verdict_of_the_integers(case):
    """Up to 2**38 in the denominator, as the module says."""
    rule, stats = case
    if max(stats[:, 0]) * rule.scale >= 2**63 or rule.limit * max(stats[:, 1]) >= 2**63:
        return  # beyond what the rule's own integers hold
    applies = np.arange(len(stats)) % 4 != 3
    values = rule.values(stats, applies)
    passed = rule.passed(stats) | ~applies
    assert (~breaks(rule, pa.chunked_array([values]).to_numpy(), rule.limit)).tolist() == passed.tolist()


NUMBERS = st.builds(lambda n, d: n / d, st.integers(0, 300), st.sampled_from([1, 3, 7, 10, 40])) | st.just(float("inf"))


@settings(max_examples=300, deadline=None)
@given(st.lists(NUMBERS, max_size=12), st.booleans(), st.sampled_from([1, 10, 10_000]), st.integers(0, 12))
def test_the_strictest_limit(numbers, at_least, scale, most):
    """It breaks at most `most` values, and the next stricter one more (or below 0 there is none)."""
    values = np.sort(np.array(numbers, float))
    limit = strictest_limit(values, at_least, scale, most)

    def broken(limit: int) -> int:
        return int((values < limit / scale if at_least else values > limit / scale).sum())

    if limit is None:
        place = most if at_least else len(values) - 1 - most
        assert most >= len(values) or values[place] == np.inf
    else:
        assert limit >= 0
        assert broken(limit) <= most < broken(limit + 1 if at_least else limit - 1)


# What tune asks of a family

FAMILIES = [step for step in TRANSFORMS.values() if issubclass(step, RuleFilter)]
WITHOUT_LIMITS = (ConversationQuality, Pii, Quality)
"""Families that drop none of `TEXTS` by default: one is about turns, two have no limit."""
TEXTS = [
    PROSE,
    PROSE.replace(". ", ".\n") * 3,
    "- a\n" * 9,
    "# " * 40,
    "wait...\n" * 5,
    "\n\n",
    "",
    "12\n3 likes\n",
    "x" * 99,
]


def made(family: type, **fields: bool) -> RuleFilter:
    return family(model=small_model(), **fields) if family is Quality else family(**fields)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_field_with_the_name_of_a_rule_is_its_limit_and_measures_nothing(family):
    """`tune` takes values measured with one such field for those of another."""
    batch = batch_of(document(text, language="en") for text in TEXTS)
    step = made(family)
    edited, stats = step.measured(batch)
    names = [rule.name for rule in step.rules if rule.name in {field.name for field in dataclasses.fields(family)}]
    assert names
    for name in names:
        other = dataclasses.replace(step, **{name: None})
        assert [rule.name for rule in step.rules if rule not in other.rules] in ([name], [])
        assert next(rule for rule in other.rules if rule.name == name).limit is None
        again, measured = other.measured(batch)
        assert np.array_equal(measured, stats)
        assert again.equals(edited)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_values_of_every_family_give_its_verdicts(family):
    batch = batch_of(document(text, language="en") for text in TEXTS)
    step = made(family, values=True)
    judged = step(batch)
    columns = [judged.column(f"{family.name}_{rule.name}").to_numpy(zero_copy_only=False) for rule in step.rules]
    broken = np.any(
        [breaks(rule, column, rule.limit) for rule, column in zip(step.rules, columns, strict=True)], axis=0
    )
    assert broken.tolist() == [verdict is not None for verdict in judged.column("verdict").to_pylist()]
    assert broken.any() != (family in WITHOUT_LIMITS)


# Real documents


@pytest.fixture(scope="module")
def crawl(tmp_path_factory) -> tuple[Path, Path, Path]:
    """The chain of recipes/crawl.yaml for C4, with values: (recipe, run that drops, run that only measures)."""
    if not SHARED.exists():
        pytest.skip("the shared data is not here")
    folder = tmp_path_factory.mktemp("crawl")
    (c4,) = re.findall(r"(?<=\n)  c4:\n.*?(?=\n  \w)", (REPOSITORY / "recipes/crawl.yaml").read_text(), re.DOTALL)
    chain = c4.replace("../../shared/data", str(SHARED.resolve()))
    outputs = []
    for drop in ("true", "false"):
        path = folder / f"{drop}.yaml"
        settings = f"gopher_quality: {{values: true, drop: {drop}}}"
        path.write_text(f"name: c4\nsources:\n{chain.replace('gopher_quality', settings)}\n")
        run_recipe(path, folder / drop)
        outputs.append(folder / drop)
    return folder / "true.yaml", outputs[0], outputs[1]


def test_real_documents_against_the_ledger(crawl):
    recipe, dropped, _ = crawl
    (one,) = tune(recipe, dropped).filters
    ledger = pq.read_table(dropped / "ledger.parquet")
    rows = [row for row in ledger.to_pylist() if row["transform"] == one.filter and row["account"] == "dropped"]
    assert one.removed == sum(row["rows"] for row in rows) > 20
    assert one.reached == one.removed + stage_total(ledger, "1-read", last=True)["c4"][0]
    for rule in one.rules:  # the ledger names the first broken rule alone
        first = sum(row["rows"] for row in rows if row["reason"] == f"{one.filter}.{rule.rule}")
        assert rule.marked("recipe").removed_only <= first <= rule.marked("recipe").removed
    assert list(verify_output(dropped))


def test_real_documents_against_the_filter_itself(crawl):
    """Every threshold shown, of every rule, against the integers of the documents measured anew."""
    recipe, _, measured = crawl
    tuning = tune(recipe, measured)
    (step,) = [step for step in load_recipe(recipe).sources[0].transforms if isinstance(step, RuleFilter)]
    tables = [pq.read_table(path) for path in sorted((measured / "stages/1-read/documents").iterdir())]
    batch = pa.concat_tables(tables).combine_chunks().to_batches()[0]
    _, stats = step.measured(batch)
    applies = step.applies(batch)
    checked = 0
    for place, (rule, shown) in enumerate(zip(step.rules, tuning.filters[0].rules, strict=True)):
        for row in shown.thresholds:
            broken = ~dataclasses.replace(rule, limit=row.limit).passed(stats) & applies[:, place]
            assert row.removed == int(broken.sum()), (rule.name, row)
            checked += 1
    assert checked > 40


def test_a_run_that_drops_and_one_that_measures_tell_the_same(crawl):
    recipe, dropped, measured = crawl
    one, other = (tune(recipe, output).filters for output in (dropped, measured))
    assert one == other


def test_real_documents_on_both_sides(crawl):
    recipe, dropped, _ = crawl
    (one,) = tune(recipe, dropped, rule="gopher_quality.min_alphabetic_words", num_examples=4).filters
    limit = float(Fraction(one.rules[0].limit, one.rules[0].scale))
    assert [example.value >= limit for example in one.examples] == [not example.removed for example in one.examples]
    assert sum(example.removed for example in one.examples) == 4
    distances = [abs(example.value - limit) for example in one.examples]
    assert distances[:4] == sorted(distances[:4], reverse=True)
    assert distances[4:] == sorted(distances[4:])
