"""Figures turned into places on a plot: pure arithmetic, no drawing (that is `templates/charts.html.j2`).

Places are in percent of the plot's width and height, from the left and from the top; paths are in a square of
1000 x 1000 that is stretched over the plot. So a chart fits any width and its letters keep their size.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizer.errors import visible

LONGEST_LABEL, LONGEST_NAME = 46, 30
"""Characters of a label inside of a chart, which cannot wrap, beside a short value and beside a longer one; the table
beside the chart has the whole."""

SQUARE = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: its place in percent, and the number that stands at it."""

    at: float
    label: str


@dataclasses.dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a row, in percent of the width. `kind` is a class of the style sheet."""

    left: float
    width: float
    kind: str


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A row of a chart of bars: a label, the value as it is read, and the bars."""

    label: str
    value: str
    bars: tuple[Bar, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column of a histogram, in percent: left edge, width, height."""

    left: float
    width: float
    height: float


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart: its name, the class of its style, its path, and dots (left, top) in percent."""

    name: str
    kind: str
    path: str
    dots: tuple[tuple[float, float], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class LineChart:
    """Lines over the steps of a run, with the ticks of both axes."""

    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """A range of numbers [low, high], low below high, and the distance of its ticks."""

    low: float
    high: float
    distance: float

    @classmethod
    def over(cls, values: Iterable[float | None], *, include: Sequence[float] = (), ticks: int = 4) -> Axis:
        """Return an axis of round numbers over all of the values that are numbers, and over those to include."""
        present = [*(value for value in values if value is not None), *include] or [0.0]
        low, high = min(present), max(present)
        if low == high:
            low, high = low - (abs(low) / 2 or 1.0), high + (abs(high) / 2 or 1.0)
        distance = _round_up((high - low) / ticks)
        return cls(math.floor(low / distance) * distance, math.ceil(high / distance) * distance, distance)

    @property
    def intervals(self) -> int:
        """The whole distances between ticks that fit."""
        return math.floor((self.high - self.low) / self.distance + 1e-9)

    def place(self, value: float) -> float:
        """Return where a value lies, as a share of the axis."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return the ticks: share of the axis, and text with just the digits that tell neighbours apart."""
        digits = max(0, -math.floor(math.log10(self.distance) + 1e-9))
        if self.distance / 10**-digits % 1 > 1e-6:  # 2.5 needs a digit more than 2
            digits += 1
        numbers = [self.low + n * self.distance for n in range(self.intervals + 1)]
        small = digits > 4
        return [(self.place(number), f"{number:.1e}" if small else f"{number:,.{digits}f}") for number in numbers]


def _round_up(distance: float) -> float:
    """Return the least of 1, 2, 2.5 and 5 times a power of ten that is not below a distance."""
    power = 10.0 ** math.floor(math.log10(distance))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= distance * (1 - 1e-9))


def shown_label(text: str, longest: int = LONGEST_LABEL) -> str:
    """Return a label that fits into a chart."""
    shown = visible(text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def waterfall(rows: Sequence[dict[str, Any]]) -> list[Row]:
    """Return the documents of a waterfall: totals from the left edge, each change where the one before it ended."""
    highest, at = 0, 0
    spans: list[tuple[int, int]] = []
    for row in rows:
        start, end = (0, row["documents"]) if row["kind"] == "total" else (at, at + row["documents"])
        spans.append((min(start, end), max(start, end)))
        highest, at = max(highest, spans[-1][1]), end
    charted = []
    for row, (low, high) in zip(rows, spans, strict=True):
        total, documents = row["kind"] == "total", row["documents"]
        if total or documents:
            kind = "total" if total else ("gain" if documents > 0 else "loss")
            bar = Bar(_percent(low, highest), _percent(high - low, highest), kind)
            charted.append(Row(shown_label(row["label"]), grouped(documents) if total else signed(documents), (bar,)))
    return charted


def grouped(value: int) -> str:
    """Return an integer with thousands separators."""
    return f"{value:,}"


def signed(value: int) -> str:
    """Return an integer with its sign and thousands separators."""
    return f"{'−' if value < 0 else '+'}{abs(value):,}" if value else "0"


def shares(sources: Sequence[dict[str, Any]]) -> list[Row]:
    """Return two bars a source: its share of the sequences as asked for, and as planned."""
    highest = max((max(row["asked_share"] or 0, row["share"] or 0) for row in sources), default=0)
    return [
        Row(
            shown_label(row["source"], LONGEST_NAME),
            f"{percent(row['asked_share'])} / {percent(row['share'])}",
            tuple(
                Bar(0, _percent(row[name] or 0, highest), kind)
                for name, kind in (("asked_share", "asked"), ("share", "total"))
            ),
        )
        for row in sources
    ]


def paddings(sources: Sequence[dict[str, Any]]) -> list[Row]:
    """Return a bar a source: the share of padding in its stream tokens, on one scale."""
    highest = max((row["padding_share"] or 0 for row in sources), default=0)
    return [
        Row(
            shown_label(row["source"]),
            percent(row["padding_share"], 3),
            (Bar(0, _percent(row["padding_share"] or 0, highest), "loss"),),
        )
        for row in sources
    ]


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share in percent; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def histogram(bins: Sequence[dict[str, int]], first: int, last: int) -> list[Column]:
    """Return a column for each bin on an axis from length `first` to `last`, both powers of two."""
    slots = max(1, (last // first).bit_length() - 1)
    highest = max((some["documents"] for some in bins), default=0)
    return [
        Column(
            100 * ((some["from"] // first).bit_length() - 1) / slots + 6 / slots,
            88 / slots,
            _percent(some["documents"], highest),
        )
        for some in bins
    ]


def length_ticks(first: int, last: int) -> list[Tick]:
    """Return at most six ticks of an axis of lengths from `first` to `last`, both powers of two."""
    slots = max(1, (last // first).bit_length() - 1)
    every = -(-slots // 5)
    return [Tick(100 * slot / slots, short(first << slot)) for slot in range(0, slots + 1, every)]


def short(value: int) -> str:
    """Return a power of two in few characters: 8192 is 8k."""
    for unit, name in ((1 << 20, "M"), (1 << 10, "k")):
        if value >= unit:
            return f"{value // unit}{name}"
    return str(value)


def line_chart(x: Axis, y: Axis, lines: Iterable[tuple[str, str, Sequence[tuple[float, float | None]]]]) -> LineChart:
    """Return a chart of lines (name, kind, points); a kind that ends with "dots" has a dot at every point."""
    return LineChart(
        tuple(Tick(100 * share, label) for share, label in x.ticks()),
        tuple(Tick(100 - 100 * share, label) for share, label in y.ticks()),
        tuple(_line(name, kind, points, x, y) for name, kind, points in lines),
    )


def _line(name: str, kind: str, points: Sequence[tuple[float, float | None]], x: Axis, y: Axis) -> Line:
    """Return a line; it is broken where there is no number."""
    commands, drawing = [], False
    for at, value in points:
        if value is None:
            drawing = False
            continue
        left, top = SQUARE * x.place(at), SQUARE - SQUARE * y.place(value)
        commands.append(f"{'L' if drawing else 'M'}{left:.1f} {top:.1f}")
        drawing = True
    dots = [(100 * x.place(at), 100 - 100 * y.place(value)) for at, value in points if value is not None]
    return Line(name, kind, "".join(commands), tuple(dots) if kind.endswith("dots") else ())


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0


def loss_chart(training: dict[str, Any]) -> LineChart:
    """Return the chart of the training loss, the evaluations, and the unigram model's loss as a level."""
    curve, evaluations = training["curve"], training["evaluations"]
    x = _steps(training)
    losses = [*(point["loss"] for point in curve), *(entry["loss"] for entry in evaluations)]
    unigram = evaluations[-1]["unigram"] if evaluations else None
    lines = [("training", "first", [(point["step"], point["loss"]) for point in curve])]
    if evaluations:
        lines.append(("validation", "second dots", [(entry["step"], entry["loss"]) for entry in evaluations]))
        lines.append(("unigram model", "level", [(x.low, unigram), (x.high, unigram)]))
    return line_chart(x, Axis.over([*losses, unigram]), lines)


def curve_chart(training: dict[str, Any], names: Sequence[tuple[str, str, str]], include: Sequence[float]) -> LineChart:
    """Return the chart of some columns (key, name, kind) of the thinned curve; the axis includes some numbers."""
    curve = training["curve"]
    y = Axis.over([point[key] for key, _, _ in names for point in curve], include=include)
    lines = [(name, kind, [(point["step"], point[key]) for point in curve]) for key, name, kind in names]
    return line_chart(_steps(training), y, lines)


def _steps(training: dict[str, Any]) -> Axis:
    steps = [entry["step"] for entry in (*training["curve"], *training["evaluations"])]
    axis = Axis.over([0.0, *steps], ticks=6)
    return Axis(0.0, max(steps, default=1) or 1, axis.distance)
