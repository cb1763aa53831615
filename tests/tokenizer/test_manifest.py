"""Manifests: canonical JSON, checked whole at load, every wrong value refused with its file and key."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tokenizer.encodings import CL100K_BASE
from tokenizer.manifest import LedgerReference, Manifest, ManifestError, ShardEntry
from tokenizer.shards import GIVEN, SUFFIXES, ShardError, ShardWriter
from tokenizer.strict_json import JsonError

END = CL100K_BASE.end_of_text


def make_shard(folder: Path, name: str, numbers: list[int]) -> ShardEntry:
    rows = [
        {
            "doc_id": number.to_bytes(16, "big"),
            "origin_path": "a",
            "origin_offset": 0,
            "origin_length": 1,
            "ids": [5, END],
        }
        for number in numbers
    ]
    files = {kind: io.BytesIO() for kind in SUFFIXES}
    writer = ShardWriter(files["bin"], files["idx"], files["docs"], CL100K_BASE)
    writer.write(pa.RecordBatch.from_pylist(rows, GIVEN))
    summary = writer.close()
    for kind, suffix in SUFFIXES.items():
        (folder / f"{name}{suffix}").write_bytes(files[kind].getvalue())
    return ShardEntry.of(name, summary, text_bytes=len(numbers))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    entries = [make_shard(tmp_path, "shard-00000", [1, 2, 3]), make_shard(tmp_path, "shard-00001", [])]
    ledger = LedgerReference("../ledger.json", hashlib.sha256(b"").hexdigest())
    return Manifest.build("web", {"language": "de", "licence": None}, CL100K_BASE, ledger, "0123456789abcdef", entries)


@pytest.fixture
def file(tmp_path: Path, manifest: Manifest) -> Path:
    path = tmp_path / "manifest.json"
    path.write_text(manifest.to_json())
    return path


def test_round_trip(file: Path, manifest: Manifest) -> None:
    loaded = Manifest.load(file)
    assert loaded == manifest
    assert loaded.to_json() == manifest.to_json() == file.read_text()
    assert loaded.path == file
    assert loaded.encoding is CL100K_BASE


def test_content_by_hand(manifest: Manifest) -> None:
    data = json.loads(manifest.to_json())
    tokenizer = {
        "name": "cl100k_base",
        "sha256": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        "vocabulary": 100_352,
        "end_of_text": 100_257,
        "roles": {"end_of_turn": 100_277, "system": 100_278, "user": 100_279, "assistant": 100_280, "tool": 100_281},
        "dtype": "int32",
    }
    assert data["tokenizer"] == tokenizer
    assert data["format"] == "headrace-tokens"
    assert data["version"] == 1
    assert data["partition"] == {"language": "de", "licence": None}
    assert data["totals"] == {"shards": 2, "documents": 3, "tokens": 6, "loss_tokens": 6, "text_bytes": 3}
    assert data["shards"][0]["first_doc_id"] == "0" * 31 + "1"
    assert data["shards"][0]["last_doc_id"] == "0" * 31 + "3"
    assert data["shards"][1]["first_doc_id"] is None
    assert data["shards"][0]["files"]["bin"]["bytes"] == 24
    hashes = [[shard["files"][name]["sha256"] for name in ("bin", "idx", "docs")] for shard in data["shards"]]
    identity = json.dumps([tokenizer, hashes], sort_keys=True, separators=(",", ":"))
    assert data["content_hash"] == hashlib.sha256(identity.encode()).hexdigest()
    text = manifest.to_json()
    assert text.endswith("}\n")
    assert text == json.dumps(data, sort_keys=True, indent=2) + "\n"


def test_opens_and_verifies_shards(file: Path) -> None:
    loaded = Manifest.load(file)
    assert loaded.open_shard(0).ids(1).tolist() == [5, END]
    assert len(loaded.open_shard(1)) == 0
    loaded.verify_shard(0)
    loaded.verify_shard(1)


def test_altered_shards_are_found(file: Path, tmp_path: Path, manifest: Manifest) -> None:
    loaded = Manifest.load(file)
    tokens = tmp_path / "shard-00000.bin"
    good = tokens.read_bytes()
    tokens.write_bytes(b"\x06" + good[1:])
    loaded.open_shard(0)
    with pytest.raises(ManifestError, match="shard-00000: holds"):
        loaded.verify_shard(0)
    make_shard(tmp_path, "shard-00000", [1, 2])
    with pytest.raises(ManifestError, match=r"are \(2, 4\), the manifest says \(3, 6\)"):
        loaded.open_shard(0)
    tokens.unlink()
    with pytest.raises(ShardError, match="shard-00000.bin"):
        loaded.open_shard(0)
    with pytest.raises(ManifestError, match="not loaded from a file"):
        manifest.open_shard(0)


Change = Callable[[dict[str, Any]], object]

CHANGES: dict[str, Change] = {
    "format": lambda data: data.update(format="other"),
    "version": lambda data: data.update(version=2),
    "top level": lambda data: data.update(extra=1),
    "top level ": lambda data: data.pop("recipe"),
    "tokenizer: ": lambda data: data["tokenizer"].pop("dtype"),
    "tokenizer.name: is 'gpt5'": lambda data: data["tokenizer"].update(name="gpt5"),
    "tokenizer.sha256: is '0000": lambda data: data["tokenizer"].update(sha256="0" * 64),
    "tokenizer.vocabulary: is 100277": lambda data: data["tokenizer"].update(vocabulary=100_277),
    "tokenizer.roles": lambda data: data["tokenizer"]["roles"].update(user=100_281),
    "tokenizer.dtype": lambda data: data["tokenizer"].update(dtype="uint16"),
    "totals.tokens: is True": lambda data: data["totals"].update(tokens=True),
    "totals.tokens: is -6": lambda data: data["totals"].update(tokens=-6),
    "totals.tokens: is '6'": lambda data: data["totals"].update(tokens="6"),
    "totals: ": lambda data: data["totals"].update(tokens=7),
    "source: is ''": lambda data: data.update(source=""),
    "partition.language: is 3": lambda data: data["partition"].update(language=3),
    "partition": lambda data: data.update(partition=[]),
    "ledger.path": lambda data: data["ledger"].update(path="/etc/passwd"),
    "ledger.path ": lambda data: data["ledger"].update(path=""),
    "ledger.sha256": lambda data: data["ledger"].update(sha256="xyz"),
    "recipe": lambda data: data.update(recipe="not hexadecimal"),
    "shards: is \\{": lambda data: data.update(shards={}),
    "shards\\[0\\].name: is '../shard-00000'": lambda data: data["shards"][0].update(name="../shard-00000"),
    "shards\\[0\\].name ": lambda data: data["shards"][0].update(name=".."),
    "shards\\[0\\].name  ": lambda data: data["shards"][0].update(name="a/b"),
    "shards: ": lambda data: data["shards"][1].update(name="shard-00000"),
    "shards\\[0\\].files.idx.sha256": lambda data: data["shards"][0]["files"]["idx"].update(sha256="F" * 64),
    "shards\\[0\\].files.bin: ": lambda data: data["shards"][0]["files"]["bin"].update(size=1),
    "shards\\[0\\].tokens": lambda data: data["shards"][0].update(tokens=2),
    "shards\\[0\\].first_doc_id, last_doc_id": lambda data: data["shards"][0].update(first_doc_id=None),
    "shards\\[0\\].first_doc_id, last_doc_id ": lambda data: data["shards"][0].update(first_doc_id="f" * 32),
    "shards\\[1\\].first_doc_id, last_doc_id": lambda data: data["shards"][1].update(last_doc_id="f" * 32),
    "content_hash": lambda data: data.update(content_hash="0" * 64),
    "content_hash ": lambda data: data["shards"][0]["files"]["bin"].update(sha256="0" * 64),
    "content_hash  ": lambda data: data.pop("content_hash"),
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_wrong_value_is_refused_by_file_and_key(file: Path, key: str) -> None:
    data = json.loads(file.read_text())
    CHANGES[key](data)
    file.write_text(json.dumps(data))
    with pytest.raises(JsonError, match=f"manifest.json: {key.rstrip() if not key.endswith(': ') else key}"):
        Manifest.load(file)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "is not JSON"),
        ("[]", "top level"),
        ("\xff", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("9" * 5_000, "is not JSON"),
        ('{"a": 1, "a": 2}', "a key twice"),
        ('{"a": 1.0}', "the number 1.0"),
        ('{"a": NaN}', "the number NaN"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, cause: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(JsonError, match=f"manifest.json: .*{cause}"):
        Manifest.load(path)
    with pytest.raises(JsonError, match="absent.json: cannot be read"):
        Manifest.load(tmp_path / "absent.json")


def test_build_refuses_what_would_not_load(manifest: Manifest) -> None:
    with pytest.raises(JsonError, match="manifest of web: shards"):
        Manifest.build("web", {}, CL100K_BASE, manifest.ledger, manifest.recipe, [manifest.shards[0]] * 2)
