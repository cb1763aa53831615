"""Make the demo's crawl: pages that pydoc renders from the standard library's docstrings, in one real WARC file.

    python demo/make_inputs.py FOLDER

writes FOLDER/pydoc.warc.gz, one gzip member for each record: a warcinfo, a response for each page, a request before
every 25th, two pages once more under another address, and in the middle one record whose bytes are damaged. Two runs of
one Python give the same bytes: dates count up from a fixed day, record ids are derived from the addresses, hashes of
strings are fixed, and what differs between machines (values of data, paths, addresses in memory) is left out.
Needs nothing but Python; about 10 s.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import gzip
import hashlib
import importlib
import os
import pydoc
import re
import subprocess
import sys
import sysconfig
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

SITE = "https://library.example/"
FIRST_DATE = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
REQUEST_EVERY = 25
NUM_DUPLICATES = 2
MAX_PAGES = 300

PACKAGES = (
    *("asyncio", "collections", "concurrent", "ctypes", "curses", "dbm", "email", "html", "http", "importlib", "json"),
    *("logging", "multiprocessing", "os", "re", "sqlite3", "tomllib", "unittest", "urllib", "wsgiref", "xml", "xmlrpc"),
    "zoneinfo",
)
"""Packages whose modules get pages of their own."""

SKIPPED = frozenset(
    # They act when they are imported, show a window, belong to the tests, or are made anew for each machine.
    (
        *("antigravity", "this", "idlelib", "lib2to3", "test", "tkinter", "turtle", "turtledemo", "ensurepip", "venv"),
        *("pydoc_data", "sitecustomize", "usercustomize", "site", "sysconfig", "distutils"),
    )
)

_MEMORY_ADDRESS = re.compile(r"(?: |&nbsp;)at(?: |&nbsp;)0x[0-9A-Fa-f]+")

ENVIRONMENT = {"HEADRACE_DEMO": "1", "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
"""All that the rendering process sees: sets are printed in the order of hashes, some defaults are the environment."""


class Pages(pydoc.HTMLDoc):
    """pydoc's pages without what differs between two machines."""

    def docother(self, object: object, name: str | None = None, mod: str | None = None, *ignored: object) -> str:
        """Name a piece of data, but leave its value out: it may be the environment or a path."""
        return f"<strong>{self.escape(name or '')}</strong>"

    def filelink(self, url: str, path: str) -> str:
        """Name the file without its folder."""
        return f'<a href="{Path(path).name}">{Path(path).name}</a>'


def module_names() -> list[str]:
    """Return the public pure-Python modules of the standard library that are safe to import, sorted."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [*root.glob("*.py"), *root.glob("*/__init__.py")]
    for package in PACKAGES:
        files += (root / package).glob("*.py")
    names = set()
    for file in files:
        parts = file.relative_to(root).with_suffix("").parts
        names.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    known = sys.stdlib_module_names - SKIPPED
    return sorted(name for name in names if name.split(".")[0] in known and not _is_private(name))


def _is_private(name: str) -> bool:
    return any(part.startswith("_") or "-" in part for part in name.split("."))


def render(name: str) -> bytes | None:
    """Return the page of a module, or None where it cannot be imported on this machine."""
    try:
        module = importlib.import_module(name)
        body = Pages().document(module, name)
    except (Exception, SystemExit):  # whatever a module of another system or without its C library raises
        return None
    page = f'<html lang="en"><head><title>{name}</title></head><body>\n{body}\n</body></html>\n'
    for path in (sys.executable, sysconfig.get_path("stdlib"), sys.prefix, sys.base_prefix):
        page = page.replace(path, "/python")
    return _MEMORY_ADDRESS.sub("", page).encode("utf-8", "replace")


def pages() -> Iterator[tuple[str, bytes]]:
    """Yield address and HTML of each page, the first ones once more under another address at the end."""
    found: list[tuple[str, bytes]] = []
    for name in module_names():
        page = render(name)
        if page is not None and len(found) < MAX_PAGES:
            found.append((f"{SITE}{name}.html", page))
    yield from found
    for url, page in found[:NUM_DUPLICATES]:
        yield url.replace(SITE, f"{SITE}mirror/"), page


def record(kind: str, url: str | None, number: int, content_type: str, block: bytes, payload: bytes = b"") -> bytes:
    """Return one record as a gzip member. WARC/1.0; `number` counts seconds from the first date."""
    headers = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{kind} {url}')}>",
        "WARC-Date": (FIRST_DATE + datetime.timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "WARC-Target-URI": url,
        "WARC-Block-Digest": _digest(block),
        "WARC-Payload-Digest": _digest(payload) if payload else None,
        "Content-Type": content_type,
        "Content-Length": str(len(block)),
    }
    lines = ["WARC/1.0", *(f"{name}: {value}" for name, value in headers.items() if value is not None), "", ""]
    return gzip.compress("\r\n".join(lines).encode() + block + b"\r\n\r\n", mtime=0)


def _digest(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


def response(url: str, number: int, page: bytes) -> bytes:
    """Return the response record of a page."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(page)}\r\n\r\n"
    return record("response", url, number, "application/http; msgtype=response", head.encode() + page, page)


def request(url: str, number: int) -> bytes:
    """Return the request record of a page."""
    block = f"GET /{url.removeprefix(SITE)} HTTP/1.1\r\nHost: {SITE.split('/')[2]}\r\n\r\n".encode()
    return record("request", url, number, "application/http; msgtype=request", block)


def damage(member: bytes) -> bytes:
    """Return a gzip member with 64 bytes in its middle overwritten."""
    middle = len(member) // 2
    return member[:middle] + b"\xff" * 64 + member[middle + 64 :]


def write_warc(path: Path) -> int:
    """Write the archive and return the number of pages."""
    found = list(pages())
    with path.open("wb") as file:
        about = b"software: headrace demo\r\nformat: WARC File Format 1.0\r\n"
        file.write(record("warcinfo", None, 0, "application/warc-fields", about))
        for number, (url, page) in enumerate(found):
            if number % REQUEST_EVERY == 0:
                file.write(request(url, number))
            member = response(url, number, page)
            file.write(damage(member) if number == len(found) // 2 else member)
    return len(found)


def main() -> None:
    """Render in a second process, whose environment is the same on every machine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write pydoc.warc.gz; made if it is missing")
    folder = parser.parse_args().folder
    if "HEADRACE_DEMO" not in os.environ:
        needed = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}  # Windows: random, sockets
        environment = ENVIRONMENT | needed
        command = [sys.executable, __file__, str(folder)]
        raise SystemExit(subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode)
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pydoc.warc.gz"
    num_pages = write_warc(path)
    print(f"{path}: {num_pages} pages, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
