"""Conversations as documents: the turns' contents joined by a blank line, and a `turns` column that says whose is what.

One reader for four row schemas, detected row by row or fixed by the recipe:
- messages: `{messages: [{role, content, loss_weight?}], tools?}`;
- sharegpt: `{conversations: [{from, value}], system?, tools?}`;
- alpaca: `{instruction, output, input?, system?, history?: [[user, assistant], ...]}`;
- prompt: `{prompt, completion}`.

Invariant: for every turn, the bytes [start, end) of the text are its content, and only the two newlines of the joint
lie between turns. Assistants bear loss with weight 256, or with the row's own `loss_weight` w as floor(256 w + 1/2);
all others with 0 unless their row says otherwise. Definitions of tools belong to the system turn: behind its content,
or as a system turn of their own in front. What is not exactly one of these schemas is an errored row
`conversation.*`; nothing is guessed and no part of a turn is left out.

Origins are (byte offset, length) for lines, as in `lines`, and (row number, 1) for a JSON file that is one array; such
a file is read whole, is refused above `ARRAY_BYTES`, and is one record or one gap of raw bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, ClassVar

import orjson
import pyarrow as pa

from pipelines.errors import RecipeError
from pipelines.sources.lines import Line, line_splits, parse_json, read_lines
from pipelines.sources.source import (
    BatchBuilder,
    BatchLimits,
    RawAccount,
    Split,
    Verdict,
    content_hash,
    damage_verdict,
    doc_id,
    drop_verdict,
    require_positive,
    select_files,
)
from pipelines.storage.storage import ReadStorage, StoredFile
from pipelines.transform import EMPTY_SCHEMA

ARRAY_BYTES = 256 << 20
"""The largest JSON array that is read; parsed it takes about ten times as much memory. Larger ones belong in lines."""

FULL_WEIGHT = 256
"""Loss weights are integers in 1/256."""

JOINT = "\n\n"

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""The names that published data sets use for the four roles; a function call is what the assistant says."""

PARTS = ("text", "reasoning", "tool_call")
"""The types of content parts that are text."""

PREFERENCES = ("chosen", "rejected", "chosen_messages", "rejected_messages", "label", "kto_tag")
"""Keys of rows that compare or grade answers (DPO, KTO): their assistant turns are not all meant to be learnt."""

SCHEMAS: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "prompt": ("prompt", "completion"),
}
"""The keys by which a row's schema is known, tried in this order."""


class NotAConversationError(ValueError):
    """A row that is no conversation: `reason` is the ledger's word behind "conversation.", the message the cause."""

    def __init__(self, reason: str, cause: str) -> None:
        super().__init__(cause)
        self.reason = reason


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """One turn: a role of system, user, assistant or tool, its text, and its loss weight in 1/256."""

    role: str
    content: str
    weight: int


@dataclasses.dataclass(frozen=True, slots=True)
class Conversations:
    """Files of conversations: JSON lines (plain, .gz, .zst or .bz2), or one JSON array in a .json file.

    `schema` fixes the row schema (a key of `SCHEMAS`); None detects it for each row. `id` names the column that is the
    natural key; without one it is the hash of roles and contents. `limit` is rows per split, `max_record_bytes` the
    longest row. Raises `RecipeError` for a wrong value.
    """

    kind: ClassVar[str] = "conversations"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = EMPTY_SCHEMA

    name: str
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    schema: str | None = None
    id: str | None = None
    licence: str | None = None
    max_record_bytes: int = 16 << 20
    split_bytes: int = 64 << 20
    limit: int | None = None

    def __post_init__(self) -> None:
        """Check the values that a recipe may set."""
        if self.schema is not None and self.schema not in SCHEMAS:
            raise RecipeError(
                f"source {self.name}: schema {self.schema!r} is not known\n"
                f"hint: use one of {', '.join(SCHEMAS)}, or leave it out to detect it for each row"
            )
        require_positive(self.name, "max_record_bytes", self.max_record_bytes)
        require_positive(self.name, "split_bytes", self.split_bytes)
        require_positive(self.name, "limit", self.limit)

    def splits(self, storage: ReadStorage) -> list[Split]:
        """Cut files of lines by bytes; a .json file, which may be an array, stays whole."""
        splits: list[Split] = []
        for file in select_files(storage.list(), self.include, self.exclude):
            splits += (
                [Split(self.name, (file,))] if _may_be_array(file) else line_splits(self.name, file, self.split_bytes)
            )
        return splits

    def read(
        self, split: Split, storage: ReadStorage, limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        """Yield one row for each conversation, kept or with the reason why not."""
        builder = BatchBuilder(self.adds, limits, account)
        path = split.files[0].path
        is_array = _may_be_array(split.files[0]) and _starts_array(path, storage)
        rows = self._array_rows if is_array else self._line_rows
        for row in rows(split, storage, account):
            yield from builder.add(row)
        yield from builder.flush()

    def _line_rows(self, split: Split, storage: ReadStorage, account: RawAccount) -> Iterator[dict[str, Any]]:
        path = split.files[0].path
        for line in read_lines(split, storage, self.max_record_bytes, self.limit, account):
            yield self._line_row(path, line)

    def _line_row(self, path: str, line: Line) -> dict[str, Any]:
        if line.verdict is not None:
            return self._refused(path, line.offset, line.length, line.verdict)
        try:
            row = parse_json(line.data)
        except ValueError as error:
            verdict = damage_verdict("json", path, line.offset, str(error))
            return self._refused(path, line.offset, line.length, verdict, line.data)
        return self._row(path, line.offset, line.length, row, line.data)

    def _array_rows(self, split: Split, storage: ReadStorage, account: RawAccount) -> Iterator[dict[str, Any]]:
        file = split.files[0]
        account.size += file.size
        rows, verdict = _load_array(file, storage)
        if verdict is not None:
            account.gap(str(verdict["reason"]), file.size)
            yield self._refused(file.path, 0, 0, verdict)
            return
        account.records += file.size
        for number, row in enumerate(rows[: self.limit]):
            yield self._array_row(file.path, number, row)

    def _array_row(self, path: str, number: int, row: Any) -> dict[str, Any]:
        try:
            data = orjson.dumps(row)
        except orjson.JSONEncodeError as error:  # nested deeper than it writes, or an integer beyond 64 bits
            return self._refused(path, number, 1, damage_verdict("json", path, number, str(error)))
        if len(data) > self.max_record_bytes:
            verdict = drop_verdict("record_too_large", f"{len(data)} bytes", f"<= {self.max_record_bytes} bytes")
            return self._refused(path, number, 1, verdict)
        return self._row(path, number, 1, row, data)

    def _row(self, path: str, offset: int, length: int, row: Any, data: bytes) -> dict[str, Any]:
        """Return the document of one row, whose JSON is `data`."""
        try:
            turns = read_turns(row, self.schema)
        except NotAConversationError as error:
            verdict = damage_verdict(f"conversation.{error.reason}", path, offset, str(error))
            return self._refused(path, offset, length, verdict, data)
        text, spans = join_turns(turns)
        payload = orjson.dumps([[turn.role, turn.content] for turn in turns])
        key = self._id_of(row) or content_hash(payload).hex()
        return self._identity(path, offset, length, key, payload) | {"text": text, "turns": spans}

    def _refused(self, path: str, offset: int, length: int, verdict: Verdict, payload: bytes = b"") -> dict[str, Any]:
        return self._identity(path, offset, length, f"{path}:{offset}", payload) | {"verdict": verdict}

    def _identity(self, path: str, offset: int, length: int, key: str, payload: bytes) -> dict[str, Any]:
        return {
            "doc_id": doc_id(self.name, key),
            "source": self.name,
            "natural_key": key,
            "origin_path": path,
            "origin_offset": offset,
            "origin_length": length,
            "licence": self.licence,
            "content_hash": content_hash(payload),
        }

    def _id_of(self, row: dict[str, Any]) -> str | None:
        value = row.get(self.id) if self.id is not None else None
        if isinstance(value, bool) or not isinstance(value, str | int):
            return None
        return str(value) or None


# Rows to turns ------------------------------------------------------------------------------------------------------


def read_turns(row: Any, schema: str | None = None) -> list[Turn]:
    """Return the turns of one row, in its own schema or in the one given.

    Raises `NotAConversationError` when the row is of no known schema, when a role is unknown, when a turn or the whole
    is empty, when something has the wrong type, or when it holds a part that is not text.
    """
    if not isinstance(row, dict):
        raise NotAConversationError("schema", f"an object is needed, not {type(row).__name__}")
    schema = _schema_of(row, schema)
    if schema == "alpaca":
        turns = _alpaca_turns(row)
    elif schema == "prompt":
        turns = [_turn("user", row["prompt"]), _turn("assistant", row["completion"])]
    else:
        turns = _messages(row[SCHEMAS[schema][0]])
    turns = _with_system(turns, row)
    if not turns:
        raise NotAConversationError("empty", "no turns")
    return turns


def join_turns(turns: list[Turn]) -> tuple[str, list[dict[str, Any]]]:
    """Return the text of the turns and, for each, its role, byte span in the text's UTF-8, and weight."""
    spans: list[dict[str, Any]] = []
    place = 0
    for turn in turns:
        end = place + len(turn.content.encode())
        spans.append({"role": turn.role, "start": place, "end": end, "weight": turn.weight})
        place = end + len(JOINT)
    return JOINT.join(turn.content for turn in turns), spans


def _schema_of(row: dict[str, Any], schema: str | None) -> str:
    keys = ", ".join(key[:40] for key in list(row)[:20])
    compared = [key for key in PREFERENCES if key in row]
    if compared:
        raise NotAConversationError("schema", f"preferences ({', '.join(compared)}), no conversation; keys: {keys}")
    candidates = SCHEMAS if schema is None else {schema: SCHEMAS[schema]}
    for name, needed in candidates.items():
        if all(key in row for key in needed):
            return name
    raise NotAConversationError("schema", f"not one of {', '.join(candidates)}; keys: {keys}")


def _messages(messages: Any) -> list[Turn]:
    """Read messages, whether they say role and content or from and value; empty system messages are left out."""
    if not isinstance(messages, list):
        raise NotAConversationError("type", f"a list of turns is needed, not {type(messages).__name__}")
    turns = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            raise NotAConversationError("type", f"turn {number} is no object but {type(message).__name__}")
        role = _role(number, message.get("role", message.get("from")))
        content = message.get("content", message.get("value"))
        calls = [key for key in ("tool_calls", "function_call") if message.get(key)]
        if calls:
            raise NotAConversationError("part", f"turn {number} has {calls[0]} beside its content")
        if role != "system" or content != "":
            turns.append(_turn(role, content, message.get("loss_weight"), number))
    return turns


def _alpaca_turns(row: dict[str, Any]) -> list[Turn]:
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise NotAConversationError("type", "history is no list of [user, assistant]")
    turns = []
    for asked, answered in history:
        turns += [_turn("user", asked), _turn("assistant", answered)]
    instruction, context = row["instruction"], row.get("input") or ""
    if not isinstance(instruction, str) or not isinstance(context, str):
        raise NotAConversationError("type", "instruction and input must be strings")
    question = JOINT.join(part for part in (instruction, context) if part)
    return [*turns, _turn("user", question), _turn("assistant", row["output"])]


def _with_system(turns: list[Turn], row: dict[str, Any]) -> list[Turn]:
    """Put the row's own `system` and `tools` into the first turn, if that is the system's, or in front of it."""
    stated = row.get("system")
    if stated is not None and not isinstance(stated, str):
        raise NotAConversationError("type", f"system is no string but {type(stated).__name__}")
    first = turns[0].content if turns and turns[0].role == "system" else None
    contents = [content for content in (stated, first, _tools(row.get("tools"))) if content]
    rest = turns if first is None else turns[1:]
    weight = turns[0].weight if first is not None else 0
    return [Turn("system", JOINT.join(contents), weight), *rest] if contents else rest


def _tools(tools: Any) -> str | None:
    """Return definitions of tools as they stand, or as JSON where they are no string; None without any."""
    if tools is None or tools == [] or (isinstance(tools, str) and tools.strip() in ("", "[]")):
        return None
    if isinstance(tools, str):
        return tools
    if isinstance(tools, list | dict):
        try:
            return orjson.dumps(tools).decode()
        except orjson.JSONEncodeError as error:
            raise NotAConversationError("type", f"tools cannot be written as JSON: {error}") from None
    raise NotAConversationError("type", f"tools is neither text nor a list but {type(tools).__name__}")


def _role(number: int, value: Any) -> str:
    role = ROLES.get(value) if isinstance(value, str) else None
    if role is None:
        raise NotAConversationError(
            "role", f"turn {number} has the role {_shown(value)}, not one of {', '.join(ROLES)}"
        )
    return role


def _turn(role: str, content: Any, loss_weight: Any = None, number: int | None = None) -> Turn:
    where = role if number is None else f"turn {number}"
    text = _content(where, content)
    if not text:
        raise NotAConversationError("empty", f"{where} is empty")
    default = FULL_WEIGHT if role == "assistant" else 0
    return Turn(role, text, default if loss_weight is None else _weight(where, loss_weight))


def _content(where: str, content: Any) -> str:
    """Return a content as text: a string as it stands, a list of parts joined by blank lines."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise NotAConversationError(
            "type", f"the content of {where} is neither text nor a list: {type(content).__name__}"
        )
    return JOINT.join(text for part in content if (text := _part(where, part)))


def _part(where: str, part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind not in PARTS:
        raise NotAConversationError("part", f"{where} has a part of type {_shown(kind)}, not one of {', '.join(PARTS)}")
    text = part.get("value", part.get("text"))
    if not isinstance(text, str):
        raise NotAConversationError("type", f"a part of {where} holds no text but {type(text).__name__}")
    return text


def _weight(where: str, loss_weight: Any) -> int:
    """Return floor(256 w + 1/2), computed from the exact value of the number; it must lie in 0 to 1."""
    if isinstance(loss_weight, bool) or not isinstance(loss_weight, int | float) or not 0 <= loss_weight <= 1:
        raise NotAConversationError(
            "weight", f"{where} has the loss weight {_shown(loss_weight)}, not a number in 0 to 1"
        )
    return int((Fraction(loss_weight) * 2 * FULL_WEIGHT + 1) // 2)


def _shown(value: Any) -> str:
    """Return a value for a message: short, whatever the row holds."""
    if isinstance(value, str):
        return repr(value[:40])
    return repr(value) if isinstance(value, float | bool | None) else type(value).__name__


# Files --------------------------------------------------------------------------------------------------------------


def _may_be_array(file: StoredFile) -> bool:
    return file.path.endswith(".json")


def _starts_array(path: str, storage: ReadStorage) -> bool:
    """Whether the first byte that is no white space opens an array; `read_lines` reports what cannot be opened."""
    try:
        with storage.open(path) as stream:
            return stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
    except OSError:
        return False


def _load_array(file: StoredFile, storage: ReadStorage) -> tuple[list[Any], Verdict | None]:
    """Return the values of a JSON array, or none and the reason why."""
    if file.size > ARRAY_BYTES:
        return [], drop_verdict("record_too_large", f"an array of {file.size} bytes", f"<= {ARRAY_BYTES} bytes")
    try:
        with storage.open(file.path) as stream:
            data = stream.read(file.size + 1)
        if len(data) != file.size:
            cause = f"the file is not the {file.size} bytes that the plan saw"
            return [], damage_verdict("damaged_file", file.path, 0, cause)
        rows: list[Any] = parse_json(data)
    except OSError as error:
        return [], damage_verdict("unreadable", file.path, 0, error.strerror or str(error))
    except ValueError as error:
        return [], damage_verdict("json", file.path, 0, str(error))
    return rows, None
