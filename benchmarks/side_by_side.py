"""Twenty real pages side by side, the extractor's text and trafilatura's, with what is still wrong: docs/extraction.md.

    python benchmarks/side_by_side.py [--data ../shared/data] [--output docs/extraction.md]

writes the part of the page between its marks anew and leaves the rest of it alone. The judgements were written after
both texts were read against the page; they stand in `SAMPLES` with a hash of the two texts. Where these have changed
since, the script says so, and so does the page: read them again, then set `judged` to the hash that is printed.

Figures are of the extractor's default mode and of trafilatura's precision mode without comments. They describe these
pages and are no measure of quality: most of the pages were trained on, none was drawn at random.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import hashlib
import logging
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from pipelines.main_content.content import main_content
from pipelines.main_content.training.references import trafilatura_precision
from pipelines.main_content.training.scores import page_score
from pipelines.sources.archive import Origin, Record, read_origin
from pipelines.sources.http_message import charset, decode_body, parse_message
from pipelines.transforms.charset import to_utf8

REPOSITORY = Path(__file__).resolve().parents[1]
MARKS = "<!-- side by side -->", "<!-- /side by side -->"

MAX_PAGE_BYTES = 8 << 20

BEGINNING, ENDING, PASSAGE = 200, 150, 150
"""Characters of an excerpt. They are short because the pages are other people's."""
MAX_URL = 110
"""Characters of an address."""
LINE = 120
"""Characters of a line of prose."""
MAX_INDENT = 8
"""Spaces before a line that are shown."""
PASSAGES = 2
"""Passages that are shown of those that only one of the texts has."""

NEWS = "warc/built_from_real_html/trafilatura-eval-0000{}.warc.gz"
FIXTURES = "html_gold/mozilla_readability"

_ADDRESS = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}")

TRAINED_ON = ("warc/built_from_real_html/trafilatura-eval", FIXTURES)
"""Collections of pages.yaml in which pages of the table are."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A page of the table: where it lies below the data folder, what it is, and what is to be said about its texts."""

    file: str
    at: tuple[int, int] | None
    """Offset and length of its record, None where the file is the page."""
    language: str
    kind: str
    faults: tuple[str, ...]
    """What is wrong with our text, keys of `FAULTS`."""
    judged: str
    """`digest` of the texts that were read."""
    judgement: str


@dataclasses.dataclass(frozen=True, slots=True)
class Texts:
    """A page's address and its two texts."""

    url: str
    ours: str
    theirs: str


FAULTS = {
    "Parts lost": "paragraphs, items, posts or notes of the main text are missing",
    "Boilerplate kept": "notices, footers, buttons and credits beside the main text",
    "Headings lost": "the text below them is there",
    "Lists and lines": "a post within a list item is taken for an item; a step's number stands on a line of its own",
    "Captions kept": "of pictures, within the text",
    "Embedded posts lost": "tweets and their like, or all of them but the author and the date",
    "Formulas flattened": "their signs in a row, without fractions, powers and indices",
    "No main content": "a page that has none gives its frame instead of nothing",
}
"""What can be wrong with a text, and what is meant."""

SAMPLES = (
    Sample(
        NEWS.format(0), (473484, 23464), "German", "news", (), "493b5d04b633",
        "The same text, with the summary in two items and the one heading; both are right.",
    ),
    Sample(
        NEWS.format(0), (2428896, 29808), "Spanish", "news",
        ("Embedded posts lost", "Boilerplate kept"), "c7a9fb5b160b",
        "Ours has the standfirst, as trafilatura has, and rightly leaves out a pull quote, which trafilatura keeps. "
        "Of a tweet that the article talks about, only the author and the date are left. Both keep the line about "
        "subscribing at the end.",
    ),
    Sample(
        NEWS.format(2), (449925, 19018), "Polish", "essay", (), "3c29456cb11e",
        "Ours has the first sentence, which trafilatura loses. Both keep the note about the author at the end.",
    ),
    Sample(
        NEWS.format(2), (166353, 8813), "Norwegian", "press release", ("Parts lost",), "eacdee9127fa",
        "The same text, with all headings and quotations; only trafilatura has the headline. The standfirst is lost "
        "in both.",
    ),
    Sample(
        NEWS.format(0), (2388361, 7641), "Chinese", "news", ("Captions kept",), "cddb3c933a50",
        "The same text. A picture's caption, with the photographer's name, stands between two paragraphs in both.",
    ),
    Sample(
        NEWS.format(1), (3167435, 4593), "Japanese", "news with reading aids", (), "ef63ee74d169",
        "The same text: all four paragraphs, without the reading aids, and without the notes about the page below "
        "them.",
    ),
    Sample(
        NEWS.format(0), (2529184, 17008), "Arabic", "interview", (), "33908b0364cb",
        "Every question and answer is there, in order, with the line breaks of the page. Only the headline differs.",
    ),
    Sample(
        NEWS.format(1), (988311, 28460), "French", "essay with notes and tables",
        ("Parts lost", "Captions kept"), "88875a255221",
        "Ours has the standfirst, which trafilatura loses. The table is whole; the page has one for every row, hence "
        "the empty lines. Both lose the five notes, and keep the photo credit as the last line.",
    ),
    Sample(
        NEWS.format(1), (2676673, 6804), "English", "blog post with code", ("Lists and lines",), "eea74749aa25",
        "The same words, and the code as it is on the page, empty lines included. But the page's template puts the "
        "post into a list item, so ours marks it as one, and no empty line parts the code from the prose.",
    ),
    Sample(
        NEWS.format(0), (1022743, 15567), "English", "blog post with comments", (), "baa5d3150f4c",
        "The whole post, with its table; no comment in either. With `comments: true`, ours adds all of them, "
        "and the labels of the form for new ones.",
    ),
    Sample(
        NEWS.format(3), (2892473, 7585), "English", "documentation", ("Boilerplate kept",), "4b72b1a25266",
        "All headings, lists, notes, code and the tables of platforms are there; their check marks are pictures and "
        "in neither text. Both keep the time that the page takes to read, and its keywords as a last line. "
        "trafilatura breaks lines where the source does.",
    ),
    Sample(
        NEWS.format(0), (804635, 21472), "English", "encyclopedia with formulas",
        ("Formulas flattened", "Parts lost", "Boilerplate kept"), "013e119b05ed",
        "The prose, the headings and the references are there. Formulas are there once, but without fractions and "
        "powers; trafilatura has none, so its sentences have holes. The list of software and the one external link, "
        'which it has, are lost. Both keep the "[edit]" of headings.',
    ),
    Sample(
        NEWS.format(0), (96594, 20620), "German", "shop page", (), "21c97696cc56",
        "The description is whole, and not repeated as trafilatura has it. "
        "Both tables are there, every label with its value.",
    ),
    Sample(
        NEWS.format(2), (121994, 14335), "Portuguese", "recipe",
        ("Boilerplate kept", "Headings lost", "Lists and lines", "Parts lost"), "85e4dc8f1974",
        "Ours has the ingredients, which trafilatura loses, and all steps, whose numbers stand on lines of their own. "
        'It begins with a notice about picture rights, loses the heading "Como Fazer", and "Unidades" stands without '
        "the number; weight and time are lost. trafilatura has these.",
    ),
    Sample(
        NEWS.format(2), (658738, 17528), "German", "forum thread", ("Parts lost", "Boilerplate kept"), "ddfaa421b6c8",
        "Ours has all of the first post, whose beginning trafilatura loses, and eight of the nine posts; the second, "
        "of two sentences, is in neither. Quotations of earlier posts are left out as repetitions, but two buttons "
        '"Click to expand..." are kept. Neither says who speaks.',
    ),
    Sample(
        "warc/webarchive/aut-example.warc.gz", (1275261, 4403), "English", "forum post of 2008", (), "f82543d5360b",
        "The post is whole, paragraph by paragraph, below its poster, date and subject; the navigation, which "
        "trafilatura keeps, is gone. trafilatura puts all paragraphs into one line.",
    ),
    Sample(
        f"{FIXTURES}/lwn-1/source.html", None, "English", "magazine laid out in a table",
        ("Boilerplate kept",), "f318784c879c",
        "Ours has all three articles in paragraphs, with their headings and tables of figures, and none of the "
        "navigation; the links to comments and to the next page are kept. trafilatura makes one line of everything, "
        "and loses the articles' headlines and all tables.",
    ),
    Sample(
        "warc/built_from_real_html/debian-manuals-multilang.warc.gz", (412589, 7150), "Japanese", "manual with code",
        (), "54b07f1db9d3",
        "Everything below the headline is there: fourteen headings with their answers, lists and code. trafilatura "
        "loses all headings and the short answers.",
    ),
    Sample(
        "warc/commoncrawl/resiliparse-warcfile.warc.gz", (110823, 8716), "Chinese", "list of jobs",
        ("Parts lost", "Boilerplate kept"), "9344d8ab5b81",
        "Our worst page. The names of jobs and of companies, which are links, are lost, so what is left says nothing; "
        "the footer of the site is kept. trafilatura has the names, but takes whole jobs and single fields for "
        "repetitions and leaves them out.",
    ),
    Sample(
        "web_text/dclm_quality_labels/html_pages/common_crawl_paragraph3.html", None, "Russian",
        "home page of a portal", ("No main content", "Boilerplate kept"), "b73306149654",
        "There is no main content. Both give the footer instead of nothing; ours adds the labels of forms and a cloud "
        "of tags.",
    ),
)  # fmt: skip


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=REPOSITORY / "../shared/data")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs/extraction.md")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)  # trafilatura speaks of every page without a text
    text = arguments.output.read_text(encoding="utf-8")
    arguments.output.write_text(replaced(text, compared(arguments.data)), encoding="utf-8")


def replaced(page: str, part: str) -> str:
    """Return the page with `part` between its marks."""
    before, opened, rest = page.partition(MARKS[0])
    _, closed, after = rest.partition(MARKS[1])
    if not opened or not closed:
        raise SystemExit(f"the output has no part to write: {MARKS[0]} ... {MARKS[1]}\nhint: put both marks into it")
    return f"{before}{MARKS[0]}\n{part}\n{MARKS[1]}{after}"


def compared(data: Path) -> str:
    """Return the part of the page: a table of all pages, every page by itself, what is still wrong."""
    texts = [read_texts(data, sample) for sample in SAMPLES]
    for sample, found in zip(SAMPLES, texts, strict=True):
        if is_stale(sample, found):
            sys.stderr.write(f"{found.url}: judged {sample.judged or 'never'}, the texts are {digest(found)} now\n")
    parts = ["\n".join(summary(texts))]
    for number, (sample, found) in enumerate(zip(SAMPLES, texts, strict=True), 1):
        parts.append("\n".join(shown(number, sample, found)))
    return "\n\n".join([*parts, "\n".join(still_wrong())])


def read_texts(data: Path, sample: Sample) -> Texts:
    """Return the address of a sample and what both extractors make of it."""
    path = data / sample.file
    url, label = f"{path.parent.name}/{path.name}", None
    if sample.at is None:
        body: bytes | memoryview = path.read_bytes()
    else:
        with path.open("rb") as file:
            record = read_origin(file, Origin(*sample.at, 0), MAX_PAGE_BYTES)
        assert isinstance(record, Record)
        message = parse_message(record.block)
        url, label = record.header.fields["warc-target-uri"], charset(message.content_type)
        body = decode_body(message, MAX_PAGE_BYTES).data
    page = to_utf8(body, label)
    return Texts(url, main_content(page).text, trafilatura_precision(str(page, "utf-8")))


def digest(texts: Texts) -> str:
    """Return the hash that a judgement is bound to."""
    return hashlib.sha256(f"{texts.ours}\0{texts.theirs}".encode()).hexdigest()[:12]


def is_stale(sample: Sample, texts: Texts) -> bool:
    """Tell whether other texts than these were judged."""
    return sample.judged != digest(texts)


def summary(texts: list[Texts]) -> Iterator[str]:
    """Yield the table of all pages."""
    yield "| | page | language | trained on | characters, ours | theirs | F1 of the two |"
    yield "|---|---|---|---|---|---|---|"
    for number, (sample, found) in enumerate(zip(SAMPLES, texts, strict=True), 1):
        trained = "yes" if sample.file.startswith(TRAINED_ON) else "no"
        f1 = page_score(found.ours, found.theirs).f1
        title = f"[{sample.kind}](#{anchor(title_of(number, sample))})"
        sizes = f"{len(found.ours):,} | {len(found.theirs):,}"
        yield f"| {number} | {title} | {sample.language} | {trained} | {sizes} | {f1:.3f} |"


def title_of(number: int, sample: Sample) -> str:
    """Return the heading of a page."""
    return f"{number}. {sample.language} {sample.kind}"


def anchor(title: str) -> str:
    """Return the anchor that a heading has on GitHub."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def shown(number: int, sample: Sample, texts: Texts) -> Iterator[str]:
    """Yield one page: its address, the excerpts, the judgement."""
    yield f"### {title_of(number, sample)}"
    yield f"`{cut(texts.url.replace('`', ''), MAX_URL)}`\n"
    yield "| | Headrace | trafilatura, precision mode |"
    yield "|---|---|---|"
    yield f"| begins | {cell(cut(texts.ours, BEGINNING))} | {cell(cut(texts.theirs, BEGINNING))} |"
    yield f"| ends | {cell(end_of(texts.ours, ENDING))} | {cell(end_of(texts.theirs, ENDING))} |"
    only = only_in(texts.ours, texts.theirs), only_in(texts.theirs, texts.ours)
    for place in range(max(map(len, only))):
        ours, theirs = (cell(passages[place]) if place < len(passages) else "" for passages in only)
        yield f"| only here | {ours} | {theirs} |"
    yield ""
    stale = " *(Judged on an earlier text.)*" if is_stale(sample, texts) else ""
    yield textwrap.fill(sample.judgement + stale, LINE)


def only_in(text: str, other: str) -> list[str]:
    """Return the longest passages whose paragraphs the other text has nowhere, in their order, cut."""
    lines, other_lines = text.splitlines(), other.splitlines()
    everything = letters(other)
    found: list[str] = []
    matcher = difflib.SequenceMatcher(None, [*map(letters, lines)], [*map(letters, other_lines)], autojunk=False)
    for operation, start, stop, _, _ in matcher.get_opcodes():
        if operation in ("delete", "replace"):
            missing = [line for line in lines[start:stop] if letters(line) and letters(line) not in everything]
            found += ["\n".join(missing)] if missing else []
    longest = sorted(range(len(found)), key=lambda place: -len(found[place]))[:PASSAGES]
    return [cut(found[place], PASSAGE) for place in sorted(longest)]


def letters(text: str) -> str:
    """Return letters and digits, since marks and spacing are each extractor's own."""
    return re.sub(r"[\W_]+", "", text)


def cut(text: str, size: int) -> str:
    """Return the beginning of a text, up to a space where there is one near."""
    if len(text) <= size:
        return text
    end = text.rfind(" ", size - 20, size)
    return text[: end if end > 0 else size].rstrip() + " …"


def end_of(text: str, size: int) -> str:
    """Return the end of a text, from a space on where there is one near."""
    if len(text) <= size:
        return text
    start = text.find(" ", len(text) - size, len(text) - size + 20)
    return "… " + text[start + 1 if start > 0 else len(text) - size :].lstrip()


def cell(text: str) -> str:
    """Return text for a cell of a table: lines broken, indents kept, everything else escaped."""
    return "<br>".join(map(_cell_line, text.strip("\n").splitlines()))


def _cell_line(line: str) -> str:
    indent = len(line) - len(line.lstrip(" "))
    return "&nbsp;" * min(indent, MAX_INDENT) * bool(line.strip()) + escaped(line.strip())


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, without controls, also those of direction, and without addresses."""
    text = _ADDRESS.sub("(address)", text)
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+", " ", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("`", "&#96;")
    return re.sub(r"[\\*_\[\]|~$]|(?<=\])\(", r"\\\g<0>", text)


def still_wrong() -> Iterator[str]:
    """Yield the faults by how many pages have them."""
    pages = {fault: [number for number, sample in enumerate(SAMPLES, 1) if fault in sample.faults] for fault in FAULTS}
    yield "## What is still wrong"
    yield f"In the {len(SAMPLES)} texts above, counted by page:\n"
    yield "| what | pages | which |"
    yield "|---|---|---|"
    for fault in sorted(FAULTS, key=lambda name: -len(pages[name])):
        which = ", ".join(map(str, pages[fault]))
        yield f"| **{fault}**: {FAULTS[fault]} | {len(pages[fault])} | {which} |"


if __name__ == "__main__":
    main()
