"""Every kernel that reads a page or a text, with bounds checks on, over mutated real pages and hostile ones; and the
work of hostile pages grows as they do.

As a script this file is the child of the test, since numba reads `NUMBA_BOUNDSCHECK` when it is imported:
`test_fuzz_of_kernels.py fuzz FOLDER SECONDS SEED` writes what failed into FOLDER and prints counts as JSON;
`test_fuzz_of_kernels.py time` prints the thread seconds of each family of pages at two sizes.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from pipelines.main_content import choice as c
from pipelines.main_content import features as f
from pipelines.main_content import scan as s
from pipelines.main_content import trees as m
from pipelines.main_content.content import chosen_blocks, render
from pipelines.schema import TURNS, VERDICT
from pipelines.transforms import language, language_ngrams
from pipelines.transforms.c4 import C4Quality
from pipelines.transforms.fineweb import FineWebQuality
from pipelines.transforms.gopher import GopherQuality
from pipelines.transforms.gopher_repetition import GopherRepetition
from pipelines.transforms.markup import measure_markup
from pipelines.transforms.refinedweb_lines import RefinedWebLines
from pipelines.transforms.rules import RuleFilter

pytestmark = pytest.mark.stress

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "../shared/data/warc/built_from_real_html"

SECONDS = 120
"""Of fuzzing, compilation apart."""
MAX_CUT = 20_000
"""Bytes of a page that are mutated; checked kernels are some ten times slower."""

TOKENS = [
    *(f"<{slash}{name}>" for name in (*s.t.NAMES[1:], "x-y", "span", "option") for slash in ("", "/")),
    *"<>&/'\"= \n\t\f\r\0;#-!?[]",
    "<!--", "-->", "--!>", "<!-->", "<!", "<?", "</", "</ ", "<![CDATA[", "]]>", "&#", "&#x", "&nGt;", "&nbsp;", "&shy",
    "&#128;", "&#xD800;", "&CounterClockwiseContourIntegral;", "&notit;", "&#99999999999", "&amp", "<p class='",
    "<a href=", "<div class=\"sidebar comments\" style='display:none' hidden>", "<meta name=date content=2020>",
    "<time datetime=",
    "<html lang=", "<svg/>", "<p/>", "<br/><br>", "a, b. c! d? ", "\u4e2d\u6587\u3002", "\u0e01\u0e33\u0e48", "e\u0301",
    "\xad", "\ufeff", "\u2028", "\U0001f600", "\U0010ffff", "\ufffd", "word " * 12, "x" * 300, " " * 300, "&amp;" * 60,
    "\r\n", "\x85", "{", "[1]", "[citation needed]", "lorem ipsum", "use cookies. ", "items in cart",
    "\nread more...\n", "\nsign-in ", "\n3 likes\n", "\nA line of words, Mr. J. Smith.[2]\n", "\u2026", "\u0e49" * 60,
]  # fmt: skip


def made_up(seed: int, columns: tuple[int, int], likely: bool) -> m.Model:
    """Return a model of random trees; `likely`: one that wants every block."""
    generator = np.random.default_rng(seed)
    return m.Model(
        *(
            m.Trees(
                generator.integers(0, width, (6, m.NUM_INNER)).astype(np.int16),
                generator.integers(-1, 20, (6, m.NUM_INNER)).astype(np.float32),
                (generator.integers(-m.LEAF_ONE, m.LEAF_ONE, (6, m.NUM_LEAVES)) // (1 << 20 * likely)).astype(np.int32)
                + m.LEAF_ONE * likely,
            )
            for width in columns
        )
    )


COLUMNS = (len(f.FEATURES), len(f.FEATURES) + len(f.CONTEXT))
MODELS = (made_up(1, COLUMNS, likely=False), made_up(2, COLUMNS, likely=True))


def check_page(data: bytes, scanner: s.Scanner) -> None:
    """Put a page (valid UTF-8) through every kernel of the extractor, and check what they promise each other."""
    scan = scanner.scan(np.frombuffer(data, np.uint8))
    blocks, nodes = scan.blocks, scan.nodes
    places = blocks[:, [s.START, s.END]].ravel()
    assert (np.diff(places) >= 0).all() and (len(places) == 0 or 0 <= places[0] <= places[-1] <= len(scan.text))
    assert (blocks[:, s.NODE] >= 0).all() and (blocks[:, s.NODE] < len(nodes)).all()
    rows = np.arange(len(blocks))
    around = nodes[blocks[:, s.NODE]]
    assert (around[:, s.FIRST] <= rows).all() and (rows < around[:, s.LAST]).all()
    parents = nodes[nodes[1:, s.PARENT]]
    assert (nodes[1:, s.PARENT] < np.arange(1, len(nodes))).all() and (nodes[1:, s.PARENT] >= 0).all()
    assert (parents[:, s.FIRST] <= nodes[1:, s.FIRST]).all() and (nodes[1:, s.LAST] <= parents[:, s.LAST]).all()
    assert (blocks[:, s.WORDS] >= 0).all() and (blocks[:, s.WORDS] <= blocks[:, s.CHARS]).all()
    scan.text.tobytes().decode()
    for model, mode in zip((MODELS[0], MODELS[1], MODELS[1]), c.MODES, strict=True):
        text = render(scan, chosen_blocks(scan, model, mode, comments=mode == "recall"))
        assert text.encode().decode() == text
    every = np.ones(len(blocks), np.bool_)
    c.drop_duplicates(scan.text, blocks, nodes, every)
    render(scan, np.ones(len(blocks), np.bool_))


def check_bytes(data: bytes, scanner: s.Scanner) -> None:
    """Scan what need not be UTF-8: nothing may be written past a (new) buffer; a full one is an error of ours."""
    del scanner
    try:
        s.Scanner().scan(np.frombuffer(data, np.uint8))
    except AssertionError as error:
        assert str(error) == "a buffer was too small for the page"


def check_markup(data: bytes, scanner: s.Scanner) -> None:
    """Count any bytes."""
    del scanner
    found = measure_markup(data)
    assert min(found.nodes, found.depth, found.attributes) >= 0


def check_language(data: bytes, scanner: s.Scanner) -> None:
    """Name the language of the parts of a text, and walk any bytes as if they were one."""
    del scanner
    parts = [part.decode("utf-8", "replace") for part in data.split(b"<")[:50]]
    labels, scores = language.identify(pa.array(parts, pa.large_string()), 1_000)
    assert all(0 <= score <= 10_000 for score in scores.tolist())
    assert [label is None for label in labels.to_pylist()] == [score == 0 for score in scores.tolist()]
    offsets = np.array([0, len(data) // 3, len(data) // 3, len(data)], np.int64)
    language_ngrams.samples(offsets, np.frombuffer(data, np.uint8), 400)


FILTERS: tuple[RuleFilter, ...] = (
    GopherQuality(),
    GopherRepetition(),
    FineWebQuality(ignore_trailing_space=False),
    C4Quality(),
    C4Quality(max_word_length=None, require_end_mark=False, min_words_per_line=1, keep_blank_lines=True),
    RefinedWebLines(),
    RefinedWebLines(max_uppercase_characters=None, min_words_per_line=0, max_phrase_line_words=10_000),
)


def text_batch(data: bytes, bounds: list[int]) -> pa.RecordBatch:
    """Return rows of text, of any bytes, each with a turn of the whole of it and one beyond it."""
    buffers = [None, pa.py_buffer(np.array(bounds, np.int64)), pa.py_buffer(bytearray(data))]
    num = len(bounds) - 1
    turns = [[{"start": 0, "end": bounds[k + 1] - bounds[k]}, {"start": len(data), "end": 1}] for k in range(num)]
    return pa.RecordBatch.from_arrays(
        [
            pa.nulls(num, pa.string()), pa.Array.from_buffers(pa.large_string(), num, buffers),
            pa.array(turns, TURNS), pa.nulls(num, VERDICT),
        ],
        ["language", "text", "turns", "verdict"],
    )  # fmt: skip


def check_filters(data: bytes, scanner: s.Scanner) -> None:
    """Count and cut any bytes: a row alone, with nothing behind it, gives what it gives among others."""
    del scanner
    size = len(data)
    bounds = [0, size // 3, size // 3, size]
    for rules in FILTERS:
        whole, stats = rules.measured(text_batch(data, bounds))
        texts = whole.column("text").cast(pa.large_binary())
        for row in range(3):
            part = data[bounds[row] : bounds[row + 1]]
            alone, counts = rules.measured(text_batch(part, [0, len(part)]))
            assert counts[0].tolist() == stats[row].tolist()
            assert alone.column("text").cast(pa.large_binary())[0] == texts[row]
            assert len(texts[row].as_py()) <= len(part)


CHECKS: dict[str, Callable[[bytes, s.Scanner], None]] = {
    "page": check_page,
    "bytes": check_bytes,
    "markup": check_markup,
    "language": check_language,
    "filters": check_filters,
}


def mutated(rng: random.Random, pages: list[bytes]) -> bytes:
    """Return a piece of a real page, or nothing, cut, spliced, repeated and sprinkled with tokens and random bytes."""
    page = rng.choice(pages) if rng.random() < 0.7 else b""
    start = rng.randrange(len(page) + 1)
    data = bytearray(page[start : start + rng.randrange(1, MAX_CUT)])
    for _ in range(rng.choice((1, 3, 10, 40, 150))):
        at, kind = rng.randrange(len(data) + 1), rng.random()
        if kind < 0.6:
            data[at:at] = rng.choice(TOKENS).encode()
        elif kind < 0.7:
            data[at : at + rng.randrange(1, 200)] = b""
        elif kind < 0.8:
            data[at:at] = data[at : at + rng.randrange(1, 60)] * rng.choice((1, 2, 9, 60))
        elif kind < 0.87:
            data[at : at + rng.randrange(4)] = rng.randbytes(rng.randrange(1, 5))
        elif kind < 0.94:
            other = rng.choice(pages)
            cut = rng.randrange(len(other))
            data[at:at] = other[cut : cut + rng.randrange(1, 400)]
        else:
            data[at:at] = rng.choice(TOKENS).encode() * rng.choice((2, 30, 600))
        del data[2 * MAX_CUT :]
    return bytes(data)


def edge_pages() -> list[bytes]:
    """Return pages at the edges: every token alone and twice, cut anywhere, and as deep as nesting is told apart."""
    pages = [token.encode() * times for token in TOKENS for times in (1, 2, 700)]
    whole = b"<!doctype html><html lang=de><!-- c --><div class='x y' id=z>a&amp;b<pre> \xe2\x82\xac</pre><br></div>"
    pages += [whole[:size] for size in range(len(whole) + 1)]
    for deep in (
        "<blockquote>" * 9 + "<ul><li>" * 9,
        "<table><tr><td>" * 200,
        "<div>" * 511,
        "<x-a>" * 600,
        "<p><b>" * 99,
    ):
        for inner in ("<li>x", "<p>x", "x<br><br>", "<td>x", "x</x-a>", "<pre>\n x <br>", "</div>x", "<h1>x</h2>"):
            pages.append((deep + inner * 700).encode())
    # each stray byte becomes three; then white space up to the end
    return [*pages, b"<pre>x" + b"\xff" * 50_000 + b" " * 46_500, b"\xff" * 100_000]


def real_pages(number: int) -> list[bytes]:
    """Return that many real pages, or prose where there are none."""
    pages = []
    for path in sorted(PAGES.glob("*.gz")):
        with path.open("rb") as file:
            for record, _ in zip(
                ArchiveIterator(file, record_types=WarcRecordType.response), range(number), strict=False
            ):
                pages.append(record.reader.read())
    return pages or [b"<div><p>One, two, three four five six seven eight nine ten.</p><p>Eleven.</p></div>" * 20]


def fuzz(folder: Path, seconds: float, seed: int) -> dict[str, int]:
    """Check page after page; write each that fails (one for each check and message) and go on. Return counts."""
    rng, scanner, pages = random.Random(seed), s.Scanner(), real_pages(30)
    for check in CHECKS.values():
        check(b"<p>compile</p>", scanner)
    counts = dict.fromkeys([*CHECKS, "failures"], 0)
    failures: set[str] = set()
    edges, deadline = edge_pages(), time.monotonic() + seconds
    while edges or time.monotonic() < deadline:
        data = edges.pop() if edges else mutated(rng, pages)
        for name, check in CHECKS.items():
            if name == "language" and rng.random() < 0.9:
                continue
            given = data.decode("utf-8", "replace").encode() if name == "page" else data
            counts[name] += 1
            try:
                check(given, scanner)
            except Exception as error:  # whatever a kernel raises is what is looked for
                counts["failures"] += 1
                place = traceback.extract_tb(error.__traceback__)[-1]
                key = f"{name}-{type(error).__name__}-{Path(place.filename).stem}-{place.lineno}"
                if key not in failures:
                    failures.add(key)
                    (folder / f"{key}.html").write_bytes(given)
                    (folder / f"{key}.txt").write_text(traceback.format_exc())
    return counts


@cache
def colliding_words() -> list[str]:
    """Return 16,000 words that all want one of few places in the table of equal texts, found by search.

    A text's hash is (hash ^ byte) * prime from 1 on, its place the lowest bits of hash ^ hash >> 29.
    """
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz012345", np.uint8).astype(np.int64)
    generator = np.random.default_rng(1)
    found: list[str] = []
    while len(found) < 16_000:
        words = generator.integers(0, 32, (1 << 21, 10), np.uint8)
        values = np.ones(len(words), np.int64)
        for column in range(words.shape[1]):
            values = (values ^ letters[words[:, column]]) * s.t.FNV_PRIME
        chosen = words[((values ^ (values >> 29)) & 0xFFF) == 0]
        found += [bytes(row).decode() for row in letters[chosen].astype(np.uint8)]
    return found


DEEP = "<div>" * 500
TEN = "one, two three four five six seven eight nine ten. "
# family -> a page of about that many bytes
FAMILIES: dict[str, Callable[[int], str]] = {
    "nested elements": lambda n: "<div>" * (n // 5) + "x",
    "nested custom elements": lambda n: "<x-a>" * (n // 5) + "x",
    "nested tables": lambda n: "<table><tr><td>" * (n // 15) + "x",
    "nested lists": lambda n: "<ul><li>x" * (n // 9),
    "entities": lambda n: "&amp;" * (n // 5),
    "entities without end": lambda n: ("&" + "a" * 32) * (n // 33),
    "ampersands": lambda n: "&" * n,
    "numbers": lambda n: "&#" + "9" * n,
    "less-than signs": lambda n: "<" * n,
    "an attribute": lambda n: "<div class='" + "sidebar " * (n // 8) + "'>x",
    "attributes": lambda n: "<div " + "a " * (n // 2) + ">x",
    "spaces in a tag": lambda n: "<div" + (" a" + " " * 5_000) * (n // 5_002) + ">x",
    "quotation marks": lambda n: "<p a='" + "' '" * (n // 3),
    "a comment": lambda n: "<!--" + "->" * (n // 2),
    "comments": lambda n: "<!--" * (n // 4),
    "declarations": lambda n: "<!" * (n // 2),
    "CDATA": lambda n: "<![CDATA[" * (n // 9),
    "a script": lambda n: "<script>" + "</scrip>" * (n // 8),
    "an endless name": lambda n: "</" + "script" * (n // 6),
    "titles": lambda n: "<title></title>" * (n // 15),
    "links": lambda n: "<a href=x>x" * (n // 11),
    "paragraphs": lambda n: "<p>x" * (n // 4),
    "paragraphs by their ends": lambda n: "x</p>" * (n // 5),
    "line breaks": lambda n: "x<br><br>" * (n // 9),
    "end tags of another name": lambda n: "<x-b>" + DEEP + "</x-a>" * (n // 6),
    "end tags behind a cell": lambda n: "<p><table><tr><td>" + DEEP + "<h1></h1>" * (n // 9),
    "items behind a list": lambda n: "<ul><li><ul>" + DEEP + "<li>x" * (n // 5),
    "blocks far below the best": lambda n: f"<p>{TEN}</p>" * 50 + DEEP + "<p>x</p>" * (n // 8),
    "blocks far from the best": lambda n: DEEP + f"<p>{TEN}</p>" * 50 + "</div>" * 500 + "<p>x" * (n // 4),
    "equal blocks": lambda n: f"<p>{TEN}" * (n // 54),
    "equal blocks elsewhere": lambda n: f"<div><p>{TEN}</div>" * (n // 65),
    "words": lambda n: "<p>" + "".join(f"{k} " for k in range(n // 7)),
    "classes": lambda n: "".join(f"<p class={'abcdefghij'[k % 10] * (k % 97)}>x" for k in range(n // 60)),
    "blocks whose hashes collide": lambda n: "<p>".join(colliding_words()[: n // 130]),
    "Thai": lambda n: "\u0e01\u0e33\u0e48" * (n // 9),
    "white space in code": lambda n: "<pre>x" + " " * n + "x",
}


def thread_seconds(page: bytes, scanner: s.Scanner) -> float:
    """Return the least thread time of three, from bytes to text, every block chosen, and counted as markup."""
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()
        scan = scanner.scan(np.frombuffer(page, np.uint8))
        render(scan, chosen_blocks(scan, MODELS[1], "recall", comments=True))
        measure_markup(page)
        best = min(best, time.thread_time() - start)
    return best


def timed(size: int) -> dict[str, tuple[float, float]]:
    """Return for every family the seconds of a page of `size` bytes and of one twice as long."""
    scanner = s.Scanner()
    thread_seconds(b"<p>compile</p>", scanner)
    return {
        name: (thread_seconds(family(size).encode(), scanner), thread_seconds(family(2 * size).encode(), scanner))
        for name, family in FAMILIES.items()
    }


def run_child(arguments: list[str], **environment: str) -> str:
    """Run this file and return what it prints."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=3_000,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout


def test_no_page_makes_a_kernel_leave_its_buffers_or_raise(tmp_path: Path) -> None:
    folder = tmp_path / "failures"
    folder.mkdir()
    arguments = ["fuzz", str(folder), str(SECONDS), "1"]
    out = run_child(arguments, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path / "numba"))
    counts = json.loads(out)
    assert min(counts[name] for name in CHECKS) > 100
    found = {path.stem: path.read_text().splitlines()[-1] for path in sorted(folder.glob("*.txt"))}
    assert not found, f"{counts}, pages in {folder}"


def test_the_work_of_hostile_pages_grows_as_they_do() -> None:
    """Twice the bytes, at most three times the time (sorting and caches take their part); a megabyte in two seconds."""
    seconds = json.loads(run_child(["time"]))
    slow = {name: pair for name, pair in seconds.items() if pair[1] > 3 * pair[0] + 0.02 or pair[0] > 2}
    assert not slow


if __name__ == "__main__":
    if sys.argv[1] == "fuzz":
        print(json.dumps(fuzz(Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))))
    else:
        print(json.dumps(timed(1_000_000)))
