"""The planner: a mixture, and what its manifests hold, solved into a plan of exact integers.

It refuses what cannot be: other tokenizers, manifests of one output that name another ledger, a source that gives
nothing. Sequences come from the pack indexes, epochs from the mixture; a fraction of an epoch is rounded to a sequence.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path, PurePosixPath

from mixtures.errors import MixtureError
from mixtures.holdout import Validation
from mixtures.mixture import Mixture, MixtureSource, exact
from mixtures.pack_index import TOO_LONG, PackIndex, PackKey, build_pack_indexes
from mixtures.plan import (
    FORMAT,
    Account,
    Dropped,
    ManifestReference,
    Packed,
    PackReference,
    Phase,
    PhaseSource,
    Plan,
    PlannedSource,
    Windows,
    check_plan,
    planned_sequences,
)
from tokenizer.errors import visible
from tokenizer.manifest import Manifest, Tokenizer
from tokenizer.strict_json import JsonError, read
from tokenizer.whole_file import whole_file

PACKS = "packs"
"""The folder of pack indexes beside a plan."""

RESERVED = 0
"""Tokens kept free for each document: none, as no source is rearranged for fill-in-the-middle."""


def plan_mixture(mixture: Mixture, output: Path, workers: int, report: Callable[[str, int, int], None]) -> Plan:
    """Solve a mixture into the plan that will lie at `output`, making the pack indexes that are missing beside it.

    `report` is told what is worked on, finished units and their number. Raises `MixtureError`, and `JsonError` for a
    manifest that is none.
    """
    manifests = {
        name: sorted((Manifest.load(path) for path in source.manifests), key=_identity)
        for name, source in mixture.sources.items()
    }
    _check_distinct(mixture, manifests)
    tokenizer = _common_tokenizer(mixture, manifests)
    for source in manifests.values():
        for manifest in source:
            _check_ledger(manifest, output)
    sources = {
        name: PlannedSource(
            source.class_name,
            mixture.classes[source.class_name].cut,
            RESERVED,
            tuple(_reference(manifest, output) for manifest in manifests[name]),
        )
        for name, source in mixture.sources.items()
    }
    phase = _phase(mixture, sources, manifests, output, workers, report)
    return Plan(
        name=mixture.name,
        seed=mixture.seed,
        parent=None,
        tokenizer=tokenizer,
        validation=mixture.validation,
        windows=mixture.windows,
        sources=sources,
        phases=(phase,),
        path=output,
    )


def _identity(manifest: Manifest) -> tuple[str, str, str]:
    """What a manifest is, wherever it lies: their order in a plan."""
    return manifest.source, json.dumps(manifest.partition, sort_keys=True), manifest.content_hash


def _check_distinct(mixture: Mixture, manifests: dict[str, list[Manifest]]) -> None:
    """Refuse token shards that stand twice, under whatever paths: their documents would be given twice."""
    seen: dict[tuple[str, str, str], Manifest] = {}
    for name, source in manifests.items():
        for manifest in source:
            first = seen.setdefault(_identity(manifest), manifest)
            if first is not manifest and manifest.totals.documents:
                raise MixtureError(
                    f"{mixture.path}: sources.{name}.manifests: {manifest.path} lists the same shards as {first.path}\n"
                    "hint: name them once; more epochs are asked for by the class"
                )


def _common_tokenizer(mixture: Mixture, manifests: dict[str, list[Manifest]]) -> Tokenizer:
    found = {manifest.tokenizer: manifest.path for source in manifests.values() for manifest in source}
    if len(found) > 1:
        names = ", ".join(f"{tokenizer.name} in {path}" for tokenizer, path in found.items())
        raise MixtureError(
            f"{mixture.path}: sources have {len(found)} tokenizers: {names}\n"
            "hint: run the recipe of the odd one again with the same `tokenizer: {encoding: ...}`"
        )
    return next(iter(found))


def ledger_of(manifest: Manifest) -> Path:
    """Return where the ledger of a loaded manifest lies."""
    assert manifest.path is not None, "the manifest was loaded from a file"
    return Path(os.path.normpath(manifest.path.parent / PurePosixPath(manifest.ledger.path)))


def _check_ledger(manifest: Manifest, output: Path) -> None:
    """Refuse a manifest beside another run's ledger, and a plan inside of a run's output folder."""
    ledger = ledger_of(manifest)
    try:
        with ledger.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MixtureError(
            f"{ledger}: {error.strerror}; {manifest.path} names it\n"
            "hint: keep a run's ledger.parquet with its token shards, copy both"
        ) from error
    if found != manifest.ledger.sha256:
        raise MixtureError(
            f"{ledger}: has the hash {found}, {manifest.path} names {manifest.ledger.sha256}: it is another run's\n"
            "hint: bring back the ledger or the shards of that run, or run its recipe again"
        )
    if output.absolute().resolve().is_relative_to(ledger.parent.resolve()):
        raise MixtureError(
            f"{output}: lies inside of the run {ledger.parent}, whose folder holds nothing but the run\n"
            "hint: put the plan beside it"
        )


def _reference(manifest: Manifest, output: Path) -> ManifestReference:
    assert manifest.path is not None, "the manifest was loaded from a file"
    path = Path(os.path.relpath(manifest.path.absolute(), output.absolute().parent)).as_posix()
    totals = manifest.totals
    return ManifestReference(
        path,
        manifest.source,
        manifest.partition,
        manifest.content_hash,
        manifest.ledger.sha256,
        totals.documents,
        totals.tokens,
    )


def pack_key(
    source: PlannedSource, manifest: ManifestReference, length: int, windows: Windows, validation: Validation | None
) -> PackKey:
    """Return the name of a planned manifest's pack index at a length."""
    identity = (manifest.source, manifest.partition, manifest.content_hash)
    return PackKey(*identity, length, source.reserved, source.cut, windows.documents, validation)


def _phase(
    mixture: Mixture,
    sources: dict[str, PlannedSource],
    manifests: dict[str, list[Manifest]],
    output: Path,
    workers: int,
    report: Callable[[str, int, int], None],
) -> Phase:
    length, global_batch = mixture.phase.length, mixture.phase.global_batch
    planned: dict[str, PhaseSource] = {}
    for name, source in sources.items():
        jobs = [
            (manifest.path, pack_key(source, reference, length, mixture.windows, mixture.validation))
            for manifest, reference in zip(manifests[name], source.manifests, strict=True)
            if manifest.path is not None
        ]
        told = partial(report, visible(f"pack {name} at {length:,}"))
        indexes = build_pack_indexes(jobs, output.parent / PACKS, workers, told)
        planned[name] = _phase_source(mixture, name, mixture.sources[name], indexes)
    sequences = sum(source.sequences for source in planned.values())
    return Phase(length, global_batch, sequences, -(-sequences // global_batch), planned)


def _phase_source(mixture: Mixture, name: str, source: MixtureSource, indexes: list[PackIndex]) -> PhaseSource:
    epochs = exact(mixture.classes[source.class_name].epochs)
    unique, held_out = _sum([index.unique for index in indexes]), _sum([index.held_out for index in indexes])
    too_long = Dropped(*(sum(getattr(index.too_long, count) for index in indexes) for count in ("documents", "tokens")))
    sequences = planned_sequences(epochs, unique.sequences)
    if not sequences:
        raise MixtureError(_nothing(mixture, name, epochs, unique, held_out, too_long))
    return PhaseSource(
        epochs=(epochs.numerator, epochs.denominator),
        start=Account(0, 0),
        sequences=sequences,
        unique=unique,
        held_out=held_out,
        dropped={TOO_LONG: too_long} if too_long.documents else {},
        packs=tuple(PackReference(f"{PACKS}/{index.path.name}", index.sha256) for index in indexes),
    )


def _sum(parts: list[Packed]) -> Packed:
    names = [field.name for field in dataclasses.fields(Packed)]
    return Packed(*(sum(getattr(part, name) for part in parts) for name in names))


def _nothing(mixture: Mixture, name: str, epochs: Fraction, unique: Packed, held_out: Packed, too_long: Dropped) -> str:
    found = f"{unique.documents:,} documents in {unique.sequences:,} sequences, {held_out.documents:,} held out"
    if not unique.sequences:
        remedy = "leave the source out, hold out less, or take longer sequences"
    else:
        remedy = f"epochs from 1/{2 * unique.sequences} on give a sequence"
    return (
        f"{mixture.path}: sources.{name}: {epochs} epochs of {found}, {too_long.documents:,} longer than "
        f"{mixture.phase.length:,} tokens: that gives no sequence\nhint: {remedy}"
    )


def _check_replaceable(path: Path) -> None:
    """Refuse to write over a file that is no plan."""
    if path.exists():
        try:
            found = read(path).get("format")
        except JsonError:
            found = None
        if found != FORMAT:
            raise MixtureError(f"{path}: is there and is no plan\nhint: name another --output, or remove it")


def write_plan(plan: Plan) -> None:
    """Write a plan to its path: it is there whole or not at all."""
    assert plan.path is not None, "the planner says where the plan lies"
    check_plan(plan, str(plan.path))
    _check_replaceable(plan.path)
    try:
        with whole_file(plan.path) as attempt:
            attempt.write_text(plan.to_json(), encoding="ascii")
    except OSError as error:
        raise MixtureError(f"{plan.path}: {error.strerror}\nhint: free or name another place") from error
