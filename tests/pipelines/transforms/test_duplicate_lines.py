"""Lines and paragraphs that recur: against Python's own dictionaries, and on real texts through the engine."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_text import HOSTILE, TEXTS, lines, paragraphs, real_texts
from rows import batch_of, document

from pipelines.commit import Commit, CommittedTable
from pipelines.engines.datatrove import DatatroveEngine
from pipelines.errors import HeadraceError
from pipelines.schema import CORE, DOC_ID, IDENTITY
from pipelines.sinks.derived import DerivedOutput
from pipelines.sinks.sink import Output, Place
from pipelines.sinks.tables import TableOutput, read_table
from pipelines.sources.committed import Committed
from pipelines.stage import Chain, GroupStage, MapStage, Side, TableOf
from pipelines.storage.local import LocalStorage
from pipelines.transform import Transform
from pipelines.transforms.duplicate_lines import (
    LINE_EDITS,
    LINE_HASHES,
    REASONS,
    TAKEN,
    FindDuplicateLines,
    LineHashes,
    RemoveDuplicateLines,
    line_hash_rows,
)
from pipelines.transforms.exact import SortTable
from pipelines.transforms.scope import Scope

RANK = pa.field("rank", DOC_ID)
BREAKS = ("\n", "\n\n", "\n \n\n  ", "\r\n", "\r\n\r\n", "\x85", "\u2028\u2029", "\n    ", " \n\t", "\x0b\x0c")
SOME_LINES = ("a", "bc", "bcd", "水水", "d é", "a b c", "A", "the end.", "\u0301x", "…")
EDGES = ("", "\n", "  ", "\n\n  ", "\r\n")


def numbered(number: int) -> bytes:
    return number.to_bytes(16, "big")


def ranked(texts: Iterable[str | None], ranks: Iterable[int] | None = None, **columns: Sequence) -> pa.RecordBatch:
    """Return documents with these texts, whose ids are in their order; the ranks too, if they are not given."""
    texts = list(texts)
    rows = [
        document(
            text,
            doc_id=numbered(7 * place + 1),
            natural_key=str(place),
            rank=numbered(rank),
            **{name: column[place] for name, column in columns.items()},
        )
        for place, (text, rank) in enumerate(zip(texts, ranks or range(len(texts)), strict=True))
    ]
    return batch_of(rows, [RANK])


def hash_rows(batch: pa.RecordBatch) -> list[dict]:
    """Return the rows of the table of hashes, as its output writes them."""
    return [
        {"rank": row["rank"], "doc_id": row["doc_id"], **line}
        for row in batch.to_pylist()
        for line in row["line_hashes"]
    ]


def found_edits(batch: pa.RecordBatch, hashes: LineHashes, pieces: int = 1) -> pa.Table:
    """Return the edits that the steps find, the hashes being reduced in about so many batches."""
    rows = sorted(
        hash_rows(hashes(batch)), key=lambda row: (row["line_hash"], row["rank"], row["doc_id"], row["start"])
    )
    size = max(1, len(rows) // pieces)
    batches = [
        pa.RecordBatch.from_pylist(rows[start : start + size], schema=LINE_HASHES)
        for start in range(0, len(rows), size)
    ]
    found = [tables["edits"] for tables in FindDuplicateLines(hashes.lines, hashes.paragraphs)(iter(batches))]
    rows = [row for edits in found for row in edits.to_pylist()]
    return pa.Table.from_pylist(sorted(rows, key=lambda row: tuple(row.values())), LINE_EDITS)


def deduplicated(batch: pa.RecordBatch, hashes: LineHashes) -> pa.RecordBatch:
    return RemoveDuplicateLines().bind({"edits": found_edits(batch, hashes)})(batch)


def spans_of(text: str) -> tuple[list[tuple[int, int, object]], list[tuple[int, int, object]]]:
    """Return lines and paragraphs of a text, in characters: (start, stop, what is compared)."""
    some = [(line.start, line.stop, line.text) for line in lines(text)]
    several, at = [], 0
    for paragraph in paragraphs(text):
        several.append((some[at][0], some[at + len(paragraph) - 1][1], paragraph))
        at += len(paragraph)
    return some, several


def expected_edits(batch: pa.RecordBatch, hashes: LineHashes) -> set[tuple[bytes, int, int, str, bytes]]:
    """Return (doc_id, start, end, reason, kept_doc_id) by Python's dictionaries, which compare the lines themselves.

    A paragraph of one line counts as a line where lines are cut as often.
    """
    single = hashes.lines is None or hashes.paragraphs is None or hashes.lines > hashes.paragraphs
    seen: dict[object, list[bytes]] = defaultdict(list)
    found = set()
    for row in sorted(batch.to_pylist(), key=lambda row: (row["rank"], row["doc_id"])):
        scope = None if hashes.scope == "all" else row[hashes.scope]
        text = row["text"] or ""
        some, several = spans_of(text)
        for reason, spans, copies in zip(REASONS, (some, several), (hashes.lines, hashes.paragraphs), strict=True):
            for start, stop, what in spans:
                if copies is None or stop - start < hashes.min_characters:
                    continue
                if reason == REASONS[1] and len(what) == 1 and not single:
                    continue
                same = seen[reason, scope, what]
                if len(same) >= copies:
                    first, last = (len(text[:place].encode()) for place in (start, stop))
                    found.add((row["doc_id"], first, last, reason, same[0]))
                same.append(row["doc_id"])
    return found


def as_set(edits: pa.Table) -> set[tuple[bytes, int, int, str, bytes]]:
    assert len({tuple(row.values()) for row in edits.to_pylist()}) == len(edits)
    return {tuple(row.values()) for row in edits.to_pylist()}


@st.composite
def texts(draw, edges: Sequence[str] = EDGES) -> str | None:
    """Return a text of a few lines out of few."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.none() | TEXTS)
    text = draw(st.sampled_from(edges))
    for line in draw(st.lists(st.sampled_from(SOME_LINES), max_size=7)):
        text += line + draw(st.sampled_from(BREAKS))
    return text + draw(st.sampled_from([*SOME_LINES, *edges]))


@st.composite
def corpora(draw) -> tuple[pa.RecordBatch, LineHashes]:
    some = draw(st.lists(texts(), max_size=8))
    ranks = draw(st.permutations(range(len(some))))
    sources = [draw(st.sampled_from("ab")) for _ in some]
    copies = st.none() | st.integers(1, 3)
    num_lines, num_paragraphs = draw(st.tuples(copies, copies).filter(any))
    scope: Scope = draw(st.sampled_from(["all", "source"]))
    hashes = LineHashes(num_lines, num_paragraphs, draw(st.integers(1, 5)), scope)
    return ranked(some, ranks, source=sources), hashes


def test_by_hand():
    batch = ranked(
        [
            "Home page\nOne story.\n\nAll rights reserved.",  # (0, 9), (10, 20); (22, 42)
            "Home page\nAnother story.\n\nAll rights reserved.\nHome page\n",
            "All rights reserved.\n\nHome page",
        ]
    )
    edits = found_edits(batch, LineHashes(lines=1, paragraphs=None, min_characters=9))
    ids = batch.column("doc_id").to_pylist()
    assert [tuple(row.values()) for row in edits.to_pylist()] == [
        (ids[1], 0, 9, "duplicate_line", ids[0]),
        (ids[1], 26, 46, "duplicate_line", ids[0]),
        (ids[1], 47, 56, "duplicate_line", ids[0]),
        (ids[2], 0, 20, "duplicate_line", ids[0]),
        (ids[2], 22, 31, "duplicate_line", ids[0]),
    ]
    step = RemoveDuplicateLines().bind({"edits": edits})
    result = step(batch)
    assert result.column("text").to_pylist() == [
        batch.column("text")[0].as_py(),
        "Another story.\n",
        *batch.column("text").to_pylist()[2:],
    ]
    verdicts = result.column("verdict").to_pylist()
    assert verdicts[:2] == [None, None]
    assert verdicts[2] == {
        "outcome": "dropped",
        "reason": "duplicate_lines.nothing_left",
        "value": "2/2 lines are elsewhere",
        "threshold": "some line of its own",
    }
    evidence = step.evidence(batch)
    assert [len(row) for row in evidence] == [0, 3, 2]
    assert evidence[1][1].rule == "duplicate_lines.duplicate_line"
    assert evidence[1][1].value == f"bytes 26 to 46 are also in {ids[0].hex()}"
    assert evidence[1][1].passed


@pytest.mark.parametrize(
    ("text", "cut", "left"),
    [
        ("one\nXX\ntwo", "XX", "one\ntwo"),
        ("one\n\nXX\n\ntwo", "XX", "one\n\ntwo"),
        ("one\n\nXX\ntwo", "XX", "one\n\ntwo"),
        ("one\nXX\n\ntwo", "XX", "one\n\ntwo"),
        ("one\n\nXX\nXX\n\n\ntwo", "XX", "one\n\n\ntwo"),
        ("one\nXX\n\nXX\ntwo", "XX", "one\n\ntwo"),
        ("XX\n\n  one", "XX", "  one"),
        ("\n\nXX\none\n", "XX", "one\n"),
        ("one\n\nXX\n", "XX", "one\n"),
        ("one\nXX", "XX", "one"),
        ("def one():\n    XX\n    two\nthree", "XX", "def one():\n    two\nthree"),
        ("one\n\n    XX\ntwo", "XX", "one\n\ntwo"),
        ("one\r\nXX\r\ntwo", "XX", "one\r\ntwo"),
        ("one\u2028XX\x85\t二", "XX", "one\x85\t二"),
        ("one  \nXX  \n two", "XX", "one  \n two"),
    ],
)
def test_a_cut_takes_its_line_break_and_leaves_no_hole(text, cut, left):
    batch = ranked([cut, text])
    assert deduplicated(batch, LineHashes(1, None, 2)).column("text").to_pylist() == [cut, left]


def test_lines_are_equal_by_their_bytes():
    """Without the white space at both ends; case, digits and accents count, which cc_net's form leaves out."""
    batch = ranked(["the line 1", "\u3000the line 1 \u00a0\n.", "The line 1", "the line 2", "the líne 1"])
    assert {row["doc_id"] for row in found_edits(batch, LineHashes(1, None, 10)).to_pylist()} == {numbered(8)}


def test_copies_that_stay_and_the_shortest_that_goes():
    batch = ranked(["水水水\n水水水\n12", "水水水\n水水水\n12"])
    three = found_edits(batch, LineHashes(3, None, 3)).to_pylist()
    assert [(row["doc_id"], row["start"], row["end"]) for row in three] == [(numbered(8), 10, 19)]
    assert len(found_edits(batch, LineHashes(1, None, 2))) == 4
    assert len(found_edits(batch, LineHashes(1, None, 4))) == 0


def test_a_lower_rank_stays_whatever_the_id():
    batch = ranked(["same text", "same text", "same text"], ranks=[5, 0, 3])
    edits = found_edits(batch, LineHashes(1, None, 9)).to_pylist()
    first, second, third = batch.column("doc_id").to_pylist()
    assert [(row["doc_id"], row["kept_doc_id"]) for row in edits] == [(first, second), (third, second)]


def test_a_paragraph_is_its_lines():
    batch = ranked(["ab\ncd\n\nef", "x\n\n ab \r\ncd\n\ny", "ab\n\ncd", "ab\ncd\nef"])
    edits = found_edits(batch, LineHashes(None, 1, 4)).to_pylist()
    assert [(row["doc_id"], row["start"], row["end"], row["reason"]) for row in edits] == [
        (numbered(8), 4, 11, "duplicate_paragraph")
    ]
    assert deduplicated(batch, LineHashes(None, 1, 4)).column("text")[1].as_py() == "x\n\ny"


def test_documents_that_go_have_no_hashes():
    batch = ranked(["a line", "a line", "a line"])
    gone = pa.table({"doc_id": pa.array([numbered(8), numbered(1)], DOC_ID)})
    hashes = LineHashes(1, None, 1).bind({"duplicates": gone})
    assert [len(row) for row in hashes(batch).column("line_hashes").to_pylist()] == [0, 0, 1]
    assert [len(row) for row in hashes.bind({})(batch.slice(1)).column("line_hashes").to_pylist()] == [0, 1]


@given(corpora(), st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_what_is_found_is_what_dictionaries_find(corpus, pieces):
    batch, hashes = corpus
    assert as_set(found_edits(batch, hashes, pieces)) == expected_edits(batch, hashes)


@given(corpora())
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost(corpus):
    """Every line of any length is somewhere afterwards, and what is left of a text are its lines but those cut."""
    batch, hashes = corpus
    edits = found_edits(batch, hashes)
    result = RemoveDuplicateLines().bind({"edits": edits})(batch)
    result.validate(full=True)
    before, after = defaultdict(set), defaultdict(set)
    for given_row, row in zip(batch.to_pylist(), result.to_pylist(), strict=True):
        scope = None if hashes.scope == "all" else row[hashes.scope]
        before[scope] |= {line.text for line in lines(given_row["text"] or "")}
        if row["verdict"] is None:
            after[scope] |= {line.text for line in lines(row["text"] or "")}
        own = [edit for edit in edits.to_pylist() if edit["doc_id"] == row["doc_id"]]
        check_cut(given_row["text"], row["text"], [(edit["start"], edit["end"]) for edit in own], row["verdict"])
    assert all(after[scope] == before[scope] for scope in before)
    kept = {row["doc_id"] for row in result.to_pylist() if row["verdict"] is None}
    as_lines = [row for row in edits.to_pylist() if row["reason"] == "duplicate_line"]
    assert {row["kept_doc_id"] for row in as_lines} <= kept  # of a paragraph's keeper the lines may be cut one by one


def check_cut(text: str | None, left: str | None, spans: list[tuple[int, int]], verdict: dict | None) -> None:
    """Hold what is left of a text against its spans."""
    if not spans:
        assert left == text
        assert verdict is None
        return
    assert text is not None
    assert left is not None
    places = [(line, len(text[: line.start].encode()), len(text[: line.stop].encode())) for line in lines(text)]
    cut = [any(start <= first and last <= end for start, end in spans) for _, first, last in places]
    if all(cut):
        assert left == text
        assert verdict["reason"] == "duplicate_lines.nothing_left"
        return
    assert verdict is None
    stay = [line for (line, _, _), goes in zip(places, cut, strict=True) if not goes]
    found = lines(left)
    assert [line.text for line in found] == [line.text for line in stay]
    # the most blank lines of any white space between two lines that stay; the white space before a line in its line
    blank, blanks, indents = 0, [], []
    for (line, _, _), goes in zip(places, cut, strict=True):
        blank = max(blank, line.blank_before)
        if not goes:
            blanks.append(blank)
            indents.append(indent(text, line.start))
            blank = 0
    blanks[0] = 0 if cut[0] else blanks[0]
    assert [line.blank_before for line in found] == blanks
    assert [indent(left, line.start) for line in found] == indents
    behind = text[places[-1][0].stop :]
    assert left[found[-1].stop :] == behind
    characters = iter(text)
    assert all(character in characters for character in left), "it is no part of the text"


def indent(text: str, start: int) -> str:
    """Return the white space between a line break and this place."""
    before = text[:start]
    return before[len(before.rstrip(" \t\u3000\u00a0\x1c\x1d\x1e\x1f")) :]


@given(st.lists(texts(), max_size=8), st.integers(0, 8))
@settings(max_examples=100, deadline=None)
def test_rows_do_not_see_each_other(some, place):
    """The law of batches, of both transforms; slices too."""
    batch, hashes = ranked(some), LineHashes(1, 2, 2, "source")
    step = RemoveDuplicateLines().bind({"edits": found_edits(batch, hashes)})
    for transform in (hashes, step):
        whole = transform(batch)
        parts = [transform(batch.slice(0, place)), transform(batch.slice(place))]
        assert pa.Table.from_batches(parts).combine_chunks().equals(pa.Table.from_batches([whole]).combine_chunks())
        whole.validate(full=True)


def test_hostile_texts():
    batch = ranked([*HOSTILE.values(), *HOSTILE.values()])
    hashes = LineHashes(1, 1, 1)
    assert as_set(found_edits(batch, hashes)) == expected_edits(batch, hashes)
    result = deduplicated(batch, hashes)
    for row in result.to_pylist()[len(HOSTILE) :]:
        assert (row["verdict"] is not None) == bool(lines(row["text"]))


def test_turns_move_with_their_text():
    text = "Hi there\n\nAn answer.\nMore of it.\n\nHi there"
    turns = [
        {"role": role, "start": start, "end": end, "weight": 256}
        for role, start, end in (("user", 0, 8), ("assistant", 10, 32), ("user", 34, 42))
    ]
    batch = ranked(["More of it.\nHi there", text], turns=[None, turns])
    result = deduplicated(batch, LineHashes(1, None, 8)).to_pylist()[1]
    assert result["text"] == "An answer."
    assert [(turn["start"], turn["end"]) for turn in result["turns"]] == [(0, 0), (0, 10), (10, 10)]


def test_edits_of_another_text_are_refused():
    batch = ranked(["one line\nand one", "one line\nand one"])
    edits = found_edits(batch, LineHashes(1, None, 3))
    other = ranked(["one line\nand one", "one longer line\nand one"])
    with pytest.raises(HeadraceError, match=rf"document {numbered(8).hex()}: bytes 0 to 8 .* whole lines\nhint: "):
        RemoveDuplicateLines().bind({"edits": edits})(other)
    with pytest.raises(HeadraceError, match="bytes 9 to 16 "):
        RemoveDuplicateLines().bind({"edits": edits})(ranked(["", "one line\n and one"]))
    with pytest.raises(HeadraceError, match="bytes 9 to 16 "):
        RemoveDuplicateLines().bind({"edits": edits})(ranked(["", "one line"]))
    with pytest.raises(ValueError, match="not in the order"):
        RemoveDuplicateLines().bind({"edits": edits.take([1, 0])})
    with pytest.raises(ValueError, match="is not bound"):
        RemoveDuplicateLines()(batch)
    assert RemoveDuplicateLines().bind({"edits": LINE_EDITS.empty_table()})(batch) is batch


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lines": 0, "paragraphs": None}, "lines: 0 is too few"),
        ({"lines": None, "paragraphs": -1}, "paragraphs: -1 is too few"),
        ({"lines": 10**20, "paragraphs": None}, "lines: 100000000000000000000 is too many"),
        ({"lines": None, "paragraphs": None}, "both are null"),
        ({"lines": 1, "paragraphs": None, "min_characters": 0}, "min_characters: 0 is too few"),
    ],
)
def test_counts_that_make_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        LineHashes(**fields)


def test_first_bytes_of_hashes_are_even():
    """They choose the bucket: of lines that differ in their last characters only, chi-square over 16 buckets."""
    batch = ranked([f"line number {number}" for number in range(6_400)])
    rows = hash_rows(LineHashes(1, None, 1)(batch))
    for place in range(4):
        counts = Counter(row["line_hash"][place] >> 4 for row in rows)
        assert sum((counts[bucket] - 400) ** 2 / 400 for bucket in range(16)) < 45  # 15 degrees: one in 10,000


# On real texts, through the engine


@dataclasses.dataclass(frozen=True)
class Run:
    """The stages of a run, made by hand."""

    storage: LocalStorage
    engine: DatatroveEngine

    def map(
        self, name: str, commits: Sequence[Commit], transform: Transform, output: Output, side: Sequence[Commit] = ()
    ) -> Sequence[Commit]:
        """Carry out a map stage over documents; a given side is the edits, of stage 5-sort."""
        given = pa.schema([*CORE, RANK])
        source = Committed("documents", given)
        stage = MapStage(
            name,
            {"documents": Chain(source, self.storage, (transform,))},
            pa.schema([*given, *transform.adds]),
            (output,),
            (Side(TableOf("5-sort", "edits"), LINE_EDITS),) if side else (),
        )
        sides = [CommittedTable(self.storage, "edits", tuple(side))] if side else []
        splits = source.splits_of(list(commits), "documents")
        return self.engine.map(stage, splits, sides, self.storage, lambda *_: None).commits

    def group(self, commits: Sequence[Commit], stage: GroupStage) -> Sequence[Commit]:
        given = [CommittedTable(self.storage, stage.input_table, tuple(commits))]
        return self.engine.group(stage, given, self.storage, lambda *_: None).commits

    def rows(self, commits: Sequence[Commit], table: str) -> list[dict]:
        files = [file for commit in commits for file in commit.files if file.table == table]
        return [row for file in files for row in read_table(self.storage, file.path).to_pylist()]


def published(storage: LocalStorage, batches: Sequence[pa.RecordBatch]) -> list[Commit]:
    commits = []
    for number, batch in enumerate(batches):
        place = Place(storage, storage.new_attempt(), "stages/1-read", f"{number:032x}")
        sink = TableOutput("documents", batch.schema).open(place)
        sink.write(batch)
        (pending,) = sink.close()
        storage.publish(place.attempt, pending.name, pending.record.path)
        commits.append(Commit(place.split_id, str(number), (pending.record,), ()))
    return commits


def run_through_engine(
    folder, batch: pa.RecordBatch, hashes: LineHashes, cuts: Sequence[int]
) -> tuple[dict, dict, list]:
    """Return documents and rejects by doc_id, and the edits, of a run whose input is cut into files at these places."""
    edges = [0, *cuts, batch.num_rows]
    pieces = [batch.slice(start, stop - start) for start, stop in zip(edges, edges[1:], strict=False)]
    with DatatroveEngine(1) as engine:
        run = Run(LocalStorage(folder), engine)
        read = published(run.storage, pieces)
        documents = run.group(
            read,
            GroupStage(
                "2-identify", (TableOf("1-read", "documents"),), batch.schema, "doc_id", (), IDENTITY, 3,
                SortTable("documents"), (TableOutput("documents", batch.schema),),
            ),
        )  # fmt: skip
        lines = DerivedOutput("line_hashes", TAKEN, LINE_HASHES, line_hash_rows)
        hashed = run.map("3-lines", documents, hashes, lines)
        found = run.group(
            hashed,
            GroupStage(
                "4-find", (TableOf("3-lines", "line_hashes"),), LINE_HASHES, "line_hash", ("rank", "doc_id", "start"),
                ("end", "kind"), 3, FindDuplicateLines(hashes.lines, hashes.paragraphs),
                (TableOutput("edits", LINE_EDITS),),
            ),
        )  # fmt: skip
        edits = run.group(
            found,
            GroupStage(
                "5-sort", (TableOf("4-find", "edits"),), LINE_EDITS, "doc_id", ("start",), ("end", "reason"), 3,
                SortTable("edits"), (TableOutput("edits", LINE_EDITS),),
            ),
        )  # fmt: skip
        cut = run.map("6-cut", documents, RemoveDuplicateLines(), TableOutput("documents", batch.schema), edits)
        kept = {row["doc_id"]: row for row in run.rows(cut, "documents")}
        gone = {row["doc_id"]: row for row in run.rows(cut, "rejects")}
        return kept, gone, run.rows(edits, "edits")


@pytest.mark.parametrize(("num_lines", "num_paragraphs"), [(1, 1), (2, 1), (None, 1), (6, None)])
def test_real_texts_through_the_engine(num_lines, num_paragraphs, tmp_path):
    """Twelve made-up texts stand in where the shared data is not here."""
    texts = list(real_texts(300)) or [f"A story of {n}.\n\nAll rights reserved.\nHome" for n in range(12)]
    texts += [text.replace(". ", ".\n") + "\n\nShared by everyone, at the foot of every page." for text in texts[:60]]
    texts += texts[5:9]
    batch = ranked(texts, [(place * 37) % len(texts) for place in range(len(texts))])
    hashes = LineHashes(num_lines, num_paragraphs, 20)
    kept, gone, edits = run_through_engine(tmp_path / "one", batch, hashes, [50, 90])
    assert {tuple(edit.values()) for edit in edits} == expected_edits(batch, hashes)
    assert len(edits) > 3
    assert kept.keys() | gone.keys() == set(batch.column("doc_id").to_pylist())
    by_document = defaultdict(list)
    for edit in edits:
        by_document[edit["doc_id"]].append((edit["start"], edit["end"]))
    for row in batch.to_pylist():  # replayed: the text and its edits give what came out, for every document
        out = kept.get(row["doc_id"]) or gone[row["doc_id"]]
        check_cut(row["text"], out["text"], by_document[row["doc_id"]], out["verdict"])
        own = [edit for edit in edits if edit["doc_id"] == row["doc_id"]]
        replayed = RemoveDuplicateLines().bind({"edits": pa.Table.from_pylist(own, LINE_EDITS)})(
            pa.RecordBatch.from_pylist([row], schema=batch.schema)
        )
        assert replayed.column("text")[0].as_py() == out["text"]
    before = {line.text for text in texts for line in lines(text)}
    assert {line.text for row in kept.values() for line in lines(row["text"])} == before
    again = run_through_engine(tmp_path / "two", batch, hashes, [7, 8, 200 % len(texts)])
    assert (kept, gone, edits) == again
