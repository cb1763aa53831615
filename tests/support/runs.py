"""Runs of a recipe for tests: other batches, other file orders, other storages; and a small recipe on real data."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path

from pipelines.engines.datatrove import DatatroveEngine
from pipelines.engines.engine import Engine
from pipelines.plan import Plan, build_plan
from pipelines.recipe import load_recipe
from pipelines.run import RunResult, run_plan
from pipelines.sources.source import BatchLimits
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import Storage, StoredFile

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY / "../shared/data"

SMALL_RECIPE = """
name: laws
sources:
  web:
    reader: commoncrawl
    root: {shared}/warc
    include: ["commoncrawl/*.warc.gz", "commoncrawl/whirlwind.warc", "webarchive/dolma-*.warc.gz",
              "webarchive/aut-example.txt.warc.gz", "odd/warcio-*", "odd/resiliparse-c*",
              "odd/toimik-*.warc", "odd/ukwa-*", "odd/wac-*", "odd/pywb-*"]
    transforms:
      - extract
      - language
      - gopher_quality
  c4:
    reader: table
    schema: c4
    root: {shared}/web_text/c4_sample
    include: ["c4_demo.jsonl"]
    transforms: [language, gopher_quality: {{values: true}}]
  conversations:
    reader: conversations
    root: {shared}/instructions
    include: ["llama_factory/identity.json", "llama_factory/v1_sft_demo.jsonl", "self_instruct/data/*.jsonl"]
    transforms: [language]
  code:
    reader: code
    repository: cpython
    root: sysconfig:stdlib
    include: ["json/**/*.py", "email/**/*.py", "encodings/*.py", "this.py"]
  copies:
    reader: code
    repository: fork
    root: sysconfig:stdlib
    include: ["json/**/*.py", "this.py", "bisect.py"]
deduplicate: {{exact: all}}
output: {{buckets: 3, partition_by: [language]}}
"""
"""About 10 MB of real input: every kind of source, damaged archives, exact copies within and across sources, and a
filter that leaves its values."""


def small_recipe(folder: Path) -> Path:
    """Write the small recipe into a folder and return its path."""
    path = folder / "laws.yaml"
    path.write_text(SMALL_RECIPE.format(shared=SHARED.resolve()))
    return path


def tiny_recipe(folder: Path) -> Path:
    """Write a recipe of three small files into a folder and return its path."""
    path = folder / "tiny.yaml"
    path.write_text(
        f"""
sources:
  web:
    reader: commoncrawl
    root: {SHARED.resolve()}/warc
    include: ["commoncrawl/whirlwind.warc.gz", "odd/warcio-example-bad-non-chunked.warc.gz"]
    transforms: [extract]
  conversations:
    reader: conversations
    root: {SHARED.resolve()}/instructions
    include: ["llama_factory/identity.json"]
deduplicate: {{exact: all}}
output: {{buckets: 2}}
"""
    )
    return path


@dataclasses.dataclass(frozen=True, slots=True)
class ShuffledStorage(LocalStorage):
    """Lists files in an order of its own."""

    seed: int = 0

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        files = sorted(LocalStorage.list(self, prefix))
        random.Random(self.seed).shuffle(files)
        yield from files


def plan_of(recipe: Path, output: Storage, shuffle: int | None = None) -> Plan:
    """Build a plan, with the inputs listed in shuffled order where a seed is given."""
    plan = build_plan(load_recipe(recipe), output)
    if shuffle is not None:
        for chain_name, chain in dict(plan.stages[0].chains).items():
            shuffled = dataclasses.replace(chain, storage=ShuffledStorage(chain.storage.root, shuffle))
            plan.stages[0].chains[chain_name] = shuffled
    return plan


def run_recipe(
    recipe: Path, output: Path | Storage, *, workers: int = 1, limits: BatchLimits | None = None,
    shuffle: int | None = None, engine: Engine | None = None,
) -> RunResult:  # fmt: skip
    """Run a recipe and return its result; `limits` and `shuffle` change what must change nothing."""
    storage = LocalStorage(output) if isinstance(output, Path) else output
    with engine or DatatroveEngine(workers, limits=limits or BatchLimits()) as one:
        return run_plan(plan_of(recipe, storage, shuffle), storage, one, lambda *_: None)
