"""Speed of the filters of text on real English documents, beside datatrove's chain, in CPU seconds of one run.

    python benchmarks/filters.py [--data ../shared/data] [--json FILE] [--quick]

Ours: Gopher quality, Gopher repetition, C4, FineWeb and RefinedWeb's lines, each over all documents, every value
computed and left as a column, nothing dropped, best of `ROUNDS`. datatrove: its chain of Gopher repetition, Gopher
quality, C4 (without the rule of end marks) and FineWeb, which stops at the first filter that drops a document, once.
`ratio_to_datatrove` is in documents a second.

Then `pii` and `quality` on the same documents and `code_quality` on the standard library's source (their qualities:
pii.py, quality_labels.py). Hostile texts are timed at four sizes; the exponent is the slope of log time over log
size: 1 is linear.

It ends with exit status 1 where a bar of `BARS` is missed.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from english_texts import read_english_texts, text_batch

from pipelines.quality_classifier.features import list_features
from pipelines.quality_classifier.training import fit
from pipelines.transforms.c4 import C4Quality
from pipelines.transforms.code_quality import CodeQuality
from pipelines.transforms.fineweb import FineWebQuality
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.gopher import GopherQuality
from pipelines.transforms.gopher_repetition import GopherRepetition
from pipelines.transforms.pii import Pii
from pipelines.transforms.quality import Quality
from pipelines.transforms.refinedweb_lines import RefinedWebLines

FAMILIES = (GopherQuality, GopherRepetition, C4Quality, FineWebQuality, RefinedWebLines)
BARS = {"ratio_to_datatrove": 100.0, "mb_per_cpu_second": 15.0}
ROUNDS = 7
BITS = 20
"""Of the classifier's buckets, as `headrace train-classifier` has them."""
MEGABYTES = (1, 2, 4, 8)

HOSTILE: dict[str, str] = {
    "one word": "a",
    "white space": " ",
    "no-break spaces": "\xa0",
    "line breaks": "\n",
    "one letter a word": "a ",
    "the same line": "the same line again.\n",
    "NULs": "\0",
    "bidi and zero width": "\u202e\u200b\u2066\ufeff",
    "unassigned code points": "\U000e0fff\u0378",
    "brackets": "[1][",
    "curly brackets": "{ ",
    "dots": "...",
    "marks": "e\u0301\u0301\u0301",
    "Han": "水は高い所から",
    "full stops": "a. ",
    "quotation marks": "\"'",
}
"""What a text of a megabyte repeats."""


def main() -> None:
    """Measure, print, write JSON if asked to, and fail if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[1] / "../shared/data")
    parser.add_argument("--quick", action="store_true", help="a tenth of the documents, hostile texts of 1/8 the size")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    texts = list(read_english_texts(arguments.data).values())
    sizes = MEGABYTES
    if arguments.quick:
        texts, sizes = texts[::10], tuple(size / 8 for size in MEGABYTES)
    result = measure(texts)
    result["others"] = others(texts)
    result["exponents"] = exponents(sizes)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    missed = [name for name, bar in BARS.items() if result[name] < bar]
    for name in missed:
        print(f"missed: {name} is {result[name]:.1f}, the bar is {BARS[name]:g}", file=sys.stderr)
    sys.exit(bool(missed) and not arguments.quick)


def measure(texts: list[str]) -> dict[str, Any]:
    """Return rates of each family, of all together, and of datatrove's chain."""
    batch, num_bytes = text_batch(texts), sum(len(text.encode()) for text in texts)
    families = {}
    for family in FAMILIES:
        transform = family(values=True, drop=False)
        families[family.name] = best_seconds(lambda transform=transform: transform(batch))
    ours = sum(families.values())
    theirs = datatrove_seconds(texts)
    return {
        "documents": len(texts),
        "megabytes": num_bytes / 1e6,
        "families": {name: rates(seconds, len(texts), num_bytes) for name, seconds in families.items()},
        "together": rates(ours, len(texts), num_bytes),
        "datatrove": rates(theirs, len(texts), num_bytes),
        "mb_per_cpu_second": num_bytes / ours / 1e6,
        "ratio_to_datatrove": theirs / ours,
    }


def others(texts: list[str]) -> dict[str, dict[str, float]]:
    """Return rates of the transforms that have benchmarks of their own for their quality."""
    batch, num_bytes = text_batch(texts), sum(len(text.encode()) for text in texts)
    library = Path(sysconfig.get_path("stdlib"))
    files = [file for file in sorted(library.rglob("*.py")) if "site-packages" not in file.parts]
    source = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    paths = pa.array([str(file.relative_to(library)) for file in files], pa.string())
    code = text_batch(source).append_column("origin_path", paths)
    with tempfile.TemporaryDirectory() as folder:
        quality = Quality(model=any_model(texts, Path(folder, "model")), min_score=5_000)
        return {
            "pii": rates(best_seconds(lambda: Pii()(batch)), len(texts), num_bytes),
            "quality": rates(best_seconds(lambda: quality(batch)), len(texts), num_bytes),
            "code_quality": rates(
                best_seconds(lambda: CodeQuality()(code)), len(source), sum(len(text.encode()) for text in source)
            ),
        }


def any_model(texts: list[str], path: Path) -> GivenFile:
    """Write a classifier that tells nothing in particular: what it has learned does not change its speed."""
    rows = list_features(pa.array(texts[:200], pa.large_string()), BITS)
    path.write_bytes(fit(rows, np.arange(len(texts[:200])) % 2 == 0, BITS, {}).pack())
    return GivenFile.of(path)


def rates(seconds: float, num_documents: int, num_bytes: int) -> dict[str, float]:
    """Return documents and MB (10^6 bytes of UTF-8) a CPU second."""
    return {
        "cpu_s": seconds,
        "documents_per_s": num_documents / seconds,
        "mb_per_s": num_bytes / seconds / 1e6,
    }


def best_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of this process for one call, best of `ROUNDS` after one that loads and compiles."""
    work()
    seconds = []
    for _ in range(ROUNDS):
        gc.collect()
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def datatrove_seconds(texts: list[str]) -> float:
    """Return the CPU seconds of datatrove's chain over the texts, its tokenizer loaded before."""
    chain = (
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    )

    def run(some: list[str]) -> None:
        for text in some:
            document = Document(text=text, id="")
            all(one.filter(document) is True for one in chain)

    run(texts[:20])
    start = time.process_time()
    run(texts)
    return time.process_time() - start


def exponents(sizes: tuple[float, ...]) -> dict[str, dict[str, float]]:
    """Return, by hostile text and family, the slope of log time over log size."""
    found: dict[str, dict[str, float]] = {}
    for name, unit in HOSTILE.items():
        whole = unit * (int(sizes[-1] * 1e6) // len(unit.encode()))
        found[name] = {}
        for family in FAMILIES:
            transform = family(values=True, drop=False)
            seconds = []
            for size in sizes:
                batch = text_batch([whole[: int(len(whole) * size / sizes[-1])]])
                transform(batch)
                start = time.process_time()
                transform(batch)
                seconds.append(time.process_time() - start)
            found[name][family.name] = slope([math.log(size) for size in sizes], [math.log(one) for one in seconds])
    return found


def slope(x: list[float], y: list[float]) -> float:
    """Return the slope of the line of least squares."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    across = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return across / sum((a - mean_x) ** 2 for a in x)


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"{result['documents']} English documents, {result['megabytes']:.1f} MB")
    print(f"{'':26}{'CPU s':>9}{'docs/s':>10}{'MB/s':>8}")
    rows = {
        **result["families"],
        "all five": result["together"],
        "datatrove, chain of four": result["datatrove"],
        **result["others"],
    }
    for name, row in rows.items():
        print(f"{name:26}{row['cpu_s']:9.3f}{row['documents_per_s']:10,.0f}{row['mb_per_s']:8.2f}")
    print(f"ratio_to_datatrove {result['ratio_to_datatrove']:.0f}, mb_per_cpu_second {result['mb_per_cpu_second']:.1f}")
    print("\nExponents of time over size, hostile texts:")
    names = list(result["families"])
    print(f"{'':26}" + "".join(f"{name.partition('_')[0] + '_' + name.partition('_')[2][:8]:>20}" for name in names))
    for text, row in result["exponents"].items():
        print(f"{text:26}" + "".join(f"{row[name]:20.2f}" for name in names))


if __name__ == "__main__":
    main()
