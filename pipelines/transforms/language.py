"""Language identification by two models together: py3langid's byte n-grams and CLD2's quadgrams, over 180 languages.

Each of the two errs elsewhere: py3langid names the wrong one of many rare languages, CLD2 says English too easily. So
every language gets a value from both,

    value(language) = (s(language) - s(best)) / sqrt(bytes) + 3/2 * share(language) * min(1, points(language) / 400)

where s is py3langid's score (a log-probability up to a constant; the square root keeps long texts from being always
certain), share the part of the text that CLD2 finds in that language, 0 to 1, and points what it gives that part per
KiB: 80 to 350 for texts in languages that it does not know, mostly more for those that it knows. What py3langid cannot
name gets -3/4 in place of the first term, and counts only where CLD2 finds it. The greatest value is the label.

The score is the label's probability: the softmax of twice the values, times what CLD2's finding leaves room for: the
part of the text that it does not find in other languages, times min(1, points / 400) of the label's part. So in a text
of several languages the largest has about its share as its score, and a threshold of 0.65 asks for two thirds of the
text. A language that only py3langid can name has the softmax alone, with a fifth of the sharpness; one that only
CLD2 can name has p^3 / (p^3 + 10^3) in place of the softmax, p being the points of its part in all. What is nothing to
both (empty, a script without a language), or rounds to 0, has no language and score 0.

The numbers were chosen on one half of lingua's test sentences (sentences, word pairs and documents made of them), the
400 and the fifth on those texts of UDHR whose languages are not among lingua's; `benchmarks/language_id.py` reports on
the other half. Nothing was trained.

Label and score are integers made of integers by IEEE additions, multiplications, divisions and square roots in a
fixed order, so they are the same on every machine for one version of Unicode normalization. At most `max_bytes` bytes
of a text are looked at, in windows spread over it, so the cost of a document is bounded. A CPU second: about 40,000
sentences, or 4,000 documents of 4,000 characters; once a process 1.5 s and 200 MB.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import ClassVar

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.transform import Evidence, replace_column, set_verdict, verdicts
from pipelines.transforms import language_cld2, language_ngrams
from pipelines.transforms.language_cld2 import NAMELESS
from pipelines.transforms.language_ngrams import (
    COUNT_BITS,
    MAX_BYTES_LIMIT,
    WEIGHT_BITS,
    WINDOWS,
    add_up,
    count_features,
)
from pipelines.transforms.words import text_view

LANGUAGES = language_ngrams.LANGUAGES | language_cld2.LANGUAGES
"""Every language that can be named: ISO 639-1, else ISO 639-3; zxx is text without language (code, markup)."""

_LABELS = tuple(sorted(LANGUAGES))

SCORE_ONE = 10_000
"""A probability of 1 as a `language_score`."""

SHARE_VALUE = 1.5
"""What CLD2's finding is worth. From 1.0 to 2.0 accuracy on the choosing half changes by 0.001."""

UNNAMED_VALUE = -0.75
"""Of a language that py3langid cannot name: half a text in it, as CLD2 finds, makes it equal to py3langid's best."""

SHARPNESS, ALONE_SHARPNESS = 2.0, 0.4
"""Factor of the values in the softmax; the second where CLD2 cannot name the label."""

SURE_SCORE = 400
"""CLD2's points per KiB from which it is not doubted."""

EVEN_POINTS = 10
"""CLD2's points for a text at which it is right half the time, where only it can name the language."""

BY_NGRAMS, BY_CLD2 = 1, 2
"""The bits of who can name a language."""


@dataclasses.dataclass(frozen=True, slots=True)
class Language:
    """Fills `language` and `language_score`, and drops what is in no wanted language or whose language is doubtful.

    The two rules are independent: `languages` empty keeps every language, `minimum_score` 0 every score.
    """

    name: ClassVar[str] = "language"
    version: ClassVar[int] = 2
    adds: ClassVar[pa.Schema] = pa.schema([pa.field("language_score", pa.int32())])
    drops: ClassVar[tuple[str, ...]] = ()

    languages: tuple[str, ...] = ()
    """ISO 639-1 codes (639-3 where there is none) to keep; empty = all."""
    minimum_score: int = 6_500
    """In 1/10,000; RefinedWeb (arXiv 2306.01116) and FineWeb use 0.65."""
    minimum_scores: Mapping[str, int] = dataclasses.field(default_factory=dict, hash=False)
    """Of single languages, in place of `minimum_score`: {bs: 3000} takes Bosnian, always near Croatian, more easily."""
    max_bytes: int = 2_000
    """How much of a text is looked at: all of it, or windows spread evenly over a longer one."""

    def __post_init__(self) -> None:
        """Refuse languages that cannot be named and bounds that make no sense."""
        _check_codes("languages", self.languages)
        _check_codes("minimum_scores", self.minimum_scores)
        _check_score("minimum_score", self.minimum_score)
        for code, score in self.minimum_scores.items():
            _check_score(f"minimum_scores.{code}", score)
        if not WINDOWS <= self.max_bytes <= MAX_BYTES_LIMIT:
            raise ValueError(f"max_bytes: {self.max_bytes} is out of range\nhint: give {WINDOWS} to {MAX_BYTES_LIMIT}")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Fill both columns and set the verdict of rows in an unwanted or a doubtful language."""
        language, scores = identify(batch.column("text"), self.max_bytes)
        minimums = self._minimums(language)
        unwanted, doubtful = self._unwanted(language), scores < minimums
        broken = unwanted | doubtful
        reasons: list[str | None] = []
        values: list[str | None] = []
        thresholds: list[str | None] = []
        for row in np.flatnonzero(broken):
            rule = _score_rule(scores[row], minimums[row])
            if unwanted[row]:
                rule = self._language_rule(language[row].as_py())
            reasons.append(rule[0])
            values.append(rule[1])
            thresholds.append(rule[2])
        batch = replace_column(batch, "language", language)
        batch = set_verdict(batch, verdicts(broken, reasons, values, thresholds, "dropped"))
        return batch.append_column(self.adds.field(0), pa.array(scores, pa.int32()))

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Return label and score of every row against what is allowed."""
        language, scores = identify(batch.column("text"), self.max_bytes)
        minimums, unwanted = self._minimums(language), self._unwanted(language)
        return [
            [
                Evidence(*self._language_rule(label.as_py()), passed=not wrong_language),
                Evidence(*_score_rule(score, minimum), passed=score >= minimum),
            ]
            for label, score, minimum, wrong_language in zip(
                language, scores.tolist(), minimums.tolist(), unwanted.tolist(), strict=True
            )
        ]

    def _unwanted(self, language: pa.Array) -> np.ndarray:
        """Return which rows break the language rule, bool."""
        wanted = pc.is_in(language, pa.array(self.languages, pa.string())).to_numpy(zero_copy_only=False)
        return ~wanted if self.languages else np.zeros(len(language), bool)

    def _minimums(self, language: pa.Array) -> np.ndarray:
        """Return the least score of every row, int32."""
        codes = pa.array(self.minimum_scores, pa.string())
        own = pa.array(self.minimum_scores.values(), pa.int32()).take(pc.index_in(language, codes))
        return own.fill_null(self.minimum_score).to_numpy(zero_copy_only=False)

    def _language_rule(self, label: str | None) -> tuple[str, str, str]:
        return "language", label or "none", "in " + " ".join(self.languages) if self.languages else "any"


def _score_rule(score: int, minimum: int) -> tuple[str, str, str]:
    return "language_score", f"{score}/{SCORE_ONE}", f">= {minimum}/{SCORE_ONE}"


def _check_codes(field: str, codes: Iterable[str]) -> None:
    for code in codes:
        if code not in LANGUAGES:
            raise ValueError(
                f"{field}: {code!r} cannot be named by the language models\nhint: they name {' '.join(_LABELS)}"
            )


def _check_score(field: str, score: int) -> None:
    if not 0 <= score <= SCORE_ONE:
        raise ValueError(f"{field}: {score} is out of range\nhint: give 0 to {SCORE_ONE}, 6500 is 0.65")


def identify(text: pa.Array, max_bytes: int) -> tuple[pa.Array, np.ndarray]:
    """Return the language (string, null = none) and the score (int32, in 1/10,000) of every row of `text`."""
    offsets, data = text_view(text)
    composed, lowered = language_ngrams.samples(offsets, data, max_bytes)
    found = language_cld2.find_languages(composed, _numbers())
    bounds = np.cumsum([0, *(len(sample) for sample in lowered)], dtype=np.int64)
    view = np.frombuffer(b"".join(lowered), np.uint8)
    labels, scores = np.empty(len(text), np.int32), np.empty(len(text), np.int32)
    model = language_ngrams.load_model()
    _classify(
        view, bounds, found, model.moves, model.states, model.weights, model.priors, model.logs, *_classes(),
        labels, scores,
    )  # fmt: skip
    return pa.array(_LABELS, pa.string()).take(pa.array(labels, mask=labels < 0)), scores


@cache
def _numbers() -> Mapping[str, int]:
    """Return every language's place in `_LABELS`."""
    return {label: place for place, label in enumerate(_LABELS)}


@cache
def _classes() -> tuple[np.ndarray, np.ndarray]:
    """Return the language of each of the model's classes (int32), and who names each language (uint8, bits)."""
    classes = np.array([_numbers()[label] for label in language_ngrams.load_model().labels], np.int32)
    by_ngrams = np.isin(_LABELS, sorted(language_ngrams.LANGUAGES)) * np.uint8(BY_NGRAMS)
    by_cld2 = np.isin(_LABELS, sorted(language_cld2.LANGUAGES)) * np.uint8(BY_CLD2)
    return classes, by_ngrams | by_cld2


@numba.njit(nogil=True, cache=True)
def _classify(
    data: np.ndarray,
    bounds: np.ndarray,
    found: np.ndarray,
    moves: np.ndarray,
    states: np.ndarray,
    weights: np.ndarray,
    priors: np.ndarray,
    logs: np.ndarray,
    classes: np.ndarray,
    named_by: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Set label (a place in `_LABELS`, or -1) and score of every `data[bounds[row]:bounds[row + 1]]`."""
    counts = np.zeros(len(weights), np.int32)
    seen = np.empty(len(weights) + 3, np.int32)
    totals = np.empty(len(priors), np.int64)
    values = np.empty(len(named_by), np.float64)
    for row in range(len(labels)):
        num_seen = count_features(data, bounds[row], bounds[row + 1], moves, states, counts, seen)
        add_up(seen, num_seen, counts, weights, priors, logs, totals)
        values[:] = -np.inf
        _value_ngrams(totals, classes, bounds[row + 1] - bounds[row], values)
        _value_shares(found[row], values)
        best = int(np.argmax(values))
        scores[row] = 0
        if num_seen or found[row, :, 0].max() >= 0:
            num_bytes = bounds[row + 1] - bounds[row]
            probability = _probability(values, best, named_by[best], found[row], num_bytes)
            probability *= _support(found[row], best, named_by[best])
            scores[row] = math.floor(probability * SCORE_ONE + 0.5)
        labels[row] = best if scores[row] else -1


@numba.njit(nogil=True, cache=True)
def _value_ngrams(totals: np.ndarray, classes: np.ndarray, num_bytes: int, values: np.ndarray) -> None:
    """Raise the value of each class's language to its total, from the greatest down, over the root of the length."""
    scale = math.sqrt(max(num_bytes, 1)) * (1 << (WEIGHT_BITS + COUNT_BITS))
    most = totals.max()
    for k in range(len(totals)):
        values[classes[k]] = max(values[classes[k]], (totals[k] - most) / scale)


@numba.njit(nogil=True, cache=True)
def _value_shares(found: np.ndarray, values: np.ndarray) -> None:
    """Add the worth of what CLD2 finds."""
    for slot in range(len(found)):
        place = found[slot, 0]
        if place >= 0:
            if values[place] == -np.inf:
                values[place] = UNNAMED_VALUE
            values[place] += SHARE_VALUE * _sure_share(found[slot])


@numba.njit(nogil=True, cache=True)
def _sure_share(found: np.ndarray) -> float:
    """Return the share of a finding, less where it has few points, 0 to 1."""
    return found[1] / 100.0 * (min(found[2], SURE_SCORE) / SURE_SCORE)


@numba.njit(nogil=True, cache=True)
def _probability(values: np.ndarray, best: int, named_by: int, found: np.ndarray, num_bytes: int) -> float:
    """Return the probability of the best value: from all values, or from CLD2's points where only that can name it."""
    if named_by != BY_CLD2:
        return _softmax(values, best, ALONE_SHARPNESS if named_by == BY_NGRAMS else SHARPNESS)
    points = 0.0
    for slot in range(len(found)):
        if found[slot, 0] == best:
            points = num_bytes * found[slot, 1] / 100.0 * found[slot, 2] / 1024.0 / EVEN_POINTS
    return points * points * points / (points * points * points + 1.0)


@numba.njit(nogil=True, cache=True)
def _softmax(values: np.ndarray, best: int, sharpness: float) -> float:
    """Return the probability of the best value."""
    everything = 0.0
    for value in values:
        everything += _exp_minus((values[best] - value) * sharpness)
    return 1.0 / everything


@numba.njit(nogil=True, cache=True)
def _support(found: np.ndarray, best: int, named_by: int) -> float:
    """Return how far CLD2's finding leaves room for the label, 0 to 1; if it cannot name it, only a script counts."""
    others, sure = 0.0, 1.0
    for slot in range(len(found)):
        place = found[slot, 0]
        if place == best:
            sure = min(found[slot, 2], SURE_SCORE) / SURE_SCORE
        elif place == NAMELESS or (place >= 0 and named_by != BY_NGRAMS):
            others += _sure_share(found[slot])
    return max(0.0, 1.0 - others) * sure


@numba.njit(nogil=True, cache=True)
def _exp_minus(x: float) -> float:
    """Return e^-x for x >= 0 within 1e-10 (0 beyond 30) by basic operations: e^-(x/1024) as a series, to the 1024th."""
    if x > 30.0:
        return 0.0
    y = x / 1024.0
    power = 1.0 - y * (1.0 - y / 2.0 * (1.0 - y / 3.0 * (1.0 - y / 4.0 * (1.0 - y / 5.0))))
    for _ in range(10):
        power *= power
    return power
