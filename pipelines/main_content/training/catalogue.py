"""What pages.yaml says: collections of pages, where they come from, and what a page of one is."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from pipelines.errors import HeadraceError

COLLECTIONS_FILE = Path(__file__).with_name("pages.yaml")

GATE, TRAIN, HALVES, REPORT = "gate", "train", "halves", "report"
"""Roles. `gate`: the pages that decide; they are read first, and no other collection may hold one of them. `halves`:
pages that become `train` (snippets choose the label) or `report` (snippets are for scores only), by their site."""

_LANGUAGE = re.compile(r"<html\b[^>]{0,2000}?\blang\s*=\s*[\"']?([A-Za-z]{2,3})\b", re.IGNORECASE)


class PagesError(HeadraceError):
    """A collection of pages that is not there, or not what pages.yaml says."""


@dataclasses.dataclass(frozen=True, slots=True)
class Package:
    """What is fetched: an archive of a registry with its hash, or a repository (`version` is its commit).

    `globs` choose the files that are unpacked.
    """

    registry: Literal["pypi", "npm", "debian", "github"]
    name: str
    version: str
    globs: tuple[str, ...]
    sha256: str | None = None

    @property
    def pin(self) -> str:
        """What fixes the bytes: the archive's sha256, or the commit."""
        return self.sha256 or self.version


@dataclasses.dataclass(frozen=True, slots=True)
class Collection:
    """One entry of pages.yaml, which documents the fields."""

    name: str
    about: str
    licence: str
    reader: str
    label: str
    role: str
    weight: float
    folder: str | None = None
    package: Package | None = None
    language: str | None = None

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> Collection:
        """Make a collection of one entry."""
        package = entry.get("package")
        parsed = Package(**{**package, "globs": tuple(package["globs"])}) if package else None
        return cls(**{**entry, "package": parsed})


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """One page: its markup decoded, and what is known of its main content (`gold` None: nothing)."""

    collection: str
    page_id: str
    site: str
    url: str | None
    language: str | None
    html: str
    gold: str | None
    gold_kind: str
    weight: float
    role: str
    snippets_with: tuple[str, ...] = ()
    snippets_without: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """Names the page among all collections."""
        return self.collection, self.page_id


def read_collections(file: Path = COLLECTIONS_FILE) -> list[Collection]:
    """Return the collections of pages.yaml in its order."""
    return [Collection.parse(entry) for entry in yaml.safe_load(file.read_text(encoding="utf-8"))]


def language_of(page: str) -> str | None:
    """Return the primary language subtag that the page's own `<html lang>` says, in lower case."""
    found = _LANGUAGE.search(page, 0, 20_000)
    return found[1].lower() if found else None
