"""Every engine on the same pages: ordinary ones, and hostile ones within bounded time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile_pages
import pytest

from pipelines.transforms import library_extractors as module
from pipelines.transforms.extract import ENGINES, OWN_ENGINE, Extract
from pipelines.transforms.library_extractors import LIBRARIES
from pipelines.transforms.sandbox import Failed

SUPPORT = Path(hostile_pages.__file__).parent
ROOT = SUPPORT.parents[1]

COMPLEX = {
    "nested elements", "nested behind comments", "nested formatting", "formatting built anew", "nested tables",
    "misnested links", "nested svg", "nested lists", "nested templates", "many attributes", "a million paragraphs",
    "end tags without end", "plaintext", "framesets", "selects", "forms", "headings in paragraphs",
}  # fmt: skip
"""What no library's parser may see."""

PARAGRAPH = "The miller walks along the channel every morning, and looks at the banks, the rack and the wheel. " * 3
PAGE = f"""<!doctype html><html lang=en><head><title>Mill</title></head><body>
<nav><a href=/>Home</a> <a href=/about>Imprint</a></nav>
<article><h1>The mill</h1><p>{PARAGRAPH}</p><ul><li>rack and pinion of oak</li></ul>
<p>Zweitens: {PARAGRAPH}</p></article>
<div class=comments id=comments><div class=comment><p>Nice mill, says a reader of the page, and means it.</p></div>
</div>
</body></html>"""


@pytest.mark.parametrize("engine", LIBRARIES)
def test_functions_of_libraries(engine):
    """The article's two paragraphs in order, not the navigation, as UTF-8 without U+0000."""
    library = LIBRARIES[engine]
    function = getattr(module, library.address.partition(":")[2])
    for mode in library.modes:
        for page in (PAGE, f'<?xml version="1.0" encoding="iso-8859-1"?>{PAGE}', PAGE.replace("Mill", "\0&#0;")):
            text = function(page.encode(), mode=mode, comments=False).decode()
            assert text.count("The miller walks along the channel") == 6
            assert text.index("Zweitens: The miller") > text.index("The miller")
            assert "Imprint" not in text
            assert "\0" not in text


def test_comments_are_a_choice():
    """Where a library tells them."""
    for engine in ("trafilatura", "resiliparse"):
        function = getattr(module, LIBRARIES[engine].address.partition(":")[2])
        texts = [function(PAGE.encode(), mode="balanced", comments=comments) for comments in (False, True)]
        assert b"says a reader" not in texts[0]
        assert b"says a reader" in texts[1]


@pytest.mark.parametrize("engine", LIBRARIES)
@pytest.mark.parametrize("error", [ValueError("bad tree"), type("PanicException", (BaseException,), {})("boom")])
def test_what_libraries_raise(monkeypatch, engine, error):
    """Also a panic of native code, which is no `Exception`, is about the page and says what it is."""

    def fail() -> str:
        raise error

    with pytest.raises(Failed, match=f"^{type(error).__name__}: {error}$"):
        module._outcome(fail)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_faults_of_the_machine_are_no_verdicts(error):
    """What says nothing about the page is raised."""

    def fail() -> str:
        raise error

    with pytest.raises(type(error)):
        module._outcome(fail)


def test_surrogates_end_as_storable_text():
    """A pair is a character, a lone one U+FFFD."""
    assert module._outcome(lambda: "a\ud83d\ude00b\ud800c\0d").decode() == "a\U0001f600b\ufffdcd"


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_by_its_name(engine):
    """Through the child process where there is one."""
    row = hostile_pages.row_of(PAGE.encode(), engine)
    assert row["verdict"] is None
    assert "The miller walks along the channel" in row["text"]
    assert Extract(engine=engine).sandbox() is None or engine != OWN_ENGINE


@pytest.mark.parametrize("engine", ENGINES)
def test_hostile_pages(engine):
    """Each ends in bounded time and memory with text or a reason that counted work gives, the same twice."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SUPPORT / "hostile_pages.py"), engine],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{SUPPORT}"}, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    slowest = max(rows, key=lambda row: row[3])
    print(f"\n{engine}: slowest of {len(rows)} hostile pages is {slowest[0]}, {slowest[3]} s; {rows[-1][4] >> 20} MiB")
    assert [row[0] for row in rows] == list(hostile_pages.hostile_pages())
    for name, fate, is_same, took, memory in rows:
        if name == "50 MB attribute":
            assert fate == "extract.too_large"
        elif engine != OWN_ENGINE and name in COMPLEX:
            assert fate == "extract.too_complex", name
        elif engine != OWN_ENGINE:
            assert fate in ("text", "extract.empty"), name
        else:
            assert fate in ("text", "extract.empty", "extract.too_complex"), name
        assert is_same, name
        assert took < 60, name
        assert memory < 2 << 30, name
