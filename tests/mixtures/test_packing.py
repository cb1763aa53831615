"""Packing is best-fit-decreasing to the letter, loses no token, and its kernel agrees with a list that is searched."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.packing import (
    PACKING_VERSION,
    Packing,
    count_sequences_of_windows,
    pack,
    window_bounds,
)

LONGEST = 2**31 - 1

Piece = tuple[int, int, int]


def count_sequences(lengths: np.ndarray, length: int, reserved: int, cut: bool) -> int:
    """Return how many sequences one window of these lengths makes."""
    return int(count_sequences_of_windows(lengths, np.array([0, len(lengths)]), length, reserved, cut)[0])


def int32(lengths) -> np.ndarray:
    return np.array(lengths, np.int32)


def sequences_of(packing: Packing) -> list[list[Piece]]:
    """The pieces (document, start, size) of each sequence."""
    pieces = list(zip(packing.document.tolist(), packing.start.tolist(), packing.size.tolist(), strict=True))
    bounds = packing.offsets.tolist()
    return [pieces[first:last] for first, last in zip(bounds, bounds[1:], strict=False)]


def searched(lengths: list[int], length: int, reserved: int, cut: bool) -> list[list[Piece]]:
    """The rules as `pack` has them, by looking at every open sequence for every piece."""
    full, rests = [], []
    for document, own in enumerate(lengths):
        start, left = 0, own + reserved
        if left > length and not cut:
            continue
        while left >= length:
            full.append([(document, start, length)])
            start, left = start + length, left - length
        if left:
            rests.append((document, start, left))
    opened: list[list[Piece]] = []
    touched: list[int] = []
    for time, piece in enumerate(sorted(rests, key=lambda rest: -rest[2])):
        rooms = [length - sum(size for _, _, size in pieces) for pieces in opened]
        fitting = [(room, -touched[place], place) for place, room in enumerate(rooms) if room >= piece[2]]
        place = min(fitting)[2] if fitting else len(opened)
        if not fitting:
            opened.append([])
            touched.append(time)
        opened[place].append(piece)
        touched[place] = time
    return full + [sorted(pieces) for pieces in opened]


def lognormal(count: int, seed: int = 0) -> np.ndarray:
    """Lengths with the median 600 and the mean 1,170."""
    sigma = np.sqrt(2 * np.log(1170 / 600))
    return int32(np.maximum(np.random.default_rng(seed).lognormal(np.log(600), sigma, count), 1))


BY_HAND = [
    # 8 is full; 6 leaves 2, 5 leaves 3, 4 fits in neither; 3 goes where 3 are left, 2 where 2 are left
    ([5, 3, 4, 2, 8, 6], 8, 0, True, [[(4, 0, 8)], [(3, 0, 2), (5, 0, 6)], [(0, 0, 5), (1, 0, 3)], [(2, 0, 4)]]),
    # cuts: full pieces stand alone and first, a rest is packed, an exact multiple leaves none
    (
        [20, 16, 3],
        8,
        0,
        True,
        [[(0, 0, 8)], [(0, 8, 8)], [(1, 0, 8)], [(1, 8, 8)], [(0, 16, 4), (2, 0, 3)]],
    ),
    # the over-long is left out, the exact fit stays
    ([20, 16, 3, 8], 8, 0, False, [[(3, 0, 8)], [(2, 0, 3)]]),
    # three tokens more for each: 5 is full, 6 is cut, 1 and 1 share
    ([5, 6, 1, 1], 8, 3, True, [[(0, 0, 8)], [(1, 0, 8)], [(2, 0, 4), (3, 0, 4)], [(1, 8, 1)]]),
    ([5, 6, 1, 1], 8, 3, False, [[(0, 0, 8)], [(2, 0, 4), (3, 0, 4)]]),
    # equal sizes: the earlier document first; equal rooms: the sequence opened last
    ([5, 5, 3, 3], 8, 0, True, [[(0, 0, 5), (3, 0, 3)], [(1, 0, 5), (2, 0, 3)]]),
    # equal rooms: the sequence filled last, although it was opened first
    ([18, 16, 13, 11, 1], 30, 0, True, [[(0, 0, 18), (3, 0, 11), (4, 0, 1)], [(1, 0, 16), (2, 0, 13)]]),
    ([1, 1, 1], 1, 0, False, [[(0, 0, 1)], [(1, 0, 1)], [(2, 0, 1)]]),
    ([9], 8, 0, False, []),
    ([], 8, 3, True, []),
]


@pytest.mark.parametrize(("lengths", "length", "reserved", "cut", "expected"), BY_HAND)
def test_by_hand(lengths, length, reserved, cut, expected):
    assert sequences_of(pack(int32(lengths), length, reserved, cut)) == expected
    assert count_sequences(int32(lengths), length, reserved, cut) == len(expected)


@st.composite
def windows(draw):
    """Documents, a length at or beside a border of the 64-bit words of the kernel's bit sets, and the other rules."""
    length = draw(st.sampled_from([1, 2, 8, 63, 64, 65, 200, 4095, 4096, 4097, 8192, 32_768, 2**18 + 1, 2**20]))
    sizes = st.one_of(
        st.integers(1, length),
        st.integers(1, min(5, length)),
        st.sampled_from([max(length // k - d, 1) for k in (1, 2, 3, 4) for d in (-1, 0, 1, 3)]),
        st.integers(length, 5 * length),
    )
    return draw(st.lists(sizes, max_size=60)), length, draw(st.sampled_from([0, 3])), draw(st.booleans())


@settings(deadline=None)
@given(windows())
def test_same_as_searching_a_list(window):
    assert sequences_of(pack(int32(window[0]), *window[1:])) == searched(*window)


@settings(deadline=None)
@given(windows())
def test_every_token_once_and_no_sequence_too_long(window):
    """The pieces of a document lie end to end from its first token to its last, or there are none."""
    lengths, length, reserved, cut = window
    packing = pack(int32(lengths), length, reserved, cut)
    for pieces in sequences_of(packing):
        assert 0 < sum(size for _, _, size in pieces) <= length
        assert pieces == sorted(pieces)
    kept = [own + reserved if cut or own + reserved <= length else 0 for own in lengths]
    for document, occupied in enumerate(kept):
        rows = np.flatnonzero(packing.document == document)
        rows = rows[np.argsort(packing.start[rows])]
        ends = np.cumsum([0, *packing.size[rows]])
        assert packing.start[rows].tolist() == ends[:-1].tolist()
        assert ends[-1] == occupied
    assert len(packing.offsets) - 1 == count_sequences(int32(lengths), length, reserved, cut)
    assert len(packing.offsets) - 1 >= -(-sum(kept) // length)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 99), max_size=8), min_size=1, max_size=25), st.randoms())
def test_close_to_the_best_packing(cuts, random):
    """Sequences of 100 tokens cut at random, so the best is known: at most 11/9 of it (Johnson 1973) and 1 are made."""
    sizes = [int(size) for cut in cuts for size in np.diff([0, *sorted(set(cut)), 100])]
    random.shuffle(sizes)
    assert len(cuts) <= count_sequences(int32(sizes), 100, 0, True) <= 11 * len(cuts) // 9 + 1


@pytest.mark.parametrize("length", [8192, 32_768])
@pytest.mark.parametrize("cut", [True, False])
def test_windows_do_not_see_each_other(length, cut):
    """The kernel's structures are used again for every window: each count is that of the window alone."""
    lengths = lognormal(30_000)
    bounds = np.array([0, 0, 5, 4000, 4001, 17_000, 17_000, 30_000])
    found = count_sequences_of_windows(lengths, bounds, length, 3, cut)
    alone = [pack(lengths[first:last], length, 3, cut) for first, last in zip(bounds, bounds[1:], strict=False)]
    assert found.dtype == np.uint32
    assert found.tolist() == [len(packing.offsets) - 1 for packing in alone]


@pytest.mark.parametrize("reserved", [0, 3])
def test_the_longest_documents_there_can_be(reserved):
    """Nothing overflows: 2**31 - 1 tokens and 3 more, as many times over as still pass 2**32 together."""
    lengths = [LONGEST, 5, LONGEST, LONGEST]
    assert count_sequences(int32(lengths), 8192, 0, False) == 1
    expected = sum((own + reserved) // 8192 for own in lengths)
    rests = [(own + reserved) % 8192 for own in lengths]
    assert rests == ([8191, 5, 8191, 8191] if reserved == 0 else [2, 8, 2, 2])
    shared = 4 if reserved == 0 else 1
    assert count_sequences(int32(lengths), 8192, reserved, True) == expected + shared
    packing = pack(int32(lengths), 8192, reserved, True)
    assert packing.start.max() == (2**31 - 8192 if reserved == 0 else 2**31)
    assert packing.start.min() == 0
    assert packing.size.sum(dtype=np.int64) == sum(lengths) + 4 * reserved


@pytest.mark.parametrize("length", [0, -1, -(2**31)])
def test_documents_without_tokens_are_refused(length):
    lengths = int32([7, length, 3])
    for work in (lambda: pack(lengths, 8192, 0, True), lambda: count_sequences(lengths, 8192, 3, False)):
        with pytest.raises(ValueError, match="no tokens\nhint: check the shards"):
            work()


@pytest.mark.parametrize(
    ("documents", "size", "expected"),
    [
        (0, 20_000, [0]),
        (1, 20_000, [0, 1]),
        (20_000, 20_000, [0, 20_000]),
        (20_001, 20_000, [0, 10_000, 20_001]),
        (10, 3, [0, 2, 5, 7, 10]),
        (3, 1, [0, 1, 2, 3]),
    ],
)
def test_window_bounds_by_hand(documents, size, expected):
    bounds = window_bounds(documents, size)
    assert bounds.tolist() == expected
    assert bounds.dtype == np.int64


@settings(deadline=None)
@given(st.integers(1, 2**62), st.integers(1, 5000))
def test_window_bounds_are_exact(documents, count):
    """Also where a bound's place times the documents passes 2**63."""
    size = -(-documents // count)
    bounds = window_bounds(documents, size)
    total = -(-documents // size)
    assert bounds.tolist() == [k * documents // total for k in range(total + 1)]
    assert np.diff(bounds).max() <= size
    assert np.ptp(np.diff(bounds)) <= 1


@pytest.mark.parametrize(("window", "percent"), [(20_000, 0.05), (400_000, 0.01)])
def test_next_to_no_padding(window, percent):
    """Published for best-fit over a whole data set: 0.002 % at 8,192 (Ding et al. 2024, Fewer Truncations)."""
    lengths = lognormal(400_000)
    bounds = window_bounds(len(lengths), window)
    room = int(count_sequences_of_windows(lengths, bounds, 8192, 0, True).sum(dtype=np.int64)) * 8192
    assert 0 <= 100 - 100 * int(lengths.sum(dtype=np.int64)) / room < percent


def test_the_least_room_is_found_however_far_it_lies():
    """One sequence is open, with room for r: every size up to r shares it, and r + 1 does not.

    Sizes and rooms lie at the borders of all three levels of bits: 64, 64**2 and 64**3.
    """
    length, borders = 2**20, [2**power + d for power in (6, 12, 18) for d in (-1, 0, 1, 63, 64)]
    for room in borders:
        for size in [*(border for border in borders if border <= room), 1]:
            assert sequences_of(pack(int32([length - room, size]), length, 0, True)) == [
                [(0, 0, length - room), (1, 0, size)]
            ]
        assert count_sequences(int32([length - room, room + 1]), length, 0, True) == 2


@pytest.mark.parametrize(
    ("length", "reserved", "cut", "expected"),
    [
        (8192, 0, True, "7fc8e62b8ca9fe52"),
        (8192, 3, False, "fbb8a80085b9831c"),
        (32_768, 0, True, "3b222a9f1d366a39"),
    ],
)
def test_frozen(length, reserved, cut, expected):
    """What a run's data rests on: other bytes here ask for another `PACKING_VERSION`."""
    state, lengths = 1, []
    for _ in range(3000):  # a generator of its own, so that numpy's may change
        state = state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407 & (1 << 64) - 1
        lengths.append(1 + (state >> 33) % (40_000 if state >> 62 == 0 else 900))
    packing = pack(int32(lengths), length, reserved, cut)
    columns = (packing.offsets, packing.document, packing.start, packing.size)
    digest = hashlib.sha256(b"".join(column.astype("<i8").tobytes() for column in columns)).hexdigest()
    assert PACKING_VERSION == 1
    assert digest[:16] == expected
