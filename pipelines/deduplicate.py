"""What a recipe may say under `deduplicate:`, and the earlier runs that it may name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from pipelines.commit import read_commits
from pipelines.errors import RecipeError
from pipelines.near_duplicates.presets import PRESETS, Shape
from pipelines.storage.schemes import open_output
from pipelines.storage.storage import Storage
from pipelines.transforms.duplicate_lines import LineHashes
from pipelines.transforms.rank import WIDTHS, Preference
from pipelines.transforms.rules import RATIO
from pipelines.transforms.scope import Scope

URLS, TEXTS, LAST = "find-duplicate-urls", "find-duplicates", "tokenize"
"""Stages, without their numbers, that leave something for later runs: each about the documents that it kept."""
LEFT = ((URLS, "hashes"), (TEXTS, "hashes"), (LAST, "band_keys"), (LAST, "shingle_sets"))
"""The tables that they leave."""
COMPARED = ("exact", "normalised", "url", "near")
"""Settings that two runs must share where one looks for copies of the other's documents."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """Near-duplicates: how candidates are found, and how similar a document must be to a kept one to be removed."""

    preset: str | None = None
    """The name of a published shape (`near_duplicates/presets.py`), which becomes `shape`."""
    shape: Shape | None = None
    threshold: int = 8_000
    """Jaccard similarity of the sets of shingles, in 1/10,000."""
    scope: Scope = "all"

    def __post_init__(self) -> None:
        """Refuse what names no shape, or two."""
        if (self.preset is None) == (self.shape is None):
            raise ValueError(f"give either a preset ({', '.join(PRESETS)}) or a shape (bands, rows, unit, ngram)")
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(f"preset: found {self.preset!r}, allowed are {', '.join(PRESETS)}")
        if self.preset is not None:
            object.__setattr__(self, "shape", PRESETS[self.preset])
            object.__setattr__(self, "preset", None)
        if not 1 <= self.threshold <= RATIO:
            raise ValueError(f"threshold: found {self.threshold}, allowed are 1 to {RATIO}, in 1/{RATIO:,}")

    @property
    def minhash(self) -> Shape:
        """The shape of the signatures."""
        assert self.shape is not None
        return self.shape


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Passages:
    """Lines and paragraphs that many documents share: how many of equal ones stay (see `duplicate_lines.py`)."""

    lines: int | None = None
    paragraphs: int | None = None
    min_characters: int = 60
    """Shorter ones are left alone."""
    scope: Scope = "all"

    def __post_init__(self) -> None:
        """Refuse counts that would cut every line, or nothing at all."""
        self.step()

    def step(self) -> LineHashes:
        """Return the step that hashes them."""
        return LineHashes(self.lines, self.paragraphs, self.min_characters, self.scope)


@dataclasses.dataclass(frozen=True, slots=True)
class OlderRun:
    """A finished run whose kept documents win against those of this run: where it lies, and what it left."""

    address: str
    sha256: str
    """Of the hashes of the files that are read: what is in them counts, not where they lie."""
    generation: int
    stages: dict[str, str]
    """Whole names of the stages that are read, by the names without numbers."""
    rows: dict[str, int]
    """Of the tables that are read, by STAGE/TABLE with the stage's name without its number."""

    @classmethod
    def of(cls, address: str, settings: dict[str, Any]) -> OlderRun:
        """Look a run up.

        Raises `RecipeError` where it left nothing, is not whole, or was deduplicated by other `settings`.
        """
        storage = open_output(address)
        if not (storage.exists("run.json") and storage.exists("recipe.json")):
            raise RecipeError(f"{address}: holds no finished run\nhint: give the folder that `headrace run` wrote")
        try:
            return cls._of(address, storage, json.loads(storage.read("recipe.json")), settings)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise RecipeError(
                f"{address}/recipe.json: is no resolved recipe of this version ({type(error).__name__}: {error})\n"
                "hint: run its recipe anew with this version"
            ) from error

    @classmethod
    def _of(cls, address: str, storage: Storage, resolved: dict[str, Any], settings: dict[str, Any]) -> OlderRun:
        said = resolved.get("deduplicate") or {}
        if not said.get("for_later_runs"):
            raise RecipeError(
                f"{address}: left nothing for later runs\nhint: run its recipe anew with `for_later_runs: true`"
            )
        for name in COMPARED:
            if said[name] != settings[name]:
                raise RecipeError(
                    f"{address}: was made with deduplicate.{name} {json.dumps(said[name])}, here it is "
                    f"{json.dumps(settings[name])}\nhint: use the same settings, keys of others are not comparable"
                )
        stages = {name.partition("-")[2]: name for name in resolved["stages"]}
        stages = {name: stages[name] for name in (URLS, TEXTS, LAST) if name in stages}
        commits = {name: read_commits(storage, f"stages/{stage}").values() for name, stage in stages.items()}
        buckets = int(resolved["output"]["buckets"])
        for name, some in commits.items():
            if len(some) != buckets:  # what is not there would be missed by nobody
                raise RecipeError(
                    f"{address}/stages/{stages[name]}/commits: found {len(some)} commits of {buckets} buckets\n"
                    "hint: copy the folder whole, or run its recipe into it again: it makes what is missing"
                )
        files = {
            f"{name}/{table}": [file for commit in commits[name] for file in commit.files if file.table == table]
            for name, table in LEFT
            if name in stages
        }
        names = "\n".join(sorted(f"{table} {file.sha256}" for table, some in files.items() for file in some))
        rows = {table: sum(file.rows for file in some) for table, some in files.items()}
        return cls(address, hashlib.sha256(names.encode()).hexdigest(), int(said["generation"]), stages, rows)

    @property
    def storage(self) -> Storage:
        """Where it lies."""
        return open_output(self.address)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deduplicate:
    """Which documents are copies of each other, and which of them stays. At least one kind must be asked for."""

    exact: Scope | None = None
    """Documents with the same text, within this scope."""
    normalised: bool = False
    """Whether `exact` compares words alone, in lower case and without marks, and not bytes."""
    url: Scope | None = None
    """Documents with the same URL, within this scope."""
    near: Near | None = None
    passages: Passages | None = None
    """Lines and paragraphs, cut out of the documents that stay."""
    prefer: tuple[Preference, ...] = ("source", "quality", "length", "oldest")
    """What makes a document stay, the most important first; doc_id decides in the end."""
    older: tuple[OlderRun, ...] = ()
    """Finished runs whose kept documents stay, read only."""
    for_later_runs: bool = False
    """Whether hashes, band keys and shingle sets of kept documents are written, for `older` of another run."""
    expect_removed: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """By source, the least and the largest share of its documents that may be copies, in 1/10,000: else the run stops.
    It changes no byte of the output, and so is no part of the recipe's fingerprint."""

    def __post_init__(self) -> None:
        """Refuse settings that ask for nothing or that contradict each other."""
        if not any((self.exact, self.url, self.near, self.passages)):
            raise ValueError("asks for nothing: give exact, url, near or passages")
        if self.normalised and self.exact is None:
            raise ValueError("normalised: is about exact, which is not asked for: give exact its scope")
        if not self.prefer or len({word.replace("newest", "oldest") for word in self.prefer}) < len(self.prefer):
            raise ValueError(
                f"prefer: found {', '.join(self.prefer) or 'nothing'}, allowed are {', '.join(WIDTHS)}, each once, "
                "and one of oldest and newest"
            )
        for source, (least, most) in self.expect_removed.items():
            if not 0 <= least <= most <= RATIO:
                raise ValueError(
                    f"expect_removed.{source}: found {least} to {most}, allowed are 0 to {RATIO}, in 1/{RATIO:,}"
                )

    @property
    def generation(self) -> int:
        """0 without older runs, else one more than the largest of theirs."""
        return 1 + max((run.generation for run in self.older), default=-1)

    def resolved(self) -> dict[str, Any]:
        """Return what decides about the output, as plain data."""
        fields = dataclasses.asdict(self)
        del fields["expect_removed"]
        if self.near is not None:
            del fields["near"]["preset"]
        fields["prefer"] = list(self.prefer)
        fields["older"] = [{key: value for key, value in run.items() if key != "address"} for run in fields["older"]]
        return fields | {"generation": self.generation}
