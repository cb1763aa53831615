"""What every transform must hold, on documents of every kind. A transform without a case here fails the tests.

As a script it prints a hash of every case's result, so that another process can be compared with this one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import json
import os
import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from contamination_indexes import QUESTIONS, small_index
from hypothesis import given, settings
from hypothesis import strategies as st
from made import GERMAN, PAGES, PROSE
from quality_models import small_model
from rows import batch_of, document
from runs import REPOSITORY, SHARED
from url_lists import listed

import pipelines.transforms
from pipelines.near_duplicates.presets import PRESETS, Shape
from pipelines.near_duplicates.tables import CLUSTER_SIZES, NEAR_DUPLICATES
from pipelines.schema import CORE, OUTCOMES, with_columns
from pipelines.sources.commoncrawl import CommonCrawl
from pipelines.sources.source import BatchLimits, RawAccount
from pipelines.sources.tables import Table
from pipelines.storage.local import LocalStorage
from pipelines.transform import Transform
from pipelines.transforms.c4 import C4Quality
from pipelines.transforms.code_quality import CodeQuality
from pipelines.transforms.contamination import Contamination
from pipelines.transforms.conversation_quality import ConversationQuality
from pipelines.transforms.duplicate_lines import (
    LINE_EDITS,
    FindDuplicateLines,
    LineHashes,
    RemoveDuplicateLines,
    line_hash_rows,
)
from pipelines.transforms.encode import Encode
from pipelines.transforms.exact import DUPLICATES, ExactDuplicate, TextHash, UrlDuplicate, UrlHash
from pipelines.transforms.extract import Extract
from pipelines.transforms.fineweb import FineWebQuality
from pipelines.transforms.gopher import GopherQuality
from pipelines.transforms.gopher_repetition import GopherRepetition
from pipelines.transforms.language import Language
from pipelines.transforms.licence import Licence
from pipelines.transforms.near_duplicate import BandKeys, NearDuplicate, ShingleSets
from pipelines.transforms.pii import Pii
from pipelines.transforms.quality import SCORE, SCORES, KeepTop, Quality
from pipelines.transforms.rank import Rank
from pipelines.transforms.refinedweb_lines import RefinedWebLines
from pipelines.transforms.registry import TRANSFORMS
from pipelines.transforms.rights import Rights
from pipelines.transforms.url_rules import UrlRules

TEXTS = [
    PROSE, GERMAN, PROSE.upper(), PROSE * 20, PROSE.replace(" ", "\n"), "", " ", "\n\n", "word", "1 2 3 4 5 6 7 8 9",
    "# " * 60, "- item\n" * 60, "and so on ...\n" * 30, "the end\u2026 " * 40, "水は高い所から低い所へ流れる。" * 12,
    "Вода течёт по каналу к колесу мельницы. " * 8, "الماء يجري في القناة إلى العجلة. " * 8, "नदी का पानी " * 20,
    "\U0001f30a" * 50, "e\u0301" * 60, "\u0344\u1e9e\ufb01 \u2028\u2029\x85", "a\0b\x1b[2J", "x" * 3000,
    "<|endoftext|>" * 3, PROSE + " #" * 200,
    " " * 5000, "\t\u3000\xa0" * 500, "def f(x):\n    return {x: [x]}\n" * 9,
]  # fmt: skip
"""Prose, debris and hostile texts, in several scripts."""

TYPES = [pa.field("media_type", pa.string()), pa.field("charset", pa.string())]


@dataclasses.dataclass(frozen=True)
class Case:
    """A transform and a function that makes documents for it (with the columns that it needs)."""

    transform: Transform
    make: Callable[[], pa.RecordBatch]


@cache
def texts() -> pa.RecordBatch:
    """Made texts and (where it is here) real ones, languages filled in here and there."""
    languages = [None, "en", "de", "en"]
    rows = [document(text, natural_key=str(place), language=languages[place % 4]) for place, text in enumerate(TEXTS)]
    made = batch_of(rows)
    if not SHARED.exists():
        return made
    source = Table(name="c4", include=("c4_demo.jsonl",), schema="c4", limit=25)
    return pa.concat_batches([made, real(source, "web_text/c4_sample").slice(0, 25)])


def real(source: CommonCrawl | Table, folder: str) -> pa.RecordBatch:
    storage = LocalStorage(SHARED / folder)
    batches = [
        batch for split in source.splits(storage) for batch in source.read(split, storage, BatchLimits(), RawAccount())
    ]
    whole = pa.concat_batches(batches)
    return whole.filter(whole.column("verdict").is_null())


@cache
def pages() -> pa.RecordBatch:
    """Payloads for extraction: whole, odd and hostile ones, and rows that have a text already."""
    html = [f"<html><body><main>{body}</main></body></html>".encode() for body in PAGES.values()]
    html += [
        b"", b"<", b"\xff\xfe<\x00p\x00>\x00", "<meta charset=koi8-r><p>Вода".encode("koi8-r"), b"\x80\x81\xff" * 50,
        b"<p>" * 300, b"<table>" + b"<tr><td>x" * 300, b"<a" + b" b=1" * 1500 + b">", b"<!--" + b"-" * 5000, b"\0" * 99,
        b"<p>\xed\xa0\x80</p>", b"<script>" + b"x" * 999, "<p>水は流れる".encode("shift_jis"),
    ]  # fmt: skip
    kinds = ["text/html", "application/xhtml+xml", "text/plain", None]
    charsets = [None, "utf-8", "shift_jis", "nonsense"]
    rows = [
        document(
            None, natural_key=f"page {place}", content=page, media_type=kinds[place % 4], charset=charsets[place % 3]
        )
        for place, page in enumerate(html * 2)
    ]
    rows += [document(text, natural_key=f"text {place}") for place, text in enumerate(["given", "", PROSE])]
    rows += [document(None, natural_key="nothing", media_type="text/html")]
    made = batch_of(rows, TYPES)
    if not SHARED.exists():
        return made
    source = CommonCrawl(name="web", include=("whirlwind.warc.gz", "*.wet"), limit=12)
    return pa.concat_batches([made, real(source, "warc/commoncrawl").select(made.schema.names)])


@cache
def hashed() -> pa.RecordBatch:
    """Texts as they stand before the verdicts of deduplication."""
    return TextHash()(texts())


@cache
def duplicates() -> pa.Table:
    """Every third document goes; the table also names documents of others."""
    ids = texts().column("doc_id").to_pylist()
    pairs = [(id_, ids[0]) for id_ in ids[2::3]] + [(b"\xff" * 16, b"\0" * 16)]
    rows = [
        {"doc_id": gone, "kept_doc_id": kept, "reason": reason, "place": 0}
        for (gone, kept), reason in zip(pairs, cycle(["exact_duplicate", "duplicate_url"]), strict=False)
    ]
    return pa.Table.from_pylist(rows, DUPLICATES)


@cache
def ranked() -> pa.RecordBatch:
    """Texts of which some have a score and a date."""
    scores = pa.array([None if row % 5 == 0 else row * 37 % 10_001 for row in range(texts().num_rows)], SCORE.type)
    return texts().append_column(SCORE, scores)


@cache
def line_edits() -> pa.Table:
    """All but the first two of equal lines, and paragraphs but the first, are cut."""
    hashed = LineHashes(2, 1, 20)(Rank(0)(texts()))
    rows = pa.Table.from_batches([line_hash_rows(hashed)])
    order = [(name, "ascending") for name in ("line_hash", "rank", "doc_id", "start", "end", "kind")]
    found = FindDuplicateLines(2, 1)(iter(rows.sort_by(order).combine_chunks().to_batches()))
    edits = pa.Table.from_batches([tables["edits"] for tables in found], LINE_EDITS)
    return edits.sort_by([(name, "ascending") for name in ("doc_id", "start", "end", "reason")])


@cache
def edges() -> dict[str, pa.Table]:
    """Every third document goes, the one before it stands for it and others."""
    ids = texts().column("doc_id").to_pylist()
    edge = [
        {"doc_id": gone, "kept_doc_id": kept, "shared": 9, "total": 10 + place, "place": 0}
        for place, (gone, kept) in enumerate(zip(ids[2::3], ids[1::3], strict=False))
    ]
    sizes = [{"doc_id": kept, "cluster_size": 2 + place} for place, kept in enumerate(ids[1::3])]
    return {
        "near_duplicates": pa.Table.from_pylist(edge, NEAR_DUPLICATES),
        "cluster_sizes": pa.Table.from_pylist(sizes, CLUSTER_SIZES),
    }


@cache
def with_values() -> pa.RecordBatch:
    """Texts and turns that hold personal data, beside those that hold none."""
    text = "Frage? zoë an zoe@mill.org, 52.230.17.59."
    turns = [{"role": "user", "start": 0, "end": 6, "weight": 0}, {"role": "user", "start": 7, "end": 42, "weight": 1}]
    made = [
        document(PROSE + " me@mill.org, phone 212-555-0123 " + PROSE, natural_key="prose"),
        document(text, natural_key="talk", turns=turns),
        document("DE68 1002 0500 0001 0379 00", natural_key="iban"),
    ]
    return pa.concat_batches([batch_of(made), texts().slice(0, 45), batch_of(made[:2])])


@cache
def conversations() -> pa.RecordBatch:
    """Plain texts, sound turns, and turns with each fault."""
    text = "Frage? Über die Antwort."
    size = len(text.encode())
    faulty = [
        ("robot", 0, 6, 0), ("user", 0, size + 1, 0), ("user", -1, 3, 0), ("user", 8, 10, 0), ("user", 0, 6, 257),
        (None, 0, 6, 0), ("user", 6, 0, 0),
    ]  # fmt: skip
    sound = [
        [("user", 0, 6, 0), ("assistant", 7, size, 256)], [("system", 0, 0, 0)], [], [("tool", 0, size, 128)],
        [("user", 0, 6, 256), ("assistant", 6, 7, 0), ("user", 7, size, 1)],
    ]  # fmt: skip
    names = ("role", "start", "end", "weight")
    turns = [[dict(zip(names, turn, strict=True)) for turn in row] for row in [*sound, *([turn] for turn in faulty)]]
    turns.append([*turns[0], turns[0][0]])
    rows = [document(text, natural_key=f"talk {place}", turns=row) for place, row in enumerate(turns)]
    nulls = [document(None, natural_key="null"), document(None, natural_key="null turns", turns=turns[0])]
    return pa.concat_batches([batch_of(rows), texts(), batch_of(nulls)])


@cache
def source_files() -> pa.RecordBatch:
    """Texts of every kind as source files of every kind."""
    paths = [
        "a.py", "vendor/b.c", "c.html", "d.json", "e.ipynb", "yarn.lock", "f.min.js", "g.csv", "readme.txt", "h.txt",
        "i.md", "j.wat", "k", "l.js", "m.fsh",
    ]  # fmt: skip
    cell = '{"cell_type": "code", "source": ["print(1)\\n"], "outputs": ["' + "out " * 99 + '"]}'
    made = [
        ("gen.py", "# This file was auto-generated.\n" + PROSE), ("x.py", '<?xml version="1.0"?><a/>'),
        ("y.js", "var y = 1;\n" * 20 + "//# sourceMappingURL=y.js.map\n"),
        ("b64.py", ("QUJD" * 18 + "\n") * 20 + "x = 1\n" * 400),
        ("hex.c", "{" + "0x41,0x42," * 200 + "}"), ("esc.c", PROSE + r"\u0041\u0042" * 9),
        ("lines.py", "\n" * 100_001),
        ("cells.ipynb", '{"cells": [' + ", ".join([cell] * 3) + "]}"), ("none.ipynb", '{"cells": []}'),
        ("page.html", f"<p>{PROSE}<script>x = '<p>'</script>&amp;<!-- c -->"), ("bad.html", "<a href='" + "x " * 499),
        ("long.html", "<p>" + "x" * 100_001), ("long.yaml", "- a\n" * 513), ("lost.py", "x = '\ufffd\ufffd'\n"),
        ("long.fsh", "vec four;\n"),
    ]  # fmt: skip
    plain = texts().column("text").to_pylist()
    rows = [*made, *((paths[place % len(paths)], text) for place, text in enumerate(plain))]
    return batch_of([document(text, natural_key=str(n), origin_path=path) for n, (path, text) in enumerate(rows)])


@cache
def talks() -> pa.RecordBatch:
    """Conversations with each fault that a rule is about, and those with turns that are none."""
    call = '{"name": "f", "arguments": {}}'
    said = [
        [("user", "Hi."), ("assistant", "Hello.")],
        [("system", "Be kind."), ("user", "Hi."), ("assistant", call), ("tool", "1"), ("assistant", "One.")],
        [("user", "Hi."), ("assistant", call[:-1]), ("tool", "1"), ("assistant", "One.")],
        [("user", "Hi."), ("assistant", "<tool_call>{]</tool_call>"), ("tool", "1"), ("assistant", "One.")],
        [("user", "Hi."), ("assistant", "I\u2019m  SORRY, but I can`t assist with that.")],
        [("user", "你好"), ("assistant", "很抱歉，我无法帮助您预订机票。")],
        [("user", "Hi."), ("user", "Hi?"), ("assistant", "Hello.")], [("user", "Hi.")], [("assistant", "Hello.")],
        [("user", "Hi."), ("assistant", " \u3000\n")], [("robot", "Hi."), ("assistant", "Hello.")],
        [("user", PROSE), ("assistant", "Yes."), ("user", PROSE), ("assistant", "Yes.")],
    ]  # fmt: skip
    rows = []
    for number, talk in enumerate(said):
        at, turns = 0, []
        for role, text in talk:
            turns.append({"role": role, "start": at, "end": at + len(text.encode()), "weight": 0})
            at += len(text.encode()) + 2
        rows.append(document("\n\n".join(text for _, text in talk), natural_key=f"said {number}", turns=turns))
    return pa.concat_batches([batch_of(rows), conversations()])


@cache
def licensed() -> pa.RecordBatch:
    """Texts and payloads with licences of every kind, and the pages and texts of other cases."""
    declared = [None, "MIT", "gpl-2.0+", "see the file", "MIT OR CC-BY-4.0"]
    rows = [
        document(text, natural_key=f"licence {place}", licence=declared[place % 5], origin_path=f"a/{place}.py")
        for place, text in enumerate(["# SPDX-License-Identifier: ISC", "x", "under the MIT license", "\0", None] * 4)
    ]
    links = [
        b"<a rel=license href=//creativecommons.org/licenses/by/4.0/>", b"<meta name=dcterms.license content=x>",
        "<link rel=license href=https://opensource.org/licenses/MIT>".encode("utf-16"), b"",
        b"creativecommons.org/licenses/by/4.0",
    ]  # fmt: skip
    rows += [document(None, natural_key=f"link {place}", content=link) for place, link in enumerate(links)]
    return pa.concat_batches([batch_of(rows), pages().select(CORE.names), texts()])


@cache
def addressed() -> pa.RecordBatch:
    """Payloads with URLs and headers of every kind, null and odd ones among them."""
    urls = [
        "http://de.wiki.example/a", "https://User@Bad.Example:80/x", None, "http://ok.example/dir?x", "//straße.de/",
        "http://ok.example/vi-le", "http://ok.example/rude", "", "http://ok.example/one/two", "http://ok.example/one",
        "%%@:/",
    ]  # fmt: skip
    headers = [None, [("X-Robots-Tag", "noai")], [], [("tdm-reservation", "1"), ("x-robots-tag", "bot: noai")]]
    headers.append([("", "")])
    wide = "<meta name=ccbot content=none>".encode("utf-16")
    contents = [b"<meta name=robots content=noarchive>", b"<p>", None, wide]
    rows = [
        document(
            None, natural_key=f"address {place}", url=urls[place % len(urls)], content=contents[place % 4],
            http_headers=headers[place % 5] and [{"name": name, "value": value} for name, value in headers[place % 5]],
        )
        for place in range(44)
    ]  # fmt: skip
    return pa.concat_batches([batch_of(rows), pages().select(CORE.names)])


@cache
def contaminated() -> pa.RecordBatch:
    """Items alone, within prose, twice, and almost; the turns of conversations around them."""
    long, whole, german = QUESTIONS.values()
    turns = [{"role": "user", "start": 0, "end": len(long), "weight": 0}]
    made = [
        document(long, natural_key="long", turns=turns),
        document(f"{PROSE} {whole}\n{long.upper()}", natural_key="two"),
        document(f"{german} {german} {german}", natural_key="thrice"), document(whole[:-8], natural_key="almost"),
        document(long.replace("wheel", "mill"), natural_key="edited"), document(None, natural_key="null"),
    ]  # fmt: skip
    return pa.concat_batches([batch_of(made), texts(), batch_of(made[:3])])


@cache
def scored() -> pa.RecordBatch:
    """Texts with their quality, and some that nobody scored."""
    batch = Quality(model=small_model())(texts())
    place = batch.schema.get_field_index("quality_score")
    score = pc.if_else(pa.array(np.arange(batch.num_rows) % 5 == 4), None, batch.column(place))
    return batch.set_column(place, batch.schema.field(place), score)


@cache
def counted() -> pa.Table:
    """The histogram of those scores, in two parts, and one of another source."""
    scores = [score for score in scored().column("quality_score").to_pylist() if score is not None]
    rows = [*(("web", score, 1) for score in scores), ("other", 9_999, 7)]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), SCORES, strict=True)],
        schema=SCORES,
    )


BY_EXTENSION = {"fsh": {"max_longest_line": 5}, "md": {"max_encoded": None, "min_alphanumeric": 9_000}}

CASES: dict[str, list[Case]] = {
    "extract": [
        Case(Extract(), pages),
        Case(Extract(engine="trafilatura"), pages),
        Case(Extract(max_bytes=100, max_depth=5, max_nodes=20, max_attributes=3), pages),
    ],
    "language": [
        Case(Language(), texts),
        Case(Language(languages=("de", "en"), minimum_score=0), texts),
        Case(Language(minimum_score=10_000, max_bytes=7), texts),
    ],
    "gopher_quality": [
        Case(GopherQuality(), texts),
        Case(GopherQuality(min_words=1, min_stop_words=0, max_mean_word_length=4, max_hashes=0), texts),
    ],
    "gopher_repetition": [
        Case(GopherRepetition(), texts),
        Case(GopherRepetition(max_duplicate_lines=None, max_top_2_grams=50_000, values=True), texts),
    ],
    "c4_quality": [
        Case(C4Quality(), texts),
        Case(C4Quality(min_sentences=1, values=True), texts),
        Case(C4Quality(require_end_mark=False, min_words_per_line=1, min_sentences=2), conversations),
        Case(C4Quality(keep_blank_lines=True, max_curly_bracket_lines=None, drop=False, min_long_lines=1), texts),
    ],
    "fineweb_quality": [
        Case(FineWebQuality(), texts),
        Case(FineWebQuality(ignore_trailing_space=False, max_line_breaks=0, short_line=9, values=True), texts),
    ],
    "refinedweb_lines": [
        Case(RefinedWebLines(), texts),
        Case(RefinedWebLines(max_removed_words=10_000, max_line_breaks=1, values=True), texts),
        Case(RefinedWebLines(max_uppercase_characters=0, max_removed_words=5_000), conversations),
    ],
    "pii": [
        Case(Pii(), with_values),
        Case(Pii(max_hits=1, values=True), with_values),
        Case(Pii(kinds=("email",), replace=False), with_values),
    ],
    "code_quality": [
        Case(CodeQuality(), source_files),
        Case(CodeQuality(max_vendored=None, min_alphabetic=None, header_lines=1, values=True), source_files),
        Case(CodeQuality(min_data_characters=100, extensions=BY_EXTENSION), source_files),
    ],
    "conversation_quality": [
        Case(ConversationQuality(), talks),
        Case(ConversationQuality(max_turns=3, max_characters=60, max_refusals=None, values=True), talks),
        Case(ConversationQuality(max_misplaced_turns=None, repeated_characters=1, refusals=("hello",)), talks),
    ],
    "quality": [
        Case(Quality(model=small_model()), texts),
        Case(Quality(model=small_model(), min_score=6_000, values=True), texts),
    ],
    "quality_keep_top": [
        Case(KeepTop((("web", 4_000),)).bind({"quality_scores": counted()}), scored),
        Case(KeepTop((("c4", 1), ("web", 0))).bind({"quality_scores": counted()}), scored),
    ],
    "url_rules": [
        Case(UrlRules(), addressed),
        Case(
            UrlRules(
                listed("wiki.example"),
                listed("bad.example", "ok.example/dir", "straße.de"),
                listed("vile"),
                listed("rude"),
                listed("one", "two"),
            ),
            addressed,
        ),
    ],
    "rights": [
        Case(Rights(), addressed),
        Case(
            Rights(listed("bad.example"), listed("ok.example/dir"), drop=("noarchive", "noimageai"), agents=("bot",)),
            addressed,
        ),
    ],
    "licence": [
        Case(Licence(), licensed),
        Case(Licence(allow=("permissive", "CC-BY-4.0"), unknown="drop", mentions=True), licensed),
    ],
    "contamination": [
        Case(Contamination(index=small_index()), contaminated),
        Case(Contamination(index=small_index(), action="cut", threshold=9_500), contaminated),
    ],
    "text_hash": [
        Case(TextHash(), texts),
        Case(TextHash("source"), texts),
        Case(TextHash(normalised=True), conversations),
    ],
    "url_hash": [Case(UrlHash(), texts), Case(UrlHash("language"), texts)],
    "rank": [
        Case(Rank(3), ranked),
        Case(Rank(0, ("newest", "length", "quality"), 7), ranked),
        Case(Rank(1, ("oldest",)), texts),
    ],
    "duplicate_url": [Case(UrlDuplicate().bind({"duplicates": duplicates()}), texts)],
    "band_keys": [
        Case(BandKeys(PRESETS["fineweb"]), texts),
        Case(BandKeys(Shape(5, 2, "character", 9, 1), "language").bind({"duplicates": duplicates()}), texts),
    ],
    "shingle_sets": [
        Case(ShingleSets("word", 5), texts),
        Case(ShingleSets("character", 24).bind({"wanted": duplicates().select(["doc_id"])}), texts),
    ],
    "line_hashes": [
        Case(LineHashes(2, 1, 20), lambda: Rank(0)(texts())),
        Case(LineHashes(1, None, 5, "source").bind({"duplicates": duplicates()}), lambda: Rank(0)(texts())),
    ],
    "duplicate_lines": [Case(RemoveDuplicateLines().bind({"edits": line_edits()}), texts)],
    "near_duplicate": [Case(NearDuplicate(8_000).bind(edges()), texts)],
    "exact_duplicate": [
        Case(ExactDuplicate().bind({"duplicates": duplicates()}), hashed),
        Case(ExactDuplicate().bind({"duplicates": DUPLICATES.empty_table()}), hashed),
    ],
    "encode": [
        Case(Encode("cl100k_base"), conversations),
        Case(Encode("cl100k_base", "tiktoken"), conversations),
        Case(Encode("o200k_base"), conversations),
    ],
}
"""By the transform's name."""

ALL = [pytest.param(case, id=f"{name}-{place}") for name, cases in CASES.items() for place, case in enumerate(cases)]
every_case = pytest.mark.parametrize("case", ALL)


def transform_classes() -> set[type]:
    """Find every class below pipelines/transforms that is a transform by its attributes."""
    found = set()
    for module in pkgutil.iter_modules(pipelines.transforms.__path__, "pipelines.transforms."):
        for _, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if cls.__module__ == module.name and all(
                hasattr(cls, name) for name in ("name", "version", "adds", "drops")
            ):
                found.add(cls)
    return found


def test_every_transform_has_a_case():
    assert transform_classes() == {type(case.transform) for cases in CASES.values() for case in cases}
    assert set(TRANSFORMS) <= set(CASES)
    for name, cases in CASES.items():
        assert {case.transform.name for case in cases} == {name}
        assert all(isinstance(case.transform, Transform) for case in cases)


def test_the_search_finds_what_it_should():
    assert {Extract, Language, GopherQuality, TextHash, ExactDuplicate, Encode} <= transform_classes()


def same(left: pa.RecordBatch, right: pa.RecordBatch) -> bool:
    """Whether two batches hold the same values; their buffers may differ behind nulls and before offsets."""
    return left.schema.equals(right.schema, check_metadata=True) and left.equals(right)


def copied(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a copy in buffers of its own, which begin where the rows do."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return pa.ipc.open_stream(sink.getvalue()).read_next_batch()


def digest(batch: pa.RecordBatch) -> str:
    return hashlib.sha256(json.dumps(batch.to_pylist(), default=repr, sort_keys=True).encode("utf-8")).hexdigest()


@cache
def whole(place: int) -> pa.RecordBatch:
    case = ALL[place].values[0]
    return case.transform(case.make())


def result_of(case: Case) -> pa.RecordBatch:
    return whole(next(place for place, param in enumerate(ALL) if param.values[0] is case))


@every_case
def test_the_result_is_as_declared(case):
    batch, result = case.make(), result_of(case)
    result.validate(full=True)
    assert result.schema == with_columns(batch.schema, case.transform.adds, case.transform.drops)
    assert result.column("doc_id").equals(batch.column("doc_id"))
    for verdict in result.column("verdict").to_pylist():
        assert verdict is None or (verdict["outcome"] in OUTCOMES and verdict["reason"])
    assert case.transform.name == type(case.transform).name
    assert case.transform.version >= 1


def test_the_cases_show_verdicts_of_every_kind():
    """A property of a transform says nothing where nothing is dropped."""
    reasons = {
        verdict["reason"]
        for place in range(len(ALL))
        for verdict in whole(place).column("verdict").to_pylist()
        if verdict
    }
    rules = {f"gopher_quality.{rule.name}" for rule in GopherQuality().rules} - {"gopher_quality.max_words"}
    assert reasons >= {
        "extract.too_large", "extract.too_complex", "extract.empty", "language", "language_score", "exact_duplicate",
        "duplicate_url", "near_duplicate",
        "encode.no_text", "encode.turn_role", "encode.turn_range", "encode.turn_order", "encode.turn_boundary",
        "encode.turn_weight", "gopher_quality.min_words", "gopher_quality.max_hashes", "gopher_quality.min_stop_words",
        "code_quality.max_vendored", "code_quality.max_generated_phrases", "code_quality.max_encoded_run",
        "code_quality.min_visible", "code_quality.min_code_cells", "code_quality.max_longest_line_fsh",
        "conversation_quality.max_misplaced_turns", "conversation_quality.max_empty_turns",
        "conversation_quality.max_repeated_turns", "conversation_quality.max_broken_tool_calls",
        "conversation_quality.max_refusals",
        "contamination.contaminated", "pii.max_hits", "quality.min_score", "quality.keep_top",
        "licence.not_allowed", "licence.unknown", "rights.noai", "rights.tdm_reservation", "rights.opt_out",
        "rights.takedown", "rights.noarchive", "url_rules.kept_out", "url_rules.blocked_domain",
        "url_rules.blocked_url", "url_rules.strict_word", "url_rules.hard_word", "url_rules.soft_words",
    }  # fmt: skip
    assert len(reasons & rules) >= 5
    assert reasons >= {
        "gopher_repetition.max_duplicate_lines", "gopher_repetition.max_top_2_grams",
        "gopher_repetition.max_duplicate_5_grams", "c4_quality.min_sentences", "c4_quality.max_curly_bracket_lines",
        "refinedweb_lines.max_removed_words", *(f"fineweb_quality.{rule.name}" for rule in FineWebQuality().rules),
    }  # fmt: skip


@every_case
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_batches_do_not_matter(case, data):
    """f(concat(a, b)) == concat(f(a), f(b)), for any number of cuts, also where a part has no row."""
    batch = case.make()
    cuts = data.draw(st.lists(st.integers(0, batch.num_rows), max_size=6).map(sorted))
    bounds = [0, *cuts, batch.num_rows]
    parts = [case.transform(batch.slice(start, stop - start)) for start, stop in zip(bounds, bounds[1:], strict=False)]
    assert same(pa.concat_batches(parts), result_of(case))


@every_case
def test_one_row_at_a_time(case):
    batch = case.make()
    parts = [case.transform(batch.slice(row, 1)) for row in range(batch.num_rows)]
    assert same(pa.concat_batches(parts), result_of(case))


@every_case
@pytest.mark.parametrize("seed", [1, 2])
def test_the_company_of_a_row_does_not_matter(case, seed):
    """Rows in another order, some twice and some not there, get what they got."""
    rows = pa.array(np.random.default_rng(seed).integers(0, case.make().num_rows, 40))
    assert same(case.transform(case.make().take(rows)), result_of(case).take(rows))


@every_case
def test_no_rows(case):
    empty = case.transform(case.make().slice(0, 0))
    assert empty.num_rows == 0
    assert empty.schema == result_of(case).schema
    assert case.transform.evidence(case.make().slice(0, 0)) == []


@every_case
def test_a_slice_is_as_good_as_a_copy(case):
    batch = case.make().slice(3, 17)
    assert batch.column("doc_id").offset == 3
    assert copied(batch).column("doc_id").offset == 0
    assert same(case.transform(batch), case.transform(copied(batch)))
    assert case.transform.evidence(batch) == case.transform.evidence(copied(batch))


@every_case
def test_nulls_before_the_first_row_do_not_matter(case):
    """A column without nulls may still have a bitmap that tells of nulls in what was cut off before it."""
    batch = case.make()
    place = batch.schema.get_field_index("text")
    text = pc.if_else(pa.array(np.arange(batch.num_rows) < 15), None, batch.column("text"))
    beside_nulls = batch.set_column(place, batch.schema.field(place), text).slice(15, 25)
    assert same(case.transform(beside_nulls), result_of(case).slice(15, 25))


@every_case
def test_the_input_stays_as_it_was(case):
    batch = copied(case.make())
    before = [buffer.to_pybytes() for column in batch.columns for buffer in column.buffers() if buffer]
    case.transform(batch)
    case.transform.evidence(batch)
    assert [buffer.to_pybytes() for column in batch.columns for buffer in column.buffers() if buffer] == before
    assert same(batch, case.make())


@every_case
def test_a_pickled_transform_is_the_same(case):
    again = pickle.loads(pickle.dumps(case.transform))
    assert again == case.transform
    assert same(again(case.make().slice(0, 20)), result_of(case).slice(0, 20))


@every_case
def test_evidence_agrees_with_the_verdict(case):
    """One list a row; of the rules that fail, the first is the reason; where there is none, none fails."""
    evidence = case.transform.evidence(case.make())
    verdicts = result_of(case).column("verdict").to_pylist()
    assert len(evidence) == len(verdicts)
    for rules, verdict in zip(evidence, verdicts, strict=True):
        failed = [rule for rule in rules if not rule.passed]
        if verdict is None:
            assert failed == []
        else:
            assert failed[0].rule == verdict["reason"]
            if verdict["value"] is not None:
                assert (failed[0].value, failed[0].threshold) == (verdict["value"], verdict["threshold"] or "no error")


@every_case
def test_the_same_again(case):
    """Nothing is remembered from one call to the next."""
    assert same(case.transform(copied(case.make())), result_of(case))


def test_another_process_with_other_hashes_gives_the_same():
    """Neither the seed of Python's hashes nor what else a process did decides anything."""
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/support'}"}
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, check=False, cwd=Path("/")
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == [digest(whole(place)) for place in range(len(ALL))]


if __name__ == "__main__":
    print(json.dumps([digest(whole(place)) for place in range(len(ALL))]))
