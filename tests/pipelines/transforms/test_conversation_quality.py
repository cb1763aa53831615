"""Rules for conversations: turns by hand, orders of roles, refusals and look-alikes, tool calls, hostile turns."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import batch_of, document

from pipelines.sources.conversations import Conversations, Turn, join_turns
from pipelines.sources.source import BatchLimits, RawAccount
from pipelines.storage.local import LocalStorage
from pipelines.transforms.conversation_quality import (
    BROKEN_TOOL_CALLS,
    CHARACTERS,
    EMPTY_TURNS,
    LONGEST_TURN,
    MISPLACED_TURNS,
    REFUSED_TURNS,
    REPEATED_TURNS,
    TURNS,
    ConversationQuality,
    is_broken_call,
)

DATA = Path(__file__).resolve().parents[3] / "../shared/data/instructions"
ROLES = {"s": "system", "u": "user", "a": "assistant", "t": "tool", "x": "robot"}


def talk(*turns: tuple[str, str]) -> dict:
    """Return a document of turns (the role's first letter, text), as the reader makes it."""
    text, spans = join_turns([Turn(ROLES[role], said, 0) for role, said in turns])
    return document(text, turns=spans)


def spans(text: str, *turns: tuple[str | None, int | None, int | None]) -> dict:
    """Return a document with any turns."""
    return document(
        text, turns=[dict(zip(("role", "start", "end", "weight"), (*turn, 0), strict=True)) for turn in turns]
    )


def count(row: dict, **fields: object):
    """Return the statistics of one document."""
    return ConversationQuality(**fields).measured(batch_of([row]))[1][0]


def judge(row: dict, **fields: object) -> tuple[str, str] | None:
    """Return rule and value of the verdict."""
    verdict = ConversationQuality(**fields)(batch_of([row])).column("verdict")[0].as_py()
    return verdict and (verdict["reason"].removeprefix("conversation_quality."), verdict["value"])


# roles: misplaced turns, the end counted
ORDERS = {
    "ua": 0, "uaua": 0, "sua": 0, "uata": 0, "suatta": 0, "uataua": 0,
    "u": 1,  # ends with the user
    "a": 1,  # nobody asked
    "ssua": 1, "usa": 2,  # a second system turn; one behind the user, and the assistant behind it
    "uua": 1, "uaa": 1, "uat": 1, "uta": 1, "ta": 1, "sa": 1,
    "uaxa": 1, "xa": 1, "s": 1, "tt": 2, "uatu": 2,
}  # fmt: skip


@pytest.mark.parametrize("roles", ORDERS)
def test_orders_of_roles(roles):
    row = talk(*((role, f"text {place}") for place, role in enumerate(roles)))
    assert count(row)[MISPLACED_TURNS] == ORDERS[roles]
    expected = ("max_misplaced_turns", str(ORDERS[roles])) if ORDERS[roles] else None
    assert judge(row, min_turns=None) == expected


def test_turns_are_counted_in_characters():
    """é and the emoji are one character each: 6 + 3 + 1, the joints not."""
    row = talk(("u", "Für é?"), ("a", "\U0001f30a!!"), ("u", "1"))
    stats = count(row)
    assert stats[[TURNS, CHARACTERS, LONGEST_TURN]].tolist() == [3, 10, 6]
    assert judge(row, max_turn_characters=5, max_misplaced_turns=None) == ("max_turn_characters", "6")
    assert judge(row, max_characters=10, min_characters=10, max_misplaced_turns=None) is None
    assert judge(row, max_characters=9, max_misplaced_turns=None) == ("max_characters", "10")
    assert judge(row, min_characters=11, max_misplaced_turns=None) == ("min_characters", "10")


def test_number_of_turns():
    assert judge(talk(("u", "a"), ("a", "b"))) is None
    assert judge(talk(("a", "b"))) == ("min_turns", "1")
    assert judge(document("text", turns=[])) == ("min_turns", "0")
    assert judge(talk(("u", "a"), ("a", "b"), ("u", "c"), ("a", "d")), max_turns=3) == ("max_turns", "4")


@pytest.mark.parametrize("blank", [" ", "\n\t\r", "\u3000\xa0", "\x85\u2028"])
def test_empty_turns(blank):
    assert judge(talk(("u", "Hi."), ("a", blank))) == ("max_empty_turns", "1")
    assert count(talk(("u", "Hi."), ("a", blank + ".")))[EMPTY_TURNS] == 0
    assert count(spans("Hi.", ("user", 0, 3), ("assistant", 3, 3)))[EMPTY_TURNS] == 1


def test_repeated_turns():
    """The same role and text of 32 characters or more; a third time counts as a second repetition."""
    long, short = "Please tell me more about that. ", "Yes, go on and tell me more. OK"
    assert (len(long), len(short)) == (32, 31)
    answers = [("a", f"Answer {place}") for place in range(3)]
    for said, num in ((long, 2), (short, 0)):
        row = talk(*(turn for answer in answers for turn in (("u", said), answer)))
        assert count(row)[REPEATED_TURNS] == num
    assert judge(talk(("u", long), ("a", long))) is None
    assert judge(talk(("u", long), ("a", "x"), ("u", long), ("a", "y"))) == ("max_repeated_turns", "1")
    assert count(talk(("u", short), ("a", "x"), ("u", short), ("a", "y")), repeated_characters=31)[REPEATED_TURNS] == 1


REFUSED = [
    "I'm sorry, but I can't assist with that request.",
    "  **I\u2019M  SORRY**, but I CAN\u2018T help you with that.",  # bold, capitals, other apostrophes
    "I am sorry, but as an AI language model, I do not have access to current prices.",
    "I'm really sorry, but I cannot provide that.",
    "Sorry, I am not able to browse the web.",
    "As an AI, I don't have the ability to order a pizza.",
    "I apologize, but I will not write that.",
    "I cannot fulfill this request.",
    "I can't comply.",
    "I\u2019m unable to assist.",
    "Unfortunately, I am an AI language model, and I do not have the capability to edit images.",
    "很抱歉，我无法帮助您预订机票。",
    "抱歉，作为一个人工智能，我目前没有能力预订机票。",
    "对不起, 我不能提供这些信息。",
]
LOOK_ALIKES = [
    "I'm sorry to hear that. Let us see what can be done.",
    "I'm sorry, but the website is unavailable.",
    "I'm sorry, but you didn't provide the lyrics.",
    "I can't wait to see you!",
    "I can't help but wonder.",
    "I cannot believe it.",
    "Unfortunately, I cannot determine the angle from two sides.",
    "I'm sorry, but I'm unable to come into work today.",
    "As an AI assistant, I would first ask what she needs.",
    "Yes. I cannot fulfill this request alone.",
    "Sorry is the hardest word.",
    "很抱歉听说你有车祸。",
    "抱歉，我无法确定这个句子中的空格处应填入什么形容词。",
    "作为一个医生，他们有责任。",
    "",
]


@pytest.mark.parametrize("text", REFUSED)
def test_refusals(text):
    assert judge(talk(("u", "Please."), ("a", text))) == ("max_refusals", "1")
    assert count(talk(("u", text), ("a", "Yes.")))[REFUSED_TURNS] == 0  # only the assistant refuses


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_what_only_looks_like_a_refusal(text):
    assert count(talk(("u", "Please."), ("a", text)))[REFUSED_TURNS] == 0


def test_refusals_of_ones_own():
    row = talk(("u", "Hi."), ("a", "Nope!"), ("u", "Why?"), ("a", "Because nope."))
    assert judge(row, refusals=("nope",)) == ("max_refusals", "1")
    assert judge(row, refusals=("nope", "because n.pe")) == ("max_refusals", "2")
    assert judge(talk(("u", "Hi."), ("a", REFUSED[0])), refusals=()) is None
    with pytest.raises(ValueError, match=r"(?s)refusals: '\(' is no regular expression.*hint: "):
        ConversationQuality(refusals=("(",))


@given(st.text(st.sampled_from("aB'\u2019`\u2018 \n\u3000*é水1"), max_size=30))
def test_folding(text):
    """The beginning against Python's own string methods."""
    folded = re.sub(r"[\u2018\u2019\u0060]", "'", re.sub(r"\s+", " ", text.replace("*", "").strip())).replace("B", "b")
    folded = re.sub(r"^[^\w]+", "", folded)
    pattern = re.escape(folded) + "$"
    assert count(talk(("u", "Hi."), ("a", text)), refusals=(pattern,))[REFUSED_TURNS] == 1


CALL = '{"name": "f", "arguments": {"x": 1}}'
# text of the turn before the tool's: whether its call is broken
CALLS = {
    CALL: False,
    f"Let me see.\n\n{CALL}": False,
    f"[{CALL}, {CALL}]": False,
    f"{CALL}\n{CALL}": False,
    f"```json\n{CALL}\n```": False,
    f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>{CALL}</tool_call>": False,
    f'{{"draft": 1}}\n\nNo, rather:\n\n{CALL}': False,
    '{"function": {"name": "f", "arguments": "{\\"x\\": 1}"}}': False,
    "get_weather(city='Bonn')": False,  # no JSON: not judged
    "[get_weather(city='Bonn')]": False,
    "Action: search": False,
    "x = [\n{1: 2},\n]": False,  # a line amid a paragraph
    CALL[:-1]: True,
    "{'name': 'f'}": True,
    f"<tool_call>{CALL}</tool_call><tool_call>{CALL[:-2]}</tool_call>": True,
    "<tool_call>": True,
    '{"name": "f", "arguments": "{x: 1}"}': True,
    '{"function": {"name": "f", "arguments": "{"}}': True,
    "[{}, 1]": True,
    "{" * 5000: True,
    '{"a": NaN}': True,
}


@pytest.mark.parametrize("text", CALLS)
def test_tool_calls(text):
    assert is_broken_call(text.encode()) == CALLS[text]
    row = talk(("u", "Hi."), ("a", text), ("t", "{"), ("a", "So."))
    assert judge(row) == (("max_broken_tool_calls", "1") if CALLS[text] else None)
    assert count(talk(("u", "Hi."), ("a", text)))[BROKEN_TOOL_CALLS] == 0  # no tool was called


def test_plain_text_passes():
    filter_ = ConversationQuality(values=True)
    result = filter_(batch_of([document(REFUSED[0]), document(None)]))
    assert result.column("verdict").null_count == 2
    assert all(result.column(name).null_count == 2 for name in filter_.value_columns.names)


BAD_SPANS = [(-1, 2), (0, 4), (2, 1), (3, 99), (None, 2), (0, None), (1 << 62, 1 << 62), (-(1 << 63), (1 << 63) - 1)]


@pytest.mark.parametrize("span", BAD_SPANS)
def test_spans_that_are_none(span):
    """They have a role and no text; `encode` judges them."""
    row = spans("Hi.", ("user", 0, 1), ("assistant", *span))
    assert count(row)[[TURNS, EMPTY_TURNS, CHARACTERS]].tolist() == [2, 0, 1]
    assert judge(row) is None


def test_spans_that_overlap_are_looked_at_once():
    """A hundred thousand turns over the same megabyte cost no more than one."""
    text = "word " * 200_000
    row = spans(text, *(("user" if place % 2 == 0 else "assistant", 0, len(text)) for place in range(100_000)))
    count(talk(("u", "a"), ("a", "b")))
    start = time.process_time()
    stats = count(row)
    assert time.process_time() - start < 5
    assert stats[[TURNS, CHARACTERS]].tolist() == [100_000, len(text)]


def test_a_span_that_cuts_a_character():
    row = spans("Üx", ("user", 0, 1), ("assistant", 1, 3))
    assert judge(row) is None
    assert judge(spans("a{\xdc", ("user", 0, 1), ("assistant", 1, 3), ("tool", 3, 3), ("assistant", 4, 4)))[0] in (
        "max_empty_turns",
        "max_broken_tool_calls",
    )


def test_null_roles_and_null_turns():
    batch = batch_of([spans("Hi.", (None, 0, 1), ("assistant", 1, 2)), document("Hi.", turns=[None, None])])
    stats = ConversationQuality().measured(batch)[1]
    assert stats[:, MISPLACED_TURNS].tolist() == [1, 3]
    assert stats[:, TURNS].tolist() == [2, 2]


ROWS = st.lists(
    st.lists(st.tuples(st.sampled_from([*ROLES.values(), None]), st.integers(-2, 12), st.integers(-2, 12)), max_size=5),
    max_size=5,
)


@settings(deadline=None)
@given(ROWS, ROWS)
def test_batching_changes_nothing(left, right):
    """f(a + b) = f(a) + f(b), on slices too, for any turns."""
    filter_ = ConversationQuality(values=True, repeated_characters=1)
    batches = [batch_of(spans("I can't help", *row) for row in rows) for rows in (left, right, left + right)]
    parts = [filter_(batch).to_pylist() for batch in batches]
    assert parts[2] == parts[0] + parts[1]
    assert filter_(batches[2].slice(len(left))).to_pylist() == parts[1]


@pytest.mark.parametrize(
    "unit", ["a", " ", "\n", "{", "[{\n\n", "\n\n{", "`", "<tool_call>", "sorry, ", "as an ai ", "\0", "\u202e"]
)
def test_hostile_texts_are_bounded(unit):
    """A megabyte in every turn."""
    text = unit * (1_000_000 // len(unit.encode()))
    row = talk(("u", text), ("a", text), ("t", text), ("a", text))
    count(talk(("u", "a"), ("a", "b")))
    start = time.process_time()
    count(row)
    assert time.process_time() - start < 4


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
def test_real_conversations():
    """Of 7,890 conversations only refusals are dropped: the roles are in order, and the calls are JSON."""
    source = Conversations(name="talks", include=("**/*.json", "**/*.jsonl"))
    storage, reasons = LocalStorage(DATA), Counter()
    for split in source.splits(storage):
        for batch in source.read(split, storage, BatchLimits(), RawAccount()):
            kept = batch.filter(batch.column("verdict").is_null())
            verdicts = ConversationQuality()(kept).column("verdict").to_pylist()
            reasons.update(verdict["reason"] if verdict else None for verdict in verdicts)
    print(reasons)
    assert set(reasons) == {None, "conversation_quality.max_refusals"}
    assert 100 <= reasons["conversation_quality.max_refusals"] <= 130


def test_the_columns_are_measured():
    """What a rule measured stays as a column where there are turns."""
    batch = batch_of([talk(("u", "Hi."), ("a", REFUSED[0])), document("plain")])
    result = ConversationQuality(values=True, drop=False)(batch)
    assert result.column("conversation_quality_max_refusals").to_pylist() == [1.0, None]
    assert result.column("verdict").null_count == 2
    assert result.schema.field("conversation_quality_min_turns").type == pa.float64()
