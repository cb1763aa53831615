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
import types
import typing
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from tokenizer.encodings import ENCODINGS, Encoding, Roles
from tokenizer.shards import SUFFIXES, FileSummary, Shard, ShardSummary

FORMAT = "headrace-tokens"
VERSION = 1

MAX_MANIFEST_BYTES = 1 << 30
"""A file larger than this is no manifest: a shard takes less than a kilobyte."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DOC_ID = re.compile(r"[0-9a-f]{32}")
_FINGERPRINT = re.compile(r"[0-9a-f]{8,}")
_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")


class ManifestError(ValueError):
    """A manifest that is damaged, contradicts itself, or was made with another tokenizer."""


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
        """Make a manifest of these shards, in their order, and sum them up; `ManifestError` if it would not load."""
        manifest = cls(source, partition, Tokenizer.of(encoding), _sum(shards), ledger, recipe, tuple(shards))
        _check(manifest, f"manifest of {source}")
        return manifest

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read and check a manifest; `ManifestError` names the file, the key and the value that is wrong."""
        data = _read_json(path)
        if not isinstance(data, dict):
            _refuse(str(path), "top level", data, "an object", "this is no manifest")
        for key, expected in (("format", FORMAT), ("version", VERSION)):
            found = data.pop(key, None)
            if found != expected:
                _refuse(str(path), key, found, repr(expected), "name a manifest that this program made")
        content_hash = data.pop("content_hash", None)
        parsed: Manifest = _parse(cls, data, str(path), "")
        manifest = dataclasses.replace(parsed, path=path)
        _check(manifest, str(path))
        if content_hash != manifest.content_hash:
            _refuse(str(path), "content_hash", content_hash, manifest.content_hash, "the file was altered")
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
        return json.dumps(data, sort_keys=True, indent=2) + "\n"

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


def _read_json(path: Path) -> Any:
    """Read a JSON file without floats and without repeated keys."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{path}: larger than {MAX_MANIFEST_BYTES} bytes, no manifest")
    try:
        return json.loads(content, parse_float=_no_float, parse_constant=_no_float, object_pairs_hook=_distinct)
    except _Unfit as error:
        raise ManifestError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: is not JSON ({error})") from error


class _Unfit(Exception):
    """JSON that no manifest contains."""


def _no_float(text: str) -> NoReturn:
    raise _Unfit(f"holds the number {text}, integers are allowed")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise _Unfit(f"holds a key twice among {sorted(key for key, _ in pairs)}")
    return keys


def _refuse(file: str, key: str, found: object, expected: object, remedy: str) -> NoReturn:
    raise ManifestError(f"{file}: {key}: is {found!r:.200}, expected {expected}\nhint: {remedy}")


def _parse(kind: Any, value: Any, file: str, key: str) -> Any:
    """Turn JSON into a value of `kind`, a type of the dataclasses above; `ManifestError` names the key."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, file, key)
    if origin is tuple and isinstance(value, list):
        return tuple(_parse(arguments[0], item, file, f"{key}[{place}]") for place, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {name: _parse(arguments[1], item, file, f"{key}.{name}") for name, item in value.items()}
    if origin is types.UnionType:
        return None if value is None else _parse(arguments[0], value, file, key)
    if kind is int and type(value) is int and value >= 0:
        return value
    if kind is str and isinstance(value, str):
        return value
    _refuse(file, key, value, getattr(kind, "__name__", kind), "the file was altered or made by another version")


def _parse_dataclass(kind: Any, value: Any, file: str, key: str) -> Any:
    hints = {name: hint for name, hint in typing.get_type_hints(kind).items() if hint != Path | None}
    remedy = "the file was altered or made by another version"
    if not isinstance(value, dict) or value.keys() != hints.keys():
        found = sorted(value) if isinstance(value, dict) else value
        _refuse(file, key or "top level", found, f"the keys {sorted(hints)}", remedy)
    inside = f"{key}." if key else ""
    return kind(**{name: _parse(hint, value[name], file, inside + name) for name, hint in hints.items()})


def _check(manifest: Manifest, file: str) -> None:
    """Refuse a manifest whose values contradict each other or this program; `file` is for the message."""
    _check_tokenizer(manifest.tokenizer, file)
    altered = "the file was altered"
    if not manifest.source:
        _refuse(file, "source", manifest.source, "a name", altered)
    if not _FINGERPRINT.fullmatch(manifest.recipe):
        _refuse(file, "recipe", manifest.recipe, "a fingerprint in hexadecimal", altered)
    ledger = PurePosixPath(manifest.ledger.path)
    if not ledger.name or ledger.is_absolute() or "\\" in manifest.ledger.path:
        _refuse(file, "ledger.path", manifest.ledger.path, "a path relative to the manifest", altered)
    if not _SHA256.fullmatch(manifest.ledger.sha256):
        _refuse(file, "ledger.sha256", manifest.ledger.sha256, "a sha256", altered)
    for place, shard in enumerate(manifest.shards):
        _check_shard(shard, file, f"shards[{place}]")
    names = [shard.name for shard in manifest.shards]
    if len(set(names)) != len(names):
        _refuse(file, "shards", names, "distinct names", altered)
    ends = [end for shard in manifest.shards if shard.documents for end in (shard.first_doc_id, shard.last_doc_id)]
    if any(last >= first for last, first in zip(ends[1::2], ends[2::2], strict=False)):  # type: ignore[operator]
        _refuse(file, "shards", names, "shards in ascending order of doc_id", altered)
    sums = _sum(manifest.shards)
    if manifest.totals != sums:
        _refuse(file, "totals", manifest.totals, f"the sum over the shards, {sums}", altered)


def _check_tokenizer(tokenizer: Tokenizer, file: str) -> None:
    if tokenizer.name not in ENCODINGS:
        _refuse(file, "tokenizer.name", tokenizer.name, f"one of {', '.join(ENCODINGS)}", "use a program that has it")
    ours = Tokenizer.of(ENCODINGS[tokenizer.name])
    for field in dataclasses.fields(Tokenizer):
        found, expected = getattr(tokenizer, field.name), getattr(ours, field.name)
        if found != expected:
            _refuse(file, f"tokenizer.{field.name}", found, expected, "encode the source again with this tokenizer")


def _check_shard(shard: ShardEntry, file: str, key: str) -> None:
    altered = "the file was altered"
    if not _SHARD_NAME.fullmatch(shard.name):
        _refuse(file, f"{key}.name", shard.name, "a plain file name", altered)
    for name in SUFFIXES:
        sha256 = getattr(shard.files, name).sha256
        if not _SHA256.fullmatch(sha256):
            _refuse(file, f"{key}.files.{name}.sha256", sha256, "a sha256", altered)
    if not (shard.documents <= shard.tokens and shard.loss_tokens <= shard.tokens):
        _refuse(file, f"{key}.tokens", shard.tokens, "at least its documents and its loss_tokens", altered)
    ends = (shard.first_doc_id, shard.last_doc_id)
    sound = all(end is not None and _DOC_ID.fullmatch(end) for end in ends) if shard.documents else ends == (None, None)
    if not sound or (shard.documents and ends[0] > ends[1]):  # type: ignore[operator]
        _refuse(file, f"{key}.first_doc_id, last_doc_id", ends, "the ends of its documents, null if none", altered)
