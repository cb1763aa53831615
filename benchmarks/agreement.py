"""Verdicts of the Gopher, C4 and FineWeb rules beside datatrove's, rule by rule, on real English documents.

    python benchmarks/agreement.py [--data ../shared/data] [--json FILE]

Twice: with datatrove's own words and sentences in the place of ours (what is left are differences of the rules, each
listed with its document), and with our words (what a word is, too). One rule is judged at a time, all others off, at
its default threshold, stop words by case and trailing white space not ignored, as datatrove does. Its filters run as
they are; only its word tokenizer remembers what it has cut. Texts of more than 16,000 characters are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils import text as datatrove_text
from english_texts import read_english_texts, text_batch

from pipelines.transforms import c4, fineweb, gopher, gopher_repetition
from pipelines.transforms.rules import RuleFilter
from pipelines.transforms.spans import NO_GIVEN_WORDS, GivenWords

MOST_CHARACTERS = 16_000

GOPHER_QUALITY = {
    "min_words": {"min_doc_words": 50},
    "max_words": {"max_doc_words": 100_000},
    "min_mean_word_length": {"min_avg_word_length": 3},
    "max_mean_word_length": {"max_avg_word_length": 10},
    "max_hashes": {"max_symbol_word_ratio": 0.1},
    "max_ellipses": {"max_symbol_word_ratio": 0.1},
    "max_bullet_lines": {"max_bullet_lines_ratio": 0.9},
    "max_ellipsis_lines": {"max_ellipsis_lines_ratio": 0.3},
    "min_alphabetic_words": {"max_non_alpha_words_ratio": 0.8},
    "min_stop_words": {"min_stop_words": 2},
}
"""Our rule, and the argument of datatrove's filter that it is."""
REASONS = {"max_hashes": "gopher_too_many_hashes", "max_ellipses": "gopher_too_many_ellipsis"}
"""Of an argument that is two rules, the reason that tells them apart."""
REPETITION = {
    "max_duplicate_paragraphs": {"dup_para_frac": 0.3},
    "max_duplicate_paragraph_characters": {"dup_para_char_frac": 0.2},
    "max_duplicate_lines": {"dup_line_frac": 0.3},
    "max_duplicate_line_characters": {"dup_line_char_frac": 0.2},
    **{f"max_top_{n}_grams": {"top_n_grams": ((n, limit),)} for n, limit in ((2, 0.2), (3, 0.18), (4, 0.16))},
    **{
        f"max_duplicate_{n}_grams": {"dup_n_grams": ((n, limit),)}
        for n, limit in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    },
}
FINEWEB = {
    "min_punctuated_lines": {"line_punct_thr": 0.12},
    "max_short_lines": {"short_line_thr": 0.67},
    "max_duplicate_line_characters": {"char_duplicates_ratio": 0.01},
    "max_line_breaks": {"new_line_ratio": 0.3},
}
C4 = {
    "max_lorem_ipsum_lines": {"filter_lorem_ipsum": True},
    "max_curly_bracket_lines": {"filter_curly_bracket": True},
    "min_sentences": {"min_num_sentences": 5},
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One rule over all documents."""

    family: str
    rule: str
    documents: int
    dropped: int
    """By datatrove."""
    differ: tuple[str, ...]
    """Names of the documents on which the verdicts differ."""

    @property
    def agreement(self) -> float:
        """The share of documents with one verdict."""
        return 1 - len(self.differ) / self.documents


def main() -> None:
    """Compare, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[1] / "../shared/data")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    texts = {name: text for name, text in read_english_texts(arguments.data).items() if len(text) <= MOST_CHARACTERS}
    result: dict[str, Any] = {"documents": len(texts)}
    for words, given in (("datatrove's words", True), ("our words", False)):
        compared = list(compare(texts, datatrove_words=given))
        print(f"\nWith {words}, {len(texts)} English documents:")
        for one in compared:
            print(f"{one.family:18} {one.rule:36} {one.dropped:6} dropped {100 * one.agreement:8.3f}% agree")
            if given:
                for name in one.differ:
                    print(f"{'':56}{name}")
        result[words] = [dataclasses.asdict(one) | {"agreement": one.agreement} for one in compared]
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def compare(texts: dict[str, str], *, datatrove_words: bool) -> Iterator[Comparison]:
    """Yield a comparison for every rule."""
    names, documents = list(texts), list(texts.values())
    words = [split_words(text) for text in documents]
    given = GivenWords.find(documents, words) if datatrove_words else NO_GIVEN_WORDS
    column = pa.array(documents, pa.large_string())
    ours = {
        "gopher_quality": (gopher.GopherQuality(), gopher.statistics(column, given, fold_case=False)),
        "gopher_repetition": (gopher_repetition.GopherRepetition(), gopher_repetition.statistics(column, given)),
        "fineweb_quality": (
            fineweb.FineWebQuality(),
            fineweb.statistics(column, given=given, ignore_trailing_space=False),
        ),
        "c4_quality": c4_statistics(documents, datatrove_sentences=datatrove_words),
    }
    theirs: dict[str, tuple[dict[str, dict], Callable[[dict], Any]]] = {
        "gopher_quality": (GOPHER_QUALITY, lambda one: _alone(GopherQualityFilter, one)),
        "gopher_repetition": (REPETITION, lambda one: _alone(GopherRepetitionFilter, one)),
        "fineweb_quality": (FINEWEB, _fineweb_alone),
        "c4_quality": (C4, _c4_alone),
    }
    with remembered_words():
        for family, (transform, stats) in ours.items():
            rules, make = theirs[family]
            for rule in transform.rules:
                if rule.name in rules:
                    verdicts = [_drops(make(rules[rule.name]), text, REASONS.get(rule.name)) for text in documents]
                    drops = ~rule.passed(stats)
                    differ = tuple(name for name, a, b in zip(names, verdicts, drops, strict=True) if a != bool(b))
                    yield Comparison(family, rule.name, len(names), sum(verdicts), differ)


def c4_statistics(documents: list[str], *, datatrove_sentences: bool) -> tuple[RuleFilter, np.ndarray]:
    """Return C4's counts without the rule of end marks, as FineWeb has it."""
    transform = c4.C4Quality(require_end_mark=False)
    edited, stats = transform.measured(text_batch(documents))
    if datatrove_sentences:
        stats[:, c4.SENTENCES] = [
            sum(len(datatrove_text.split_into_sentences(line)) for line in text.split("\n") if line)
            for text in edited.column("text").to_pylist()
        ]
    return transform, stats


@cache
def split_words(text: str) -> list[str]:
    """Return datatrove's words of a text."""
    return datatrove_text.split_into_words(text)


@contextmanager
def remembered_words() -> Iterator[None]:
    """Let datatrove's filters take the words of a text from memory."""
    with ExitStack() as patches:
        for module in ("gopher_quality_filter", "gopher_repetition_filter", "fineweb_quality_filter"):
            name = f"datatrove.pipeline.filters.{module}.split_into_words"
            patches.enter_context(mock.patch(name, lambda text, language=None: split_words(text)))
        yield


def _alone(kind: Any, arguments: dict[str, Any]) -> Any:
    """Return datatrove's filter with one rule on."""
    off = {
        GopherQualityFilter: dict.fromkeys({name for one in GOPHER_QUALITY.values() for name in one}),
        GopherRepetitionFilter: {
            **dict.fromkeys(("dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac")),
            "top_n_grams": (),
            "dup_n_grams": (),
        },
    }[kind]
    return kind(**{**off, **arguments})


def _fineweb_alone(arguments: dict[str, Any]) -> FineWebQualityFilter:
    off = {"line_punct_thr": 0, "short_line_thr": 1, "char_duplicates_ratio": 1e9, "new_line_ratio": 1e9}
    return FineWebQualityFilter(**{**off, **arguments})


def _c4_alone(arguments: dict[str, Any]) -> C4QualityFilter:
    off = {"filter_lorem_ipsum": False, "filter_curly_bracket": False, "min_num_sentences": -1}
    return C4QualityFilter(filter_no_terminal_punct=False, **{**off, **arguments})


def _drops(filter_: Any, text: str, reason: str | None) -> bool:
    verdict = filter_.filter(Document(text=text, id=""))
    if verdict is True:
        return False
    return reason is None or verdict[1] == reason


if __name__ == "__main__":
    main()
