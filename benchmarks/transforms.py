"""Speed of extract, language and gopher_quality on real data, beside their peers, in CPU seconds of one run.

    python benchmarks/transforms.py [--data ../shared/data] [--documents N] [--json FILE]

Rates are documents and MB (10^6 bytes of input: HTML or UTF-8 text) a CPU second of this process, best of three; a peer
that is much slower gets a sample. `ratio` is ours over the peer's rate, in bytes.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from fastwarc.warc import ArchiveIterator, WarcRecordType
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from resiliparse.extract.html2text import extract_plain_text

from pipelines.schema import VERDICT
from pipelines.transforms.extract import Extract
from pipelines.transforms.gopher import GopherQuality
from pipelines.transforms.language import Language

ROUNDS = 3
SLOW_SAMPLE = 200
"""Documents for peers that take milliseconds each."""


def main() -> None:
    """Measure, print a table, and write it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[1] / "../shared/data")
    parser.add_argument("--documents", type=int, default=1_780, help="how many texts (pages: a third of that)")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    texts, pages = read_texts(arguments.data, arguments.documents), read_pages(arguments.data, arguments.documents // 3)
    result = {**language_rates(texts), **gopher_rates(texts), **extract_rates(pages)}
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def read_texts(data: Path, num: int) -> list[str]:
    """Return web texts (C4)."""
    with (data / "web_text/c4_sample/c4_all.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(num), strict=False)]


def read_pages(data: Path, num: int) -> list[bytes]:
    """Return real news and blog pages, most of them German or English."""
    pages: list[bytes] = []
    for file in sorted((data / "warc/built_from_real_html").glob("trafilatura-*.warc.gz")):
        with file.open("rb") as stream:
            records = ArchiveIterator(stream, record_types=WarcRecordType.response)
            pages += [record.reader.read() for record in records]
    return pages[:num]


def language_rates(texts: list[str]) -> dict[str, dict[str, float]]:
    """Measure `language` beside py3langid's classify on the same model."""
    peer = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    batch, sizes = text_batch(texts), [len(text.encode()) for text in texts]
    ours = rate(lambda: Language()(batch), sizes)
    theirs = rate(lambda: [peer.classify(text) for text in texts[:SLOW_SAMPLE]], sizes[:SLOW_SAMPLE])
    return {"language": ours, "language: py3langid classify": compared(theirs, ours)}


def gopher_rates(texts: list[str]) -> dict[str, dict[str, float]]:
    """Measure `gopher_quality` beside datatrove's filter."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import GopherQualityFilter

    peer, batch, sizes = GopherQualityFilter(), text_batch(texts), [len(text.encode()) for text in texts]
    ours = rate(lambda: GopherQuality()(batch), sizes)
    documents = [Document(text=text, id="") for text in texts[:SLOW_SAMPLE]]
    theirs = rate(lambda: [peer.filter(document) for document in documents], sizes[:SLOW_SAMPLE])
    return {"gopher_quality": ours, "gopher_quality: datatrove GopherQualityFilter": compared(theirs, ours)}


def extract_rates(pages: list[bytes]) -> dict[str, dict[str, float]]:
    """Measure `extract` beside bare calls of libraries on decoded pages (in one process; the transform has a child)."""
    from trafilatura import extract

    sizes = [len(page) for page in pages]
    decoded = [page.decode("utf-8", "replace") for page in pages]
    few = slice(0, SLOW_SAMPLE // 2)
    ours = rate(lambda: Extract()(page_batch(pages)), sizes)
    options: dict[str, Any] = {"main_content": True, "preserve_formatting": True, "alt_texts": False, "comments": False}
    fast = rate(lambda: [extract_plain_text(page, **options) for page in decoded], sizes)
    slow = rate(
        lambda: [extract(page, favor_precision=True, include_comments=False) for page in decoded[few]], sizes[few]
    )
    return {
        "extract": ours,
        "extract: resiliparse": compared(fast, ours),
        "extract: trafilatura, precision mode": compared(slow, ours),
    }


def text_batch(texts: list[str]) -> pa.RecordBatch:
    """Return the columns that the text rules read."""
    num = len(texts)
    columns = {"language": pa.nulls(num, pa.string()), "text": pa.array(texts, pa.large_string())}
    return pa.RecordBatch.from_pydict({**columns, "verdict": pa.nulls(num, VERDICT)})


def page_batch(pages: list[bytes]) -> pa.RecordBatch:
    """Return the columns that extraction reads."""
    num = len(pages)
    return pa.RecordBatch.from_pydict(
        {
            "host": pa.nulls(num, pa.string()),
            "content": pa.array(pages, pa.large_binary()),
            "text": pa.nulls(num, pa.large_string()),
            "verdict": pa.nulls(num, VERDICT),
            "media_type": pa.array(["text/html"] * num),
            "charset": pa.nulls(num, pa.string()),
        }
    )


def rate(work: Callable[[], object], sizes: list[int]) -> dict[str, float]:
    """Return documents and MB a CPU second, best of `ROUNDS` after one round that loads and compiles."""
    work()
    seconds = []
    for _ in range(ROUNDS):
        gc.collect()
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    best = min(seconds)
    return {
        "cpu_s": best,
        "documents": len(sizes),
        "documents_per_s": len(sizes) / best,
        "mb_per_s": sum(sizes) / best / 1e6,
    }


def compared(peer: dict[str, float], ours: dict[str, float]) -> dict[str, float]:
    """Return the peer's rates with how many times faster ours are."""
    return {**peer, "ratio": ours["mb_per_s"] / peer["mb_per_s"]}


def show(result: dict[str, dict[str, float]]) -> None:
    """Print one line for each measurement."""
    print(f"{'':46}{'documents':>10}{'CPU s':>9}{'docs/s':>10}{'MB/s':>8}{'ours/peer':>11}")
    for name, row in result.items():
        ratio = f"{row['ratio']:10.2f}x" if "ratio" in row else ""
        print(
            f"{name:46}{row['documents']:10}{row['cpu_s']:9.3f}{row['documents_per_s']:10,.0f}{row['mb_per_s']:8.1f}{ratio:>11}"
        )


if __name__ == "__main__":
    main()
