"""Parquet files: splits by row groups, damage that costs one group, and files that are no Parquet."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import RecipeError
from pipelines.sources.tables import Table
from pipelines.storage.local import LocalStorage


def reason(row: dict) -> str | None:
    return row["verdict"]["reason"] if row["verdict"] else None


def test_splits_follow_row_groups_and_cover_the_file(read_all, tmp_path):
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


def test_damage_in_one_row_group_costs_that_group_only(read_all, tmp_path):
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
def test_a_file_that_is_no_parquet_is_one_errored_row(read_all, tmp_path, data):
    (tmp_path / "a.parquet").write_bytes(data)
    rows, [account] = read_all(Table("s", ("*",)), tmp_path)
    assert [reason(row) for row in rows] == ["unreadable"]
    assert account.gaps == {"unreadable": [1, len(data)]}


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_no_flipped_byte_of_a_parquet_file_is_an_exception(read_all, tmp_path_factory, place, value):
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
