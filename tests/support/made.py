"""A small recipe on files made on the spot, in which every fate of a document happens once. Needs no shared data."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

PROSE = (
    "The channel that carries water to the mill wheel is called a headrace. It begins at a weir that holds back the "
    "river, and it runs along the slope with as little fall as the ground allows, so that the water arrives high above "
    "the wheel and gives it all of its weight. A miller who lets leaves and branches gather in front of the rack will "
    "have a slow wheel and bad flour, and so he walks along the channel every morning and looks at the banks."
)
GERMAN = (
    "Der Kanal, der das Wasser zum Mühlrad bringt, heißt Obergraben. Er beginnt an einem Wehr, das den Fluss staut, "
    "und er läuft mit so wenig Gefälle am Hang entlang, wie der Boden es zulässt, damit das Wasser hoch über dem Rad "
    "ankommt."
)
PAGES = {
    "good": f"<p>{PROSE}</p>",
    "copy": f"<p>{PROSE}</p>",
    "german": f"<p>{GERMAN}</p>",
    "short": "<p>This is a short text with the words that it needs to be English, and that is all that it has.</p>",
    "deep": "<div>" * 60 + PROSE + "</div>" * 60,
    "empty": "<p></p>",
    "twice": f"<p>{PROSE} And this is the first of two records that have the same name.</p>",
    "missing": f"<p>{PROSE}</p>",
    "torn": f"<p>{PROSE} But the file ends within it.</p>",
}
RECIPE = """
sources:
  web:
    reader: commoncrawl
    root: input
    include: ["*.warc"]
    transforms:
      - extract: {max_depth: 50}
      - language: {languages: [en]}
      - gopher_quality: {min_words: 40}
  code:
    reader: code
    repository: here
    root: input
    include: ["**/*.py"]
  talks:
    reader: conversations
    root: input
    include: ["*.jsonl"]
    transforms: [language]
deduplicate: {exact: all}
output: {buckets: 2, partition_by: [language]}
"""
SOURCES = ("web", "code", "talks")


def made_recipe(folder: Path) -> Path:
    """Write the recipe and its input (an archive, six source files, two conversations) into a folder; its path."""
    files = folder / "input"
    (files / "package").mkdir(parents=True)
    write_archive(files / "pages.warc")
    for number in range(6):
        (files / f"package/module{number}.py").write_text(f'"""Module {number}."""\n\nVALUE = {number} * 7\n')
    (files / "package/nothing.py").write_text("")
    turns = [
        {"role": "user", "content": "What is a headrace?"},
        {"role": "assistant", "content": "It is the channel that carries the water of a river to the wheel of a mill."},
    ]
    rows = [{"messages": turns}, {"messages": [*turns, *turns]}, {"messages": "none"}]
    (files / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "made.yaml"
    path.write_text(RECIPE)
    return path


def write_archive(path: Path) -> None:
    """Write `PAGES` as an uncompressed WARC; "twice" has two records of one id, "torn" ends within its WARC header."""
    records = [record(name, body) for name, body in PAGES.items() if name != "torn"]
    records.append(record("twice", f"<p>{PROSE} This is the second of them.</p>"))
    torn = record("torn", PAGES["torn"])
    path.write_bytes(b"".join(records) + torn[: torn.index(b"WARC-Date")])


def record(name: str, body: str) -> bytes:
    """Return one response record."""
    status = "404 Not Found" if name == "missing" else "200 OK"
    page = f"<html><head><title>{name}</title></head><body><main>{body}</main></body></html>".encode()
    http = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(page)}\r\n\r\n".encode()
    )
    block = http + page
    head = textwrap.dedent(
        f"""\
        WARC/1.0
        WARC-Type: response
        WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{list(PAGES).index(name):012d}>
        WARC-Target-URI: http://mill.example/{name}
        WARC-Date: 2024-05-06T07:08:09Z
        Content-Type: application/http; msgtype=response
        Content-Length: {len(block)}
        """
    )
    return head.replace("\n", "\r\n").encode() + b"\r\n" + block + b"\r\n\r\n"
