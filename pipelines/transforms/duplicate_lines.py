"""Exact deduplication of lines and paragraphs: of equal ones the first few stay, all later ones are cut.

What a line and a paragraph is says `spans.py`. Two lines are equal if their bytes are, without the white space at both
ends; two paragraphs if their lines are. So everything that is cut still stands, byte for byte, in a document that
stays, and no threshold decides what counts as equal. Equal is taken to be what has the same 128-bit hash.

Four steps: `LineHashes` adds to every document the hashes of its lines and paragraphs that are long enough; a `group`
over these alone finds the later ones (`FindDuplicateLines`, no text is moved); their spans (`LINE_EDITS`) are sorted by
document (`exact.SortTable`); `RemoveDuplicateLines` cuts them. The first are those in the order (rank of the document,
doc_id, place in the text).

Lines and paragraphs are both found in the text as it was before any cut, so their spans may overlap. Nothing is lost by
that: the first of all equal lines is not cut as a line, and the paragraph around it is not cut either, since an equal
paragraph before it would hold an equal line before it.

Published: cc_net (Wenzek et al. 2019, arXiv 1911.00359) keeps one of each line, compared in lower case, without accents
and with 0 for every digit; Llama 3 (arXiv 2407.21783, section 3.1.1) six of each among 30 million documents. FineWeb
(Penedo et al. 2024, arXiv 2406.17557) measured on top of its other steps that one of each line, of any length or of at
least 10 words, made worse models than none of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import HeadraceError
from pipelines.schema import DOC_ID, EDITS
from pipelines.transform import EMPTY_SCHEMA, Evidence, set_verdict, verdicts
from pipelines.transforms.edits import END, KIND, ROW, START, Edits, apply_edits, with_room
from pipelines.transforms.exact import first_of_key
from pipelines.transforms.murmur3 import finish_hash, hash_128, hash_block
from pipelines.transforms.rules import MOST_THRESHOLD
from pipelines.transforms.scope import Scope, scope_hashes
from pipelines.transforms.spans import count_characters, next_line
from pipelines.transforms.words import code_point_classes, text_view

GONE = ("duplicates", "near_duplicates")
"""Tables of documents that are dropped as a whole: what they hold is in others."""
LINE, PARAGRAPH = 0, 1
REASONS = ("duplicate_line", "duplicate_paragraph")
"""The edits' words for the two kinds."""
_ALL = np.iinfo(np.int64).max

_LINE_FIELDS = (
    pa.field("line_hash", DOC_ID, nullable=False),  # of a line or a paragraph, and of the scope
    pa.field("start", pa.int64(), nullable=False),  # byte span of the text, without the white space around it
    pa.field("end", pa.int64(), nullable=False),
    pa.field("kind", pa.int8(), nullable=False),  # LINE or PARAGRAPH
)
LINES_COLUMN = pa.field("line_hashes", pa.list_(pa.struct(_LINE_FIELDS)))
"""The hashes of a document, in the order of its text."""
LINE_HASHES = pa.schema(
    [
        _LINE_FIELDS[0],
        pa.field("rank", DOC_ID, nullable=False),  # total order of documents: of equal lines those of the lowest stay
        pa.field("doc_id", DOC_ID, nullable=False),
        *_LINE_FIELDS[1:],
    ]
)
TAKEN = pa.schema([*(LINE_HASHES.field(name) for name in ("doc_id", "rank")), LINES_COLUMN])
"""What `LINE_HASHES` are made of."""
LINE_EDITS = pa.schema(
    [
        *EDITS,
        # a document that keeps an equal line, perhaps the same one; of a paragraph the one with the first equal
        # paragraph, of which lines may be cut that stand elsewhere
        pa.field("kept_doc_id", DOC_ID, nullable=False),
    ]
)


@dataclasses.dataclass(frozen=True, slots=True)
class LineHashes:
    """Adds the hashes of lines and paragraphs; documents that a side table says are duplicates get none."""

    name: ClassVar[str] = "line_hashes"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = pa.schema([LINES_COLUMN])
    drops: ClassVar[tuple[str, ...]] = ()

    lines: int | None
    """How many equal lines stay; null leaves lines alone."""
    paragraphs: int | None
    """How many equal paragraphs stay."""
    min_characters: int = 60
    """Shorter lines and paragraphs are never cut as such: headings, names, answers and lines of code recur rightly. 60
    characters are about the 10 words that FineWeb tried: real lines of 10 words have a median of 58 to 64."""
    scope: Scope = "all"
    gone: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse counts that would cut every line, or nothing at all."""
        for name in ("lines", "paragraphs", "min_characters"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value} is too few\nhint: give 1 or more")
            if value is not None and value > MOST_THRESHOLD:
                raise ValueError(f"{name}: {value} is too many\nhint: give at most {MOST_THRESHOLD:,}")
        if self.lines is None and self.paragraphs is None:
            raise ValueError("lines, paragraphs: both are null\nhint: say for one of them how many equal ones stay")

    def bind(self, side: Mapping[str, pa.Table]) -> LineHashes:
        """Take the tables of documents that go (their column doc_id), those of `GONE` that the stage has."""
        gone = [_ids(side[table].column("doc_id").combine_chunks()) for table in GONE if table in side]
        return dataclasses.replace(self, gone=np.sort(np.concatenate(gone))) if gone else self

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Hash; a null text has no lines."""
        offsets, data = text_view(batch.column("text"))
        stays = np.ones(batch.num_rows, bool)
        if self.gone is not None:
            ids = _ids(batch.column("doc_id"))
            stays = np.searchsorted(self.gone, ids, "left") == np.searchsorted(self.gone, ids, "right")
        hashed = (self.lines is not None, self.paragraphs is not None)
        # the line of a paragraph of one is cut at least as often as the paragraph, which then says nothing new
        single = self.lines is None or self.paragraphs is None or self.lines > self.paragraphs
        most = int(np.sum(np.diff(offsets) // (self.min_characters + 1) + 1)) * sum(hashed)
        hashes, places = np.empty((most, 2), np.uint64), np.empty((most, 3), np.int64)
        bounds = np.zeros(batch.num_rows + 1, np.int32)
        scopes = scope_hashes(batch, self.scope)
        num = _hash_lines(
            offsets, data, code_point_classes(), scopes, stays, *hashed, single, self.min_characters,
            hashes, places, bounds,
        )  # fmt: skip
        items = pa.StructArray.from_arrays(
            [
                pa.Array.from_buffers(DOC_ID, num, [None, pa.py_buffer(hashes[:num].astype(">u8"))]),
                pa.array(places[:num, 0]),
                pa.array(places[:num, 1]),
                pa.array(places[:num, 2].astype(np.int8)),
            ],
            fields=list(_LINE_FIELDS),
        )
        column = pa.ListArray.from_arrays(pa.array(bounds), items, type=LINES_COLUMN.type)
        return batch.append_column(LINES_COLUMN, column)

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """It has no rule."""
        return [[] for _ in range(batch.num_rows)]


def line_hash_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a row of `LINE_HASHES` for each line and paragraph of documents, in the order of their texts."""
    lists = batch.column(LINES_COLUMN.name)
    items, parents = pc.list_flatten(lists), pc.list_parent_indices(lists)
    columns = {field.name: items.field(place) for place, field in enumerate(items.type)}
    columns |= {name: batch.column(name).take(parents) for name in ("rank", "doc_id")}
    return pa.RecordBatch.from_arrays([columns[name] for name in LINE_HASHES.names], schema=LINE_HASHES)


@dataclasses.dataclass(frozen=True, slots=True)
class FindDuplicateLines:
    """Reduce of (line_hash; rank, doc_id, start): names every line but the first few of its hash."""

    lines: int | None
    """As in `LineHashes`."""
    paragraphs: int | None
    name: str = "find_duplicate_lines"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Mapping[str, pa.RecordBatch]]:
        """Yield table `edits` (schema `LINE_EDITS`); a hash may span batches."""
        copies = np.array([_ALL if num is None else num for num in (self.lines, self.paragraphs)])
        last_key, kept, seen = None, b"\x00" * 16, 0
        for batch in batches:
            keys, ids, kinds = (batch.column(name) for name in ("line_hash", "doc_id", "kind"))
            rows = np.arange(batch.num_rows)
            # the first row of each row's hash, -1 where it stood in an earlier batch
            firsts = np.maximum.accumulate(np.where(first_of_key(keys, last_key), rows, -1))
            before = np.where(firsts < 0, rows + seen, rows - firsts)
            keepers = pa.concat_arrays([pa.array([kept], DOC_ID), ids]).take(pa.array(firsts + 1))
            reasons = pa.DictionaryArray.from_arrays(kinds, pa.array(REASONS)).cast(pa.string())
            edits = pa.RecordBatch.from_arrays(
                [ids, batch.column("start"), batch.column("end"), reasons, keepers], schema=LINE_EDITS
            )
            yield {"edits": edits.filter(pa.array(before >= copies[kinds.to_numpy()]))}
            last_key, kept, seen = keys[-1].as_py(), keepers[-1].as_py(), int(before[-1]) + 1


@dataclasses.dataclass(frozen=True, slots=True)
class RemoveDuplicateLines:
    """Cuts the lines and paragraphs that the table `edits` names, and drops the documents of which nothing is left.

    A cut takes white space with it. Between what stays on both sides of a cut there is what stood somewhere between
    them before: the line breaks where there were the most, and the indentation of the line behind; so no hole is left
    and paragraphs stay apart. What a text ends with stays behind the last line that does. A document that is dropped
    keeps the text that it came with.
    """

    name: ClassVar[str] = "duplicate_lines"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = EMPTY_SCHEMA
    drops: ClassVar[tuple[str, ...]] = ()

    edits: pa.RecordBatch | None = None

    def bind(self, side: Mapping[str, pa.Table]) -> RemoveDuplicateLines:
        """Take the table `edits` (schema `LINE_EDITS`). Raises `ValueError` unless it is in order (doc_id, start)."""
        edits = side["edits"].combine_chunks()
        ids, starts = _ids(edits.column("doc_id").combine_chunks()), edits.column("start").to_numpy()
        later = (ids[1:] > ids[:-1]) | ((ids[1:] == ids[:-1]) & (starts[1:] >= starts[:-1]))
        if not later.all():
            raise ValueError("duplicate_lines: its table of edits is not in the order of doc_id and start")
        columns = [column.combine_chunks() for column in edits.columns]
        return dataclasses.replace(self, edits=pa.RecordBatch.from_arrays(columns, schema=edits.schema))

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Cut. Raises `HeadraceError` for edits that are not of lines of these texts."""
        edits, (firsts, lasts) = self._edits(), self._of_rows(batch)
        if np.array_equal(firsts, lasts):
            return batch
        offsets, data = text_view(batch.column("text"))
        starts, ends = edits.column("start").to_numpy(), edits.column("end").to_numpy()
        cuts, cut_lines, left_lines, wrong = _find_cuts(
            offsets, data, code_point_classes(), firsts, lasts, starts, ends
        )
        if wrong >= 0:
            raise HeadraceError(
                f"duplicate_lines: document {edits.column('doc_id')[wrong].as_py().hex()}: bytes {starts[wrong]} to "
                f"{ends[wrong]} of its text are not whole lines\n"
                "hint: its text is not the one whose lines were hashed; no step between may edit texts"
            )
        empty = (cut_lines > 0) & (left_lines == 0)
        result = apply_edits(batch, Edits.of(cuts))
        if not empty.any():
            return result
        values: list[str | None] = [f"{num}/{num} lines are elsewhere" for num in cut_lines[empty].tolist()]
        num = len(values)
        reasons: list[str | None] = [f"{self.name}.nothing_left"] * num
        verdict = verdicts(empty, reasons, values, ["some line of its own"] * num, "dropped")
        return set_verdict(result, verdict)

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Name every span that is cut, and a document where the same lines stay."""
        edits, (firsts, lasts) = self._edits(), self._of_rows(batch)
        return [
            [
                Evidence(
                    f"{self.name}.{row['reason']}",
                    f"bytes {row['start']} to {row['end']} are also in {row['kept_doc_id'].hex()}",
                    "the first ones stay",
                    True,  # a cut stops no document
                )
                for row in edits.slice(first, last - first).to_pylist()
            ]
            for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
        ]

    def _of_rows(self, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """Return the first edit of every row and the one behind its last (int64, both of shape (rows,))."""
        known, ids = _ids(self._edits().column("doc_id")), _ids(batch.column("doc_id"))
        return np.searchsorted(known, ids, "left"), np.searchsorted(known, ids, "right")

    def _edits(self) -> pa.RecordBatch:
        if self.edits is None:
            raise ValueError("duplicate_lines: is not bound to its table of edits")
        return self.edits


def _ids(column: pa.Array) -> np.ndarray:
    """Return 16-byte ids as numpy strings, which compare like the bytes (a zero at the end is one of the 16)."""
    if len(column) == 0:
        return np.zeros(0, "S16")
    return np.frombuffer(column.buffers()[1], "S16", len(column), 16 * column.offset)


@numba.njit(nogil=True, cache=True)
def _hash_lines(
    offsets: np.ndarray, data: np.ndarray, classes: np.ndarray, scopes: np.ndarray, stays: np.ndarray, with_lines: bool,
    with_paragraphs: bool, single: bool, min_characters: int, hashes: np.ndarray, places: np.ndarray,
    bounds: np.ndarray,
) -> int:  # fmt: skip
    """Fill in `hashes` (high, low) and `places` (start, end, kind) of lines and paragraphs; returns how many.

    Those of row r are `bounds[r]` to `bounds[r + 1]`, a paragraph behind its lines. `single` says whether paragraphs of
    one line are among them. The hash of a paragraph is that of the hashes of its lines, short ones included.
    """
    num = 0
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        at, after_cr, first, last, num_lines = begin, False, begin, begin, 0
        high, low = np.uint64(0), np.uint64(0)
        while stays[row]:
            start, stop, breaks, at, after_cr = next_line(data, at, end, classes, after_cr)
            if num_lines and (start == end or breaks):  # the paragraph before is at its end
                long = with_paragraphs and (single or num_lines > 1)
                if long and count_characters(data, first, last) >= min_characters:
                    hashes[num, 0], hashes[num, 1] = finish_hash(high, low, 16 * num_lines)
                    places[num, 0], places[num, 1], places[num, 2] = first - begin, last - begin, PARAGRAPH
                    num += 1
                num_lines = 0
            if start == end:
                break
            if num_lines == 0:
                high, low, first = np.uint64(0), np.uint64(0), start
            line_high, line_low = hash_128(data, start, stop, scopes[row])
            high, low = hash_block(high, low, line_high, line_low)
            num_lines += 1
            last = stop
            if with_lines and count_characters(data, start, stop) >= min_characters:
                hashes[num, 0], hashes[num, 1] = line_high, line_low
                places[num, 0], places[num, 1], places[num, 2] = start - begin, stop - begin, LINE
                num += 1
        bounds[row + 1] = num
    return num


@numba.njit(nogil=True, cache=True)
def _find_cuts(
    offsets: np.ndarray, data: np.ndarray, classes: np.ndarray, firsts: np.ndarray, lasts: np.ndarray,
    starts: np.ndarray, ends: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:  # fmt: skip
    """Return what to cut (int64, (cuts, 4)), how many lines of every row go and how many are left, and a wrong edit.

    The edits of row r are `starts` and `ends` from `firsts[r]` to `lasts[r]`. A row without edits is not looked at, one
    of which nothing is left is not cut. The wrong edit is the first that does not begin and end with a line, or -1.
    """
    cuts, num = np.empty((1024, 4), np.int64), 0
    gone, left = np.zeros(len(offsets) - 1, np.int64), np.zeros(len(offsets) - 1, np.int64)
    for row in range(len(offsets) - 1):
        edit, begin, end = firsts[row], offsets[row], offsets[row + 1]
        if edit == lasts[row]:
            continue
        at, after_cr, covered, widest = begin, False, begin, edit  # `widest` is the edit that reaches furthest
        # where what stays ends, where the line before ends, and whether that one goes
        kept_stop, stop_before, cutting = begin, begin, False
        # of the white space around the lines that go: where the line breaks are that stay, and how many
        most, breaks_start, breaks_stop = 0, begin, begin
        while True:
            start, stop, breaks, at, after_cr = next_line(data, at, end, classes, after_cr)
            if start == end:
                break
            while edit < lasts[row] and begin + starts[edit] <= start:
                if begin + starts[edit] != start:
                    return cuts[:num], gone, left, edit
                if begin + ends[edit] > covered:
                    covered, widest = begin + ends[edit], edit
                edit += 1
            if start < covered < stop:
                return cuts[:num], gone, left, widest
            goes = stop <= covered
            if goes or cutting:
                line_start = _line_start(data, stop_before, start)
                if not cutting or breaks >= most:
                    most, breaks_start, breaks_stop = breaks, stop_before, line_start
                if not goes:
                    cuts = with_room(cuts, num + 2)
                    if left[row] == 0:  # the text begins with this line
                        breaks_start, breaks_stop = kept_stop, kept_stop
                    if kept_stop < breaks_start:
                        cuts[num, ROW], cuts[num, START], cuts[num, KIND] = row, kept_stop - begin, 0
                        cuts[num, END] = breaks_start - begin
                        num += 1
                    if breaks_stop < line_start:
                        cuts[num, ROW], cuts[num, START], cuts[num, KIND] = row, breaks_stop - begin, 0
                        cuts[num, END] = line_start - begin
                        num += 1
            if goes:
                gone[row] += 1
            else:
                left[row] += 1
                kept_stop = stop
            stop_before, cutting = stop, goes
        if edit < lasts[row] or covered > stop_before:
            return cuts[:num], gone, left, edit if edit < lasts[row] else widest
        if cutting and left[row]:
            cuts = with_room(cuts, num + 1)
            cuts[num, ROW], cuts[num, START], cuts[num, KIND] = row, kept_stop - begin, 0
            cuts[num, END] = stop_before - begin
            num += 1
    return cuts[:num], gone, left, -1


@numba.njit(nogil=True, cache=True)
def _line_start(data: np.ndarray, first: int, start: int) -> int:
    """Return the byte behind the last line break of the white space `data[first:start]`, or `first`."""
    at = start
    while at > first:
        byte = data[at - 1]
        if byte <= 0x0D and byte >= 0x0A:
            return at
        if at - first >= 2 and byte == 0x85 and data[at - 2] == 0xC2:  # NEL
            return at
        if at - first >= 3 and byte | 1 == 0xA9 and data[at - 2] == 0x80 and data[at - 3] == 0xE2:  # LS, PS
            return at
        at -= 1
    return first
