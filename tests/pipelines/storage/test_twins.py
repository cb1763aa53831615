"""What a folder and a bucket must do alike."""

from __future__ import annotations

import io
import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from s3_server import session_server

from pipelines.errors import OutputError
from pipelines.storage.local import LocalStorage
from pipelines.storage.s3 import S3Storage
from pipelines.storage.storage import StoredFile

ODD_NAMES = ["a b", "a+b", "a%20b", "ü/ß", "日本", "a&b<c>", "q\"'", "#?x=1", "a\tb", "a\nb", "a\rb", "~!*()", "a=b;c"]


@pytest.fixture(params=["local", "s3"])
def storage(request, tmp_path, monkeypatch):
    if request.param == "local":
        return LocalStorage(tmp_path)
    server = session_server()
    server.enter(monkeypatch)
    return S3Storage(server.bucket, uuid.uuid4().hex, lease_seconds=1)


def publish(storage, path, data):
    attempt = storage.new_attempt()
    with storage.create(attempt, "file") as file:
        file.write(data)
    storage.publish(attempt, "file", path)
    storage.discard(attempt)


def paths(storage, prefix=""):
    return sorted(file.path for file in storage.list(prefix))


def test_nothing_is_seen_before_it_is_published(storage):
    attempt = storage.new_attempt()
    with storage.create(attempt, "a") as file:
        file.write(b"te")
        file.write(b"xt")
    assert list(storage.list()) == []
    storage.publish(attempt, "a", "table/a")
    assert list(storage.list()) == [StoredFile("table/a", 4)]
    assert storage.read("table/a") == b"text"


def test_files_of_one_attempt_are_published_one_by_one_and_over_what_is_there(storage):
    attempt = storage.new_attempt()
    for name in ("a", "b"):
        with storage.create(attempt, name) as file:
            file.write(name.encode())
    storage.publish(attempt, "b", "x")
    assert storage.read("x") == b"b"
    storage.publish(attempt, "a", "x")
    assert storage.read("x") == b"a"
    storage.discard(attempt)
    assert paths(storage) == ["x"]


def test_a_discarded_attempt_leaves_nothing(storage):
    attempt = storage.new_attempt()
    with storage.create(attempt, "a") as file:
        file.write(b"text")
    storage.discard(attempt)
    storage.discard(attempt)
    assert paths(storage) == []


def test_only_one_of_many_commits_is_made(storage):
    together = threading.Barrier(8)

    def commit(number):
        together.wait()
        return storage.commit("commits/x", b"%d" % number)

    for _ in range(2):
        storage.delete("commits")
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(commit, range(8)))
        assert made.count(True) == 1
        assert storage.read("commits/x") == b"%d" % made.index(True)
        assert paths(storage) == ["commits/x"]


def test_a_record_is_replaced_whole(storage):
    storage.replace("run.json", b"a long record")
    storage.replace("run.json", b"short")
    assert storage.read("run.json") == b"short"
    assert paths(storage) == ["run.json"]


def test_a_prefix_is_a_folder(storage):
    for path in ("a/b/1", "a/b/c/2", "a/bc", "b"):
        storage.replace(path, b"")
    assert paths(storage) == ["a/b/1", "a/b/c/2", "a/bc", "b"]
    assert paths(storage, "a/b") == ["a/b/1", "a/b/c/2"]
    assert paths(storage, "a") == ["a/b/1", "a/b/c/2", "a/bc"]
    assert paths(storage, "b") == paths(storage, "none") == []


def test_delete_takes_a_file_or_a_folder(storage):
    for path in ("a/b/1", "a/b/c/2", "a/bc", "d"):
        storage.replace(path, b"")
    storage.delete("none")
    storage.delete("d")
    assert paths(storage) == ["a/b/1", "a/b/c/2", "a/bc"]
    storage.delete("a/b")
    assert paths(storage) == ["a/bc"]


def test_stat_says_what_list_says(storage):
    storage.replace("a/b", b"12345")
    (listed,) = storage.list()
    assert storage.stat("a/b") == listed == StoredFile("a/b", 5)
    assert storage.stat("a/b").modified == listed.modified > 10**18
    assert storage.exists("a/b")
    assert not storage.exists("a/c")


@pytest.mark.parametrize("method", ["open", "read", "stat"])
def test_a_missing_file_is_named(storage, method):
    with pytest.raises(FileNotFoundError) as caught:
        getattr(storage, method)("a/none")
    assert str(caught.value.filename) == f"{storage.url}/a/none"


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 3_000_000])
def test_reading_gives_the_bytes_from_anywhere(storage, size):
    data = random.Random(size).randbytes(size)
    publish(storage, "x", data)
    choose, expected = random.Random(1), io.BytesIO(data)
    with storage.open("x") as file:
        assert file.seekable()
        assert file.read() == data
        for _ in range(60):
            offset, whence = choose.randrange(size + 10), choose.choice([0, 0, 0, 2])
            offset = -min(offset, size) if whence == 2 else offset
            assert file.seek(offset, whence) == expected.seek(offset, whence)
            for length in choose.choices([0, 1, 10, 9_000, 70_000, 700_000], k=3):
                assert file.read(length) == expected.read(length)
                assert file.tell() == expected.tell()
            buffer = bytearray(1000)
            assert file.readinto(buffer) == len(found := expected.read(1000))
            assert buffer[: len(found)] == found


def test_lines(storage):
    data = b"".join(b"%d\n" % number * (number % 3 + 1) for number in range(30_000)) + b"no end"
    publish(storage, "x", data)
    with storage.open("x") as file:
        assert list(file) == data.splitlines(keepends=True)


def test_odd_names_come_back(storage):
    for name in ODD_NAMES:
        storage.replace(f"odd/{name}", name.encode())
    assert paths(storage, "odd") == sorted(f"odd/{name}" for name in ODD_NAMES)
    for name in ODD_NAMES:
        assert storage.read(f"odd/{name}") == name.encode()
        assert storage.stat(f"odd/{name}").size == len(name.encode())
    storage.delete("odd")
    assert paths(storage) == []


def test_who_holds_a_folder_alone_keeps_others_out(storage):
    with storage.claim():
        for shared in (False, True):
            with (
                pytest.raises(OutputError, match="another run is at work in this folder"),
                storage.claim(shared=shared),
            ):
                raise AssertionError("held twice")
        assert paths(storage) == []
    with storage.claim():
        pass


def test_who_shares_a_folder_keeps_those_out_who_want_it_alone(storage):
    with storage.claim(shared=True), storage.claim(shared=True):
        with pytest.raises(OutputError, match="another run is at work in this folder"), storage.claim():
            raise AssertionError("held alone and shared")
        assert paths(storage) == []
    with storage.claim():
        pass


def test_a_failure_inside_is_passed_on_and_lets_go(storage):
    for shared in (False, True):
        with pytest.raises(ZeroDivisionError), storage.claim(shared=shared):
            raise ZeroDivisionError
    with storage.claim():
        pass
