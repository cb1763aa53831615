"""Tables: identities, bounds and bad lines; Parquet and JSON lines give the same documents; real data."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from pipelines.errors import RecipeError
from pipelines.sources.columns import FIELD_BYTES
from pipelines.sources.source import BatchLimits, RawAccount, Split
from pipelines.sources.tables import Table
from pipelines.storage.local import LocalStorage

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside this checkout")


def reason(row: dict) -> str | None:
    return row["verdict"]["reason"] if row["verdict"] else None


def write_lines(path: Path, *values: object) -> bytes:
    data = b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)
    path.write_bytes(data)
    return data


# Lines


def test_a_small_file_by_hand(read_all, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n\n{"text": "two"}')
    rows, [account] = read_all(Table("s", ("*.jsonl",)), tmp_path)
    assert [(row["text"], row["origin_offset"], row["origin_length"]) for row in rows] == [
        ("one", 0, 19),
        ("two", 21, 15),
    ]
    assert (account.size, account.records, account.gaps) == (36, 34, {"separator": [1, 2]})
    digest = xxhash.xxh3_128_digest(b"one")
    assert rows[0]["content_hash"] == digest
    assert rows[0]["natural_key"] == digest.hex()
    assert rows[0]["doc_id"] == xxhash.xxh3_128_digest(b"s\x00" + digest.hex().encode())


def test_each_bad_line_is_one_errored_row_that_names_its_place(read_all, tmp_path):
    lines = [
        b'{"text": "good"}',
        b'{"text": ',
        b'{"text": 5}',
        b'{"text": null}',
        b'{"other": "x"}',
        b'["text"]',
        b'{"text": "\xff"}',
        b'{"text": ""}',
        b'{"text": NaN, "x": "\\ud800"}',
        b"[" * 100_000,
        b'{"text": "\\ud800' + b"[" * 100_000,
        b'{"text": "' + b"x" * 200_000 + b'"}',
        b'{"text": "\\ud83d\\ude00 \\ud800 \\udc00\\ud800"}',
        b'{"text": "last"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    rows, [account] = read_all(Table("s", ("*.jsonl",), max_record_bytes=150_000), tmp_path)
    assert [reason(row) for row in rows] == [
        None,
        "json",
        "no_text",
        "no_text",
        "no_text",
        "json",
        "json",
        "empty",
        "json",
        "json",
        "json",
        "record_too_large",
        None,
        None,
    ]
    assert [row["text"] for row in rows if row["verdict"] is None] == ["good", "😀 \ufffd \ufffd\ufffd", "last"]
    assert rows[1]["verdict"]["outcome"] == "errored"
    assert rows[1]["verdict"]["value"].startswith("a.jsonl at 17: ")
    assert rows[11]["verdict"] == {
        "outcome": "dropped",
        "reason": "record_too_large",
        "value": "200012 bytes",
        "threshold": "<= 150000 bytes",
    }
    assert len({row["doc_id"] for row in rows}) == len(rows)
    assert account.records == sum(map(len, lines))


def test_limit_and_unreadable_and_shortened_files(read_all, tmp_path):
    data = write_lines(tmp_path / "a.jsonl", *({"text": str(number)} for number in range(10)))
    rows, [account] = read_all(Table("s", ("*.jsonl",), limit=3), tmp_path)
    assert [row["text"] for row in rows] == ["0", "1", "2"]
    assert account.gaps["beyond_limit"] == [1, 7 * 14]
    storage, source = LocalStorage(tmp_path), Table("s", ("*.jsonl",))
    [split] = source.splits(storage)
    (tmp_path / "a.jsonl").write_bytes(data[:28])
    account = RawAccount()
    [batch] = source.read(split, storage, BatchLimits(), account)
    assert [reason(row) for row in batch.to_pylist()] == [None, None, "damaged_file"]
    assert account.gaps["damaged"] == [1, len(data) - 28]
    (tmp_path / "a.jsonl").unlink()
    account = RawAccount()
    [batch] = source.read(split, storage, BatchLimits(), account)
    assert [reason(row) for row in batch.to_pylist()] == ["unreadable"]
    assert (account.size, account.gaps) == (len(data), {"unreadable": [1, len(data)]})


@pytest.mark.parametrize("limits", [BatchLimits(1, 1), BatchLimits(7, 1 << 20), BatchLimits(10_000, 1_000)])
def test_rows_do_not_depend_on_the_limits_of_a_batch(read_all, tmp_path, limits):
    values = [{"text": "x" * (number * 37 % 500), "url": f"http://h{number % 3}.example/"} for number in range(200)]
    write_lines(tmp_path / "a.jsonl", *values)
    pq.write_table(pa.Table.from_pylist(values), tmp_path / "a.parquet", row_group_size=64)
    source = Table("s", ("*",), schema="c4", split_bytes=10_000)
    assert read_all(source, tmp_path, limits)[0] == read_all(source, tmp_path)[0]


# Parquet


def test_parquet_and_json_lines_give_the_same_documents(read_all, tmp_path):
    values = [
        {
            "text": "Größe 😀",
            "id": "a",
            "url": "https://EXAMPLE.org:80/x",
            "when": "2020-02-29T12:30:01.5+01:00",
            "l": None,
        },
        {"text": "two", "id": None, "url": None, "when": "1600000000", "l": "MIT"},
        {"text": None, "id": "c", "url": "http://[bad", "when": "2021-02-29", "l": "MIT"},
        {"text": "", "id": "", "url": "x" * (FIELD_BYTES + 1), "when": "never", "l": "MIT"},
        {"text": "y" * 1_001, "id": "e", "url": "u", "when": None, "l": "MIT"},
    ]
    write_lines(tmp_path / "a.jsonl", *values)
    pq.write_table(pa.Table.from_pylist(values), tmp_path / "a.parquet")
    source = Table(
        "s", ("*.jsonl",), id="id", url="url", date="when", licence_column="l", licence="CC0", max_record_bytes=1_000
    )
    lines, _ = read_all(dataclasses.replace(source, max_record_bytes=1 << 20), tmp_path)
    groups, [account] = read_all(dataclasses.replace(source, include=("*.parquet",)), tmp_path)
    assert [reason(row) for row in groups] == [None, None, "no_text", "empty", "record_too_large"]
    assert [(row["origin_offset"], row["origin_length"]) for row in groups] == [(number, 1) for number in range(5)]
    assert account.size == account.records == (tmp_path / "a.parquet").stat().st_size
    ours = ("doc_id", "natural_key", "url", "host", "date", "licence", "content_hash", "text")
    for line, group in list(zip(lines, groups, strict=True))[:3]:
        assert {name: line[name] for name in ours} == {name: group[name] for name in ours}
    assert groups[0]["host"] == "example.org"
    assert groups[0]["date"] == datetime.datetime(2020, 2, 29, 11, 30, 1, 500_000, datetime.UTC)
    assert [row["natural_key"] for row in groups] == ["a", xxhash.xxh3_128_hexdigest(b"two"), "c", "a.parquet:3", "e"]
    assert [row["licence"] for row in groups] == ["CC0", "MIT", "MIT", "MIT", "MIT"]
    assert groups[3]["url"] is None


def test_batches_of_parquet_are_capped_by_bytes(tmp_path):
    pq.write_table(pa.table({"text": ["x" * 1_000] * 100}), tmp_path / "a.parquet")
    storage, source = LocalStorage(tmp_path), Table("s", ("*",))
    [split] = source.splits(storage)
    batches = list(source.read(split, storage, BatchLimits(max_bytes=10_000), RawAccount()))
    assert [batch.num_rows for batch in batches] == [10] * 10


def test_wrong_values_of_a_recipe_are_named():
    for wrong in ({"schema": "refined"}, {"limit": 0}, {"max_record_bytes": -1}, {"split_bytes": "big"}):
        with pytest.raises(RecipeError, match="hint:"):
            Table("s", ("*",), **wrong)


# Real data


@needs_shared
def test_refinedweb_schema(read_all):
    rows, [account] = read_all(
        Table("rw", ("**/*.parquet",), schema="refinedweb"), SHARED / "web_text/refinedweb_schema"
    )
    table = pq.read_table(SHARED / "web_text/refinedweb_schema/part-00000.parquet")
    assert [row["text"] for row in rows] == table["content"].to_pylist()
    assert [row["url"] for row in rows] == table["url"].to_pylist()
    assert account.records == account.size
    dated = [(row["date"], text) for row, text in zip(rows, table["timestamp"].to_pylist(), strict=True) if text]
    assert dated
    for date, text in dated:
        assert date == datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)


@needs_shared
def test_every_file_of_lines_goes_through(read_all):
    root = SHARED / "web_text"
    rows, accounts = read_all(Table("t", ("**/*.jsonl", "**/*.json.gz", "**/*.jsonl.*"), date="created"), root)
    sizes = [
        (Path(folder) / name).stat().st_size
        for folder, _, names in os.walk(root)
        for name in names
        if ".jsonl" in name or name.endswith(".json.gz")
    ]
    assert sum(account.size for account in accounts) == sum(sizes)
    kept = {}
    for row in rows:
        kept.setdefault(row["origin_path"], []).append(row["text"]) if row["verdict"] is None else None
    assert len(kept["c4_sample/c4_all.jsonl"]) == 1_780
    assert len(kept["prose_multilingual/fortunes.jsonl"]) == 3_348
    plain = "dolma_cc_en_head/multiple_files/cc_en_head-0091.jsonl"
    assert kept[plain] == kept[plain + ".gz"]
    with (root / "c4_sample/c4_all.jsonl").open() as lines:
        assert kept["c4_sample/c4_all.jsonl"] == [json.loads(line)["text"] for line in lines]


@needs_shared
def test_origins_lead_back_to_the_bytes(read_all):
    root = SHARED / "web_text/c4_sample"
    source = Table("c4", ("c4_demo.jsonl",), schema="c4", split_bytes=100_000)
    rows, accounts = read_all(source, root)
    assert len(accounts) == 8
    assert rows == read_all(dataclasses.replace(source, split_bytes=1 << 30), root)[0]
    data = (root / "c4_demo.jsonl").read_bytes()
    for row in rows:
        line = data[row["origin_offset"] : row["origin_offset"] + row["origin_length"]]
        assert json.loads(line)["text"] == row["text"]
    assert isinstance(source.splits(LocalStorage(root))[0], Split)
