from __future__ import annotations

import io
import os
import pickle
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web_server import Fault, WebServer, make_certificate, serve

from pipelines.errors import HeadraceError
from pipelines.sources.commoncrawl import CommonCrawl
from pipelines.sources.source import BatchLimits, RawAccount, Split
from pipelines.storage import https
from pipelines.storage.https import MAX_WINDOW_BYTES, TIMEOUT, TRIES, WINDOW_BYTES, HttpsStorage
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import StoredFile

REPOSITORY = Path(__file__).resolve().parents[3]
SHARED = REPOSITORY / "../shared/data"
DATA = random.Random(5).randbytes(3_000_000)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setattr(https, "FIRST_PAUSE_S", 0.001)
    (tmp_path / "file").write_bytes(DATA)
    with serve(tmp_path) as running:
        yield running


@pytest.fixture
def storage(server: WebServer) -> HttpsStorage:
    return HttpsStorage.from_url(server.url)


# --- reading ---


def test_a_file_is_read_whole_in_few_requests_over_one_connection(server, storage):
    with storage.open("file") as file:
        pieces = list(iter(lambda: file.read(10_000), b""))
    assert b"".join(pieces) == DATA
    # windows of 64 KiB, 128 KiB ... 1 MiB hold 2,031,616 bytes; the one of 2 MiB holds the rest
    assert [seen.range[0] for seen in server.requests] == [(2**i - 1) << 16 for i in range(6)]
    assert server.connections == 1


def test_a_window_never_grows_over_its_largest_size(server, storage, tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(40 << 20)
    with storage.open("large") as file:
        assert sum(len(piece) for piece in iter(lambda: file.read(1 << 20), b"")) == 40 << 20
        file.seek(0)
        assert len(file.read(40 << 20)) == 40 << 20
    lengths = [last - first + 1 for first, last in (seen.range for seen in server.requests)]
    assert max(lengths) == MAX_WINDOW_BYTES
    assert len(lengths) <= 2 * (7 + 5)


@pytest.mark.parametrize("tag", ['"1"', 'W/"1"', None])
def test_whatever_the_tag_a_file_is_read(server, storage, tag):
    server.tag = tag
    assert storage.read("file") == DATA
    assert {seen.headers["Accept-Encoding"] for seen in server.requests} == {"identity"}


def test_jumps_cost_one_small_request_each(server, storage):
    with storage.open("file") as file:
        for at in (2_000_000, 500_000, 1_500_000, 1_500_100):
            file.seek(at)
            assert file.read(1000) == DATA[at : at + 1000]
    ranges = [seen.range for seen in server.requests]
    assert [first for first, _ in ranges] == [0, 2_000_000, 500_000, 1_500_000]
    assert {last - first + 1 for first, last in ranges} == {WINDOW_BYTES}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from([0, 1, 2]), st.integers(-200_000, 200_000), st.integers(0, 300_000)), max_size=8
    )
)
def test_any_walk_reads_what_a_local_file_reads(steps, storage, tmp_path):
    with storage.open("file") as file, (tmp_path / "file").open("rb") as expected:
        for whence, offset, num_bytes in steps:
            there = offset + {0: 0, 1: expected.tell(), 2: len(DATA)}[whence]
            if there >= 0:
                assert file.seek(offset, whence) == expected.seek(offset, whence)
            assert file.read(num_bytes) == expected.read(num_bytes)
            assert file.tell() == expected.tell()


def test_a_position_before_the_start_is_refused(storage):
    with storage.open("file") as file, pytest.raises(OSError, match="Invalid argument"):
        file.seek(-1)


@pytest.mark.parametrize("num_bytes", [0, 1, WINDOW_BYTES - 1, WINDOW_BYTES, WINDOW_BYTES + 1])
@pytest.mark.parametrize("ignores_range", [False, True])
def test_small_files_at_the_edges_of_a_window(server, storage, tmp_path, num_bytes, ignores_range):
    server.ignores_range = ignores_range
    (tmp_path / "small").write_bytes(DATA[:num_bytes])
    assert storage.read("small") == DATA[:num_bytes]
    assert storage.stat("small").size == num_bytes


def test_names_are_encoded(storage, tmp_path):
    name = "ö %41?#&+;=:@,日本.gz"
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / name).write_bytes(b"here")
    assert storage.read(f"a b/{name}") == b"here"


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "a//b", "", "./a", "/etc/passwd"])
def test_no_path_leaves_the_prefix(server, path):
    with pytest.raises(HeadraceError, match="hint: name files relative to"):
        HttpsStorage.from_url(f"{server.url}/prefix").open(path)
    assert server.requests == []


def test_a_missing_file_is_named_by_its_address(server, storage):
    with pytest.raises(FileNotFoundError) as caught:
        storage.open("none")
    assert caught.value.filename == f"{server.url}/none"
    with pytest.raises(FileNotFoundError):
        storage.stat("none")
    assert not storage.exists("none")
    assert storage.exists("file")


def test_size_and_time_come_from_the_server(server, storage, tmp_path):
    os.utime(tmp_path / "file", (1_700_000_000, 1_700_000_000))
    assert storage.stat("file") == StoredFile("file", len(DATA))
    assert storage.stat("file").modified == 1_700_000_000 * 10**9
    server.tells_time = False
    assert storage.stat("file").modified == 0
    assert {seen.method for seen in server.requests} == {"HEAD"}


@pytest.mark.parametrize("when", ["yesterday", "Mon, 99 Foo 2024 00:00:00 GMT", ""])
def test_a_time_that_is_none_is_not_told(server, storage, when):
    server.tells_time = False
    server.faults.append(Fault(headers=(("Last-Modified", when),)))
    assert storage.stat("file").modified == 0


def test_a_server_that_does_not_tell_the_size(server, storage):
    server.hides_size = server.ignores_range = True
    for ask in (storage.stat, storage.open):
        with pytest.raises(HeadraceError, match="/file: the server does not tell the file's size\nhint: "):
            ask("file")


def test_the_web_cannot_be_listed(storage):
    with pytest.raises(HeadraceError, match="cannot be asked which files it has\nhint: .*`files: FILE`"):
        storage.list()


def test_a_storage_travels_to_other_processes(storage):
    assert pickle.loads(pickle.dumps(storage)) == storage
    assert len(pickle.dumps(storage)) < 200


# --- faults ---

FAULTS = {
    "busy": Fault(503, (("Retry-After", "0"),)),
    "slow down": Fault(429),
    "broken": Fault(500),
    "reset": Fault(reset=True),
    "cut": Fault(cut=5000),
    "cut at once": Fault(cut=0),
    "no date": Fault(503, (("Retry-After", "soon"),)),
    "no number": Fault(503, (("Retry-After", "9" * 5000),)),
    "no year": Fault(503, (("Retry-After", "Mon, 01 Jan 99999999999 00:00:00 GMT"),)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_second_answer_fails_and_the_bytes_are_right(server, storage, name):
    server.faults.extend([FAULTS[name], Fault()] * 40)
    with storage.open("file") as file:
        assert b"".join(iter(lambda: file.read(10_000), b"")) == DATA
        file.seek(7)
        assert file.read(100_000) == DATA[7:100_007]
    assert len(server.requests) < 60


def test_random_faults_change_no_byte(server, storage):
    rng = random.Random(7)
    faults = [Fault(503), Fault(reset=True), *(Fault(cut=rng.randrange(300_000)) for _ in range(3))]
    server.faults.extend(rng.choice(faults) if rng.random() < 0.4 else Fault() for _ in range(400))
    for _ in range(5):
        assert storage.read("file") == DATA


def test_a_cut_body_is_taken_up_where_it_stopped(server, storage):
    server.faults.append(Fault(cut=50_000))
    with storage.open("file") as file:
        assert file.read(WINDOW_BYTES) == DATA[:WINDOW_BYTES]
    assert [seen.range for seen in server.requests] == [(0, WINDOW_BYTES - 1), (50_000, WINDOW_BYTES - 1)]
    assert server.requests[1].headers["If-Match"] == '"1"'


def test_bodies_that_get_on_by_a_byte_are_not_gone_on_with_for_ever(server, storage, tmp_path):
    (tmp_path / "short").write_bytes(b"0123456789")
    server.faults.extend([Fault(cut=1)] * (TRIES - 1))
    assert storage.read("short") == b"0123456789"
    server.faults.extend([Fault(cut=1)] * TRIES)
    with pytest.raises(HeadraceError, match="/short: cannot be read"):
        storage.read("short")


def test_a_body_that_gets_on_by_windows_may_be_cut_often(server, storage):
    with storage.open("file") as file:
        server.faults.extend([Fault(cut=WINDOW_BYTES)] * 3 * TRIES)
        assert file.read(2_500_000) == DATA[:2_500_000]


@pytest.mark.parametrize("fault", [Fault(503), Fault(reset=True), Fault(cut=0)])
def test_it_gives_up_after_so_many_tries(server, storage, fault):
    server.faults.extend([fault] * 100)
    with pytest.raises(HeadraceError, match=r"/file: .*\nhint: .*run the same command again"):
        storage.open("file")
    assert len(server.requests) == TRIES


def test_a_fault_is_no_property_of_the_file(server, storage, tmp_path):
    """Readers take an `OSError` for a damaged file, and would drop it for good."""
    texts = [DATA[1000 * i : 1000 * i + 1000].hex() for i in range(1000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "table", compression="none")
    with storage.open("table") as file:
        table = pq.ParquetFile(file, pre_buffer=False)
        server.faults.extend([Fault(503)] * TRIES)
        with pytest.raises(HeadraceError, match="answered 503 .*8 times"):
            table.read_row_group(0)


def test_retry_after_is_waited_for_but_not_for_ever(server, storage, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", pauses.append)
    server.faults.extend([Fault(503, (("Retry-After", "7"),)), Fault(503, (("Retry-After", "86400"),))])
    assert storage.stat("file").size == len(DATA)
    assert pauses == [7, 120]


def test_pauses_double_up_to_a_limit_and_are_jittered(server, storage, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(https, "FIRST_PAUSE_S", 0.5)
    monkeypatch.setattr("urllib3.util.retry.time.sleep", pauses.append)
    server.faults.extend([Fault(503)] * TRIES)
    with pytest.raises(HeadraceError):
        storage.stat("file")
    longest = [0.5, 1, 2, 4, 8, 16, 30]
    assert len(pauses) == len(longest)
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, longest, strict=True))
    assert len({pause / limit for pause, limit in zip(pauses, longest, strict=True)}) > 3


def test_a_stalled_server_is_left(server, storage, monkeypatch):
    monkeypatch.setenv(TIMEOUT, "1")
    server.faults.append(Fault(stall_s=1.5))
    assert storage.stat("file").size == len(DATA)
    assert len(server.requests) == 2


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e3", "soon", ""])
def test_a_timeout_that_is_none(storage, monkeypatch, value):
    monkeypatch.setenv(TIMEOUT, value)
    with pytest.raises(HeadraceError, match=f"{TIMEOUT}: found '{value}'\nhint: a whole number of seconds"):
        storage.stat("file")


@pytest.mark.parametrize("status", [400, 401, 403, 405, 451])
def test_refusals_are_not_repeated(server, storage, status):
    server.faults.append(Fault(status))
    with pytest.raises(HeadraceError, match=f"/file: the server answered {status} .*\nhint: check the address"):
        storage.open("file")
    assert len(server.requests) == 1


def test_nobody_listens(monkeypatch):
    monkeypatch.setattr(https, "FIRST_PAUSE_S", 0.001)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(HeadraceError, match=f"http://127.0.0.1:{port}/a: cannot be read .*refused"):
        HttpsStorage.from_url(f"http://127.0.0.1:{port}").open("a")


# --- versions and ranges ---


def _read_first(storage: HttpsStorage) -> io.BufferedReader:
    file = storage.open("file")
    assert file.read(10) == DATA[:10]
    return file  # type: ignore[return-value]


@pytest.mark.parametrize("ignores_conditions", [False, True])
@pytest.mark.parametrize("tag", ['"1"', 'W/"1"', None])
def test_a_file_that_changes_while_it_is_read(server, storage, tmp_path, ignores_conditions, tag):
    server.ignores_conditions, server.tag = ignores_conditions, tag
    with _read_first(storage) as file:
        (tmp_path / "file").write_bytes(DATA[::-1])
        os.utime(tmp_path / "file", (1_700_000_000, 1_700_000_000))
        server.tag = tag and tag.replace("1", "2")
        with pytest.raises(HeadraceError, match="/file: changed while it was read\nhint: run again"):
            file.read()


@pytest.mark.parametrize("size", [len(DATA) - 1, 100, 0, len(DATA) + 1])
def test_a_file_whose_size_changes_and_that_has_no_tag_or_time(server, storage, tmp_path, size):
    server.tag, server.tells_time = None, False
    with _read_first(storage) as file:
        (tmp_path / "file").write_bytes((DATA + b"x")[:size])
        with pytest.raises(HeadraceError, match="changed while it was read"):
            file.read()


def test_the_other_version_comes_with_the_resumed_body(server, storage):
    server.faults.append(Fault(cut=1000))
    server.faults.append(Fault(headers=(("ETag", '"2"'),)))
    with pytest.raises(HeadraceError, match="changed while it was read"):
        storage.open("file")


def test_a_time_that_differs_under_the_same_tag_is_no_change(server, storage):
    with _read_first(storage) as file:
        server.tells_time = False
        assert file.read() == DATA[10:]


def test_without_ranges_a_file_is_read_from_its_start(server, storage):
    server.ignores_range = True
    with storage.open("file") as file:
        assert b"".join(iter(lambda: file.read(10_000), b"")) == DATA
    assert len(server.requests) == 1


@pytest.mark.parametrize("at", [WINDOW_BYTES + 1, 2_000_000])
def test_without_ranges_a_jump_is_refused(server, storage, at):
    server.ignores_range = True
    with storage.open("file") as file:
        file.seek(at)
        with pytest.raises(HeadraceError, match=f"from {at} on, and answered with those from 0 on\nhint: .*Range"):
            file.read(1)


def test_without_ranges_a_cut_body_cannot_be_taken_up(server, storage):
    server.ignores_range = True
    server.faults.append(Fault(cut=1_000_000))
    with pytest.raises(HeadraceError, match="hint: a server must know Range requests"):
        storage.read("file")


@pytest.mark.parametrize(
    "content_range", ["bytes 1-65536/3000000", "bytes */3000000", "bytes 0-/3000000", "lines 0-9/3000000"]
)
def test_an_answer_about_other_bytes_is_refused(server, storage, content_range):
    server.faults.append(Fault(headers=(("Content-Range", content_range),)))
    with pytest.raises(HeadraceError, match="answered with those from|does not tell the file's size"):
        storage.open("file")


def test_more_bytes_than_asked_for_are_left_alone(server, storage):
    server.ignores_range = True  # 3,000,000 bytes where 64 KiB are asked for
    with storage.open("file") as file:
        assert len(file.raw._window) == WINDOW_BYTES  # type: ignore[attr-defined]


# --- addresses, redirects, TLS ---


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://data.commoncrawl.org", "https://data.commoncrawl.org"),
        ("HTTPS://host:8443/a/b%20c/", "https://host:8443/a/b%20c"),
        ("http://localhost:1/x", "http://localhost:1/x"),
        ("http://[::1]:1/x", "http://[::1]:1/x"),
        ("http://127.8.9.1", "http://127.8.9.1"),
    ],
)
def test_addresses(url, normal):
    assert HttpsStorage.from_url(url) == HttpsStorage(normal)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.com/a", "scheme 'http'.*could change the bytes\nhint: use https://"),
        ("http://127.0.0.1.example.com", "could change the bytes"),
        ("http://localhost.example.com", "could change the bytes"),
        ("ftp://127.0.0.1/a", "scheme 'ftp'"),
        ("https://someone:SECRET@host/a", "has a user"),
        ("https://SECRET@host/a", "has a user"),
        ("https://host/a?token=SECRET", "a query"),
        ("https://host/a?", "a query"),
        ("https://host/a#SECRET", "a fragment"),
        ("https://u:SECRET/x@[::1/a", "no URL"),
        ("https://u:SECRET/x@host/a", "no URL"),
        ("https:///a", "no URL"),
        ("https://host:99999/a", "no URL"),
        ("https://host/a b", "no URL"),
        ("https://hóst/a", "no URL"),
        ("https://host/a\nb", "no URL"),
        ("https://host/a/../b", "empty part, . or .."),
        ("https://host//b", "empty part, . or .."),
    ],
)
def test_addresses_that_are_refused(url, said):
    with pytest.raises(HeadraceError, match=said) as caught:
        HttpsStorage.from_url(url)
    assert "hint: " in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_redirects_are_followed(server, storage, tmp_path):
    (tmp_path / "moved").write_bytes(b"elsewhere")
    server.faults.append(Fault(302, (("Location", "/moved"),)))
    server.faults.append(Fault(307, (("Location", f"{server.url}/moved?signature=SECRET"),)))
    assert storage.read("file") == b"elsewhere"
    assert [seen.path for seen in server.requests] == ["/file", "/moved", "/moved?signature=SECRET"]
    assert all(seen.range == (0, WINDOW_BYTES - 1) for seen in server.requests)


def test_redirects_end(server, storage):
    server.faults.extend([Fault(301, (("Location", "/file"),))] * 6)
    with pytest.raises(HeadraceError, match="more than 5 redirects"):
        storage.open("file")
    server.requests.clear()
    server.faults.extend([Fault(301, (("Location", "/file"),))] * 5)
    assert storage.read("file") == DATA


@pytest.mark.parametrize(
    "location",
    [
        "https://127.0.0.1:1/file",
        "http://example.com/file",
        "ftp://127.0.0.1/file",
        "file:///etc/passwd",
        "http://someone:SECRET@127.0.0.1:1/file",
        "http://[::1/SECRET",
        "//example.com/file?SECRET",
    ],
)
def test_redirects_that_lead_astray(server, storage, location):
    server.faults.append(Fault(302, (("Location", location),)))
    with pytest.raises(HeadraceError, match="hint: ") as caught:
        storage.open("file")
    assert "SECRET" not in str(caught.value)
    assert len(server.requests) == 1


def test_what_a_redirect_was_signed_with_is_in_no_message(server, storage):
    server.faults.append(Fault(302, (("Location", "/moved?signature=SECRET"),)))
    server.faults.extend([Fault(reset=True)] * TRIES)
    with pytest.raises(HeadraceError, match="/file: cannot be read") as caught:
        storage.open("file")
    assert "SECRET" not in str(caught.value)
    assert "SECRET" not in str(caught.value.__cause__)


def test_tls_is_verified_by_what_the_system_trusts(tmp_path, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", pauses.append)
    (tmp_path / "file").write_bytes(DATA)
    make_certificate(tmp_path / "certificate.pem")
    with serve(tmp_path, tmp_path / "certificate.pem") as server:
        storage = HttpsStorage.from_url(server.url)
        assert storage.url.startswith("https://")
        with monkeypatch.context() as patched:
            https._pools.clear()
            patched.delenv("SSL_CERT_FILE", raising=False)
            with pytest.raises(HeadraceError, match="CERTIFICATE_VERIFY_FAILED"):
                storage.open("file")
            assert server.requests == []
            assert len(pauses) == 2, "what is not trusted is not asked eight times"
            https._pools.clear()
            patched.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
            assert storage.read("file") == DATA
            server.faults.append(Fault(302, (("Location", f"http://127.0.0.1:{server.server_port}/file"),)))
            with pytest.raises(HeadraceError, match="redirected to another scheme"):
                storage.open("file")
            https._pools.clear()


# --- processes and threads ---


def test_threads_share_the_connections(server, storage):
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(storage.read("file"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [DATA] * 6
    assert server.connections <= 6


def test_a_forked_process_uses_no_connection_of_its_parent(server, storage):
    script = f"""
import os, sys
from pipelines.storage.https import HttpsStorage
storage = HttpsStorage({storage.url!r})
first = storage.read("file")
if os.fork() == 0:
    os._exit(0 if storage.read("file") == first else 1)
assert storage.read("file") == first
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True, timeout=60)
    assert server.connections == 2


# --- what reads through it ---


def test_parquet_reads_what_it_needs(server, storage, tmp_path):
    rng = random.Random(3)
    table = pa.table(
        {"id": list(range(2000)), "text": [rng.randbytes(1000).hex() for _ in range(2000)], "n": [1] * 2000}
    )
    pq.write_table(table, tmp_path / "table.parquet", row_group_size=500, compression="none")
    with storage.open("table.parquet") as stream:
        file = pq.ParquetFile(stream, pre_buffer=False)
        assert file.read_row_group(2, use_threads=False).equals(table.slice(1000, 500))
    asked = sum(last - first + 1 for first, last in (seen.range for seen in server.requests))
    size = (tmp_path / "table.parquet").stat().st_size
    assert asked < size * 0.6
    assert len(server.requests) <= 8


def _rows(storage: object, path: str, size: int) -> tuple[list[dict], RawAccount]:
    account, source = RawAccount(), CommonCrawl(name="web", include=("**",))
    batches = source.read(Split("web", (StoredFile(path, size),)), storage, BatchLimits(), account)  # type: ignore[arg-type]
    return [row for batch in batches for row in batch.to_pylist()], account


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_real_archives_read_as_from_a_folder(monkeypatch):
    monkeypatch.setattr(https, "FIRST_PAUSE_S", 0.001)
    local, rng = LocalStorage(SHARED / "warc"), random.Random(1)
    folders = [file for file in local.list() if file.path.split("/")[0] in ("commoncrawl", "webarchive", "odd")]
    files = [file for file in folders if file.size < 1_500_000 and "/encodings_html/" not in file.path]
    assert len(files) > 60
    with serve(SHARED / "warc") as server:
        web = HttpsStorage.from_url(server.url)
        for file in sorted(files)[::3]:
            server.faults.clear()
            server.faults.extend(rng.choice([Fault(), Fault(), Fault(503), Fault(cut=999)]) for _ in range(9))
            assert _rows(web, file.path, file.size) == _rows(local, file.path, file.size), file.path
