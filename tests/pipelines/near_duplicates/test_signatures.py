"""Signatures against the written formula, the S-curve against its formula, and the keys of bands."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_text import BROKEN, HOSTILE, bytes_column, column, real_texts

from pipelines.near_duplicates import signatures as module
from pipelines.near_duplicates.presets import PRESETS, Shape
from pipelines.near_duplicates.shingles import CHUNK, shingle_sets
from pipelines.near_duplicates.signatures import band_keys, hash_functions, set_signatures, signatures, text_band_keys

MASK = (1 << 64) - 1
SMALL = Shape(3, 5, "word", 2, seed=7)
texts = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "—", "漢字"]), max_size=40).map(" ".join)


def mix(bits: int) -> int:
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


def functions(shape: Shape) -> list[tuple[int, int]]:
    start, step = mix(shape.seed), 0x9E3779B97F4A7C15
    numbers = [mix((start + (j + 1) * step) & MASK) for j in range(shape.num_hashes)]
    return [(number & 0xFFFFFFFF | 1, number >> 32) for number in numbers]


def minima(hashes: list[int], shape: Shape) -> list[int]:
    return [
        min(((factor * hashed + term) & 0xFFFFFFFF for hashed in hashes), default=0xFFFFFFFF)
        for factor, term in functions(shape)
    ]


def sets_as_lists(rows: list[str | None], shape: Shape) -> list[list[int]]:
    offsets, hashes = shingle_sets(column(rows), shape.unit, shape.ngram)
    return [hashes[start:stop].tolist() for start, stop in zip(offsets, offsets[1:], strict=False)]


def test_splitmix64_is_the_published_one() -> None:
    """The first numbers of the reference implementation for the state 0, and our seeds on top of it."""
    step = 0x9E3779B97F4A7C15
    assert [mix((k * step) & MASK) for k in (1, 2, 3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    factors, terms = hash_functions(dataclasses.replace(SMALL, seed=0))
    assert (int(factors[0]), int(terms[0])) == (0x7B1DCDAF, 0xE220A839)


@settings(deadline=None)
@given(st.lists(st.none() | texts, max_size=5), st.sampled_from(["word", "character"]), st.integers(0, 2**64 - 1))
def test_signatures_are_the_minima_of_the_formula(rows: list[str | None], unit: str, seed: int) -> None:
    shape = Shape(2, 3, "word" if unit == "word" else "character", 4, seed)
    found, numbers = signatures(column(rows), shape)
    assert found.dtype == np.uint32
    assert numbers.dtype == np.int64
    some = sets_as_lists(rows, shape)
    assert found.tolist() == [minima(hashes, shape) for hashes in some]
    assert [number > 0 for number in numbers] == [len(hashes) > 0 for hashes in some]
    assert all(number >= len(hashes) for number, hashes in zip(numbers, some, strict=True))


@pytest.mark.parametrize("name", ["fineweb", "slimpajama", "curator"])
def test_signatures_of_long_and_real_texts(name: str) -> None:
    """One pass over the text gives what its set gives, chunk after chunk; one real text by the formula."""
    shape = PRESETS[name]
    rows = [*real_texts(20), " ".join(f"w{k}" for k in range(3 * CHUNK)), "ham " * 9_999, *HOSTILE.values()]
    found, _ = signatures(column(rows), shape)
    assert np.array_equal(found, set_signatures(*shingle_sets(column(rows), shape.unit, shape.ngram), shape))
    assert found[0].tolist() == minima(sets_as_lists([rows[0]], shape)[0], shape)


def test_number_of_shingles() -> None:
    rows = ["a b c d", "a a a a", "a", "", None, "...", "a b", "a " * (3 * CHUNK)]
    found, numbers = signatures(column(rows), SMALL)
    assert numbers.tolist() == [3, 3, 1, 0, 0, 0, 1, 3 * CHUNK - 1]
    assert np.all(found[3:6] == 0xFFFFFFFF)
    assert not np.any(np.all(found[[0, 1, 2, 6]] == 0xFFFFFFFF, axis=1))


@settings(deadline=None)
@given(st.lists(st.none() | texts, max_size=6), st.integers(0, 6))
def test_batches_do_not_matter(rows: list[str | None], cut: int) -> None:
    whole, scopes = column(rows), np.arange(len(rows), dtype=np.uint64)
    parts = [text_band_keys(part, SMALL, chosen) for part, chosen in
             ((whole.slice(0, cut), scopes[:cut]), (whole.slice(cut), scopes[cut:]))]  # fmt: skip
    keys, numbers = text_band_keys(whole, SMALL, scopes)
    assert np.array_equal(keys, np.concatenate([part[0] for part in parts]))
    assert np.array_equal(numbers, np.concatenate([part[1] for part in parts]))


def test_few_signatures_at_a_time_are_as_good_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, scopes = column([f"some text number {k}" for k in range(10)]), np.arange(10, dtype=np.uint64)
    found, numbers = signatures(rows, SMALL)
    monkeypatch.setattr(module, "MOST_SIGNATURE_BYTES", 3 * 4 * SMALL.num_hashes)
    keys, counted = text_band_keys(rows, SMALL, scopes)
    assert np.array_equal(keys, band_keys(found, SMALL, scopes))
    assert np.array_equal(counted, numbers)
    monkeypatch.setattr(module, "MOST_SIGNATURE_BYTES", 0)
    assert np.array_equal(text_band_keys(rows, SMALL, scopes)[0], keys)


def test_another_seed_changes_every_hash() -> None:
    """Seeds in a row have no function in common, nor any place of a signature."""
    shapes = [dataclasses.replace(PRESETS["fineweb"], seed=seed) for seed in (0, 1, 2, 0x9E3779B97F4A7C15)]
    pairs = [set(zip(*(part.tolist() for part in hash_functions(shape)), strict=True)) for shape in shapes]
    assert len(set.union(*pairs)) == len(shapes) * 112
    found = [signatures(column(["a text of a few words, no more than ten of them"]), shape)[0][0] for shape in shapes]
    for k, one in enumerate(found):
        for other in found[:k]:
            assert not np.any(one == other)


def test_bytes_that_are_no_text_are_survived() -> None:
    found, numbers = signatures(bytes_column(list(BROKEN)), SMALL)
    assert found.shape == (len(BROKEN), SMALL.num_hashes)
    assert np.all(np.all(found == 0xFFFFFFFF, axis=1) == (numbers == 0))


# the S-curve ----------------------------------------------------------------------------------------------------------

UNION = 400


def pairs_of_sets(num_pairs: int, shared: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sets 2k and 2k + 1 share `shared` hashes of the UNION they have together, the rest is one's or the other's."""
    own = (UNION - shared) // 2
    hashes = rng.integers(0, 2**64, (num_pairs, UNION), np.uint64)
    both = np.stack([hashes[:, : shared + own], np.delete(hashes, np.s_[shared : shared + own], axis=1)], axis=1)
    return np.arange(2 * num_pairs + 1) * (shared + own), both.reshape(-1)


@pytest.mark.parametrize("name", list(PRESETS))
def test_s_curve_of_every_preset(name: str) -> None:
    """Pairs at known similarity share a band as often as the formula says, within 4 standard errors."""
    shape, rng = PRESETS[name], np.random.default_rng(20)
    num_pairs = 400 if name == "refinedweb" else 3_000
    seen = set()
    for shared in (200, 240, 280, 300, 320, 340, 360, 380):
        offsets, hashes = pairs_of_sets(num_pairs, shared, rng)
        keys = band_keys(set_signatures(offsets, hashes, shape), shape, np.zeros(2 * num_pairs, np.uint64))
        found = np.any(np.all(keys[0::2] == keys[1::2], axis=2), axis=1).sum()
        expected = shape.probability(shared / UNION)
        error = (num_pairs * expected * (1 - expected)) ** 0.5
        assert abs(found - num_pairs * expected) <= 4 * error + 1, (shared / UNION, found / num_pairs, expected)
        if 0.05 < expected < 0.95:
            seen.add(shared)
    assert len(seen) >= 2, "no similarity where the curve rises"


@pytest.mark.parametrize("size", [2, 10, 100, 5_000])
def test_hashes_agree_as_often_as_the_similarity(size: int) -> None:
    """One place of a signature, at sizes from tiny to more than a chunk; the spread over pairs is a binomial's too.

    Places that depended on each other would leave the mean as it is, and widen the spread: bands would agree too often.
    """
    rng, num_pairs, shape = np.random.default_rng(size), 2_000 if size < 1_000 else 200, PRESETS["fineweb"]
    hashes = rng.integers(0, 2**64, (num_pairs, size), np.uint64)
    offsets = np.cumsum(np.concatenate([[0], np.tile([size, size // 2], num_pairs)]))
    both = np.concatenate([hashes, hashes[:, : size // 2]], axis=1).reshape(-1)
    found = set_signatures(offsets, both, shape)
    agreeing = (found[0::2] == found[1::2]).sum(axis=1)
    num = shape.num_hashes
    assert abs(agreeing.mean() - num / 2) <= 4 * (num / 4 / num_pairs) ** 0.5
    assert 1 - 4 * (2 / num_pairs) ** 0.5 <= agreeing.var() / (num / 4) <= 1 + 4 * (2 / num_pairs) ** 0.5


# keys of bands --------------------------------------------------------------------------------------------------------


def test_band_keys_by_the_formula() -> None:
    """A key worked out in plain Python: no later version may change it, as keys are kept between runs."""
    step, scope, found = 0x9E3779B97F4A7C15, 9, list(range(1, 16))
    keys = band_keys(np.array([found], np.uint32), SMALL, np.array([scope], np.uint64))
    assert keys.shape == (1, 3, 16)
    for band in range(3):
        first = mix(mix((scope + step) & MASK) ^ band)
        second = mix((first + step) & MASK)
        for value in found[5 * band : 5 * band + 5]:
            first = ((first ^ value) * 0xBF58476D1CE4E5B9) & MASK
            first ^= first >> 32
            second = ((second ^ value) * 0x94D049BB133111EB) & MASK
            second ^= second >> 29
        expected = mix(first).to_bytes(8, "little") + mix(second).to_bytes(8, "little")
        assert keys[0, band].tobytes() == expected


def test_band_keys_differ_by_scope_by_band_and_by_every_hash() -> None:
    same = np.full((4, 15), 5, np.uint32)
    keys = band_keys(same, SMALL, np.array([0, 1, 2**63, 2**64 - 1], np.uint64))
    assert len({key.tobytes() for row in keys for key in row}) == 4 * 3
    one = band_keys(same[:1], SMALL, np.zeros(1, np.uint64))[0]
    for place in range(15):
        other = same[:1].copy()
        other[0, place] = 6
        changed = np.any(band_keys(other, SMALL, np.zeros(1, np.uint64))[0] != one, axis=1)
        assert changed.tolist() == [band == place // 5 for band in range(3)]
    swapped = np.array([[6, 5, 5, 5, 5], [5, 6, 5, 5, 5]], np.uint32)
    first, second = band_keys(swapped, Shape(1, 5, "word", 5), np.zeros(2, np.uint64))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("kind", ["random", "rows in order", "scopes in order"])
def test_first_bytes_of_keys_are_uniform(kind: str) -> None:
    """Each byte by chi-square (4 standard deviations of it), the first two together, and no two keys are equal."""
    num = 1 << 16
    found = np.full((num, 4), 1, np.uint32)
    if kind == "random":
        found = np.random.default_rng(3).integers(0, 2**32, (num, 4), np.uint32)
    elif kind == "rows in order":
        found[:, 0] = np.arange(num)
    scopes = np.arange(num, dtype=np.uint64) if kind == "scopes in order" else np.zeros(num, np.uint64)
    keys = band_keys(found, Shape(2, 2, "word", 5), scopes)[:, 0]
    if kind != "random":
        assert len(np.unique(keys, axis=0)) == num
    for byte in range(16):
        assert abs(chi_square(np.bincount(keys[:, byte], minlength=256)) - 255) <= 4 * (2 * 255) ** 0.5, byte
    pairs = np.bincount(keys[:, 0].astype(np.int64) >> 2 << 6 | keys[:, 1] >> 2, minlength=1 << 12)
    assert abs(chi_square(pairs) - 4_095) <= 4 * (2 * 4_095) ** 0.5


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2).sum() / expected)
