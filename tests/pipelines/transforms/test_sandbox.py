"""A function in a child process: whatever happens in it, its caller goes on, and nothing is left behind."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sandboxed
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import WorkerDied
from pipelines.transforms import sandbox as module
from pipelines.transforms.sandbox import Crashed, Failed, Sandbox, SandboxError, TimedOut

SUPPORT = Path(sandboxed.__file__).parent
ROOT = SUPPORT.parents[1]


@pytest.fixture
def misbehaving(tmp_path) -> Iterator[Sandbox]:
    one = Sandbox("sandboxed:misbehave", {"marker": str(tmp_path / "marker")})
    yield one
    one.close()


@pytest.fixture(scope="module")
def echo() -> Iterator[Sandbox]:
    one = Sandbox("sandboxed:echo", {})
    yield one
    one.close()


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=2000), times=st.sampled_from([1, 100, 3000]))
def test_bytes_come_back(echo, data, times):
    """Also those that pass what a pipe holds, both ways."""
    assert echo(data * times, 60) == data * times


def test_views_and_nothing(echo):
    assert echo(memoryview(b"abc")[1:], 60) == b"bc"
    assert echo(b"", 60) == b""


def test_one_child_serves_many_calls(misbehaving):
    assert len({misbehaving(b"", 60) for _ in range(20)}) == 1


def test_threads_share_it(misbehaving):
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(misbehaving(b"", 60))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1


@pytest.mark.parametrize("how", [b"hang", b"hang in C"])
def test_a_hanging_child_is_killed(misbehaving, how):
    """Soon after its time is up; the next call has a new one."""
    before = misbehaving(b"", 60)
    started = time.monotonic()
    with pytest.raises(TimedOut):
        misbehaving(how, 0.5)
    assert 0.5 <= time.monotonic() - started < 10
    assert not is_alive(int(before))
    assert misbehaving(b"", 60) != before


def test_a_crash_is_tried_once_more(misbehaving, tmp_path):
    before = misbehaving(b"", 60)
    assert misbehaving(b"segfault once", 60) != before
    assert (tmp_path / "marker").exists()


def test_a_crash_that_repeats_is_one(misbehaving):
    with pytest.raises(Crashed, match="^SIGSEGV$"):
        misbehaving(b"segfault", 60)
    assert misbehaving(b"", 60)


def test_more_memory_than_allowed_is_a_crash(misbehaving):
    with pytest.raises(Crashed, match=f"^exit status {module.OUT_OF_MEMORY}$"):
        misbehaving(b"take all memory", 60)


def test_killed_from_outside_is_no_fault_of_the_bytes(misbehaving):
    with pytest.raises(WorkerDied, match="killed twice from outside\nhint: "):
        misbehaving(b"be killed", 60)


def test_a_refusal_says_why(misbehaving):
    """And costs no child."""
    before = misbehaving(b"", 60)
    with pytest.raises(Failed, match="^too blue$"):
        misbehaving(b"refuse", 60)
    assert misbehaving(b"", 60) == before


def test_a_bug_is_none_of_the_page(misbehaving):
    with pytest.raises(SandboxError, match="KeyError: 'blue'"):
        misbehaving(b"bug", 60)


@pytest.mark.parametrize("address", ["sandboxed:broken_import", "sandboxed:nothing", "no_such_module:nothing"])
def test_what_cannot_be_loaded_fails_at_the_first_call(address):
    """The cause is named."""
    with pytest.raises(SandboxError, match=f"{address}: does not start: (Import|Attribute|ModuleNotFound)Error: "):
        Sandbox(address, {})(b"", 60)


def test_a_child_that_dies_as_it_starts(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SandboxError, match="its process does not start: exit status 1"):
        Sandbox("sandboxed:echo", {})(b"", 60)


def test_what_it_prints_is_no_answer(misbehaving):
    assert misbehaving(b"print", 60) == b""


def test_an_answer_has_a_largest_size(misbehaving):
    with pytest.raises(Crashed):
        misbehaving(b"answer for ever", 60)


def test_it_makes_room_for_another_after_many_calls(misbehaving, monkeypatch):
    """The number is the child's own, so it is set in what the child runs."""
    monkeypatch.setattr(module, "_PROGRAM", f"import {module.__name__} as m; m.MAX_CALLS = 3; m.serve()")
    assert len({misbehaving(b"", 60) for _ in range(9)}) == 3


def test_it_makes_room_for_another_when_it_has_grown(misbehaving, monkeypatch):
    monkeypatch.setattr(module, "_PROGRAM", f"import {module.__name__} as m; m.MAX_RESIDENT = 100 << 20; m.serve()")
    pids = [misbehaving(b"grow", 60) for _ in range(6)]
    assert 2 <= len(set(pids)) < 6


def test_it_sees_no_secret(misbehaving, monkeypatch):
    """A library that a page takes over finds no key in its environment."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    names = misbehaving(b"environment", 60).decode().split()
    assert "AWS_SECRET_ACCESS_KEY" not in names
    assert "PYTHONHASHSEED" in names


@pytest.mark.parametrize("how", ["hang", "hang in C"])
def test_it_dies_with_its_caller(how):
    """Also in the middle of a call that holds the interpreter's lock, and when the caller is killed."""
    program = f"import sandboxed; sandboxed.hang_in_a_call({how!r})"
    caller = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": f"{ROOT}:{SUPPORT}"}
    )
    with caller:
        assert caller.stdout is not None
        child = int(caller.stdout.readline())
        assert is_alive(child)
        caller.kill()
    assert wait_for(lambda: not is_alive(child)), "the child outlives its caller"


def test_a_daemonic_process_may_have_one():
    """As the workers of a pool are; `multiprocessing` itself refuses them children."""
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=sandboxed.child_of_this_process, daemon=True)
    worker.start()
    worker.join(120)
    assert worker.exitcode == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fork_has_one_of_its_own():
    """It would read its parent's answers otherwise."""
    own = sandboxed.child_of_this_process()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, sandboxed.child_of_this_process())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 100) not in (own, b"")
    assert sandboxed.child_of_this_process() == own
    os.close(read)
    os.close(write)


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()
