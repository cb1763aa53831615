"""The page of texts side by side: made of real pages, escaped, with judgements that go stale; its recipes load."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import side_by_side
from benchmarks.side_by_side import FAULTS, MARKS, SAMPLES, Sample, Texts
from pipelines.main_content.training.catalogue import read_collections
from pipelines.recipe import load_recipe
from pipelines.transforms.extract import ENGINES, Extract

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY / "../shared/data"
PAGE = (REPOSITORY / "docs/extraction.md").read_text(encoding="utf-8")

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no sample pages")

SAMPLE = Sample("file", None, "Danish", "news", (), "", "It is well.")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> str:
    """The page as the script makes it."""
    output = tmp_path_factory.mktemp("page") / "extraction.md"
    output.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["side_by_side.py", "--data", str(DATA), "--output", str(output)])
        patch.setattr(side_by_side.logging, "disable", lambda _level: None)
        side_by_side.main()
    return output.read_text(encoding="utf-8")


@needs_data
def test_only_the_part_between_the_marks_is_written(made):
    assert made.startswith(f"before\n{MARKS[0]}\n| | page |")
    assert made.endswith(f"\n{MARKS[1]}\nafter\n")
    assert "old\n" not in made


@needs_data
def test_every_page_is_there_and_the_docs_show_the_same_ones(made):
    headings = re.findall(r"^### (.+)$", made, re.MULTILINE)
    assert headings == [side_by_side.title_of(number, sample) for number, sample in enumerate(SAMPLES, 1)]
    assert len(headings) == 20
    assert headings == re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
    addresses = re.findall(r"^### .+\n`(.+)`$", made, re.MULTILINE)
    assert len(set(addresses)) == 20
    assert addresses == re.findall(r"^### .+\n`(.+)`$", PAGE, re.MULTILINE)


@needs_data
def test_tables_hold_whatever_pages_hold(made):
    """Every row has as many cells as its head, and no tag of a page is left."""
    rows = [line for line in made.splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows]
    assert set(widths) == {4, 8}
    assert widths.count(8) == 2 + 20
    assert set(re.findall(r"<[^>]*>", made)) == {"<br>", *MARKS}
    assert made.count("begins |") == made.count("ends |") == 20


@needs_data
def test_excerpts_are_short(made):
    for row in re.findall(r"^\| (?:begins|ends|only here) \| (.*) \|$", made, re.MULTILINE):
        for excerpt in re.split(r"(?<!\\) \| ", row):
            shown = re.sub(r"<br>|\\|&\w+;|&#\d+;", " ", excerpt)
            assert len(shown) <= 400


def test_judgements_name_faults_that_are_explained():
    named = {fault for sample in SAMPLES for fault in sample.faults}
    assert named == set(FAULTS)
    assert all(sample.judgement.endswith(".") and re.fullmatch("[0-9a-f]{12}", sample.judged) for sample in SAMPLES)


def test_a_judgement_is_of_these_texts():
    texts = Texts("http://a.example/", "Ours.", "Theirs.")
    judged = dataclasses.replace(SAMPLE, judged=side_by_side.digest(texts))
    assert list(side_by_side.shown(1, judged, texts))[-1] == "It is well."
    later = dataclasses.replace(texts, ours="Ours!")
    assert list(side_by_side.shown(1, judged, later))[-1] == "It is well. *(Judged on an earlier text.)*"
    assert side_by_side.is_stale(judged, dataclasses.replace(texts, theirs=""))


def test_what_changed_is_named(monkeypatch, capsys):
    monkeypatch.setattr(side_by_side, "SAMPLES", (SAMPLE,))
    monkeypatch.setattr(side_by_side, "read_texts", lambda _data, _sample: Texts("http://a.example/", "a", "b"))
    side_by_side.compared(Path())
    assert capsys.readouterr().err == "http://a.example/: judged never, the texts are 59b271ae1bbc now\n"


def test_a_page_without_marks_is_left_alone():
    with pytest.raises(SystemExit, match="hint: put both marks"):
        side_by_side.replaced(f"text {MARKS[0]}", "part")


def test_passages_that_only_one_text_has():
    ours = "Same.\n\nOnly ours, and long.\nThe other has this, too\n\nShort one.\nEnd"
    theirs = "- Same\nMore: the other has this - too\nOnly theirs.\nEnd"
    assert side_by_side.only_in(ours.replace("The", "the"), theirs) == ["Only ours, and long.\nShort one."]
    assert side_by_side.only_in(theirs, ours) == ["More: the other has this - too\nOnly theirs."]
    assert side_by_side.only_in(ours, ours) == []
    many = "a1\nx\nbbbbb2\ny\ncccccc3"
    assert side_by_side.only_in(many, "x\ny") == ["bbbbb2", "cccccc3"]


def test_beginnings_and_ends():
    assert side_by_side.cut("word " * 50, 200) == "word " * 39 + "word …"
    assert side_by_side.cut("字" * 201, 200) == "字" * 200 + " …"
    assert side_by_side.end_of("word " * 50 + "end", 150) == "… " + "word " * 29 + "end"
    assert side_by_side.end_of("字" * 151, 150) == "… " + "字" * 150
    assert side_by_side.cut("short", 200) == side_by_side.end_of("short", 150) == "short"


def test_cells():
    assert (
        side_by_side.cell("\n- a | b\n  - c_d\n\n   \n`e`") == "- a \\| b<br>&nbsp;&nbsp;- c\\_d<br><br><br>&#96;e&#96;"
    )
    assert side_by_side.escaped("<b>x</b> & [y](z) \u202e") == "&lt;b&gt;x&lt;/b&gt; &amp; \\[y\\]\\(z)  "
    assert side_by_side.escaped("write to jane.doe+x@mail.example.org, or not") == "write to (address), or not"


@given(st.text(alphabet=st.sampled_from("ab \n|\\`<>&[](_*~$") | st.characters(), max_size=60))
def test_no_text_leaves_its_cell(text):
    cell = side_by_side.cell(text)
    assert not re.search(r"[\n\r`]|\]\(", cell)
    assert not re.search(r"(?<!\\)(?:\\\\)*\|", cell)
    assert set(re.findall(r"<[^>]*>?", cell)) <= {"<br>"}


def test_recipes_of_the_page_load(tmp_path):
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for folder in ("warc", "forums", "peer"):
        (tmp_path / folder).mkdir()
    steps = {}
    for block in blocks:
        (tmp_path / "recipe.yaml").write_text(block)
        for source in load_recipe(tmp_path / "recipe.yaml").sources:
            (steps[source.source.name],) = [step for step in source.transforms if isinstance(step, Extract)]
    assert steps["web"] == Extract()
    assert steps["news"] == Extract(mode="precision")
    assert steps["forums"] == Extract(mode="recall", comments=True)
    assert steps["peer"] == Extract(engine="trafilatura", mode="precision", timeout_seconds=120)


def test_bounds_columns_and_engines_of_the_page_are_those_of_the_transform():
    defaults = Extract()
    for name in ("max_bytes", "max_nodes", "max_depth", "max_attributes", "timeout_seconds"):
        assert f"| `{name}` | {getattr(defaults, name):,} |" in PAGE
    for name in [*Extract.adds.names, *ENGINES]:
        assert re.search(rf"^\| `{name}`", PAGE, re.MULTILINE), name


def test_collections_of_the_page_are_those_of_the_catalogue():
    named = re.findall(r"^.*There are four: (.+?) A page of the last", PAGE, re.MULTILINE | re.DOTALL)[0]
    assert set(re.findall(r"`(\w+)`", named)) == {collection.name for collection in read_collections()}
    assert len(read_collections()) == 4
