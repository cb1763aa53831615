"""Columns of dates in any usual form to timestamps in microseconds UTC, by Arrow kernels.

A date is a function of its own value: neighbours, batches and the local time zone change nothing.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MIN_MICROSECONDS = -62_135_596_800_000_000
MAX_MICROSECONDS = 253_402_300_799_999_999
"""Years 1 to 9999, the dates that every engine can hold; others are read as null."""

DATE = pa.timestamp("us", tz="UTC")

_ISO = (
    r"^(?P<day>\d{4}-\d\d-\d\d)(?:[Tt ](?P<time>\d\d:\d\d(?::\d\d)?)(?:\.(?P<fraction>\d{1,6})\d*)?"
    r"\s?(?P<zone>[Zz]|[+-]\d\d(?::?\d\d)?)?)?$"
)
_EPOCH = r"^\d{9,18}$"


def parse_dates(column: pa.Array) -> pa.Array:
    """Return a column as timestamps in microseconds UTC; what is no date, or lies outside years 1 to 9999, is null.

    Timestamps and days without a zone count as UTC. Strings are ISO 8601, or epochs in digits. Epochs have 9 to 18
    digits and tell their unit by their size: below 10^11 seconds, 10^14 milliseconds, 10^17 microseconds, then
    nanoseconds. Shorter numbers are null: they are years or compact dates and no epochs after March 1973.
    """
    kind = column.type
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("ms"))
        kind = column.type
    if pa.types.is_timestamp(kind):
        scale = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": -1_000}[kind.unit]
        values, valid = _integers(column)
        return _scaled(values, valid, np.full(len(values), scale, np.int64))
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return pa.nulls(len(column), DATE)
    column = column.cast(pa.large_string())
    epochs = pc.if_else(pc.match_substring_regex(column, _EPOCH), column, pa.scalar(None, column.type))
    return pc.coalesce(_parse_epochs(epochs.cast(pa.int64())), _parse_iso(column))


def _integers(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(column.cast(pa.int64()).fill_null(0)), np.asarray(column.is_valid())


def _parse_epochs(column: pa.Array) -> pa.Array:
    values, valid = _integers(column)
    rank = np.searchsorted(np.array([10**11, 10**14, 10**17], np.int64), values, side="right")
    return _scaled(values, valid, np.array([1_000_000, 1_000, 1, -1_000], np.int64)[rank])


def _scaled(values: np.ndarray, valid: np.ndarray, scale: np.ndarray) -> pa.Array:
    """Return int64 `values` times `scale` (or, where negative, divided by it, rounded down) as microseconds."""
    factor = np.maximum(scale, 1)
    fits = (values >= -(-MIN_MICROSECONDS // factor)) & (values <= MAX_MICROSECONDS // factor)
    divided = np.where(scale < 0, values // np.maximum(-scale, 1), np.where(fits, values, 0) * factor)
    fits |= scale < 0
    return pa.array(divided, pa.int64(), mask=~(valid & fits)).cast(DATE)


def _parse_iso(column: pa.Array) -> pa.Array:
    def constant(text: str) -> pa.Scalar:
        return pa.scalar(text, pa.large_string())

    parts = pc.extract_regex(column, _ISO)
    day, time, fraction, zone = (pc.struct_field(parts, name) for name in ("day", "time", "fraction", "zone"))
    time = pc.if_else(pc.equal(time, constant("")), constant("00:00"), time)
    seconds = pc.if_else(pc.equal(pc.binary_length(time), 5), constant(":00."), constant("."))
    fraction = pc.utf8_rpad(fraction, 6, "0")
    zone = pc.if_else(pc.equal(zone, constant("")), constant("Z"), pc.utf8_upper(zone))
    joint = constant("T")
    canonical = pc.binary_join_element_wise(day, joint, time, seconds, fraction, zone, constant(""))
    values, valid = _integers(_cast_dates(canonical))
    return _scaled(values, valid, np.ones(len(values), np.int64))


def _cast_dates(column: pa.Array) -> pa.Array:
    """Cast strings of the one form that is left; days that no calendar has are rare, so they are sought one by one."""
    try:
        return column.cast(DATE)
    except pa.ArrowInvalid:
        return pa.concat_arrays([_cast_date(column.slice(row, 1)) for row in range(len(column))])


def _cast_date(column: pa.Array) -> pa.Array:
    try:
        return column.cast(DATE)
    except pa.ArrowInvalid:
        return pa.nulls(len(column), DATE)
