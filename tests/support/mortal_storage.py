"""A storage in which the process that writes dies at chosen operations, each once, and others go on."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import BinaryIO

from pipelines.storage.local import ATTEMPTS, LocalStorage


@dataclasses.dataclass(frozen=True, slots=True)
class MortalStorage(LocalStorage):
    """Kills its own process at each of `deaths`: "publish stages/1-read/documents half", "commit stages/2 after".

    The first words are the beginning of an operation, the last is before, half or after. A file in `marks` tells, over
    all processes, which have happened.
    """

    marks: Path = Path("/dev/null")
    deaths: tuple[str, ...] = ()
    sign: int = signal.SIGKILL

    def publish(self, attempt: str, name: str, path: str) -> None:
        operation = f"publish {path}"
        self._die(operation, "before")
        if self._due(operation, "half"):
            file = self.root / ATTEMPTS / attempt / name
            os.truncate(file, file.stat().st_size // 2)
            self._end()
        LocalStorage.publish(self, attempt, name, path)
        self._die(operation, "after")

    def create(self, attempt: str, name: str) -> BinaryIO:
        self._die(f"create {name}", "before")
        file = LocalStorage.create(self, attempt, name)
        self._die(f"create {name}", "after")
        return file

    def commit(self, path: str, record: bytes) -> bool:
        self._die(f"commit {path}", "before")
        if self._due(f"commit {path}", "half"):
            with LocalStorage.create(self, self.new_attempt(), "record") as file:
                file.write(record[: len(record) // 2])
            self._end()
        created = LocalStorage.commit(self, path, record)
        self._die(f"commit {path}", "after")
        return created

    def _die(self, operation: str, when: str) -> None:
        if self._due(operation, when):
            self._end()

    def _end(self) -> None:
        os.kill(os.getpid(), self.sign)

    def _due(self, operation: str, when: str) -> bool:
        """Whether a death is due here, which then counts as happened."""
        for number, death in enumerate(self.deaths):
            beginning, _, moment = death.rpartition(" ")
            if moment == when and operation.startswith(beginning):
                try:
                    (self.marks / str(number)).touch(exist_ok=False)
                except FileExistsError:
                    continue
                return True
        return False
