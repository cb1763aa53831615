"""Deduplication, CPU seconds: text to signatures, and the whole job, beside datatrove, text-dedup and rensa; growth.

    python benchmarks/dedup.py [--data ../shared/data] [--peers FOLDER] [--quick] [--json FILE]

Everything is measured in one run on one corpus (`dedup_corpus`: 1.3 kB a document, of ten one exact and one edited
copy), in CPU seconds of one process, and compared by documents a CPU second. All sides have 14 bands of 8 rows and word
5-grams.

Signatures: text in memory to signatures of 112 hashes, shingling included, on the first documents of the corpus
(`Sizes`). Ours is `near_duplicates.signatures.signatures`, the best of `ROUNDS`; datatrove's are the two functions of
its step; rensa's shingles are made by a regular expression and a set in Python.

The job: from a Parquet file to the kept documents on disk. Ours is the recipe of `dedup_run.py` through the engine with
one worker, with exact copies, true similarities, edges, clusters and the ledger; what makes tokens is counted apart.
datatrove has its four steps, text-dedup its minhash with one process; rensa is asked and given document by document in
a loop in Python, and holds all in memory. None of them verifies. Starting is no part of any: ours is measured in the
process, after a run on `Sizes.start` documents, which loads kernels; of the peers' processes what the same command
takes for `Sizes.start` documents is taken off (of rensa, too, what reads and writes is in). datatrove and text-dedup
run on the first documents of the corpus only, as their cost is linear in their number.

Growth: our job on three sizes; the exponent is the slope of log CPU seconds over log documents. Peak memory is that of
each side's main process.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from dedup_corpus import Sentences, make_documents, write_documents
from dedup_peers import DEFAULT_PEERS, HERE, Process, datatrove, peer_python, rensa, run_process, text_dedup

from pipelines.near_duplicates.presets import PRESETS
from pipelines.near_duplicates.signatures import signatures

SHAPE = PRESETS["fineweb"]
ROUNDS = 5
BARS = {
    "signature_ratio_to_datatrove": 100.0,
    "signature_ratio_to_rensa": 3.0,
    "signature_mb_per_cpu_second": 45.0,
    "job_ratio_to_datatrove": 20.0,
    "job_ratio_to_text_dedup": 7.0,
    "job_ratio_to_rensa": 0.5,
}
MOST_EXPONENT = 1.1


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of documents."""

    start: int
    """Of the corpus that starting is measured by."""
    signatures: int
    """That ours and rensa make signatures of."""
    signatures_of_datatrove: int
    linear: int
    """That datatrove and text-dedup deduplicate."""
    job: int
    growth: tuple[int, ...]

    def all(self) -> set[int]:
        """Return each once."""
        some = {self.start, self.signatures, self.signatures_of_datatrove, self.linear, self.job}
        return some | set(self.growth)


WHOLE = Sizes(200, 20_000, 2_000, 20_000, 100_000, (50_000, 100_000, 500_000))
QUICK = Sizes(200, 4_000, 500, 2_000, 10_000, (5_000, 10_000, 20_000))


def main() -> None:
    """Measure, print, write JSON if asked to; exit status 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=HERE.parent / "../shared/data")
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS, help="where the peers' environment is kept")
    parser.add_argument("--quick", action="store_true", help="few documents, to try it out: bars are not looked at")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    python = peer_python(arguments.peers)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.data, QUICK if arguments.quick else WHOLE, python, Path(folder))
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(bool(missed(result)) and not arguments.quick)


def measure(data: Path, sizes: Sizes, python: Path, scratch: Path) -> dict[str, Any]:
    """Return every figure by its name."""
    corpora = {num: scratch / f"documents-{num}" for num in sorted(sizes.all())}
    sentences = Sentences.read(data)
    num_bytes = {}
    for num, folder in corpora.items():
        folder.mkdir()
        num_bytes[num] = write_documents(folder / "documents.parquet", make_documents(sentences, num))
    result: dict[str, Any] = {"sizes": dataclasses.asdict(sizes), "bytes": num_bytes}
    result |= of_signatures(sizes, corpora, python, scratch)
    result |= of_jobs(sizes, corpora, python, scratch)
    return result


def of_signatures(sizes: Sizes, corpora: dict[int, Path], python: Path, scratch: Path) -> dict[str, Any]:
    """Return rates of text to signatures."""
    text = pq.read_table(corpora[sizes.signatures] / "documents.parquet").column("text").combine_chunks()
    column = text.cast(pa.large_string())
    num_bytes = sum(map(len, map(str.encode, column.to_pylist())))
    ours = best_seconds(lambda: signatures(column, SHAPE))
    few, many = corpora[sizes.signatures_of_datatrove], corpora[sizes.signatures]
    theirs = datatrove(python, few, scratch / "signatures", "signatures")
    rensas = rensa(python, many, scratch / "signatures-rensa", "signatures")
    rates = {
        "ours": len(column) / ours,
        "datatrove": sizes.signatures_of_datatrove / last_numbers(theirs)[0],
        "rensa": sizes.signatures / last_numbers(rensas)[0],
    }
    return {
        "signature_documents_per_cpu_second": rates,
        "signature_mb_per_cpu_second": num_bytes / ours / 1e6,
        "signature_ratio_to_datatrove": rates["ours"] / rates["datatrove"],
        "signature_ratio_to_rensa": rates["ours"] / rates["rensa"],
    }


def best_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of one call, best of `ROUNDS` after one that compiles."""
    work()
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def last_numbers(process: Process) -> list[float]:
    """Return the numbers of the last line that a peer printed."""
    return [float(number) for number in process.output.splitlines()[-1].split()]


def of_jobs(sizes: Sizes, corpora: dict[int, Path], python: Path, scratch: Path) -> dict[str, Any]:
    """Return the cost of whole jobs, ours at all sizes."""
    start = corpora[sizes.start]
    ours = {}
    for num in sorted({sizes.job, *sizes.growth}):
        output = scratch / f"ours-{num}"
        command = [sys.executable, HERE / "dedup_run.py", corpora[num], output, "--warm-up", start]
        done = run_process(command, HERE.parent)
        ours[num] = {**json.loads(done.output.splitlines()[-1]), "peak_bytes": done.peak_bytes}
    peers = {}
    for name, run, num in (
        ("rensa", rensa, sizes.job),
        ("datatrove", datatrove, sizes.linear),
        ("text_dedup", text_dedup, sizes.linear),
    ):
        starting = run(python, start, scratch / f"{name}-start")
        done = run(python, corpora[num], scratch / name)
        peers[name] = {
            "documents": num,
            "cpu_s": done.cpu_seconds - starting.cpu_seconds,
            "start_cpu_s": starting.cpu_seconds,
            "peak_bytes": done.peak_bytes,
        }
        if name == "rensa":
            peers[name]["loop_cpu_s"] = last_numbers(done)[0]
            peers[name]["kept"] = last_numbers(done)[2]
    per_document = ours[sizes.job]["cpu_s"] / sizes.job
    ratios = {f"job_ratio_to_{name}": peer["cpu_s"] / peer["documents"] / per_document for name, peer in peers.items()}
    growth = [(num, ours[num]["cpu_s"]) for num in sizes.growth]
    return {
        "jobs": {str(num): job for num, job in ours.items()},
        "peers": peers,
        **ratios,
        "job_ratio_to_rensa_loop": peers["rensa"]["loop_cpu_s"] / sizes.job / per_document,
        "job_cpu_seconds": ours[sizes.job]["cpu_s"],
        "job_exponent": slope([math.log(num) for num, _ in growth], [math.log(seconds) for _, seconds in growth]),
        "job_peak_bytes": {str(num): job["peak_bytes"] for num, job in ours.items()},
    }


def slope(x: list[float], y: list[float]) -> float:
    """Return the slope of the line of least squares."""
    return float(np.polyfit(x, y, 1)[0])


def missed(result: dict[str, Any]) -> list[str]:
    """Say on standard error which bars are missed, and return their names."""
    names = [name for name, bar in BARS.items() if result[name] < bar]
    for name in names:
        print(f"missed: {name} is {result[name]:.2f}, the bar is {BARS[name]:g}", file=sys.stderr)
    if result["job_exponent"] > MOST_EXPONENT:
        names.append("job_exponent")
        print(f"missed: job_exponent is {result['job_exponent']:.2f}, at most {MOST_EXPONENT}", file=sys.stderr)
    return names


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"{'text to signatures':28}{'docs/CPU s':>12}")
    for name, rate in result["signature_documents_per_cpu_second"].items():
        print(f"{name:28}{rate:12,.0f}")
    print(f"\n{'the job':28}{'documents':>12}{'CPU s':>10}{'docs/CPU s':>12}{'peak MB':>10}{'kept':>10}")
    rows = [("ours", job) for job in result["jobs"].values()] + list(result["peers"].items())
    for name, row in rows:
        rate, peak = row["documents"] / row["cpu_s"], row["peak_bytes"] / 1e6
        kept = f"{row['kept']:10,.0f}" if "kept" in row else ""
        print(f"{name:28}{row['documents']:12,}{row['cpu_s']:10.1f}{rate:12,.0f}{peak:10,.0f}{kept}")
    own = result["jobs"][str(result["sizes"]["job"])]
    print(
        f"\nours, {own['documents']:,} documents; removed: {own['removed']}; tokens apart: {own['tokens_cpu_s']:.1f} s"
    )
    for title in ("by_stage", "by_item"):
        print(", ".join(f"{name} {seconds:.2f}" for name, seconds in islice(own[title].items(), 25)))
    for name in (*BARS, "job_ratio_to_rensa_loop", "job_exponent"):
        print(f"{name} {result[name]:.2f}" + (f" (bar {BARS[name]:g})" if name in BARS else ""))


if __name__ == "__main__":
    main()
