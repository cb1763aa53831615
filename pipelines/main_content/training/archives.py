"""Archives of package registries and public repositories: fetched once by the client of each, checked, unpacked.

What is fetched is pinned: an archive by its sha256, a repository by its commit, which git checks. What is in it is not
trusted all the same: only regular files whose names match are written, never outside of the folder, within bounds of
size and number.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pipelines.main_content.training.catalogue import Package, PagesError

MAX_FILE_BYTES = 8 << 20
MAX_FILES = 50_000
MAX_TOTAL_BYTES = 2 << 30

FETCH_SECONDS = 600

GITHUB = "https://github.com"
"""Where repositories are; git's `url.BASE.insteadOf` leads to a mirror."""


def unpacked(package: Package, downloads: Path) -> Path:
    """Return the folder with the package's chosen files, fetched and unpacked if it is not there yet."""
    identity = hashlib.sha256("\n".join((package.pin, *package.globs)).encode()).hexdigest()[:12]
    folder = downloads / f"{package.name.replace('/', '-').lstrip('@')}-{identity}"
    if not folder.is_dir():
        archive = fetched(package, downloads)
        attempt = folder.with_name(f"{folder.name}.{os.getpid()}")
        try:
            unpack(archive, package.globs, attempt)
            attempt.rename(folder)
        finally:
            shutil.rmtree(attempt, ignore_errors=True)
    return folder


def fetched(package: Package, downloads: Path) -> Path:
    """Return the package's archive, from the downloads or else from where it comes from; it is checked either way."""
    folder = downloads / package.pin
    if not folder.is_dir():
        attempt = downloads / f"{package.pin}.{os.getpid()}"
        attempt.mkdir(parents=True)
        try:
            _fetch(package, attempt)
            _check(package, _only_file(package, attempt))
            attempt.rename(folder)
        finally:
            shutil.rmtree(attempt, ignore_errors=True)
    archive = _only_file(package, folder)
    _check(package, archive)
    return archive


def unpack(archive: Path, globs: tuple[str, ...], folder: Path) -> None:
    """Write the regular files of a tar archive or Debian package whose names match a glob (`*` crosses `/`)."""
    folder.mkdir(parents=True)
    files = total = 0
    with _opened(archive) as tar:
        for member in tar:
            if not member.isfile() or not any(fnmatchcase(member.name, glob) for glob in globs):
                continue
            files, total = files + 1, total + member.size
            if member.size > MAX_FILE_BYTES or files > MAX_FILES or total > MAX_TOTAL_BYTES:
                raise PagesError(f"{archive.name}: {member.name} goes beyond what is unpacked\nhint: narrow its globs")
            _write(tar, member, folder)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\0" in member.name:
        raise PagesError(f"{member.name!r} would be written outside of its folder\nhint: do not use this archive")
    content = tar.extractfile(member)
    assert content is not None, "regular files have content"
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        shutil.copyfileobj(content, file)


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    """Yield an archive as a stream of members; dpkg-deb opens Debian's."""
    if archive.suffix != ".deb":
        with tarfile.open(archive, "r|*") as tar:
            yield tar
        return
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as process:
        stream: BinaryIO = process.stdout  # type: ignore[assignment]
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            yield tar
        stream.read()


def _fetch(package: Package, folder: Path) -> None:
    """Run the client in a folder, where it leaves one file; pip checks the hash itself before it opens an archive."""
    (folder / "requirements").write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    for command in _commands(package):
        try:
            subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
                stdin=subprocess.DEVNULL,  # nobody is there to answer
                check=True,
                capture_output=True,
                timeout=FETCH_SECONDS,
            )
        except (OSError, subprocess.SubprocessError) as error:
            line = shlex.join(command)
            raise PagesError(
                f"{package.name} {package.version} cannot be fetched\nhint: see what {line!r} says"
            ) from error
    (folder / "requirements").unlink()
    shutil.rmtree(folder / "repository", ignore_errors=True)


def _commands(package: Package) -> list[list[str]]:
    if package.registry == "pypi":
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", package.name, "--quiet"]
        return [[*pip, "--dest", ".", "--requirement", "requirements"]]
    if package.registry == "npm":
        return [["npm", "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]]
    if package.registry == "debian":
        return [["apt-get", "download", "--quiet", f"{package.name}={package.version}"]]
    git = ["git", "-C", "repository"]
    return [
        ["git", "init", "--quiet", "--bare", "repository"],
        [*git, "fetch", "--quiet", "--depth", "1", f"{GITHUB}/{package.name}", package.version],
        [*git, "archive", "--output", "../pages.tar", package.version, "--", *package.globs],
    ]


def _only_file(package: Package, folder: Path) -> Path:
    files = sorted(folder.iterdir())
    if len(files) != 1:
        raise PagesError(f"{folder}: {len(files)} files, not the archive of {package.name}\nhint: remove the folder")
    return files[0]


def _check(package: Package, archive: Path) -> None:
    if package.registry == "github":
        return  # git has checked that the tree is the commit's
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise PagesError(
            f"{package.name} {package.version}: sha256 {found}, not {package.sha256}\n"
            f"hint: remove {archive.parent}; if it is the same again, look at what the registry gives now"
        )
