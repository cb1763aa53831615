"""`headrace crawl`: from a dump of Common Crawl to the list of files that a recipe reads.

A dump publishes the names of its files (`crawl-data/DUMP/warc.paths.gz`). The files of a smaller list are the first by
a hash of their paths, so a list of N files is a fair sample, and part of every longer list of the same dump.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import xxhash

from pipelines.errors import HeadraceError, OutputError
from pipelines.storage.listed import ask_sizes, parse_listing, read_bounded
from pipelines.storage.storage import ReadStorage, StoredFile
from tokenizer.errors import explained

ROOT = "https://data.commoncrawl.org"
KINDS = ("warc", "wet", "wat")
_DUMP = re.compile(r"CC-MAIN-\d{4}(?:-\d{2}|-\d{4})?", re.ASCII)
"""Year and week; the first three, of ARC files, are CC-MAIN-2008-2009, CC-MAIN-2009-2010 and CC-MAIN-2012."""


@click.command()
@click.argument("dump")
@click.option("--files", "-n", type=click.IntRange(1), help="How many files to pick; all of the dump's if not given.")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The list to write, for `files:` of a source.",
)
@click.option(
    "--kind", type=click.Choice(KINDS), default="warc", show_default=True, help="Pages, their text, or their metadata."
)
@click.option("--root", default=ROOT, show_default=True, help="Where the crawl lies: there, s3://commoncrawl, a copy.")
@explained
def crawl(dump: str, files: int | None, output: Path, kind: str, root: str) -> None:
    """Write the list of input files of the crawl DUMP, for example CC-MAIN-2024-22.

    A list of N files is a fair sample of the dump, and part of every longer one. Sizes are asked for, one request a
    file, so that a run need not. A list that is there already is kept: it is an error if it is another one.
    """
    from pipelines.storage.schemes import open_storage
    from tokenizer.terminal import make_console, show_progress

    console, storage = make_console(), open_storage(root)
    available = list_dump(storage, dump, kind, None)
    picked = pick(available, files, dump)
    head = f"# {dump} {kind}: {len(picked)} of {len(available)} files, the first by xxh3_64 of their paths\n"
    _refuse_other(output, head, whole=False)
    with show_progress(console) as report:
        report("sizes", 0, len(picked))
        sized = list(ask_sizes(storage, picked, lambda done: report("sizes", done, len(picked))))
    text = head + "".join(f"{file.path}\t{file.size}\n" for file in sized)
    _refuse_other(output, text, whole=True)
    _write(output, text)
    for line in describe(output, storage.url, kind, sized):
        console.print(line, highlight=False, soft_wrap=True)


def list_dump(storage: ReadStorage, dump: str, kind: str = "warc", files: int | None = None) -> list[str]:
    """Return the paths of a dump's files of a kind, sorted; of `files`, the first so many by xxh3_64 of the path.

    `storage` is the crawl's bucket, or a copy of it. Raises `HeadraceError` for a dump that is none or not there, for
    a path that could lead elsewhere, and where there are fewer files.
    """
    if not _DUMP.fullmatch(dump):
        raise HeadraceError(f"dump: found {dump!r}\nhint: write CC-MAIN-YYYY-WW (year and week), as CC-MAIN-2024-22")
    path = f"crawl-data/{dump}/{kind}.paths.gz"
    name = f"{storage.url}/{path}"
    try:
        with storage.open(path) as stream:
            listed = parse_listing(read_bounded(stream, name), name)
    except FileNotFoundError as error:
        raise HeadraceError(
            f"{name}: is not there\nhint: check dump and root; dumps are named by the week, and not every week has one"
        ) from error
    return pick([file.path for file in listed], files, dump)


def pick(paths: list[str], files: int | None, dump: str) -> list[str]:
    """Return the first `files` paths by xxh3_64 (equal ones by path), or all, sorted. Raises `HeadraceError`."""
    if not paths or (files or 0) > len(paths):
        raise HeadraceError(
            f"{dump}: {len(paths)} files are there, {files or 'some'} were asked for\nhint: leave --files away for all"
        )
    return sorted(sorted(paths, key=lambda path: (xxhash.xxh3_64_intdigest(path.encode()), path))[:files])


def describe(output: Path, root: str, kind: str, files: list[StoredFile]) -> list[str]:
    """Return what people are told: the list, its bytes, and what to put into a recipe."""
    import yaml

    total = sum(file.size for file in files)
    lines = [f"{output}: {len(files):,} files, {total:,} bytes ({total / 1e9:.1f} GB)"]
    if kind == "wat":
        return [*lines, "No reader of a recipe takes metadata (wat); the list is for other tools."]
    source: dict[str, Any] = {
        "reader": "commoncrawl",
        "root": root,
        "files": str(output.absolute()),
        "include": ["**"],
        "transforms": ["extract", "language", "gopher_quality"],
    }
    snippet = yaml.safe_dump({"sources": {"web": source}}, sort_keys=False, default_flow_style=None, allow_unicode=True)
    return [*lines, "For a recipe:", "", *snippet.splitlines()]


def _refuse_other(output: Path, text: str, *, whole: bool) -> None:
    """Refuse to write over a file that does not begin with `text`, or is not it. Raises `OutputError`."""
    try:
        there = output.read_bytes() if output.exists() else None
    except OSError as error:
        raise OutputError(f"{output}: cannot be read ({error.strerror})\nhint: choose another --output") from error
    if there is None or (there == text.encode() if whole else there.startswith(text.encode())):
        return
    raise OutputError(f"{output}: is there already and has other content\nhint: choose another --output, or delete it")


def _write(output: Path, text: str) -> None:
    """Write the list whole or not at all. Raises `OutputError`."""
    from tokenizer.whole_file import whole_file

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(output) as attempt:
            attempt.write_bytes(text.encode())
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror})\nhint: choose another --output") from error
