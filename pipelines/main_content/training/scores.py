r"""The measure of main content, one for every extractor: shingles against gold, snippets, a paired bootstrap by site.

Formula of scrapinghub's article extraction benchmark (evaluate.py, MIT): a text's tokens are `\w+`; its shingles are
the multiset of its runs of 4 tokens, a text of 1 to 3 tokens being one shingle and one of none having none. Of two
multisets, the shingles in common are true positives, what only the extract has false positives, what only the gold
has false negatives. Two empty texts agree perfectly; an empty one and a full one do not agree at all.

Two figures go by the name of F1: `f1` here is the mean of the pages' F1; `published_f1`, which that benchmark prints,
is the harmonic mean of mean precision (over pages with an extract) and mean recall (over pages with a gold text).
About 2,000 pages a second.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tldextract import TLDExtract

SHINGLE = 4
"""Tokens in a shingle (the benchmark's `ngram_n`)."""

BOOTSTRAP_SEED = 20261125
BOOTSTRAP_ROUNDS = 10_000

_TOKEN = re.compile(r"\w+")


@dataclasses.dataclass(frozen=True, slots=True)
class PageScore:
    """Shingles of one page: in both texts, only in the extract, only in the gold."""

    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def precision(self) -> float:
        """Share of the extract that is gold; 1 where both are empty, 0 where only one is."""
        return _share(self.true_positives, self.false_positives, self.false_negatives)

    @property
    def recall(self) -> float:
        """Share of the gold that was extracted; 1 where both are empty, 0 where only one is."""
        return _share(self.true_positives, self.false_negatives, self.false_positives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall of this page."""
        wrong = self.false_positives + self.false_negatives
        return 2 * self.true_positives / (2 * self.true_positives + wrong) if self.true_positives or wrong else 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """Means over pages; `precision` and `recall` leave out pages where the benchmark has them undefined."""

    pages: int
    f1: float
    precision: float
    recall: float
    published_f1: float


@dataclasses.dataclass(frozen=True, slots=True)
class SnippetScore:
    """How many of the snippets that must be in the text are, and how many of those that must not be are not."""

    with_found: int
    with_all: int
    without_absent: int
    without_all: int

    @property
    def mean(self) -> float:
        """Mean of the two shares, of those that there are; 1 for a page without snippets."""
        shares = [
            found / total
            for found, total in ((self.with_found, self.with_all), (self.without_absent, self.without_all))
            if total
        ]
        return sum(shares) / len(shares) if shares else 1.0

    def __add__(self, other: SnippetScore) -> SnippetScore:
        return SnippetScore(
            self.with_found + other.with_found,
            self.with_all + other.with_all,
            self.without_absent + other.without_absent,
            self.without_all + other.without_all,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the ends of its 95% bootstrap interval."""

    mean: float
    low: float
    high: float


def shingles(text: str) -> Counter[tuple[str, ...]]:
    """Return the multiset of a text's runs of 4 tokens."""
    tokens = _TOKEN.findall(text)
    if not tokens:
        return Counter()
    return Counter(tuple(tokens[start : start + SHINGLE]) for start in range(max(1, len(tokens) - SHINGLE + 1)))


def page_score(extract: str, gold: str) -> PageScore:
    """Compare the text of one page with its gold."""
    return shingle_score(shingles(extract), shingles(gold))


def shingle_score(extract: Counter[tuple[str, ...]], gold: Counter[tuple[str, ...]]) -> PageScore:
    """Compare the shingles of one page with those of its gold."""
    common = (extract & gold).total()
    return PageScore(common, extract.total() - common, gold.total() - common)


def mean_scores(pages: Sequence[PageScore]) -> Scores:
    """Return the means over pages; there must be one with an extract and one with a gold text."""
    precision = _mean(page.precision for page in pages if page.true_positives + page.false_positives)
    recall = _mean(page.recall for page in pages if page.true_positives + page.false_negatives)
    both = precision + recall
    published = 2 * precision * recall / both if both else 0.0
    return Scores(len(pages), _mean(page.f1 for page in pages), precision, recall, published)


def snippet_score(extract: str, required: Iterable[str], forbidden: Iterable[str]) -> SnippetScore:
    """Count a page's snippets in its text; runs of whitespace count as one space, in both."""
    text = _one_spaced(extract)
    found = [_one_spaced(snippet) in text for snippet in required]
    absent = [_one_spaced(snippet) not in text for snippet in forbidden]
    return SnippetScore(sum(found), len(found), sum(absent), len(absent))


def paired_bootstrap(differences: Sequence[float], sites: Sequence[str], rounds: int = BOOTSTRAP_ROUNDS) -> Interval:
    """Return the mean of per-page differences with its 95% interval, drawing whole sites with replacement.

    Pages of one site are made by one template, so the site and not the page is what is drawn. The seed is fixed.
    """
    if len(differences) != len(sites) or not sites:
        raise ValueError(f"{len(differences)} differences for {len(sites)} sites\nhint: give one site for each page")
    _, index = np.unique(np.asarray(sites), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(differences, float))
    counts = np.bincount(index)
    drawn = np.random.default_rng(BOOTSTRAP_SEED).integers(0, len(sums), (rounds, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(np.mean(differences)), float(low), float(high))


def site_of(url: str) -> str:
    """Return the registered domain of a URL (`bbc.co.uk`), or its host where it has none, "" where it has no host."""
    found = _domains()(url.lower())
    return found.top_domain_under_public_suffix or found.domain


@cache
def _domains() -> TLDExtract:
    """Return the public suffix list that tldextract bundles; nothing is downloaded or written."""
    from tldextract import TLDExtract

    return TLDExtract(cache_dir=None, suffix_list_urls=(), fallback_to_snapshot=True)


def _share(right: int, wrong: int, other_wrong: int) -> float:
    if not right and not wrong:
        return 0.0 if other_wrong else 1.0
    return right / (right + wrong)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


def _one_spaced(text: str) -> str:
    return " ".join(text.split())
