"""The encodings are tiktoken's own: pattern, special ids, vocabulary bytes; role ids are free; nothing else loads."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import tiktoken_ext.openai_public as published

from tokenizer import encodings
from tokenizer.encodings import ENCODINGS, Encoding, TokenizerMismatch, UnknownEncoding, build_tiktoken, encoding_named

EVERY_ENCODING = pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS.keys())
SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


@EVERY_ENCODING
def test_pattern_specials_and_hash_are_the_published_ones(encoding: Encoding, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def ranks(url: str, expected_hash: str | None = None) -> dict[bytes, int]:
        asked.append(expected_hash)
        return {}

    monkeypatch.setattr(published, "load_tiktoken_bpe", ranks)
    theirs = getattr(published, encoding.name)()
    assert theirs["pat_str"] == encoding.pattern
    assert theirs["special_tokens"] == dict(encoding.specials)
    assert asked == [encoding.sha256]


@EVERY_ENCODING
def test_sizes(encoding: Encoding) -> None:
    ranks = build_tiktoken(encoding)._mergeable_ranks
    assert sorted(ranks.values()) == list(range(encoding.ordinary))
    assert dict(encoding.specials)["<|endoftext|>"] == encoding.end_of_text
    assert encoding.vocabulary % 128 == 0
    assert encoding.vocabulary == {"cl100k_base": 100_352, "o200k_base": 200_064}[encoding.name]


@EVERY_ENCODING
def test_role_ids_are_free(encoding: Encoding) -> None:
    roles = dataclasses.asdict(encoding.roles)
    assert len(set(roles.values())) == 5
    library = build_tiktoken(encoding)
    for name, role in roles.items():
        assert encoding.ordinary <= role < encoding.vocabulary, name
        assert role not in dict(encoding.specials).values()
        with pytest.raises(KeyError):
            library.decode_single_token_bytes(role)


def test_role_ids_are_frozen() -> None:
    cl100k, o200k = ENCODINGS["cl100k_base"].roles, ENCODINGS["o200k_base"].roles
    assert dataclasses.astuple(cl100k) == (100_277, 100_278, 100_279, 100_280, 100_281)
    assert dataclasses.astuple(o200k) == (200_019, 200_020, 200_021, 200_022, 200_023)
    assert ENCODINGS["cl100k_base"].role_ids() == (100_278, 100_279, 100_280, 100_281)


@EVERY_ENCODING
@pytest.mark.skipif(not SHARED.exists(), reason="shared data is absent")
def test_vocabulary_equals_an_independent_copy(encoding: Encoding) -> None:
    copy = (SHARED / f"tokenizer/{encoding.name}.tiktoken").read_bytes()
    assert encodings.vocabulary_bytes(encoding) == copy


def test_unknown_encoding_says_what_there_is() -> None:
    with pytest.raises(UnknownEncoding, match=r"gpt5.*\n.*cl100k_base, o200k_base"):
        encoding_named("gpt5")


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cl100k_base.tiktoken.gz"
    file.write_bytes(gzip.compress(b"IQ== 0\n", mtime=0))
    found = hashlib.sha256(b"IQ== 0\n").hexdigest()
    with pytest.raises(TokenizerMismatch, match=f"cl100k_base.tiktoken.gz: sha256 {found}, expected {'0' * 64}"):
        encodings.read_vocabulary(file, "0" * 64)
    assert encodings.read_vocabulary(file, found) == b"IQ== 0\n"


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", gzip.compress(b"x" * 100, mtime=0)[:-9]], ids=["empty", "other", "cut"]
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "v.gz"
    file.write_bytes(content)
    with pytest.raises(TokenizerMismatch, match="v.gz"):
        encodings.read_vocabulary(file, hashlib.sha256(b"").hexdigest())
    with pytest.raises(TokenizerMismatch, match="absent.gz"):
        encodings.read_vocabulary(tmp_path / "absent.gz", "0" * 64)


def test_decompression_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "MAX_VOCABULARY_BYTES", 1000)
    file = tmp_path / "bomb.gz"
    file.write_bytes(gzip.compress(b"x" * 1_000_000, mtime=0))
    with pytest.raises(TokenizerMismatch, match="bomb.gz"):
        encodings.read_vocabulary(file, hashlib.sha256(b"x" * 1000).hexdigest())


def test_loading_imports_no_vocabulary_package_and_no_engine() -> None:
    code = (
        "import sys, tokenizer.encode, tokenizer.manifest\n"
        "from tokenizer.encodings import *\n"
        "build_tiktoken(CL100K_BASE)\n"
        "print([m for m in ('bpe_openai', 'gigatoken', 'torch', 'pipelines', 'pyspark') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
