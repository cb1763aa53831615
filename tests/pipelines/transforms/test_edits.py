"""Spans cut and replaced, and turns moved with them: by hand, and against Python's bytes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_text import column, edits_of, text_batch

from pipelines.transforms.edits import apply_edits, is_breaks, with_room

REPLACEMENTS = (b"", b"\n", b"<EMAIL>", "é".encode())


def turns_of(*places: tuple[int, int]) -> list[dict]:
    return [{"role": "user", "start": start, "end": end, "weight": 256} for start, end in places]


def places_of(batch: pa.RecordBatch) -> list[list[tuple[int, int]] | None]:
    rows = batch.column("turns").to_pylist()
    return [row and [(turn["start"], turn["end"]) for turn in row] for row in rows]


def edited(text: bytes, edits: list[tuple[int, int, int]]) -> bytes:
    """Return the text with its edits (start, end, kind), from behind."""
    for start, end, kind in reversed(edits):
        text = text[:start] + REPLACEMENTS[kind] + text[end:]
    return text


def moved(place: int, edits: list[tuple[int, int, int]]) -> int:
    """Return where a place of the text before is afterwards: behind what took the place of the span that it was in."""
    shift = 0
    for start, end, kind in edits:
        if start < place:
            place = max(place, end)
            shift += len(REPLACEMENTS[kind]) - (end - start)
    return place + shift


def test_by_hand():
    # "ab cd ef": "b " (1 to 3) goes, "d" (4) becomes <EMAIL>: "ac<EMAIL> ef"
    batch = text_batch(["ab cd ef", None, "xy"], [turns_of((0, 2), (3, 5), (4, 8)), None, turns_of((0, 2))])
    result = apply_edits(batch, edits_of((0, 1, 3, 0), (0, 4, 5, 2)), REPLACEMENTS)
    result.validate(full=True)
    assert result.column("text").to_pylist() == ["ac<EMAIL> ef", None, "xy"]
    # 0 stays; 2 is within "b " and goes to its end, 1; 3 becomes 1; 5 is the end of "d": 9; 4 is where "d" begins: 2
    assert places_of(result) == [[(0, 1), (1, 9), (2, 12)], None, [(0, 2)]]
    assert result.schema == batch.schema
    assert result.column("verdict").equals(batch.column("verdict"))


def test_nothing_to_do():
    batch = text_batch(["a", None])
    assert apply_edits(batch, edits_of()) is batch
    plain = batch.drop_columns("turns")
    assert apply_edits(plain, edits_of((0, 0, 1, 0))).column("text").to_pylist() == ["", None]


def test_slices_and_null_turns():
    """Rows before the slice, and turns of theirs, are not there."""
    turns = [turns_of((0, 1), (1, 3)), None, turns_of((1, 2)), [], turns_of((0, 4), (4, 5))]
    batch = text_batch(["abc", "d", None, "é", "fghij"], turns).slice(1)
    result = apply_edits(batch, edits_of((2, 0, 2, 1), (3, 2, 4, 3)), REPLACEMENTS)
    result.validate(full=True)
    assert result.column("text").to_pylist() == ["d", None, "\n", "fgéj"]
    assert places_of(result) == [None, [(1, 2)], [], [(0, 4), (4, 5)]]


@st.composite
def rows(draw) -> tuple[str | None, list[tuple[int, int, int]], list[tuple[int, int]] | None]:
    """Return a text, edits in order that do not overlap, and turns anywhere, also beyond the text."""
    text = draw(st.none() | st.text(st.sampled_from("ab é水\n"), max_size=12))
    places = np.cumsum([0, *(len(character.encode()) for character in text or "")]).tolist()
    bounds = sorted(draw(st.lists(st.sampled_from(places), max_size=8))) if text else []
    edits = [(a, b, draw(st.integers(0, 3))) for a, b in zip(bounds[::2], bounds[1::2], strict=False) if a < b]
    turns = draw(st.none() | st.lists(st.tuples(st.integers(-1, 40), st.integers(-1, 40)), max_size=5))
    return text, edits, turns


@settings(deadline=None)
@given(st.lists(rows(), min_size=1, max_size=5), st.integers(0, 2))
def test_text_and_turns_are_those_of_python(rows, skipped):
    turns = [row and turns_of(*row) for _, _, row in rows]
    batch = text_batch([text for text, _, _ in rows], turns).slice(skipped)
    rows = rows[skipped:]
    edits = edits_of(*((row, *edit) for row, (_, edits, _) in enumerate(rows) for edit in edits))
    result = apply_edits(batch, edits, REPLACEMENTS)
    result.validate(full=True)
    expected = [None if text is None else edited(text.encode(), edits).decode() for text, edits, _ in rows]
    assert result.column("text").to_pylist() == expected
    assert places_of(result) == [
        turns if turns is None else [(moved(a, edits), moved(b, edits)) for a, b in turns] for _, edits, turns in rows
    ]
    roles = [row and [turn["role"] for turn in row] for row in result.column("turns").to_pylist()]
    assert roles == [row and ["user"] * len(row) for _, _, row in rows]


def test_many_turns_and_many_edits_of_one_row():
    """Turns times edits, 4 * 10^10, would not end within the minute."""
    num = 200_000
    text = "ab" * num
    turns = turns_of(*((2 * k, 2 * k + 2) for k in reversed(range(num))))  # in no order that helps
    spans = np.zeros((num, 4), np.int64)
    spans[:, 1] = np.arange(num) * 2 + 1
    spans[:, 2] = spans[:, 1] + 1
    batch, edits = text_batch([text], [turns]), edits_of(*map(tuple, spans.tolist()))
    result = apply_edits(batch, edits)
    assert result.column("text")[0].as_py() == "a" * num
    assert places_of(result)[0][:2] == [(num - 1, num), (num - 2, num - 1)]


def test_broken_text_is_cut_as_bytes():
    text = pa.Array.from_buffers(
        pa.large_string(), 1, [None, pa.py_buffer(np.array([0, 4], np.int64)), pa.py_buffer(b"\xe4a\xffb")]
    )
    result = apply_edits(text_batch(text), edits_of((0, 1, 2, 1)), REPLACEMENTS)
    assert result.column("text").cast(pa.large_binary())[0].as_py() == b"\xe4\n\xffb"


@pytest.mark.parametrize("room", [1, 4, 5])
def test_room_grows_and_keeps_what_is_there(room):
    spans = np.arange(16, dtype=np.int64).reshape(4, 4)
    larger = with_room(spans, room)
    assert larger[:4].tolist() == spans.tolist()
    assert len(larger) == (4 if room <= 4 else 2 * room)


@pytest.mark.parametrize(
    ("text", "num", "expected"),
    [("", 0, True), ("\n", 1, True), ("\n\n", 1, False), ("\r\n", 2, False), ("\n\n", 2, True)],
)
def test_breaks(text, num, expected):
    assert is_breaks(np.frombuffer(bytearray(f"a{text}b".encode()), np.uint8), 1, 1 + len(text), num) == expected


def test_a_column_without_text():
    result = apply_edits(text_batch(column([None, ""])), edits_of((1, 0, 0, 1)), REPLACEMENTS)
    assert result.column("text").to_pylist() == [None, "\n"]
