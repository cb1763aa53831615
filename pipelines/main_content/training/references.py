"""What other extractors say about a page: four tools in child processes, their texts kept in a cache of JSON lines.

A page on which a tool raises, crashes, or takes longer than its time has an empty text from it; the child is
replaced. The cache is keyed by the tool, its version and the page's hash, so that a tool sees a page once
for as long as the work folder is kept.
About 15 ms a page and tool, resiliparse 1 ms.
"""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TextIO

import xxhash

from pipelines.errors import HeadraceError

TIMEOUT_SECONDS = 30.0
"""For one page and tool."""
START_SECONDS = 120.0
"""For a child to import the tools."""

CACHE_FILE = "references.jsonl"

PRECISION = "trafilatura_precision"

_INVALID_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def trafilatura_default(page: str) -> str:
    """Return trafilatura's text with its default settings, without comments."""
    import trafilatura

    return trafilatura.extract(page, include_comments=False) or ""


def trafilatura_precision(page: str) -> str:
    """Return trafilatura's text in its precision mode, without comments."""
    import trafilatura

    return trafilatura.extract(page, include_comments=False, favor_precision=True) or ""


def readability(page: str) -> str:
    """Return the text of the HTML that readability-lxml keeps."""
    from readability import Document

    return plain_text(Document(_INVALID_XML.sub("", page)).summary())


def resiliparse(page: str) -> str:
    """Return resiliparse's main content."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    return extract_plain_text(HTMLTree.parse(page), main_content=True, alt_texts=False, comments=False)


def plain_text(page: str) -> str:
    """Return all text of a piece of HTML, blocks on lines of their own."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    return extract_plain_text(HTMLTree.parse(page), main_content=False, alt_texts=False, list_bullets=False)


TOOLS: dict[str, Callable[[str], str]] = {
    PRECISION: trafilatura_precision,
    "trafilatura_default": trafilatura_default,
    "readability": readability,
    "resiliparse": resiliparse,
}
"""Where two tools agree equally well, the first one wins."""

PACKAGES = {
    PRECISION: "trafilatura",
    "trafilatura_default": "trafilatura",
    "readability": "readability-lxml",
    "resiliparse": "resiliparse",
}

Texts = dict[str, str]
"""Text by tool."""


def page_hash(page: str) -> str:
    """Return the xxh3_128 of a page's UTF-8, in hex."""
    return xxhash.xxh3_128_hexdigest(page.encode())


def references(
    pages: Iterable[str], work: Path, processes: int = 2, timeout_seconds: float = TIMEOUT_SECONDS
) -> dict[str, Texts]:
    """Return every tool's text of every page (keyed by `page_hash`), from the cache in the work folder or the tools."""
    by_hash = {page_hash(page): page for page in pages}
    if not by_hash:
        return {}
    path = work / CACHE_FILE
    cached = _read_cache(path)
    missing = [(key, tool) for key in by_hash for tool in TOOLS if tool not in cached.get(key, {})]
    with path.open("a", encoding="utf-8") as file:
        _end_torn_line(file)
        cache = _Cache(cached, file)
        with ThreadPoolExecutor(processes) as threads:
            shares = [missing[start::processes] for start in range(processes)]
            for _ in threads.map(lambda share: _ask_all(share, by_hash, cache, timeout_seconds), shares):
                pass
    return {key: cached[key] for key in by_hash}


class _Cache:
    """The answers so far, in memory and, a line each, in the file."""

    def __init__(self, texts: dict[str, Texts], file: TextIO) -> None:
        self._texts, self._file, self._lock = texts, file, threading.Lock()
        self._versions = _versions()

    def add(self, key: str, tool: str, text: str) -> None:
        """Keep one answer."""
        line = {"page": key, "tool": tool, "version": self._versions[tool], "text": text}
        with self._lock:
            self._texts.setdefault(key, {})[tool] = text
            self._file.write(json.dumps(line) + "\n")


class _Child:
    """A process that runs the tools, one page at a time; it is killed when it takes too long."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._pipe, other = multiprocessing.Pipe()
        command = [sys.executable, "-m", "pipelines.main_content.training.references", str(other.fileno())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            command, pass_fds=[other.fileno()], env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        other.close()
        if self._answer(START_SECONDS) != "ready":
            raise HeadraceError(f"{command} does not start\nhint: run it to see why")

    def ask(self, tool: str, page: str) -> str | None:
        """Return the tool's text, or None when the child raised, crashed or took too long: it is dead then."""
        try:
            self._pipe.send_bytes(tool.encode())
            self._pipe.send_bytes(page.encode())
        except OSError:
            self.kill()
            return None
        return self._answer(self._timeout_seconds)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()

    def _answer(self, seconds: float) -> str | None:
        try:
            if self._pipe.poll(seconds):
                return self._pipe.recv_bytes().decode()
        except (EOFError, OSError):
            pass
        self.kill()
        return None


def serve(pipe: Connection) -> None:
    """Answer a tool's name and a page with a text until the other side is gone; an error of a tool ends the process."""
    pipe.send_bytes(b"ready")
    while True:
        try:
            tool, page = pipe.recv_bytes().decode(), pipe.recv_bytes().decode()
        except EOFError:
            return
        pipe.send_bytes(TOOLS[tool](page).encode("utf-8", "replace"))


def _ask_all(share: list[tuple[str, str]], by_hash: dict[str, str], cache: _Cache, timeout_seconds: float) -> None:
    child = _Child(timeout_seconds) if share else None
    for key, tool in share:
        assert child is not None
        text = child.ask(tool, by_hash[key])
        if text is None:
            child = _Child(timeout_seconds)
        cache.add(key, tool, text or "")
    if child is not None:
        child.kill()


def _read_cache(path: Path) -> dict[str, Texts]:
    """Return the answers of the tools' present versions; a line that was torn by a kill counts as none."""
    texts: dict[str, Texts] = {}
    versions = _versions()
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if versions.get(answer["tool"]) == answer["version"]:
            texts.setdefault(answer["page"], {})[answer["tool"]] = answer["text"]
    return texts


def _end_torn_line(file: TextIO) -> None:
    if file.tell():
        file.write("\n")


def _versions() -> dict[str, str]:
    try:
        return {tool: importlib.metadata.version(package) for tool, package in PACKAGES.items()}
    except importlib.metadata.PackageNotFoundError as error:
        raise HeadraceError(
            f"{error.name} labels pages and is not installed\nhint: pip install {error.name}"
        ) from error


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
