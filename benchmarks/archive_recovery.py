"""What three readers keep of every archive below a folder, side by side, and what reading costs them.

    python benchmarks/archive_recovery.py [FOLDER] [--json FILE]

A record (response, resource or conversion) counts as kept by warcio or fastwarc when its iteration gives it; a header
that is cut before its length (warcio gives an empty payload) is no record. `missed` are records that a peer keeps and
we do not, `differ` those that peers decode, none of them as we do: both should be 0. `balanced` says that the bytes of
records and gaps add up to the file's size. CPU seconds are for reading alone, best of three.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

from fastwarc.warc import ArchiveIterator as FastwarcIterator
from warcio.archiveiterator import ArchiveIterator as WarcioIterator
from warcio.recordloader import ArcWarcRecord

from pipelines.sources.archive import read_archive
from pipelines.sources.commoncrawl import CommonCrawl
from pipelines.sources.source import BatchLimits, RawAccount, Split, content_hash
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import StoredFile

ROW_TYPES = ("response", "resource", "conversion")
DEFAULT_FOLDER = Path(__file__).resolve().parents[1] / "../shared/data/warc"

Kept = list[tuple[str, bytes | None]]
"""Key (record id, else URI) and xxh3_128 of the payload (None: not decoded by this reader), in file order."""


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """One file: records kept by each reader, our errored rows, and where we fall short of a peer."""

    file: str
    warcio: int
    fastwarc: int
    ours: int
    errored: int
    balanced: bool
    missed: tuple[str, ...]
    differ: tuple[str, ...]


def compare(path: Path, name: str) -> Comparison:
    """Read one file with all three readers."""
    warcio, fastwarc = _kept_by(_warcio, path), _kept_by(_fastwarc, path)
    ours, errored, balanced = _ours(path)
    missed, differ = _shortfall(ours, warcio, fastwarc)
    return Comparison(name, len(warcio), len(fastwarc), len(ours), errored, balanced, missed, differ)


def compare_all(folder: Path) -> list[Comparison]:
    """Read every file below a folder, in order of path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [compare(path, path.relative_to(folder).as_posix()) for path in files]


def _kept_by(reader: Callable[[Path], Iterator[tuple[str, bytes | None]]], path: Path) -> Kept:
    kept: Kept = []
    try:
        for key, payload in reader(path):
            kept.append((key, None if payload is None else content_hash(payload)))
    except Exception as error:  # a peer may fail in any way: it keeps what came before
        logging.debug("%s: %s", path, error)
    return kept


def _warcio(path: Path) -> Iterator[tuple[str, bytes | None]]:
    with path.open("rb") as file:
        for record in WarcioIterator(file):
            fields = record.rec_headers
            uri = fields.get_header("WARC-Target-URI") or fields.get_header("uri") or ""
            if record.rec_type not in ROW_TYPES or uri.startswith("dns:"):
                continue
            payload = _payload(partial(_decoded, record))
            if payload != b"" or fields.get_header("Content-Length") or fields.get_header("length"):
                yield _bare(fields.get_header("WARC-Record-ID") or uri), payload


def _decoded(record: ArcWarcRecord) -> bytes:
    payload: bytes = record.content_stream().read()
    return payload


def _fastwarc(path: Path) -> Iterator[tuple[str, bytes | None]]:
    """Read decoded as far as fastwarc gets: a coding that it cannot undo ends its iteration. Then the rest as it is."""
    num_decoded = 0
    try:
        for key, payload in _fastwarc_records(path, "all"):
            num_decoded += 1
            yield key, payload
    except OSError as error:
        logging.debug("%s: %s", path, error)
        for key, _ in islice(_fastwarc_records(path, "none"), num_decoded, None):
            yield key, None


def _fastwarc_records(path: Path, auto_decode: Literal["none", "all"]) -> Iterator[tuple[str, bytes | None]]:
    with path.open("rb") as file:
        for record in FastwarcIterator(file, parse_http=True, auto_decode=auto_decode):
            fields, kind = record.headers, str(record.record_type).rpartition(".")[2]
            uri = fields.get("WARC-Target-URI") or ""
            if kind in ROW_TYPES and not uri.startswith("dns:"):
                yield _bare(fields.get("WARC-Record-ID") or uri), _payload(record.reader.read)


def _payload(read: Callable[[], bytes]) -> bytes | None:
    """Return a peer's payload, None where it fails to decode it; it may go on with the next record."""
    try:
        return read()
    except Exception as error:  # a peer may fail in any way
        logging.debug("%s", error)
        return None


def _ours(path: Path) -> tuple[Kept, int, bool]:
    """Return our rows that are no errors (dropped ones are read, and refused by rule), errors, and the balance."""
    split = Split("archives", (StoredFile(path.name, path.stat().st_size),))
    account, errored = RawAccount(), 0
    kept: Kept = []
    for batch in CommonCrawl("archives", ("**",)).read(split, LocalStorage(path.parent), BatchLimits(), account):
        for row in batch.select(["natural_key", "url", "content_hash", "verdict"]).to_pylist():
            if row["verdict"] is not None and row["verdict"]["outcome"] == "errored":
                errored += 1
                continue
            has_id = " " not in row["natural_key"]
            kept.append((row["natural_key"] if has_id else row["url"] or "", row["content_hash"]))
    gaps = sum(num_bytes for _, num_bytes in account.gaps.values())
    return kept, errored, account.size == account.records + gaps


def _shortfall(ours: Kept, *peers: Kept) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the keys that a peer has more often than we have, and those whose payload is no peer's."""
    have, theirs = defaultdict(list), defaultdict(set)
    for key, digest in ours:
        have[key].append(digest)
    missed = []
    for peer in peers:
        count: dict[str, int] = defaultdict(int)
        for key, digest in peer:
            count[key] += 1
            if digest is not None:
                theirs[key].add(digest)
        missed += [key for key, number in count.items() if number > len(have[key])]
    differ = [key for key, digests in theirs.items() if have[key] and not digests & set(have[key])]
    return tuple(dict.fromkeys(missed)), tuple(differ)


def _bare(value: str) -> str:
    return value.strip().removeprefix("<").removesuffix(">")


def cpu_seconds(files: list[Path]) -> dict[str, float]:
    """Return the CPU seconds to read every record of these files: fastwarc, our records alone, our whole source."""

    def whole_source(path: Path) -> None:
        _ours(path)

    def records(path: Path) -> None:
        with path.open("rb") as file:
            for _ in read_archive(file, path.stat().st_size, 16 << 20):
                pass

    def fastwarc(path: Path) -> None:
        for _ in _fastwarc(path):
            pass

    readers = {"fastwarc": fastwarc, "records": records, "source": whole_source}
    return {name: min(_timed(reader, files) for _ in range(3)) for name, reader in readers.items()}


def _timed(reader: Callable[[Path], None], files: list[Path]) -> float:
    start = time.process_time()
    for path in files:
        reader(path)
    return time.process_time() - start


def main() -> None:
    """Print the table, and write it where `--json` says."""
    parser = argparse.ArgumentParser(description="What warcio, fastwarc and Headrace keep of every archive.")
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER, help="folder with archives")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    arguments = parser.parse_args()
    logging.getLogger("warcio").setLevel(logging.CRITICAL)
    comparisons = compare_all(arguments.folder)
    print(f"{'file':80} {'warcio':>6} {'fastwarc':>8} {'ours':>5} {'errored':>7} {'missed':>6} {'differ':>6} balanced")
    for one in comparisons:
        counts = f"{one.warcio:6} {one.fastwarc:8} {one.ours:5} {one.errored:7} {len(one.missed):6} {len(one.differ):6}"
        print(f"{one.file[-80:]:80} {counts} {'yes' if one.balanced else 'NO'}")
    sound = [arguments.folder / one.file for one in comparisons if min(one.warcio, one.fastwarc) >= 100]
    seconds = cpu_seconds(sound)
    print(f"CPU s over {len(sound)} large sound files: " + ", ".join(f"{k} {v:.3f}" for k, v in seconds.items()))
    if arguments.json:
        report = {"files": [dataclasses.asdict(one) for one in comparisons], "cpu_seconds": seconds}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
