"""The bytes of a rank, by hand, and that they order documents as the recipe says."""

from __future__ import annotations

import datetime

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import batch_of, document

from pipelines.transforms.quality import SCORE
from pipelines.transforms.rank import RANK_BYTES, WIDTHS, Rank

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def ranks(rows: list[dict], rank: Rank, *adds: pa.Field) -> list[bytes]:
    out = rank(batch_of(rows, adds))
    assert set(out.column("place").to_pylist()) <= {rank.place}
    return out.column("rank").to_pylist()


def dated(text: str | None, seconds: int | None) -> dict:
    date = None if seconds is None else EPOCH + datetime.timedelta(seconds=seconds)
    return document(text, natural_key=f"{text} {seconds}", date=date)


def test_the_bytes_by_hand():
    """Generation 1; source 2; score 9,000; 4 bytes of text; 2 seconds after 1970; then zeros."""
    row = dated("text", 2) | {SCORE.name: 9_000}
    assert ranks([row], Rank(2, generation=1), SCORE) == [
        bytes.fromhex("0001" "0002" "03e8" "fffffffb" "000000000002")
    ]  # fmt: skip
    assert ranks([row], Rank(2, ("newest",)), SCORE) == [bytes.fromhex("0000fffffffffffc" + 8 * "00")]
    assert ranks([row], Rank(2, ("length", "source"), 65_535), SCORE) == [
        bytes.fromhex("ffff" "fffffffb" "0002" + 8 * "00")
    ]  # fmt: skip


def test_what_is_not_known_comes_last():
    low, unknown = dated("text", 5) | {SCORE.name: 0}, document(None, natural_key="none") | {SCORE.name: None}
    assert ranks([unknown], Rank(0, ("quality",)), SCORE) == ranks([low], Rank(0, ("quality",)), SCORE)
    assert ranks([low], Rank(0, ("quality",))) == [bytes.fromhex("00002710" + 12 * "00")]
    for word in ("oldest", "newest"):
        known, none = ranks([dated("text", 5), dated("text", None)], Rank(0, (word,)))
        assert known < none
        early, late = ranks([dated("text", -1), dated("text", 1 << 33)], Rank(0, (word,)))
        assert max(early, late) < none
    assert ranks([unknown], Rank(0, ("length",)), SCORE) == [bytes.fromhex("0000ffffffff" + 10 * "00")]


def test_the_widest_preferences_fit():
    assert 2 + sum(WIDTHS[word] for word in ("source", "quality", "length", "oldest")) == RANK_BYTES


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=12),
    st.permutations(["quality", "length", "oldest"]),
)
def test_the_order_is_that_of_the_preferences(documents, prefer):
    """A higher score, a longer text and an earlier date come first, the most important one deciding."""
    rows = [
        dated("x" * length, date) | {SCORE.name: score, "natural_key": str(place)}
        for place, (score, length, date) in enumerate(documents)
    ]
    found = ranks(rows, Rank(0, tuple(prefer)), SCORE)
    better = {"quality": lambda one: -one[0], "length": lambda one: -one[1], "oldest": lambda one: one[2]}
    keys = [tuple(better[word](one) for word in prefer) for one in documents]
    for one in range(len(rows)):
        for other in range(len(rows)):
            assert (found[one] < found[other]) == (keys[one] < keys[other])


def test_a_slice_is_ranked_like_the_whole():
    rows = [dated("x" * num, num) for num in range(1, 6)]
    batch = batch_of(rows)
    assert Rank(1)(batch.slice(2, 2)).column("rank").equals(Rank(1)(batch).column("rank").slice(2, 2))
    assert Rank(1).evidence(batch) == [[]] * 5
