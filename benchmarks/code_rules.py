"""Speed of the code rules on real source files, and on hostile ones, in CPU seconds of one run.

    python benchmarks/code_rules.py [--megabytes 64] [--json FILE] [--quick]

The files are those of the standard library and of the environment's packages, read as the reader `code` reads them;
every rule is measured and left as a column, nothing is dropped, best of `ROUNDS`. Hostile texts are timed at four
sizes under names that let every pass look at them; the exponent is the slope of log time over log size: 1 is linear.

It ends with exit status 1 where a bar of `BARS` is missed.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.schema import CORE
from pipelines.sources.source import BatchLimits, RawAccount
from pipelines.sources.source_code import Code
from pipelines.storage.local import LocalStorage
from pipelines.transforms.code_quality import CodeQuality

BARS = {"mb_per_cpu_second": 20.0, "worst_exponent": 1.5}
"""The first from below, the second from above."""
ROUNDS = 5
MEGABYTES = (1, 2, 4, 8)
PATHS = ("a.py", "a.html", "a.lua")

HOSTILE: dict[str, str] = {
    "one line": "x y ",
    "line breaks": "\n",
    "base64": "QUJD",
    "NULs": "\0",
    "bytes in hexadecimal": "41 ",
    "nearly bytes in hexadecimal": "41 4 ",
    "escapes": "\\u0041",
    "tags": "<a ",
    "ampersands": "&a",
    "quotation marks": "'",
    "bidi and zero width": "\u202e\u200b\u2066\ufeff",
    "unassigned code points": "\U000e0fff\u0378",
}
"""What a text of a megabyte repeats."""


def main() -> None:
    """Measure, print, write JSON if asked to, and fail if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=64, help="how much source code is read")
    parser.add_argument("--quick", action="store_true", help="4 MB of code, hostile texts of 1/8 the size")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    sizes = tuple(size / 8 for size in MEGABYTES) if arguments.quick else MEGABYTES
    result = measure(4 if arguments.quick else arguments.megabytes)
    result["exponents"] = {name: exponent(text, sizes) for name, text in HOSTILE.items()}
    result["worst_exponent"] = max(result["exponents"].values())
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    missed = [
        name
        for name, bar in BARS.items()
        if (result[name] < bar if name == "mb_per_cpu_second" else result[name] > bar)
    ]
    for name in missed:
        print(f"missed: {name} is {result[name]:.2f}, the bar is {BARS[name]:g}", file=sys.stderr)
    sys.exit(bool(missed) and not arguments.quick)


def measure(megabytes: int) -> dict[str, Any]:
    """Return the rate over source files, and how many each rule would drop."""
    batches = read_code(sysconfig.get_path("stdlib"), megabytes, ("*.py", "[a-r]*/**/*.py"))
    batches += read_code(sysconfig.get_path("purelib"), megabytes - sum(size_of(batch) for batch in batches) // 10**6)
    num_bytes = sum(size_of(batch) for batch in batches)
    transform = CodeQuality(values=True, drop=False)
    seconds = min(cpu_seconds(transform, batches) for _ in range(ROUNDS + 1))
    reasons: dict[str, int] = {}
    for batch in batches:
        for verdict in CodeQuality()(batch).column("verdict").drop_null().to_pylist():
            reasons[verdict["reason"]] = reasons.get(verdict["reason"], 0) + 1
    return {
        "files": sum(batch.num_rows for batch in batches),
        "megabytes": num_bytes / 1e6,
        "cpu_s": seconds,
        "mb_per_cpu_second": num_bytes / seconds / 1e6,
        "dropped": dict(sorted(reasons.items(), key=lambda item: -item[1])),
    }


def read_code(folder: str, megabytes: int, include: tuple[str, ...] = ("**/*",)) -> list[pa.RecordBatch]:
    """Return batches of files that could be read, until they hold that many megabytes."""
    source, storage = Code(name="code", include=include, repository="environment"), LocalStorage(Path(folder))
    batches: list[pa.RecordBatch] = []
    num_bytes = 0
    for split in source.splits(storage):
        for batch in source.read(split, storage, BatchLimits(), RawAccount()):
            if num_bytes >= megabytes * 10**6:
                return batches
            batches.append(batch.filter(batch.column("verdict").is_null()))
            num_bytes += size_of(batches[-1])
    return batches


def size_of(batch: pa.RecordBatch) -> int:
    """Return the bytes of a batch's texts."""
    return int(pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0)


def cpu_seconds(transform: CodeQuality, batches: list[pa.RecordBatch]) -> float:
    """Return the CPU seconds of this process for all batches."""
    gc.collect()
    start = time.process_time()
    for batch in batches:
        transform(batch)
    return time.process_time() - start


def exponent(unit: str, sizes: tuple[float, ...]) -> float:
    """Return the slope of log time over log size for texts that repeat the unit."""
    transform = CodeQuality(values=True, drop=False)
    seconds = []
    for size in sizes:
        text = unit * int(size * 1e6 / len(unit.encode()))
        batch = files_of([(path, text) for path in PATHS])
        seconds.append(min(cpu_seconds(transform, [batch]) for _ in range(3)))
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def files_of(files: list[tuple[str, str]]) -> pa.RecordBatch:
    """Return a batch of source files with nothing in it but paths and texts."""
    columns = {name: pa.nulls(len(files), CORE.field(name).type) for name in CORE.names}
    columns["origin_path"] = pa.array([path for path, _ in files], pa.string())
    columns["text"] = pa.array([text for _, text in files], pa.large_string())
    return pa.RecordBatch.from_pydict(columns)


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    print(f"{result['files']} files, {result['megabytes']:.1f} MB: {result['mb_per_cpu_second']:.1f} MB a CPU second")
    for reason, num in result["dropped"].items():
        print(f"  {num:6d}  {reason}")
    for name, value in result["exponents"].items():
        print(f"  exponent {value:5.2f}  {name}")


if __name__ == "__main__":
    main()
