"""What the main content of a page is taken to be: gold where it has one, else the text of one of the tools.

- the collection's own text, made by hand, by a parser written for the site, or by another tool and reviewed; the last
  is believed only if one of ours gives nearly the same. The weight is the collection's.
- `snippets`: the page has snippets that the text must and must not hold, and they may be used: the tool whose text has
  the best snippet score; equally good ones are told apart by agreement.
- `consensus`: the tool whose text has the highest mean F1 to those of the others. The page's weight is that mean.

`seconds` are the texts of the other tools that differ from the label: a block on which they disagree with it deserves
half the weight. Pages with snippets are halved by the hash of their site: snippets choose labels in one half and are
scored in the other, so that no page's score comes from snippets that chose its label.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import xxhash

from pipelines.main_content.training.catalogue import HALVES, REPORT, TRAIN, Page
from pipelines.main_content.training.scores import shingle_score, shingles, snippet_score

LABELLING, REPORTING = "labelling", "reporting"

TOOL = "tool"
"""Kind of gold that is the reviewed output of another tool, which may take comments or a list for main content too."""

MIN_SUPPORT = 0.6
"""F1 that one of our tools must reach against such a gold; Readability's fixtures all have .8, failed parses near 0."""

MIN_AGREEMENT = 0.2
"""Mean F1 below which the tools say nothing about a page: weight 0."""


@dataclasses.dataclass(frozen=True, slots=True)
class Label:
    """The text that a page is trained on, how it came about, other opinions, and the page's weight in [0, 1]."""

    text: str
    kind: str
    seconds: tuple[str, ...]
    weight: float


def half_of(site: str) -> str:
    """Return the half that a site belongs to: snippets choose labels in `labelling`, are scored in `reporting`."""
    return LABELLING if xxhash.xxh3_64_intdigest(site) & 1 == 0 else REPORTING


def role_of(page: Page) -> str:
    """Return the page's role: that of its collection, or `report` where its snippets are kept for scores."""
    if page.role != HALVES:
        return page.role
    return REPORT if half_of(page.site) == REPORTING else TRAIN


def label_page(page: Page, texts: Mapping[str, str]) -> Label:
    """Return the label of a page; `texts` are what the tools say, by tool, the most trusted first."""
    if page.gold is not None and (page.gold_kind != TOOL or _is_supported(page.gold, texts)):
        return Label(page.gold, page.gold_kind, (), page.weight)
    agreement = agreements(texts)
    if _has_snippets(page) and role_of(page) != REPORT:
        return _by_snippets(page, texts, agreement)
    best = max(texts, key=agreement.__getitem__)
    trust = agreement[best] if agreement[best] >= MIN_AGREEMENT else 0.0
    return Label(texts[best], "consensus", _seconds(best, texts), page.weight * trust)


def agreements(texts: Mapping[str, str]) -> dict[str, float]:
    """Return for each tool the mean F1 between its text and those of the others."""
    bags = {tool: shingles(text) for tool, text in texts.items()}
    others = len(bags) - 1
    return {
        tool: sum(shingle_score(bags[tool], bags[other]).f1 for other in bags if other != tool) / others
        for tool in bags
    }


def _is_supported(gold: str, texts: Mapping[str, str]) -> bool:
    wanted = shingles(gold)
    return any(shingle_score(shingles(text), wanted).f1 >= MIN_SUPPORT for text in texts.values())


def _has_snippets(page: Page) -> bool:
    return bool(page.snippets_with or page.snippets_without)


def _by_snippets(page: Page, texts: Mapping[str, str], agreement: Mapping[str, float]) -> Label:
    scores = {tool: _snippet_quality(page, text, agreement[tool]) for tool, text in texts.items()}
    best = max(texts, key=lambda tool: (scores[tool], agreement[tool]))
    return Label(texts[best], "snippets", _seconds(best, texts), page.weight * scores[best])


def _snippet_quality(page: Page, text: str, agreement: float) -> float:
    """Return the mean of both shares of a text's snippets; agreement stands for a share that has no snippets."""
    score = snippet_score(text, page.snippets_with, page.snippets_without)
    found = score.with_found / score.with_all if score.with_all else agreement
    absent = score.without_absent / score.without_all if score.without_all else agreement
    return (found + absent) / 2


def _seconds(best: str, texts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the other tools' texts, each once, the most trusted first."""
    return tuple(dict.fromkeys(text for tool, text in texts.items() if tool != best and text != texts[best]))
