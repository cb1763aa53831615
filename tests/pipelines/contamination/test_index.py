"""The index: what is refused and merged on the way, its bytes, and files that are none."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contamination_indexes import QUESTIONS, small_index

from pipelines.contamination import index as index_module
from pipelines.contamination.build import SetCounts, build_index
from pipelines.contamination.canary_words import canary_items
from pipelines.contamination.index import ITEMS, KEY, ContaminationIndex
from pipelines.contamination.items import Item
from pipelines.errors import HeadraceError


def items(*questions: str, name: str = "s", answer: str = "") -> list[tuple[str, Item]]:
    return [(name, Item(f"{name}:{place}", question, answer)) for place, question in enumerate(questions)]


def test_what_becomes_of_items():
    one, two = list(QUESTIONS.values())[:2]
    given = [
        *items(one, "Too short?", one.upper() + "!"),
        *items(two, two, "Why is it so late?", name="t", answer="no idea."),
    ]
    index, counts = build_index(given, [("s", "f" * 64)])
    assert counts == {"s": SetCounts(3, 1, 1, 0, 1), "t": SetCounts(3, 1, 1, 0, 1)}
    assert index.items.column("item").to_pylist() == ["s:0", "t:0", *(item.name for item in canary_items())]


def test_a_short_question_is_taken_with_its_answer():
    """Five words and three: eight in all."""
    index, _ = build_index(items("Why is it so late?", answer="It is not!"), [])
    assert index.items.column("question")[0].as_py() == "Why is it so late?\nIt is not!"
    assert index.items.column("answer")[0].as_py() == "It is not!"


def test_items_that_are_a_template_only_are_counted():
    """What 40 items of 41 are made of weighs little, the four words beside it too little for one of nine words."""
    stem = "which of the following is true of the"
    given = items(*(f"{stem} number {place} of {place + 1} mills and millers" for place in range(40)), stem)
    _, counts = build_index(given, [])
    assert (counts["s"].templates, counts["s"].indexed) == (1, 40)


def test_the_file_depends_on_its_items_alone():
    given = items(*QUESTIONS.values())
    packed = build_index(given, [("s", "0" * 64)])[0].pack()
    assert packed == build_index(given, [("s", "0" * 64)])[0].pack()
    assert packed != build_index(given, [("s", "1" * 64)])[0].pack()
    read = ContaminationIndex.unpack(packed, "x")
    assert read.pack() == packed
    assert read.inputs == (("s", "0" * 64),)


@pytest.mark.parametrize("name", ["canary", "", "a:b"])
def test_names_that_no_set_may_have(name):
    with pytest.raises(HeadraceError, match="is no name for a set"):
        build_index(items(*QUESTIONS.values(), name=name), [])


def test_an_index_of_nothing():
    with pytest.raises(HeadraceError, match="2 items: none has 8 words"):
        build_index(items("a", "b"), [])
    with pytest.raises(HeadraceError, match="the name has 302 bytes"):
        build_index([("s", Item("s:" + "x" * 300, "a", ""))], [])


def parquet(about: object, columns: dict[str, list[str]], schema: pa.Schema | None = None) -> bytes:
    table = pa.table(columns, schema=schema or ITEMS)
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({KEY: json.dumps(about).encode()}), sink)
    return sink.getvalue()


GOOD = {"item": ["a:1"], "question": ["x"], "answer": [""]}
ABOUT = {"version": 1, "inputs": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no sound Parquet file"),
        (small_index().read()[:-9], "no sound Parquet file"),
        (parquet({}, GOOD), "metadata do not say so"),
        (parquet([], GOOD), "metadata do not say so"),
        (parquet({"version": 2, "inputs": []}, GOOD), "version 2, here it is 1"),
        (parquet(ABOUT, {key: [] for key in GOOD}), "has no items"),
        (parquet(ABOUT, {**GOOD, "item": ["x" * 300]}), "300 bytes, at most 256"),
        (parquet(ABOUT, {"item": ["a"]}, pa.schema([("item", pa.string())])), "its columns are item"),
    ],
)
def test_files_that_are_no_index(content, message):
    with pytest.raises(HeadraceError, match=rf"x: is no contamination index: .*{message}.*\nhint: run headrace contam"):
        ContaminationIndex.unpack(content, "x")


def test_damage_anywhere_is_an_error_or_harmless():
    """A byte that is changed makes a file that is refused, or one with other items: never another exception."""
    packed = bytearray(small_index().read())
    for place in range(0, len(packed), 7):
        packed[place] ^= 0xFF
        try:
            read = ContaminationIndex.unpack(bytes(packed), "x")
            assert read.items.schema.equals(ITEMS)
        except HeadraceError:
            pass
        packed[place] ^= 0xFF


def test_too_much_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(index_module, "MAX_TEXT_BYTES", 100)
    with pytest.raises(HeadraceError, match="are more than it may have"):
        ContaminationIndex.unpack(small_index().read(), "x")
