"""The plan: a mixture solved into integers. What a run eats follows from this file and the shards that it names.

One JSON file of data only. Its fingerprint (BLAKE2b-128 of the canonical JSON of everything but the name and the
paths) names the run's data: a copy elsewhere, or with other file names, is the same plan. The format is wider than what
today's planner fills: several phases, accounts that do not start at zero, and a parent that a plan continues.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from mixtures.errors import PlanError
from mixtures.holdout import Validation
from tokenizer.encodings import ENCODINGS, Encoding
from tokenizer.manifest import Manifest, Tokenizer
from tokenizer.strict_json import canonical, parse, read, refuse, take

FORMAT = "headrace-plan"
VERSION = 1

MAX_SEQUENCES = 1 << 48
"""Of a source in a phase; 13T tokens are 1.6 x 10**9 sequences of 8,192."""

Cut = Literal["long", "never"]
"""What becomes of a document longer than a sequence: cut into full ones and a rest, or left out of that phase."""


@dataclasses.dataclass(frozen=True, slots=True)
class Parent:
    """The plan that this one continues, and the sequences of it that had been consumed."""

    fingerprint: str
    sequences: int


@dataclasses.dataclass(frozen=True, slots=True)
class Windows:
    """Documents packed together (about), and windows whose sequences are shuffled together."""

    documents: int
    group: int


@dataclasses.dataclass(frozen=True, slots=True)
class ManifestReference:
    """A manifest: where it lies (relative to the plan), what it is, and how much it holds."""

    path: str
    source: str
    partition: dict[str, str | None]
    content_hash: str
    ledger: str
    """sha256 of the ledger that the manifest names."""
    documents: int
    tokens: int


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedSource:
    """A source of the mixture. `reserved`: tokens kept free for each document (0; 3 for fill-in-the-middle)."""

    class_name: str
    cut: Cut
    reserved: int
    manifests: tuple[ManifestReference, ...]

    @property
    def documents(self) -> int:
        """Documents of all manifests."""
        return sum(manifest.documents for manifest in self.manifests)

    @property
    def tokens(self) -> int:
        """Tokens of all manifests."""
        return sum(manifest.tokens for manifest in self.manifests)


@dataclasses.dataclass(frozen=True, slots=True)
class Packed:
    """Documents packed once. `targets`: tokens that labels ask for; `cut`: documents over several sequences."""

    documents: int
    tokens: int
    targets: int
    cut: int
    sequences: int


@dataclasses.dataclass(frozen=True, slots=True)
class Dropped:
    """What left a phase for a reason."""

    documents: int
    tokens: int


@dataclasses.dataclass(frozen=True, slots=True)
class PackReference:
    """A pack index: where it lies (relative to the plan) and its hash."""

    path: str
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """How much of a source had been given before: whole epochs, and sequences of the current epoch's order."""

    epochs: int
    sequences: int


@dataclasses.dataclass(frozen=True, slots=True)
class PhaseSource:
    """A source in a phase. In documents and tokens: all manifests = `unique` + `held_out` + `dropped`.

    `epochs` (numerator, denominator) were asked for; `sequences` are given, from `start` on.
    """

    epochs: tuple[int, int]
    start: Account
    sequences: int
    unique: Packed
    held_out: Packed
    dropped: dict[str, Dropped]
    packs: tuple[PackReference, ...]

    @property
    def whole(self) -> int | None:
        """The number of epochs where it is whole; None for a fraction, whose documents are not counted here."""
        return self.epochs[0] if self.epochs[1] == 1 else None

    def planned(self, count: str) -> int:
        """Return documents, tokens or targets given: exact for whole epochs, else in proportion to the sequences."""
        if not self.unique.sequences:
            return 0
        return int(getattr(self.unique, count)) * self.sequences // self.unique.sequences


@dataclasses.dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the run: sequences of one length, `global_batch` of them a step."""

    length: int
    global_batch: int
    sequences: int
    steps: int
    sources: dict[str, PhaseSource]

    def __post_init__(self) -> None:
        """Bring the sources into the order of their names, which is theirs in the file: ties go by it."""
        object.__setattr__(self, "sources", dict(sorted(self.sources.items())))

    @property
    def padding(self) -> int:
        """Tokens of padding inside the sequences that are planned (exact for whole epochs)."""
        given = sum(source.planned("tokens") for source in self.sources.values())
        return self.sequences * self.length - given


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """See the module docstring."""

    name: str
    seed: int
    parent: Parent | None
    tokenizer: Tokenizer
    validation: Validation | None
    windows: Windows
    sources: dict[str, PlannedSource]
    phases: tuple[Phase, ...]
    path: Path | None = dataclasses.field(default=None, compare=False)
    """Where it was loaded from; not part of the data."""

    def __post_init__(self) -> None:
        """Bring the sources into the order of their names, which is theirs in the file: ties go by it."""
        object.__setattr__(self, "sources", dict(sorted(self.sources.items())))

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read and check a plan; `JsonError` names the file, the key and the value that is wrong."""
        data = read(path)
        take(data, str(path), format=FORMAT, version=VERSION)
        fingerprint = data.pop("fingerprint", None)
        parsed: Plan = parse(cls, data, str(path))
        plan = dataclasses.replace(parsed, path=path)
        check_plan(plan, str(path))
        if fingerprint != plan.fingerprint:
            refuse(str(path), "fingerprint", fingerprint, plan.fingerprint)
        return plan

    @property
    def encoding(self) -> Encoding:
        """The encoding that the tokenizer names."""
        return ENCODINGS[self.tokenizer.name]

    @property
    def fingerprint(self) -> str:
        """The name of the run's data, 32 hex digits (see the module docstring)."""
        identity = self._data()
        del identity["name"]
        for source in identity["sources"].values():
            for manifest in source["manifests"]:
                del manifest["path"]
        for phase in identity["phases"]:
            for source in phase["sources"].values():
                for pack in source["packs"]:
                    del pack["path"]
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def sequences(self) -> int:
        """Sequences of all phases."""
        return sum(phase.sequences for phase in self.phases)

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def to_json(self) -> str:
        """Return the canonical text of the plan."""
        return canonical(self._data() | {"format": FORMAT, "version": VERSION, "fingerprint": self.fingerprint})

    def file(self, relative: str) -> Path:
        """Return where a file that the plan names lies."""
        if self.path is None:
            raise PlanError(f"plan {self.name}: was not loaded from a file, what it names has no place")
        return self.path.parent / relative

    def open_manifest(self, reference: ManifestReference) -> Manifest:
        """Load a manifest that the plan names; `PlanError` unless it is the one that the plan was made of."""
        manifest = Manifest.load(self.file(reference.path))
        found = (manifest.source, manifest.partition, manifest.content_hash, manifest.ledger.sha256)
        expected = (reference.source, reference.partition, reference.content_hash, reference.ledger)
        names = ("source", "partition", "content_hash", "ledger.sha256")
        for name, ours, theirs in zip(names, found, expected, strict=True):
            if ours != theirs:
                raise PlanError(
                    f"{manifest.path}: {name} is {ours!r:.200}, the plan {self.path} names {theirs!r:.200}\n"
                    "hint: bring back the shards that the plan was made of, or make the plan anew with `headrace mix`"
                )
        return manifest

    def _data(self) -> dict[str, Any]:
        data = dataclasses.asdict(self)
        del data["path"]
        return data


def planned_sequences(epochs: Fraction, unique: int) -> int:
    """Return the sequences of this many epochs of `unique` sequences, exact to one: the nearest, a half goes up."""
    return (2 * epochs.numerator * unique + epochs.denominator) // (2 * epochs.denominator)


def check_plan(plan: Plan, file: str) -> None:
    """Refuse a plan whose values contradict each other or this program: `JsonError`."""
    if plan.seed >= 1 << 64:
        refuse(file, "seed", plan.seed, "an integer below 2**64")
    if plan.parent is not None and not re.fullmatch("[0-9a-f]{32}", plan.parent.fingerprint):
        refuse(file, "parent.fingerprint", plan.parent.fingerprint, "32 hex digits")
    if plan.tokenizer.name not in ENCODINGS or plan.tokenizer != Tokenizer.of(ENCODINGS[plan.tokenizer.name]):
        refuse(file, "tokenizer", plan.tokenizer, "a tokenizer of this program, with its own hash and ids")
    if not plan.phases:
        refuse(file, "phases", plan.phases, "at least one phase")
    if plan.windows.documents < 1 or plan.windows.group < 1:
        refuse(file, "windows", plan.windows, "at least one document and one window a group")
    for name, source in plan.sources.items():
        for place, manifest in enumerate(source.manifests):
            _check_path(manifest.path, file, f"sources.{name}.manifests[{place}].path")
    for place, phase in enumerate(plan.phases):
        _check_phase(plan, phase, file, f"phases[{place}]")


def _check_path(path: str, file: str, key: str) -> None:
    if not PurePosixPath(path).name or PurePosixPath(path).is_absolute() or "\\" in path:
        refuse(file, key, path, "a path relative to the plan")


def _check_phase(plan: Plan, phase: Phase, file: str, key: str) -> None:
    if not 2 <= phase.length < 1 << 31 or not 1 <= phase.global_batch < 1 << 31:
        refuse(file, f"{key}.length, global_batch", (phase.length, phase.global_batch), "at least 2 tokens, 1 sequence")
    if phase.sources.keys() != plan.sources.keys():
        refuse(file, f"{key}.sources", sorted(phase.sources), f"the sources {sorted(plan.sources)}")
    total = sum(source.sequences for source in phase.sources.values())
    if phase.sequences != total:
        refuse(file, f"{key}.sequences", phase.sequences, f"the sum over the sources, {total}")
    if phase.steps != -(-total // phase.global_batch):
        refuse(file, f"{key}.steps", phase.steps, -(-total // phase.global_batch))
    for name, source in phase.sources.items():
        _check_phase_source(plan.sources[name], source, file, f"{key}.sources.{name}")
        expected = planned_sequences(Fraction(*source.epochs), source.unique.sequences)
        if len(plan.phases) == 1 and plan.parent is None and source.sequences != expected:
            refuse(file, f"{key}.sources.{name}.sequences", source.sequences, f"epochs of the unique ones, {expected}")


def _check_phase_source(planned: PlannedSource, source: PhaseSource, file: str, key: str) -> None:
    if len(source.packs) != len(planned.manifests):
        refuse(file, f"{key}.packs", len(source.packs), f"one for each of {len(planned.manifests)} manifests")
    for place, pack in enumerate(source.packs):
        _check_path(pack.path, file, f"{key}.packs[{place}].path")
    if source.sequences >= MAX_SEQUENCES or source.start.epochs >= MAX_SEQUENCES:
        refuse(file, f"{key}.sequences", source.sequences, f"fewer than {MAX_SEQUENCES}")
    if source.start.sequences >= max(1, source.unique.sequences):
        refuse(file, f"{key}.start.sequences", source.start.sequences, "fewer than an epoch has")
    if source.epochs[1] < 1:
        refuse(file, f"{key}.epochs", source.epochs, "a fraction")
    for count in ("documents", "tokens"):
        parts = [source.unique, source.held_out, *source.dropped.values()]
        total = sum(getattr(part, count) for part in parts)
        if total != getattr(planned, count):
            refuse(file, f"{key}: {count} of unique, held_out and dropped", total, getattr(planned, count))
