from __future__ import annotations

import datetime
import io
import itertools
import multiprocessing
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import uuid
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fault_proxy import KINDS, fault_proxy
from s3_server import free_ports, session_server

from pipelines.errors import HeadraceError, OutputError
from pipelines.storage import s3
from pipelines.storage.s3 import S3Storage

MIB = 1 << 20
LEASE = 1.0
HOLD = """
import sys, time
from pipelines.storage.s3 import S3Storage
with S3Storage(sys.argv[1], sys.argv[2], lease_seconds=float(sys.argv[3])).claim(shared=sys.argv[4] == "shared"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def server(monkeypatch):
    """The server, with its account in the environment."""
    server = session_server()
    server.enter(monkeypatch)
    return server


@pytest.fixture
def storage(server):
    return S3Storage(server.bucket, uuid.uuid4().hex, lease_seconds=LEASE)


@pytest.fixture
def counted(server, monkeypatch):
    """A proxy that counts what is asked for, and through which the storage asks."""
    with fault_proxy(server.endpoint, rate=0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        yield proxy


def publish(storage, path, data):
    attempt = storage.new_attempt()
    with storage.create(attempt, "file") as file:
        file.write(data)
    storage.publish(attempt, "file", path)


def holder(storage, kind):
    """Start a process that holds the storage."""
    arguments = [storage.bucket, storage.prefix, str(storage.lease_seconds), kind]
    process = subprocess.Popen([sys.executable, "-c", HOLD, *arguments], stdout=subprocess.PIPE, cwd=Path.cwd())
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def end(process, number=signal.SIGKILL):
    process.send_signal(number)
    process.wait()
    process.stdout.close()


def test_an_address():
    assert S3Storage.from_url("s3://bucket/a/b/") == S3Storage("bucket", "a/b")
    assert S3Storage.from_url("s3://bucket") == S3Storage.from_url("s3://bucket/") == S3Storage("bucket")
    assert S3Storage("bucket", "a/b").url == "s3://bucket/a/b"
    assert S3Storage("bucket").url == "s3://bucket"
    assert S3Storage("bucket", "a").key("b/c") == "a/b/c"
    assert S3Storage("bucket").key("b/c") == "b/c"


@pytest.mark.parametrize("url", ["s3://", "s3:///a", "s3://a", "https://bucket/a", "bucket/a", "s3://bu cket/a"])
def test_what_is_no_address(url):
    with pytest.raises(HeadraceError, match=r"is no address in S3\nhint: write s3://BUCKET/PREFIX"):
        S3Storage.from_url(url)


def test_a_key_in_an_address_is_not_repeated():
    with pytest.raises(HeadraceError) as caught:
        S3Storage.from_url("s3://AKIA:verysecret@bucket/a")
    assert "verysecret" not in str(caught.value)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a/.."])
def test_paths_that_lead_out_are_refused(path, monkeypatch):
    storage = S3Storage("bucket", "a")
    with pytest.raises(HeadraceError, match="hint: give it another name"):
        storage.key(path)
    entry = {"Key": f"a/{path}", "Size": 1, "LastModified": datetime.datetime.now(datetime.UTC)}
    monkeypatch.setattr(S3Storage, "_entries", lambda self, folder: iter([entry]))
    with pytest.raises(HeadraceError, match="hint: give it another name"):
        list(storage.list())


def test_it_is_pickled_without_its_client(storage):
    storage.replace("x", b"text")
    assert pickle.loads(pickle.dumps(storage)) == storage
    assert len(pickle.dumps(storage)) < 500


def test_other_processes_read_too(storage):
    storage.replace("x", b"text")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert set(pool.map(storage.read, ["x"] * 8)) == {b"text"}
    assert storage.read("x") == b"text"


def test_a_forked_process_has_connections_of_its_own(storage, counted):
    storage.replace("x", b"text")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(storage.read, ["x", "x"])) == [b"text", b"text"]
    assert storage.read("x") == b"text"
    assert counted.connections == 2, "one here and one there, each used again"


def test_a_large_file_goes_up_in_parts(storage, server):
    data = random.Random(0).randbytes(20 * MIB + 1)
    publish(storage, "x", data)
    assert storage.read("x") == data
    assert server.client().head_object(Bucket=storage.bucket, Key=storage.key("x"))["ETag"].endswith('-3"')


def test_ten_thousand_parts_are_enough_for_any_size(storage, server, monkeypatch):
    monkeypatch.setattr(s3, "MAX_PARTS", 2)
    data = random.Random(0).randbytes(20 * MIB + 1)
    publish(storage, "x", data)
    assert storage.read("x") == data
    assert server.client().head_object(Bucket=storage.bucket, Key=storage.key("x"))["ETag"].endswith('-2"')


def test_uploading_holds_one_part(storage):
    publish(storage, "warm", b"x" * 20 * MIB)
    attempt = storage.new_attempt()
    with storage.create(attempt, "file") as file:
        for _ in range(64):
            file.write(bytes(MIB))
    tracemalloc.start()
    storage.publish(attempt, "file", "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert storage.stat("x").size == 64 * MIB
    assert peak < 3 * s3.PART_BYTES


def test_what_is_written_has_no_name_on_the_disk(storage, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(list(Path("/proc/self/fd").iterdir()))
    attempt = storage.new_attempt()
    for name in ("a", "b"):
        with storage.create(attempt, name) as file:
            file.write(b"text")
    assert list(tmp_path.iterdir()) == []
    storage.publish(attempt, "a", "a")
    storage.discard(attempt)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1  # the client's connection
    assert not storage.exists("b")


def test_a_full_disk_is_named(storage, monkeypatch):
    full = "/dev/full"
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering: io.FileIO(full, "r+"))
    attempt = storage.new_attempt()
    file = storage.create(attempt, "a")
    file.write(b"text")
    with pytest.raises(OutputError, match="no space left on the device\nhint: free some space"):
        file.close()
    storage.discard(attempt)


def test_more_keys_than_one_page(storage):
    names = [f"{number % 7}/{number:05}" for number in range(1105)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: storage.replace(name, name.encode()), names))
    assert sorted(file.path for file in storage.list()) == sorted(names)
    storage.delete("")
    assert list(storage.list()) == []


def test_markers_of_folders_are_not_listed(storage, server):
    server.client().put_object(Bucket=storage.bucket, Key=storage.key("a/"), Body=b"")
    storage.replace("a/b", b"")
    assert [file.path for file in storage.list()] == ["a/b"]


def test_wrong_credentials(storage, server, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for ask in (lambda: list(storage.list()), lambda: storage.read("x"), lambda: storage.commit("x", b"")):
        with pytest.raises(HeadraceError, match=r"credentials are not accepted .*\nhint: check AWS_ACCESS") as caught:
            ask()
        assert storage.url in str(caught.value)
        assert server.access_key not in str(caught.value)
    with pytest.raises(HeadraceError, match="access is denied"):
        storage.stat("x")


def test_no_credentials(storage, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(HeadraceError, match="refused without credentials\nhint: set AWS_PROFILE"):
        storage.read("x")
    with pytest.raises(OutputError, match="refused without credentials"):
        storage.replace("x", b"")


def test_a_public_bucket_is_read_without_credentials(monkeypatch, server):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    public, client = f"public-{uuid.uuid4().hex}", server.client()
    client.create_bucket(Bucket=public, ACL="public-read")
    client.put_object(Bucket=public, Key="a/x", Body=b"text")
    client.put_bucket_policy(
        Bucket=public,
        Policy='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": '
        f'["s3:GetObject", "s3:ListBucket"], "Resource": ["arn:aws:s3:::{public}", "arn:aws:s3:::{public}/*"]}}]}}',
    )
    storage = S3Storage.from_url(f"s3://{public}/a")
    assert storage.read("x") == b"text"
    assert [file.path for file in storage.list()] == ["x"]


def test_a_missing_bucket(server):
    storage = S3Storage("no-such-bucket", "a")
    for ask in (lambda: list(storage.list()), lambda: storage.open("x"), lambda: storage.commit("x", b"")):
        with pytest.raises(HeadraceError, match=r"s3://no-such-bucket/a.*: there is no bucket no-such-bucket\nhint:"):
            ask()


def test_an_endpoint_that_does_not_answer(storage, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (port,) = free_ports(1)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://user:secret@127.0.0.1:{port}")
    with pytest.raises(HeadraceError, match=f"127.0.0.1:{port} cannot be reached") as caught:
        storage.read("x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_ENDPOINT_URL_S3", "not a url", "is no endpoint"),
        ("AWS_PROFILE", "none-such", "ProfileNotFound"),
        ("HEADRACE_S3_TIMEOUT", "soon", "HEADRACE_S3_TIMEOUT: is 'soon'"),
        ("HEADRACE_S3_TIMEOUT", "-1", "HEADRACE_S3_TIMEOUT: is '-1'"),
        ("AWS_MAX_ATTEMPTS", "many", "AWS_MAX_ATTEMPTS: is 'many'"),
    ],
)
def test_a_wrong_environment_is_named(storage, monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    with pytest.raises(HeadraceError, match=said):
        storage.read("x")


@pytest.mark.parametrize("change", ["replace", "delete"])
def test_a_file_that_is_written_to_while_it_is_read(storage, change):
    publish(storage, "x", bytes(MIB))
    with storage.open("x") as file:
        assert file.read(10) == bytes(10)
        storage.delete("x") if change == "delete" else storage.replace("x", b"1" * MIB)
        with pytest.raises(HeadraceError, match=r"/x: was written to or deleted while it was read\nhint:"):
            file.read()


def test_errors_pass_through_pyarrow(storage):
    table = pa.table({"a": pa.array(random.Random(0).randbytes(16) for _ in range(100_000))})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="none", use_dictionary=False, row_group_size=10_000)
    publish(storage, "x", sink.getvalue())
    with storage.open("x") as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        storage.replace("x", b"")
        with pytest.raises(HeadraceError, match="was written to or deleted while it was read"):
            parquet.read_row_group(5)


def test_a_small_file_costs_one_request(storage, counted):
    storage.replace("x", b"text")
    with storage.open("x") as file:
        assert file.read(100) == b"text"
        file.seek(1)
        assert file.read() == b"ext"
    assert counted.requests == {"PUT": 1, "GET": 1}


def test_reading_in_sequence_asks_for_ever_more(storage, counted):
    size = 64 * MIB
    publish(storage, "x", bytes(size))
    counted.requests.clear()
    counted.sent = 0
    with storage.open("x") as file:
        tracemalloc.start()
        read = 0
        while piece := file.read(100_000):
            read += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert read == size
    assert counted.sent == size
    assert counted.requests["GET"] <= 16  # 64 KiB, doubled seven times to 8 MiB, then seven of 8 MiB
    assert peak < 3 * s3.LARGEST_READ


def test_reading_here_and_there_fetches_little(storage, counted):
    data = random.Random(0).randbytes(8 * MIB)
    publish(storage, "x", data)
    counted.requests.clear()
    counted.sent = 0
    choose = random.Random(1)
    with storage.open("x") as file:
        for _ in range(50):
            offset = choose.randrange(len(data))
            file.seek(offset)
            assert file.read(500) == data[offset : offset + 500]
    assert counted.requests["GET"] <= 52
    assert counted.sent <= 52 * 2 * s3.SMALLEST_READ


def test_a_column_of_a_table_is_read_alone(storage, counted):
    rows, columns = 20_000, 12
    numbers = random.Random(0)
    table = pa.table({f"c{number}": [numbers.random() for _ in range(rows)] for number in range(columns)})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="none", use_dictionary=False, row_group_size=rows // 4)
    publish(storage, "x", sink.getvalue())
    counted.requests.clear()
    counted.sent = 0
    with storage.open("x") as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        assert parquet.read(["c6"]).equals(table.select(["c6"]))
    chunk = len(sink.getvalue()) // (4 * columns)
    assert counted.requests["GET"] <= 1 + 2 + 4 * 2  # opening, the footer, a column chunk in each row group
    assert counted.sent <= 4 * chunk + 11 * 2 * s3.SMALLEST_READ


def test_batches_of_an_arrow_file_are_read_alone(storage, counted):
    batch = pa.record_batch({"a": pa.array(range(50_000), pa.int64())})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        for _ in range(40):
            writer.write_batch(batch)
    publish(storage, "x", sink.getvalue())
    counted.requests.clear()
    counted.sent = 0
    with storage.open("x") as file:
        reader = pa.ipc.open_file(file)
        for number in (31, 2, 17, 5):
            assert reader.get_batch(number).equals(batch)
    assert counted.sent <= 4 * 400_000 + 12 * 2 * s3.SMALLEST_READ
    assert counted.requests["GET"] <= 12


def test_a_claim_is_renewed_and_leaves_nothing(storage):
    with storage.claim():
        before = storage.claims()
        time.sleep(LEASE)
        after = storage.claims()
        assert before.keys() == after.keys() == {"run"}
        assert before != after
    assert storage.claims() == {}


def test_who_finds_a_folder_held_leaves_no_trace(storage, monkeypatch):
    put, written = S3Storage.put, []

    def recorded(self, path, *record, **condition):
        written.append(path)
        return put(self, path, *record, **condition)

    monkeypatch.setattr(S3Storage, "put", recorded)
    with storage.claim(), pytest.raises(OutputError), storage.claim(shared=True):
        raise AssertionError("held alone and shared")
    assert set(written) == {".claims/run"}


def test_a_run_that_begins_while_a_shared_claim_is_made_is_seen(storage, monkeypatch):
    put, ended, threads = S3Storage.put, threading.Event(), []

    def work():
        for number in itertools.count():
            put(storage, ".claims/run", b"%d" % number)
            if ended.wait(LEASE / 5):
                return

    def meanwhile(self, path, *record, **condition):
        if not threads:
            threads.append(threading.Thread(target=work))
            threads[0].start()
            time.sleep(LEASE / 5)
        return put(self, path, *record, **condition)

    monkeypatch.setattr(S3Storage, "put", meanwhile)
    with pytest.raises(OutputError, match="another run is at work"), storage.claim(shared=True):
        raise AssertionError("held alone and shared")
    ended.set()
    threads[0].join()
    assert storage.claims().keys() == {"run"}


@pytest.mark.parametrize("kind", ["alone", "shared"])
def test_the_claim_of_a_killed_holder_ends_with_its_lease(storage, kind):
    process = holder(storage, kind)
    with pytest.raises(OutputError, match="another run is at work"), storage.claim():
        raise AssertionError("held twice")
    end(process)
    started = time.monotonic()
    with storage.claim(shared=kind == "alone"):
        assert time.monotonic() - started >= LEASE * 0.9
        assert len(storage.claims()) == 1
    assert storage.claims() == {}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("lost", ["deleted", "taken over"])
def test_a_holder_learns_that_it_lost_its_claim(storage, shared, lost):
    with pytest.raises(OutputError, match="another run took it over\nhint: wait"), storage.claim(shared=shared):
        (name,) = storage.claims()
        if lost == "deleted":
            storage.delete(f".claims/{name}")
        else:
            storage.replace(f".claims/{name}", b"another's")
    assert (storage.claims() == {}) == (lost == "deleted"), "nobody deletes what is another's"


def test_of_two_that_find_a_dead_claim_one_takes_it(storage):
    storage.replace(".claims/run", b"dead")

    def claim(_):
        try:
            with storage.claim():
                time.sleep(2 * LEASE)
                return True
        except OutputError:
            return False

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(claim, range(3))) == [False, False, True]


def test_a_claim_outlives_lost_answers(storage, counted):
    """Every write of the claim arrives, and its answer does not."""
    lost = []

    def next_fault(method, path):
        fault = "reset_after" if method == "PUT" and len(lost) % 2 == 0 else ""
        lost.extend([path] * (method == "PUT"))
        return fault

    counted.next_fault = next_fault
    with storage.claim():
        time.sleep(LEASE)
    assert storage.claims() == {}
    assert len(lost) >= 6
    assert storage.commit("x", b"record") is False, "the try that was told of came second"
    assert storage.read("x") == b"record"


def test_uploads_that_were_left_behind_are_aborted(storage, server):
    client = server.client()
    for key in (storage.key("a"), f"{storage.prefix}-other/a"):
        client.create_multipart_upload(Bucket=storage.bucket, Key=key)
    with storage.claim():
        pass
    left = client.list_multipart_uploads(Bucket=storage.bucket, Prefix=storage.prefix)["Uploads"]
    assert [upload["Key"] for upload in left] == [f"{storage.prefix}-other/a"]
    client.abort_multipart_upload(Bucket=storage.bucket, Key=left[0]["Key"], UploadId=left[0]["UploadId"])


def work_through(storage, count, size):
    """Write, list, read and delete, and compare every byte."""
    made = {f"t/{number}": random.Random(number).randbytes(size + number) for number in range(count)}
    with storage.claim():
        for path, data in made.items():
            publish(storage, path, data)
            assert storage.commit(f"c/{path}", path.encode()) in (True, False)
            assert storage.exists(f"c/{path}")
            assert f"c/{path}" in [file.path for file in storage.list("c")]
        assert {file.path: file.size for file in storage.list("t")} == {path: len(made[path]) for path in made}
        for path, data in made.items():
            assert storage.read(f"c/{path}") == path.encode()
            with storage.open(path) as file:
                assert file.read() == data
                file.seek(len(data) // 2)
                assert file.read(100) == data[len(data) // 2 :][:100]
        storage.delete("t")
        assert len(list(storage.list())) == count


def test_faults_change_nothing(server, monkeypatch):
    with fault_proxy(server.endpoint, rate=0.2, seed=1, stall_seconds=1) as proxy:
        server.enter(monkeypatch, AWS_ENDPOINT_URL_S3=proxy.endpoint, HEADRACE_S3_TIMEOUT="0.4")
        work_through(S3Storage(server.bucket, uuid.uuid4().hex), 4, 300_000)
    assert proxy.faults.keys() == set(KINDS)


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(3))
def test_many_faults_change_nothing(server, monkeypatch, seed):
    with fault_proxy(server.endpoint, rate=0.1, seed=seed, stall_seconds=2) as proxy:
        server.enter(monkeypatch, AWS_ENDPOINT_URL_S3=proxy.endpoint, HEADRACE_S3_TIMEOUT="1")
        work_through(S3Storage(server.bucket, uuid.uuid4().hex), 40, 20 * MIB)
    assert proxy.faults.keys() == set(KINDS)


def test_a_fault_that_stays_is_told(storage, counted, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3, "TRIES", 2)
    storage.replace("x", b"text")
    for fault, said in (
        ("truncated", "broke off, 2 times .*\nhint: check the network"),
        ("reset_before", "broke off, 2 times .*\nhint: check the network"),
        ("slow_down", "too busy or failing .*\nhint: run again later"),
    ):
        counted.next_fault = lambda method, path, fault=fault: fault
        with pytest.raises(HeadraceError, match=said):
            storage.read("x")


def test_reading_goes_on_where_an_answer_broke_off(storage, counted):
    data = random.Random(0).randbytes(6 * MIB)
    publish(storage, "x", data)
    faults = iter([""] * 5 + ["truncated", "truncated"])  # of the sixth block, 2 MiB
    counted.sent = 0
    counted.next_fault = lambda method, path: next(faults, "")
    with storage.open("x") as file:
        assert file.read() == data
    assert len(data) <= counted.sent <= len(data) + 2 * s3.SMALLEST_READ
