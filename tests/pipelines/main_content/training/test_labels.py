"""Which text a page is labelled with, worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines.main_content.training.catalogue import HALVES, Page
from pipelines.main_content.training.labels import LABELLING, REPORTING, agreements, half_of, label_page, role_of

PAGE = Page("c", "1", "example.org", None, "en", "<p>", None, "none", 1.0, "train")
TEXTS = {"first": "a b c d e", "second": "a b c d e f", "third": "q r s t"}
IN_LABELLING = next(site for site in (f"{n}.org" for n in range(9)) if half_of(site) == LABELLING)
IN_REPORTING = next(site for site in (f"{n}.org" for n in range(9)) if half_of(site) == REPORTING)


def test_gold_is_the_label_with_the_weight_of_its_collection() -> None:
    label = label_page(dataclasses.replace(PAGE, gold="gold", gold_kind="parser", weight=0.5), TEXTS)
    assert (label.text, label.kind, label.seconds, label.weight) == ("gold", "parser", (), 0.5)


def test_another_tools_text_is_believed_only_if_one_of_ours_comes_near() -> None:
    # against second (3 shingles) first has F1 4/5; against "c d e f g h" (3 shingles) second has 1 in common: 1/3
    page = dataclasses.replace(PAGE, gold="a b c d e f", gold_kind="tool", weight=0.5)
    assert label_page(page, {**TEXTS, "second": ""}).text == "a b c d e f"
    label = label_page(dataclasses.replace(page, gold="c d e f g h"), TEXTS)
    assert (label.text, label.kind, label.weight) == (TEXTS["first"], "consensus", pytest.approx(0.5 * 0.4))


def test_agreement_is_the_mean_f1_to_the_others() -> None:
    # first has 2 shingles, second 3, 2 in common: F1 = 4/5; third has nothing in common
    assert agreements(TEXTS) == pytest.approx({"first": 0.4, "second": 0.4, "third": 0.0})


def test_without_snippets_the_tool_that_agrees_most_is_believed_and_the_first_of_equals() -> None:
    label = label_page(PAGE, TEXTS)
    assert (label.text, label.kind, label.weight) == (TEXTS["first"], "consensus", pytest.approx(0.4))
    assert label.seconds == (TEXTS["second"], TEXTS["third"])


def test_a_page_on_which_nobody_agrees_has_no_weight() -> None:
    texts = {"first": "a b c d", "second": "e f g h", "third": "i j k l"}
    assert label_page(PAGE, texts).weight == 0


def test_a_page_on_which_all_see_nothing_is_a_negative_example() -> None:
    label = label_page(PAGE, dict.fromkeys(TEXTS, ""))
    assert (label.text, label.weight, label.seconds) == ("", pytest.approx(1.0), ())


def test_snippets_choose_the_tool_that_has_them_right() -> None:
    page = dataclasses.replace(PAGE, snippets_with=("r s",), snippets_without=("e f",), role=HALVES, site=IN_LABELLING)
    label = label_page(page, TEXTS)
    assert (label.text, label.kind, label.weight) == (TEXTS["third"], "snippets", 1)
    assert role_of(page) == "train"


def test_snippets_of_the_reporting_half_choose_nothing() -> None:
    page = dataclasses.replace(PAGE, snippets_with=("r s",), snippets_without=("e f",), role=HALVES, site=IN_REPORTING)
    assert label_page(page, TEXTS).kind == "consensus"
    assert role_of(page) == "report"


def test_where_nothing_is_forbidden_agreement_stands_for_precision() -> None:
    # second: found 1, agreement .4 -> .7; first: 0 and .4 -> .2; third: found 0, agreement 0
    label = label_page(dataclasses.replace(PAGE, snippets_with=("e f",)), TEXTS)
    assert (label.text, label.weight) == (TEXTS["second"], pytest.approx(0.7))


def test_halves_are_fixed_and_about_equal() -> None:
    halves = [half_of(f"site{number}.org") for number in range(1_000)]
    assert 440 <= halves.count(LABELLING) <= 560
    assert (half_of("example.org"), half_of("bbc.co.uk")) == (half_of("example.org"), half_of("bbc.co.uk"))
