"""Our deduplication of Parquet files through the engine, in one process: CPU seconds by stage, and what was removed.

    python benchmarks/dedup_run.py FOLDER OUTPUT [--warm-up FOLDER] [--threshold 7500]

FOLDER holds files with the columns id and text. The recipe is the main job's: exact copies by text, near-duplicates by
`PRESET`, and documents, rejects, edges, clusters and the ledger on disk. The last line printed is JSON. `cpu_s` is that
of the run (all threads of this process, one worker): the interpreter, imports and, with `--warm-up`, loading compiled
kernels come before. What encodes and writes tokens is no part of deduplication; it is counted apart, `tokens_cpu_s`.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from main_job import profile, run_once

from pipelines.recipe import load_recipe
from pipelines.sinks.tables import read_table
from pipelines.storage.local import LocalStorage

PRESET = "fineweb"
TOKENS = ("encode", "shards")
"""What `main_job` calls the work on tokens."""
RECIPE = """\
name: deduplication
sources:
  web:
    reader: table
    root: {folder}
    include: ["*.parquet"]
    id: id
deduplicate: {{exact: all, near: {{preset: {preset}, threshold: {threshold}}}}}
tokenizer: {{encoding: cl100k_base, encoder: gigatoken}}
output: {{buckets: 2}}
"""


def main() -> None:
    """Run, and print what it cost as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path, help="a new folder")
    parser.add_argument("--warm-up", type=Path, help="files that are deduplicated before, into OUTPUT/warm-up")
    parser.add_argument("--threshold", type=int, default=7_500, help="of Jaccard similarity, in 1/10,000")
    arguments = parser.parse_args()
    arguments.output.mkdir()
    if arguments.warm_up:
        recipe = write_recipe(arguments.output / "warm-up.yaml", arguments.warm_up, arguments.threshold)
        run_once(load_recipe(recipe), arguments.output / "warm-up", workers=1)
    recipe = write_recipe(arguments.output / "recipe.yaml", arguments.folder, arguments.threshold)
    found = profile(load_recipe(recipe), arguments.output / "run")
    tokens = sum(seconds for (_, item), seconds in found.seconds.items() if item in TOKENS)
    removed = reasons(LocalStorage(arguments.output / "run"))
    print(
        json.dumps(
            {
                "cpu_s": found.total - tokens,
                "tokens_cpu_s": tokens,
                "by_stage": found.by_stage(),
                "by_item": found.by_item(),
                "documents": found.documents_read,
                "kept": found.documents,
                "removed": removed,
            }
        )
    )


def write_recipe(path: Path, folder: Path, threshold: int) -> Path:
    """Write the recipe for the files of a folder."""
    path.write_text(RECIPE.format(folder=json.dumps(str(folder.absolute())), preset=PRESET, threshold=threshold))
    return path


def reasons(output: LocalStorage) -> dict[str, int]:
    """Return how many documents the last stage rejected, by reason."""
    counted: Counter[str] = Counter()
    for file in output.list("stages"):
        if "/rejects/" in file.path and file.path.endswith(".parquet"):
            counted.update(row["reason"] for row in read_table(output, file.path, ["verdict"])["verdict"].to_pylist())
    return dict(counted)


if __name__ == "__main__":
    main()
