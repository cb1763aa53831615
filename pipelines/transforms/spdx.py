"""Licences by their SPDX names: expressions read and written in one form, and held against a list of allowed ones.

Grammar: SPDX 2.3, annex D (`OR` binds weaker than `AND`, `AND` weaker than `WITH`). Identifiers compare without regard
to case; known ones are written as the SPDX list does, the deprecated names of the GNU family as today's. An identifier
that is not known here stays as it is written.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Set
from functools import lru_cache

_PERMISSIVE = """
0BSD ADSL AFL-1.1 AFL-1.2 AFL-2.0 AFL-2.1 AFL-3.0 AMDPLPA AML AMPAS ANTLR-PD ANTLR-PD-fallback APAFML Apache-1.0
Apache-1.1 Apache-2.0 Artistic-2.0 Bahyph Barr BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause BSD-2-Clause-FreeBSD
BSD-2-Clause-NetBSD BSD-2-Clause-Patent BSD-2-Clause-Views BSD-3-Clause BSD-3-Clause-Attribution BSD-3-Clause-Clear
BSD-3-Clause-LBNL BSD-3-Clause-Modification BSD-3-Clause-No-Nuclear-License-2014 BSD-3-Clause-No-Nuclear-Warranty
BSD-3-Clause-Open-MPI BSD-4-Clause BSD-4-Clause-Shortened BSD-4-Clause-UC BSD-Source-Code BSL-1.0 bzip2-1.0.5
bzip2-1.0.6 CC0-1.0 CNRI-Jython CNRI-Python CNRI-Python-GPL-Compatible Cube curl DSDP ECL-1.0 ECL-2.0 eGenix Entessa
FTL HTMLTIDY IBM-pibs ICU ImageMagick Info-ZIP Intel ISC JasPer-2.0 Libpng libpng-2.0 libtiff Linux-OpenIB LPPL-1.3c
MIT MIT-0 MIT-advertising MIT-CMU MIT-enna MIT-feh MIT-Modern-Variant MIT-open-group MITNFA MS-PL MTLL MulanPSL-1.0
MulanPSL-2.0 Multics Mup Naumen NCSA Net-SNMP NetCDF NTP OLDAP-2.0 OLDAP-2.0.1 OLDAP-2.1 OLDAP-2.2 OLDAP-2.2.1
OLDAP-2.2.2 OLDAP-2.3 OLDAP-2.4 OLDAP-2.5 OLDAP-2.6 OLDAP-2.7 OLDAP-2.8 OML OpenSSL PHP-3.0 PHP-3.01 Plexus
PostgreSQL PSF-2.0 Python-2.0 Ruby Saxpath SGI-B-2.0 SMLNJ Spencer-99 SWL TCL TCP-wrappers Unicode-DFS-2015
Unicode-DFS-2016 Unlicense UPL-1.0 VSL-1.0 W3C X11 Xerox XFree86-1.1 Xnet xpp Zlib zlib-acknowledgement ZPL-2.0
ZPL-2.1
"""
PERMISSIVE = tuple(_PERMISSIVE.split())
"""Licences that ask for no more than notices. The Blue Oak Council's list of permissive licences, by which The Stack
chose its repositories (Kocetkov et al. 2022, arXiv 2211.15533, section 3.1), with CC0-1.0. As a word of a recipe:
`permissive`. It is a starting point, not legal advice."""

_OTHERS = """
AGPL-3.0-only AGPL-3.0-or-later Artistic-1.0 CC-PDDC CDDL-1.0 CDDL-1.1 CECILL-2.1 CPL-1.0 EPL-1.0 EPL-2.0 EUPL-1.1
EUPL-1.2 GFDL-1.2-or-later GFDL-1.3-only GFDL-1.3-or-later GPL-1.0-only GPL-1.0-or-later GPL-2.0-only
GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later HPND LGPL-2.0-only LGPL-2.0-or-later LGPL-2.1-only LGPL-2.1-or-later
LGPL-3.0-only LGPL-3.0-or-later MPL-1.0 MPL-1.1 MPL-2.0 MPL-2.0-no-copyleft-exception MS-RL ODbL-1.0 OFL-1.1
OSL-3.0 PDDL-1.0 QPL-1.0 Sleepycat SSPL-1.0 WTFPL BUSL-1.1 Elastic-2.0 Unicode-3.0 Vim
"""
OTHERS = tuple(_OTHERS.split())
"""Others whose case is known."""

ALIASES = {
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "mit license": "MIT",
    "the mit license": "MIT",
    "isc license": "ISC",
    "the unlicense": "Unlicense",
    "mpl 2.0": "MPL-2.0",
    "mozilla public license 2.0": "MPL-2.0",
    "cc0": "CC0-1.0",
    "cc0 1.0": "CC0-1.0",
    "gplv2": "GPL-2.0-only",
    "gplv2+": "GPL-2.0-or-later",
    "gplv3": "GPL-3.0-only",
    "gplv3+": "GPL-3.0-or-later",
    "lgplv3": "LGPL-3.0-only",
    "agplv3": "AGPL-3.0-only",
}
"""What tables and manifests call licences whose version leaves no doubt ("BSD" alone does)."""

MAX_EXPRESSION = 256
"""Characters of an expression that is read."""
MAX_DEPTH = 16

_GNU = re.compile(r"(?i)(a?gpl|lgpl|gfdl)-(\d\.\d)(\+)?")
_CREATIVE_COMMONS = re.compile(r"(?i)cc[- ](by(?:[- ](?:nc|nd|sa))*)[- ](\d\.\d)(?:[- ]([a-z]{2,3}))?")
_TOKEN = re.compile(r"\s*([()]|[A-Za-z0-9][A-Za-z0-9.+-]*)")
_CANONICAL = {name.lower(): name for name in (*PERMISSIVE, *OTHERS)}
_NOTHING = ("noassertion", "none", "unknown")


@dataclasses.dataclass(frozen=True, slots=True)
class _Node:
    """An identifier (with its exception), or several joined by one operator."""

    operator: str
    """"", "AND" or "OR"."""
    name: str = ""
    exception: str = ""
    parts: tuple[_Node, ...] = ()

    def __str__(self) -> str:
        if not self.operator:
            return self.name + (f" WITH {self.exception}" if self.exception else "")
        parts = (f"({part})" if (self.operator, part.operator) == ("AND", "OR") else str(part) for part in self.parts)
        return f" {self.operator} ".join(parts)

    def is_allowed(self, allowed: Set[str]) -> bool:
        if self.operator:
            held = (part.is_allowed(allowed) for part in self.parts)
            return all(held) if self.operator == "AND" else any(held)
        return self.name.lower().removesuffix("+") in allowed


def normalised(expression: str) -> str | None:
    """Return an SPDX expression in its one form, or None for what is none, says nothing or is too long.

    Also read are `ALIASES`, Creative Commons names with spaces, and Cargo's "/" for OR.
    """
    node = _parsed(expression) if len(expression) <= MAX_EXPRESSION else None
    return None if node is None else str(node)


def is_allowed(expression: str, allowed: Set[str]) -> bool:
    """Whether the licences of an expression suffice: one side of an OR, both of an AND; exceptions only add rights.

    `allowed` holds identifiers in lower case. "+" (or later) allows what the version itself does.
    """
    node = _parsed(expression) if len(expression) <= MAX_EXPRESSION else None
    return node is not None and node.is_allowed(allowed)


def is_known(name: str) -> bool:
    """Whether an identifier, as the SPDX list writes it, is one of a licence that is known here."""
    return name.lower() in _CANONICAL


def canonical(name: str) -> str:
    """Return an identifier as the SPDX list writes it."""
    if gnu := _GNU.fullmatch(name):
        return f"{gnu[1].upper()}-{gnu[2]}-{'or-later' if gnu[3] else 'only'}"
    if common := _CREATIVE_COMMONS.fullmatch(name):
        country = f"-{common[3].upper()}" if common[3] else ""
        return f"CC-{common[1].upper().replace(' ', '-')}-{common[2]}{country}"
    plus = "+" if name.endswith("+") else ""
    return _CANONICAL.get(name.removesuffix("+").lower(), name.removesuffix("+")) + plus


@lru_cache(maxsize=4096)
def _parsed(expression: str) -> _Node | None:
    text = " ".join(expression.split())
    if alias := ALIASES.get(text.lower()):
        return _Node("", alias)
    if _CREATIVE_COMMONS.fullmatch(text):
        return _Node("", canonical(text))
    tokens, at = [], 0
    text = text.replace("/", " OR ")
    while at < len(text.rstrip()):
        token = _TOKEN.match(text, at)
        if token is None:
            return None
        tokens.append(token[1])
        at = token.end()
    try:
        node, rest = _either(tokens, 0, 0)
    except _NoExpressionError:
        return None
    return node if rest == len(tokens) and str(node).lower() not in _NOTHING else None


class _NoExpressionError(Exception):
    """The tokens are no SPDX expression."""


def _either(tokens: list[str], at: int, depth: int) -> tuple[_Node, int]:
    return _joined("OR", tokens, at, depth)


def _joined(operator: str, tokens: list[str], at: int, depth: int) -> tuple[_Node, int]:
    """Read what is joined by an operator; the parts of an OR are joined by AND, those of an AND are single."""
    parts: list[_Node] = []
    while True:
        part, at = _joined("AND", tokens, at, depth) if operator == "OR" else _single(tokens, at, depth)
        parts += part.parts if part.operator == operator else [part]
        if at >= len(tokens) or tokens[at].upper() != operator:
            return (parts[0] if len(parts) == 1 else _Node(operator, parts=tuple(parts))), at
        at += 1


def _single(tokens: list[str], at: int, depth: int) -> tuple[_Node, int]:
    if at >= len(tokens) or depth > MAX_DEPTH:
        raise _NoExpressionError
    token = tokens[at]
    if token == "(":
        node, at = _either(tokens, at + 1, depth + 1)
        if at >= len(tokens) or tokens[at] != ")":
            raise _NoExpressionError
        return node, at + 1
    if not _is_name(token):
        raise _NoExpressionError
    if at + 1 < len(tokens) and tokens[at + 1].upper() == "WITH":
        if at + 2 >= len(tokens) or not _is_name(tokens[at + 2]):
            raise _NoExpressionError
        return _Node("", canonical(token), tokens[at + 2]), at + 3
    return _Node("", canonical(token)), at + 1


def _is_name(token: str) -> bool:
    return token not in ("(", ")") and token.upper() not in ("AND", "OR", "WITH")
