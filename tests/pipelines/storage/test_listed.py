from __future__ import annotations

import gzip
import pickle
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_server import serve

from pipelines.errors import HeadraceError
from pipelines.storage import listed
from pipelines.storage.https import HttpsStorage
from pipelines.storage.listed import (
    UNKNOWN_SIZE,
    ListedStorage,
    ask_sizes,
    parse_listing,
    read_listing,
)
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import ReadStorage, StoredFile

LIST = b"# two files\n\na/one.gz\t12\n  \r\nb c/\xe6\x97\xa5.warc\r\n#x\n"
FILES = (StoredFile("a/one.gz", 12), StoredFile("b c/日.warc", UNKNOWN_SIZE))


@pytest.mark.parametrize("name", ["list", "list.gz"])
def test_a_list_is_read(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(LIST, mtime=0) if name.endswith(".gz") else LIST)
    assert read_listing(tmp_path / name) == FILES


@pytest.mark.parametrize(
    ("data", "files"),
    [
        (b"", []),
        (b"\xef\xbb\xbfa", ["a"]),
        (b"a\nb", ["a", "b"]),
        (b"b\na\n", ["b", "a"]),
        (b"a\xc2\xa0b\n c \n", ["a\xa0b", " c "]),
        (b"a\\b\n...\n..a\nc:x\n", ["a\\b", "...", "..a", "c:x"]),
    ],
)
def test_what_is_a_name(data, files):
    assert [file.path for file in parse_listing(data, "list")] == files


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"/etc/passwd", "is an absolute path\nhint: "),
        (b"//host/a", "is an absolute path\nhint: "),
        (b"..", "has an empty part, . or ..\nhint: "),
        (b"a/../../b", "has an empty part, . or ..\nhint: "),
        (b"./a", "has an empty part, . or ..\nhint: "),
        (b"a//b", "has an empty part, . or ..\nhint: "),
        (b"a/", "has an empty part, . or ..\nhint: "),
        (b"\t12", "has an empty part, . or ..\nhint: "),
        (b"s3://bucket/a", "is a URL\nhint: "),
        (b"HTTPS://host/a\t1", "is a URL\nhint: "),
        (b"a\rb", "has a control character\nhint: "),
        (b"a\x00", "has a control character\nhint: "),
        (b"a\x1b[2J", "has a control character\nhint: "),
        (b"a\x7f", "has a control character\nhint: "),
        (b"a\xc2\x85b", "has a control character\nhint: "),
        (b"a\xe2\x80\xa8b", "has a control character\nhint: "),
        (b"a\t", "size '' is no number\nhint: "),
        (b"a\tx", "size 'x' is no number\nhint: "),
        (b"a\t-1", "size '-1' is no number\nhint: "),
        (b"a\t1_0", "size '1_0' is no number\nhint: "),
        (b"a\t1\t2", "size '1\\t2' is no number\nhint: "),
        ("a\t٣".encode(), "size '٣' is no number\nhint: "),
        (b"a\t" + b"9" * 19, "is no number\nhint: "),
        (b"first", "is named twice\nhint: "),
        (b"first\t7", "is named twice\nhint: "),
        (b"\xff\xfe", "is not UTF-8\nhint: "),
        (b"a\xed\xa0\x80", "is not UTF-8\nhint: "),
    ],
)
def test_what_is_no_name_is_refused_with_its_line(line, said):
    with pytest.raises(HeadraceError) as caught:
        parse_listing(b"# head\nfirst\n" + line + b"\n", "LIST")
    assert str(caught.value).startswith("LIST:3: ")
    assert said in str(caught.value)


@given(st.binary(max_size=60))
def test_whatever_a_list_holds_its_names_stay_below_the_root(data):
    try:
        files = parse_listing(data, "list")
    except HeadraceError as error:
        assert "\nhint: " in str(error)
        return
    root = Path("/top/of/files")
    for file in files:
        path = root / file.path
        assert path.is_relative_to(root)
        assert ".." not in path.parts
        assert len(path.relative_to(root).parts) == file.path.count("/") + 1
        assert file.size >= UNKNOWN_SIZE


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="/#"), min_size=1),
            st.integers(-1, 10**18 - 1),
        ),
        unique_by=lambda file: file[0],
    )
)
def test_what_is_written_is_read(files):
    files = [(f"x{path}", size) for path, size in files]
    lines = [path if size < 0 else f"{path}\t{size}" for path, size in files]
    assert parse_listing("\n".join(lines).encode(), "list") == tuple(StoredFile(*file) for file in files)


@pytest.mark.parametrize(
    "data", [b"no gzip", gzip.compress(LIST, mtime=0)[:-4], gzip.compress(LIST, mtime=0)[:20], b"\x1f\x8b\x08"]
)
def test_a_damaged_gzip_list(tmp_path, data):
    (tmp_path / "list.gz").write_bytes(data)
    with pytest.raises(HeadraceError, match="list.gz: is no whole gzip file .*\nhint: "):
        read_listing(tmp_path / "list.gz")


@pytest.mark.parametrize("name", ["list", "list.gz"])
def test_a_list_is_read_up_to_a_size_only(tmp_path, monkeypatch, name):
    monkeypatch.setattr(listed, "MAX_LIST_BYTES", 1000)
    for size in (1000, 1001):
        data = b"#" * (size - 1) + b"\n"
        (tmp_path / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
        if size == 1000:
            assert read_listing(tmp_path / name) == ()
    with pytest.raises(HeadraceError, match="more than 1000 bytes of text\nhint: "):
        read_listing(tmp_path / name)


def test_a_list_that_is_not_there(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(HeadraceError, match=f"{path}: cannot be read .*\nhint: "):
            ListedStorage.of(LocalStorage(tmp_path), path)


def test_a_wrong_list_is_found_before_any_work(tmp_path):
    (tmp_path / "list").write_text("../a")
    with pytest.raises(HeadraceError, match="list:1: '../a': has an empty part"):
        ListedStorage.of(LocalStorage(tmp_path), tmp_path / "list")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, size in {"a/one": 3, "a/two": 5, "ab/three": 7, "four": 9}.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(b"x" * size)
    (tmp_path / "list").write_text("four\t9\na/two\nab/three\n")
    return tmp_path / "root"


def test_what_is_listed_is_what_is_there(root):
    storage = ListedStorage.of(LocalStorage(root), root.parent / "list")
    assert sorted(storage.list()) == [StoredFile("a/two", 5), StoredFile("ab/three", 7), StoredFile("four", 9)]
    assert [file.path for file in storage.list("a")] == ["a/two"]
    assert list(storage.list("b")) == []
    assert storage.url == str(root)
    assert {file.path: bool(file.modified) for file in storage.list()} == {"a/two": True, "ab/three": True, "four": 0}


def test_the_rest_is_the_bases(root):
    storage = ListedStorage.of(LocalStorage(root), root.parent / "list")
    assert storage.read("a/one") == b"xxx"
    with storage.open("a/two") as file:
        assert file.read() == b"xxxxx"
    assert storage.exists("a/one")
    assert not storage.exists("none")
    assert storage.stat("four") == StoredFile("four", 9)


def test_it_is_small_where_it_travels(root):
    (root.parent / "list").write_text("".join(f"segments/{number}/file.warc.gz\t1\n" for number in range(100_000)))
    storage = ListedStorage.of(LocalStorage(root), root.parent / "list")
    assert len(pickle.dumps(storage)) < 1000
    assert pickle.loads(pickle.dumps(storage)) == storage
    assert sum(1 for _ in storage.list()) == 100_000


def test_a_listed_file_that_is_not_there(root):
    (root.parent / "list").write_text("a/one\nnone\n")
    storage = ListedStorage.of(LocalStorage(root), root.parent / "list")
    with pytest.raises(HeadraceError, match=f"none: is listed, but not below {root}\nhint: "):
        list(storage.list())


def test_sizes_come_from_the_web(root):
    with serve(root) as server:
        storage = ListedStorage.of(HttpsStorage.from_url(server.url), root.parent / "list")
        assert sorted(storage.list()) == [StoredFile("a/two", 5), StoredFile("ab/three", 7), StoredFile("four", 9)]
        asked = [(seen.method, seen.path) for seen in server.requests]
        assert sorted(asked) == [("HEAD", "/a/two"), ("HEAD", "/ab/three")], "the list has the other size"


class _Counting:
    """A base that counts who asks at the same time."""

    url = "counting"

    def __init__(self) -> None:
        self.now = self.most = self.asked = 0
        self.lock = threading.Lock()

    def stat(self, path: str) -> StoredFile:
        with self.lock:
            self.now, self.asked = self.now + 1, self.asked + 1
            self.most = max(self.most, self.now)
        time.sleep(0.001)
        with self.lock:
            self.now -= 1
        if path == "bad":
            raise FileNotFoundError(path)
        return StoredFile(path, len(path))


def _as_storage(base: _Counting) -> ReadStorage:
    return base  # type: ignore[return-value]


def test_a_few_threads_ask_and_the_order_stays():
    base, reported = _Counting(), []
    paths = ["x" * (number % 90 + 1) + str(number) for number in range(2500)]
    sized = list(ask_sizes(_as_storage(base), paths, reported.append))
    assert [(file.path, file.size) for file in sized] == [(path, len(path)) for path in paths]
    assert 2 <= base.most <= 8
    assert reported == list(range(1, 2501))


def test_after_a_failure_nobody_goes_on_asking():
    base = _Counting()
    with pytest.raises(HeadraceError, match="bad: is listed"):
        list(ask_sizes(_as_storage(base), ["bad", *map(str, range(50_000))]))
    assert base.asked < 1100
