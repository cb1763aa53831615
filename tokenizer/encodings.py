r"""The encodings: vocabulary, split pattern and special ids of cl100k_base and o200k_base, verified and offline.

Vocabulary bytes are read from the data files of the installed `bpe-openai` package (its code is never imported),
decompressed within a bound and checked against the sha256 pinned here, before either library sees them. tiktoken and
gigatoken are both built from those bytes; nothing is ever fetched. Patterns and special ids are those of tiktoken's
own plugin `tiktoken_ext.openai_public` (a test compares them).

The role ids of a conversation lie behind the last special id and below the padded vocabulary size (a multiple of 128),
where the encoding has no token: text can never produce them.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import importlib.util
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import tiktoken

if TYPE_CHECKING:
    import gigatoken

MAX_VOCABULARY_BYTES = 16 << 20
"""No vocabulary file may decompress to more than this (o200k_base has 3.6 MB)."""


class TokenizerMismatch(ValueError):
    """A vocabulary file that is absent, or whose bytes are not the ones that this encoding is made of."""


class UnknownEncoding(ValueError):
    """A name that is no encoding of ours."""


@dataclasses.dataclass(frozen=True, slots=True)
class Roles:
    """The ids of the markers that begin a turn of each role, and of the one that ends every turn."""

    end_of_turn: int
    system: int
    user: int
    assistant: int
    tool: int


ROLE_NAMES = ("system", "user", "assistant", "tool")
"""The roles a turn may have."""


@dataclasses.dataclass(frozen=True, slots=True)
class Encoding:
    """What makes an encoding; the libraries' objects for it come from `build_tiktoken` and `build_gigatoken`."""

    name: str
    sha256: str
    """Of the uncompressed `.tiktoken` vocabulary file."""
    ordinary: int
    """Ids from 0 up to here are byte strings that text can produce."""
    specials: tuple[tuple[str, int], ...]
    """The encoding's own special tokens."""
    end_of_text: int
    vocabulary: int
    """The padded size: every id on disk is below it."""
    roles: Roles
    pattern: str
    """tiktoken's split pattern."""
    gigatoken_scheme: str
    """gigatoken's name for the same pattern."""
    joins_trailing_whitespace: bool
    r"""Whether whitespace at the end of a text is one piece even across newlines (the pattern's `\s++$`)."""

    def role_ids(self) -> tuple[int, ...]:
        """Return the marker ids in the order of `ROLE_NAMES`."""
        return tuple(getattr(self.roles, name) for name in ROLE_NAMES)


CL100K_BASE = Encoding(
    name="cl100k_base",
    sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ordinary=100_256,
    specials=(
        ("<|endoftext|>", 100_257),
        ("<|fim_prefix|>", 100_258),
        ("<|fim_middle|>", 100_259),
        ("<|fim_suffix|>", 100_260),
        ("<|endofprompt|>", 100_276),
    ),
    end_of_text=100_257,
    vocabulary=100_352,
    roles=Roles(end_of_turn=100_277, system=100_278, user=100_279, assistant=100_280, tool=100_281),
    pattern=(
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    gigatoken_scheme="gpt4",
    joins_trailing_whitespace=True,
)

_O200K_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"

O200K_BASE = Encoding(
    name="o200k_base",
    sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ordinary=199_998,
    specials=(("<|endoftext|>", 199_999), ("<|endofprompt|>", 200_018)),
    end_of_text=199_999,
    vocabulary=200_064,
    roles=Roles(end_of_turn=200_019, system=200_020, user=200_021, assistant=200_022, tool=200_023),
    pattern="|".join(
        [
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _O200K_CONTRACTION,
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _O200K_CONTRACTION,
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        ]
    ),
    gigatoken_scheme="o200k",
    joins_trailing_whitespace=False,
)

ENCODINGS = {encoding.name: encoding for encoding in (CL100K_BASE, O200K_BASE)}


def encoding_named(name: str) -> Encoding:
    """Return the encoding of this name, or raise `UnknownEncoding` with the names there are."""
    if name not in ENCODINGS:
        raise UnknownEncoding(f"tokenizer {name!r}: no such encoding\nhint: use one of {', '.join(ENCODINGS)}")
    return ENCODINGS[name]


def vocabulary_file(encoding: Encoding) -> Path:
    """Return where the installed package keeps the encoding's compressed vocabulary, without importing the package."""
    spec = importlib.util.find_spec("bpe_openai")
    if spec is None or not spec.submodule_search_locations:
        raise TokenizerMismatch(f"{encoding.name}: its vocabulary is missing\nhint: install the package bpe-openai")
    return Path(spec.submodule_search_locations[0], "data", f"{encoding.name}.tiktoken.gz")


@functools.cache
def vocabulary_bytes(encoding: Encoding) -> bytes:
    """Return the verified bytes of the encoding's `.tiktoken` file; read once in a process."""
    return read_vocabulary(vocabulary_file(encoding), encoding.sha256)


def read_vocabulary(file: Path, sha256: str) -> bytes:
    """Decompress a gzip file, up to `MAX_VOCABULARY_BYTES`, and check its hash; `TokenizerMismatch` if it differs."""
    hint = "hint: reinstall the package bpe-openai"
    try:
        decompressor = zlib.decompressobj(wbits=31)
        content = decompressor.decompress(file.read_bytes(), MAX_VOCABULARY_BYTES)
    except (OSError, zlib.error) as error:
        raise TokenizerMismatch(f"{file}: cannot be read ({error})\n{hint}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256 or not decompressor.eof:
        raise TokenizerMismatch(f"{file}: sha256 {found}, expected {sha256}\n{hint}")
    return content


def _ranks(encoding: Encoding) -> dict[bytes, int]:
    """Parse the vocabulary: one line per token, its bytes in base64 and its rank, which is its id."""
    lines = (line.split() for line in vocabulary_bytes(encoding).splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


@functools.cache
def build_tiktoken(encoding: Encoding) -> tiktoken.Encoding:
    """Return tiktoken's object for the encoding; built once in a process (0.15 to 0.3 s)."""
    return tiktoken.Encoding(
        encoding.name,
        pat_str=encoding.pattern,
        mergeable_ranks=_ranks(encoding),
        special_tokens=dict(encoding.specials),
    )


@functools.cache
def build_tiktoken_whole(encoding: Encoding) -> tiktoken.Encoding:
    """Return a tiktoken object that takes every text as one piece: the byte pair encoding without the pattern."""
    return tiktoken.Encoding(
        f"{encoding.name} whole", pat_str=r"[\s\S]+", mergeable_ranks=_ranks(encoding), special_tokens={}
    )


def build_gigatoken(encoding: Encoding) -> gigatoken.Tokenizer:
    """Return a new gigatoken object for the encoding, without special tokens (0.13 to 0.37 s).

    The library reads its vocabulary from a file only: it gets a private one that lives for this call, so that
    processes share nothing and nobody can alter what was verified.
    """
    import gigatoken  # here, for it and awkward take 0.4 s to import, and tiktoken alone may be wanted

    with tempfile.TemporaryDirectory(prefix="headrace-vocabulary-") as folder:
        file = Path(folder, f"{encoding.name}.tiktoken")
        file.write_bytes(vocabulary_bytes(encoding))
        return gigatoken.Tokenizer.from_tiktoken(file, encoding.gigatoken_scheme, {})
