"""Quality by a trained classifier: a score for each text, and what is kept by score or by rank.

The score is between 0 and 10,000 (see `pipelines/quality_classifier/model.py`) and stays with the document as the
column `quality_score`. Two rules use it. `min_score` is a threshold on the score. `keep_top` keeps the best share of
each source: that needs the scores of all of its documents, so the first stage counts them in a histogram, and the
last one, in which the sum of all histograms is known, drops what lies below (`KeepTop`).

The line of `keep_top`, in integers: of the `n` documents of a source that the first stage kept (with copies that
deduplication drops later), let `a(s)` be how many score at least `s`. The line is the smallest `s` with
`a(s) * 10,000 <= keep_top * n`; documents that score at least that are kept. So never more than the share stays, and
documents with equal scores are kept or dropped together.

Cost: see docs/quality-classifier.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.quality_classifier.model import SCORE_ONE, QualityModel
from pipelines.transform import EMPTY_SCHEMA, Evidence, set_verdict, verdicts
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.rules import RATIO, Rule, RuleFilter, check_thresholds

SCORE = pa.field("quality_score", pa.int32())
"""0 to 10,000; null in sources that have no `quality` among their transforms."""

SCORES_TABLE = "quality_scores"
SCORES = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        SCORE.with_nullable(False),
        pa.field("documents", pa.int64(), nullable=False),
    ]
)
"""How many documents of a source that one split kept have a score: what `keep_top` sums."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Quality(RuleFilter):
    """Scores every text by a trained classifier; drops what scores too little, and what is not among the best."""

    name: ClassVar[str] = "quality"
    version: ClassVar[int] = 1

    model: GivenFile
    """Made by `headrace train-classifier`."""
    min_score: int | None = None
    """In 1/10,000."""
    keep_top: int | None = None
    """The share of each source's documents that is kept, in 1/10,000; judged in the last stage."""

    def __post_init__(self) -> None:
        """Refuse thresholds that no document or every document meets by mistake."""
        check_thresholds(self, ratios=("min_score", "keep_top"))

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The one rule that looks at a document alone."""
        return (Rule("min_score", 0, None, True, self.min_score),)

    @property
    def adds(self) -> pa.Schema:
        """The score, and what `values` leaves."""
        return pa.schema([SCORE, *self.value_columns])

    def measured(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        """Score every text (null scores 0) and add the column. Raises `HeadraceError` for a file that is no model."""
        scores = _model(self.model).scores(batch.column("text"))
        columns = [*batch.columns, pa.array(scores, SCORE.type)]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema([*batch.schema, SCORE])), scores[:, None]


@dataclasses.dataclass(frozen=True, slots=True)
class KeepTop:
    """Drops the documents of each source whose score is below the line that its best share reaches."""

    name: ClassVar[str] = "quality_keep_top"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = EMPTY_SCHEMA
    drops: ClassVar[tuple[str, ...]] = ()
    reason: ClassVar[str] = "quality.keep_top"

    shares: tuple[tuple[str, int], ...]
    """Sources and the share of each that is kept, in 1/10,000; documents of other sources are not judged."""
    lines: tuple[tuple[str, int], ...] | None = None
    """The least score that is kept, by source: read off the scores of the whole run."""

    def bind(self, side: Mapping[str, pa.Table]) -> KeepTop:
        """Take the table `quality_scores` (schema `SCORES`; rows of one source and score are summed)."""
        scores = side[SCORES_TABLE]
        lines = tuple((source, line_of(_histogram(scores, source), share)) for source, share in self.shares)
        return dataclasses.replace(self, lines=lines)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Set the verdict of what lies below the line of its source."""
        scores, lines = self._scores_and_lines(batch)
        failed = scores < lines
        return set_verdict(
            batch,
            verdicts(
                failed,
                [self.reason] * int(failed.sum()),
                [str(score) for score in scores[failed]],
                [f">= {line}" for line in lines[failed]],
                "dropped",
            ),
        )

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Return the score and the line of every document that is judged."""
        scores, lines = self._scores_and_lines(batch)
        return [
            [Evidence(self.reason, str(score), f">= {line}", bool(score >= line))] if line >= 0 else []
            for score, line in zip(scores, lines, strict=True)
        ]

    def _scores_and_lines(self, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """Return the score and the line of every row: int64, shape (rows,). Line -1: it is not judged."""
        if self.lines is None:
            raise ValueError(f"{self.name}: is not bound to its table of scores")
        scores = pc.fill_null(batch.column(SCORE.name), 0).cast(pa.int64()).to_numpy()
        place = pc.index_in(batch.column("source"), value_set=pa.array([source for source, _ in self.lines]))
        known = np.array([*(line for _, line in self.lines), -1], np.int64)
        return scores, known[pc.fill_null(place, len(known) - 1).to_numpy()]


def line_of(histogram: np.ndarray, share: int) -> int:
    """Return the smallest score that at most `share` (in 1/10,000) of the documents lie at or above.

    `histogram` is int64, shape (SCORE_ONE + 1,). The line is SCORE_ONE + 1 where even the best score has too many.
    """
    at_least = np.cumsum(histogram[::-1])[::-1]
    fits = np.append(at_least * RATIO <= share * int(at_least[0]), True)
    return int(np.argmax(fits))


def _histogram(scores: pa.Table, source: str) -> np.ndarray:
    own = scores.filter(pc.equal(scores.column("source"), source))
    histogram = np.zeros(SCORE_ONE + 1, np.int64)
    np.add.at(histogram, own.column(SCORE.name).to_numpy(), own.column("documents").to_numpy())
    return histogram


@lru_cache(maxsize=4)
def _model(given: GivenFile) -> QualityModel:
    """Return the model of a file, read once a process."""
    return QualityModel.unpack(given.read(), given.path)
