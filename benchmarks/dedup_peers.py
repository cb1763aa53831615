"""The peers of the benchmarks of deduplication: their environment, their runs, and what datatrove says of each pair."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
DEFAULT_PEERS = HERE.parent / "build/peers"
LIST = HERE / "peers/dedup.txt"
BANDS, ROWS, NGRAM = 14, 8, 5
"""datatrove's defaults, which all sides are given."""
POLL_SECONDS = 0.05
"""Between two looks at a process's peak of memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """A run that has ended: CPU seconds with its children's, and peak bytes of its own resident memory."""

    cpu_seconds: float
    peak_bytes: int
    output: str


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a tool says of documents, by their positions: pairs with a band in common, and what it removes and for what.

    A removed document stands with the one that is kept in its place.
    """

    pairs: frozenset[tuple[int, int]]
    removed: dict[int, int]


def peer_python(folder: Path = DEFAULT_PEERS) -> Path:
    """Return the interpreter of the peers' environment, which is made if its list has changed."""
    environment = folder.absolute() / LIST.stem
    mark = environment / "installed.txt"
    if not mark.exists() or mark.read_text() != LIST.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        subprocess.run([str(environment / "bin/pip"), "install", "--quiet", "-r", str(LIST)], check=True)
        mark.write_text(LIST.read_text())
    return environment / "bin/python"


def run_process(command: Sequence[str | Path], folder: Path, **environment: str) -> Process:
    """Run a command in a folder to its end; an exit status other than 0 ends this program with what it printed."""
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1", **environment},
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
        peak = 0
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            peak = max(peak, _peak_bytes(process.pid))
            time.sleep(POLL_SECONDS)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        printed.seek(0)
        output = printed.read()
    if process.returncode:
        raise SystemExit(f"{command[0]} failed:\n{output[-4_000:]}")
    return Process(ended[2].ru_utime + ended[2].ru_stime, peak, output)


def _peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had so far; its `ru_maxrss` would begin with that of this process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0  # it is ending


def datatrove(python: Path, inputs: Path, output: Path, *options: str) -> Process:
    """Run datatrove's four steps on the Parquet files of a folder."""
    return run_process([python, HERE / "peers/datatrove_dedup.py", inputs, output, *options], inputs)


def rensa(python: Path, inputs: Path, output: Path, *options: str) -> Process:
    """Run rensa's greedy loop on the Parquet files of a folder."""
    return run_process([python, HERE / "peers/rensa_dedup.py", inputs, output, *options], inputs)


def text_dedup(python: Path, inputs: Path, output: Path) -> Process:
    """Run text-dedup's minhash with one process on the Parquet files of a folder; its caches go with the output."""
    options = {
        "path": "parquet",
        "data_dir": inputs,
        "split": "train",
        "cache_dir": output / "cache",
        "output": output / "kept",
        "column": "text",
        "num_perm": BANDS * ROWS,
        "b": BANDS,
        "r": ROWS,
        "ngram": NGRAM,
        "num_proc": 1,
    }
    output.mkdir()
    named = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return run_process([python, "-m", "text_dedup.minhash", *named], output, HF_HOME=str(output / "cache"))


def datatrove_found(output: Path) -> Found:
    """Read what datatrove left: equal bands of its signature files, its clusters and its removals (of one task)."""
    pairs: set[tuple[int, int]] = set()
    band = np.dtype([("band", f"V{8 * ROWS}"), ("document", "<u4")])
    for file in sorted((output / "signatures").glob("bucket_*/00000.minhash.sig")):
        rows = np.fromfile(file, band)
        groups = defaultdict(list)
        for key, document in zip(rows["band"].tolist(), rows["document"].tolist(), strict=True):
            groups[bytes(key)].append(document)
        for group in groups.values():
            pairs.update(combinations(sorted(group), 2))
    clusters = output / "clusters"
    of_document = dict(np.fromfile(clusters / "000000.clusters", "<u4").reshape(-1, 2).tolist())
    removed = set(np.fromfile(clusters / "000000.remove", "<u4").tolist())
    kept = {cluster: document for document, cluster in of_document.items() if document not in removed}
    return Found(frozenset(pairs), {document: kept[of_document[document]] for document in sorted(removed)})
