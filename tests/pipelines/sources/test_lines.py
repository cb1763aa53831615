"""Lines: cut at any place, of any block size, with every byte accounted for; JSON with half surrogate pairs."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources.lines import cut_lines, line_splits, parse_json, read_lines
from pipelines.sources.source import RawAccount
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import StoredFile


@settings(max_examples=200, deadline=None)
@given(
    data=st.lists(st.sampled_from([b"a", b"\n", b" ", b"xyz", b"\r\n", b"longer than ten"]), max_size=30).map(b"".join),
    split_bytes=st.integers(1, 40),
)
def test_every_split_size_gives_the_same_lines_and_accounts_for_every_byte(tmp_path_factory, data, split_bytes):
    root = tmp_path_factory.mktemp("lines")
    (root / "a.jsonl").write_bytes(data)
    expected = []
    place = 0
    for line in data.split(b"\n"):
        if line.strip() or len(line) > 10:
            expected.append((place, len(line), line if len(line) <= 10 else b""))
        place += len(line) + 1
    found, size, records = [], 0, 0
    for split in line_splits("s", StoredFile("a.jsonl", len(data)), split_bytes):
        account = RawAccount()
        found += [
            (line.offset, line.length, line.data) for line in read_lines(split, LocalStorage(root), 10, None, account)
        ]
        assert account.size == account.records + sum(num_bytes for _, num_bytes in account.gaps.values())
        size += account.size
        records += account.records + account.gaps.get("continued", [0, 0])[1]
    assert found == expected
    assert size == len(data)
    assert sum(length for _, length, _ in expected) <= records <= len(data)


@settings(max_examples=30, deadline=None)
@given(
    data=st.lists(st.binary(max_size=300).map(lambda line: line.replace(b"\n", b"")), max_size=40),
    block=st.integers(1, 999),
)
def test_lines_do_not_depend_on_the_size_of_the_blocks(data, block):
    text = b"\n".join(data)
    blocks = [text[start : start + block] for start in range(0, len(text), block)]
    assert list(cut_lines(blocks, 7, 200)) == list(cut_lines([text], 7, 200))


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=5))
def test_json_with_and_without_half_pairs_reads_alike(value):
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps([value, "\ud800"]).encode()) == [value, "\ufffd"]
