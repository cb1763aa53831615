"""The n-gram model against py3langid itself on real texts of many languages, and which part of a text it sees."""

from __future__ import annotations

import json
import math
import unicodedata
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipelines.errors import HeadraceError
from pipelines.transforms import language_ngrams as module
from pipelines.transforms.language_ngrams import LANGUAGES, OTHER_CODES, add_up, count_features, load_model, samples
from pipelines.transforms.words import text_view

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
MAX_BYTES = 20_000

GERMAN = "Der Zug nach München fährt heute leider nicht, weil der Sturm die Oberleitung beschädigt hat. "
ENGLISH = "The train to Munich does not run today because the storm has damaged the overhead line. "


@cache
def peer() -> LanguageIdentifier:
    """Return py3langid's own classifier."""
    return LanguageIdentifier.from_model_file(MODEL_FILE)


def sampled(*texts: str, max_bytes: int = MAX_BYTES) -> tuple[list[bytes], list[bytes]]:
    """Return the samples of texts."""
    return samples(*text_view(pa.array(texts, pa.large_string())), max_bytes)


def best_classes(texts: list[str]) -> list[tuple[str, float] | None]:
    """Return every text's best label and score by the kernels, None without a feature."""
    model = load_model()
    best: list[tuple[str, float] | None] = []
    counts = np.zeros(len(model.weights), np.int32)
    seen = np.empty(len(model.weights) + 3, np.int32)
    totals = np.empty(len(model.priors), np.int64)
    for sample in sampled(*texts)[1]:
        data = np.frombuffer(sample, np.uint8)
        num_seen = count_features(data, 0, len(data), model.moves, model.states, counts, seen)
        if num_seen == 0:
            best.append(None)
            continue
        add_up(seen, num_seen, counts, model.weights, model.priors, model.logs, totals)
        assert not counts.any()
        place = int(np.argmax(totals))
        best.append((model.labels[place], int(totals[place]) / 2**29))
    return best


def compare(texts: list[str]) -> tuple[int, float]:
    """Return how many labels differ from py3langid's, and the largest relative difference of a score."""
    differing, largest = 0, 0.0
    for text, found in zip(texts, best_classes(texts), strict=True):
        if found is None:
            continue
        label, score = peer().classify(sampled(text)[0][0].decode())
        differing += found[0] != OTHER_CODES.get(label, label)
        largest = max(largest, abs(found[1] - score) / max(1.0, abs(score)))
    return differing, largest


@needs_data
@pytest.mark.parametrize("name", ["c4", "udhr2", "sentences", "single-words"])
def test_equals_py3langid(name: str) -> None:
    """The same label on 99.99% of the texts, and its score within float32's precision."""
    texts = _texts(name)
    differing, largest = compare(texts)
    print(f"\n{name}: {differing} of {len(texts)} labels differ from py3langid, scores by {largest:.1e}")
    assert len(texts) > 350
    assert differing <= max(1, len(texts) // 10_000)
    assert largest < 1e-4


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
    """Capitals, decomposed letters, long runs, and windows that begin in the middle of a character."""
    differing, largest = compare([text])
    assert differing == 0
    assert largest < 1e-4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=20, max_size=20))
def test_equals_py3langid_on_any_characters(texts: list[str]) -> None:
    """Label ties aside (none is expected in as few texts), any Unicode string is prepared as py3langid does."""
    differing, largest = compare(texts)
    assert differing == 0
    assert largest < 1e-4


def test_windows_by_hand() -> None:
    """Two bytes at 0, 8, 16 and 24 of 26; a window does not begin or end within a code point."""
    assert sampled("abcdefghijklmnopqrstuvwxyz", max_bytes=8)[0] == [b"ab\nij\nqr\nyz"]
    assert sampled("abcdefgh", max_bytes=8)[0] == [b"abcdefgh"]
    assert sampled("aßaßaßaßaßaß", max_bytes=8)[0] == ["aß\na\nß\nß".encode()]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.integers(4, 300))
def test_windows(text: str, max_bytes: int) -> None:
    """Whole up to the bound; else four parts of it in order, valid UTF-8, each at most three bytes longer."""
    text = unicodedata.normalize("NFC", text.replace("\n", " "))
    sample = sampled(text, max_bytes=max_bytes)[0][0].decode()
    if len(text.encode()) <= max_bytes:
        assert sample == text
        return
    assert len(sample.encode()) <= 3 * (max_bytes + 15)
    parts = sample.split("\n")
    if all(unicodedata.is_normalized("NFD", part) for part in parts):  # nothing was composed behind the cutting
        assert len(parts) in (1, 4)
        places = [text.find(part) for part in parts]
        assert places[0] == 0
        assert min(places) >= 0
        assert text.endswith(parts[-1])


def test_logs_do_not_hang_on_a_library() -> None:
    """No log(1 + count) is so near the middle of two integers that another libm could round it the other way."""
    logs = [math.log1p(count) * (1 << module.COUNT_BITS) for count in range(len(load_model().logs))]
    assert min(abs(log - math.floor(log) - 0.5) for log in logs) > 1e-7


def test_longest_sample_has_logs() -> None:
    """NFC makes a code point at most three times as long in UTF-8, and the table covers that."""
    longest = max(
        len(unicodedata.normalize("NFC", chr(point)).encode()) / len(chr(point).encode())
        for point in range(0x110000)
        if not 0xD800 <= point < 0xE000
    )
    assert longest <= 3
    assert len(load_model().logs) > 3 * (module.MAX_BYTES_LIMIT + 3 * module.WINDOWS) + module.WINDOWS


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


def test_capitals_are_lowered_for_the_model_alone() -> None:
    """Cherokee is all capitals, and its small letters are unknown to most: the other sample keeps them."""
    assert sampled("ᏣᎳᎩ") == (["ᏣᎳᎩ".encode()], ["ᏣᎳᎩ".lower().encode()])
    assert "ᏣᎳᎩ".lower() != "ᏣᎳᎩ"


def test_another_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model file with another hash is not used."""
    monkeypatch.setattr(module, "MODEL_SHA256", "0" * 64)
    with pytest.raises(HeadraceError, match=r"expected 0{64}\nhint: pip install py3langid==0.4.0"):
        load_model.__wrapped__()
