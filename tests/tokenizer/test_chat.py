"""Rendering of turns: goldens worked out by hand, a plain Python model as a property, and every fault of turns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer.chat import LOSS, TURN_FAULTS, turn_faults
from tokenizer.encode import encode_documents
from tokenizer.encodings import CL100K_BASE, ENCODINGS, O200K_BASE, Encoding, build_tiktoken

TURNS = pa.list_(
    pa.struct(
        [
            pa.field("role", pa.string(), nullable=False),
            pa.field("start", pa.int64(), nullable=False),
            pa.field("end", pa.int64(), nullable=False),
            pa.field("weight", pa.int16(), nullable=False),
        ]
    )
)
Turn = tuple[str, int, int, int]


def column(*texts: str) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def turns(*documents: list[Turn] | None) -> pa.ListArray:
    names = ("role", "start", "end", "weight")
    rows = [
        None if document is None else [dict(zip(names, turn, strict=True)) for turn in document]
        for document in documents
    ]
    return pa.array(rows, TURNS)


def spans(loss: pa.ListArray) -> list[list[tuple[int, int, int]] | None]:
    return [None if row is None else [tuple(span.values()) for span in row] for row in loss.to_pylist()]  # type: ignore[misc]


def test_a_conversation_by_hand() -> None:
    # "Hi" = 13347, "hello world" = 15339 1917; between the turns stands a newline that is not rendered
    text = column("Hi\nhello world\n")
    encoded = encode_documents(CL100K_BASE, text, turns([("user", 0, 2, 0), ("assistant", 3, 14, 256)]))
    expected = [100_279, 13_347, 100_277, 100_280, 15_339, 1_917, 100_277, 100_257]
    assert encoded.ids.to_pylist() == [expected]
    assert encoded.loss.type == LOSS
    assert spans(encoded.loss) == [[(4, 8, 256)]]  # not the marker at 3; both words, end-of-turn, end-of-text


def test_weights_of_several_turns_by_hand() -> None:
    text = column("Hihello world")
    given_turns = turns([("system", 0, 2, 1), ("tool", 2, 2, 7), ("assistant", 2, 13, 128), ("user", 13, 13, 0)])
    encoded = encode_documents(O200K_BASE, text, given_turns)
    # system, Hi, end | tool, end | assistant, hello, world, end | user, end | end-of-text
    expected = [200_020, 12_194, 200_019, 200_023, 200_019, 200_022, 24_912, 2_375, 200_019, 200_021, 200_019, 199_999]
    assert encoded.ids.to_pylist() == [expected]
    assert spans(encoded.loss) == [[(1, 3, 1), (4, 5, 7), (6, 9, 128)]]  # the last turn, and end-of-text, weigh 0


def test_plain_documents_no_loss_and_no_turns() -> None:
    text = column("Hi", "", "Hi", "")
    encoded = encode_documents(CL100K_BASE, text, turns(None, None, [("user", 0, 2, 0)], []))
    assert encoded.ids.to_pylist() == [[13_347, 100_257], [100_257], [100_279, 13_347, 100_277, 100_257], [100_257]]
    assert spans(encoded.loss) == [None, None, [], []]
    plain = encode_documents(CL100K_BASE, text)
    assert plain.loss.null_count == 4
    assert plain.loss.type == LOSS


def test_special_names_in_a_turn_are_text() -> None:
    text = column("<|endoftext|>")
    ids = encode_documents(CL100K_BASE, text, turns([("user", 0, 13, 0)])).ids[0].as_py()
    assert ids == [100_279, *build_tiktoken(CL100K_BASE).encode_ordinary("<|endoftext|>"), 100_277, 100_257]


def model(
    encoding: Encoding, text: str, document: list[Turn] | None
) -> tuple[list[int], list[tuple[int, int, int]] | None]:
    """Render one document token by token, with a weight for each, and merge."""
    encode = build_tiktoken(encoding).encode_ordinary
    if document is None:
        return [*encode(text), encoding.end_of_text], None
    ids: list[int] = []
    weights: list[int] = []
    for role, start, end, weight in document:
        content = encode(text.encode()[start:end].decode())
        ids += [getattr(encoding.roles, role), *content, encoding.roles.end_of_turn]
        weights += [0] + [weight] * (len(content) + 1)
    ids.append(encoding.end_of_text)
    weights.append(document[-1][3] if document else 0)
    merged: list[tuple[int, int, int]] = []
    for place, weight in enumerate(weights):
        if merged and merged[-1][1] == place and merged[-1][2] == weight:
            merged[-1] = (merged[-1][0], place + 1, weight)
        elif weight:
            merged.append((place, place + 1, weight))
    return ids, merged


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, list[Turn] | None]:
    contents = st.text(st.sampled_from("ab \n\u00e9\u3042\U0001f600\U00011db3'"), max_size=6)
    if draw(st.booleans()):
        return draw(contents), None
    blanks = st.text(st.sampled_from(" \n\t\r"), max_size=2)
    roles = st.sampled_from(["system", "user", "assistant", "tool"])
    weights = st.sampled_from([0, 0, 1, 255, 256])
    text, document = draw(blanks), []
    for content in draw(st.lists(contents, max_size=4)):
        start = len(text.encode())
        document.append((draw(roles), start, start + len(content.encode()), draw(weights)))
        text += content + draw(blanks)
    return text, document


@settings(max_examples=300, deadline=None)
@given(st.lists(documents(), max_size=6), st.data(), st.sampled_from(["tiktoken", "gigatoken"]))
def test_batches_equal_the_model_and_do_not_depend_on_their_cuts(
    rows: list[tuple[str, list[Turn] | None]], data: st.DataObject, encoder: str
) -> None:
    encoding = data.draw(st.sampled_from(list(ENCODINGS.values())))
    text, given_turns = column(*(row[0] for row in rows)), turns(*(row[1] for row in rows))
    expected = [model(encoding, *row) for row in rows]
    start = data.draw(st.integers(0, len(rows)))
    size = data.draw(st.integers(0, len(rows) - start))
    for first, count in ((0, len(rows)), (start, size)):
        part = encode_documents(encoding, text.slice(first, count), given_turns.slice(first, count), encoder)
        part.ids.validate(full=True)
        part.loss.validate(full=True)
        assert part.ids.to_pylist() == [ids for ids, _ in expected[first : first + count]]
        assert spans(part.loss) == [loss for _, loss in expected[first : first + count]]


FAULTY: dict[str, Any] = {
    "turn_role": [("narrator", 0, 1, 0)],
    "turn_range": [("user", 0, 9, 0)],
    "turn_order": [("user", 0, 3, 0), ("user", 2, 4, 0)],
    "turn_boundary": [("user", 0, 2, 0)],
    "turn_weight": [("user", 0, 1, 257)],
    "turn_gap": [("user", 0, 3, 0)],
}


@pytest.mark.parametrize("fault", FAULTY)
def test_faults_are_told_and_refused(fault: str) -> None:
    text = column("h\u00e9llo..", "h\u00e9llo", "plain")  # 5 letters in 6 bytes, e-acute is bytes 1 and 2
    given_turns = turns([("user", 0, 8, 0)], FAULTY[fault], None)
    assert [TURN_FAULTS[code] for code in turn_faults(text, given_turns)] == ["", fault, ""]
    assert [TURN_FAULTS[code] for code in turn_faults(text.slice(1), given_turns.slice(1))] == [fault, ""]
    with pytest.raises(ValueError, match=f"row 1: {fault}"):
        encode_documents(CL100K_BASE, text, given_turns)


@pytest.mark.parametrize(
    ("turn", "fault"),
    [
        (("user", -1, 1, 0), "turn_range"),
        (("user", 3, 1, 0), "turn_range"),
        (("user", 0, 7, 0), "turn_range"),
        (("user", 6, 6, 0), "turn_gap"),
        (("user", 0, 6, 0), ""),
        (("user", 2, 3, 0), "turn_boundary"),
        (("user", 1, 3, -1), "turn_weight"),
        (("user", 1, 3, 256), "turn_gap"),
        (("User", 1, 3, 256), "turn_role"),
        (("user", 1 << 62, (1 << 62) + 1, 0), "turn_range"),
    ],
)
def test_edges_of_faults(turn: Turn, fault: str) -> None:
    assert TURN_FAULTS[turn_faults(column("h\u00e9llo"), turns([turn]))[0]] == fault


def test_null_turn_is_a_fault() -> None:
    nullable = pa.list_(pa.struct([pa.field(field.name, field.type) for field in TURNS.value_type]))
    broken = pa.array([[None], [{"role": "user", "start": None, "end": 1, "weight": 0}]], nullable)
    assert np.count_nonzero(turn_faults(column("abc", "abc"), broken)) == 2


def test_bad_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="row 1: its text is null"):
        encode_documents(CL100K_BASE, pa.array(["a", None], pa.large_string()))
    with pytest.raises(ValueError, match="expected large_string"):
        encode_documents(CL100K_BASE, pa.array(["a"], pa.string()))
    with pytest.raises(ValueError, match="1 rows for 2 texts"):
        encode_documents(CL100K_BASE, column("a", "b"), turns(None))
    invalid = pa.LargeStringArray.from_buffers(1, pa.py_buffer(np.array([0, 2])), pa.py_buffer(b"\xf0\x9f"))
    with pytest.raises(ValueError, match="UTF8"):
        encode_documents(CL100K_BASE, invalid)
