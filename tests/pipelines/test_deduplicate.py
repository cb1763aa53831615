"""Settings of deduplication, and earlier runs as they are found in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines import deduplicate
from pipelines.commit import Commit, FileRecord, read_commits
from pipelines.deduplicate import Deduplicate, Near, OlderRun, Passages
from pipelines.errors import RecipeError
from pipelines.near_duplicates.presets import PRESETS, Shape

SHAPE = Shape(3, 4, "character", 7)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "give either a preset (fineweb, slimpajama, refinedweb, curator) or a shape"),
        ({"preset": "fineweb", "shape": SHAPE}, "give either a preset"),
        ({"preset": "finweb"}, "preset: found 'finweb', allowed are fineweb, slimpajama, refinedweb, curator"),
        ({"preset": "fineweb", "threshold": 0}, "threshold: found 0, allowed are 1 to 10000, in 1/10,000"),
        ({"preset": "fineweb", "threshold": 10_001}, "threshold: found 10001, allowed are 1 to 10000"),
    ],
)
def test_near_refuses(settings, said):
    with pytest.raises(ValueError, match="(?s).") as error:
        Near(**settings)
    assert str(error.value).startswith(said)


def test_near_has_the_shape_of_its_preset_or_its_own():
    assert Near(preset="slimpajama").minhash == PRESETS["slimpajama"]
    assert Near(shape=SHAPE).minhash == SHAPE
    assert Near(shape=SHAPE).threshold == 8_000


@pytest.mark.parametrize("settings", [{}, {"lines": 0}, {"paragraphs": -1}, {"lines": 1, "min_characters": 0}])
def test_passages_refuses(settings):
    with pytest.raises(ValueError, match="hint: (give 1 or more|say for one of them)"):
        Passages(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "asks for nothing: give exact, url, near or passages"),
        ({"for_later_runs": True}, "asks for nothing"),
        ({"exact": "all", "prefer": ()}, "prefer: found nothing, allowed are source, quality, length, oldest, newest"),
        ({"exact": "all", "prefer": ("source", "source")}, "prefer: found source, source, allowed"),
        ({"exact": "all", "prefer": ("newest", "oldest")}, "prefer: found newest, oldest, allowed"),
        ({"exact": "all", "expect_removed": {"web": (5, 4)}}, "expect_removed.web: found 5 to 4, allowed are 0 to"),
        ({"exact": "all", "expect_removed": {"web": (0, 10_001)}}, "expect_removed.web: found 0 to 10001"),
        ({"exact": "all", "expect_removed": {"web": (-1, 4)}}, "expect_removed.web: found -1 to 4"),
    ],
)  # fmt: skip
def test_deduplicate_refuses(settings, said):
    with pytest.raises(ValueError, match="(?s).") as error:
        Deduplicate(**settings)
    assert str(error.value).startswith(said)


def older(generation: int) -> OlderRun:
    stages = {"find-duplicates": "3-find-duplicates", "tokenize": "5-tokenize"}
    return OlderRun(f"/runs/{generation}", f"sha {generation}", generation, stages, {"find-duplicates/hashes": 1})


def test_a_generation_follows_all_that_it_looks_at():
    assert Deduplicate(exact="all").generation == 0
    assert Deduplicate(exact="all", older=(older(0),)).generation == 1
    assert Deduplicate(exact="all", older=(older(4), older(2))).generation == 5


def test_the_resolved_settings_are_what_decides_about_the_output():
    """A preset is its shape; where an earlier run lies, and what is expected, change no byte."""
    one = Deduplicate(
        near=Near(preset="fineweb"), older=(older(3),), expect_removed={"web": (0, 5)}, prefer=("length",)
    )
    other = Deduplicate(near=Near(shape=PRESETS["fineweb"]), older=(older(3),), prefer=("length",))
    assert one.resolved() == other.resolved() == {
        "exact": None,
        "normalised": False,
        "url": None,
        "near": {
            "shape": {"bands": 14, "rows": 8, "unit": "word", "ngram": 5, "seed": 0},
            "threshold": 8_000,
            "scope": "all",
        },
        "passages": None,
        "prefer": ["length"],
        "older": [
            {
                "sha256": "sha 3",
                "generation": 3,
                "stages": {"find-duplicates": "3-find-duplicates", "tokenize": "5-tokenize"},
                "rows": {"find-duplicates/hashes": 1},
            }
        ],
        "for_later_runs": False,
        "generation": 4,
    }  # fmt: skip
    assert json.loads(json.dumps(one.resolved())) == one.resolved()


# Earlier runs in a folder


def write_run(folder: Path, settings: Deduplicate | None, hashes: tuple[str, ...] = ("b2", "a1")) -> Path:
    """Write what is read of a finished run: its resolved recipe, and the commits of two stages that leave something."""
    left = {"3-find-duplicates": ("duplicates", "hashes"), "9-tokenize": ("documents", "band_keys", "shingle_sets")}
    for stage, tables in left.items():
        (folder / f"stages/{stage}/commits").mkdir(parents=True)
        for place, sha256 in enumerate(hashes):
            files = tuple(
                FileRecord(table, f"stages/{stage}/{table}/{sha256}", 10, f"{sha256}{table}", 5 + place)
                for table in tables
            )
            split = f"{place:032x}"
            commit = Commit(split, f"bucket {place}", files, ())
            (folder / f"stages/{stage}/commits/{split}.json").write_bytes(commit.to_json())
    resolved: dict[str, Any] = {
        "deduplicate": settings and settings.resolved(),
        "stages": {stage: {} for stage in ("1-read", *left)},
        "output": {"buckets": len(hashes)},
    }
    (folder / "recipe.json").write_text(json.dumps(resolved))
    (folder / "run.json").write_text("{}")
    return folder


SETTINGS = Deduplicate(exact="all", near=Near(preset="fineweb"), for_later_runs=True)


def test_an_older_run_is_what_it_left(tmp_path):
    run = OlderRun.of(str(write_run(tmp_path / "run", SETTINGS)), SETTINGS.resolved())
    assert run.stages == {"find-duplicates": "3-find-duplicates", "tokenize": "9-tokenize"}
    assert run.generation == 0
    assert run.rows == dict.fromkeys(("find-duplicates/hashes", "tokenize/band_keys", "tokenize/shingle_sets"), 11)
    assert run.address == str(tmp_path / "run")
    moved = OlderRun.of(str(write_run(tmp_path / "moved", SETTINGS)), SETTINGS.resolved())
    assert moved.sha256 == run.sha256
    assert Deduplicate(exact="all", older=(moved,)).resolved() == Deduplicate(exact="all", older=(run,)).resolved()
    other = OlderRun.of(str(write_run(tmp_path / "other", SETTINGS, ("b2", "a3"))), SETTINGS.resolved())
    assert other.sha256 != run.sha256


def test_the_order_in_which_a_folder_is_listed_does_not_matter(tmp_path, monkeypatch):
    folder = str(write_run(tmp_path / "run", SETTINGS))
    expected = OlderRun.of(folder, SETTINGS.resolved())
    monkeypatch.setattr(deduplicate, "read_commits", lambda *where: dict(reversed(read_commits(*where).items())))
    assert OlderRun.of(folder, SETTINGS.resolved()) == expected


def test_settings_that_do_not_touch_the_keys_may_differ(tmp_path):
    folder = write_run(tmp_path / "run", SETTINGS)
    here = Deduplicate(exact="all", near=Near(shape=PRESETS["fineweb"]), prefer=("newest",), passages=Passages(lines=1))
    assert OlderRun.of(str(folder), here.resolved()).rows["find-duplicates/hashes"] == 11


@pytest.mark.parametrize(
    ("here", "said"),
    [
        (Deduplicate(exact="language", near=SETTINGS.near), 'deduplicate.exact "all", here it is "language"'),
        (Deduplicate(near=SETTINGS.near), 'deduplicate.exact "all", here it is null'),
        (Deduplicate(exact="all", near=SETTINGS.near, url="all"), 'deduplicate.url null, here it is "all"'),
        (Deduplicate(exact="all", near=Near(preset="curator")), '"bands": 14, '),
    ],
)
def test_other_settings_are_refused(here, said, tmp_path):
    folder = write_run(tmp_path / "run", SETTINGS)
    with pytest.raises(RecipeError) as error:
        OlderRun.of(str(folder), here.resolved())
    assert str(error.value).startswith(f"{folder}: was made with deduplicate.")
    assert said in str(error.value)
    assert str(error.value).endswith("\nhint: use the same settings, keys of others are not comparable")


def test_what_is_no_older_run_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="holds no finished run\nhint: give the folder that `headrace run` wrote"):
        OlderRun.of(str(tmp_path), SETTINGS.resolved())
    unfinished = write_run(tmp_path / "unfinished", SETTINGS)
    (unfinished / "run.json").unlink()
    with pytest.raises(RecipeError, match="holds no finished run"):
        OlderRun.of(str(unfinished), SETTINGS.resolved())
    for name, settings in (("none", None), ("not for later", Deduplicate(exact="all"))):
        folder = write_run(tmp_path / name, settings)
        with pytest.raises(RecipeError, match="left nothing for later runs\nhint: run its recipe anew with `for_later"):
            OlderRun.of(str(folder), SETTINGS.resolved())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: "{", "JSONDecodeError: "),
        (lambda _: "[]", "AttributeError: "),
        (lambda resolved: json.dumps(resolved | {"deduplicate": {"for_later_runs": True}}), "KeyError: 'exact'"),
        (lambda resolved: json.dumps(resolved | {"stages": None}), "TypeError: "),
        (lambda resolved: json.dumps(resolved | {"output": {}}), "KeyError: 'buckets'"),
        (
            lambda resolved: json.dumps(resolved | {"deduplicate": resolved["deduplicate"] | {"generation": "x"}}),
            "ValueError: ",
        ),
    ],
)
def test_the_recipe_of_an_older_run_that_is_damaged_or_of_another_version_is_refused(change, said, tmp_path):
    folder = write_run(tmp_path / "run", SETTINGS)
    (folder / "recipe.json").write_text(change(json.loads((folder / "recipe.json").read_text())))
    with pytest.raises(RecipeError) as error:
        OlderRun.of(str(folder), SETTINGS.resolved())
    assert str(error.value).startswith(f"{folder}/recipe.json: is no resolved recipe of this version ({said}")
    assert str(error.value).endswith("\nhint: run its recipe anew with this version")


def test_an_older_run_without_its_recipe_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", SETTINGS)
    (folder / "recipe.json").unlink()
    with pytest.raises(RecipeError, match="holds no finished run"):
        OlderRun.of(str(folder), SETTINGS.resolved())


@pytest.mark.parametrize("stage", ["3-find-duplicates", "9-tokenize"])
def test_an_older_run_that_lost_a_commit_is_refused(stage, tmp_path):
    """Its documents would be missed by nobody: copies of them would stay."""
    folder = write_run(tmp_path / "run", SETTINGS)
    next((folder / f"stages/{stage}/commits").iterdir()).unlink()
    with pytest.raises(RecipeError) as error:
        OlderRun.of(str(folder), SETTINGS.resolved())
    assert str(error.value).startswith(f"{folder}/stages/{stage}/commits: found 1 commits of 2 buckets\nhint: ")
