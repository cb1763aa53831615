"""Filters and the quality classifier against human labels: out-of-fold AUC of each, on 281 labelled web texts.

    python benchmarks/quality_labels.py [--data ../shared/data] [--json FILE]

The labels (1 good, 0 not) are those of web_text/dclm_quality_labels. All models are fitted in the same `FOLDS` folds,
which no text straddles. For every filter by rules that the registry has, but for those about other things than prose
(`NOT_ABOUT_PROSE`):

- verdict: what the filter says alone, with its defaults (kept or dropped); an AUC of one threshold;
- values: a logistic model with an L2 penalty on what its rules measured, standardised within the fold; a value that
  does not apply is the mean, and a column of its own says so; values that are not finite count as the largest.

The intervals are those of a bootstrap over documents (`RESAMPLES`, fixed seed) of the pooled out-of-fold scores. They
say what other documents of this kind could have given; they do not say what other labellers or other folds would
(`by_seed` shows the classifier over other folds).

`length` is the number of words alone: good texts are longer here, and whatever counts words gains by it. `other
training` is the same classifier trained on speeches of presidents against web pages: it has seen no label.
`mb_per_cpu_second` is the rate at which the transform `quality` scores English web text, best of `ROUNDS`.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from english_texts import read_english_texts, text_batch

from pipelines.quality_classifier.features import SparseRows, list_features
from pipelines.quality_classifier.model import SCORE_ONE, QualityModel
from pipelines.quality_classifier.training import auc_of, fit, make_folds, score_fold
from pipelines.transform import replace_column
from pipelines.transforms.registry import TRANSFORMS
from pipelines.transforms.rules import RuleFilter

LABELS = "web_text/dclm_quality_labels/agreement_data.jsonl"
FOLDS, BITS, RESAMPLES, ROUNDS = 5, 18, 2_000, 7
SEEDS = range(5)
PENALTY = 1.0
"""Of the logistic models on values: half of this times the squared norm of the weights."""
NEWTON_STEPS = 30
NOT_ABOUT_PROSE = ("code_quality", "conversation_quality", "pii", "quality")
PLACEHOLDER_COLUMNS = ("origin_path", "url", "host", "licence", "source")
"""Core columns that a filter of text may look at, and that these texts lack."""


def main() -> None:
    """Measure, print, write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[1] / "../shared/data")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    result = measure(arguments.data)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def measure(data: Path) -> dict[str, Any]:
    """Return the AUC of everything, and the classifier's speed."""
    with (data / LABELS).open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts, labels = [row["text"] for row in rows], np.array([row["label"] == 1 for row in rows])
    features = features_of(texts)
    folds = make_folds(np.array([hash_of(text) for text in texts]), labels, FOLDS, 0)
    scores = {"classifier": classifier_scores(features, labels, folds)}
    scores["length"] = np.array([len(text.split()) for text in texts])
    batch = labelled_batch(texts)
    rules: dict[str, int] = {}
    for name, filter_ in filters().items():
        values = values_of(filter_, batch)
        if np.isfinite(values).sum() == 0 or not np.ptp(np.nan_to_num(values), axis=0).any():
            continue  # nothing that it measures differs between these texts
        rules[name] = values.shape[1]
        scores[f"{name}, verdict"] = verdict_of(filter_, batch)
        scores[f"{name}, values"] = logistic_scores(values, labels, folds)
    every = np.concatenate([values_of(filter_, batch) for name, filter_ in filters().items() if name in rules], 1)
    scores["all filters, values"] = logistic_scores(every, labels, folds)
    english = read_english_texts(data)
    other, num_other = other_training(english, set(texts))
    scores["classifier, other training"] = other.scores_of_rows(features)
    return {
        "documents": len(texts),
        "good": int(labels.sum()),
        "folds": FOLDS,
        "auc": {name: with_interval(one, labels) for name, one in scores.items()},
        "rules": rules,
        "minus_best_filter": paired(scores, labels),
        "by_seed": [
            auc_of(
                classifier_scores(features, labels, make_folds(np.arange(len(texts)), labels, FOLDS, seed)), labels
            ).value
            for seed in SEEDS
        ],
        "other_training_documents": num_other,
        **speed(fit(features, labels, BITS, {}), list(english.values())),
    }


def labelled_batch(texts: list[str]) -> pa.RecordBatch:
    """Return the columns that filters of text read, English (the labels' language) and otherwise empty."""
    batch = text_batch(texts)
    batch = replace_column(batch, "language", pa.array(["en"] * len(texts), pa.string()))
    for name in PLACEHOLDER_COLUMNS:
        batch = batch.append_column(name, pa.nulls(len(texts), pa.string()))
    return batch


def filters() -> dict[str, RuleFilter]:
    """Return every filter by rules that judges prose, with its defaults."""
    found = {}
    for name, kind in TRANSFORMS.items():
        if issubclass(kind, RuleFilter) and name not in NOT_ABOUT_PROSE:
            found[name] = kind(values=True, drop=False)
    return found


def values_of(filter_: RuleFilter, batch: pa.RecordBatch) -> np.ndarray:
    """Return what its rules measured: float64, shape (documents, rules); NaN where a rule does not apply."""
    names = filter_.value_columns.names
    result = filter_(batch)
    return np.stack([result.column(name).to_numpy(zero_copy_only=False) for name in names], axis=1)


def verdict_of(filter_: RuleFilter, batch: pa.RecordBatch) -> np.ndarray:
    """Return 1 for texts that it keeps, 0 for others."""
    return np.array(dataclasses.replace(filter_, drop=True)(batch).column("verdict").is_null()).astype(np.int64)


def logistic_scores(values: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return out-of-fold log-odds of a logistic model on columns that are standardised within the fold."""
    scores = np.zeros(len(labels))
    for fold in range(FOLDS):
        rest = folds != fold
        columns = standardised(values, rest)
        scores[~rest] = columns[~rest] @ logistic(columns[rest], labels[rest])
    return scores


def standardised(values: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Return columns of mean 0 and deviation 1 over `rest`, those of what is missing, and a constant."""
    missing = np.isnan(values)
    largest = np.where(np.isfinite(values), values, -np.inf)[rest].max(axis=0)
    known = np.where(missing, 0.0, np.minimum(values, np.where(np.isfinite(largest), largest, 0.0)))
    count = np.maximum((~missing[rest]).sum(axis=0), 1)
    mean = known[rest].sum(axis=0) / count
    centred = np.where(missing, 0.0, known - mean)
    deviation = np.sqrt((centred[rest] ** 2).sum(axis=0) / count)
    scaled = centred / np.where(deviation > 0, deviation, 1.0)
    some = missing[rest].any(axis=0)
    return np.concatenate([np.clip(scaled, -5, 5), missing[:, some], np.ones((len(values), 1))], axis=1)


def logistic(columns: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the weights of an L2-regularised logistic model by Newton's method; the last is the bias."""
    weights, penalty = np.zeros(columns.shape[1]), np.full(columns.shape[1], PENALTY)
    penalty[-1] = 1e-6
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(columns @ weights, -30, 30)))
        gradient = columns.T @ (p - labels) + penalty * weights
        hessian = (columns * (p * (1 - p))[:, None]).T @ columns + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return weights


def features_of(texts: list[str]) -> SparseRows:
    """Return the classifier's features."""
    return list_features(pa.array(texts, pa.large_string()), BITS)


def hash_of(text: str) -> int:
    """Return a number that equal texts share."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest())


def classifier_scores(features: SparseRows, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return the classifier's out-of-fold scores."""
    scores = np.zeros(len(labels), np.int64)
    for fold in range(FOLDS):
        scores[folds == fold] = score_fold(features, labels, folds == fold, BITS)
    return scores


def other_training(english: dict[str, str], labelled: set[str]) -> tuple[QualityModel, dict[str, int]]:
    """Return a classifier of speeches against web pages, cut to like lengths; the labelled texts are not in it."""
    good = [text for name, text in english.items() if name.startswith("nltk/")]
    web = [text for name, text in english.items() if name.startswith(("c4_sample/", "dolma_cc"))]
    pieces = [[piece for text in some for piece in cut(text)] for some in (good, web)]
    kept = [[piece for piece in some if piece not in labelled] for some in pieces]
    texts, labels = [*kept[0], *kept[1]], np.arange(len(kept[0]) + len(kept[1])) < len(kept[0])
    return fit(features_of(texts), labels, BITS, {}), {"speeches": len(kept[0]), "web pages": len(kept[1])}


def cut(text: str, size: int = 2_000, most: int = 20) -> list[str]:
    """Return at most so many pieces of about so many characters: length and whole speeches should tell nothing."""
    return [text[start : start + size] for start in range(0, min(len(text), size * most), size)]


def with_interval(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the AUC and its 95% interval by resampling documents."""
    draws = [auc_of(scores[rows], labels[rows]).value for rows in resamples(labels)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"auc": auc_of(scores, labels).value, "low": float(low), "high": float(high)}


def paired(scores: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    """Return by how much the classifier's AUC is above the best filter's, with the interval over the same resamples."""
    names = [name for name in scores if name.endswith(", values")]
    best = max(names, key=lambda name: auc_of(scores[name], labels).value)
    draws = [
        auc_of(scores["classifier"][rows], labels[rows]).value - auc_of(scores[best][rows], labels[rows]).value
        for rows in resamples(labels)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    difference = auc_of(scores["classifier"], labels).value - auc_of(scores[best], labels).value
    return {"filter": best, "difference": difference, "low": float(low), "high": float(high)}


def resamples(labels: np.ndarray) -> list[np.ndarray]:
    """Return draws of as many documents, with replacement, that hold both labels."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(labels), len(labels)) for _ in range(RESAMPLES)]
    return [rows for rows in draws if 1 < labels[rows].sum() < len(labels) - 1]


def speed(model: QualityModel, texts: list[str]) -> dict[str, float]:
    """Return MB (10^6 bytes of UTF-8) that are scored in a CPU second, best of `ROUNDS`."""
    column, num_bytes = pa.array(texts, pa.large_string()), sum(len(text.encode()) for text in texts)
    scores, seconds = model.scores(column), []
    assert 0 <= scores.min() <= scores.max() <= SCORE_ONE
    for _ in range(ROUNDS):
        start = time.process_time()
        model.scores(column)
        seconds.append(time.process_time() - start)
    return {"megabytes": num_bytes / 1e6, "mb_per_cpu_second": num_bytes / min(seconds) / 1e6}


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    print(
        f"{result['documents']} documents, {result['good']} good; {result['folds']} folds; 95% intervals by bootstrap"
    )
    for name, one in sorted(result["auc"].items(), key=lambda item: -item[1]["auc"]):
        print(f"{name:40} {one['auc']:.3f}  ({one['low']:.3f} to {one['high']:.3f})")
    best = result["minus_best_filter"]
    print(f"classifier - {best['filter']}: {best['difference']:+.3f} ({best['low']:+.3f} to {best['high']:+.3f})")
    print("classifier over other folds:", " ".join(f"{auc:.3f}" for auc in result["by_seed"]))
    print("other training:", result["other_training_documents"])
    print(f"{result['mb_per_cpu_second']:.0f} MB a CPU second over {result['megabytes']:.1f} MB")


if __name__ == "__main__":
    main()
