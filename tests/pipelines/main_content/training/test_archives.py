"""Archives are checked and unpacked with care: nothing outside of the folder, nothing beyond the bounds."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from pipelines.main_content.training import archives
from pipelines.main_content.training.archives import fetched, unpack, unpacked
from pipelines.main_content.training.catalogue import Package, PagesError


def tar_of(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path


def downloaded(downloads: Path, members: dict[str, bytes], globs: tuple[str, ...] = ("*.html",)) -> Package:
    """Lay an archive where `fetched` looks for it, and return the package that it is."""
    archive = tar_of(downloads / "archive.tar.gz", members)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (downloads / digest).mkdir()
    archive.rename(downloads / digest / archive.name)
    return Package("pypi", "some-pages", "1.0", globs, digest)


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_only_what_matches_is_unpacked(tmp_path: Path) -> None:
    package = downloaded(tmp_path, {"p/a/1.html": b"one", "p/setup.py": b"import os", "p/b.html": b"two"})
    folder = unpacked(package, tmp_path)
    assert files_below(folder) == ["p/a/1.html", "p/b.html"]
    assert (folder / "p/a/1.html").read_bytes() == b"one"
    assert unpacked(package, tmp_path) == folder


@pytest.mark.parametrize("name", ["../outside.html", "p/../../outside.html", "/tmp/outside.html"])
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", {name: b"x"})
    with pytest.raises(PagesError, match="outside of its folder"):
        unpack(archive, ("*.html",), tmp_path / "in" / "folder")
    assert files_below(tmp_path) == ["a.tar.gz"]


def test_links_are_not_unpacked_and_so_cannot_be_written_through(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", {"p/1.html": b"one"}, {"q": str(tmp_path), "p/2.html": "/etc/passwd"})
    unpack(archive, ("*",), tmp_path / "folder")
    assert files_below(tmp_path / "folder") == ["p/1.html"]


def test_a_member_that_comes_twice_is_not_overwritten(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        for content in (b"first", b"second"):
            info = tarfile.TarInfo("1.html")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(FileExistsError):
        unpack(archive, ("*",), tmp_path / "folder")


@pytest.mark.parametrize(("bound", "value"), [("MAX_FILE_BYTES", 9), ("MAX_FILES", 1), ("MAX_TOTAL_BYTES", 19)])
def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int) -> None:
    monkeypatch.setattr(archives, bound, value)
    archive = tar_of(tmp_path / "a.tar.gz", {"1.html": b"x" * 10, "2.html": b"x" * 10})
    with pytest.raises(PagesError, match="beyond what is unpacked"):
        unpack(archive, ("*",), tmp_path / "folder")


def test_a_failed_unpacking_leaves_nothing_that_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = downloaded(tmp_path, {"1.html": b"x" * 10, "2.html": b"x" * 10})
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 15)
    with pytest.raises(PagesError):
        unpacked(package, tmp_path)
    monkeypatch.undo()
    assert files_below(unpacked(package, tmp_path)) == ["1.html", "2.html"]


def test_an_archive_of_other_bytes_is_refused(tmp_path: Path) -> None:
    package = downloaded(tmp_path, {"1.html": b"one"})
    archive = fetched(package, tmp_path)
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(PagesError, match=f"not {package.sha256}"):
        fetched(package, tmp_path)


def test_debian_packages(tmp_path: Path) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb")
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        "Package: some-doc\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
    )
    (root / "usr/share/doc").mkdir(parents=True)
    (root / "usr/share/doc/1.html").write_text("one")
    subprocess.run(["dpkg-deb", "--build", str(root), str(tmp_path / "some-doc.deb")], check=True, capture_output=True)
    unpack(tmp_path / "some-doc.deb", ("*/doc/*.html",), tmp_path / "folder")
    assert files_below(tmp_path / "folder") == ["usr/share/doc/1.html"]


def test_a_repository_is_fetched_at_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "hub/owner/pages"
    repository.mkdir(parents=True)
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    (repository / "1.html").write_text("one")
    (repository / "code.py").write_text("code")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "pages"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(archives, "GITHUB", f"file://{tmp_path}/hub")
    folder = unpacked(Package("github", "owner/pages", commit, ("*.html",)), tmp_path / "downloads")
    assert files_below(folder) == ["1.html"]
    with pytest.raises(PagesError, match="cannot be fetched"):
        fetched(Package("github", "owner/pages", "0" * 40, ("*.html",)), tmp_path / "downloads")
    assert [path.name for path in (tmp_path / "downloads").iterdir() if path.name.startswith("000")] == []
