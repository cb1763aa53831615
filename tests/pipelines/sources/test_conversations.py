"""Conversations: the four schemas by hand, exact spans, weights, refusals with their causes, and the real data sets."""

from __future__ import annotations

import gzip
import json
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import RecipeError
from pipelines.schema import CORE
from pipelines.sources import conversations
from pipelines.sources.conversations import Conversations, NotAConversationError, Turn, join_turns, read_turns
from pipelines.sources.source import BatchLimits, RawAccount
from pipelines.storage.local import LocalStorage

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside this checkout")


def read_all(
    source: Conversations, root: Path, limits: BatchLimits | None = None
) -> tuple[list[dict], list[RawAccount]]:
    """Read every split and check what holds for every reader: schema, rows seen, balance of bytes, exact turns."""
    storage = LocalStorage(root)
    rows: list[dict] = []
    accounts = []
    for split in source.splits(storage):
        account, before = RawAccount(), len(rows)
        for batch in source.read(split, storage, limits or BatchLimits(), account):
            assert batch.schema == pa.schema([*CORE, *source.adds])
            rows += batch.to_pylist()
        assert account.seen == len(rows) - before
        assert account.size == account.records + sum(num_bytes for _, num_bytes in account.gaps.values())
        accounts.append(account)
    for row in rows:
        if row["verdict"] is None:
            check_spans(row)
    return rows, accounts


def check_spans(row: dict) -> None:
    """Turns cover the text but for the blank lines between them, and begin and end at code points."""
    data, place = row["text"].encode(), 0
    for turn in row["turns"]:
        assert turn["start"] == place < turn["end"]
        data[turn["start"] : turn["end"]].decode()
        place = turn["end"] + 2
        assert data[turn["end"] : place] in (b"\n\n", b"")
    assert place == len(data) + 2


def contents(row: dict) -> list[tuple[str, str, int]]:
    data = row["text"].encode()
    return [(turn["role"], data[turn["start"] : turn["end"]].decode(), turn["weight"]) for turn in row["turns"]]


def reason(row: dict) -> str | None:
    return row["verdict"]["reason"] if row["verdict"] else None


MESSAGES = {"messages": [{"role": "user", "content": "Hë?"}, {"role": "assistant", "content": "Ja 😀"}]}


def test_one_conversation_byte_by_byte(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(MESSAGES) + "\n")
    [row], _ = read_all(Conversations("s", ("*",), licence="CC0"), tmp_path)
    assert row["text"] == "Hë?\n\nJa 😀"
    assert row["turns"] == [
        {"role": "user", "start": 0, "end": 4, "weight": 0},
        {"role": "assistant", "start": 6, "end": 13, "weight": 256},
    ]
    payload = '[["user","Hë?"],["assistant","Ja 😀"]]'.encode()
    assert row["content_hash"] == xxhash.xxh3_128_digest(payload)
    assert row["natural_key"] == xxhash.xxh3_128_hexdigest(payload)
    assert (row["licence"], row["origin_offset"]) == ("CC0", 0)


def said(role: str, content: object, **more: object) -> dict:
    return {"role": role, "content": content, **more}


def sharegpt(*turns: tuple[str, str], **more: object) -> dict:
    return {"conversations": [{"from": role, "value": text} for role, text in turns], **more}


ASKED = [("user", "a", 0), ("assistant", "b", 256)]
BY_HAND = [
    (
        sharegpt(("human", "a"), ("function_call", "f()"), ("observation", "1"), ("gpt", "b"), tools="[{}]"),
        [("system", "[{}]", 0), ("user", "a", 0), ("assistant", "f()", 256), ("tool", "1", 0), ("assistant", "b", 256)],
    ),
    (sharegpt(("human", "a"), ("gpt", "b"), system="s", tools="[]"), [("system", "s", 0), *ASKED]),
    (
        {"messages": [said("system", "s"), said("user", "a"), said("assistant", "b")], "tools": [{"name": "f"}]},
        [("system", 's\n\n[{"name":"f"}]', 0), *ASKED],
    ),
    ({"messages": [said("system", ""), said("user", "a"), said("assistant", "b")]}, ASKED),
    (
        {
            "messages": [
                said("user", "a", loss_weight=1),
                said("model", [{"type": "reasoning", "value": "r"}, {"type": "text", "text": "t"}], loss_weight=0.5),
            ]
        },
        [("user", "a", 256), ("assistant", "r\n\nt", 128)],
    ),
    (
        {"instruction": "i", "input": "x", "output": "o", "system": "s", "history": [["a", "b"]]},
        [("system", "s", 0), *ASKED, ("user", "i\n\nx", 0), ("assistant", "o", 256)],
    ),
    ({"instruction": "i", "input": None, "output": "o"}, [("user", "i", 0), ("assistant", "o", 256)]),
    ({"prompt": "p ", "completion": " c"}, [("user", "p ", 0), ("assistant", " c", 256)]),
    (MESSAGES | {"prompt": "Hë?", "prompt_id": "7"}, [("user", "Hë?", 0), ("assistant", "Ja 😀", 256)]),
]


@pytest.mark.parametrize(("row", "turns"), BY_HAND)
def test_schemas_by_hand(row, turns):
    assert [(turn.role, turn.content, turn.weight) for turn in read_turns(row)] == turns


REFUSED = [
    ([], "schema"),
    ("text", "schema"),
    ({"text": "x"}, "schema"),
    ({"instruction": "x"}, "schema"),
    (MESSAGES | {"label": True}, "schema"),
    ({"conversations": [], "chosen": {}, "rejected": {}}, "schema"),
    ({"messages": []}, "empty"),
    ({"messages": {}}, "type"),
    ({"messages": ["x"]}, "type"),
    ({"messages": [{"content": "x"}]}, "role"),
    ({"messages": [{"role": "narrator", "content": "x"}]}, "role"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "role"),
    ({"messages": [{"role": "user"}]}, "type"),
    ({"messages": [{"role": "user", "content": ""}]}, "empty"),
    ({"messages": [{"role": "user", "content": []}]}, "empty"),
    ({"messages": [{"role": "user", "content": 5}]}, "type"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "part"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, "part"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]}, "type"),
    ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "part"),
    ({"messages": [{"role": "user", "content": "x", "loss_weight": 1.01}]}, "weight"),
    ({"messages": [{"role": "user", "content": "x", "loss_weight": True}]}, "weight"),
    ({"messages": [{"role": "user", "content": "x", "loss_weight": float("nan")}]}, "weight"),
    (MESSAGES | {"system": 5}, "type"),
    (MESSAGES | {"tools": 5}, "type"),
    ({"instruction": "", "output": "o"}, "empty"),
    ({"instruction": "i", "output": ""}, "empty"),
    ({"instruction": ["i"], "output": "o"}, "type"),
    ({"instruction": "i", "output": "o", "history": ["ab"]}, "type"),
    ({"prompt": "p", "completion": None}, "type"),
]


@pytest.mark.parametrize(("row", "expected"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_is_no_conversation_says_why(row, expected):
    with pytest.raises(NotAConversationError) as caught:
        read_turns(row)
    assert caught.value.reason == expected
    assert len(str(caught.value)) < 300


def test_the_cause_names_keys_of_preferences(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"conversations": [], "chosen": 1, "rejected": 2}))
    [row], _ = read_all(Conversations("s", ("*",)), tmp_path)
    assert row["verdict"]["outcome"] == "errored"
    assert row["verdict"]["reason"] == "conversation.schema"
    assert row["verdict"]["value"].startswith("a.jsonl at 0: preferences (chosen, rejected)")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(conversations.ROLES)),
            st.text(min_size=1, max_size=20),
            st.none() | st.integers(0, 1) | st.floats(0, 1),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_spans_are_the_contents_whatever_the_text(messages):
    row = {"messages": [{"role": role, "content": text, "loss_weight": weight} for role, text, weight in messages]}
    text, spans = join_turns(read_turns(row))
    check_spans({"text": text, "turns": spans})
    data = text.encode()
    for (role, content, weight), turn in zip(messages, spans, strict=True):
        assert data[turn["start"] : turn["end"]].decode() == content
        assert turn["role"] == conversations.ROLES[role]
        if weight is not None:
            assert abs(turn["weight"] - Fraction(weight) * 256) <= Fraction(1, 2)
        else:
            assert turn["weight"] == (256 if turn["role"] == "assistant" else 0)


@pytest.mark.parametrize(("weight", "expected"), [(0, 0), (1, 256), (0.5, 128), (1 / 512, 1), (0.00195, 0), (0.1, 26)])
def test_weights_by_hand(weight, expected):
    assert read_turns({"messages": [{"role": "user", "content": "x", "loss_weight": weight}]}) == [
        Turn("user", "x", expected)
    ]


KEYS = [
    *("messages", "conversations", "role", "content", "from", "value", "type", "text", "tools", "system"),
    *("instruction", "input", "output", "history", "prompt", "completion", "loss_weight", "user", "assistant"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(JSON)
def test_any_json_is_a_conversation_or_refused(row):
    try:
        turns = read_turns(row)
    except NotAConversationError:
        return
    assert turns
    assert all(turn.content for turn in turns)


def test_a_json_array_and_lines_give_the_same_documents(tmp_path):
    rows = [MESSAGES, {"bad": 1}, {"prompt": "p", "completion": "c", "id": 7}, {"prompt": "\ud800", "completion": "c"}]
    (tmp_path / "array.json").write_text(" \n" + json.dumps(rows, indent=1))
    lines = "\n".join(map(json.dumps, rows)).encode()
    (tmp_path / "lines.jsonl").write_bytes(lines)
    (tmp_path / "lines.json").write_bytes(lines)
    (tmp_path / "lines.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))
    found = {}
    for path in tmp_path.iterdir():
        documents, [account] = read_all(Conversations("s", (path.name,), id="id"), tmp_path)
        found[path.name] = documents
        assert account.size == path.stat().st_size
    assert [(row["origin_offset"], row["origin_length"]) for row in found["array.json"]] == [(n, 1) for n in range(4)]
    for documents in found.values():
        assert [reason(row) for row in documents] == [None, "conversation.schema", None, None]
        assert [row["doc_id"] for row in documents if row["verdict"] is None] == [
            row["doc_id"] for row in found["array.json"] if row["verdict"] is None
        ]
    assert found["array.json"][2]["natural_key"] == "7"
    assert contents(found["array.json"][3])[0] == ("user", "\ufffd", 0)


@pytest.mark.parametrize(
    ("data", "reasons"),
    [
        (b"[" + json.dumps(MESSAGES).encode(), ["json"]),
        (b"[]", []),
        (b"", []),
        (b"[" * 5_000, ["json"]),
        (b'["\\ud800", ' + b"[" * 5_000, ["json"]),
        (b'[{"messages": ' + b"[" * 600 + b"]" * 600 + b"}]", ["json"]),
        (b'["\\ud800", {"messages": 123456789012345678901234567890}]', ["conversation.schema", "json"]),
        (json.dumps([{"prompt": "p" * 300, "completion": "c"}, MESSAGES]).encode(), ["record_too_large", None]),
    ],
)
def test_arrays_that_are_damaged_or_hostile(tmp_path, data, reasons):
    (tmp_path / "a.json").write_bytes(data)
    rows, _ = read_all(Conversations("s", ("*",), max_record_bytes=300), tmp_path)
    assert [reason(row) for row in rows] == reasons


def test_an_array_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(conversations, "ARRAY_BYTES", 10)
    (tmp_path / "a.json").write_text(json.dumps([MESSAGES]))
    [row], [account] = read_all(Conversations("s", ("*",)), tmp_path)
    assert reason(row) == "record_too_large"
    assert account.gaps["record_too_large"] == [1, account.size]


def test_lines_may_be_deep_broken_or_fixed_to_a_schema(tmp_path):
    lines = [b'{"messages": ' + b"[" * 600 + b"]" * 600 + b"}", b"{", b'{"prompt": "p", "completion": "c"}', b"5"]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    rows, _ = read_all(Conversations("s", ("*",)), tmp_path)
    assert [reason(row) for row in rows] == ["conversation.type", "json", None, "conversation.schema"]
    rows, _ = read_all(Conversations("s", ("*",), schema="messages", limit=3), tmp_path)
    assert [reason(row) for row in rows] == ["conversation.type", "json", "conversation.schema"]
    with pytest.raises(RecipeError, match="schema 'chat' is not known\nhint: use one of messages, sharegpt"):
        Conversations("s", ("*",), schema="chat")


@needs_shared
def test_every_file_of_instructions(tmp_path):
    root = SHARED / "instructions"
    rows, accounts = read_all(Conversations("s", ("**/*.json", "**/*.jsonl")), root)
    files = [path for path in root.rglob("*") if path.suffix in (".json", ".jsonl")]
    assert sum(account.size for account in accounts) == sum(path.stat().st_size for path in files)
    kept: dict[str, int] = {}
    for row in rows:
        kept[row["origin_path"]] = kept.get(row["origin_path"], 0) + (row["verdict"] is None)
    llama = {path.rpartition("/")[2]: count for path, count in kept.items() if path.startswith("llama_factory/")}
    assert llama == {
        "alpaca_en_demo.json": 999,
        "alpaca_zh_demo.json": 1_000,
        "dataset_info.json": 0,
        "dpo_en_demo.json": 0,
        "dpo_zh_demo.json": 0,
        "glaive_toolcall_en_demo.json": 300,
        "glaive_toolcall_zh_demo.json": 300,
        "identity.json": 91,
        "kto_en_demo.json": 0,
        "reason_tool_use_demo_50.jsonl": 50,
        "v1_dpo_demo.jsonl": 0,
        "v1_sft_demo.jsonl": 500,
    }
    assert kept["sharegpt_fastchat/data/dummy_conversation.json"] == 500
    assert sum(count for path, count in kept.items() if path.startswith("t0_p3_templates/")) > 4_000
    assert (
        read_all(Conversations("s", ("**/*.json", "**/*.jsonl"), split_bytes=50_000), root, BatchLimits(5))[0] == rows
    )


@needs_shared
def test_real_turns_are_the_messages():
    root = SHARED / "instructions/llama_factory"
    rows, _ = read_all(Conversations("s", ("glaive_toolcall_en_demo.json",)), root)
    for row, raw in zip(rows, json.loads((root / "glaive_toolcall_en_demo.json").read_text()), strict=True):
        spoken = [content for role, content, _ in contents(row) if role != "system"]
        assert spoken == [message["value"] for message in raw["conversations"]]
        assert (contents(row)[0][0] == "system") == (raw["tools"] != "[]")
