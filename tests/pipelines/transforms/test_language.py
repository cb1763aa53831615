"""Language identification against py3langid itself, on real texts of many languages, and its rules."""

from __future__ import annotations

import json
import math
import unicodedata
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipelines.errors import HeadraceError
from pipelines.schema import VERDICT
from pipelines.transform import Transform
from pipelines.transforms import language as module
from pipelines.transforms.language import ISO_639_1, LANGUAGES, SCORE_ONE, Language, identify, load_model

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
MAX_BYTES = 20_000

GERMAN = "Der Zug nach München fährt heute leider nicht, weil der Sturm die Oberleitung beschädigt hat. "
ENGLISH = "The train to Munich does not run today because the storm has damaged the overhead line. "
JAPANESE = "嵐で架線が損傷したため、ミュンヘン行きの列車は本日運休となります。"


@cache
def peer(*, norm_probs: bool = False) -> LanguageIdentifier:
    """Return py3langid's own classifier, with plain scores (its default) or normalized probabilities."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=norm_probs)


def column(*texts: str) -> pa.Array:
    """Return a text column."""
    return pa.array(texts, pa.large_string())


def batch_of(*texts: str) -> pa.RecordBatch:
    """Return a batch with the columns that the transform reads."""
    nothing = pa.nulls(len(texts), pa.string())
    return pa.RecordBatch.from_pydict(
        {"language": nothing, "text": column(*texts), "verdict": pa.nulls(len(texts), VERDICT)}
    )


def compare(texts: list[str]) -> tuple[int, float]:
    """Return how many labels differ from py3langid's, and the largest difference of a label's score."""
    labels, scores = identify(column(*texts), MAX_BYTES)
    differing, largest = 0, 0.0
    for text, label, score in zip(texts, labels.to_pylist(), scores.tolist(), strict=True):
        cut = text.encode()[:MAX_BYTES].decode(errors="ignore")
        name = peer().classify(cut)[0]
        probabilities = {ISO_639_1.get(name, name): share for name, share in peer(norm_probs=True).rank(cut)}
        if label is None:  # no feature: to py3langid all columns are as likely, and two languages have two
            assert max(probabilities.values()) == pytest.approx(2 / 142, abs=1e-6)
            continue
        differing += label != ISO_639_1.get(name, name)
        largest = max(largest, abs(score / SCORE_ONE - probabilities[label]))
    return differing, largest


@needs_data
@pytest.mark.parametrize("name", ["c4", "udhr2", "sentences", "single-words"])
def test_equals_py3langid(name: str) -> None:
    """The same label on 99.99% of the texts, and its probability within 1/10,000."""
    texts = _texts(name)
    differing, largest = compare(texts)
    print(f"\n{name}: {differing} of {len(texts)} labels differ from py3langid, scores within {largest:.6f}")
    assert len(texts) > 350
    assert differing <= max(1, len(texts) // 10_000)
    assert largest <= 1e-4


def _texts(name: str) -> list[str]:
    if name == "c4":
        lines = (SHARED / "web_text/c4_sample/c4_all.jsonl").read_text().splitlines()
        return [json.loads(line)["text"] for line in lines[::4]]
    if name == "udhr2":
        return [file.read_text(encoding="utf-8") for file in sorted((SHARED / "langid/udhr2").glob("*.txt"))]
    files = sorted((SHARED / "langid/lingua_testdata" / name).iterdir())
    return [line for file in files for line in file.read_text(encoding="utf-8").split("\n")[:60] if line]


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH.upper(),
        "МОСКВА ГОВОРИТ ПО-РУССКИ И НЕ ТОЛЬКО",
        unicodedata.normalize("NFD", GERMAN),
        "Ti\u1ebfng Vi\u1ec7t " + unicodedata.normalize("NFD", "là ngôn ngữ của người Việt"),
        unicodedata.normalize("NFD", "한국어는 한국의 언어이다"),
        "A股",
        "ǅ Ǆ",
        "x" * 300 + ENGLISH,
        GERMAN * 400,
        "é" * 15_000,
        " a" * 30_000,
    ],
)
def test_equals_py3langid_on_odd_texts(text: str) -> None:
    """Capitals, decomposed letters, long runs, and cuts in the middle of a character."""
    differing, largest = compare([text])
    assert differing == 0
    assert largest <= 1e-4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=20, max_size=20))
def test_equals_py3langid_on_any_characters(texts: list[str]) -> None:
    """Label ties aside (none is expected in as few texts), any Unicode string is prepared as py3langid does."""
    differing, largest = compare(texts)
    assert differing == 0
    assert largest <= 1e-4


def test_score_is_the_exact_softmax() -> None:
    """The kernel's score against the formula in exact and 50-digit arithmetic, from counts made in Python."""
    model, data = load_model(), GERMAN.encode()
    state, counts = 0, dict[int, int]()
    for byte in data:
        state = int(model.moves[model.states[state, 0] + byte])
        feature = int(model.states[state, 1])
        if feature >= 0:
            counts[feature] = counts.get(feature, 0) + 1
    totals = [
        int(prior)
        + sum(int(model.logs[count]) * int(model.weights[feature, place]) for feature, count in counts.items())
        for place, prior in enumerate(model.priors)
    ]
    assert max(totals) < 2**63
    scale = math.sqrt(len(data)) * 2**29
    shares = [math.exp(float(Fraction(total - max(totals))) / scale) for total in totals]
    labels, scores = identify(column(GERMAN), MAX_BYTES)
    best = totals.index(max(totals))
    assert labels.to_pylist() == [model.labels[best]] == ["de"]
    assert scores[0] == round(shares[best] / math.fsum(shares) * SCORE_ONE)


@pytest.mark.parametrize("x", [0.0, 1e-9, 0.1, 0.6931471805599453, 1.0, 7.5, 20.0, 29.999, 30.1, 1e9])
def test_exponential(x: float) -> None:
    """Within 1e-10 of e^-x."""
    assert module._exp_minus.py_func(x) == pytest.approx(math.exp(-x), abs=1e-10)


def test_logs_do_not_hang_on_a_library() -> None:
    """No log(1 + count) is so near the middle of two integers that another libm could round it the other way."""
    logs = [math.log1p(count) * (1 << module.COUNT_BITS) for count in range(len(load_model().logs))]
    assert min(abs(log - math.floor(log) - 0.5) for log in logs) > 1e-7


def test_weights_are_exact_in_fixed_point() -> None:
    """Every weight and prior of the model is a multiple of the unit: nothing is rounded."""
    scaled = np.ldexp(peer().nb_ptc.astype(np.float64), module.WEIGHT_BITS)
    assert np.array_equal(scaled, load_model().weights)
    assert np.array_equal(
        np.ldexp(peer().nb_pc.astype(np.float64), module.WEIGHT_BITS + module.COUNT_BITS), load_model().priors
    )


def test_languages_are_those_of_the_model() -> None:
    """The constant that recipes are checked against."""
    assert set(load_model().labels) == LANGUAGES


def test_code_points_are_filed_rightly() -> None:
    """What skips preparation is NFC by itself, joins no neighbour, and lower case means lower case."""
    kinds = module.case_and_form()
    decompositions = (unicodedata.decomposition(chr(point)).split() for point in range(0x110000))
    pairs = [pair for pair in decompositions if len(pair) == 2 and not pair[0].startswith("<")]
    seconds = {int(pair[1], 16) for pair in pairs} | set(range(0x1160, 0x1200))  # Hangul letters join by rule
    for point in np.flatnonzero(kinds != module.UNKNOWN).tolist():
        letter = chr(point)
        assert unicodedata.is_normalized("NFC", letter), hex(point)
        assert unicodedata.combining(letter) == 0, hex(point)
        assert point not in seconds, hex(point)
        if kinds[point] == module.UNCASED:
            assert f"A{letter}".isupper() and not letter.isupper(), hex(point)
        if kinds[point] == module.LOWER:
            assert not f"A{letter}".isupper(), hex(point)


def test_empty_and_unknown_texts_have_no_language() -> None:
    """No feature, no label: score 0, dropped by the score rule only."""
    result = Language()(batch_of("", "12 345", "ᏣᎳᎩ"))
    assert result.column("language").to_pylist()[:1] == [None]
    assert result.column("language_score").to_pylist()[:1] == [0]
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
    score = identify(column(GERMAN), MAX_BYTES)[1][0]
    at, above = Language(minimum_score=int(score)), Language(minimum_score=int(score) + 1)
    assert at(batch_of(GERMAN)).column("verdict").null_count == 1
    assert above(batch_of(GERMAN)).column("verdict").null_count == 0


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


def test_only_the_beginning_counts() -> None:
    """What lies behind `max_bytes` changes nothing; a character on the border is left out."""
    transform = Language(max_bytes=200)
    begin = (GERMAN * 3).encode()[:199].decode(errors="ignore")
    pad = "x" * (199 - len(begin.encode()))
    one, other = transform(batch_of(begin + pad + "é" + ENGLISH * 50, begin + pad)).to_pylist()
    assert (one["language"], one["language_score"]) == (other["language"], other["language_score"])


def test_schema() -> None:
    """One column is added at the end."""
    result = Language()(batch_of(ENGLISH))
    assert result.schema.names == ["language", "text", "verdict", "language_score"]
    assert result.schema.field("language_score").type == pa.int32()
    assert isinstance(Language(), Transform)
    assert Language()(batch_of()).num_rows == 0


@pytest.mark.parametrize(("field", "value"), [("languages", ("english",)), ("minimum_score", 10_001), ("max_bytes", 0)])
def test_impossible_settings_are_refused(field: str, value: object) -> None:
    """The message names field and value, and what is allowed."""
    with pytest.raises(ValueError, match=rf"{field}: .*\nhint: "):
        Language(**{field: value})


def test_another_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model file with another hash is not used."""
    monkeypatch.setattr(module, "MODEL_SHA256", "0" * 64)
    with pytest.raises(HeadraceError, match=r"expected 0{64}\nhint: pip install py3langid==0.4.0"):
        load_model.__wrapped__()
