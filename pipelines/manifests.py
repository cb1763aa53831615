"""Manifests of a run: one for every partition of every source, from what the token shard sinks committed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pipelines.commit import FileRecord
from pipelines.plan import Plan
from pipelines.storage.storage import Storage
from tokenizer.encodings import encoding_named
from tokenizer.manifest import LedgerReference, Manifest, ShardEntry, ShardFiles
from tokenizer.shards import FileSummary

MANIFEST_FILE = "manifest.json"
LEDGER_FILE = "ledger.parquet"


def write_manifests(plan: Plan, files: Sequence[FileRecord], ledger_sha256: str, output: Storage) -> list[str]:
    """Write a manifest beside the shards of every partition (an empty one for an empty source); returns their paths."""
    manifests = build_manifests(plan, files, ledger_sha256)
    for path, manifest in manifests.items():
        output.replace(path, manifest.to_json().encode())
    return list(manifests)


def build_manifests(plan: Plan, files: Sequence[FileRecord], ledger_sha256: str) -> dict[str, Manifest]:
    """Return the manifests by their paths; `files` are those that the token shard sinks committed."""
    manifests, fingerprint = {}, plan.fingerprint
    for folder, records in sorted(_shards_by_folder(plan, files).items()):
        shards = sorted((_entry(record) for record in records), key=lambda shard: shard.first_doc_id or "")
        ledger = LedgerReference("../" * (folder.count("/") + 1) + LEDGER_FILE, ledger_sha256)
        partition = records[0].detail["partition"] if records else {}
        encoding = encoding_named(plan.recipe.tokenizer.encoding)
        source = folder.split("/")[1]
        manifest = Manifest.build(source, partition, encoding, ledger, fingerprint, shards)
        manifests[f"{folder}/{MANIFEST_FILE}"] = manifest
    return manifests


def _shards_by_folder(plan: Plan, files: Sequence[FileRecord]) -> dict[str, list[FileRecord]]:
    shards: dict[str, list[FileRecord]] = defaultdict(list)
    for file in files:
        if "shard" in file.detail:
            shards[file.path.rpartition("/")[0]].append(file)
    present = {file.source for some in shards.values() for file in some}
    for entry in plan.recipe.sources:
        if entry.source.name not in present:
            shards[f"tokens/{entry.source.name}"] = []
    return shards


def _entry(record: FileRecord) -> ShardEntry:
    """Return the manifest's entry of a shard from the record of its `.bin` file."""
    data = dict(record.detail["shard"])
    files = {name: FileSummary(**summary) for name, summary in data.pop("files").items()}
    return ShardEntry(**data, files=ShardFiles(**files))
