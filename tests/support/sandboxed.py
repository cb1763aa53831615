"""What a child process of a sandbox is asked to do in tests, by the bytes it is sent."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

from pipelines.transforms.sandbox import Failed, sandbox_of

BALLAST: list[bytearray] = []


def echo(data: bytes) -> bytes:
    return data


def misbehave(data: bytes, marker: str = "") -> bytes:
    """Do what `data` says."""
    match data.decode():
        case "hang":
            time.sleep(600)
        case "hang in C":  # with the interpreter's lock held
            re.match("(a+)+$", "a" * 60 + "b")
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "segfault once":
            if not Path(marker).exists():
                Path(marker).touch()
                os.kill(os.getpid(), signal.SIGSEGV)
        case "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "take all memory":
            bytearray(64 << 30)
        case "grow":
            BALLAST.append(bytearray(os.urandom(1 << 20)) * 40)
        case "refuse":
            raise Failed("too blue")
        case "bug":
            raise KeyError("blue")
        case "print":
            print("noise")
            os.write(1, b"noise")
            return sys.stdin.read().encode()
        case "environment":
            return " ".join(sorted(os.environ)).encode()
        case "answer for ever":
            return bytes(300 << 20)
    return str(os.getpid()).encode()


def broken_import(data: bytes) -> bytes:
    raise ImportError("no such library")


def hang_in_a_call(how: str) -> None:
    """Be a caller: print the child's process id, then wait for it in the middle of a call."""
    sandbox = sandbox_of("sandboxed:misbehave")
    print(sandbox(b"", 60).decode(), flush=True)
    sandbox(how.encode(), 600)


def child_of_this_process() -> bytes:
    return sandbox_of("sandboxed:misbehave")(b"", 60)
