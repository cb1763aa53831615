"""What docs/deduplication.md gives to type runs, on made pages, and its tables say what the code says."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import random
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from headrace import main
from pipelines.deduplicate import Deduplicate, Near, Passages
from pipelines.errors import RecipeError
from pipelines.near_duplicates.presets import PRESETS
from pipelines.near_duplicates.propose import PROPOSERS
from pipelines.recipe import load_recipe

PAGE = (Path(__file__).resolve().parents[1] / "docs/deduplication.md").read_text()
SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ha", "ke", "li", "mo", "nu", "pa", "re", "si", "to", "vu", "za")
FOOTER = "You are reading the archive of the town gazette, which is printed every week."


def block(name: str) -> str:
    """Return the fenced block that begins with a line that names it."""
    (found,) = re.findall(rf"^```\w*\n(# {re.escape(name)}\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return found


def marked(name: str) -> str:
    """Return the fenced block between two marks."""
    text = PAGE.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    return re.search(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1]


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    text = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def words(seed: int, changes: int = 0) -> list[str]:
    """Return 200 made words; so many of them, far apart, are others."""
    drawn = random.Random(seed)
    text = ["".join(drawn.choices(SYLLABLES, k=3)) for _ in range(200)]
    for change in range(changes):
        text[20 + 60 * change] = f"new{change}"
    return text


def page(name: str, seed: int, changes: int = 0, *, url: str | None = None, day: int = 1) -> dict[str, Any]:
    """Return a page of ten paragraphs and the footer that all of them have."""
    text = words(seed, changes)
    lines = [" ".join(text[first : first + 20]) for first in range(0, 200, 20)]
    date = f"2024-01-{day:02d}T00:00:00Z"
    text = "\n\n".join([*lines, FOOTER])
    return {"id": name, "url": url or f"https://example.com/{name}", "date": date, "text": text}


def write_pages(folder: Path) -> None:
    """Write what both recipes read."""
    january = [page(f"page-{seed}", seed) for seed in range(14)]
    january += [
        page("copy-of-0", 0, day=2),
        page("page-1-again", 100, url="https://example.com/page-1#top", day=2),
        page("page-2-edited", 2, 1, day=2),
        page("page-2-edited-more", 2, 2, day=3),
        page("page-3-edited", 3, 1, day=2),
    ]
    february = [
        page("copy-of-4", 4),
        page("page-5-edited", 5, 1),
        page("page-6", 106),
        page("page-30", 30),
        page("page-30-edited", 30, 1),
    ]
    reference = [page(f"reference-{seed}", seed, day=9) for seed in (3, 201)]
    for name, pages in (("january", january), ("february", february), ("reference", reference)):
        (folder / "pages" / name).mkdir(parents=True)
        text = "".join(json.dumps(one) + "\n" for one in pages)
        (folder / "pages" / name / "pages.jsonl").write_text(text)


def headrace(*arguments: str) -> str:
    """Run the command as typed and return what it prints."""
    return CliRunner().invoke(main, list(arguments)).output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run both recipes of the page, in the order that it says."""
    folder = tmp_path_factory.mktemp("deduplication")
    write_pages(folder)
    with contextlib.chdir(folder):
        for name in ("january", "february"):
            Path(f"{name}.yaml").write_text(block(f"{name}.yaml"))
            told = headrace("run", f"{name}.yaml", "--output", f"out/{name}", "--workers", "1")
            assert Path(f"out/{name}/run.json").exists(), told
    return folder


def removed(output: Path) -> dict[str, str]:
    """Return the reason by which each document of a run was stopped."""
    rejects = [row for path in output.glob("stages/*/rejects/*") for row in pq.read_table(path).to_pylist()]
    return {row["natural_key"]: row["verdict"]["reason"] for row in rejects}


def test_the_first_recipe(folder):
    assert removed(folder / "out/january") == {
        "copy-of-0": "exact_duplicate",
        "page-1-again": "duplicate_url",
        "page-2-edited": "near_duplicate",
        "page-2-edited-more": "near_duplicate",
        "page-3": "exact_duplicate",  # the first source has it
        "page-3-edited": "near_duplicate",
    }
    texts = {
        row["natural_key"]: row["text"]
        for path in folder.glob("out/january/stages/*-tokenize/documents/*")
        for row in pq.read_table(path, columns=["natural_key", "text"]).to_pylist()
    }
    assert sum(FOOTER in text for text in texts.values()) == 6


def test_the_second_recipe_removes_what_the_first_kept(folder):
    assert removed(folder / "out/february") == {
        "copy-of-4": "exact_duplicate",
        "page-5-edited": "near_duplicate",
        "page-6": "duplicate_url",
        "page-30-edited": "near_duplicate",
    }


def test_an_older_run_of_other_settings_is_refused(folder):
    (folder / "other.yaml").write_text(block("february.yaml").replace("threshold: 8000", "threshold: 7000"))
    with pytest.raises(RecipeError, match="use the same settings"):
        load_recipe(folder / "other.yaml")


def test_the_tables_as_shown(folder):
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(block("clusters.py"), "clusters.py", "exec"), {})
    assert printed.getvalue() == marked("clusters")


def test_the_alarm_as_shown(folder):
    (folder / "alarm.yaml").write_text(block("january.yaml").replace("web: [0, 4000]", "web: [100, 1000]"))
    with contextlib.chdir(folder):
        told = headrace("run", "alarm.yaml", "--output", "out/alarm", "--workers", "1")
        assert "source web:" in told, told
        assert told[told.index("source web:") :] == marked("alarm")
        assert not Path("out/alarm/tokens").exists()
        Path("alarm.yaml").write_text(block("january.yaml"))
        told = headrace("run", "alarm.yaml", "--output", "out/alarm", "--workers", "1")
    assert Path(folder / "out/alarm/run.json").exists(), told


def test_the_curves_are_those_of_the_presets():
    shown = {cells[0].strip("`"): cells[1:] for cells in rows("How near-duplicates are found")}
    head = re.search(r"^\| preset \|.*$", PAGE, re.MULTILINE)[0].strip("|").split("|")
    similarities = [float(cell) for cell in head if re.fullmatch(r" 0?\.\d+ ", cell)]
    assert set(shown) == set(PRESETS)
    for name, shape in PRESETS.items():
        assert shown[name][:2] == [f"{shape.bands} x {shape.rows}", f"{shape.ngram} {shape.unit}s"]
        assert shown[name][2:] == [f"{shape.probability(one):.3f}" for one in similarities]
    assert f"first {PROPOSERS} " in PAGE


def test_the_settings_are_those_of_the_recipe():
    shown = {cells[0].strip("`"): cells[1].strip("`") for cells in rows("Settings")}
    expected = {}
    for prefix, kind in (("", Deduplicate), ("near.", Near), ("passages.", Passages)):
        for field in dataclasses.fields(kind):
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            if prefix or field.name not in ("near", "passages"):
                expected[prefix + field.name] = default
    assert set(shown) == set(expected)
    for name, default in expected.items():
        plain = list(default) if isinstance(default, tuple) else default
        assert shown[name] == json.dumps(plain).replace('"', ""), name
