"""Pages made to break extractors: what each is, by name. As a script: `hostile_pages.py ENGINE` runs them.

It prints, for each page, its fate (the reason of its verdict, or "text"), whether a second time gives the same row,
seconds (on the clock or of CPU, whichever are more), and the most memory that it has used so far in bytes, as JSON.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from pathlib import Path

import pyarrow as pa

from pipelines.schema import VERDICT
from pipelines.transforms.extract import Extract

N = 100_000
SLOW = 5
"""Seconds after which a page is not tried again."""
PROSE = (
    "<p>Water comes to the mill by a channel, and the miller walks along its bank every morning, in any weather.</p>"
)


def hostile_pages() -> dict[str, bytes]:
    """Return the pages by name."""
    pages = {
        "nested elements": "<div>" * N + "x",
        "nested behind comments": "<div><!-- </div> -->" * N,
        "nested formatting": "<b>" * N + "x",
        "formatting built anew": "".join(f"<b id={i}>" for i in range(3_000)) + "<p>x" * 3_000,
        "nested tables": "<table><tr><td>" * N,
        "misnested links": "<a><p>" * N,
        "nested svg": "<svg>" + "<g>" * N,
        "nested lists": "<ul><li>" * N,
        "nested templates": "<template>" * N,
        "only <": "<" * 5_000_000,
        "50 MB attribute": "<p class='" + "a " * 25_000_000 + "'>x" + PROSE,
        "5 MB attribute": "<p class='" + "a " * 2_500_000 + "'>x</p>" + PROSE * 9,
        "5 MB attribute without end": PROSE * 9 + "<p class='" + "a " * 2_500_000,
        "many attributes": "<p " + " ".join(f"a{i}" for i in range(500_000)) + ">x",
        "attributes within the bound": ("<p " + " ".join(f"a{i}" for i in range(999)) + ">x") * 50,
        "long names": f"<{'a' * 2_000_000}>x</{'a' * 2_000_000}><p {'b' * 2_000_000}=c>" + PROSE * 9,
        "a million entities": "<p>" + "&amp;" * 1_000_000,
        "a million unknown entities": "<p>" + "&notit" * 1_000_000,
        "an entity without end": "<p>&#" + "9" * 4_000_000 + PROSE * 9,
        "surrogates by number": PROSE * 9 + "<p>" + "&#xD800;&#xDFFF;&#0;&#x110000;" * 50_000,
        "a million paragraphs": "<p>x" * 1_000_000,
        "a million paragraphs within the bound": "<div>" * 100 + "<p>x" * 99_000,
        "comments without end": PROSE * 9 + "<!--" * 1_000_000,
        "comments that end at once": "<!-->" * 1_000_000 + PROSE * 9,
        "dashes": PROSE * 9 + "<!--" + "-" * 5_000_000,
        "declarations": "<!" * 2_000_000 + PROSE * 9,
        "CDATA without end": PROSE * 9 + "<svg><![CDATA[" + "]]" * 2_000_000,
        "many CDATA": "<svg>" + "<![CDATA[x]]>" * 300_000 + "</svg>" + PROSE * 9,
        "end tags without end": "</a " * 1_000_000,
        "end tags of nothing": "<div>" * 100 + "</x>" * 1_500_000,
        "scripts in scripts": "<script>" * 1_000_000,
        "a script that never closes": PROSE * 9 + "<script>" + "</scrip " * 500_000,
        "escaped scripts": PROSE * 9 + "<script><!--<script>" * 200_000,
        "a textarea that never closes": PROSE * 9 + "<textarea>" + PROSE * 20_000,
        "plaintext": PROSE * 9 + "<plaintext>" + "<p>" * 500_000,
        "one long word": PROSE * 9 + "<p>" + "a" * 4_000_000,
        "one long paragraph": "<p>" + "word " * 1_000_000,
        "framesets": "<frameset>" * 50_000,
        "selects": "<select><option>" * 50_000 + PROSE,
        "forms": "<form><button>" * 40_000 + PROSE,
        "headings in paragraphs": "<p><h1>" * 40_000,
    }
    raw = {
        "NULs": b"\0" * 4_000_000,
        "NULs between letters": PROSE.replace("<", "\0<\0").encode() * 9,
        "lone surrogates": PROSE.encode() * 9 + b"\xed\xa0\x80" * 500_000,
        "overlong forms": b"\xc0\xbcscript\xc0\xbe" * 100_000 + PROSE.encode() * 9,
        "UTF-7": b"<meta charset=utf-7>+ADw-script+AD4-alert(1)+ADw-/script+AD4-" + PROSE.encode() * 9,
        "UTF-16 by its mark, cut": b"\xff\xfe" + (PROSE * 99).encode("utf-16-le")[:-1],
        "UTF-16 by its declaration only": b"<meta charset=utf-16>" + PROSE.encode() * 9,
        "UTF-16 of surrogates": b"\xff\xfe" + b"\x00\xd8" * 1_000_000,
        "high bytes": b"\xff" * 4_000_000,
        "control characters": bytes(range(32)) * 50_000 + PROSE.encode() * 9,
    }
    return {name: page.encode() for name, page in pages.items()} | raw


def row_of(page: bytes, engine: str) -> dict:
    """Return the row that a page becomes."""
    columns = {
        "content": pa.array([page], pa.large_binary()), "text": pa.nulls(1, pa.large_string()),
        "verdict": pa.nulls(1, VERDICT), "host": pa.nulls(1, pa.string()),
        "media_type": pa.array(["text/html"]), "charset": pa.nulls(1, pa.string()),
    }  # fmt: skip
    return Extract(engine=engine)(pa.RecordBatch.from_pydict(columns)).to_pylist()[0]


def seconds() -> float:
    """Return CPU seconds of this process and of those that it has ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main() -> None:
    engine = sys.argv[1]
    row_of(PROSE.encode(), engine)
    for name, page in hostile_pages().items():
        started, on_the_clock = seconds(), time.monotonic()
        row = row_of(page, engine)
        took = max(seconds() - started, time.monotonic() - on_the_clock)
        is_same = took > SLOW or row_of(page, engine) == row
        fate = row["verdict"]["reason"] if row["verdict"] else "text"
        # not ru_maxrss, which begins with what the parent had when it forked
        (most,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        memory = int(most) * 1024
        print(json.dumps([name, fate, is_same, round(took, 2), memory]), flush=True)


if __name__ == "__main__":
    main()
