"""Speed and memory of the rules on URLs, rights and licences, in CPU seconds of this process.

    python benchmarks/url_rules.py [--domains 1000000] [--words 5000] [--json FILE]

Lists are made up of random syllables. URLs are those of the real pages in ../shared/data, repeated under hosts of which
one in fifty is listed. Memory is what the process grew by when the lists were read (kernels are loaded before), and
the most that it had until then. Pages are the real ones. Best of three.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.schema import CORE
from pipelines.sources.commoncrawl import CommonCrawl
from pipelines.sources.source import BatchLimits, RawAccount
from pipelines.storage.local import LocalStorage
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.licence import Licence
from pipelines.transforms.rights import Rights
from pipelines.transforms.url_rules import UrlRules

ROUNDS = 3
URLS = 100_000
SEED = 7
SYLLABLES = [
    consonant + vowel + end for consonant in "bdfgklmnprstvz" for vowel in "aeiou" for end in ("", "n", "r", "s")
]
ENDINGS = ("com", "org", "net", "de", "co.uk", "info", "ru", "fr", "com.br", "example")


def main() -> None:
    """Measure, print a table, and write it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[1] / "../shared/data")
    parser.add_argument("--domains", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=5_000)
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    pages = read_pages(arguments.data)
    with TemporaryDirectory() as folder:
        result = {**url_rates(Path(folder), pages, arguments.domains, arguments.words), **page_rates(pages)}
    for name, value in result.items():
        print(f"{name:36} {value:>14,.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def url_rates(folder: Path, pages: pa.RecordBatch, num_domains: int, num_words: int) -> dict[str, float]:
    """Return documents a CPU second against all lists, and what reading them takes."""
    rng = np.random.default_rng(SEED)
    domains = made_domains(rng, num_domains)
    lists = [written(folder / "domains", domains)]
    third = num_words // 3
    words = list(dict.fromkeys(made_names(rng, 2 * num_words, 2)))[:num_words]
    for place, name in enumerate(("strict", "hard", "soft")):
        chosen = [
            word + word[::-1] if name == "strict" else word for word in words[place * third : (place + 1) * third]
        ]
        lists.append(written(folder / name, chosen))
    blocked, strict, hard, soft = ((one,) for one in lists)
    rules = UrlRules((), blocked, strict, hard, soft)
    batch = made_documents(rng, pages, domains)
    small = (written(folder / "small", ["a.example", "a.example/b"]),)
    UrlRules(small, small, small, small, small)(batch)  # kernels
    before, start = resident_mb(), time.process_time()
    rules(batch.slice(0, 1))
    seconds, after = time.process_time() - start, resident_mb()
    best, dropped = timed(rules, batch)
    return {
        "entries": float(num_domains + num_words),
        "load_seconds": seconds,
        "load_grew_mb": after - before,
        "load_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "url_documents_per_second": batch.num_rows / best,
        "url_dropped_share": 100 * dropped / batch.num_rows,
    }


def page_rates(pages: pa.RecordBatch) -> dict[str, float]:
    """Return MB of payload a CPU second that rights and licences are looked for in, and of text for licences."""
    sizes = sum(len(page) for page in pages.column("content").to_pylist())
    texts = pa.array(
        [page.decode("utf-8", "replace") for page in pages.column("content").to_pylist()], pa.large_string()
    )
    text_place = pages.schema.get_field_index("text")
    as_text = pages.set_column(text_place, CORE.field("text"), texts)
    as_text = as_text.set_column(
        pages.schema.get_field_index("content"), CORE.field("content"), pa.nulls(len(texts), pa.large_binary())
    )
    rights, _ = timed(Rights(), pages)
    licence, _ = timed(Licence(), pages)
    heads, _ = timed(Licence(), as_text)
    return {
        "pages": float(pages.num_rows),
        "rights_mb_per_second": sizes / rights / 1e6,
        "licence_page_mb_per_second": sizes / licence / 1e6,
        "licence_texts_per_second": pages.num_rows / heads,
    }


def timed(transform: Callable[[pa.RecordBatch], pa.RecordBatch], batch: pa.RecordBatch) -> tuple[float, int]:
    """Return the CPU seconds of the best round, and how many rows were dropped."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        result = transform(batch)
        best = min(best, time.process_time() - start)
    return best, result.num_rows - result.column("verdict").null_count


def read_pages(data: Path) -> pa.RecordBatch:
    """Return the core columns of real pages."""
    storage = LocalStorage(data / "warc/built_from_real_html")
    source = CommonCrawl(name="web", include=("trafilatura-eval-*.warc.gz",))
    batches = [
        batch.select(CORE.names)
        for split in source.splits(storage)
        for batch in source.read(split, storage, BatchLimits(), RawAccount())
    ]
    return pa.concat_batches(batches)


def made_names(rng: np.random.Generator, num: int, syllables: int) -> list[str]:
    """Return random names."""
    chosen = rng.integers(0, len(SYLLABLES), (num, syllables + 1))
    return ["".join(SYLLABLES[k] for k in row[: syllables + int(row[-1]) % 2]) for row in chosen]


def made_domains(rng: np.random.Generator, num: int) -> list[str]:
    """Return different domains."""
    names = made_names(rng, num, 3)
    return [f"{name}{k % 1000}.{ENDINGS[k % len(ENDINGS)]}" for k, name in enumerate(names)]


def made_documents(rng: np.random.Generator, pages: pa.RecordBatch, domains: list[str]) -> pa.RecordBatch:
    """Return documents with real URLs' paths; one host in fifty is below a listed domain."""
    paths = [url.partition("://")[2] for url in pages.column("url").to_pylist()]
    listed = rng.integers(0, len(domains), URLS)
    urls = [
        f"https://www.{domains[listed[k]]}/{paths[k % len(paths)].partition('/')[2]}"
        if k % 50 == 0
        else f"http://x{k}.{paths[k % len(paths)]}"
        for k in range(URLS)
    ]
    rows: dict[str, Any] = {field.name: pa.nulls(URLS, field.type) for field in CORE}
    rows["url"] = pa.array(urls, pa.string())
    return pa.RecordBatch.from_arrays(
        list(rows.values()), schema=pa.schema([field.with_nullable(True) for field in CORE])
    )


def written(path: Path, entries: list[str]) -> GivenFile:
    """Write a list."""
    path.write_text("\n".join(entries) + "\n")
    return GivenFile.of(path)


def resident_mb() -> float:
    """Return the resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
