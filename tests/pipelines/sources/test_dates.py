"""Dates: every form by hand, every unit and the bounds."""

from __future__ import annotations

import datetime

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.dates import parse_dates

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
