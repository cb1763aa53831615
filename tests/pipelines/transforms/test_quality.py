"""Scores and lines: what is kept by score, and by rank among all documents of a source."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quality_models import BAD, GOOD, small_model
from rows import batch_of, document

from pipelines.errors import HeadraceError, RecipeError
from pipelines.transforms.given_files import GivenFile
from pipelines.transforms.quality import SCORE, SCORES, KeepTop, Quality, line_of


def texts(*some: str | None) -> pa.RecordBatch:
    return batch_of(document(text, natural_key=str(place)) for place, text in enumerate(some))


def reasons(batch: pa.RecordBatch) -> list[str | None]:
    return [verdict and verdict["reason"] for verdict in batch.column("verdict").to_pylist()]


def test_good_text_scores_more():
    result = Quality(model=small_model())(texts(*GOOD, *BAD, "", None))
    scores = result.column("quality_score").to_pylist()
    assert min(scores[:2]) > 6000
    assert max(scores[2:4]) < 4000
    assert scores[4:] == [0, 0]
    assert reasons(result) == [None] * 6


def test_min_score_is_the_least_that_is_kept():
    batch = texts(*GOOD, *BAD)
    scores = Quality(model=small_model())(batch).column("quality_score").to_pylist()
    limit = min(scores[:2])
    at = Quality(model=small_model(), min_score=limit)(batch)
    above = Quality(model=small_model(), min_score=limit + 1)(batch)
    assert reasons(at) == [None, None, "quality.min_score", "quality.min_score"]
    assert reasons(above).count(None) == 1
    verdict = at.column("verdict")[2].as_py()
    assert (verdict["value"], verdict["threshold"]) == (str(scores[2]), f">= {limit}")
    assert reasons(Quality(model=small_model(), min_score=limit, drop=False)(batch)) == [None] * 4


def test_values_are_what_tune_reads():
    result = Quality(model=small_model(), values=True)(texts(*GOOD))
    scores = result.column("quality_score").to_pylist()
    assert result.column("quality_min_score").to_pylist() == [float(score) for score in scores]


@pytest.mark.parametrize("field", ["min_score", "keep_top"])
@pytest.mark.parametrize("value", [-1, 10_001, True, 0.5])
def test_thresholds_out_of_range(field, value):
    with pytest.raises(ValueError, match=f"{field}: .*\nhint: give"):
        Quality(model=small_model(), **{field: value})


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "list.txt").write_text("words")
    given_file = GivenFile.of(tmp_path / "list.txt")
    with pytest.raises(HeadraceError, match=r"list\.txt: is no model"):
        Quality(model=given_file)(texts("a"))
    (tmp_path / "list.txt").unlink()
    with pytest.raises(RecipeError, match="the file must lie at this path"):
        Quality(model=GivenFile(given_file.path, "0" * 64))(texts("a"))


def histogram_of(scores: list[int]) -> np.ndarray:
    return np.bincount(np.array(scores, np.int64), minlength=10_001)


@pytest.mark.parametrize(
    ("scores", "share", "line"),
    [
        ([1, 2, 3, 4], 5_000, 3),  # two of four score 3 or more
        ([1, 2, 3, 4], 4_999, 4),
        ([1, 2, 3, 4], 2_500, 4),
        ([1, 2, 3, 4], 2_499, 5),  # even the best one is too many; 5 is the smallest score that none reaches
        ([1, 2, 3, 4], 10_000, 0),
        ([1, 2, 3, 4], 0, 5),
        ([7, 7, 7, 9], 5_000, 8),  # the sevens are three: they go together
        ([7, 7, 7, 9], 7_500, 8),
        ([10_000], 5_000, 10_001),
        ([0, 0], 9_999, 1),
        ([], 1, 0),
    ],
)
def test_lines_by_hand(scores, share, line):
    assert line_of(histogram_of(scores), share) == line


@given(st.lists(st.integers(0, 30) | st.integers(9_990, 10_000), max_size=60), st.integers(0, 10_000))
def test_the_line_is_the_smallest_that_fits(scores, share):
    def fits(line: int) -> bool:
        return sum(score >= line for score in scores) * 10_000 <= share * len(scores)

    line = line_of(histogram_of(scores), share)
    assert fits(line)
    assert line == 0 or not fits(line - 1)


def table(*rows: tuple[str, int, int]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[], [], []]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCORES, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCORES)


def scored(*rows: tuple[str, int | None]) -> pa.RecordBatch:
    batch = batch_of(document("x", source=source, natural_key=str(place)) for place, (source, _) in enumerate(rows))
    columns = [*batch.columns, pa.array([score for _, score in rows], SCORE.type)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema([*batch.schema, SCORE]))


def test_keep_top_sums_the_splits_of_each_source():
    side = {"quality_scores": table(("web", 5, 1), ("books", 9, 100), ("web", 8, 1), ("web", 5, 1), ("web", 2, 1))}
    step = KeepTop((("web", 7_500), ("books", 10_000))).bind(side)  # web has 2, 5, 5, 8: all but 2 from 3 on
    batch = scored(("web", 8), ("web", 5), ("web", 2), ("books", 0), ("code", None), ("talks", 1))
    result = step(batch)
    assert reasons(result) == [None, None, "quality.keep_top", None, None, None]
    verdict = result.column("verdict")[2].as_py()
    assert (verdict["outcome"], verdict["value"], verdict["threshold"]) == ("dropped", "2", ">= 3")
    judged = step.evidence(batch)
    assert [[(rule.rule, rule.value, rule.threshold, rule.passed) for rule in rules] for rules in judged[2:5]] == [
        [("quality.keep_top", "2", ">= 3", False)],
        [("quality.keep_top", "0", ">= 0", True)],
        [],
    ]


def test_an_empty_histogram_drops_nothing():
    assert reasons(KeepTop((("web", 1),)).bind({"quality_scores": table()})(scored(("web", 0)))) == [None]


def test_unbound_it_says_so():
    with pytest.raises(ValueError, match="is not bound"):
        KeepTop((("web", 1),))(scored(("web", 0)))
