"""The order of a run: bijections, exact shares, and values that may never change.

Everything is compared with Python's own integers, written from the rules in docs/formats.md and not from the kernels.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mixtures.order import (
    ROUNDS,
    EpochOrder,
    Interleave,
    derive_keys,
    multiply_divide,
    permute,
    permute_range,
    unpermute,
)

MASK = (1 << 64) - 1
TOKENS = 13 * 10**12
FARTHEST = Fraction(168, 100)
"""No source is as far from its share: half the sum of the reciprocal Fibonacci numbers (see `Interleave`)."""

# Frozen: another value here is another order of every run. Made by the integers of this file, not by the kernels.
FROZEN_KEYS = [
    6558161816899261379,
    478748061270856997,
    7791261325297677056,
    5721931143766946687,
    7791986347037025986,
    18002771457840269250,
    10869262127337676732,
    4156950745645243138,
]
FROZEN_TEN = [5, 1, 7, 2, 8, 3, 0, 4, 9, 6]
FROZEN_HUGE = [2532934926398589499, 1013800343402275477, 2436208451436461288]
FROZEN_TOKENS = [4601023359626, 2181058618321, 10034355072025]
FROZEN_SOURCES = [0, 0, 4, 0, 0, 3, 0, 0, 3, 0, 0, 3]
FROZEN_ORDINALS = [336, 337, 19, 338, 339, 125, 340, 341, 126, 342, 343, 127]
FROZEN_INTERLEAVING = "4756455bc751094d"
FROZEN_WINDOWS = [4, 5, 1, 0, 2, 3]
FROZEN_EPOCH = [
    *((5, 1), (5, 0), (5, 3), (4, 0), (5, 2), (5, 4), (4, 1)),
    *((1, 0), (0, 1), (0, 0), (0, 2)),
    *((3, 2), (3, 0), (3, 3), (3, 1)),
]

seeds = st.integers(0, 2**63)
uint64s = st.one_of(st.integers(0, MASK), st.integers(0, 2**33), st.sampled_from([2**32 - 1, 2**32, 2**63, MASK]))


def mixed(value: int) -> int:
    """The finalizer of SplitMix64."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def walked(index: int, size: int, keys: list[int]) -> int:
    """`permute` in Python's integers."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    while True:
        left, right = divmod(index, 1 << half)
        for key in keys:
            left, right = right, left ^ mixed(right ^ key) % (1 << half)
        index = left << half | right
        if index < size:
            return index


# --- keys ---


def test_frozen_keys():
    digest = hashlib.blake2b(b'["a",7,"\\u00e9"]').digest()
    assert derive_keys("a", 7, "é").tolist() == [int.from_bytes(digest[k : k + 8], "little") for k in range(0, 64, 8)]
    assert derive_keys(0, "web", "training", 0, "windows").tolist() == FROZEN_KEYS
    assert len(FROZEN_KEYS) == ROUNDS


def test_keys_of_different_parts_differ():
    parts = [
        (),
        ("",),
        ("a", "b"),
        ("ab",),
        ("b", "a"),
        ("a,b",),
        ('a","b',),
        (1,),
        ("1",),
        (-1,),
        (1, 1),
        (11,),
        ("a", 1),
    ]
    parts += [(2**64 + 1,), ("a", "b", "")]
    assert len({derive_keys(*some).tobytes() for some in parts}) == len(parts)


# --- permutations ---


@settings(deadline=None)
@given(st.integers(1, 3000), seeds)
def test_permutation_of_every_place(size, seed):
    keys = derive_keys(seed)
    taken = permute_range(0, size, size, keys)
    assert np.array_equal(np.sort(taken), np.arange(size))
    for index in {0, size // 2, size - 1}:
        assert unpermute(permute(index, size, keys), size, keys) == index
        assert taken[index] == walked(index, size, keys.tolist())


@settings(deadline=None)
@given(st.integers(1, 2**62), st.floats(0, 1), seeds)
def test_huge_permutations_come_back(size, share, seed):
    keys, index = derive_keys(seed), min(int(share * size), size - 1)
    taken = permute(index, size, keys)
    assert 0 <= taken < size
    assert taken == walked(index, size, keys.tolist())
    assert unpermute(taken, size, keys) == index


def test_permutation_at_the_borders_of_its_bits():
    keys = derive_keys("borders")
    for bits in range(0, 63, 2):
        for size in (2**bits - 1, 2**bits, 2**bits + 1):
            if 1 <= size <= 2**62:
                for index in {0, size - 1}:
                    taken = permute(index, size, keys)
                    assert taken == walked(index, size, keys.tolist())
                    assert unpermute(taken, size, keys) == index


def test_a_part_of_a_range_is_that_part():
    keys = derive_keys("some")
    assert np.array_equal(permute_range(0, 500, 777, keys)[123:321], permute_range(123, 198, 777, keys))
    assert permute_range(5, 0, 777, keys).tolist() == []


def test_other_keys_give_another_order():
    orders = {permute_range(0, 100, 100, derive_keys("seed", seed)).tobytes() for seed in range(200)}
    assert len(orders) == 200


@pytest.mark.parametrize("size", [3, 5, 16, 17, 37])
def test_places_are_uniform(size):
    """Over 4,000 keys every (place, value) is about as frequent: chi-square within six deviations of its mean."""
    counts = np.zeros((size, size))
    for seed in range(4000):
        counts[np.arange(size), permute_range(0, size, size, derive_keys("uniform", seed))] += 1
    expected = 4000 / size
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = (size - 1) ** 2
    assert abs(chi_square - freedom) < 6 * np.sqrt(2 * freedom)


def test_neighbours_are_not_kept_together():
    """In a random permutation the places that are followed by the next value are about Poisson with mean 1."""
    size, followers = 1000, 0
    for seed in range(200):
        followers += int((np.diff(permute_range(0, size, size, derive_keys("next", seed))) == 1).sum())
    assert 100 < followers < 300


def test_frozen_permutations():
    keys = derive_keys("frozen", 1)
    assert permute_range(0, 10, 10, keys).tolist() == FROZEN_TEN
    assert [permute(index, 2**62, keys) for index in (0, 1, 2**62 - 1)] == FROZEN_HUGE
    assert [permute(index, TOKENS, keys) for index in (0, 1, TOKENS - 1)] == FROZEN_TOKENS


# --- multiply and divide ---


@settings(deadline=None)
@given(uint64s, uint64s, uint64s, uint64s)
def test_multiply_divide(a, b, c, d):
    assume(d and (a * b + c) // d <= MASK)
    assert multiply_divide(*(np.uint64(value) for value in (a, b, c, d))) == (a * b + c) // d


@pytest.mark.parametrize(
    ("a", "b", "c", "d"),
    [
        (MASK, MASK, MASK - 1, MASK),
        (MASK, MASK, 0, MASK),
        (2**32, 2**32, 0, 2),
        (2**32 - 1, 2**32 - 1, 2**63 - 1, 2),
        (2**32 - 1, 2**32 - 1, 2**34, 3),
        (2**63, 2, MASK, 2**63 + 1),
        (MASK, 1, 1, 2),
        (0, 0, MASK, 1),
        (0, MASK, 0, 1),
        (2 * TOKENS, TOKENS // 3, TOKENS, 2 * TOKENS),
    ],
)
def test_multiply_divide_at_its_edges(a, b, c, d):
    assert (a * b + c) // d <= MASK
    assert multiply_divide(*(np.uint64(value) for value in (a, b, c, d))) == (a * b + c) // d


# --- interleaving ---

Tree = tuple[int, int, object]
"""(count, least source, source or (left, right))."""


def huffman(counts: list[int]) -> Tree:
    """The two smallest, of equal ones those with the earlier source, are joined until one is left."""
    trees: list[Tree] = [(count, source, source) for source, count in enumerate(counts) if count]
    while len(trees) > 1:
        trees.sort(key=lambda tree: tree[:2])
        left, right, *trees = trees
        trees.append((left[0] + right[0], min(left[1], right[1]), (left, right)))
    return trees[0]


def had(tree: Tree, i: int, sources: int) -> list[int]:
    """How much each source has had after i positions of the tree."""
    if isinstance(tree[2], int):
        return [i if source == tree[2] else 0 for source in range(sources)]
    left, right = tree[2]
    to_left = (2 * i * left[0] + tree[0]) // (2 * tree[0])
    parts = zip(had(left, to_left, sources), had(right, i - to_left, sources), strict=True)
    return [a + b for a, b in parts]


def test_interleaving_by_hand():
    """Source 3 (1) and source 0 (3) are joined first, 4 against source 2's 5: it stands at 0, 2, 4, 6, 8 of the 9."""
    sources, ordinals = Interleave.of([3, 0, 5, 1]).locate(0, 9)
    assert sources.tolist() == [2, 0, 2, 3, 2, 0, 2, 0, 2]
    assert ordinals.tolist() == [0, 0, 1, 0, 2, 1, 3, 2, 4]
    assert (sources.dtype, ordinals.dtype) == (np.int32, np.int64)


def test_equal_counts_are_joined_from_the_first_source_on():
    """(0, 1) and (2, 3) are joined, then both; after one of two equal ones the left has had floor((2 + 2) / 4) = 1."""
    assert Interleave.of([1, 1, 1, 1]).locate(0, 4)[0].tolist() == [0, 2, 1, 3]
    assert Interleave.of([2, 2]).locate(0, 4)[0].tolist() == [0, 1, 0, 1]


def test_a_source_of_nothing_takes_no_part_in_the_tree():
    """(2, 3) are joined, and source 1 of as many is before them; were 0 joined to 2, theirs would be the first."""
    assert Interleave.of([0, 2, 1, 1]).locate(0, 4)[0].tolist() == [1, 2, 1, 3]


@pytest.mark.parametrize("counts", [[4], [0, 4], [0, 0, 4, 0]])
def test_one_source_stands_everywhere(counts):
    interleave = Interleave.of(counts)
    sources, ordinals = interleave.locate(1, 3)
    assert sources.tolist() == [len(counts) - 1 if counts[-1] else 2] * 3
    assert ordinals.tolist() == [1, 2, 3]
    assert interleave.position(int(sources[0]), 3) == 3


@pytest.mark.parametrize("counts", [[], [0], [0, 0]])
def test_nothing_to_interleave(counts):
    interleave = Interleave.of(counts)
    assert interleave.total == 0
    assert [part.tolist() for part in interleave.locate(0, 0)] == [[], []]
    with pytest.raises(IndexError):
        interleave.position(0, 0)


counts_of_sources = st.one_of(
    st.lists(st.integers(0, 12), min_size=1, max_size=200),
    st.lists(st.integers(0, 400), min_size=1, max_size=12),
    st.lists(st.sampled_from([1, 2, 3, 1000]), min_size=2, max_size=6),
).filter(any)


@settings(deadline=None)
@given(counts_of_sources)
def test_every_item_once_in_order_and_near_its_share_at_every_prefix(counts):
    interleave = Interleave.of(counts)
    total = sum(counts)
    sources, ordinals = interleave.locate(0, total)
    assert interleave.total == total
    dealt = (sources[:, None] == np.arange(len(counts))).cumsum(axis=0)
    assert dealt[-1].tolist() == counts
    assert np.array_equal(dealt[np.arange(total), sources] - 1, ordinals)
    # |had - i n / N| in units of 1 / N
    share = np.arange(1, total + 1)[:, None] * np.array(counts)
    assert int(np.abs(dealt * total - share).max()) < FARTHEST * total


@pytest.mark.parametrize(
    ("counts", "source", "farthest"),
    [
        ([1, 101, 102, 109, 222, 333, 542], 1, 1.5113),
        ([10, 716, 738, 741, 1467, 2240, 3679, 6201], 1, 1.5415),
        ([22, 4122, 4148, 4205, 8373, 12542, 21683, 34661], 1, 1.5563),
    ],
)
def test_the_farthest_from_a_share(counts, source, farthest):
    """Sources like Fibonacci's numbers, the deepest tree: every split on the way down can round the same way."""
    total = sum(counts)
    owners = Interleave.of(counts).locate(0, total)[0]
    deviation = np.abs((owners == source).cumsum() * total - np.arange(1, total + 1) * counts[source])
    place = int(deviation.argmax())
    assert deviation[place] / total == pytest.approx(farthest, abs=1e-4)
    by_hand = had(huffman(counts), place + 1, len(counts))[source]
    assert abs(by_hand - Fraction((place + 1) * counts[source], total)) == Fraction(int(deviation[place]), total)
    assert Fraction(int(deviation[place]), total) < FARTHEST


@settings(deadline=None)
@given(counts_of_sources, st.data())
def test_the_tree_and_both_directions(counts, data):
    interleave, tree, total = Interleave.of(counts), huffman(counts), sum(counts)
    for i in data.draw(st.lists(st.integers(0, total - 1), max_size=5)):
        before, after = had(tree, i, len(counts)), had(tree, i + 1, len(counts))
        source = next(k for k in range(len(counts)) if after[k] > before[k])
        found, ordinal = (int(part[0]) for part in interleave.locate(i, 1))
        assert (found, ordinal) == (source, before[source])
        assert interleave.position(source, ordinal) == i


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any))
def test_positions_are_the_inverse_everywhere(counts):
    interleave = Interleave.of(counts)
    sources, ordinals = interleave.locate(0, interleave.total)
    pairs = zip(sources.tolist(), ordinals.tolist(), strict=True)
    assert [interleave.position(*pair) for pair in pairs] == list(range(interleave.total))


@st.composite
def huge_counts(draw):
    """Counts of 2 to 30 sources, of very different sizes, that add up to 13e12 or almost 2**62."""
    total = draw(st.sampled_from([TOKENS, 2**62 - 1]))
    weights = draw(st.lists(st.integers(1, 2**20).map(lambda weight: weight**2), min_size=2, max_size=30))
    counts = [weight * total // sum(weights) for weight in weights]
    counts[0] += total - sum(counts)
    return counts


@settings(deadline=None)
@given(huge_counts(), st.lists(st.floats(0, 1), max_size=4))
def test_huge_totals_are_exact(counts, shares):
    interleave, tree, total = Interleave.of(counts), huffman(counts), sum(counts)
    assert interleave.total == total
    for i in {0, total - 1, *(min(int(share * total), total - 1) for share in shares)}:
        before, after = had(tree, i, len(counts)), had(tree, i + 1, len(counts))
        source = next(k for k in range(len(counts)) if after[k] > before[k])
        assert [int(part[0]) for part in interleave.locate(i, 1)] == [source, before[source]]
        assert interleave.position(source, before[source]) == i
        assert all(abs(own - Fraction(i * n, total)) < FARTHEST for own, n in zip(before, counts, strict=True))


@settings(deadline=None)
@given(huge_counts(), st.data())
def test_huge_items_are_found(counts, data):
    interleave = Interleave.of(counts)
    for source, count in enumerate(counts):
        if count:
            ordinal = data.draw(st.sampled_from([0, count // 3, count - 1]))
            found = interleave.locate(interleave.position(source, ordinal), 1)
            assert [int(part[0]) for part in found] == [source, ordinal]


def test_what_is_not_there_is_refused():
    interleave = Interleave.of([3, 0, 5])
    for first, count in ((-1, 1), (0, 9), (9, 0), (8, 1), (3, -1)):
        with pytest.raises(IndexError, match="there are 8"):
            interleave.locate(first, count)
    for source, ordinal, has in ((0, 3, 3), (0, -1, 3), (1, 0, 0), (2, 5, 5), (3, 0, 0), (-1, 0, 0)):
        with pytest.raises(IndexError, match=f"it has {has}"):
            interleave.position(source, ordinal)
    with pytest.raises(IndexError, match="it has 4"):
        Interleave.of([0, 4]).position(1, 4)


def test_frozen_interleaving():
    interleave = Interleave.of([700, 41, 0, 259, 41])
    sources, ordinals = interleave.locate(500, 12)
    assert (sources.tolist(), ordinals.tolist()) == (FROZEN_SOURCES, FROZEN_ORDINALS)
    everything = np.stack(interleave.locate(0, interleave.total)).astype("<i8").tobytes()
    assert hashlib.sha256(everything).hexdigest()[:16] == FROZEN_INTERLEAVING


# --- epochs ---

windows_of_epochs = st.tuples(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 6))


def by_hand(counts: list[int], group: int, *parts: str | int) -> list[tuple[int, int]]:
    """(window, sequence) of every place of an epoch, in Python's integers."""
    window_keys, keys = (derive_keys(*parts, name).tolist() for name in ("windows", "sequences"))
    order = [walked(place, len(counts), window_keys) for place in range(len(counts))]
    places = []
    for number in range(-(-len(counts) // group)):
        own = [mixed((key + mixed(number + 1)) & MASK) for key in keys]
        inside = [(w, s) for w in order[number * group : (number + 1) * group] for s in range(counts[w])]
        places += [inside[walked(place, len(inside), own)] for place in range(len(inside))]
    return places


@settings(deadline=None)
@given(windows_of_epochs, seeds)
def test_an_epoch_has_every_sequence_once_and_group_by_group(windows, seed):
    counts, group = windows
    order = EpochOrder.of(np.array(counts, np.uint32), group, seed, "web", 2)
    found = order.locate(np.arange(order.total))
    places = list(zip(*(part.tolist() for part in found), strict=True))
    assert order.total == sum(counts)
    assert sorted(places) == [(window, number) for window, count in enumerate(counts) for number in range(count)]
    assert places == by_hand(counts, group, seed, "web", 2)
    assert sorted(order.windows.tolist()) == list(range(len(counts)))
    for first in range(0, len(counts), group):
        last = min(first + group, len(counts))
        dealt = places[order.starts[first] : order.starts[last]]
        assert {window for window, _ in dealt} <= set(order.windows[first:last].tolist())


@settings(deadline=None)
@given(windows_of_epochs, seeds)
def test_ordinals_are_the_inverse(windows, seed):
    counts, group = windows
    order = EpochOrder.of(np.array(counts, np.int64), group, seed)
    found = order.locate(np.arange(order.total))
    pairs = zip(*(part.tolist() for part in found), strict=True)
    assert [order.ordinal(*pair) for pair in pairs] == list(range(order.total))


def test_ordinals_may_come_in_any_order():
    order = EpochOrder.of(np.arange(50), 4, "any")
    asked = np.random.default_rng(0).integers(0, order.total, 300)
    windows, sequences = order.locate(asked)
    for place, ordinal in enumerate(asked):
        assert [int(part[0]) for part in order.locate(np.array([ordinal]))] == [windows[place], sequences[place]]


def test_epochs_sources_and_groups_have_orders_of_their_own():
    counts = np.full(64, 50)
    keys = [(1, "web", 0), (1, "web", 1), (1, "code", 0), (2, "web", 0)]
    orders = [EpochOrder.of(counts, 4, *key) for key in keys]
    assert len({order.windows.tobytes() for order in orders}) == 4
    # inside of a group: what stands at its places, counted within the group
    inside = set()
    for order in orders:
        windows, sequences = order.locate(np.arange(order.total))
        places = np.argsort(order.windows)[windows] % 4 * 50 + sequences
        inside |= {row.tobytes() for row in places.reshape(16, 200)}
    assert len(inside) == 4 * 16


def test_totals_beyond_32_bits():
    counts = np.full(3, 2**32 - 1, np.uint32)
    order = EpochOrder.of(counts, 2, "large")
    assert order.total == 3 * (2**32 - 1)
    asked = np.array([0, 2**32, 2 * 2**32, order.total - 1])
    windows, sequences = order.locate(asked)
    pairs = zip(windows.tolist(), sequences.tolist(), strict=True)
    assert [order.ordinal(*pair) for pair in pairs] == asked.tolist()
    assert sequences.min() >= 0
    assert sequences.max() < 2**32 - 1


def test_places_outside_of_an_epoch_are_refused():
    order = EpochOrder.of(np.array([2, 0, 3]), 2, "outside")
    for asked in ([-1], [5], [0, 5]):
        with pytest.raises(IndexError, match="the epoch has 5"):
            order.locate(np.array(asked))
    for window, sequence, message in (
        (0, 2, "it has 2"),
        (1, 0, "it has 0"),
        (0, -1, "it has 2"),
        (3, 0, "there are 3"),
        (-1, 0, "there are 3"),
    ):
        with pytest.raises(IndexError, match=message):
            order.ordinal(window, sequence)


def test_frozen_epoch():
    order = EpochOrder.of(np.array([3, 1, 0, 4, 2, 5]), 2, 0, "web", "training", 1)
    assert order.windows.tolist() == FROZEN_WINDOWS
    windows, sequences = order.locate(np.arange(15))
    assert list(zip(windows.tolist(), sequences.tolist(), strict=True)) == FROZEN_EPOCH
