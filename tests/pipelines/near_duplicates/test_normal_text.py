from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.near_duplicates.normal_text import normal_text_hashes
from pipelines.near_duplicates.shingles import shingle_sets

SAME = ["The mill, 1892!", "the  MILL\n1892", "Thé-mill (1892)", "the mill 1892"]
OTHERS = ["the mill 1893", "mill the 1892", "the mill", "themill 1892", "", "!", "?", " "]


def hashes(*texts: str | None) -> list[bytes]:
    return normal_text_hashes(pa.array(texts, pa.large_string())).to_pylist()


def test_the_same_words_are_the_same_text():
    assert len(set(hashes(*SAME))) == 1
    assert len(set(hashes(SAME[0], *OTHERS))) == 1 + len(OTHERS)
    assert hashes(None) == hashes("")


def test_a_long_text_is_read_to_its_end():
    words = [f"w{number}" for number in range(5_000)]
    one, other = " ".join(words), ", ".join(words).upper()
    changed = one[:-1] + "x"
    assert hashes(one)[0] == hashes(other)[0] != hashes(changed)[0]


@given(st.lists(st.sampled_from(["a", "B", "é", "ß", "語", "1", " ", "-", "\\n", "́"]), max_size=12).map("".join))
@settings(max_examples=200, deadline=None)
def test_texts_are_the_same_whose_only_shingle_is(text):
    """A shingle of more words than there are is the whole text: 64 bits of it, and ours agree."""
    other = text.upper().replace(" ", "-- ")
    offsets, sets = shingle_sets(pa.array([text, other], pa.large_string()), "word", 64)
    if offsets[1] == 1 and offsets[2] == 2:
        one, two = hashes(text, other)
        assert (one == two) == (sets[0] == sets[1])
