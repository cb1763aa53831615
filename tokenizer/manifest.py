"""The manifest: the list of the token shards of one source (or of one partition of it), with counts and hashes.

One JSON file of data only: the same data gives the same bytes (sorted keys, two spaces, ASCII, a newline at the end).
Numbers are integers, hashes lower-case hexadecimal. `content_hash` is the sha256 of the canonical JSON of
`[tokenizer, [[sha256 of .bin, of .idx, of .docs.parquet] of every shard in order]]` without spaces: it names the
tokens, wherever they lie and whatever they are called.

A manifest is checked whole when it is loaded: keys, types, sums, names, and that its tokenizer is ours.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tokenizer.encodings import ENCODINGS, Encoding, Roles
from tokenizer.shards import SUFFIXES, FileSummary, Shard, ShardSummary
from tokenizer.strict_json import JsonError, canonical, parse, read, refuse, take

FORMAT = "headrace-tokens"
VERSION = 1

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DOC_ID = re.compile(r"[0-9a-f]{32}")
_FINGERPRINT = re.compile(r"[0-9a-f]{8,}")
_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")


class ManifestError(JsonError):
    """A manifest that contradicts itself or its shards, or was made with another tokenizer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tokenizer:
    """The tokenizer that made the ids; every value follows from the encoding's name."""

    name: str
    sha256: str
    vocabulary: int
    end_of_text: int
    roles: Roles
    dtype: str

    @classmethod
    def of(cls, encoding: Encoding) -> Tokenizer:
        """Describe an encoding."""
        ids = (encoding.vocabulary, encoding.end_of_text, encoding.roles)
        return cls(encoding.name, encoding.sha256, *ids, dtype="int32")


@dataclasses.dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the shards. `text_bytes` are UTF-8 bytes of the documents' texts."""

    shards: int
    documents: int
    tokens: int
    loss_tokens: int
    text_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class LedgerReference:
    """The source's ledger: its path relative to the manifest's folder, "/" separated, and its hash."""

    path: str
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True)
class ShardFiles:
    """The three files of a shard."""

    bin: FileSummary
    idx: FileSummary
    docs: FileSummary


@dataclasses.dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard: its plain name beside the manifest, and what it holds; doc ids are null in an empty shard."""

    name: str
    documents: int
    tokens: int
    loss_tokens: int
    text_bytes: int
    first_doc_id: str | None
    last_doc_id: str | None
    files: ShardFiles

    @classmethod
    def of(cls, name: str, summary: ShardSummary, text_bytes: int) -> ShardEntry:
        """Make the entry of a shard from what its writer returned."""
        first, last = (end.hex() if end is not None else None for end in (summary.first_doc_id, summary.last_doc_id))
        files = ShardFiles(summary.bin, summary.idx, summary.docs)
        counts = (summary.documents, summary.tokens, summary.loss_tokens, text_bytes)
        return cls(name, *counts, first, last, files)


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """See the module docstring. `partition` maps partition columns to values; `recipe` is a fingerprint in hex."""

    source: str
    partition: dict[str, str | None]
    tokenizer: Tokenizer
    totals: Totals
    ledger: LedgerReference
    recipe: str
    shards: tuple[ShardEntry, ...]
    path: Path | None = dataclasses.field(default=None, compare=False)
    """Where it was loaded from; not part of the data."""

    @classmethod
    def build(
        cls,
        source: str,
        partition: dict[str, str | None],
        encoding: Encoding,
        ledger: LedgerReference,
        recipe: str,
        shards: Sequence[ShardEntry],
    ) -> Manifest:
        """Make a manifest of these shards, in their order, and sum them up; `JsonError` if it would not load."""
        manifest = cls(source, partition, Tokenizer.of(encoding), _sum(shards), ledger, recipe, tuple(shards))
        _check(manifest, f"manifest of {source}")
        return manifest

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read and check a manifest; `JsonError` names the file, the key and the value that is wrong."""
        data = read(path)
        take(data, str(path), format=FORMAT, version=VERSION)
        content_hash = data.pop("content_hash", None)
        parsed: Manifest = parse(cls, data, str(path))
        manifest = dataclasses.replace(parsed, path=path)
        _check(manifest, str(path))
        if content_hash != manifest.content_hash:
            refuse(str(path), "content_hash", content_hash, manifest.content_hash, "the file was altered")
        return manifest

    @property
    def content_hash(self) -> str:
        """The name of the tokens (see the module docstring)."""
        files = [[shard.files.bin.sha256, shard.files.idx.sha256, shard.files.docs.sha256] for shard in self.shards]
        identity = [dataclasses.asdict(self.tokenizer), files]
        return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def encoding(self) -> Encoding:
        """The encoding that the tokenizer names."""
        return ENCODINGS[self.tokenizer.name]

    def to_json(self) -> str:
        """Return the canonical text of the manifest."""
        data = dataclasses.asdict(self)
        del data["path"]
        data |= {"format": FORMAT, "version": VERSION, "content_hash": self.content_hash}
        return canonical(data)

    def open_shard(self, index: int) -> Shard:
        """Open a shard of a loaded manifest; `ManifestError` unless its counts are those that the manifest names."""
        entry = self.shards[index]
        shard = Shard.open(self._folder() / entry.name, self.encoding)
        found = (len(shard), int(shard.offsets[-1]))
        if found != (entry.documents, entry.tokens):
            expected = (entry.documents, entry.tokens)
            raise ManifestError(f"{shard.prefix}: documents and tokens are {found}, the manifest says {expected}")
        return shard

    def verify_shard(self, index: int) -> None:
        """Read a shard whole; `ManifestError` or `ShardError` unless it is sound and just what the manifest says."""
        entry = self.shards[index]
        found = ShardEntry.of(entry.name, self.open_shard(index).verify(), entry.text_bytes)
        if found != entry:
            raise ManifestError(f"{self._folder() / entry.name}: holds {found}, the manifest says {entry}")

    def _folder(self) -> Path:
        if self.path is None:
            raise ManifestError(f"manifest of {self.source}: was not loaded from a file, its shards have no place")
        return self.path.parent


def _sum(shards: Sequence[ShardEntry]) -> Totals:
    counts = ("documents", "tokens", "loss_tokens", "text_bytes")
    return Totals(len(shards), *(sum(getattr(shard, count) for shard in shards) for count in counts))


def _check(manifest: Manifest, file: str) -> None:
    """Refuse a manifest whose values contradict each other or this program; `file` is for the message."""
    _check_tokenizer(manifest.tokenizer, file)
    altered = "the file was altered"
    if not manifest.source:
        refuse(file, "source", manifest.source, "a name", altered)
    if not _FINGERPRINT.fullmatch(manifest.recipe):
        refuse(file, "recipe", manifest.recipe, "a fingerprint in hexadecimal", altered)
    ledger = PurePosixPath(manifest.ledger.path)
    if not ledger.name or ledger.is_absolute() or "\\" in manifest.ledger.path:
        refuse(file, "ledger.path", manifest.ledger.path, "a path relative to the manifest", altered)
    if not _SHA256.fullmatch(manifest.ledger.sha256):
        refuse(file, "ledger.sha256", manifest.ledger.sha256, "a sha256", altered)
    for place, shard in enumerate(manifest.shards):
        _check_shard(shard, file, f"shards[{place}]")
    names = [shard.name for shard in manifest.shards]
    if len(set(names)) != len(names):
        refuse(file, "shards", names, "distinct names", altered)
    ends = [end for shard in manifest.shards if shard.documents for end in (shard.first_doc_id, shard.last_doc_id)]
    if any(last >= first for last, first in zip(ends[1::2], ends[2::2], strict=False)):  # type: ignore[operator]
        refuse(file, "shards", names, "shards in ascending order of doc_id", altered)
    sums = _sum(manifest.shards)
    if manifest.totals != sums:
        refuse(file, "totals", manifest.totals, f"the sum over the shards, {sums}", altered)


def _check_tokenizer(tokenizer: Tokenizer, file: str) -> None:
    if tokenizer.name not in ENCODINGS:
        refuse(file, "tokenizer.name", tokenizer.name, f"one of {', '.join(ENCODINGS)}", "use a program that has it")
    ours = Tokenizer.of(ENCODINGS[tokenizer.name])
    for field in dataclasses.fields(Tokenizer):
        found, expected = getattr(tokenizer, field.name), getattr(ours, field.name)
        if found != expected:
            refuse(file, f"tokenizer.{field.name}", found, expected, "encode the source again with this tokenizer")


def _check_shard(shard: ShardEntry, file: str, key: str) -> None:
    altered = "the file was altered"
    if not _SHARD_NAME.fullmatch(shard.name):
        refuse(file, f"{key}.name", shard.name, "a plain file name", altered)
    for name in SUFFIXES:
        sha256 = getattr(shard.files, name).sha256
        if not _SHA256.fullmatch(sha256):
            refuse(file, f"{key}.files.{name}.sha256", sha256, "a sha256", altered)
    if not (shard.documents <= shard.tokens and shard.loss_tokens <= shard.tokens):
        refuse(file, f"{key}.tokens", shard.tokens, "at least its documents and its loss_tokens", altered)
    ends = (shard.first_doc_id, shard.last_doc_id)
    sound = all(end is not None and _DOC_ID.fullmatch(end) for end in ends) if shard.documents else ends == (None, None)
    if not sound or (shard.documents and ends[0] > ends[1]):  # type: ignore[operator]
        refuse(file, f"{key}.first_doc_id, last_doc_id", ends, "the ends of its documents, null if none", altered)
