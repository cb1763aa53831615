"""The measure against values worked out by hand."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.main_content.training.scores import (
    PageScore,
    SnippetScore,
    mean_scores,
    page_score,
    paired_bootstrap,
    shingles,
    site_of,
    snippet_score,
)

WORDS = st.lists(st.sampled_from(["a", "b", "c", "Ä", "7"]), max_size=12).map(" ".join)


def test_shingles_are_runs_of_four_tokens_with_their_counts() -> None:
    assert shingles("a b, c-d a b c d") == Counter(
        {("a", "b", "c", "d"): 2, ("b", "c", "d", "a"): 1, ("c", "d", "a", "b"): 1, ("d", "a", "b", "c"): 1}
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", {}), (" .,! ", {}), ("one", {("one",): 1}), ("one_two, drei", {("one_two", "drei"): 1})],
)
def test_short_texts_are_one_shingle_and_empty_ones_none(text: str, expected: dict[tuple[str, ...], int]) -> None:
    assert shingles(text) == expected


def test_a_page_by_hand() -> None:
    # gold: abcd bcde cdef; extract: bcde cdef defg efgh -> 2 in common, 2 too many, 1 missing
    score = page_score("b c d e f g h", "a b c d e f")
    assert score == PageScore(2, 2, 1)
    assert score.precision == 2 / 4
    assert score.recall == 2 / 3
    assert score.f1 == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))


def test_repeated_text_counts_as_often_as_it_stands_there() -> None:
    assert page_score("x y z w " * 3, "x y z w") == PageScore(1, 8, 0)


def test_empty_texts() -> None:
    both, no_extract, no_gold = page_score("", ""), page_score("", "one two"), page_score("one two", "")
    assert (both.precision, both.recall, both.f1) == (1, 1, 1)
    assert (no_extract.precision, no_extract.recall, no_extract.f1) == (0, 0, 0)
    assert (no_gold.precision, no_gold.recall, no_gold.f1) == (0, 0, 0)


def test_means_leave_out_what_the_benchmark_leaves_out() -> None:
    # precision over the pages with an extract: (1/2 + 1) / 2; recall over those with gold: (1 + 0 + 1) / 3
    scores = mean_scores([PageScore(1, 1, 0), PageScore(0, 0, 5), PageScore(3, 0, 0)])
    assert scores.precision == pytest.approx(0.75)
    assert scores.recall == pytest.approx(2 / 3)
    assert scores.published_f1 == pytest.approx(2 * 0.75 * (2 / 3) / (0.75 + 2 / 3))
    assert scores.f1 == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert scores.pages == 3


@given(WORDS, WORDS)
def test_the_published_formula_gives_the_same_numbers(extract: str, gold: str) -> None:
    """The benchmark divides by the sum of all three and works on dicts; written anew from its definition."""
    ours = page_score(extract, gold)
    theirs = shingles(extract), shingles(gold)
    keys = set(theirs[0]) | set(theirs[1])
    tp = sum(min(theirs[0][key], theirs[1][key]) for key in keys)
    fp = sum(max(0, theirs[0][key] - theirs[1][key]) for key in keys)
    fn = sum(max(0, theirs[1][key] - theirs[0][key]) for key in keys)
    assert (ours.true_positives, ours.false_positives, ours.false_negatives) == (tp, fp, fn)
    if tp:
        precision, recall = tp / (tp + fp), tp / (tp + fn)
        assert ours.f1 == pytest.approx(2 * precision * recall / (precision + recall))


@given(WORDS, WORDS)
def test_swapping_the_texts_swaps_precision_and_recall(one: str, other: str) -> None:
    there, back = page_score(one, other), page_score(other, one)
    assert (there.precision, there.recall, there.f1) == (back.recall, back.precision, back.f1)


def test_snippets_are_found_whatever_the_white_space() -> None:
    score = snippet_score("One  two\n\nthree.\tFour", ["two three.", "one"], ["three. Four", "five"])
    assert score == SnippetScore(with_found=1, with_all=2, without_absent=1, without_all=2)
    assert score.mean == 0.5


def test_snippet_scores_add_up_and_a_missing_kind_does_not_count() -> None:
    assert SnippetScore(1, 2, 0, 0).mean == 0.5
    assert SnippetScore(0, 0, 0, 0).mean == 1
    assert SnippetScore(1, 2, 0, 0) + SnippetScore(1, 1, 1, 4) == SnippetScore(2, 3, 1, 4)
    assert SnippetScore(2, 3, 1, 4).mean == pytest.approx((2 / 3 + 1 / 4) / 2)


def test_the_bootstrap_draws_sites_and_not_pages() -> None:
    # two sites: 9 pages at +1 and 1 page at -1. By site, both or either may be drawn: the interval is all of [-1, 1].
    # By page it would be about [.4, 1].
    interval = paired_bootstrap([1.0] * 9 + [-1.0], ["a.com"] * 9 + ["b.com"])
    assert interval.mean == pytest.approx(0.8)
    assert (interval.low, interval.high) == (-1, 1)


def test_the_bootstrap_interval_of_many_sites_is_that_of_the_normal_approximation() -> None:
    differences = [(-1) ** index * (index % 7) / 7 for index in range(400)]
    mean = sum(differences) / 400
    deviation = (sum((value - mean) ** 2 for value in differences) / 400) ** 0.5 / 20
    interval = paired_bootstrap(differences, [f"{index}.com" for index in range(400)])
    assert interval.low == pytest.approx(mean - 1.96 * deviation, abs=0.003)
    assert interval.high == pytest.approx(mean + 1.96 * deviation, abs=0.003)
    assert paired_bootstrap(differences, [f"{index}.com" for index in range(400)]) == interval


def test_the_bootstrap_wants_a_site_for_each_page() -> None:
    with pytest.raises(ValueError, match="2 differences for 1 sites"):
        paired_bootstrap([0.1, 0.2], ["a.com"])


@pytest.mark.parametrize(
    ("url", "site"),
    [
        ("https://www.bbc.co.uk/news/1", "bbc.co.uk"),
        ("http://blog.example.com:8080/", "example.com"),
        ("example.org/path", "example.org"),
        ("https://de.wikipedia.org/wiki/X", "wikipedia.org"),
        ("http://192.0.2.7/", "192.0.2.7"),
        ("", ""),
        ("http://[broken/", "[broken"),
        ("http://localhost/x", "localhost"),
    ],
)
def test_sites(url: str, site: str) -> None:
    assert site_of(url) == site
