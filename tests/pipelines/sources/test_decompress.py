"""Compressed files: the rows of the plain one, all that decodes before damage, and bounded memory."""

from __future__ import annotations

import bz2
import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from pipelines.sources.tables import Table

COMPRESSORS = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor(level=1, write_checksum=True).compress,
}


def reason(row: dict) -> str | None:
    return row["verdict"]["reason"] if row["verdict"] else None


def write_lines(path: Path, texts: list[str]) -> bytes:
    data = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)
    path.write_bytes(data)
    return data


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_files_give_the_rows_of_the_plain_one(read_all, tmp_path, suffix):
    data = write_lines(tmp_path / "a.jsonl", [f"text {number} " * 50 for number in range(2_000)])
    half = len(data) // 2
    compress = COMPRESSORS[suffix]
    (tmp_path / f"b.jsonl{suffix}").write_bytes(compress(data[:half]) + compress(data[half:]))
    plain, _ = read_all(Table("s", ("a.jsonl",)), tmp_path)
    packed, [account] = read_all(Table("s", (f"b.jsonl{suffix}",)), tmp_path)
    assert packed == [row | {"origin_path": f"b.jsonl{suffix}"} for row in plain]
    assert len(packed) == 2_000
    assert (account.records, account.gaps) == (account.size, {})


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_rows_before_the_damage_of_a_compressed_file_are_kept(read_all, tmp_path, suffix, damage):
    rng = random.Random(5)
    texts = ["".join(rng.choices("abcdefgh ", k=400)) for _ in range(12_000)]
    write_lines(tmp_path / "a.jsonl", texts)
    data = COMPRESSORS[suffix]((tmp_path / "a.jsonl").read_bytes())
    broken = data[: len(data) * 2 // 3]
    if damage == "flipped":
        broken += bytes(64) + data[len(broken) + 64 :]
    (tmp_path / f"b.jsonl{suffix}").write_bytes(broken)
    rows, [account] = read_all(Table("s", (f"b.jsonl{suffix}",)), tmp_path)
    *kept, last = rows
    assert reason(last) == "damaged_file"
    assert last["verdict"]["value"].startswith(f"b.jsonl{suffix} at ")
    good = [row["text"] for row in kept if row["verdict"] is None]
    # Deflate decodes on through flipped bytes until it notices, so lines near the damage may be garbled, yet not lost.
    sound = next((place for place, (a, b) in enumerate(zip(good, texts, strict=False)) if a != b), len(good))
    block = {".gz": 0, ".zst": 128 << 10, ".bz2": 900_000}[suffix]  # what the format decodes only as a whole
    assert sound >= 12_000 * 2 // 3 - 200 - block // 410
    assert account.gaps["damaged"][0] == 1


def test_gzip_comes_out_to_the_last_byte_that_decodes(read_all, tmp_path):
    """One stored deflate block: every byte of it stands in the file as it is, so the cut is known to the byte."""
    data = b"".join(b'{"text": "%06d"}\n' % number for number in range(20_000))
    packed = gzip.compress(data, compresslevel=0, mtime=0)
    cut = packed.index(b'"015000"')
    (tmp_path / "a.jsonl.gz").write_bytes(packed[:cut])
    rows, _ = read_all(Table("s", ("*.gz",)), tmp_path)
    assert [row["text"] for row in rows if row["verdict"] is None] == [f"{number:06d}" for number in range(15_000)]
    assert [reason(row) for row in rows if row["verdict"]] == ["json", "damaged_file"]
    assert rows[-1]["origin_offset"] == 15_000 * 19 + len('{"text": ')


PEAK = """
import resource, sys
from pathlib import Path
from pipelines.sources.source import BatchLimits, RawAccount
from pipelines.sources.tables import Table
from pipelines.storage.local import LocalStorage
storage, source = LocalStorage(Path(sys.argv[1])), Table("s", ("*",))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for split in source.splits(storage):
    for batch in source.read(split, storage, BatchLimits(), RawAccount()):
        print(*[row["verdict"]["reason"] for row in batch.to_pylist()])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in other units elsewhere")
def test_bombs_are_read_in_bounded_memory(tmp_path):
    bomb = b'{"text": "' + bytes(300 << 20)
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(bomb))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(bomb, 1, mtime=0))
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", PEAK, str(tmp_path)]
    first, second, peak = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split()
    assert (first, second) == ("record_too_large", "record_too_large")
    assert int(peak) < 100  # MiB
