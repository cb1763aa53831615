"""A function of bytes in a child process: what it hangs, crashes or bloats is the child, and never a worker.

`sandbox_of(address, options)` is the caller's one child for a function; a call sends it bytes and returns what it made
of them. The child is a fresh interpreter (not a fork, so that it works below threads, Spark, Beam and daemonic
processes) with an environment of its own: none of the caller's variables but where programs and modules lie, and a
fixed hash seed, so that libraries that iterate over sets give the same text everywhere. It serves until it has done
`MAX_CALLS` or its memory has passed `MAX_RESIDENT`, then the next call starts another. It dies with the caller, also in
the middle of a call: the caller holds one end of a pipe whose closing makes the kernel signal the child.

What may go wrong is told apart, because only some of it says something about the bytes:

    Failed      the function refused these bytes; it says why
    TimedOut    no answer within the limit on the wall clock: the child was killed. A fault, and not a verdict
    Crashed     the child died of these bytes, and a fresh one died again
    WorkerDied  the child was killed from outside, twice: memory was short
    SandboxError  the child does not start, or its function has a bug: the run fails, and not every page

Cost of a call: about 60 us and 25 us for each 100 kB. A child takes 0.1 s to start, and what its imports take.
"""

from __future__ import annotations

import atexit
import fcntl
import importlib
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.errors import HeadraceError, WorkerDied

MAX_CALLS = 2_000
MAX_RESIDENT = 1 << 30
"""Bytes of memory that a child uses, from which on it makes room for another."""
MAX_DATA = 4 << 30
"""Bytes of memory that a child may ask for; beyond that it dies."""
MAX_ANSWER = 256 << 20
START_SECONDS = 300
"""Wall clock; imports from a cold disk on a busy machine."""

OUT_OF_MEMORY = 12
"""Exit status of a child whose function has run into `MAX_DATA`."""

ANSWER, REFUSAL, BUG = range(3)
_REQUEST = struct.Struct(">Q")
"""Size of the bytes that follow."""
_REPLY = struct.Struct(">BBQ")
"""What it is, whether it is the child's last, and the size of the bytes that follow."""

_PROGRAM = f"from {__name__} import serve; serve()"
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")


class Failed(ValueError):
    """The function refused its bytes; the message says why."""


class TimedOut(Exception):
    """There was no answer in time, and the child was killed."""


class Crashed(Exception):
    """The child died of its bytes; the message says how."""

    def __init__(self, status: int) -> None:
        """Take the exit status, negative where a signal ended it."""
        self.status = status
        super().__init__(signal.Signals(-status).name if status < 0 else f"exit status {status}")


class SandboxError(HeadraceError):
    """The child does not start, or its function raised what it should not."""


class Sandbox:
    """A function in a child process, which is started by the first call and again whenever it is needed."""

    def __init__(self, address: str, options: Mapping[str, Any]) -> None:
        """Take "module:function" and the function's further arguments, which JSON can hold."""
        self._address, self._options = address, dict(options)
        self._child: _Child | None = None
        self._lock = threading.Lock()

    def __call__(self, data: bytes | memoryview, timeout_seconds: float) -> bytes:
        """Return the function's answer. Raises what the module says; calls of several threads wait for each other."""
        with self._lock:
            try:
                return self._call(data, timeout_seconds)
            except Crashed:
                pass
            try:
                return self._call(data, timeout_seconds)
            except Crashed as error:
                if error.status == -signal.SIGKILL:
                    raise WorkerDied(
                        f"{self._address}: its process was killed twice from outside\n"
                        "hint: if memory was short, run again with fewer --workers"
                    ) from error
                raise

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _call(self, data: bytes | memoryview, timeout_seconds: float) -> bytes:
        if self._child is None:
            self._child = _Child(self._address, self._options)
        is_last = True
        try:
            kind, is_last, answer = self._child.exchange(data, timeout_seconds)
        finally:
            if is_last:
                self.close()
        if kind == REFUSAL:
            raise Failed(answer.decode("utf-8", "replace"))
        if kind == BUG:
            raise SandboxError(f"{self._address}: {answer.decode('utf-8', 'replace')}")
        return answer


class _Child:
    """The child process as its parent sees it."""

    def __init__(self, address: str, options: Mapping[str, Any]) -> None:
        """Start it and wait until it serves. Raises `SandboxError`."""
        life, self._life = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, address, json.dumps(dict(options)), str(life)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=(life,),
                env=_environment(), cwd="/", start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(life)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._replies = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._requests, False)
        try:
            kind, _, said = self._converse([], time.monotonic() + START_SECONDS)
        except (Crashed, TimedOut) as error:
            self.kill()
            raise SandboxError(f"{address}: its process does not start: {error or 'no answer'}") from error
        if kind == BUG:
            self.kill()
            raise SandboxError(f"{address}: does not start: {said.decode('utf-8', 'replace')}")

    def exchange(self, data: bytes | memoryview, timeout_seconds: float) -> tuple[int, bool, bytes]:
        """Send bytes and return what came back: its kind, whether it was the last, and the bytes."""
        request = [memoryview(_REQUEST.pack(len(data))), memoryview(data)]
        return self._converse(request, time.monotonic() + timeout_seconds)

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        os.close(self._life)

    def _converse(self, outgoing: list[memoryview], deadline: float) -> tuple[int, bool, bytes]:
        """Write all of `outgoing` and read one reply, in whatever order the child takes and gives.

        Raises `TimedOut` or `Crashed`.
        """
        poll = select.poll()
        poll.register(self._replies, select.POLLIN)
        if outgoing:
            poll.register(self._requests, select.POLLOUT)
        reply = bytearray()
        while True:
            left = deadline - time.monotonic()
            ready = dict(poll.poll(left * 1000)) if left > 0 else {}
            if not ready:
                raise TimedOut
            if self._requests in ready and not _write_some(self._requests, outgoing):
                poll.unregister(self._requests)
            if self._replies in ready:
                chunk = os.read(self._replies, 1 << 20)
                reply += chunk
                if not chunk or _announced(reply) > MAX_ANSWER:
                    raise Crashed(self._status())
                if len(reply) >= _REPLY.size and len(reply) == _REPLY.size + _announced(reply):
                    kind, is_last, _ = _REPLY.unpack_from(reply)
                    return kind, bool(is_last), bytes(memoryview(reply)[_REPLY.size :])

    def _status(self) -> int:
        """Return the exit status of a child that has closed its pipe, or says more than it can have to say."""
        try:
            return self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return 1


def _write_some(file: int, outgoing: list[memoryview]) -> bool:
    """Write what the pipe takes and return whether there is more; none for a child that is no more."""
    try:
        written = os.writev(file, outgoing)
    except BrokenPipeError:
        return False
    while outgoing and written >= len(outgoing[0]):
        written -= len(outgoing.pop(0))
    if outgoing:
        outgoing[0] = outgoing[0][written:]
    return bool(outgoing)


def _announced(reply: bytearray) -> int:
    """Return the size of the answer that a reply holds, 0 where that is not known yet."""
    return int(_REPLY.unpack_from(reply)[2]) if len(reply) >= _REPLY.size else 0


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
    return kept | {"PYTHONPATH": paths, "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


_sandboxes: dict[tuple[int, str, str], Sandbox] = {}
_sandboxes_lock = threading.Lock()


def sandbox_of(address: str, **options: Any) -> Sandbox:
    """Return this process's sandbox for a function and its options; a fork does not use that of its parent."""
    key = os.getpid(), address, json.dumps(options, sort_keys=True)
    with _sandboxes_lock:
        if key not in _sandboxes:
            _sandboxes[key] = Sandbox(address, options)
            atexit.register(_close_own, key)
        return _sandboxes[key]


def _close_own(key: tuple[int, str, str]) -> None:
    if key[0] == os.getpid():
        _sandboxes[key].close()


def serve() -> None:
    """Be the child: answer requests until there are no more, or until another child should take over."""
    address, options, life = sys.argv[1:]
    _die_with_parent(int(life))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_data()
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("r+b") as nothing:  # what libraries print must not end up among the replies
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    try:
        function = _loaded(address, json.loads(options))
    except Exception as error:
        _reply(replies, BUG, True, f"{type(error).__name__}: {error}".encode())
        return
    _reply(replies, ANSWER, False, b"")
    for number in range(1, MAX_CALLS + 1):
        header = requests.read(_REQUEST.size)
        if len(header) < _REQUEST.size:
            return
        kind, answer = _answer(function, requests.read(_REQUEST.unpack(header)[0]))
        is_last = number == MAX_CALLS or _resident() > MAX_RESIDENT
        _reply(replies, kind, is_last, answer)
        if is_last:
            return


def _loaded(address: str, options: Mapping[str, Any]) -> Callable[[bytes], bytes]:
    """Return the function, its imports done: it is called once, on nothing."""
    module, _, name = address.partition(":")
    function = partial(getattr(importlib.import_module(module), name), **options)
    with suppress(Failed):
        function(b"")
    return function


def _answer(function: Callable[[bytes], bytes], data: bytes) -> tuple[int, bytes]:
    try:
        return ANSWER, function(data)
    except Failed as error:
        return REFUSAL, str(error).encode("utf-8", "replace")
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # a bug of ours or a broken installation, which the parent reports
        return BUG, f"{type(error).__name__}: {error}".encode("utf-8", "replace")


def _reply(replies: BinaryIO, kind: int, is_last: bool, answer: bytes) -> None:
    replies.write(_REPLY.pack(kind, is_last, len(answer)))
    replies.write(answer)
    replies.flush()


def _die_with_parent(life: int) -> None:
    """Have the kernel send SIGIO, which ends a process by default, when the other end of the pipe `life` is closed.

    No thread would do: a library that hangs in C holds the interpreter's lock.
    """
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_NONBLOCK | fcntl.FASYNC)


def _limit_data() -> None:
    """Set `MAX_DATA`, within what the process may set."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MAX_DATA if hard == resource.RLIM_INFINITY else min(MAX_DATA, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _resident() -> int:
    """Return the bytes of memory that this process uses, 0 where the system has no such file.

    Its peak is of no use: on Linux it begins with that of the process that started this one.
    """
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except FileNotFoundError:
        return 0
