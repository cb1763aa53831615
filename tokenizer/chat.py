"""Rendering of conversations: turns over a text become marker ids, content ids and spans that bear loss.

A turn renders as its role's marker, the ids of text[start:end] and end-of-turn; a document as its turns and then
end-of-text. Only white space may stand between turns, and it is not rendered. A plain document (null turns) is its text
and end-of-text.

Loss: a marker never bears any; content and end-of-turn bear the turn's weight, end-of-text that of the last turn. Spans
are over a document's own tokens; since a marker stands between two turns, spans never touch. Spans of weight zero are
left out, so that a conversation without loss has an empty list, and null is left to mean "every token".

The pieces of all documents are gathered into one column, encoded in one call, and laid out by one kernel.
"""

from __future__ import annotations

import dataclasses

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenizer.columns import lists, running_total, utf8
from tokenizer.encodings import ROLE_NAMES, Encoding

FULL_WEIGHT = 256
"""The loss weight of a token that counts in full; weights are in units of 1/256."""

LOSS = pa.list_(
    pa.struct(
        [
            pa.field("start", pa.int32(), nullable=False),
            pa.field("end", pa.int32(), nullable=False),
            pa.field("weight", pa.int16(), nullable=False),
        ]
    )
)
"""Half-open spans of a document's tokens that bear loss, weight 1 to `FULL_WEIGHT`; null = every token, in full."""

TURN_FAULTS = ("", "turn_role", "turn_range", "turn_order", "turn_boundary", "turn_weight", "turn_gap")
"""What can be wrong with a document's turns, by the code that `turn_faults` gives (0 = nothing): an unknown role, a
span outside of the text, turns that overlap or go backwards, a span that cuts a code point, a weight not in 0..256,
text outside of every turn (it would be in no token; white space may stand there)."""

_ROLE, _RANGE, _ORDER, _BOUNDARY, _WEIGHT, _GAP = range(1, len(TURN_FAULTS))


@dataclasses.dataclass(frozen=True, slots=True)
class Segments:
    """A batch cut into segments: a plain document is one, a conversation has one for each turn.

    `offsets` (int64, shape (documents + 1,)) are each document's segments; `pieces` their texts, `markers` (int32)
    their role ids or -1 for a plain text, `weights` (int16) their loss; `plain` (bool, shape (documents,)) tells the
    plain documents.
    """

    pieces: pa.LargeStringArray
    offsets: np.ndarray
    markers: np.ndarray
    weights: np.ndarray
    plain: np.ndarray


def turn_faults(text: pa.LargeStringArray, turns: pa.ListArray) -> np.ndarray:
    """Return for every document the code (uint8) of the first fault of its turns, in `TURN_FAULTS`; 0 = sound."""
    data, text_offsets = utf8(text)
    turn_offsets, items = lists(turns)
    roles, starts, ends, weights = _turn_columns(items)
    faults = np.zeros(len(text), np.uint8)
    talks = turns.is_valid().to_numpy(zero_copy_only=False)
    _find_faults(data, text_offsets, turn_offsets, roles, starts, ends, weights, talks, faults)
    return faults


def _turn_columns(items: pa.StructArray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return role numbers, starts, ends and weights (int64); what is null or unknown becomes -1."""
    role, start, end, weight = (items.field(name) for name in ("role", "start", "end", "weight"))
    known = pc.index_in(role, value_set=pa.array(ROLE_NAMES, role.type))
    if items.null_count:
        known = pc.if_else(items.is_valid(), known, pa.scalar(None, pa.int32()))
    columns = (known, start, end, weight)
    return tuple(column.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False) for column in columns)


@numba.njit(nogil=True, cache=True)
def _find_faults(data, text_offsets, turn_offsets, roles, starts, ends, weights, talks, faults):  # type: ignore[no-untyped-def]
    """Set the fault of every document whose turns have one."""
    for document in range(len(faults)):
        base, length = text_offsets[document], text_offsets[document + 1] - text_offsets[document]
        previous = 0
        for turn in range(turn_offsets[document], turn_offsets[document + 1]):
            start, end = starts[turn], ends[turn]
            if roles[turn] < 0:
                faults[document] = _ROLE
            elif start < 0 or end < start or end > length:
                faults[document] = _RANGE
            elif start < previous:
                faults[document] = _ORDER
            elif (start < length and data[base + start] & 0xC0 == 0x80) or (
                end < length and data[base + end] & 0xC0 == 0x80
            ):
                faults[document] = _BOUNDARY
            elif weights[turn] < 0 or weights[turn] > FULL_WEIGHT:
                faults[document] = _WEIGHT
            elif not _is_blank(data[base + previous : base + start]):
                faults[document] = _GAP
            if faults[document]:
                break
            previous = end
        if talks[document] and not faults[document] and not _is_blank(data[base + previous : base + length]):
            faults[document] = _GAP


@numba.njit(nogil=True, cache=True)
def _is_blank(data):  # type: ignore[no-untyped-def]
    """Whether these bytes are ASCII white space alone."""
    for byte in data:  # noqa: SIM110, as numba has no `all` over a generator
        if byte != 32 and not 9 <= byte <= 13:
            return False
    return True


def segment(encoding: Encoding, text: pa.LargeStringArray, turns: pa.ListArray | None) -> Segments:
    """Cut a batch into segments. `ValueError` for the first document whose turns have a fault."""
    if turns is None or turns.null_count == len(turns):
        rows = len(text)
        plain = np.ones(rows, np.bool_)
        return Segments(text, np.arange(rows + 1), np.full(rows, -1, np.int32), np.zeros(rows, np.int16), plain)
    faults = turn_faults(text, turns)
    if faults.any():
        row = int(np.argmax(faults > 0))
        hint = "hint: leave out the documents for which turn_faults gives a code"
        raise ValueError(f"row {row}: {TURN_FAULTS[faults[row]]} in turns {turns[row].as_py()!r:.300}\n{hint}")
    return _segment_turns(encoding, text, turns)


def _segment_turns(encoding: Encoding, text: pa.LargeStringArray, turns: pa.ListArray) -> Segments:
    data, text_offsets = utf8(text)
    turn_offsets, items = lists(turns)
    roles, starts, ends, weights = _turn_columns(items)
    plain = turns.is_null().to_numpy(zero_copy_only=False)
    counts = np.where(plain, 1, np.diff(turn_offsets))
    documents = np.repeat(np.arange(len(text)), counts)
    in_turn = ~plain[documents]
    firsts, lasts = text_offsets[documents], text_offsets[documents + 1]
    lasts[in_turn] = firsts[in_turn] + ends
    firsts[in_turn] += starts
    markers, segment_weights = np.full(len(documents), -1, np.int32), np.zeros(len(documents), np.int16)
    markers[in_turn] = np.array(encoding.role_ids(), np.int32)[roles]
    segment_weights[in_turn] = weights
    return Segments(_gather(data, firsts, lasts), running_total(counts), markers, segment_weights, plain)


def _gather(data: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> pa.LargeStringArray:
    """Copy the byte spans [first, last) of `data` into one column."""
    offsets = running_total(lasts - firsts)
    gathered = np.empty(offsets[-1], np.uint8)
    _copy_spans(data, firsts, offsets, gathered)
    return pa.LargeStringArray.from_buffers(len(firsts), pa.py_buffer(offsets), pa.py_buffer(gathered))


@numba.njit(nogil=True, cache=True)
def _copy_spans(data, firsts, offsets, gathered):  # type: ignore[no-untyped-def]
    """Copy to each run of `gathered` the bytes from its first on."""
    for span in range(len(firsts)):
        size = offsets[span + 1] - offsets[span]
        gathered[offsets[span] : offsets[span + 1]] = data[firsts[span] : firsts[span] + size]


def lay_out(
    encoding: Encoding, segments: Segments, pieces: pa.LargeListArray
) -> tuple[pa.LargeListArray, pa.ListArray]:
    """Return every document's ids, markers and end-of-text included, and its loss (type `LOSS`).

    `pieces` are the ids of `segments.pieces`. `ValueError` when a document has 2**31 tokens or more.
    """
    piece_offsets, piece_ids = lists(pieces)
    sizes = np.diff(piece_offsets) + 2 * (segments.markers >= 0)
    positions = running_total(sizes)
    offsets = positions[segments.offsets] + np.arange(len(segments.offsets))
    if np.diff(offsets).max(initial=0) >= 1 << 31:
        raise ValueError("a document has 2**31 tokens or more\nhint: drop documents of such a length before encoding")
    ids = np.empty(offsets[-1], np.int32)
    _fill(
        piece_ids.to_numpy(), piece_offsets, segments.offsets, segments.markers, offsets,
        encoding.roles.end_of_turn, encoding.end_of_text, ids,
    )  # fmt: skip
    return pa.LargeListArray.from_arrays(offsets, pa.array(ids)), _loss(segments, positions)


@numba.njit(nogil=True, cache=True)
def _fill(piece_ids, piece_offsets, segment_offsets, markers, offsets, end_of_turn, end_of_text, ids):  # type: ignore[no-untyped-def]
    """Write the documents' ids: marker, piece and end-of-turn of every segment, then end-of-text."""
    for document in range(len(offsets) - 1):
        at = offsets[document]
        for row in range(segment_offsets[document], segment_offsets[document + 1]):
            marked = markers[row] >= 0
            if marked:
                ids[at] = markers[row]
                at += 1
            for source in range(piece_offsets[row], piece_offsets[row + 1]):
                ids[at] = piece_ids[source]
                at += 1
            if marked:
                ids[at] = end_of_turn
                at += 1
        ids[at] = end_of_text


def _loss(segments: Segments, positions: np.ndarray) -> pa.ListArray:
    """Return the spans of every document; `positions` are the segments' first tokens, end-of-texts not counted."""
    counts = np.diff(segments.offsets)
    relative = positions[:-1] - np.repeat(positions[segments.offsets[:-1]], counts)
    ends = relative + np.diff(positions)
    last = segments.offsets[1:][counts > 0] - 1
    ends[last] += 1
    bears = segments.weights > 0
    spans = pa.StructArray.from_arrays(
        [
            pa.array((relative[bears] + 1).astype(np.int32)),
            pa.array(ends[bears].astype(np.int32)),
            pa.array(segments.weights[bears]),
        ],
        fields=list(LOSS.value_type),
    )
    offsets = running_total(bears)[segments.offsets].astype(np.int32)
    return pa.ListArray.from_arrays(offsets, spans, type=LOSS, mask=pa.array(segments.plain))
