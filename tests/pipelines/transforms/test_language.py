"""Language identification against its formula, on real texts of many languages, and its rules."""

from __future__ import annotations

import hashlib
import math
import pickle
import unicodedata
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pycld2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.schema import VERDICT
from pipelines.transform import Transform
from pipelines.transforms import language as module
from pipelines.transforms import language_cld2, language_ngrams
from pipelines.transforms.language import SCORE_ONE, Language, identify
from pipelines.transforms.language_ngrams import load_model

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
MAX_BYTES = Language().max_bytes

GERMAN = "Der Zug nach München fährt heute leider nicht, weil der Sturm die Oberleitung beschädigt hat. "
ENGLISH = "The train to Munich does not run today because the storm has damaged the overhead line. "
MAORI = "Ko te reo Māori te reo taketake o Aotearoa, ā, kei te ako te iwi i tēnei reo i ngā kura katoa o te motu. "
ARAGONESE = (
    "L'aragonés ye una luenga romanica que se charra en as vals d'o norte d'Aragón, y a suya literatura ye chiqueta. "
)
JAPANESE = "嵐で架線が損傷したため、ミュンヘン行きの列車は本日運休となります。"


def column(*texts: str) -> pa.Array:
    """Return a text column."""
    return pa.array(texts, pa.large_string())


def batch_of(*texts: str) -> pa.RecordBatch:
    """Return a batch with the columns that the transform reads."""
    nothing = pa.nulls(len(texts), pa.string())
    return pa.RecordBatch.from_pydict(
        {"language": nothing, "text": column(*texts), "verdict": pa.nulls(len(texts), VERDICT)}
    )


def value_table(text: str) -> dict[str, float]:
    """Return the values of the languages by exact sums, from counts made in Python."""
    model, data = load_model(), text.encode()
    state, counts = 0, Counter[int]()
    for byte in data:
        state = int(model.moves[model.states[state, 0] + byte])
        if model.states[state, 1] >= 0:
            counts[int(model.states[state, 1])] += 1
    totals = [
        int(prior)
        + sum(int(model.logs[count]) * int(model.weights[feature, place]) for feature, count in counts.items())
        for place, prior in enumerate(model.priors)
    ]
    assert max(totals) < 2**63
    table: dict[str, float] = {}
    for label, total in zip(model.labels, totals, strict=True):
        value = float(Fraction(total - max(totals), 2**29)) / math.sqrt(len(data))
        table[label] = max(table.get(label, -math.inf), value)
    for code, (share, points) in shares(text).items():
        table[code] = table.get(code, -0.75) + 1.5 * share * min(1, points / 400)
    return table


def shares(text: str) -> dict[str, tuple[float, float]]:
    """Return what CLD2 itself finds: share and points of each language (none here has two codes)."""
    details = pycld2.detect(text, isPlainText=True, bestEffort=True)[2]
    return {code: (percent / 100, points) for _, code, percent, points in details if percent}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (GERMAN, "de"),
        (MAORI, "mi"),
        ("reo Māori", "mi"),
        (GERMAN * 2 + ENGLISH, "de"),
        ("Ahoj, ako sa máš", "sk"),
        ("et tu", "fr"),
        (ARAGONESE, "an"),
    ],
)
def test_label_and_score_are_the_formula(text: str, label: str) -> None:
    """The kernel against the formula of the module's docstring, written once more with a library's exponential."""
    table, found = value_table(text), shares(text)
    best = max(table, key=lambda code: table[code])
    share, points = found.get(best, (0, 400))
    others = sum(share * min(1, points / 400) for code, (share, points) in found.items() if code != best)
    support = (1 - others) * min(1, points / 400)
    sharpness = 2.0
    if best not in language_cld2.LANGUAGES:
        sharpness, support = 0.4, 1
    probability = 1 / math.fsum(math.exp(sharpness * (value - table[best])) for value in table.values())
    if best not in language_ngrams.LANGUAGES:
        in_all = points * share * len(text.encode()) / 1024
        probability = in_all**3 / (in_all**3 + 1000)
    labels, scores = identify(column(text), MAX_BYTES)
    assert labels.to_pylist() == [best] == [label]
    assert 0 < scores[0] == pytest.approx(probability * support * SCORE_ONE, abs=0.51)


@needs_data
def test_accuracy_on_the_reporting_half() -> None:
    """0.96 over all 75 languages on the half of lingua's sentences that chose nothing."""
    of_language: list[float] = []
    kept: list[bool] = []
    for file in sorted((SHARED / "langid/lingua_testdata/sentences").iterdir()):
        lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
        reporting = [line for line in lines if hashlib.sha256(line.encode()).digest()[0] & 1]
        labels, scores = identify(column(*reporting), MAX_BYTES)
        right = np.array([label == file.stem for label in labels.to_pylist()])
        of_language.append(float(right.mean()))
        kept.extend(right[scores >= 6_500].tolist())
    assert len(of_language) == 75
    assert np.mean(of_language) >= 0.96
    assert np.mean(kept) >= 0.97
    assert len(kept) > 35_000


@needs_data
def test_unknown_languages_are_doubted() -> None:
    """Of texts in languages that nobody can name, some near relatives pass the default threshold, others do not."""
    names = ("nav", "hus", "chj", "guc", "arn", "tca", "maz", "mxv", "not", "dip", "kbp", "csa", "yua", "tiv", "iii")
    texts = [(SHARED / f"langid/udhr2/{name}.txt").read_text(encoding="utf-8") for name in names]
    assert (identify(column(*texts), MAX_BYTES)[1] < 6_500).sum() >= 13


@needs_data
@pytest.mark.parametrize("german", [0.1, 0.25, 0.5, 0.75, 0.9])
def test_mixed_texts_have_their_share_as_score(german: float) -> None:
    """A text in two languages: the larger is the label, its share about the score."""
    english_text, german_text = (
        (SHARED / f"langid/udhr2/{name}.txt").read_text(encoding="utf-8")[:4_000] for name in ("eng", "deu")
    )
    cut = round(4_000 * german)
    labels, scores = identify(column(german_text[:cut] + "\n" + english_text[: 4_000 - cut]), MAX_BYTES)
    if german != 0.5:
        assert labels.to_pylist() == ["de" if german > 0.5 else "en"]
    assert scores[0] / SCORE_ONE == pytest.approx(max(german, 1 - german), abs=0.12)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ᎠᏂᏴᏫᏯ", "chr"),
        ("ދިވެހި ބަހަކީ ދިވެހިރާއްޖޭގެ", "dv"),
        (unicodedata.normalize("NFD", GERMAN), "de"),
        (GERMAN.upper(), "de"),
    ],
)
def test_scripts_and_forms(text: str, label: str) -> None:
    """A script of one language decides; decomposed letters and capitals change nothing."""
    labels, scores = identify(column(text), MAX_BYTES)
    assert labels.to_pylist() == [label]
    assert scores[0] > 9_000


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=80)), st.integers(4, 60))
def test_any_bytes(texts: list[bytes], max_bytes: int) -> None:
    """Bytes that are no UTF-8 get a label or none, never an exception; null and 0 go together."""
    labels, scores = identify(pa.array(texts, pa.large_binary()).cast(pa.large_string(), safe=False), max_bytes)
    assert all(
        (label is None) == (score == 0) for label, score in zip(labels.to_pylist(), scores.tolist(), strict=True)
    )
    assert ((scores >= 0) & (scores <= SCORE_ONE)).all()


@pytest.mark.parametrize("x", [0.0, 1e-9, 0.1, 0.6931471805599453, 1.0, 7.5, 20.0, 29.999, 30.1, 1e9])
def test_exponential(x: float) -> None:
    """Within 1e-10 of e^-x."""
    assert module._exp_minus.py_func(x) == pytest.approx(math.exp(-x), abs=1e-10)


def test_empty_and_unknown_texts_have_no_language() -> None:
    """Nothing found, no label: score 0, dropped by the score rule only."""
    result = Language()(batch_of("", "12 345", "ꀊꀋꀌꀍꀎꀏꀐꀑ ꀒꀓꀔꀕꀖ ꀗꀘꀙꀚ"))
    assert result.column("language").to_pylist() == [None, "zxx", None]
    scores = result.column("language_score").to_pylist()
    assert scores[0] == scores[2] == 0
    assert scores[1] < 1_000
    assert result.column("verdict")[0].as_py() == {
        "outcome": "dropped",
        "reason": "language_score",
        "value": "0/10000",
        "threshold": ">= 6500/10000",
    }


def test_rules() -> None:
    """Unwanted first, doubtful second; both switched off by their empty values."""
    texts = (ENGLISH * 5, GERMAN * 5, "ok")
    reasons = lambda transform: [v and v["reason"] for v in transform(batch_of(*texts)).column("verdict").to_pylist()]  # noqa: E731
    assert reasons(Language()) == [None, None, "language_score"]
    assert reasons(Language(languages=("de",)))[:2] == ["language", None]
    assert reasons(Language(minimum_score=0)) == [None, None, None]
    verdict = Language(languages=("de", "fr"))(batch_of(*texts)).column("verdict")[0].as_py()
    assert (verdict["value"], verdict["threshold"]) == ("en", "in de fr")


def test_threshold_is_inclusive() -> None:
    """A score equal to the minimum is kept, one more is too much."""
    score = int(identify(column(ARAGONESE), MAX_BYTES)[1][0])
    at, above = Language(minimum_score=score), Language(minimum_score=score + 1)
    assert at(batch_of(ARAGONESE)).column("verdict").null_count == 1
    assert above(batch_of(ARAGONESE)).column("verdict").null_count == 0


def test_evidence_agrees_with_verdicts() -> None:
    """The first failed rule is the verdict."""
    transform, batch = Language(languages=("en",)), batch_of(ENGLISH * 3, GERMAN, "", JAPANESE)
    for verdict, rules in zip(transform(batch).column("verdict").to_pylist(), transform.evidence(batch), strict=True):
        failed = [rule for rule in rules if not rule.passed]
        assert (verdict and (verdict["reason"], verdict["value"], verdict["threshold"])) == (
            (failed[0].rule, failed[0].value, failed[0].threshold) if failed else None
        )


TEXTS = st.lists(
    st.sampled_from([ENGLISH, GERMAN, JAPANESE, "", "GROSS", "x", "e\u0301", "привет Мир", "7"]), max_size=6
)


@settings(max_examples=40, deadline=None)
@given(TEXTS, TEXTS)
def test_batching_changes_nothing(left: list[str], right: list[str]) -> None:
    """f(a + b) = f(a) + f(b), on slices of one buffer too."""
    transform, both = Language(), batch_of(*left, *right)
    parts = [transform(batch_of(*left)), transform(batch_of(*right))]
    slices = [transform(both.slice(0, len(left))), transform(both.slice(len(left)))]
    whole = transform(both).to_pylist()
    assert whole == [row for part in parts for row in part.to_pylist()]
    assert whole == [row for part in slices for row in part.to_pylist()]


def test_what_is_between_the_windows_counts_nothing() -> None:
    """Of a long text, four windows are looked at: the rest may be anything."""
    pieces = [GERMAN.encode() * 5 for _ in range(7)]
    size = len(pieces[0])
    other = [piece if place % 2 == 0 else b"x" * size for place, piece in enumerate(pieces)]
    transform = Language(max_bytes=4 * size)
    one, two = transform(batch_of(b"".join(pieces).decode(), b"".join(other).decode())).to_pylist()
    assert (one["language"], one["language_score"]) == (two["language"], two["language_score"])


def test_thresholds_of_single_languages() -> None:
    """A language's own minimum goes before the common one, for null labels there is none; evidence says the same."""
    batch = batch_of(ARAGONESE, ENGLISH, "")
    score = int(identify(column(ARAGONESE), MAX_BYTES)[1][0])
    transform = Language(minimum_score=0, minimum_scores={"an": score + 1, "fr": 10_000})
    assert [verdict and verdict["threshold"] for verdict in transform(batch).column("verdict").to_pylist()] == [
        f">= {score + 1}/10000", None, None,
    ]  # fmt: skip
    assert [rules[1].passed for rules in transform.evidence(batch)] == [False, True, True]
    assert pickle.loads(pickle.dumps(transform)) == transform
    assert hash(transform) == hash(Language(minimum_score=0))


def test_schema() -> None:
    """One column is added at the end."""
    result = Language()(batch_of(ENGLISH))
    assert result.schema.names == ["language", "text", "verdict", "language_score"]
    assert result.schema.field("language_score").type == pa.int32()
    assert isinstance(Language(), Transform)
    assert Language()(batch_of()).num_rows == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("languages", ("english",)),
        ("minimum_score", 10_001),
        ("max_bytes", 3),
        ("minimum_scores", {"de": -1}),
        ("minimum_scores", {"english": 1}),
    ],
)
def test_impossible_settings_are_refused(field: str, value: Any) -> None:
    """The message names field and value, and what is allowed."""
    with pytest.raises(ValueError, match=rf"{field}.*: .*\nhint: "):
        Language(**{field: value})
