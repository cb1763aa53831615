"""Code: what is a document, what is refused and why, splits, links, and the standard library as real input."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
import xxhash

from pipelines.errors import RecipeError
from pipelines.sources.source import BatchLimits, RawAccount
from pipelines.sources.source_code import EXTENSIONS, Code, programming_language
from pipelines.storage.local import LocalStorage


def write(root: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def test_each_file_is_a_document_or_says_why_not(read_all, tmp_path):
    write(
        tmp_path,
        {
            "a.py": "print('Größe')\n".encode(),
            "b/bom.c": b"\xef\xbb\xbfint x;",
            "b/empty.py": b"",
            "b/latin.py": b"# -*- coding: latin-1 -*-\n# caf\xe9\n",
            "b/nul.py": b"x = 1\n\0",
            "big.py": b"#" * 101,
            "broken_bom.py": b"\xef\xbb\xbf\xff",
            "notes": b"no language",
        },
    )
    source = Code("s", ("**",), "example", commit="abc", licence="MIT", max_record_bytes=100)
    rows, [account] = read_all(source, tmp_path)
    assert [(row["origin_path"], row["text"], row["verdict"] and row["verdict"]["reason"]) for row in rows] == [
        ("a.py", "print('Größe')\n", None),
        ("b/bom.c", "int x;", None),
        ("b/empty.py", None, "empty"),
        ("b/latin.py", None, "not_utf8"),
        ("b/nul.py", None, "binary"),
        ("big.py", None, "record_too_large"),
        ("broken_bom.py", None, "not_utf8"),
        ("notes", "no language", None),
    ]
    values = {row["origin_path"]: row["verdict"]["value"] for row in rows if row["verdict"]}
    assert values["b/latin.py"] == "byte 31"
    assert values["b/nul.py"] == "NUL at byte 6"
    assert values["broken_bom.py"] == "byte 3"
    assert values["big.py"] == "101 bytes"
    assert account.gaps == {"record_too_large": [1, 101]}
    first = rows[0]
    assert first["natural_key"] == "example a.py abc"
    assert first["doc_id"] == xxhash.xxh3_128_digest(b"s\x00example a.py abc")
    assert first["content_hash"] == xxhash.xxh3_128_digest("print('Größe')\n".encode())
    assert (first["origin_offset"], first["origin_length"], first["licence"]) == (0, 17, "MIT")
    assert [row["programming_language"] for row in rows[:2]] == ["Python", "C"]
    assert rows[-1]["programming_language"] is None


def test_links_out_of_the_root_are_not_seen_and_files_that_vanish_or_grow_are_errored(tmp_path):
    outside, root = tmp_path / "outside.py", tmp_path / "root"
    outside.write_bytes(b"secret")
    write(root, {"a.py": b"a", "grown.py": b"b", "gone.py": b"c", "shrunk.py": b"dd"})
    (root / "link.py").symlink_to(outside)
    (root / "inside.py").symlink_to(root / "a.py")
    storage, source = LocalStorage(root), Code("s", ("**",), "r")
    [split] = source.splits(storage)
    (root / "grown.py").write_bytes(b"bbb")
    (root / "shrunk.py").write_bytes(b"d")
    (root / "gone.py").unlink()
    account = RawAccount()
    [batch] = source.read(split, storage, BatchLimits(), account)
    found = {row["origin_path"]: row["text"] or row["verdict"]["reason"] for row in batch.to_pylist()}
    assert found == {
        "a.py": "a",
        "inside.py": "a",
        "grown.py": "damaged_file",
        "shrunk.py": "damaged_file",
        "gone.py": "unreadable",
    }
    assert account.size == account.records + sum(num_bytes for _, num_bytes in account.gaps.values())


def test_splits_are_runs_of_sorted_paths(read_all, tmp_path):
    write(tmp_path, {f"{name}.py": b"x" * size for name, size in [("c", 5), ("a", 6), ("b", 6), ("d", 50), ("e", 1)]})
    splits = Code("s", ("*.py",), "r", split_bytes=10).splits(LocalStorage(tmp_path))
    assert [[file.path for file in split.files] for split in splits] == [["a.py", "b.py"], ["c.py", "d.py"], ["e.py"]]
    assert len({split.id for split in splits}) == 3
    rows, accounts = read_all(Code("s", ("*.py",), "r", split_bytes=10, limit=1), tmp_path)
    assert [row["origin_path"] for row in rows] == ["a.py", "c.py", "e.py"]
    assert accounts[1].gaps == {"beyond_limit": [1, 50]}
    assert Code("s", ("*.none",), "r").splits(LocalStorage(tmp_path)) == []


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "Python"),
        ("X.HPP", "C++"),
        ("Makefile", "Makefile"),
        ("a/CMakeLists.txt", "CMake"),
        (".py", None),
        ("py", None),
        ("a.py/x", None),
    ],
)
def test_programming_language(path, language):
    assert programming_language(path) == language


def test_extensions_are_lower_case():
    assert all(extension == extension.lower() for extension in EXTENSIONS)


def test_wrong_values_of_a_recipe_are_named():
    with pytest.raises(RecipeError, match="split_bytes is 0\nhint"):
        Code("s", ("*",), "r", split_bytes=0)


def test_the_standard_library(read_all):
    root = Path(sysconfig.get_path("stdlib"))
    exclude = ("site-packages/**", "dist-packages/**", "**/__pycache__/**")
    source = Code("stdlib", ("**/*.py",), "cpython", exclude=exclude, split_bytes=1 << 20)
    rows, accounts = read_all(source, root)
    kept = {row["origin_path"]: row["text"] for row in rows if row["verdict"] is None}
    assert kept["json/__init__.py"] == (root / "json/__init__.py").read_text(encoding="utf-8")
    assert len(kept) > 500
    assert len({row["doc_id"] for row in rows}) == len(rows)
    assert len(accounts) > 5
    assert read_all(source, root, BatchLimits(7, 10_000))[0] == rows
