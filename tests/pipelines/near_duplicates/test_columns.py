"""16-byte columns as numbers, and rows of which most columns are null."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.near_duplicates.columns import generations, keys_of, new_keys, rows_of, words_of
from pipelines.schema import DOC_ID

keys = st.lists(st.one_of(st.none(), st.binary(min_size=16, max_size=16)), max_size=20)


@settings(deadline=None)
@given(keys, st.integers(0, 20), st.integers(0, 20))
def test_words_are_the_two_halves_whatever_the_slice(values, start, num):
    column = pa.array(values, DOC_ID).slice(start, num)
    halves = [divmod(int.from_bytes(value or b"", "big"), 1 << 64) for value in values[start : start + num]]
    assert words_of(column).tolist() == [list(pair) for pair in halves]
    assert words_of(column).dtype == np.uint64


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"\0" * 16, b"\0" * 15 + b"\1", b"\1" + b"\0" * 15]), max_size=20), st.integers(0, 5))
def test_new_keys(values, start):
    found = new_keys(pa.array(values, DOC_ID).slice(start)).tolist()
    rest = values[start:]
    assert found == [place == 0 or rest[place - 1] != value for place, value in enumerate(rest)]


def test_generations_are_the_first_two_bytes_of_a_rank():
    ranks = [b"\x00\x00" + b"\xff" * 14, b"\x00\x01" + b"\0" * 14, b"\xff\xfe" + b"\0" * 14]
    assert generations(pa.array(ranks, DOC_ID)).tolist() == [0, 1, 65534]
    assert generations(pa.array([], DOC_ID)).tolist() == []


def test_keys_of_bytes():
    raw = np.arange(64, dtype=np.uint8).reshape(4, 16)
    assert keys_of(raw[::2]).to_pylist() == [bytes(range(16)), bytes(range(32, 48))]


def test_rows_of_a_schema_have_nulls_where_nothing_is_given():
    schema = pa.schema([("first", pa.int64()), ("second", pa.string()), ("third", pa.large_list(pa.uint64()))])
    rows = rows_of(schema, 2, second=pa.array(["a", "b"]))
    assert rows.schema == schema
    assert rows.to_pylist() == [{"first": None, "second": text, "third": None} for text in "ab"]
