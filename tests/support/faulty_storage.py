"""A storage that counts its write operations and kills the whole run at one of them."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import BinaryIO

from pipelines.storage.local import ATTEMPTS, LocalStorage

WHENS = ("before", "half", "after")


@dataclasses.dataclass(frozen=True)
class Point:
    """One place to die at: the number of the operation in the run, and before, in the middle of or after it."""

    number: int
    when: str


@dataclasses.dataclass(frozen=True, slots=True)
class FaultyStorage(LocalStorage):
    """Logs every write operation to `log` and, at `point`, kills its process group with SIGKILL."""

    log: Path = Path("/dev/null")
    point: Point | None = None

    def create(self, attempt: str, name: str) -> BinaryIO:
        number = self._enter(f"create {name}")
        file = LocalStorage.create(self, attempt, name)
        if self.point == Point(number, "half"):
            file.write(b"half a fi")
            file.flush()
        self._leave(number)
        return file

    def publish(self, attempt: str, name: str, path: str) -> None:
        number = self._enter(f"publish {path}")
        if self.point == Point(number, "half"):
            file = self.root / ATTEMPTS / attempt / name
            os.truncate(file, file.stat().st_size // 2)
            _die()
        LocalStorage.publish(self, attempt, name, path)
        self._leave(number)

    def commit(self, path: str, record: bytes) -> bool:
        number = self._enter(f"commit {path}")
        self._half_record(number, record)
        created = LocalStorage.commit(self, path, record)
        self._leave(number)
        return created

    def replace(self, path: str, record: bytes) -> None:
        number = self._enter(f"replace {path}")
        self._half_record(number, record)
        LocalStorage.replace(self, path, record)
        self._leave(number)

    def _half_record(self, number: int, record: bytes) -> None:
        if self.point == Point(number, "half"):
            with LocalStorage.create(self, self.new_attempt(), "record") as file:
                file.write(record[: len(record) // 2])
            _die()

    def _enter(self, operation: str) -> int:
        with self.log.open("a") as log:
            log.write(f"{operation}\n")
        number = len(self.log.read_text().splitlines()) - 1
        if self.point == Point(number, "before"):
            _die()
        return number

    def _leave(self, number: int) -> None:
        if self.point is not None and self.point.number == number and self.point.when in ("half", "after"):
            _die()


def _die() -> None:
    os.killpg(os.getpgid(0), signal.SIGKILL)
