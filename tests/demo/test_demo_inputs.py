"""The demo's inputs: a WARC that other tools read, the same on every run; conversations with something to refuse."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator

from pipelines.sources.conversations import Conversations
from pipelines.sources.source import BatchLimits, RawAccount
from pipelines.storage.local import LocalStorage

ROOT = Path(__file__).resolve().parents[2]


def make(folder: Path, **environment: str) -> bytes:
    """Run the script as a user would and return the archive."""
    command = [sys.executable, str(ROOT / "demo/make_inputs.py"), str(folder)]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert str(folder / "pydoc.warc.gz") in done.stdout
    return (folder / "pydoc.warc.gz").read_bytes()


def members(data: bytes) -> tuple[list[bytes], int]:
    """Return the gzip members that decode, still compressed, and how many stretches between them do not."""
    sound, broken, place = [], 0, 0
    while place < len(data):
        decoder = zlib.decompressobj(wbits=31)
        try:
            decoder.decompress(data[place:])
            end = len(data) - len(decoder.unused_data)
            sound.append(data[place:end])
        except zlib.error:
            broken += 1
            end = data.index(b"\x1f\x8b\x08\x00\x00\x00\x00\x00", place + 1)
        place = end
    return sound, broken


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make(tmp_path_factory.mktemp("first"))


def test_the_archive_is_the_same_in_another_environment(archive, tmp_path):
    assert make(tmp_path / "new/folder", HOME="/nowhere", PYTHONHASHSEED="7", SECRET="do not print") == archive


def test_warcio_reads_every_record_but_the_damaged_one(archive, tmp_path):
    sound, broken = members(archive)
    assert broken == 1
    (tmp_path / "sound.warc.gz").write_bytes(b"".join(sound))
    kinds: dict[str, int] = {}
    pages: dict[str, bytes] = {}
    ids = set()
    with (tmp_path / "sound.warc.gz").open("rb") as stream:
        for record in ArchiveIterator(stream, check_digests="raise"):
            kinds[record.rec_type] = kinds.get(record.rec_type, 0) + 1
            ids.add(record.rec_headers["WARC-Record-ID"])
            content = record.content_stream().read()
            if record.rec_type == "response":
                assert record.http_headers["Content-Type"] == "text/html; charset=utf-8"
                pages[record.rec_headers["WARC-Target-URI"]] = content
    assert kinds["warcinfo"] == 1
    assert 200 <= kinds["response"] == len(pages) <= 301
    assert kinds["request"] == (kinds["response"] + 1 + 24) // 25
    assert len(ids) == sum(kinds.values())
    assert len(pages) - len(set(pages.values())) == 2
    assert b"Encode" in pages["https://library.example/json.html"]
    for page in pages.values():
        assert not re.search(rb"at(?:&nbsp;| )0x[0-9a-f]|do not print", page)
        assert str(ROOT).encode() not in page


def test_the_conversations_hold_duplicates_and_one_broken_role():
    storage, source = LocalStorage(ROOT / "demo"), Conversations("talk", ("conversations.jsonl",))
    [split] = source.splits(storage)
    account = RawAccount()
    rows = [row for batch in source.read(split, storage, BatchLimits(), account) for row in batch.to_pylist()]
    refused = [row["verdict"]["reason"] for row in rows if row["verdict"]]
    assert refused == ["conversation.role"]
    assert len(rows) == 45
    assert len({row["doc_id"] for row in rows}) == 43
