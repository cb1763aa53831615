"""The numbers of the report: worked out by hand, balanced to the last document, or refused."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_inputs import (
    LEDGER_COLUMNS,
    evaluation,
    made_plan,
    phase_source,
    planned_source,
    rename_ledger,
    step,
    write_ledger,
    write_output,
    write_plan,
    write_run,
)

from mixtures.errors import PlanError
from mixtures.plan import Packed
from mixtures.report.errors import ReportError
from mixtures.report.figures import collect_figures, round_floats, worth
from mixtures.report.inputs import load_inputs
from mixtures.report.lengths import quantile
from mixtures.report.training import POINTS
from mixtures.report.waterfall import waterfall_figures
from tokenizer.strict_json import JsonError


def by_source(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["source"]: row for row in rows}


def changes(waterfall: dict[str, Any]) -> list[tuple[str, int]]:
    return [(row["label"], row["documents"]) for row in waterfall["rows"]]


# Composition


def test_composition(made: Path, tmp_path: Path) -> None:
    made_plan(made, tmp_path / "plan.json")
    figures = collect_figures(tmp_path / "plan.json")
    (phase,) = figures["phases"]
    assert {key: phase[key] for key in ("length", "global_batch", "steps", "sequences", "last_batch")} == {
        "length": 48, "global_batch": 8, "steps": 3, "sequences": 20, "last_batch": 4,
    }  # fmt: skip
    web, code, talks = (by_source(phase["sources"])[name] for name in ("web", "code", "talks"))
    assert [row["sequences"] for row in (web, code, talks)] == [10, 8, 2]
    assert [row["asked_epochs"] for row in (web, code, talks)] == ["2", "4", "3/2"]
    assert [row["epochs"] for row in (web, code, talks)] == ["2", "4", "2"]  # half a sequence is rounded up
    assert [row["asked_share"] for row in (web, code, talks)] == [0.512821, 0.410256, 0.0769231]  # of 19.5 sequences
    assert [row["share"] for row in (web, code, talks)] == [0.5, 0.4, 0.1]
    assert [row["stream_tokens"] for row in (web, code, talks)] == [480, 384, 96]
    assert [row["source_tokens"] for row in (web, code, talks)] == [402, 280, 58]
    assert [row["loss_tokens"] for row in (web, code, talks)] == [398, 260, 40]
    assert [row["padding_tokens"] for row in (web, code, talks)] == [78, 104, 38]
    assert [row["padding_share"] for row in (web, code, talks)] == [0.1625, 0.270833, 0.395833]
    assert [row["exact"] for row in (web, code, talks)] == [True, True, False]
    assert [row["cut_documents"] for row in (web, code, talks)] == [2, 0, 0]
    assert [row["held_out_tokens"] for row in (web, code, talks)] == [0, 14, 0]
    assert talks["dropped"] == [{"reason": "longer_than_sequence", "documents": 1, "tokens": 57}]
    total = phase["total"]
    assert (total["documents"], total["tokens"]) == (10, 371)
    assert total["unique_documents"] + total["held_out_documents"] + total["dropped_documents"] == 10
    assert total["unique_tokens"] + total["held_out_tokens"] + total["dropped_tokens"] == 371
    assert (total["padding_tokens"], total["padding_share"]) == (220, 0.229167)


def test_a_fraction_of_an_epoch(tmp_path: Path) -> None:
    out = write_output(tmp_path / "out", {"web": {"en": [[10] * 7]}})
    path = tmp_path / "plan.json"
    sources = {"web": planned_source(path, list(out.glob("tokens/*/*/manifest.json")))}
    write_plan(path, sources, {"web": phase_source("1/2", 4, Packed(7, 70, 63, 0, 7))}, length=10)
    (row,) = collect_figures(path)["phases"][0]["sources"]
    assert (row["asked_epochs"], row["asked_epochs_decimal"]) == ("1/2", 0.5)
    assert (row["epochs"], row["epochs_decimal"]) == ("4/7", 0.571429)
    assert row["worth"] == {"epochs": 0.571429, "tokens": 40.0, "unique_epochs": 0.571429, "share": 1.0}


def test_head(made: Path, tmp_path: Path) -> None:
    plan = made_plan(made, tmp_path / "plan.json")
    assert collect_figures(tmp_path / "plan.json")["head"] == {
        "name": "by hand",
        "fingerprint": plan.fingerprint,
        "parent": None,
        "tokenizer": "cl100k_base",
        "vocabulary": 100_352,
        "seed": 7,
        "validation": {"column": "doc_id", "key": "demo", "share": "1/50"},
        "windows": {"documents": 20_000, "group": 4},
        "sequences": 20,
        "steps": 3,
        "tokens": 960,
    }


def test_worth_of_repetition() -> None:
    """2 epochs are worth 1.968 and 4 are worth 3.726, worked out with pencil and a table of exponentials."""
    assert worth(1_000_000, Fraction(2)) == pytest.approx(1_968_230, rel=1e-5)
    assert worth(1_000_000, Fraction(4)) == pytest.approx(3_725_870, rel=1e-5)
    assert worth(100, Fraction(1)) == 100
    assert worth(100, Fraction(1, 4)) == 25
    assert worth(100, Fraction(1000)) == pytest.approx(1640)  # never more than 1 + R* epochs


def test_floats_are_rounded() -> None:
    assert round_floats({"a": [1 / 3, 2e-9 / 3], "b": math.nan, "c": math.inf, "d": 10**30, "e": "1/3", "f": None}) == {
        "a": [0.333333, 6.66667e-10], "b": None, "c": None, "d": 10**30, "e": "1/3", "f": None,
    }  # fmt: skip


# Waterfall


def test_waterfall_of_an_output(made: Path) -> None:
    """Every fate that tests/support/made.py gives a page happens once, in the order of the steps."""
    figures = collect_figures(made)
    assert figures["input"] == "output"
    falls = by_source(figures["waterfalls"])
    assert changes(falls["web"]) == [
        ("read", 10),
        ("dropped: http_status", -1),
        ("errored: truncated_record", -1),
        ("added: extract", 0),
        ("dropped: extract.empty", -1),
        ("dropped: extract.too_complex", -1),
        ("dropped: language", -1),
        ("dropped: gopher_quality.min_words", -1),
        ("dropped: same_key", -1),
        ("dropped: exact_duplicate", -1),
        ("in token shards", 2),
    ]
    assert changes(falls["code"]) == [("read", 7), ("added: read", 0), ("dropped: empty", -1), ("in token shards", 6)]
    assert [falls[name]["rows"][-1]["tokens"] for name in ("web", "code", "talks")] == [201, 84, 86]
    assert falls["web"]["raw"] == {"read": 7553, "records": 7414, "gaps": {"damaged": 139}}
    for fall in falls.values():
        for count in ("documents", "text_bytes"):
            assert sum(row[count] for row in fall["rows"][:-1]) == fall["rows"][-1][count]


def test_the_plan_goes_on_with_the_waterfall(made: Path, tmp_path: Path) -> None:
    made_plan(made, tmp_path / "plans/plan.json")
    falls = by_source(collect_figures(tmp_path / "plans/plan.json")["waterfalls"])
    assert all(fall["continued"] for fall in falls.values())
    assert changes(falls["code"])[-3:] == [
        ("in token shards", 6), ("code: held out for validation", -1), ("planned, once", 5),
    ]  # fmt: skip
    assert changes(falls["talks"])[-2:] == [("talks: dropped: longer_than_sequence", -1), ("planned, once", 1)]
    assert falls["talks"]["rows"][-1]["tokens"] == 29


@pytest.mark.parametrize("both", [True, False])
def test_partitions_and_sources_that_are_planned_apart(tmp_path: Path, both: bool) -> None:
    out = write_output(tmp_path / "out", {"web": {"en": [[5, 5], [6]], "de": [[7]], None: [[8, 8]]}})
    path, paths = tmp_path / "plan.json", {str(file.parent.name): file for file in out.glob("tokens/*/*/manifest.json")}
    sources = {"english": planned_source(path, [paths["language=en"]])}
    shares = {"english": phase_source("1", 2, Packed(3, 16, 13, 0, 2))}
    if both:
        sources["rest"] = planned_source(path, [paths["language=de"], paths["language=_"]])
        shares["rest"] = phase_source("1", 3, Packed(3, 23, 20, 0, 3), manifests=2)
    write_plan(path, sources, shares, length=10)
    (fall,) = collect_figures(path)["waterfalls"]
    ends = [("in token shards", 6), ("planned, once", 6)]
    if not both:
        ends = [("in token shards", 6), ("partitions not in the plan", -3), ("planned, once", 3)]
    assert changes(fall)[-len(ends) :] == ends


def test_a_source_of_two_ledgers_is_told_in_the_plans_own_table(tmp_path: Path) -> None:
    outs = [
        write_output(tmp_path / name, {"web": {"en": [[5, 5]]}}, {"short": place}) for place, name in enumerate("ab")
    ]
    path = tmp_path / "plan.json"
    manifests = [next(out.glob("tokens/*/*/manifest.json")) for out in outs]
    both = {"web": planned_source(path, manifests)}
    write_plan(path, both, {"web": phase_source("1", 2, Packed(4, 20, 16, 0, 2), manifests=2)}, length=10)
    falls = collect_figures(path)["waterfalls"]
    assert [fall["ledger"] for fall in falls] == ["a/ledger.parquet", "b/ledger.parquet"]
    assert [fall["continued"] for fall in falls] == [False, False]


def test_a_ledger_with_another_hash(copied: Path) -> None:
    with (copied / "ledger.parquet").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ReportError, match=r"(?s)ledger\.parquet: has the hash .* names .* another run's\nhint: "):
        collect_figures(copied)


def test_any_count_that_is_off_by_one_is_an_error(copied: Path) -> None:
    """Every count of documents, text bytes, tokens and raw bytes that the ledger holds is part of an equation."""
    rows = pq.read_table(copied / "ledger.parquet").to_pylist()
    counted = {"documents": ("rows", "bytes"), "tokens": ("rows", "bytes", "tokens"), "raw": ("bytes",)}
    altered = 0
    for place, row in enumerate(rows):
        for column in counted.get(row["table"], ()):
            if column == "rows" and row["account"] in ("added", "trimmed"):
                continue  # how many documents were edited
            changed = [*rows[:place], row | {column: row[column] + 1}, *rows[place + 1 :]]
            write_ledger(copied, [tuple(some[name] for name in LEDGER_COLUMNS) for some in changed])
            rename_ledger(copied)
            with pytest.raises(ReportError, match="does not balance\nhint: "):
                waterfall_figures(load_inputs(copied))
            altered += 1
    assert altered > 150


def test_a_ledger_that_lost_a_step(copied: Path) -> None:
    rows = pq.read_table(copied / "ledger.parquet").to_pylist()
    kept = [row for row in rows if (row["stage"], row["transform"]) != ("2-identify", "same_key")]
    write_ledger(copied, [tuple(row[name] for name in LEDGER_COLUMNS) for row in kept])
    rename_ledger(copied)
    with pytest.raises(ReportError, match="stage 2-identify, step write took in"):
        collect_figures(copied)


def test_a_ledger_that_is_none(copied: Path) -> None:
    (copied / "ledger.parquet").write_bytes(b"no Parquet")
    rename_ledger(copied)
    with pytest.raises(ReportError, match=r"ledger\.parquet: cannot be read"):
        collect_figures(copied)


# Lengths


def test_lengths(tmp_path: Path) -> None:
    out = write_output(tmp_path / "out", {"web": {"en": [[2, 100, 3], [8, 7, 4]]}, "empty": {}})
    path = tmp_path / "plan.json"
    sources = {"web": planned_source(path, list(out.glob("tokens/*/*/manifest.json")))}
    write_plan(path, sources, {"web": phase_source("1", 18, Packed(6, 124, 118, 2, 18))}, length=7)
    (row,) = collect_figures(path)["lengths"]
    assert row == {
        "source": "web", "documents": 6, "tokens": 124, "mean": 20.6667, "median": 4, "p99": 100, "longest": 100,
        "longer": [{"length": 7, "documents": 2, "share": 0.333333}],
        "bins": [
            {"from": 2, "below": 4, "documents": 2, "tokens": 5},
            {"from": 4, "below": 8, "documents": 2, "tokens": 11},
            {"from": 8, "below": 16, "documents": 1, "tokens": 8},
            {"from": 16, "below": 32, "documents": 0, "tokens": 0},
            {"from": 32, "below": 64, "documents": 0, "tokens": 0},
            {"from": 64, "below": 128, "documents": 1, "tokens": 100},
        ],
    }  # fmt: skip


@given(st.lists(st.integers(1, 40), min_size=1), st.integers(1, 100))
def test_quantiles_are_those_of_the_sorted_lengths(lengths: list[int], hundredths: int) -> None:
    distinct, counts = np.unique(np.array(lengths), return_counts=True)
    expected = sorted(lengths)[math.ceil(Fraction(hundredths * len(lengths), 100)) - 1]
    assert quantile(distinct, counts, hundredths, 100) == expected


def test_shards_that_are_not_there(copied: Path) -> None:
    next(copied.glob("tokens/code/*/*.bin")).unlink()
    figures = collect_figures(copied)
    assert [row["source"] for row in figures["lengths"]] == ["talks", "web"]
    assert "lengths of code: the shards of 1 of its manifests are not there" in figures["absent"]


def test_a_shard_of_another_size(copied: Path) -> None:
    with next(copied.glob("tokens/code/*/*.bin")).open("ab") as file:
        file.write(b"\0\0\0\0")
    with pytest.raises(PlanError, match="the manifest says"):
        collect_figures(copied)


# Inputs


def test_an_altered_manifest(copied: Path, tmp_path: Path) -> None:
    made_plan(copied, tmp_path / "plan.json")
    path = next(copied.glob("tokens/code/*/manifest.json"))
    text = path.read_text()
    path.write_text(text.replace('"documents": 6', '"documents": 7'))
    with pytest.raises(JsonError):
        collect_figures(tmp_path / "plan.json")
    path.write_text(next(copied.glob("tokens/web/*/manifest.json")).read_text())
    with pytest.raises(ReportError, match=r"manifest\.json: source is 'web', the plan .* names 'code'\nhint: "):
        collect_figures(tmp_path / "plan.json")


def test_what_was_moved_is_left_out_and_named(copied: Path, tmp_path: Path) -> None:
    plan = made_plan(copied, tmp_path / "plans/plan.json")
    (copied / "ledger.parquet").unlink()
    next(copied.glob("tokens/code/*/manifest.json")).unlink()
    figures = collect_figures(tmp_path / "plans/plan.json")
    assert figures["absent"] == [
        "lengths of code: 1 of its 1 manifests are not there",
        "training: the input is a plan, not a training run",
        "ledger ../copy/ledger.parquet: is not there",
    ]
    assert [row["source"] for row in figures["lengths"]] == ["talks", "web"]
    run = write_run(tmp_path / "run", plan, [step(1)])
    (tmp_path / "plans/plan.json").unlink()
    figures = collect_figures(run)
    assert (figures["phases"], figures["training"]["steps"]) == ([], 1)
    assert figures["head"]["fingerprint"] == plan.fingerprint
    assert figures["absent"] == [
        "composition, ledger, lengths and padding: the run's plan plan.json is not at its place"
    ]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "headrace-plan", "format is 'headrace-plan', expected 'headrace-training-run'"),
        ("version", 2, "version is 2, expected 1"),
        ("plan", 5, "plan is 5, expected a text"),
        ("fingerprint", "0" * 32, "it is not the plan of this run"),
    ],
)
def test_a_run_that_is_none(made: Path, tmp_path: Path, key: str, value: object, message: str) -> None:
    run = write_run(tmp_path / "run", made_plan(made, tmp_path / "plan.json"), [step(1)])
    data = json.loads((run / "run.json").read_text()) | {key: value}
    (run / "run.json").write_text(json.dumps(data))
    with pytest.raises(ReportError, match=message):
        collect_figures(run)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_a_run_json_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ReportError, match=r"run\.json: is (not JSON|no JSON object)"):
        collect_figures(tmp_path)


def test_a_folder_that_is_none_of_the_three(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="hint: name a plan.json, the folder of a training run"):
        collect_figures(tmp_path)
    with pytest.raises(JsonError, match=r"nowhere\.json: cannot be read"):
        collect_figures(tmp_path / "nowhere.json")


# Training


def training_of(made: Path, tmp_path: Path, lines: list[dict[str, Any]], torn: str = "") -> dict[str, Any]:
    plan = made_plan(made, tmp_path / "plan.json")
    training: dict[str, Any] = collect_figures(write_run(tmp_path / "run", plan, lines, torn))["training"]
    return training


def test_training(made: Path, tmp_path: Path) -> None:
    lines = [
        step(1, loss=9.0), step(2, loss=100.0), evaluation(2, 8.0),
        step(2, loss=7.0, load_min=0.25), step(3, loss=5.0, load_max=2.0), evaluation(2, 6.0), evaluation(3, 5.5),
    ]  # fmt: skip
    training = training_of(made, tmp_path, lines, torn='{"kind": "step", "st')
    assert (training["steps"], training["repeated"], training["torn"]) == (3, 1, 1)
    assert (training["tokens"], training["targets"], training["seconds"]) == (900, 870, 6.0)
    assert training["tokens_per_second"] == 150.0
    assert training["recent"] == {"steps": 3, "loss": 7.0}
    assert (training["last"]["step"], training["last"]["loss"], training["last"]["load_max"]) == (3, 5.0, 2.0)
    assert [point["loss"] for point in training["curve"]] == [9.0, 7.0, 5.0]
    assert [point["load_min"] for point in training["curve"]] == [0.5, 0.25, 0.5]
    assert [(entry["step"], entry["loss"], entry["below_unigram"]) for entry in training["evaluations"]] == [
        (2, 6.0, 1.5), (3, 5.5, 2.0),
    ]  # fmt: skip


def test_a_long_run_is_thinned(made: Path, tmp_path: Path) -> None:
    """1,000 steps give 120 points; the mean of their means, weighted by their steps, is that of all steps."""
    lines = [
        step(number, sequences=1, loss=float(number), load_min=number % 7 + 1.0, load_max=number % 7 + 1.0)
        for number in range(1, 1001)
    ]
    lines += [evaluation(number, 1.0) for number in range(1, 1001)]
    training = training_of(made, tmp_path, lines)
    curve = training["curve"]
    assert (len(curve), training["steps_per_point"]) == (POINTS, 9)
    assert (curve[0]["from_step"], curve[-1]["step"]) == (1, 1000)
    assert all(one["step"] + 1 == other["from_step"] for one, other in zip(curve, curve[1:], strict=False))
    assert all(point["loss"] == (point["from_step"] + point["step"]) / 2 for point in curve)
    assert {(point["load_min"], point["load_max"]) for point in curve} == {(1.0, 7.0)}  # 8 or 9 steps in a row
    assert training["recent"] == {"steps": 50, "loss": 975.5}
    assert (training["evaluations_made"], len(training["evaluations"])) == (1000, 112)
    assert training["evaluations"][-1]["step"] == 1000


def test_a_diverged_run(made: Path, tmp_path: Path) -> None:
    training = training_of(made, tmp_path, [step(1), step(2, loss=math.nan, gradient_norm=math.inf)])
    assert training["not_finite"] == 1
    assert [point["loss"] for point in training["curve"]] == [5.0, None]
    assert training["recent"]["loss"] is None


def test_a_run_without_a_step(made: Path, tmp_path: Path) -> None:
    training = training_of(made, tmp_path, [])
    assert (training["steps"], training["last"], training["curve"]) == (0, None, [])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"kind": "note"}, "kind is 'note'"),
        (step(1, loss="low"), "loss is 'low', expected a number"),
        (step(1, loss=10**400), "loss is 1000+, expected a number"),
        (step(1, step=1.5), "step is 1.5, expected an integer"),
        (step(1, tokens=True), "tokens is True, expected an integer"),
        (step(1, digest=None), "digest is None, expected a text"),
        (evaluation(1, 2.0, sources=[1]), r"sources is \[1\], expected a loss for each source"),
        (step(1, sequences=21), "has consumed 21 sequences, the plan .* has 20"),
    ],
)
def test_a_log_that_is_none(made: Path, tmp_path: Path, line: dict[str, Any], message: str) -> None:
    with pytest.raises(ReportError, match=message):
        training_of(made, tmp_path, [line])


def test_a_torn_line_within(made: Path, tmp_path: Path) -> None:
    plan = made_plan(made, tmp_path / "plan.json")
    run = write_run(tmp_path / "run", plan, [step(1)], torn='{"kind": "st\n' + json.dumps(step(2)) + "\n")
    with pytest.raises(ReportError, match=r"metrics\.jsonl: line 2: is no JSON object, and it is not the last line"):
        collect_figures(run)
