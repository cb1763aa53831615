"""The tools run in children that may be killed; what they said is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.main_content.training import references as module
from pipelines.main_content.training.references import CACHE_FILE, TOOLS, page_hash, plain_text, references

ARTICLE = "".join(
    f"<p>This is sentence number {n} of a long paragraph, which goes on, and on, for a while.</p>" for n in range(9)
)
PAGE = (
    f"<html><head><title>T</title></head><body><nav><a href=/>Home</a></nav><article>{ARTICLE}</article></body></html>"
)


@pytest.fixture(autouse=True)
def _every_tool_is_there() -> None:
    pytest.importorskip("readability")


def test_every_tool_gives_the_article_and_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = references([PAGE, PAGE], tmp_path)[page_hash(PAGE)]
    assert sorted(texts) == sorted(TOOLS)
    assert all("sentence number 8 of" in text for text in texts.values())
    assert len((tmp_path / CACHE_FILE).read_text().splitlines()) == len(TOOLS)
    monkeypatch.setattr(module, "_Child", None)  # nobody is asked again
    assert references([PAGE], tmp_path) == {page_hash(PAGE): texts}


def test_a_torn_line_and_another_version_count_as_nothing(tmp_path: Path) -> None:
    whole = references([PAGE], tmp_path)
    lines = (tmp_path / CACHE_FILE).read_text().splitlines()
    old = json.dumps({**json.loads(lines[0]), "version": "0.0", "text": "old"})
    (tmp_path / CACHE_FILE).write_text("\n".join([*lines[1:-1], old, lines[-1][:20]]))
    assert references([PAGE], tmp_path) == whole


def test_a_page_that_takes_too_long_has_no_text(tmp_path: Path) -> None:
    texts = references([PAGE], tmp_path, processes=1, timeout_seconds=0.0)[page_hash(PAGE)]
    assert texts == dict.fromkeys(TOOLS, "")


def test_a_tool_that_raises_gives_an_empty_text(tmp_path: Path) -> None:
    texts = references(["", PAGE], tmp_path)  # readability-lxml raises on an empty page
    assert set(texts[page_hash("")].values()) == {""}
    assert all(texts[page_hash(PAGE)].values())


def test_plain_text_keeps_blocks_apart() -> None:
    assert plain_text("<div>one<p>two</p>three<ul><li>four</ul>").split() == ["one", "two", "three", "four"]
