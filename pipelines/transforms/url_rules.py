"""Rules on the URL of a page: lists of domains and addresses, and words in three strengths.

Penedo et al. 2023 (RefinedWeb, arXiv 2306.01116), appendix G.1, as datatrove's `URLFilter` reads it, but that lists are
yours to give. What an entry stands for is in `addresses.py` and `url_words.py`, the format of the files in `lists.py`.
A document without a URL passes. Stand it before `extract`, so that a page that goes costs no extraction.

Cost: see docs/rights-and-urls.md.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pyarrow as pa

from pipelines.transform import EMPTY_SCHEMA, Evidence
from pipelines.transforms.addresses import address_list, normalised_addresses
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.named_rules import NamedRule, evidence_of, with_verdicts
from pipelines.transforms.url_words import MAX_SOFT, url_words

UNLISTED = "not listed"


@dataclasses.dataclass(frozen=True, slots=True)
class UrlRules:
    """Drops pages by their URLs.

    Reasons, of which the first that holds is the verdict's: `url_rules.kept_out`, `.blocked_domain`, `.blocked_url`,
    `.strict_word`, `.hard_word`, `.soft_words`.
    """

    name: ClassVar[str] = "url_rules"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = EMPTY_SCHEMA
    drops: ClassVar[tuple[str, ...]] = ()
    before_extract: ClassVar[bool] = True

    kept_out: tuple[GivenFile, ...] = ()
    """Sources that are kept for evaluation or curated elsewhere (RefinedWeb left Wikipedia, GitHub, arXiv ... out)."""
    blocked: tuple[GivenFile, ...] = ()
    """Domains with all that is below them, and addresses with all that goes on behind them."""
    strict_words: tuple[GivenFile, ...] = ()
    """Anywhere in the URL."""
    hard_words: tuple[GivenFile, ...] = ()
    """As a whole word of the URL."""
    soft_words: tuple[GivenFile, ...] = ()
    """As whole words, `min_soft_words` different ones."""
    min_soft_words: int = 2

    def __post_init__(self) -> None:
        """Refuse a number of words that every URL has, or none can have. Raises `ValueError`."""
        if type(self.min_soft_words) is not int or not 1 <= self.min_soft_words <= MAX_SOFT:
            raise ValueError(f"min_soft_words: {self.min_soft_words!r}\nhint: give a whole number from 1 to {MAX_SOFT}")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Set the verdict of what is listed. Raises `RecipeError` for a list that cannot be read."""
        return with_verdicts(batch, self._rules(batch))

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Return the entry, word or count that each rule found."""
        return evidence_of(batch.num_rows, self._rules(batch))

    def _rules(self, batch: pa.RecordBatch) -> list[NamedRule]:
        urls = batch.column("url")
        rules = []
        addresses = normalised_addresses(urls)
        if self.kept_out:
            kept_out = address_list(self.kept_out)
            kept = kept_out.find(addresses)
            found = (kept.domains >= 0) | (kept.urls >= 0)
            rules.append(NamedRule("url_rules.kept_out", found, lambda row: kept_out.entry(kept, row) or "", UNLISTED))
        if self.blocked:
            blocked = address_list(self.blocked)
            domains, pages = blocked.find(addresses)
            rules += [
                NamedRule(
                    "url_rules.blocked_domain", domains >= 0, lambda row: blocked.domains[domains[row]], UNLISTED
                ),
                NamedRule("url_rules.blocked_url", pages >= 0, lambda row: blocked.urls[pages[row]], UNLISTED),
            ]
        if self.strict_words or self.hard_words or self.soft_words:
            words = url_words(self.strict_words, self.hard_words, self.soft_words)
            strict, hard, soft = words.find(urls)
            too_soft = soft >= self.min_soft_words
            rules += [
                NamedRule("url_rules.strict_word", strict >= 0, lambda row: words.strict[strict[row]], UNLISTED),
                NamedRule("url_rules.hard_word", hard >= 0, lambda row: words.hard[hard[row]], UNLISTED),
                NamedRule("url_rules.soft_words", too_soft, lambda row: str(soft[row]), f"< {self.min_soft_words}"),
            ]
        return rules
