"""Tables: lines and row groups, damage, bounds, identities, dates; Parquet and JSON lines give the same documents."""

from __future__ import annotations

import bz2
import dataclasses
import datetime
import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import RecipeError
from pipelines.schema import CORE
from pipelines.sources import tables
from pipelines.sources.source import BatchLimits, RawAccount, Split
from pipelines.sources.tables import Table, line_splits, parse_dates, parse_json, read_lines
from pipelines.storage import LocalStorage, StoredFile

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside this checkout")


def read_all(source: Table, root: Path, limits: BatchLimits = BatchLimits()) -> tuple[list[dict], list[RawAccount]]:  # noqa: B008
    """Read every split and check what holds for every reader: the schema, the rows seen, the balance of bytes."""
    storage = LocalStorage(root)
    rows: list[dict] = []
    accounts = []
    for split in source.splits(storage):
        account = RawAccount()
        before = len(rows)
        for batch in source.read(split, storage, limits, account):
            assert batch.schema == pa.schema([*CORE, *source.adds])
            batch.validate(full=True)
            rows += batch.to_pylist()
        assert account.seen == len(rows) - before
        assert account.size == account.records + sum(num_bytes for _, num_bytes in account.gaps.values())
        accounts.append(account)
    return rows, accounts


def reason(row: dict) -> str | None:
    return row["verdict"]["reason"] if row["verdict"] else None


def write_lines(path: Path, *values: object) -> bytes:
    data = b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)
    path.write_bytes(data)
    return data


# Lines


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
    assert list(tables._cut_lines(blocks, 7, 200)) == list(tables._cut_lines([text], 7, 200))


def test_a_small_file_by_hand(tmp_path):
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


def test_each_bad_line_is_one_errored_row_that_names_its_place(tmp_path):
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


COMPRESSORS = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor(level=1, write_checksum=True).compress,
}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_files_give_the_rows_of_the_plain_one(tmp_path, suffix):
    data = write_lines(tmp_path / "a.jsonl", *({"text": f"text {number} " * 50} for number in range(2_000)))
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
def test_rows_before_the_damage_of_a_compressed_file_are_kept(tmp_path, suffix, damage):
    rng = random.Random(5)
    texts = ["".join(rng.choices("abcdefgh ", k=400)) for _ in range(12_000)]
    write_lines(tmp_path / "a.jsonl", *({"text": text} for text in texts))
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


def test_gzip_comes_out_to_the_last_byte_that_decodes(tmp_path):
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
from pipelines.storage import LocalStorage
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


def test_limit_and_unreadable_and_shortened_files(tmp_path):
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
def test_rows_do_not_depend_on_the_limits_of_a_batch(tmp_path, limits):
    values = [{"text": "x" * (number * 37 % 500), "url": f"http://h{number % 3}.example/"} for number in range(200)]
    write_lines(tmp_path / "a.jsonl", *values)
    pq.write_table(pa.Table.from_pylist(values), tmp_path / "a.parquet", row_group_size=64)
    source = Table("s", ("*",), schema="c4", split_bytes=10_000)
    assert read_all(source, tmp_path, limits)[0] == read_all(source, tmp_path)[0]


# Parquet


def test_parquet_and_json_lines_give_the_same_documents(tmp_path):
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
        {"text": "", "id": "", "url": "x" * (tables.FIELD_BYTES + 1), "when": "never", "l": "MIT"},
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


BYTES = [b"one", b"\xffx", None, "zwölf".encode()]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(BYTES, pa.binary()),
        pa.array(BYTES, pa.large_binary()),
        pa.array(BYTES, pa.binary()).dictionary_encode(),
        pa.Array.from_buffers(pa.string(), 4, pa.array(BYTES, pa.binary()).buffers()),
        pa.Array.from_buffers(pa.large_string(), 4, pa.array(BYTES, pa.large_binary()).buffers()),
        pa.array(BYTES, pa.binary_view()),
    ],
    ids=lambda column: str(column.type),
)
def test_texts_of_any_type_are_checked_to_be_utf8(tmp_path, column):
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    rows, _ = read_all(Table("s", ("*",)), tmp_path)
    assert [row["text"] for row in rows] == ["one", None, None, "zwölf"]
    assert [reason(row) for row in rows] == [None, "not_utf8", "no_text", None]
    assert rows[1]["verdict"]["value"] == "byte 0"


@pytest.mark.parametrize("column", [pa.array([1, 2]), pa.nulls(2), pa.array([["a"], []]), pa.array([True, None])])
def test_columns_that_are_no_text_are_errored_rows(tmp_path, column):
    pq.write_table(pa.table({"text": column, "id": column}), tmp_path / "a.parquet")
    rows, _ = read_all(Table("s", ("*",), id="id", date="id", url="id"), tmp_path)
    assert [reason(row) for row in rows] == ["no_text", "no_text"]


def test_splits_follow_row_groups_and_cover_the_file(tmp_path):
    pq.write_table(
        pa.table({"text": [f"{number:05d}" * 100 for number in range(1_000)]}),
        tmp_path / "a.parquet",
        row_group_size=90,
    )
    source = Table("s", ("*",), split_bytes=100_000)
    splits = source.splits(LocalStorage(tmp_path))
    assert len(splits) > 2
    assert [split.start for split in splits[1:]] == [split.stop for split in splits[:-1]]
    assert all(split.start % 90 == 0 for split in splits)
    rows, accounts = read_all(source, tmp_path)
    assert [row["origin_offset"] for row in rows] == list(range(1_000))
    assert sum(account.size for account in accounts) == (tmp_path / "a.parquet").stat().st_size
    limited, _ = read_all(dataclasses.replace(source, limit=7), tmp_path)
    assert len(limited) == 7 * len(splits)


def test_a_missing_text_column_is_found_before_any_work(tmp_path):
    pq.write_table(pa.table({"content": ["a"], "url": ["b"]}), tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match=r"a\.parquet has 0 columns 'text'(?s:.*)content, url"):
        Table("s", ("*",)).splits(LocalStorage(tmp_path))
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match="has 2 columns 'text'"):
        Table("s", ("*",)).splits(LocalStorage(tmp_path))


def test_damage_in_one_row_group_costs_that_group_only(tmp_path):
    texts = [f"{number:06d}" * 20 for number in range(3_000)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=1_000, compression="zstd", use_dictionary=False)
    metadata = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = metadata.data_page_offset
    data[start : start + metadata.total_compressed_size] = bytes(metadata.total_compressed_size)
    path.write_bytes(data)
    rows, [account] = read_all(Table("s", ("*",)), tmp_path)
    assert [row["text"] for row in rows if row["text"]] == texts[:1_000] + texts[2_000:]
    [errored] = [row for row in rows if row["verdict"]]
    assert errored["verdict"]["value"].startswith("a.parquet at 1000: rows 1000 to 1999 are lost: ")
    assert account.gaps["damaged"][0] == 1_000


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(50) + b"PAR1", b"no parquet at all" * 9])
def test_a_file_that_is_no_parquet_is_one_errored_row(tmp_path, data):
    (tmp_path / "a.parquet").write_bytes(data)
    rows, [account] = read_all(Table("s", ("*",)), tmp_path)
    assert [reason(row) for row in rows] == ["unreadable"]
    assert account.gaps == {"unreadable": [1, len(data)]}


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_no_flipped_byte_of_a_parquet_file_is_an_exception(tmp_path_factory, place, value):
    root = tmp_path_factory.mktemp("flip")
    table = pa.table({"text": [f"text {number % 7}" for number in range(50)], "url": ["u"] * 50})
    pq.write_table(table, root / "a.parquet", row_group_size=20, compression="snappy")
    content = bytearray((root / "a.parquet").read_bytes())
    content[place % len(content)] ^= value
    (root / "a.parquet").write_bytes(content)
    try:
        read_all(Table("s", ("*",), url="url"), root)
    except RecipeError as error:
        assert "hint:" in str(error)


def test_a_value_repeated_by_a_dictionary_is_not_held_repeatedly(tmp_path):
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000, pa.int32()), pa.array(["x" * (4 << 20)]))
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet", dictionary_pagesize_limit=64 << 20)
    assert (tmp_path / "a.parquet").stat().st_size < 300_000
    source, storage = Table("s", ("*",), max_record_bytes=1 << 20), LocalStorage(tmp_path)
    [split] = source.splits(storage)
    batches = list(source.read(split, storage, BatchLimits(), RawAccount()))
    assert sum(batch.num_rows for batch in batches) == 2_000
    assert sum(batch.nbytes for batch in batches) < 1 << 20
    sizes = [
        batch.column("text").nbytes
        for batch in dataclasses.replace(source, limit=30).read(
            split, storage, BatchLimits(max_bytes=10 << 20), RawAccount()
        )
    ]
    assert max(sizes) < 1 << 20


def test_batches_of_parquet_are_capped_by_bytes(tmp_path):
    pq.write_table(pa.table({"text": ["x" * 1_000] * 100}), tmp_path / "a.parquet")
    storage, source = LocalStorage(tmp_path), Table("s", ("*",))
    [split] = source.splits(storage)
    batches = list(source.read(split, storage, BatchLimits(max_bytes=10_000), RawAccount()))
    assert [batch.num_rows for batch in batches] == [10] * 10


# Dates

INSTANTS = {
    "2020-06-05T04:25:29Z": "2020-06-05T04:25:29+00:00",
    "2023-04-07T15:24:38.743534+00:00": "2023-04-07T15:24:38.743534+00:00",
    "2019-04-25 12:57:54": "2019-04-25T12:57:54+00:00",
    "2019-04-25": "2019-04-25T00:00:00+00:00",
    "2019-04-25T12:57+0530": "2019-04-25T07:27:00+00:00",
    "2019-04-25t12:57:54.123456789z": "2019-04-25T12:57:54.123456+00:00",
    "2019-04-25 12:57:54 -03": "2019-04-25T15:57:54+00:00",
    "1556197074": "2019-04-25T12:57:54+00:00",
    "1556197074123": "2019-04-25T12:57:54.123000+00:00",
    "1556197074123456": "2019-04-25T12:57:54.123456+00:00",
    "1556197074123456789": None,
    "155619707412345678": "1974-12-07T03:41:47.412345+00:00",
    "2019-02-30": None,
    "2019-13-01T00:00:00Z": None,
    "2019-04-25T25:00:00Z": None,
    "0000-01-01": None,
    "9999-12-31T23:59:59-01:00": None,
    "20190425": None,
    "yesterday": None,
    "": None,
    "2019-04-25T12:57:54Z\n": None,
}


def _iso(column: pa.Array) -> list[str | None]:
    return [value.isoformat() if value else None for value in column.to_pylist()]


def test_dates_by_hand():
    column = pa.array([*INSTANTS, None])
    assert _iso(parse_dates(column)) == [*INSTANTS.values(), None]
    assert _iso(parse_dates(column.cast(pa.large_string()))) == [*INSTANTS.values(), None]


def test_a_date_does_not_depend_on_its_neighbours():
    column = pa.array([*INSTANTS])
    one_by_one = pa.concat_arrays([parse_dates(column.slice(row, 1)) for row in range(len(column))])
    assert one_by_one.equals(parse_dates(column))


@given(st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31)), st.sampled_from(["s", "ms", "us"]))
def test_timestamps_of_every_unit(moment, unit):
    moment = moment.replace(microsecond={"s": 0, "ms": moment.microsecond // 1000 * 1000}.get(unit, moment.microsecond))
    column = pa.array([moment, None], pa.timestamp(unit))
    expected = [moment.replace(tzinfo=datetime.UTC), None]
    assert parse_dates(column).to_pylist() == expected
    assert parse_dates(column.cast(pa.timestamp(unit, "UTC"))).to_pylist() == expected
    assert parse_dates(pa.array([moment.isoformat(), None])).to_pylist() == expected


def test_timestamps_out_of_range_are_null():
    values = pa.array([2**62, -(2**62), 0, None], pa.int64())
    for unit in ("s", "ms"):
        assert _iso(parse_dates(values.cast(pa.timestamp(unit)))) == [None, None, "1970-01-01T00:00:00+00:00", None]
    assert _iso(parse_dates(pa.array([-1], pa.int64()).cast(pa.timestamp("ns")))) == [
        "1969-12-31T23:59:59.999999+00:00"
    ]
    assert _iso(parse_dates(pa.array([18_000], pa.int32()).cast(pa.date32()))) == ["2019-04-14T00:00:00+00:00"]
    assert _iso(parse_dates(pa.array([1.5e9]))) == [None]
    assert _iso(parse_dates(pa.array([1_556_197_074, 2019], pa.uint32()))) == ["2019-04-25T12:57:54+00:00", None]


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=5))
def test_json_with_and_without_half_pairs_reads_alike(value):
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps([value, "\ud800"]).encode()) == [value, "\ufffd"]


def test_wrong_values_of_a_recipe_are_named():
    for wrong in ({"schema": "refined"}, {"limit": 0}, {"max_record_bytes": -1}, {"split_bytes": "big"}):
        with pytest.raises(RecipeError, match="hint:"):
            Table("s", ("*",), **wrong)


# Real data


@needs_shared
def test_refinedweb_schema():
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
def test_every_file_of_lines_goes_through():
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
def test_origins_lead_back_to_the_bytes():
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
