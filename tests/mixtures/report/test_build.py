"""The page: whole, quiet, the same bytes for the same input, and deaf to whatever the data says."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import lxml.html
import pytest
from click.testing import CliRunner
from report_inputs import (
    evaluation,
    made_plan,
    phase_source,
    planned_source,
    step,
    write_output,
    write_plan,
    write_run,
)

from mixtures.plan import Account, Dropped, Packed, Parent, Phase
from mixtures.report.build import build_report
from mixtures.report.charts import Axis, histogram, line_chart, waterfall
from mixtures.report.cli import report
from mixtures.report.errors import ReportError

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "{{ 7 * 7 }}</title></style><svg/onload=alert(1)>",
    "\x1b[31mred\x1b[0m\u202eback",
    "javascript:alert(1)//" + "x" * 300,
]
CHROMIUM = shutil.which("chromium")


def page_of(folder: Path) -> lxml.html.HtmlElement:
    return lxml.html.document_fromstring((folder / "report.html").read_text("utf-8"))


def make_training(made: Path, folder: Path, lines: list[dict[str, Any]] | None = None) -> Path:
    """A run of the made plan, in which everything that a page can show happens."""
    plan = made_plan(made, folder / "plan.json")
    if lines is None:
        lines = [step(1, loss=9.5), step(2), step(2), evaluation(2, 6.0), step(3, load_min=0.3), evaluation(3, 5.5)]
    return write_run(folder / "run", plan, lines, torn="{")


def make_hostile(folder: Path) -> Path:
    """A plan whose every name is hostile, on an output whose sources and reasons are; at least two of each."""
    shards = {name: {"en": [[9] * (place + 2)]} for place, name in enumerate(HOSTILE)}
    out = write_output(folder / "out", shards, dict.fromkeys(HOSTILE, 2))
    path = folder / "plan.json"
    sources, given = {}, {}
    for place, name in enumerate(HOSTILE):
        manifest = out / f"tokens/source{place}-0/language=en/manifest.json"
        sources[name] = planned_source(path, [manifest], class_name=name)
        documents = place + 1
        packed = Packed(documents, 9 * documents, 8 * documents, 0, documents)
        given[name] = phase_source("2", 2 * documents, packed, dropped={name: Dropped(1, 9)})
    plan = write_plan(path, sources, given, length=10, name=HOSTILE[0], key=HOSTILE[1])
    sources_loss = dict.fromkeys(HOSTILE, 5.0)
    lines = [step(1, digest=HOSTILE[3]), evaluation(1, 5.0, sources=sources_loss)]
    return write_run(folder / "run", plan, lines)


def test_sections_charts_and_tables(made: Path, tmp_path: Path) -> None:
    build_report(make_training(made, tmp_path), tmp_path / "report")
    page = page_of(tmp_path / "report")
    headings = [heading.text_content() for heading in page.iterfind(".//h2")]
    assert headings == [
        "Read and signed", "Composition asked and planned", "Where every document went", "Lengths of documents",
        "Padding", "Training",
    ]  # fmt: skip
    charts = page.xpath("//svg[@role='img']")
    assert len(charts) == 1 + 3 + 3 + 1 + 4  # shares, waterfalls, lengths, padding, curves
    for chart in charts:
        names = chart.get("aria-labelledby").split()
        assert [page.get_element_by_id(name).tag for name in names] == ["title", "desc"]
        assert all(page.get_element_by_id(name).text_content() for name in names)
    assert len(page.xpath("//*[@id]")) == len({element.get("id") for element in page.xpath("//*[@id]")})
    assert "All 3 accounts balance" in page.text_content()
    assert "1 of" not in page.xpath("string(//title)")
    rows = {row[0].text_content(): [cell.text_content() for cell in row] for row in page.iterfind(".//tbody/tr")}
    assert rows["dropped: gopher_quality.min_words"][1:] == ["1-read, gopher_quality", "−1", "−93", ""]


def test_the_page_needs_nothing_and_runs_nothing(made: Path, tmp_path: Path) -> None:
    build_report(make_training(made, tmp_path), tmp_path / "report")
    text = (tmp_path / "report/report.html").read_text("utf-8")
    assert_quiet(page_of(tmp_path / "report"))
    assert not re.search(r"https?://|url\(|@import", text)
    assert "default-src 'none'" in text


def assert_quiet(page: lxml.html.HtmlElement) -> None:
    for element in page.iter():
        assert element.tag not in ("script", "img", "iframe", "object", "embed", "link", "base", "a", "form", "animate")
        for name in element.attrib:
            assert not name.startswith("on"), (element.tag, name)
            assert name not in ("href", "xlink:href", "src", "srcset", "action", "style"), (element.tag, name)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    build_report(make_hostile(tmp_path), tmp_path / "report")
    page = page_of(tmp_path / "report")
    assert_quiet(page)
    assert len(page.findall(".//style")) == len(page.findall(".//head/title")) == 1
    raw = (tmp_path / "report/report.html").read_bytes()
    assert not set(raw) & (set(range(32)) - {10})  # no control character but the line feed
    assert "\u202e".encode() not in raw
    text = page.text_content()
    for name in HOSTILE[:4] + HOSTILE[5:]:
        cells = [cell.text_content() for cell in page.xpath("//th | //td")]
        assert cells.count(name) >= 5, name  # as a source, a class and a reason
        assert f"dropped: {name}" in cells
    assert "\\x1b[31mred\\x1b[0m\\u202eback" in text
    assert page.xpath("string(//h1)") == HOSTILE[0]
    assert "49" not in page.xpath("string(//title)")


def test_every_grouped_number_of_the_page_stands_in_the_figures(tmp_path: Path) -> None:
    """On an output with large numbers: what the page shows with thousands separators is in report.json."""
    lengths = [[1000 + 7 * place for place in range(60)], [31_000]]
    out = write_output(tmp_path / "out", {"web": {"en": lengths}, "code": {"en": lengths[:1]}}, {"short": 12_345})
    path = tmp_path / "plan.json"
    sources, given = {}, {}
    for place, name in enumerate(["web", "code"]):
        sources[name] = planned_source(path, [out / f"tokens/source{place}-0/language=en/manifest.json"])
        tokens, documents = sources[name].tokens, sources[name].documents
        packed = Packed(documents, tokens, tokens - documents, 1 - place, 1234)
        given[name] = phase_source("5", 5 * 1234, packed)
    plan = write_plan(path, sources, given, length=4096)
    lines = [step(number, tokens=4321) for number in range(1, 4)]
    build_report(write_run(tmp_path / "run", plan, lines), tmp_path / "report")
    figures = numbers_in(json.loads((tmp_path / "report/report.json").read_text()))
    known = {form(abs(number)) for number in figures for form in (math.floor, round)}
    texts = page_of(tmp_path / "report").xpath("//body//text()[not(ancestor::*[@class='tick'])]")
    shown = [number for text in texts for number in re.findall(r"\d{1,3}(?:,\d{3})+", text)]
    assert len(shown) > 60
    assert {int(number.replace(",", "")) for number in shown} <= known


def numbers_in(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return [number for item in items for number in numbers_in(item)]
    return [value] if isinstance(value, int | float) else []


def test_same_input_same_bytes(made: Path, tmp_path: Path) -> None:
    """Copied elsewhere and built again: neither the place nor the time shows."""
    contents = []
    for name in ("one", "another"):
        shutil.copytree(made, tmp_path / name / "out")
        run = make_training(tmp_path / name / "out", tmp_path / name)
        build_report(run, tmp_path / name / "report")
        contents.append([(tmp_path / name / "report" / file).read_bytes() for file in ("report.html", "report.json")])
        assert sorted(path.name for path in (tmp_path / name / "report").iterdir()) == ["report.html", "report.json"]
    assert contents[0] == contents[1]
    figures = json.loads(contents[0][1])
    assert contents[0][1].decode() == json.dumps(figures, sort_keys=True, indent=2) + "\n"


def test_a_report_takes_the_place_of_an_older_one(made: Path, tmp_path: Path) -> None:
    build_report(made, tmp_path / "report")
    assert "Training" not in (tmp_path / "report/report.html").read_text("utf-8")
    build_report(make_training(made, tmp_path), tmp_path / "report")
    assert ">Training<" in (tmp_path / "report/report.html").read_text("utf-8")


def test_an_output_says_what_it_lacks(made: Path, tmp_path: Path) -> None:
    build_report(made, tmp_path / "report")
    page = page_of(tmp_path / "report")
    assert [item.text_content() for item in page.xpath("//section[@class='absent']//li")] == [
        "composition and padding: an output folder has no plan",
        "training: an output folder has none",
    ]
    assert page.xpath("string(//h1)") == "made"
    assert "Padding" not in [heading.text_content() for heading in page.iterfind(".//h2")]


def test_a_plan_of_two_phases(made: Path, tmp_path: Path) -> None:
    """The format is wider than the planner: each phase has its sections, and the ledgers end at the token shards."""
    plan = made_plan(made, tmp_path / "plan.json")
    given = {
        name: dataclasses.replace(source, start=Account(1, 0), epochs=(1, 1), sequences=source.unique.sequences)
        for name, source in plan.phases[0].sources.items()
    }
    second = Phase(96, 4, 8, 2, given)
    continued = dataclasses.replace(plan, phases=(*plan.phases, second), parent=Parent("f" * 32, 5))
    (tmp_path / "plan.json").write_text(continued.to_json())
    figures = build_report(tmp_path / "plan.json", tmp_path / "report")
    worth = {row["source"]: row["worth"]["epochs"] for row in figures["phases"][1]["sources"]}
    assert worth == {"web": 2, "code": 2, "talks": 2}
    assert [row["continued"] for row in figures["waterfalls"]] == [False] * 3
    assert [limit["length"] for limit in figures["lengths"][0]["longer"]] == [48, 96]
    page = page_of(tmp_path / "report")
    assert [heading.text_content() for heading in page.iterfind(".//h2")][1:3] == [
        "Composition asked and planned, phase 1", "Composition asked and planned, phase 2",
    ]  # fmt: skip
    assert "ffff after 5 sequences" in page.text_content()
    assert len(page.xpath("//*[@id]")) == len({element.get("id") for element in page.xpath("//*[@id]")})


@pytest.mark.parametrize("place", ["", "report", "tokens/web/report"])
def test_never_inside_of_an_output(copied: Path, place: str) -> None:
    before = sorted(copied.rglob("*"))
    with pytest.raises(
        ReportError, match="lies inside of .*copy, the output of a run .*\nhint: name a folder beside it"
    ):
        build_report(copied, copied / place)
    assert sorted(copied.rglob("*")) == before


def test_never_inside_of_an_output_by_a_link(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(copied / "tokens")
    with pytest.raises(ReportError, match="lies inside of"):
        build_report(copied, tmp_path / "link/report")


def test_a_place_that_is_taken(made: Path, tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file")
    with pytest.raises(ReportError, match=r"report: File exists\nhint: "):
        build_report(made, tmp_path / "report")
    (tmp_path / "folder/report.html").mkdir(parents=True)
    with pytest.raises(ReportError, match=r"report\.html.*\nhint: "):
        build_report(made, tmp_path / "folder")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["report.html"]  # no attempt is left


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [step(1)],
        [step(1, loss=math.nan, load_max=math.inf)],
        [step(1, loss=0.0, learning_rate=0.0, gradient_norm=0.0, load_min=0.0, load_max=0.0, seconds=0.0)],
        [step(0), step(1, loss=1e300), step(2, loss=-1e300)],
        [step(1, loss=1e-300), evaluation(1, math.nan, unigram=math.inf)],
        [evaluation(0, 9.0)],
        [evaluation(1, 9.0, sources={}), evaluation(2, 8.0)],
    ],
)
def test_odd_logs_give_a_page(made: Path, tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    build_report(make_training(made, tmp_path, lines), tmp_path / "report")
    text = (tmp_path / "report/report.html").read_text("utf-8")
    assert not re.search(r'"[^"]*\b(nan|inf)\b[^"]*"', text)
    assert ">Training<" in text


def test_a_large_report_stays_small(tmp_path: Path) -> None:
    """30 sources with 8 reasons each, 3,000 steps, 300 evaluations."""
    names = [f"source_{number:02d}" for number in range(30)]
    reasons = {f"gopher_quality.rule_{number}": number + 1 for number in range(8)}
    out = write_output(tmp_path / "out", {name: {"en": [[9, 700, 1 << 15]]} for name in names}, reasons)
    path = tmp_path / "plan.json"
    sources, given = {}, {}
    for place, name in enumerate(names):
        sources[name] = planned_source(path, [out / f"tokens/source{place}-0/language=en/manifest.json"])
        given[name] = phase_source("2", 10, Packed(3, 33_477, 33_474, 1, 5))
    plan = write_plan(path, sources, given, length=8192)
    lines = [step(number) for number in range(3000)]
    lines += [evaluation(number, 5.0, sources=dict.fromkeys(names[:4], 5.0)) for number in range(0, 3000, 10)]
    build_report(write_run(tmp_path / "run", plan, lines), tmp_path / "report")
    assert (tmp_path / "report/report.html").stat().st_size < 300_000


def test_the_command(made: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(report, [str(made), "--output", str(tmp_path / "report")])
    assert result.exit_code == 0, result.output
    assert "left out: training: an output folder has none" in result.output
    assert f"report in {tmp_path}/report/report.html" in result.output
    result = CliRunner().invoke(report, [str(tmp_path), "--output", str(tmp_path / "report")])
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {tmp_path}: holds neither")


# Charts


def test_a_waterfall_falls() -> None:
    rows = [
        {"kind": "total", "label": "read", "documents": 10},
        {"kind": "change", "label": "added", "documents": 0},
        {"kind": "change", "label": "dropped", "documents": -4},
        {"kind": "change", "label": "created", "documents": 2},
        {"kind": "total", "label": "l" * 60, "documents": 8},
    ]
    charted = waterfall(rows)
    assert [(row.value, row.bars[0].left, row.bars[0].width, row.bars[0].kind) for row in charted] == [
        ("10", 0, 100, "total"), ("−4", 60, 40, "loss"), ("+2", 60, 20, "gain"), ("8", 0, 80, "total"),
    ]  # fmt: skip
    assert charted[-1].label == "l" * 45 + "…"


def test_an_axis_has_round_numbers() -> None:
    assert Axis.over([3.79, 10.8, None, 7.41]).ticks() == [
        (0.0, "2"), (0.2, "4"), (0.4, "6"), (0.6, "8"), (0.8, "10"), (1.0, "12"),
    ]  # fmt: skip
    assert [label for _, label in Axis.over([0.0, 0.01]).ticks()] == ["0.0000", "0.0025", "0.0050", "0.0075", "0.0100"]
    assert [label for _, label in Axis.over([0.0, 1e-6]).ticks()][-1] == "1.0e-06"
    assert Axis.over([]) == Axis.over([0.0])


def test_a_line_is_broken_where_there_is_no_number() -> None:
    x, y = Axis(0, 4, 1), Axis(0, 10, 5)
    points = [(0.0, 0.0), (1.0, 10.0), (2.0, None), (3.0, 5.0), (4.0, 2.5)]
    (line,) = line_chart(x, y, [("loss", "second dots", points)]).lines
    assert line.path == "M0.0 1000.0L250.0 0.0M750.0 500.0L1000.0 750.0"
    assert line.dots == ((0, 100), (25, 0), (75, 50), (100, 75))


def test_columns_of_a_histogram() -> None:
    bins = [{"from": 4, "documents": 5}, {"from": 8, "documents": 10}]
    first, second = histogram(bins, 2, 16)  # three slots: 2, 4 and 8
    assert (first.height, second.height) == (50, 100)
    assert first.left == pytest.approx(100 / 3 + 2)
    assert second.left + second.width == pytest.approx(98)


# A real browser

PROBE = """<!DOCTYPE html><iframe width="400" height="800" style="border:0"></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument.documentElement;
  document.title = JSON.stringify([page.scrollWidth, page.clientWidth, page.scrollHeight,
    frame.contentDocument.querySelectorAll("svg[role=img]").length]);
}};
frame.srcdoc = {page};
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("hostile", [False, True])
def test_in_a_browser_on_a_phone(made: Path, tmp_path: Path, hostile: bool) -> None:
    """No error in the console, and nothing wider than a window of 400 pixels but what scrolls by itself."""
    run = make_hostile(tmp_path) if hostile else make_training(made, tmp_path)
    build_report(run, tmp_path / "report")
    text = (tmp_path / "report/report.html").read_text("utf-8")
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(page=json.dumps(text).replace("</", "<\\/")), "utf-8")
    direct = run_chromium(tmp_path / "report/report.html", tmp_path)
    assert direct.stdout.count("<svg") >= 12
    assert "CONSOLE" not in direct.stderr
    probed = run_chromium(probe, tmp_path)
    title = lxml.html.document_fromstring(probed.stdout).xpath("string(//title)")
    scroll_width, width, height, charts = json.loads(title)
    assert (scroll_width, width) == (400, 400) or scroll_width <= width
    assert height > 2000
    assert charts >= 12
    assert "CONSOLE" not in probed.stderr


def run_chromium(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
        page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
