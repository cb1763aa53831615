"""The licence of a document: found, written as an SPDX expression in the column `licence`, and held against a list.

Evidence in the order in which it counts, the most exact first. What is found first is the licence:

1. `map`: the list that the recipe gives, by a file's path: somebody looked at it;
2. `spdx_tag`: `SPDX-License-Identifier:` in the first `HEAD_BYTES` of the text. Several tags all apply (REUSE 3.3), so
   they are joined by AND. A tag is about this very file, so it counts more than what is declared for a whole source;
3. `declared`: the column as it comes: what the recipe says of the source, or a table of a row;
4. `page`: links and `meta` elements of the payload whose `rel` or name says licence, where the address is that of a
   known licence. All have to agree: two licences on one page are about parts of it;
5. `notice`: the wording of well-known notices in the first `HEAD_BYTES` of the text, comment signs, case, punctuation
   and line breaks aside. Notices of several licences are joined by AND: stricter than "either of them", never laxer. Of
   the GNU family the lowest version that is named counts, any version where none is (section 14 of the GPL itself);
6. `mention` (only if asked for): the addresses of Creative Commons licences anywhere in the text or payload, where all
   name one licence. Most such pages are under that licence; some quote a picture that is.

What is declared and reads as a licence is written in the same form; what does not, stays, and counts as unknown. The
step may stand before `extract`, where it sees pages, or behind, where it sees texts. Cost: see docs/rights-and-urls.md.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import ClassVar, Literal

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import RecipeError
from pipelines.transform import Evidence, replace_column, set_verdict, verdicts
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.lists import list_entries
from pipelines.transforms.page_tags import LICENCE_LINK, declarations
from pipelines.transforms.phrases import PhraseArrays, Phrases, find_phrases, lowered, matches
from pipelines.transforms.spdx import PERMISSIVE, canonical, is_allowed, is_known, normalised
from pipelines.transforms.words import byte_at, text_view

HEAD_BYTES = 8192
"""Notices of four licences fit in."""
MAX_TAGS = 16
"""Of one text; what lies beyond is not read."""

META_NAMES = ("dcterms.license", "dc.license", "dc.rights.license", "license", "cc:license")
NOT_ALLOWED, UNKNOWN = "licence.not_allowed", "licence.unknown"
PERMISSIVE_WORD = "permissive"
"""Stands for `spdx.PERMISSIVE` in `allow`."""

NOTICES = {
    "mit": "permission is hereby granted free of charge to any person obtaining a copy of this software and associated",
    "mit_name": "under the mit license",
    "apache": "licensed under the apache license version 2 0",
    "apache_text": "apache license version 2 0 january 2004",
    "bsd": "redistribution and use in source and binary forms with or without modification are permitted",
    "bsd_endorse": "may be used to endorse or promote products derived from this software",
    "bsd_no_endorse": "may not be used to endorse or promote products derived from this software",
    "bsd_advertise": "all advertising materials mentioning features or use of this software",
    "isc": "permission to use copy modify and or distribute this software for any purpose with or without fee",
    "isc_notice": "provided that the above copyright notice and this permission notice appear in all copies",
    "agpl": "gnu affero general public license",
    "lgpl": "gnu lesser general public license",
    "lgpl_library": "gnu library general public license",
    "gpl": "gnu general public license",
    "version_2": "version 2 of the license",
    "version_2_name": "license version 2",
    "version_21": "version 2 1 of the license",
    "version_21_name": "license version 2 1",
    "version_3": "version 3 of the license",
    "version_3_name": "license version 3",
    "later": "any later version",
    "mpl": "mozilla public license v 2 0",
    "mpl_name": "mozilla public license version 2 0",
    "mpl_11": "mozilla public license version 1 1",
    "boost": "boost software license version 1 0",
    "unlicense": "this is free and unencumbered software released into the public domain",
    "epl": "eclipse public license v 2 0",
    "epl_10": "eclipse public license v1 0",
    "zlib": "altered source versions must be plainly marked as such and must not be misrepresented",
    "cc0": "cc0 1 0 universal",
}
"""Wordings that tell a licence, letters and digits only (from the licences' own notices and texts)."""
BIT = {name: 1 << place for place, name in enumerate(NOTICES)}

_TAG = np.frombuffer(b"spdx-license-identifier:", np.uint8)
_TAG_VALUE = re.compile(r"[\s]*([A-Za-z0-9.+() \t:-]*)")
_COMMONS = re.compile(
    r"(?i)creativecommons\.org/(?:licenses/(by(?:-(?:nc|nd|sa))*)/(\d\.\d)(?:/([a-z]{2,3})(?![a-z]))?|publicdomain/(zero)/1\.0)"
)
_ADDRESSES = (
    (re.compile(r"(?i)(?:www\.)?opensource\.org/licen[sc]es?/([a-z0-9.-]+?)(?:-license)?(?:\.php|\.html)?/?"), ""),
    (re.compile(r"(?i)(?:www\.)?spdx\.org/licenses/([a-z0-9.-]+?)(?:\.html|\.json|\.txt)?/?"), ""),
    (re.compile(r"(?i)(?:www\.)?apache\.org/licenses/LICENSE-(2\.0)(?:\.html|\.txt)?"), "Apache-"),
    (
        re.compile(
            r"(?i)(?:www\.)?gnu\.org/(?:licenses|copyleft)/(?:old-licenses/)?(a?gpl-\d\.\d|lgpl-\d\.\d)(?:\.[a-z.-]+)?"
        ),
        "",
    ),
)
_SCHEME = re.compile(r"(?i)^(?:https?:)?//")
MAX_ADDRESS = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Licence:
    """Fills `licence`, says in `licence_from` by which evidence, and drops documents whose licence is not allowed."""

    name: ClassVar[str] = "licence"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = pa.schema(
        [pa.field("licence_from", pa.string())]  # map, spdx_tag, declared, page, notice, mention; null = unknown
    )
    drops: ClassVar[tuple[str, ...]] = ()
    before_extract: ClassVar[bool] = True

    allow: tuple[str, ...] = ()
    """SPDX identifiers, and `permissive` for all of `spdx.PERMISSIVE`; empty = any licence passes."""
    unknown: Literal["keep", "drop"] = "keep"
    """What becomes of documents without a licence."""
    files: GivenFile | None = None
    """The map: PATH, a tab, an SPDX expression a line. A path is a file's `origin_path`, or a folder of them with "/"
    at its end; the longest counts."""
    mentions: bool = False
    """Take the address of a Creative Commons licence anywhere in text or payload for evidence."""

    def __post_init__(self) -> None:
        """Refuse words that are no identifiers. Raises `ValueError`."""
        if self.unknown not in ("keep", "drop"):
            raise ValueError(f"unknown: found {self.unknown!r}, allowed are keep, drop")
        for entry in self.allow:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}", entry):
                raise ValueError(f"allow: {entry!r} is no SPDX identifier\nhint: one licence an entry, or permissive")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Find, write and judge every row's licence."""
        licences, sources = self._found(batch)
        column = pc.coalesce(licences, batch.column("licence"))
        batch = replace_column(batch, "licence", column).append_column(self.adds.field(0), sources)
        unique, codes = _unique(licences)
        allowed = self._allowed()
        broken_unique = np.array([not is_allowed(one, allowed) for one in unique] + [self.unknown == "drop"], bool)
        if not allowed:
            broken_unique[:-1] = False
        broken = broken_unique[codes]
        if not broken.any():
            return batch
        failed = [self._judged(None if code == len(unique) else unique[code]) for code in codes[broken].tolist()]
        reasons, values, thresholds = (
            [one.rule for one in failed], [one.value for one in failed], [one.threshold for one in failed],
        )  # fmt: skip
        return set_verdict(batch, verdicts(broken, reasons, values, thresholds, "dropped"))  # type: ignore[arg-type]

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Return the licence of every row against the list, and what it was found by."""
        licences, sources = self._found(batch)
        return [
            [self._judged(licence), Evidence("licence.from", source or "nothing", "", True)]
            for licence, source in zip(licences.to_pylist(), sources.to_pylist(), strict=True)
        ]

    def _judged(self, licence: str | None) -> Evidence:
        if licence is None:
            return Evidence(
                UNKNOWN, "unknown", "a licence" if self.unknown == "drop" else "any", self.unknown == "keep"
            )
        allowed = self._allowed()
        shown = ", ".join(self.allow) if allowed else "any"
        shown = shown if len(shown) <= 200 else f"one of {len(self.allow)} licences"
        return Evidence(NOT_ALLOWED, licence, shown, not allowed or is_allowed(licence, allowed))

    def _allowed(self) -> frozenset[str]:
        return _allowed(self.allow)

    def _found(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        """Return licence (SPDX, null = unknown) and kind of evidence of every row, both string."""
        by_kind: list[tuple[str, pa.Array]] = []
        if self.files is not None:
            by_kind.append(("map", _mapped(batch.column("origin_path"), self.files)))
        tags, notices = _in_heads(batch.column("text"))
        by_kind.append(("spdx_tag", tags))
        by_kind.append(("declared", _each(batch.column("licence"), normalised)))
        by_kind.append(("page", _on_pages(batch)))
        by_kind.append(("notice", notices))
        if self.mentions:
            by_kind.append(("mention", _mentioned(batch)))
        licences, sources = pa.nulls(batch.num_rows, pa.string()), pa.nulls(batch.num_rows, pa.string())
        for kind, found in by_kind:
            sources = pc.if_else(pc.and_(pc.is_null(licences), pc.is_valid(found)), kind, sources)
            licences = pc.coalesce(licences, found)
        return licences, sources


@lru_cache(maxsize=16)
def _allowed(allow: tuple[str, ...]) -> frozenset[str]:
    named = [name for entry in allow for name in (PERMISSIVE if entry == PERMISSIVE_WORD else (canonical(entry),))]
    return frozenset(name.lower() for name in named)


def _unique(column: pa.Array) -> tuple[list[str], np.ndarray]:
    """Return the values of a column without null, and each row's place among them (null: behind the last)."""
    encoded = column.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.fill_null(len(encoded.dictionary)).to_numpy()


def _each(column: pa.Array, made: Callable[[str], str | None]) -> pa.Array:
    """Return `made` of every value; it is called once for each that occurs."""
    unique, codes = _unique(column)
    return pa.array([*map(made, unique), None], pa.string()).take(pa.array(codes))


# The map


@lru_cache(maxsize=2)
def _map(given: GivenFile) -> tuple[pa.Array, pa.Array, dict[str, str]]:
    """Return paths and their licences (string), and the licences of folders. Raises `RecipeError` for a bad line."""
    licences = {}
    for line in list_entries(given).to_pylist():
        path, _, expression = line.partition("\t")
        licence = normalised(expression.strip())
        if licence is None:
            raise RecipeError(
                f"{given.path}: {line[:80]!r} names no SPDX expression\nhint: a line is PATH, a tab, for example MIT"
            )
        licences[path.strip()] = licence
    folders = {path: licence for path, licence in licences.items() if path.endswith("/")}
    return pa.array(licences, pa.string()), pa.array(licences.values(), pa.string()), folders


def _mapped(paths: pa.Array, given: GivenFile) -> pa.Array:
    """Return the licence of each path in the map, or else of the innermost folder around it that is there."""
    known, licences, folders = _map(given)

    def of_folder(folder: str) -> str | None:
        while folder and folder not in folders:
            folder = folder[: folder[:-1].rfind("/") + 1]
        return folders.get(folder)

    exact = licences.take(pc.index_in(paths, value_set=known))
    if not folders:
        return exact
    return pc.coalesce(exact, _each(pc.replace_substring_regex(paths, "[^/]*$", ""), of_folder))


# Texts


def _in_heads(text: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the licences of the tags and of the notices in the texts' heads: string, null where there is none."""
    offsets, data = text_view(text)
    spans, bits = _scan_heads(offsets, data, _notices())
    return _tagged(data, spans, len(text)), _noticed(bits)


@lru_cache(maxsize=1)
def _notices() -> PhraseArrays:
    return Phrases.of(tuple(NOTICES.values())).arrays


def _tagged(data: np.ndarray, spans: np.ndarray, num_rows: int) -> pa.Array:
    """Return what the tags of each row say together."""
    found: dict[int, str] = {}
    for row, start, stop in spans.tolist():
        licence = _tag_licence(data[start:stop].tobytes())
        if licence is not None and row not in found:
            found[row] = licence
        elif licence is not None:
            found[row] = _joined([found[row], licence])
    rows = np.fromiter(found, np.int64, len(found))
    places = np.full(num_rows, len(found))
    places[rows] = np.arange(len(found))
    return pa.array([*found.values(), None], pa.string()).take(pa.array(places))


@lru_cache(maxsize=4096)
def _tag_licence(value: bytes) -> str | None:
    expression = _TAG_VALUE.match(value.decode("ascii", "replace"))
    return normalised(expression[1].strip(" \t-")) if expression else None


def _joined(licences: Iterable[str]) -> str:
    """Return what holds under all of these licences."""
    different = list(dict.fromkeys(licences))
    if len(different) == 1:
        return different[0]
    whole = " AND ".join(f"({one})" if " OR " in one else one for one in different)
    return normalised(whole) or different[0]


def _noticed(bits: np.ndarray) -> pa.Array:
    unique, places = np.unique(bits, return_inverse=True)
    return pa.array([_notice_licence(int(one)) for one in unique], pa.string()).take(pa.array(places))


def _notice_licence(bits: int) -> str | None:
    """Return the licence of the notices (bits of `BIT`) in one head."""

    def has(*names: str) -> bool:
        return any(bits & BIT[name] for name in names)

    found = [
        name
        for name, held in (
            ("MIT", has("mit", "mit_name")),
            ("Apache-2.0", has("apache", "apache_text")),
            ("ISC", has("isc") and has("isc_notice")),
            ("0BSD", has("isc") and not has("isc_notice")),
            ("MPL-2.0", has("mpl", "mpl_name")),
            ("MPL-1.1", has("mpl_11")),
            ("BSL-1.0", has("boost")),
            ("Unlicense", has("unlicense")),
            ("EPL-2.0", has("epl")),
            ("EPL-1.0", has("epl_10")),
            ("Zlib", has("zlib")),
            ("CC0-1.0", has("cc0")),
        )
        if held
    ]
    if has("bsd"):
        clauses = 4 if has("bsd_advertise") else 3 if has("bsd_endorse", "bsd_no_endorse") else 2
        found.append(f"BSD-{clauses}-Clause")
    later = "or-later" if has("later") else "only"
    family = "AGPL" if has("agpl") else "LGPL" if has("lgpl", "lgpl_library") else "GPL" if has("gpl") else ""
    if family:
        named = "2.1" if has("version_21") else "2.0" if has("version_2") else "3.0" if has("version_3") else ""
        named = named or (
            "2.1"
            if has("version_21_name")
            else "2.0"
            if has("version_2_name")
            else "3.0"
            if has("version_3_name")
            else ""
        )
        lowest = {"AGPL": "3.0", "LGPL": "2.0", "GPL": "1.0"}[family]
        version = "3.0" if family == "AGPL" else named or lowest
        version = "2.0" if family == "GPL" and version == "2.1" else version
        found.append(f"{family}-{version}-{later if named else 'or-later'}")
    return _joined(found) if found else None


@numba.njit(nogil=True, cache=True)
def _scan_heads(offsets: np.ndarray, data: np.ndarray, notices: PhraseArrays) -> tuple[np.ndarray, np.ndarray]:
    """Return the spans behind SPDX tags (row, start, stop in `data`; int64, (tags, 3)) and the bits of the notices."""
    num_rows = len(offsets) - 1
    spans, num = np.empty((64, 3), np.int64), 0
    bits = np.zeros(num_rows, np.int64)
    words = np.empty(HEAD_BYTES, np.uint8)
    for row in range(num_rows):
        begin, end = offsets[row], min(offsets[row + 1], offsets[row] + HEAD_BYTES)
        size, most = 0, num + MAX_TAGS
        for at in range(begin, end):
            byte = lowered(byte_at(data, at))
            if 0x61 <= byte <= 0x7A or 0x30 <= byte <= 0x39:
                words[size] = byte
                size += 1
            elif size and words[size - 1] != 0x20:
                words[size] = 0x20
                size += 1
            if byte == 0x3A and num < most and at - begin >= len(_TAG) - 1:  # the colon behind the tag
                start = at + 1 - len(_TAG)
                if matches(data, start, _TAG, 0, len(_TAG)):
                    stop = at + 1
                    while stop < min(offsets[row + 1], at + 257) and data[stop] != 0x0A and data[stop] != 0x0D:
                        stop += 1
                    if num == len(spans):
                        more = np.empty((2 * num, 3), np.int64)
                        more[:num] = spans
                        spans = more
                    spans[num, 0], spans[num, 1], spans[num, 2] = row, at + 1, stop
                    num += 1
        bits[row] = find_phrases(words, 0, size, notices)
    return spans[:num], bits


# Pages


def _on_pages(batch: pa.RecordBatch) -> pa.Array:
    """Return the licence that each page declares, null where it declares none that is known, or several."""
    found: dict[int, set[str]] = {}
    for row, name, value in declarations(batch, META_NAMES, links=True):
        licence = licence_at(value)
        if licence is None and name != LICENCE_LINK:
            licence = _commons_of(value)
        if licence is not None:
            found.setdefault(row, set()).add(licence)
    return pa.array(
        [next(iter(found[row])) if len(found.get(row, ())) == 1 else None for row in range(batch.num_rows)], pa.string()
    ) if found else pa.nulls(batch.num_rows, pa.string())  # fmt: skip


def licence_at(address: str) -> str | None:
    """Return the SPDX name of the licence at a web address, or None for any other address."""
    address = _SCHEME.sub("", address[:MAX_ADDRESS].strip().partition("#")[0].partition("?")[0])
    if licence := _commons_of(address):
        return licence
    for pattern, before in _ADDRESSES:
        if found := pattern.fullmatch(address):
            licence = canonical(before + found[1])
            return licence if is_known(licence) else None
    return None


def _commons_of(text: str) -> str | None:
    found = _COMMONS.search(text)
    if found is None:
        return None
    if found[4]:
        return "CC0-1.0"
    country = f"-{found[3].upper()}" if found[3] else ""
    return f"CC-{found[1].upper()}-{found[2]}{country}"


def _mentioned(batch: pa.RecordBatch) -> pa.Array:
    """Return the one Creative Commons licence whose address stands in text or payload."""
    text = pc.coalesce(batch.column("text").cast(pa.large_binary()), batch.column("content"))
    rows = np.flatnonzero(pc.match_substring(text, b"creativecommons.org/", ignore_case=True).fill_null(False))
    found: list[str | None] = [None] * batch.num_rows
    for row in rows.tolist():
        raw = text[row].as_buffer().to_pybytes().decode("utf-8", "replace")
        named = {_commons_of(one[0]) for one in _COMMONS.finditer(raw)}
        found[row] = named.pop() if len(named) == 1 else None
    return pa.array(found, pa.string())
