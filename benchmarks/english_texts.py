"""The English documents of the shared web texts, which several benchmarks and tests read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.schema import TURNS, VERDICT
from pipelines.transforms.language import Language

JSON_LINES = (
    "c4_sample/c4_all.jsonl",
    "dclm_quality_labels/agreement_data.jsonl",
    "dolma_cc_en_head/multiple_files/*.jsonl",
    "redpajama_pile_samples/data_mixture/data/*.jsonl",
)
PLAIN = ("nltk/inaugural/[12]*.txt", "nltk/state_union/[12]*.txt")


def read_english_texts(data: Path) -> dict[str, str]:
    """Return name (file and line) and text of every document that `language` takes for English, in order of names."""
    found = dict(_texts(data / "web_text"))
    batch = text_batch(list(found.values()))
    english = pc.equal(Language()(batch.drop_columns(["turns"])).column("language"), "en").fill_null(False).to_pylist()
    return {name: text for (name, text), keep in zip(found.items(), english, strict=True) if keep}


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    for pattern in JSON_LINES:
        for file in sorted(folder.glob(pattern)):
            with file.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    yield f"{file.relative_to(folder)}:{number}", json.loads(line)["text"]
    for pattern in PLAIN:
        for file in sorted(folder.glob(pattern)):
            yield str(file.relative_to(folder)), file.read_text(encoding="utf-8", errors="replace")


def text_batch(texts: list[str]) -> pa.RecordBatch:
    """Return the columns that filters of text read."""
    num = len(texts)
    return pa.RecordBatch.from_pydict(
        {
            "language": pa.nulls(num, pa.string()),
            "text": pa.array(texts, pa.large_string()),
            "turns": pa.nulls(num, TURNS),
            "verdict": pa.nulls(num, VERDICT),
        }
    )
