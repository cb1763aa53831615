from __future__ import annotations

import errno
import os

import pytest

from pipelines.errors import OutputError
from pipelines.storage.local import LocalStorage, explain_os_error
from pipelines.storage.storage import StoredFile


def test_nothing_is_seen_before_it_is_published(tmp_path):
    storage = LocalStorage(tmp_path)
    attempt = storage.new_attempt()
    with storage.create(attempt, "a") as file:
        file.write(b"text")
    assert list(storage.list()) == []
    storage.publish(attempt, "a", "table/a")
    assert list(storage.list()) == [StoredFile("table/a", 4)]
    assert storage.read("table/a") == b"text"


def test_only_one_of_two_commits_is_made(tmp_path):
    storage = LocalStorage(tmp_path)
    assert storage.commit("commits/x", b"one")
    assert not storage.commit("commits/x", b"two")
    assert storage.read("commits/x") == b"one"
    assert [file.path for file in storage.list()] == ["commits/x"]
    assert not any((tmp_path / ".attempts").iterdir()), "the second left something behind"


def test_a_discarded_attempt_is_gone(tmp_path):
    storage = LocalStorage(tmp_path)
    with storage.create("attempt", "a") as file:
        file.write(b"text")
    storage.discard("attempt")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_links_are_listed_only_where_they_stay_below_the_root(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    (root / "a").mkdir(parents=True)
    outside.mkdir()
    (root / "a/real").write_text("real")
    (outside / "secret").write_text("secret")
    (outside / "back").symlink_to(root / "a/real")
    links = {
        "inside": root / "a/real",
        "relative": "a/real",
        "absolute": outside / "secret",
        "upwards": "../outside/secret",
        "twice": root / "absolute",
        "and_back": outside / "back",
        "folder": outside,
        "broken": root / "none",
        "loop": root / "loop",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    expected = [StoredFile(path, 4) for path in ("a/real", "and_back", "inside", "relative")]
    assert sorted(LocalStorage(root).list()) == expected
    (tmp_path / "linked").symlink_to(root)
    assert sorted(LocalStorage(tmp_path / "linked").list()) == expected, "the root itself may be a link"


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "free some space and run the same command again"), (errno.EACCES, "choose another --output")],
)
def test_a_failed_write_says_what_to_do(number, said):
    error = explain_os_error(OSError(number, os.strerror(number)), "out/x")
    assert isinstance(error, OutputError)
    assert "out/x" in str(error)
    assert said in str(error)


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="writable folder"):
        LocalStorage(tmp_path / "out").create("attempt", "a")
