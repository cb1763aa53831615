"""`pii` on real text: MB a CPU second, what it finds of what people labelled, and its time on hostile texts.

    python benchmarks/pii.py [--data ../shared/data] [--json FILE]

Rates are MB (10^6 bytes of UTF-8) a CPU second of this process, best of five, for one core: the pass alone (`scan`) and
the whole step (`pii`: columns and edited text too). The reference looks for e-mail addresses and IPv4 addresses alone,
with Python's `re`, one search a document. `exponent` is the slope of log time over log size from 1 to 8 MB.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import re
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import pii_quality as quality
import pyarrow as pa

from pipelines.pii.scan import scan
from pipelines.pii.tables import tables
from pipelines.schema import VERDICT
from pipelines.transforms.pii import Pii, read_only
from pipelines.transforms.words import text_view

ROUNDS = 5
EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
IPV4 = re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])")
SIZES = (1_000_000, 2_000_000, 4_000_000, 8_000_000)
UNITS = {
    "digits": "1234567890", "@": "@", "a@a": "a@a", "addresses": "a@a.de ", "-----BEGIN": "-----BEGIN ",
    "PEM headers": "-----BEGIN PRIVATE KEY-----", "phone words": "tel 1 ", "groups": "20aa:", "parentheses": "(",
    "+1": "+1", "digits and spaces": "1 ", "assignments": "password=", "tokens": "eyJ.", "keys": "sk-", "letters": "x",
    "NUL": "\0", "bidi": "\u202e", "spaces": " ",
}  # fmt: skip


def main() -> None:
    """Measure, print, and write it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=quality.DATA)
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    rates = {**speed("C4", read_c4(arguments.data)), **speed("Python source", read_source())}
    for name, rate in rates.items():
        print(f"{name:<44} {rate:>9.1f} MB/s")
    documents = [*quality.real(arguments.data), *quality.made()]
    scores = quality.scores(documents, quality.found(documents))
    print(quality.table(scores))
    hostile = {name: growth(unit) for name, unit in UNITS.items()}
    for name, (seconds, exponent) in hostile.items():
        print(f"{name:<20} {' '.join(f'{value:8.4f}' for value in seconds)} s, exponent {exponent:.2f}")
    if arguments.json:
        result = {
            "mb_per_cpu_second": rates,
            "quality": {f"{name} {kind}": vars(score) for (name, kind), score in scores.items()},
            "hostile": {
                name: {"cpu_s": seconds, "exponent": exponent} for name, (seconds, exponent) in hostile.items()
            },
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def read_c4(data: Path) -> list[str]:
    """Return English web texts."""
    with (data / "web_text/c4_sample/c4_all.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def read_source() -> list[str]:
    """Return the source files of this Python's standard library."""
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    return [file.read_text(encoding="utf-8", errors="replace") for file in files if "site-packages" not in file.parts]


def speed(name: str, texts: list[str]) -> dict[str, float]:
    """Return MB a CPU second of the pass, of the step and of the reference."""
    column = pa.array(texts, pa.large_string())
    batch = pa.RecordBatch.from_pydict({"text": column, "verdict": pa.nulls(len(texts), VERDICT)})
    offsets, data = map(read_only, text_view(column))
    size = len(data) / 1e6

    def reference() -> None:
        for text in texts:
            EMAIL.findall(text)
            IPV4.findall(text)

    return {
        f"{name}, scan": size / best(lambda: scan(offsets, data, tables())),
        f"{name}, pii": size / best(lambda: Pii()(batch)),
        f"{name}, re (e-mail and IPv4 alone)": size / best(reference),
    }


def best(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the least CPU seconds of some rounds, after one that loads and compiles."""
    work()
    seconds = []
    for _ in range(rounds):
        gc.collect()
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def growth(unit: str) -> tuple[list[float], float]:
    """Return CPU seconds at each size and the exponent of growth between the first and the last."""
    seconds = []
    for size in SIZES:
        text = pa.array([unit * (size // len(unit.encode()))], pa.large_string())
        offsets, data = map(read_only, text_view(text))
        seconds.append(best(lambda offsets=offsets, data=data: scan(offsets, data, tables()), 1))
    return seconds, math.log(seconds[-1] / seconds[0]) / math.log(SIZES[-1] / SIZES[0])


if __name__ == "__main__":
    main()
