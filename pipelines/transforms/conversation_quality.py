"""Rules for conversations: empty turns, roles out of order, refusals, repeated turns, lengths, broken tool calls.

They are about rows with `turns`; plain text passes. What the turns' spans say is taken as it is, and judged by
`encode`: a turn whose span is not inside the text, or begins before the one before it ends, has a role and no text
here. So every byte belongs to one turn at most, and the work is linear.

- **character**: a code point. **Empty**: a turn of white space alone.
- **misplaced turn**: one that the turn before it does not admit. A conversation begins with at most one system turn;
  then the user and the assistant take turns, beginning with the user; behind an assistant's turn may come turns of
  tools, and behind those an assistant's. An unknown role is misplaced. So is the end, if the last turn is not the
  assistant's: there would be nothing to learn.
- **repeated turn**: role and text of an earlier turn of the same conversation, by a hash of 64 bits. Shorter turns
  than `repeated_characters` do not count: "Yes." and "Go on." may well be said twice.
- **refusal**: an assistant's turn that begins with one of `refusals`, regular expressions (RE2) for the folded
  beginning: from the first letter or digit on, without asterisks, ASCII letters in lower case, every apostrophe "'",
  white space one space, at most 240 bytes. The defaults ask for a verb of serving ("I'm sorry, but I can't assist"):
  "I'm sorry to hear that", "I can't wait" and "Unfortunately, I cannot determine the angle" are none.
- **tool call**: JSON in an assistant's turn that a tool's turn follows: between `<tool_call>` and `</tool_call>`; else
  to the last `}` or `]`, from a line that begins with `{` or `[{` and is the first, or follows a blank line or a code
  fence. Of several such lines the first is tried, then the last, as drafts may stand before a call. It is broken if
  it is not JSON (one value, or one value a line), no object or list of objects, or if an object's `arguments` are a
  string that is not JSON. Calls that are not written as JSON (Python, ReAct) are not judged.

There are no published thresholds of lengths: they are null by default, and measured. The order of roles is what common
chat templates raise errors about. Lists of phrases by which others drop refusals are mostly coarser.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import numba
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.transforms.hashing import hash_bytes, hash_on
from pipelines.transforms.rules import Rule, RuleFilter, check_thresholds
from pipelines.transforms.spans import count_characters, skip_space
from pipelines.transforms.words import LETTER, NUMBER, SPACE, code_point_classes, next_code_point, text_view
from tokenizer.columns import lists

_SORRY = (
    r"(?:(?:i'm|i am|we're|we are) (?:(?:really|very|so|truly|terribly) )?sorry|sorry|(?:my |i )?apologi[sz]?e?s?"
    r"|unfortunately|(?:i'm|i am) afraid|(?:as|i'm|i am|being) (?:just |only )?an? (?:[a-z]+ ){0,3}?"
    r"(?:ai|language model|virtual assistant|chatbot)(?: [a-z]+){0,6}?)"
)
_LINK = r"(?:[,.;:!]? (?:but |and |that |so |then )?)"
_CANNOT = (
    r"(?:i|we) ?(?:(?:can't|cannot|can not|won't|will not)(?: (?:currently|directly|really|ethically|actually))?"
    r"|(?:'m|am|'re|are) (?:(?:currently|simply) )?(?:unable to|not able to|not allowed to|not programmed to)"
    r"(?: (?:currently|directly))?)"
)
_SERVE = (
    r"(?:assist|help|provide|fulfil+|comply|complete|generate|create|produce|write|perform|execute|place|book|order"
    r"|support|engage|participate|discuss|access|browse|open|display|retrieve|promote|condone|encourage|offer|process)"
)
_SORRY_ZH = (
    r"(?:(?:(?:我?(?:很|非常|十分|真的?)?(?:抱歉|对不起)|不好意思|作为[^，,。]{0,20})[，,。！ ]*)+"
    r"(?:但是?)?我?(?:目前|现在|暂时)?)"
)

REFUSALS = (
    rf"(?:{_SORRY}{_LINK})+{_CANNOT} {_SERVE}\b",
    rf"(?:{_SORRY}{_LINK})+(?:i|we) (?:currently )?(?:don't|do not) (?:currently )?"
    r"(?:have|possess) (?:the |an |any )?(?:ability|capability|capacity|access|permission)\b",
    rf"{_CANNOT} (?:assist|comply|fulfil+|help (?:you )?with|provide (?:you with )?(?:any |that |this )?(?:information"
    r"|assistance|instructions|guidance|advice|help)|engage in|participate in|support|promote|condone|encourage)\b",
    rf"{_SORRY_ZH}(?:无法|不能|没有能力|没有办法|没办法)(?:继续)?"
    r"(?:直接(?:生成|创建|制作)|帮助|帮您|帮你|为您|为你|协助|提供|执行|预订|访问|完成|满足)",
    rf"{_SORRY_ZH}(?:没有|不具备)[^，,。]{{0,20}}(?:能力|功能|权限)",
    r"我(?:无法|不能)(?:帮助|协助|满足|提供|执行)",
)
"""Beginnings of refusals in English and Chinese: an apology, or what the speaker is, and what it cannot do for the
user; or a plain "I can't assist". Apostrophes are "'" and letters are lower case there."""

ROLES = ("system", "user", "assistant", "tool")
SYSTEM, USER, ASSISTANT, TOOL = range(4)

(
    TURNS,
    EMPTY_TURNS,
    MISPLACED_TURNS,
    REPEATED_TURNS,
    REFUSED_TURNS,
    BROKEN_TOOL_CALLS,
    CHARACTERS,
    LONGEST_TURN,
) = range(8)
"""The columns of the statistics. `CHARACTERS` are those of all turns."""

NUM_STATISTICS = 8

ASTERISK = 0x2A
BEGINNING = 240
"""Bytes of the folded beginning of a turn."""

CALL_START, CALL_END = b"<tool_call>", b"</tool_call>"
JSON_LINE = re.compile(rb"^[ \t\r]*(\{|\[[ \t]*\{)", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class ConversationQuality(RuleFilter):
    """Drops conversations that break a rule; the first broken one, in the order of `rules`, is the reason.

    Counts are of turns, lengths in characters; null switches a rule off.
    """

    name: ClassVar[str] = "conversation_quality"
    version: ClassVar[int] = 1

    min_turns: int | None = 2
    """A question and an answer; the system's turn counts."""
    max_turns: int | None = None
    max_misplaced_turns: int | None = 0
    max_empty_turns: int | None = 0
    min_characters: int | None = None
    """Of all turns together."""
    max_characters: int | None = None
    max_turn_characters: int | None = None
    """Of the longest turn."""
    max_repeated_turns: int | None = 0
    repeated_characters: int = 32
    """Shorter turns may repeat."""
    max_broken_tool_calls: int | None = 0
    max_refusals: int | None = 0
    refusals: tuple[str, ...] = REFUSALS

    def __post_init__(self) -> None:
        """Refuse thresholds that are none, and refusals that are no regular expressions."""
        check_thresholds(self, ordered=(("min_turns", "max_turns"), ("min_characters", "max_characters")))
        for pattern in self.refusals:
            try:
                pc.match_substring_regex(pa.array([""]), pattern)
            except pa.ArrowInvalid:
                raise ValueError(
                    f"refusals: {pattern!r:.80} is no regular expression\nhint: RE2 has no look-around, no references"
                ) from None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in the order in which the first broken one becomes the reason."""
        return (
            Rule("min_turns", TURNS, None, True, self.min_turns),
            Rule("max_turns", TURNS, None, False, self.max_turns),
            Rule("max_misplaced_turns", MISPLACED_TURNS, None, False, self.max_misplaced_turns),
            Rule("max_empty_turns", EMPTY_TURNS, None, False, self.max_empty_turns),
            Rule("min_characters", CHARACTERS, None, True, self.min_characters),
            Rule("max_characters", CHARACTERS, None, False, self.max_characters),
            Rule("max_turn_characters", LONGEST_TURN, None, False, self.max_turn_characters),
            Rule("max_repeated_turns", REPEATED_TURNS, None, False, self.max_repeated_turns),
            Rule("max_broken_tool_calls", BROKEN_TOOL_CALLS, None, False, self.max_broken_tool_calls),
            Rule("max_refusals", REFUSED_TURNS, None, False, self.max_refusals),
        )

    def measured(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        """Count; the text stays as it is."""
        stats = np.zeros((batch.num_rows, NUM_STATISTICS), np.int64)
        turns = _Turns.of(batch.column("turns"), batch.column("text"))
        if len(turns.roles):
            turns.count(self.repeated_characters, stats)
            said = np.flatnonzero((turns.roles == ASSISTANT) & (turns.starts >= 0))
            refused = said[_mask(pc.match_substring_regex(turns.beginnings(said), _any_of(self.refusals)))]
            np.add.at(stats[:, REFUSED_TURNS], turns.rows[refused], bool(self.refusals))
            for turn in turns.before_tools():
                stats[turns.rows[turn], BROKEN_TOOL_CALLS] += is_broken_call(turns.text(turn))
        return batch, stats

    def applies(self, batch: pa.RecordBatch) -> np.ndarray:
        """The rules are about conversations."""
        return np.repeat(_mask(batch.column("turns").is_valid())[:, None], len(self.rules), axis=1)


@dataclasses.dataclass(frozen=True, slots=True)
class _Turns:
    """The turns of a batch, one after another: arrays of int64, shape (turns,), but for `offsets` (rows + 1,)."""

    offsets: np.ndarray
    rows: np.ndarray
    roles: np.ndarray
    """Places in `ROLES`, -1 for an unknown one."""
    starts: np.ndarray
    """Bytes of `data`; -1 for a turn without text (see the module's docstring)."""
    ends: np.ndarray
    data: np.ndarray

    @classmethod
    def of(cls, turns: pa.ListArray, text: pa.Array) -> _Turns:
        """Read the columns and leave out what no text can be read from."""
        offsets, items = lists(turns)
        text_offsets, data = text_view(text)
        columns = (pc.index_in(items.field("role"), pa.array(ROLES)), items.field("start"), items.field("end"))
        if items.null_count:
            columns = tuple(pc.if_else(items.is_valid(), column, None) for column in columns)
        roles, starts, ends = (
            np.array(column.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)) for column in columns
        )
        _place(offsets, text_offsets, starts, ends)
        return cls(offsets, np.repeat(np.arange(len(text)), np.diff(offsets)), roles, starts, ends, data)

    def count(self, repeated_characters: int, stats: np.ndarray) -> None:
        """Count what needs no other library."""
        _count(
            self.offsets,
            self.roles,
            self.starts,
            self.ends,
            self.data,
            code_point_classes(),
            repeated_characters,
            stats,
        )

    def beginnings(self, turns: np.ndarray) -> pa.Array:
        """Return the folded beginnings of these turns, a string column."""
        folded, lengths = np.empty((len(turns), BEGINNING), np.uint8), np.empty(len(turns), np.int64)
        _fold(self.data, self.starts[turns], self.ends[turns], code_point_classes(), folded, lengths)
        column = np.arange(BEGINNING) < lengths[:, None]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        binary = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(turns), [None, pa.py_buffer(offsets), pa.py_buffer(folded[column])]
        )
        return binary.cast(pa.large_string())

    def before_tools(self) -> np.ndarray:
        """Return the assistants' turns that a turn of a tool follows in the same row."""
        follows = (self.roles[1:] == TOOL) & (self.rows[1:] == self.rows[:-1])
        return np.flatnonzero(follows & (self.roles[:-1] == ASSISTANT) & (self.starts[:-1] >= 0))

    def text(self, turn: int) -> bytes:
        """Return a turn's bytes."""
        return self.data[self.starts[turn] : self.ends[turn]].tobytes()


def _mask(column: pa.Array) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False), bool)


def _any_of(patterns: tuple[str, ...]) -> str:
    return f"^(?:{'|'.join(f'(?:{pattern})' for pattern in patterns)})"


@numba.njit(nogil=True, cache=True)
def _place(offsets: np.ndarray, text_offsets: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
    """Turn spans of texts into spans of the data; a span that is none, or not behind the one before it, becomes -1."""
    for row in range(len(offsets) - 1):
        base, size = text_offsets[row], text_offsets[row + 1] - text_offsets[row]
        previous = 0
        for turn in range(offsets[row], offsets[row + 1]):
            if previous <= starts[turn] <= ends[turn] <= size:
                previous = ends[turn]
                starts[turn] += base
                ends[turn] += base
            else:
                starts[turn] = ends[turn] = -1


@numba.njit(nogil=True, cache=True)
def _count(
    offsets: np.ndarray, roles: np.ndarray, starts: np.ndarray, ends: np.ndarray, data: np.ndarray, classes: np.ndarray,
    repeated_characters: int, stats: np.ndarray,
) -> None:  # fmt: skip
    hashes = np.empty(len(roles), np.int64)
    for row in range(len(offsets) - 1):
        first, last = offsets[row], offsets[row + 1]
        stats[row, TURNS] = last - first
        before, num_long = -1, 0
        for turn in range(first, last):
            stats[row, MISPLACED_TURNS] += not _admits(before, roles[turn], turn == first)
            before = roles[turn]
            if starts[turn] >= 0:
                start, end = starts[turn], ends[turn]
                characters = count_characters(data, start, end)
                stats[row, EMPTY_TURNS] += skip_space(data, start, end, classes) == end
                stats[row, CHARACTERS] += characters
                stats[row, LONGEST_TURN] = max(stats[row, LONGEST_TURN], characters)
                if characters >= repeated_characters:
                    hashes[first + num_long] = hash_on(hash_bytes(data, start, end), roles[turn])
                    num_long += 1
        stats[row, MISPLACED_TURNS] += last > first and before != ASSISTANT
        if num_long > 1:
            some = np.sort(hashes[first : first + num_long])
            for k in range(1, num_long):
                stats[row, REPEATED_TURNS] += some[k] == some[k - 1]


@numba.njit(nogil=True, cache=True, inline="always")
def _admits(before: int, role: int, is_first: bool) -> bool:
    """Whether a turn of this role may come behind one of the role `before`."""
    if is_first or before == SYSTEM:
        return role == USER or (is_first and role == SYSTEM)
    if before == USER:
        return role == ASSISTANT
    if before == ASSISTANT:
        return role in (USER, TOOL)
    if before == TOOL:
        return role in (ASSISTANT, TOOL)
    return role >= 0  # the unknown role before it was the misplaced one


@numba.njit(nogil=True, cache=True)
def _fold(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, classes: np.ndarray, folded: np.ndarray, lengths: np.ndarray
) -> None:
    """Write the folded beginning of each span into a row of `folded` (uint8, (spans, BEGINNING)), and its length."""
    for span in range(len(starts)):
        at, num, spaced = starts[span], 0, False
        end = min(ends[span], at + 8 * BEGINNING)  # white space and signs may be long
        while at < end:
            code_point, behind = next_code_point(data, at, end)
            kind = classes[code_point]
            if code_point == ASTERISK or (num == 0 and not kind & (LETTER | NUMBER)):
                at = behind
                continue
            if kind & SPACE:
                spaced, at = True, behind
                continue
            size = behind - at
            if num + size + spaced > BEGINNING:
                break
            if spaced:
                folded[span, num] = 0x20
                num, spaced = num + 1, False
            if code_point == 0x60 or code_point == 0xB4 or code_point == 0x2BC or 0x2018 <= code_point <= 0x2019:
                folded[span, num] = 0x27
                num += 1
            elif code_point == 0xFFFD:  # also what a cut sequence is read as
                folded[span, num] = 0x3F
                num += 1
            elif code_point < 0x80:
                folded[span, num] = code_point + 32 if 0x41 <= code_point <= 0x5A else code_point
                num += 1
            else:
                for k in range(size):
                    folded[span, num + k] = data[at + k]
                num += size
            at = behind
        lengths[span] = num


# Tool calls ---------------------------------------------------------------------------------------------------------


def is_broken_call(turn: bytes) -> bool:
    """Whether a turn (UTF-8) holds a tool call in JSON that is broken, as the module's docstring defines it."""
    if CALL_START in turn:
        return not all(_is_call(part.partition(CALL_END)[0]) for part in turn.split(CALL_START)[1:])
    starts = list(_json_lines(turn))
    stop = max(turn.rfind(b"}"), turn.rfind(b"]")) + 1
    return bool(starts) and not any(_is_call(turn[start : max(start, stop)]) for start in {starts[0], starts[-1]})


def _json_lines(turn: bytes) -> Iterator[int]:
    """Yield the places at which JSON may begin: see the module's docstring."""
    for found in JSON_LINE.finditer(turn):
        above = turn[turn.rfind(b"\n", 0, max(found.start() - 1, 0)) + 1 : found.start()].strip()
        if not above or above.startswith(b"```"):
            yield found.start(1)


def _is_call(call: bytes) -> bool:
    try:
        values = [orjson.loads(call)]
    except orjson.JSONDecodeError:
        try:
            values = [orjson.loads(line) for line in call.split(b"\n") if line.strip()]
        except orjson.JSONDecodeError:
            return False
    return bool(values) and all(_is_object_or_list(value) for value in values)


def _is_object_or_list(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_object(one) for one in value)
    return _is_object(value)


def _is_object(value: Any) -> bool:
    """Whether a value is an object whose `arguments` (its own, or its function's) are no broken JSON."""
    if not isinstance(value, dict):
        return False
    function = value.get("function")
    for holder in (value, function if isinstance(function, dict) else {}):
        arguments = holder.get("arguments")
        if isinstance(arguments, str):
            try:
                orjson.loads(arguments)
            except orjson.JSONDecodeError:
                return False
    return True
