"""List files: comments, white space and line ends go; damaged and changed files are told of by name."""

from __future__ import annotations

import gzip

import pytest

from pipelines.errors import RecipeError
from pipelines.transforms import lists
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.lists import list_entries


def entries(tmp_path, content: bytes) -> list[str]:
    path = tmp_path / "list"
    path.write_bytes(content)
    return list_entries(GivenFile.of(path)).to_pylist()


TEXT = "\ufeff# a list\r\n one \r\n\n#two\nthree # why\n\tfour#5\nfünf\u3000\n#"
EXPECTED = ["one", "three", "four#5", "fünf"]


def test_lines(tmp_path):
    content = TEXT.encode()
    assert entries(tmp_path, content) == EXPECTED
    assert entries(tmp_path, gzip.compress(content, mtime=0)) == EXPECTED
    assert entries(tmp_path, gzip.compress(content[:20], mtime=0) + gzip.compress(content[20:], mtime=0)) == EXPECTED
    assert entries(tmp_path, b"") == entries(tmp_path, b"#") == entries(tmp_path, gzip.compress(b"", mtime=0)) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff", "is no UTF-8"),
        (gzip.compress(b"word\n" * 99, mtime=0)[:-9], "is cut off"),
        (gzip.compress(b"word\n", mtime=0) + b"rest", "is no sound gzip"),
        (b"\x1f\x8b" + b"x" * 20, "is no sound gzip"),
    ],
)
def test_damaged_files(content, said, tmp_path):
    with pytest.raises(RecipeError, match=f"{tmp_path}/list: {said}.*\nhint: "):
        entries(tmp_path, content)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_that_unpacks_to_too_much(pack, tmp_path, monkeypatch):
    """A small bomb: unpacking stops at the bound."""
    monkeypatch.setattr(lists, "MAX_BYTES", 1000)
    assert entries(tmp_path, pack(b"x" * 1000)) == ["x" * 1000]
    with pytest.raises(RecipeError, match="more than 1000 bytes"):
        entries(tmp_path, pack(b"x\n" * 5_000_000))


def test_a_file_that_is_gone_or_another(tmp_path):
    path = tmp_path / "list"
    path.write_text("a")
    given = GivenFile.of(path)
    path.write_text("b")
    with pytest.raises(RecipeError, match="was changed since"):
        list_entries(given)
    path.unlink()
    with pytest.raises(RecipeError, match="No such file"):
        list_entries(given)
