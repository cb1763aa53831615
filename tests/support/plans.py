"""Token shards and plans made on the spot: any number of documents of any lengths, in the frozen formats."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash
import yaml

from mixtures.mixture import load_mixture
from mixtures.planner import plan_mixture, write_plan
from tokenizer.chat import LOSS
from tokenizer.encodings import CL100K_BASE
from tokenizer.manifest import LedgerReference, Manifest, ShardEntry
from tokenizer.shards import GIVEN, SUFFIXES, ShardWriter

Spans = list[tuple[int, int, int]] | None
"""(start, end, weight) of a document's loss spans; None: every token bears loss."""


def made_documents(source: str, lengths: Sequence[int], seed: int = 0) -> dict[bytes, np.ndarray]:
    """Return ids of documents of these lengths (end-of-text included), by doc_id, in canonical order."""
    random = np.random.default_rng([seed, len(lengths)])
    documents = {}
    for number, length in enumerate(lengths):
        ids = random.integers(0, 50_000, length).astype(np.int32)
        ids[-1] = CL100K_BASE.end_of_text
        documents[xxhash.xxh3_128_digest(f"{source}\0{number}")] = ids
    return dict(sorted(documents.items()))


def write_tokens(
    output: Path,
    source: str,
    documents: dict[bytes, np.ndarray],
    shards: int = 2,
    loss: Sequence[Spans] | None = None,
    hosts: Sequence[str | None] | None = None,
) -> Path:
    """Write documents as token shards of a run in `output` (ledger included) and return the manifest's path."""
    folder = output / "tokens" / source
    folder.mkdir(parents=True)
    ledger = output / "ledger.parquet"
    if not ledger.exists():
        ledger.write_bytes(b"a ledger")
    ids = list(documents)
    bounds = [k * len(ids) // shards for k in range(shards + 1)]
    entries = []
    for shard in range(shards):
        chosen = range(bounds[shard], bounds[shard + 1])
        name = f"{shard:05d}"
        files = [(folder / f"{name}{suffix}").open("wb") for suffix in SUFFIXES.values()]
        writer = ShardWriter(*files, CL100K_BASE)
        columns = {
            "doc_id": [ids[place] for place in chosen],
            "origin_path": [f"{source}.warc"] * len(chosen),
            "origin_offset": [1000 * place for place in chosen],
            "origin_length": [100] * len(chosen),
            "url": [None] * len(chosen),
            "host": [None if hosts is None else hosts[place] for place in chosen],
            "language": ["en"] * len(chosen),
            "licence": [None] * len(chosen),
            "loss": [None if loss is None else _spans(loss[place]) for place in chosen],
            "ids": [documents[ids[place]] for place in chosen],
        }
        arrays = [pa.array(columns[field.name], LOSS if field.name == "loss" else field.type) for field in GIVEN]
        if len(chosen):
            writer.write(pa.RecordBatch.from_arrays(arrays, schema=GIVEN))
        entries.append(ShardEntry.of(name, writer.close(), 4 * sum(len(documents[ids[place]]) for place in chosen)))
        for file in files:
            file.close()
    reference = LedgerReference("../../ledger.parquet", hashlib.sha256(ledger.read_bytes()).hexdigest())
    manifest = Manifest.build(source, {}, CL100K_BASE, reference, "0" * 32, entries)
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder / "manifest.json"


def _spans(spans: Spans) -> list[dict[str, int]] | None:
    return None if spans is None else [{"start": a, "end": b, "weight": weight} for a, b, weight in spans]


def write_mixture(folder: Path, sources: dict[str, tuple[Path, str]], **settings: object) -> Path:
    """Write a mixture of (manifest, class) by source, with the usual classes, and return its path."""
    mixture = {
        "name": "made",
        "seed": 1,
        "classes": {"text": {"epochs": 2}, "code": {"epochs": 4}, "instructions": {"epochs": 1, "cut": "never"}},
        "sources": {name: {"class": kind, "manifests": [str(path)]} for name, (path, kind) in sources.items()},
        "phases": [{"length": 64, "global_batch": 4}],
    } | settings
    path = folder / "mixture.yaml"
    path.write_text(yaml.safe_dump(mixture, sort_keys=False))
    return path


def write_planned(mixture: Path) -> Path:
    """Plan a mixture, in one process, and return the plan's path."""
    plan = plan_mixture(load_mixture(mixture), mixture.parent / "plan.json", 1, lambda *_: None)
    write_plan(plan)
    assert plan.path is not None
    return plan.path


def made_plan(folder: Path, *, length: int = 64, global_batch: int = 4, scale: int = 1, **settings: object) -> Path:
    """Make a plan of three sources (text, code, conversations with loss spans), about 100 * scale documents each."""
    random = np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {"web": "text", "code": "code", "talks": "instructions"}
    sources = {}
    for name, kind in kinds.items():
        lengths = np.minimum(random.lognormal(3, 1, 100 * scale).astype(int) + 2, 1000)
        documents = made_documents(name, lengths.tolist())
        loss = None if name != "talks" else [_half(len(ids)) for ids in documents.values()]
        sources[name] = (write_tokens(folder / "out", name, documents, loss=loss), kind)
    phases = [{"length": length, "global_batch": global_batch}]
    windows = {"documents": 40, "group": 2}
    return write_planned(write_mixture(folder, sources, **({"phases": phases, "windows": windows} | settings)))


def _half(length: int) -> Spans:
    """Return spans over a middle part (half weight) and the end (full weight) of a document."""
    return [(0, 1, 256)] if length < 6 else [(length // 3, length // 2, 128), (length - 2, length, 256)]
