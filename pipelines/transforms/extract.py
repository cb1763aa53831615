"""Raw payloads to text: characters are decoded to UTF-8 (`charset.py`), HTML is cut down to its main content.

The main content is found by an extractor of our own (`pipelines.main_content`), or by a library in a child process
(`library_extractors.py`, `sandbox.py`). The text is always valid UTF-8. U+0000 is removed: it means nothing in a text,
and databases and C strings choke on it.

Every page costs bounded work, by counts and not by clocks: bytes, and the elements, depth and attributes that
`markup.measure_markup` finds before a library's parser sees them. The worst pages found within the default bounds take
resiliparse 3, trafilatura 6 and readability 12 CPU seconds. The limit on the wall clock is there for what counts cannot
foresee: it is a fault of the run and not a verdict, so that a rerun tries the page again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.main_content.choice import Mode
from pipelines.main_content.content import Bounds, main_content
from pipelines.main_content.trees import MODEL_SHA256
from pipelines.schema import VERDICT
from pipelines.transform import Evidence, replace_column
from pipelines.transforms.charset import REPLACEMENT, to_utf8
from pipelines.transforms.library_extractors import LIBRARIES
from pipelines.transforms.markup import Markup, measure_markup
from pipelines.transforms.sandbox import Crashed, Failed, Sandbox, TimedOut, sandbox_of

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})

OWN_ENGINE = "headrace"
ENGINES = (OWN_ENGINE, *LIBRARIES)

EMPTY = "extract.empty"
BOUNDS = ("max_bytes", "max_nodes", "max_depth", "max_attributes")


class Payload(NamedTuple):
    """A row without a text."""

    row: int
    content: memoryview
    media_type: str | None
    charset: str | None
    """Of the HTTP header."""
    domain: str | None
    """The host's top-level domain."""


class Extracted(NamedTuple):
    """What became of a payload: its text and what else it says, or a verdict."""

    text: bytes | None = None
    """UTF-8."""
    title: str | None = None
    published: str | None = None
    language_hint: str | None = None
    verdict: dict[str, str] | None = None
    markup: Markup | None = None
    """Of HTML that is no larger than allowed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Extract:
    """Fills `text` from `content`, sets `content` to null, adds columns. Rows with a text keep it as it is.

    HTML gives its main content, any other media type that the source lets through its characters.

    A page beyond a bound is `dropped[extract.too_large]` (bytes) or `dropped[extract.too_complex]` (nodes, depth,
    attributes), one without text `dropped[extract.empty]`. A library may fail: `errored[extract.failed]`; die twice:
    `errored[extract.crashed]`; or not answer in time: `errored[extract.timeout]`, which is a fault (see `ledger.py`).
    """

    name: ClassVar[str] = "extract"
    version: ClassVar[int] = 2
    adds: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("replacement_chars", pa.int32()),  # U+FFFD in the text: undecodable, or brought by the page
            pa.field("title", pa.string()),
            pa.field("published", pa.string()),  # ISO 8601 as the page states it
            pa.field("language_hint", pa.string()),  # BCP 47 in lower case, what the page says of itself
        ]
    )
    drops: ClassVar[tuple[str, ...]] = ("media_type", "charset")
    model: ClassVar[str] = MODEL_SHA256
    """The model of our own engine is part of the recipe's fingerprint, as the version is."""

    engine: Literal["headrace", "resiliparse", "trafilatura", "readability"] = "headrace"
    """Libraries leave `title`, `published` and `language_hint` null."""
    mode: Mode = "balanced"
    """Precision where boilerplate is worse than lost text, recall where it is the reverse."""
    comments: bool = False
    """Readers' comments too."""
    max_bytes: int = 8 << 20
    """Of the payload."""
    max_nodes: int = 100_000
    """Elements that a parser might build; the most seen in 1,217 real pages is 46,000."""
    max_depth: int = 128
    """Elements open at once; the most seen is 42, browsers stop at 512."""
    max_attributes: int = 1_000
    """Of one tag; the most seen is 43. Parsers look for duplicates in quadratic time."""
    timeout_seconds: int = 60
    """Of a library for one page, on the wall clock. The worst that is known takes 12 of a quiet core's seconds."""

    def __post_init__(self) -> None:
        """Refuse bounds that let nothing through, engines that are not there, and what an engine cannot do."""
        if self.engine not in ENGINES:
            raise ValueError(f"engine: {self.engine!r} is unknown\nhint: {' or '.join(ENGINES)}")
        for bound in (*BOUNDS, "timeout_seconds"):
            if getattr(self, bound) < 1:
                raise ValueError(f"{bound}: {getattr(self, bound)} lets nothing through\nhint: give a number from 1 up")
        library = LIBRARIES.get(self.engine)
        if library and self.mode not in library.modes:
            raise ValueError(
                f"mode: {self.mode!r} is none of engine {self.engine}\nhint: {' or '.join(library.modes)}, "
                f"or engine: {OWN_ENGINE}"
            )
        if library and self.comments and not library.comments:
            raise ValueError(f"comments: engine {self.engine} cannot tell them\nhint: engine: {OWN_ENGINE}")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Extract every row that has no text yet."""
        found = [Extracted()] * batch.num_rows
        for payload in _payloads(batch):
            found[payload.row] = self._extract(payload)
        texts = pa.array([one.text for one in found], pa.large_binary()).cast(pa.large_string())
        texts = pc.coalesce(batch.column("text"), texts)
        batch = replace_column(batch, "text", texts)
        batch = replace_column(batch, "content", pa.nulls(batch.num_rows, pa.large_binary()))
        batch = replace_column(batch, "verdict", pa.array([one.verdict for one in found], VERDICT))
        batch = batch.drop_columns(list(self.drops))
        replaced = pc.count_substring(pc.fill_null(texts, ""), REPLACEMENT).cast(pa.int32())
        said = [pa.array([getattr(one, name) for one in found], pa.string()) for name in self.adds.names[1:]]
        for field, column in zip(self.adds, [replaced, *said], strict=True):
            batch = batch.append_column(field, column)
        return batch

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Return the sizes of every payload against the bounds, and its text's length; `[]` for rows with a text."""
        evidence: list[list[Evidence]] = [[] for _ in range(batch.num_rows)]
        for payload in _payloads(batch):
            found = self._extract(payload)
            rules = [self._size_rule(payload), *(self._markup_rules(found.markup) if found.markup else [])]
            verdict = found.verdict
            if verdict is not None and verdict["outcome"] == "errored":
                rules.append(Evidence(verdict["reason"], verdict["value"], verdict["threshold"], False))
            num_characters = len((found.text or b"").decode())
            rules.append(Evidence(EMPTY, f"{num_characters} characters", ">= 1 character", num_characters > 0))
            evidence[payload.row] = rules
        return evidence

    def sandbox(self) -> Sandbox | None:
        """Return where a library finds main content; None for our own engine, which needs none."""
        library = LIBRARIES.get(self.engine)
        return None if library is None else sandbox_of(library.address, mode=self.mode, comments=self.comments)

    def _extract(self, payload: Payload) -> Extracted:
        size = self._size_rule(payload)
        if not size.passed:
            return _stopped("dropped", size)
        page = to_utf8(payload.content, payload.charset, payload.domain)
        if payload.media_type not in HTML_TYPES:
            return _unless_empty(Extracted(bytes(page).replace(b"\0", b"")))
        sandbox = self.sandbox()
        found = self._by_ourselves(page) if sandbox is None else self._by_library(page, sandbox)
        assert found.markup is not None
        broken = next((rule for rule in self._markup_rules(found.markup) if not rule.passed), None)
        return _stopped("dropped", broken, found.markup) if broken else _unless_empty(found)

    def _by_ourselves(self, page: bytes | memoryview) -> Extracted:
        """Return what our own extractor finds; it counts in linear time, and stops at what is too complex."""
        bounds = Bounds(self.max_nodes, self.max_depth, self.max_attributes)
        content = main_content(page, self.mode, self.comments, bounds)
        markup = Markup(content.nodes, content.depth, content.attributes)
        return Extracted(content.text.encode(), content.title, content.published, content.language_hint, markup=markup)

    def _by_library(self, page: bytes | memoryview, sandbox: Sandbox) -> Extracted:
        """Return what a library finds, which does not see pages that are too complex."""
        markup = measure_markup(page)
        if not all(rule.passed for rule in self._markup_rules(markup)):
            return Extracted(markup=markup)
        limit = f"{self.timeout_seconds} seconds"
        try:
            return Extracted(sandbox(page, self.timeout_seconds), markup=markup)
        except Failed as error:
            broken = Evidence("extract.failed", str(error), "no error", False)
        except Crashed as error:
            broken = Evidence("extract.crashed", str(error), "no crash", False)
        except TimedOut:
            broken = Evidence("extract.timeout", f"> {limit}", f"<= {limit}", False)
        return _stopped("errored", broken, markup)

    def _size_rule(self, payload: Payload) -> Evidence:
        size = len(payload.content)
        return Evidence("extract.too_large", f"{size} bytes", f"<= {self.max_bytes} bytes", size <= self.max_bytes)

    def _markup_rules(self, markup: Markup) -> list[Evidence]:
        bounds = (
            ("nodes", markup.nodes, self.max_nodes),
            ("depth", markup.depth, self.max_depth),
            ("attributes", markup.attributes, self.max_attributes),
        )
        return [
            Evidence("extract.too_complex", f"{name} {found}", f"{name} <= {bound}", found <= bound)
            for name, found, bound in bounds
        ]


def _payloads(batch: pa.RecordBatch) -> Iterator[Payload]:
    """Yield every row that has no text; its payload is a view of the batch, an empty one where there is none."""
    content, hosts = batch.column("content"), batch.column("host").to_pylist()
    kinds, charsets = batch.column("media_type").to_pylist(), batch.column("charset").to_pylist()
    for row in np.flatnonzero(pc.is_null(batch.column("text")).to_numpy(zero_copy_only=False)).tolist():
        view = memoryview(content[row].as_buffer() or b"")
        domain = (hosts[row] or "").rpartition(".")[2].lower() or None
        yield Payload(row, view, kinds[row], charsets[row], domain)


def _unless_empty(found: Extracted) -> Extracted:
    """Return what was found, a verdict in its place where that is no text."""
    if found.verdict is not None or (found.text and not found.text.isspace()):
        return found
    return _stopped("dropped", Evidence(EMPTY, "0 characters", ">= 1 character", False), found.markup)


def _stopped(outcome: str, broken: Evidence, markup: Markup | None = None) -> Extracted:
    """Return the verdict of a rule that a page breaks."""
    verdict = {"outcome": outcome, "reason": broken.rule, "value": broken.value, "threshold": broken.threshold}
    return Extracted(verdict=verdict, markup=markup)
