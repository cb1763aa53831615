"""Which blocks are chosen, by hand: modes, comments, and what the rule of duplicates takes and leaves."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.main_content import scan as s
from pipelines.main_content.choice import MODES, add_comments, choose, drop_duplicates
from pipelines.main_content.features import P_ONE

SCANNER = s.Scanner()


def scanned(page: str) -> s.Scan:
    """Return the scan of a page."""
    return SCANNER.scan(np.frombuffer(page.encode(), np.uint8))


def chosen(page: str, p: list[float], mode: str) -> list[int]:
    """Return the rows that are chosen where the blocks have these probabilities."""
    scan = scanned(page)
    assert len(scan.blocks) == len(p)
    found = choose(scan.blocks, scan.nodes, np.array([round(one * P_ONE) for one in p], np.int64), MODES.index(mode))
    return np.flatnonzero(found).tolist()


TEN = "<p>a b c d e f g h i j</p>"


@pytest.mark.parametrize(
    ("p", "balanced", "recall"),
    [
        # best expected F1: both of 1: 2 * 20 / (20 + 20) = 1, so what has a half (a sixth for recall)
        ([1, 1, 0], [0, 1], [0, 1]),
        ([1, 1, 0.125], [0, 1], [0, 1]),
        # total 23 words of 30: {0, 1}: 40 / 43 = .930, all: 46 / 53 = .868; the bar is .465 (.155 for recall)
        ([1, 1, 0.3], [0, 1], [0, 1, 2]),
        # total 25: {0, 1}: 40 / 45 = .889, all: 50 / 55 = .909; the bar is .455
        ([1, 1, 0.5], [0, 1, 2], [0, 1, 2]),
        # nothing is likely, but something is chosen: {1}: 2 / (10 + 1.5) = .174, {1, 0}: 3 / 21.5 = .140; the bar .087
        ([0.05, 0.1, 0], [1], [0, 1]),
        ([0, 0, 0], [], []),
        ([0.25, 0.25, 0.25], [0, 1, 2], [0, 1, 2]),
    ],
)
def test_choice_by_expected_f1(p: list[float], balanced: list[int], recall: list[int]) -> None:
    assert chosen(TEN * 3, p, "balanced") == balanced
    assert chosen(TEN * 3, p, "recall") == recall


def test_precision_takes_the_best_container_and_what_is_sure() -> None:
    """Of 13 blocks of ten words with 35 words expected: the page has 70 / 165, the div 38 / 65."""
    page = f"{TEN}{TEN}<div>{TEN}{TEN}{TEN}</div>{TEN * 8}"
    p = [0.79, 0.81, 0.9, 0.9, 0.1, *[0.0] * 8]
    assert chosen(page, p, "balanced") == [0, 1, 2, 3]
    assert chosen(page, p, "precision") == [1, 2, 3]


def test_comments_are_texts_in_parts_that_say_so() -> None:
    page = (
        f"<div>{TEN * 4}</div><div class=comments><p>I like it</p><p>Reply</p><p><a href=x>one two three</a></p></div>"
        "<div class=sidebar><p>not this one</p></div>"
    )
    scan = scanned(page)
    found = np.zeros(len(scan.blocks), np.bool_)
    add_comments(scan.blocks, scan.nodes, found)
    assert np.flatnonzero(found).tolist() == [4]


def kept(page: str, leave: frozenset[int] = frozenset()) -> list[int]:
    """Return the rows that stay where all blocks but `leave` are chosen."""
    scan = scanned(page)
    found = np.array([row not in leave for row in range(len(scan.blocks))], np.bool_)
    drop_duplicates(scan.text, scan.blocks, scan.nodes, found)
    return np.flatnonzero(found).tolist()


def paragraph(name: str, words: int) -> str:
    """Return a paragraph of so many words that no other name has."""
    return "<p>" + " ".join(f"{name}{k}" for k in range(words)) + "</p>"


ARTICLE = paragraph("a", 20) + paragraph("b", 20)


def test_a_second_copy_in_another_container_is_dropped() -> None:
    assert kept(f"<div>{ARTICLE}</div>x<div>{ARTICLE}</div>") == [0, 1, 2]
    assert kept(f"<div>{ARTICLE}</div><div>{ARTICLE}</div>{paragraph('c', 9)}") == [0, 1, 4]


def test_equal_paragraphs_side_by_side_stay() -> None:
    assert kept(f"<div>{ARTICLE}{ARTICLE}</div>") == [0, 1, 2, 3]


def test_a_refrain_stays() -> None:
    """29 words in a row are no second copy, 30 are."""
    for words, rows in ((29, [0, 1, 2]), (30, [0, 1])):
        assert kept(f"<div>{paragraph('a', words)}</div>x<div>{paragraph('a', words)}</div>") == rows


def test_short_blocks_stay_and_end_a_run() -> None:
    seven, eight = paragraph("s", 7), paragraph("e", 8)
    assert kept(f"<div>{seven * 9}</div><div>{seven * 9}</div>") == list(range(18))
    assert kept(f"<div>{eight * 4}</div><div>{eight * 4}</div>") == [0, 1, 2, 3]
    cut = paragraph("a", 20) + "x" + paragraph("b", 20)
    assert kept(f"<div>{cut}</div><div>{cut}</div>") == [0, 1, 2, 3, 4, 5]


def test_four_fifths_of_the_shingles_must_be_the_same() -> None:
    """40 words have 37 shingles; each changed one in the middle spoils 4: 29 of 37 are too few, 33 enough."""
    words = [f"w{k}" for k in range(40)]
    for places, rows in (((8,), [0]), ((8, 20), [0, 1])):
        other = [f"x{k}" if k in places else word for k, word in enumerate(words)]
        assert kept(f"<div><p>{' '.join(words)}</p></div><section><p>{' '.join(other)}</p></section>") == rows


def test_blocks_that_are_not_chosen_are_no_first_copy() -> None:
    page = f"<div>{paragraph('a', 40)}</div><div>{paragraph('a', 40)}</div>"
    assert kept(page, frozenset({0})) == [1]
