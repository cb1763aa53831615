"""Re-derives where gigatoken and tiktoken part ways, through toy vocabularies whose merges show every boundary.

With the real vocabularies two different splits often give the same ids. A toy vocabulary holds the 256 bytes and a
merge for every pair of bytes that can meet at a boundary under test, so that a boundary inside a pair changes the ids.
"""

from __future__ import annotations

import base64
import itertools
import random
from collections.abc import Iterable
from pathlib import Path

import awkward
import gigatoken
import numpy as np
import pyarrow as pa
import pytest
import tiktoken

from tokenizer.differences import DIFFERENCES, differing
from tokenizer.encodings import ENCODINGS, Encoding

EVERY_ENCODING = pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS.keys())

# alone, inside and beside letters of both cases, digits, symbols, slash and newline, contractions, blanks
CONTEXTS = "x{}x X{}X {}Xx 1{}11 !!{}! /{}\n {}'s '{} x'{}x  {}  {}x\n{}\n\r"

# one or more of every class that the patterns name, and the letters of the contractions with their odd case folds
CLASSES = list("asAS\u01c5\u02b0\u3042\u03011\u00b2 \t\u00a0\n\r'!/\u017f\u212arEvl\U0001f600\u00ad\x00")
FEW_CLASSES = list("aA\u3042\u03011 \u2003\n'!/\u017f")

Pair = tuple[tiktoken.Encoding, gigatoken.Tokenizer]


def toy_pair(encoding: Encoding, pairs: Iterable[bytes], folder: Path) -> Pair:
    tokens = dict.fromkeys([*(bytes([byte]) for byte in range(256)), *pairs])
    ranks = {token: rank for rank, token in enumerate(tokens)}
    file = folder / "toy.tiktoken"
    file.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    reference = tiktoken.Encoding("toy", pat_str=encoding.pattern, mergeable_ranks=ranks, special_tokens={})
    return reference, gigatoken.Tokenizer.from_tiktoken(file, encoding.gigatoken_scheme, {})


def code_point_pair(encoding: Encoding, folder: Path) -> Pair:
    """Merges of ASCII with lead bytes, and of continuation bytes with ASCII and lead bytes."""
    ascii_bytes, leads, tails = b"xX1! \n\r'/s", bytes(range(0xC2, 0xF5)), bytes(range(0x80, 0xC0))
    before = (bytes(pair) for pair in itertools.product(ascii_bytes, leads + ascii_bytes))
    after = (bytes(pair) for pair in itertools.product(tails, ascii_bytes + leads))
    return toy_pair(encoding, itertools.chain(before, after), folder)


def unequal(pair: Pair, texts: list[str]) -> list[int]:
    reference = pair[0].encode_ordinary_batch(texts, num_threads=2)
    rows = pair[1].encode_batch(awkward.from_arrow(pa.array(texts, pa.large_string())), parallel=False)
    ids, counts = np.asarray(awkward.flatten(rows)), np.asarray(awkward.num(rows))
    if counts.tolist() == [len(row) for row in reference]:
        flat = np.fromiter(itertools.chain.from_iterable(reference), np.uint32)
        if np.array_equal(flat, ids):
            return []
    return [place for place, row in enumerate(awkward.to_list(rows)) if row != reference[place]]


def differing_points(pair: Pair, points: list[int], together: int = 64) -> set[int]:
    def in_contexts(point: int) -> str:
        return CONTEXTS.replace("{}", chr(point))

    groups = [points[place : place + together] for place in range(0, len(points), together)]
    unequal_groups = unequal(pair, ["".join(map(in_contexts, group)) for group in groups])
    candidates = [point for place in unequal_groups for point in groups[place]]
    return {candidates[place] for place in unequal(pair, [in_contexts(point) for point in candidates])}


def listed_points() -> set[int]:
    return {point for first, last in DIFFERENCES for point in range(first, last + 1)}


def scalar_values() -> list[int]:
    return [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]


def test_listed_points_differ_and_no_other_of_two_planes_and_a_sample(tmp_path: Path) -> None:
    listed = listed_points()
    borders = {point for first, last in DIFFERENCES for point in (first - 1, last + 1)}
    sample = {*range(0x20000), *random.Random(1).sample(range(0x20000, 0x110000), 20_000), *listed, *borders}
    points = sorted(point for point in sample if not 0xD800 <= point < 0xE000)
    found = [differing_points(code_point_pair(encoding, tmp_path), points) for encoding in ENCODINGS.values()]
    assert set.union(*found) == listed


@pytest.mark.stress
@EVERY_ENCODING
def test_the_whole_of_unicode(encoding: Encoding, tmp_path: Path) -> None:
    pair = code_point_pair(encoding, tmp_path)
    points = scalar_values()
    found = [differing_points(pair, points[place : place + 65_536]) for place in range(0, len(points), 65_536)]
    assert set.union(*found) <= listed_points()
    assert {"cl100k_base": 4_657, "o200k_base": 4_699}[encoding.name] == len(set.union(*found))


def sequences_agree(encoding: Encoding, folder: Path, classes: list[str], length: int) -> None:
    used = sorted({byte for text in classes for byte in text.encode()})
    pair = toy_pair(encoding, (bytes(two) for two in itertools.product(used, used)), folder)
    texts = map("".join, itertools.product(classes, repeat=length))
    while some := list(itertools.islice(texts, 200_000)):
        assert not (wrong := unequal(pair, some)), [some[place] for place in wrong[:5]]


@EVERY_ENCODING
def test_every_sequence_of_three_classes(encoding: Encoding, tmp_path: Path) -> None:
    sequences_agree(encoding, tmp_path, CLASSES, 3)
    sequences_agree(encoding, tmp_path, FEW_CLASSES, 4)


@pytest.mark.stress
@EVERY_ENCODING
def test_every_sequence_of_six_classes(encoding: Encoding, tmp_path: Path) -> None:
    sequences_agree(encoding, tmp_path, CLASSES, 4)
    sequences_agree(encoding, tmp_path, FEW_CLASSES, 6)


def test_toy_vocabulary_shows_a_boundary(tmp_path: Path) -> None:
    """A letter of Unicode 17 alone: equal ids with the real vocabulary prove nothing, the toy one must tell."""
    for encoding in ENCODINGS.values():
        assert differing_points(code_point_pair(encoding, tmp_path), [0x11DB3, ord("a"), 0x3042]) == {0x11DB3}


def test_search_equals_a_search_by_hand() -> None:
    listed = listed_points()
    near = [point for first, last in DIFFERENCES for point in (first - 1, first, last, last + 1)]
    texts = ["", "a", "\u0e01\u0905 plain", *(f"\u00e9x{chr(point)}" for point in near), *(chr(p) + "y" for p in near)]
    column = pa.array(["\u088f", *texts, "\u088f"], pa.large_string()).slice(1, len(texts))
    expected = [any(ord(character) in listed for character in text) for text in texts]
    assert differing(column).tolist() == expected
    assert any(expected) and not all(expected)
    assert differing(column.slice(0, 0)).tolist() == []


def test_every_point_of_unicode_is_found_or_not() -> None:
    points = scalar_values()
    found = differing(pa.array(map(chr, points), pa.large_string()))
    assert {points[place] for place in np.flatnonzero(found)} == listed_points()
