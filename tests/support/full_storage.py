"""A storage on a disk that is full after so many bytes."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
from typing import BinaryIO, cast

from pipelines.storage.local import LocalStorage


@dataclasses.dataclass
class Space:
    """Bytes left on the disk; None = no end."""

    left: int | None = None
    written: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class FullStorage(LocalStorage):
    """Every file that it creates takes its bytes from one account. For one process."""

    space: Space = dataclasses.field(default_factory=Space)

    def create(self, attempt: str, name: str) -> BinaryIO:
        return cast(BinaryIO, _Counted(LocalStorage.create(self, attempt, name), self.space))


class _Counted(io.RawIOBase):
    def __init__(self, file: BinaryIO, space: Space) -> None:
        self._wrapped, self._space = file, space

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        size = memoryview(data).nbytes
        self._space.written += size
        if self._space.left is not None:
            self._space.left -= size
            if self._space.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._wrapped.write(data)

    def close(self) -> None:
        self._wrapped.close()
        super().close()
