"""One zip of our packages, which a driver ships to workers that have nothing of ours installed.

Only packages travel, never loose files: a worker puts the zip on its `sys.path`, whose root holds `pipelines/` and
`tokenizer/` and so hides no module of the standard library (`pipelines/tokenize.py` would, on its own). The same files
give the same zip, byte for byte: sorted, dated 1980, stored without compression (its output differs between versions
of zlib). The files are read through the packages' own loaders, so that it makes no difference whether these came from a
checkout, from site-packages, or from such a zip. About 75 files and 0.5 MB, made in 20 ms.

numba caches the kernels of a zipped module by the zip's path, which is new in every executor of every application: each
would compile all kernels again (8 s of CPU). `ZipKernels`, which `WORKER_ENVIRONMENT` makes known to numba, goes by
the zip's name instead, hence by its content: a host compiles once for each version of the packages (1 s thereafter).
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Any

from numba.core.caching import ZipCacheLocator

from tokenizer.whole_file import whole_file

PACKAGES = ("pipelines", "tokenizer")
"""What a worker imports. Mixtures and the trainer's side meet the pipelines in files only."""
SUFFIXES = (".py", ".json", ".j2", ".css", ".npz", ".yaml")
"""Modules, and the package data of pyproject.toml."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can hold."""
PREFIX = "headrace-"
WORKER_ENVIRONMENT = {
    "NUMBA_CACHE_LOCATOR_CLASSES": f"{__name__}.ZipKernels,UserProvidedCacheLocator,InTreeCacheLocator,"
    "UserWideCacheLocator,ZipCacheLocator",
    "PYTHONSAFEPATH": "1",
}
"""What a worker's Python must be started with. Of the locators the latter are numba's own, for modules of others.
Without a safe path a worker looks for modules in its working folder first: there may lie another `pipelines/`."""


class ZipKernels(ZipCacheLocator):
    """Where the compiled kernels of a module in one of our zips are kept: below the user's cache folder, by zip name.

    A user without a writable cache folder (numba's own locator fails there at the first call of a kernel) gets them
    beside the zip, where whoever put the zip there can write, for as long as the zip is there.
    """

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> ZipKernels | None:
        """Return the place for a function's kernel; None where its file is in no zip of ours."""
        zip_path = next((path for path in Path(py_file).parents if path.suffix == ".zip"), None)
        if zip_path is None or not zip_path.name.startswith(PREFIX):
            return None
        place = cls(py_func, py_file)
        try:
            place.ensure_cache_path()
        except OSError:
            place._cache_path = str(zip_path.parent / cls.get_suitable_cache_subpath(py_file))
        return place

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        """Return the folder below numba's own: the zip's name, then the module's package."""
        zip_path, inner = cls._split_zip_path(py_file)
        return f"{Path(zip_path).stem}/{PurePosixPath(inner).parent}"


def project_zip(folder: Path) -> Path:
    """Write the zip of our packages into `folder` (made if absent), named by the SHA-256 of its bytes; return its path.

    It is there whole or not at all: written under another name, then given its own.
    """
    content = _zipped(sorted(_files()))
    target = folder / f"{PREFIX}{hashlib.sha256(content).hexdigest()}.zip"
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as attempt:
        attempt.write_bytes(content)
    return target


def _files() -> Iterator[tuple[str, bytes]]:
    """Yield (path within the zip, bytes) of every file of our packages."""
    for package in PACKAGES:
        yield from _files_below(resources.files(package), package)


def _files_below(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        inner = f"{path}/{entry.name}"
        if entry.is_dir():
            yield from _files_below(entry, inner)
        elif entry.name.endswith(SUFFIXES):
            yield inner, entry.read_bytes()


def _zipped(files: list[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path, content in files:
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.create_system = 3  # the same on every system
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return stream.getvalue()
