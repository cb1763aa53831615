"""The normal form and the sets of shingles against the same rules in plain Python."""

from __future__ import annotations

import hashlib
import json
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_text import BROKEN, HOSTILE, SHARED, bytes_column, column, real_texts

from pipelines.errors import RecipeError
from pipelines.near_duplicates import shingles
from pipelines.near_duplicates.shingles import ALONE, SEPARATOR, SKIPPED, code_point_forms, shingle_sets
from pipelines.transforms.words import UNSPACED, code_point_classes

MASK = (1 << 64) - 1
MULTIPLIER, BASE = 0x2127599BF4325C37, 0x9E6C63D0876A9A4D


def bases(letters: str) -> str:
    return "".join(part for part in unicodedata.normalize("NFKD", letters) if unicodedata.category(part)[0] != "M")


def folded(letter: str) -> str:
    """The letter in the normal form; empty if it is skipped."""
    base = bases(bases(letter).lower())
    if base == "" or (len(base) == 1 and unicodedata.category(base)[0] in "LN"):
        return base
    return letter.lower() if len(letter.lower()) == 1 else letter


def is_alone(letter: str) -> bool:
    return bool(code_point_classes()[ord(letter)] & UNSPACED)


def words(text: str) -> list[str]:
    found, word = [], ""
    for character in text:
        category = unicodedata.category(character)[0]
        form = folded(character) if category in "LN" else ""
        if category == "M" or (category in "LN" and not form):
            continue
        if form and not (is_alone(character) or is_alone(form)):
            word += form
            continue
        found += [part for part in (word, form) if part]
        word = ""
    return found + [word] * (word != "")


def finish(bits: int) -> int:
    bits = ((bits ^ (bits >> 29)) * MULTIPLIER) & MASK
    return bits ^ (bits >> 32)


def hash_of(unit: str) -> int:
    hashed = 0
    for character in unit:
        hashed = ((hashed ^ ord(character)) * MULTIPLIER) & MASK
    return finish(hashed)


def places(text: str, unit: str, ngram: int) -> list[int]:
    """The hashes of a text's shingles in order, with those that occur again."""
    units = [hash_of(word) for word in (words(text) if unit == "word" else " ".join(words(text)))]
    windows = [units[k : k + ngram] for k in range(max(1, len(units) - ngram + 1))] if units else []
    return [finish(polynomial(window)) for window in windows]


def polynomial(window: list[int]) -> int:
    """The sum of `window[k] * BASE^(n - 1 - k)`, from its inner bracket out."""
    total = 0
    for unit in window:
        total = (total * BASE + unit) & MASK
    return total


def sets_of(texts: list[str | None], unit: str, ngram: int) -> list[list[int]]:
    offsets, hashes = shingle_sets(column(texts), unit, ngram)
    assert offsets.dtype == np.int64
    assert hashes.dtype == np.uint64
    assert offsets[0] == 0
    assert offsets[-1] == len(hashes)
    return [hashes[start:stop].tolist() for start, stop in zip(offsets, offsets[1:], strict=False)]


letters = st.characters(exclude_categories=["Cs", "Cn"])
odd_letters = st.sampled_from("aAéÅßſİıＡ²①Ⅷ½ﬁªΣς漢カガｶﾞか゛กัम्한ᄒ́ \n.-'\u200d\u00ad\u0345\u037a〸㊀1٣🙂\ufe0f")
texts = st.one_of(
    st.text(letters, max_size=60),
    st.text(odd_letters, max_size=60),
    st.lists(st.sampled_from(["the", "The", "cat", "naïve", "3", "漢字", "don't", "—"]), max_size=60).map(" ".join),
)


def test_normal_form_by_hand() -> None:
    """What the rules are meant to do; the oracle that the other tests use has to say so too."""
    by_hand = {
        "The CAT, sat!": ["the", "cat", "sat"],
        "don't re-do": ["don", "t", "re", "do"],
        "naïve NAI\u0308VE naive": ["naive"] * 3,
        "ÅNGSTRÖM Ångström": ["angstrom"] * 2,
        "İstanbul ＡＢＣ１ x²": ["istanbul", "abc1", "x2"],
        "Straße ﬁx": ["straße", "ﬁx"],
        "漢字 and カガ": ["漢", "字", "and", "カ", "カ"],
        "ｶﾞ": ["カ"],
        "3月4日": ["3", "月", "4", "日"],
        "〸": ["十"],
        "ทั้": ["ท"],
        "한국 한국": ["한국"] * 2,
        " \u0301 ❤\ufe0f — ": [],
        "a\u00adb": ["a", "b"],
    }
    for text, expected in by_hand.items():
        assert words(text) == expected, text
        assert sets_of([text], "word", 1) == [sorted({hash_word(word) for word in expected})], text


def hash_word(word: str) -> int:
    """A 1-gram: the finished hash of the one unit, finished again."""
    return finish(hash_of(word))


def test_forms_are_those_of_unicode_14() -> None:
    """A later Python must give the same table: kept shingles are compared with those of later runs."""
    digest = hashlib.sha256(code_point_forms().astype("<i4").tobytes()).hexdigest()
    assert digest == "f07df66ca111e4ee9b83822bfdbfa8124f2631ebf602ef2b4dd911584102f406"


def test_forms_are_their_own_forms() -> None:
    forms = code_point_forms()
    found = np.unique(forms[forms > SKIPPED])
    assert np.array_equal(forms[found & ~ALONE], found)
    assert np.all(forms[:128][[chr(point).isalnum() for point in range(128)]] >= ord("0"))
    assert np.count_nonzero(forms[:128]) == 62
    assert forms[ord(" ")] == SEPARATOR
    assert forms[0x301] == SKIPPED


def test_every_code_point_is_folded_as_the_rules_say() -> None:
    forms = code_point_forms()
    if unicodedata.unidata_version != "14.0.0":
        pytest.skip("unicodedata knows other code points")
    for point in [*range(0x3100), *range(0xA000, 0xAC10), *range(0xF900, 0x11000), *range(0x1D400, 0x1F200)]:
        category = unicodedata.category(chr(point))[0]
        form = folded(chr(point)) if category in "LN" else ""
        expected = ord(form) if form else SKIPPED if category in "LM" else SEPARATOR
        assert forms[point] & ~ALONE == expected, hex(point)


@settings(deadline=None)
@given(st.lists(st.none() | texts, max_size=5), st.sampled_from(["word", "character"]), st.integers(1, 64))
@example(["a b c d", None, "", "a b c d e", "a b c d e f"], "word", 5)
@example(["漢字 and a", "a"], "character", 3)
def test_sets_are_those_of_plain_python(rows: list[str | None], unit: str, ngram: int) -> None:
    assert sets_of(rows, unit, ngram) == [sorted(set(places(text or "", unit, ngram))) for text in rows]


@pytest.mark.parametrize(("unit", "ngram"), [("word", 5), ("word", 13), ("character", 24)])
def test_sets_of_real_texts(unit: str, ngram: int) -> None:
    """English pages, and every script that the shared data has; short ones stand in where it is not here."""
    rows = [*real_texts(10), *multilingual_texts(), "Die Würde des Menschen ist unantastbar. 人人生而自由 " * 30]
    assert sets_of(list(rows), unit, ngram) == [sorted(set(places(text, unit, ngram))) for text in rows]


def multilingual_texts() -> list[str]:
    """The beginnings of texts in 387 languages and of documentation in several."""
    found = [path.read_text()[:600] for path in sorted((SHARED / "langid/udhr2").rglob("*.txt"))]
    for path in sorted((SHARED / "web_text/prose_multilingual").glob("*.jsonl")):
        found += [json.loads(line)["text"][:2_000] for line in path.read_text().splitlines()[::40]]
    return found


@pytest.mark.parametrize("unit", ["word", "character"])
@pytest.mark.parametrize("around", [-3, -2, -1, 0, 1, 2, 3])
def test_texts_as_long_as_a_chunk(unit: str, around: int) -> None:
    """A word, a letter of its own or a separator at the place where a chunk ends, one after another in a batch."""
    num = shingles.CHUNK + around
    rows = [
        "".join("ab"[k % 2] + " " for k in range(num)),
        "x" * num + " y z",
        "".join(chr(0x4E00 + k) for k in range(num)) + "é 漢b",
        " ".join(f"w{k}é" for k in range(num)),
        "short text",
    ]
    assert sets_of(list(rows), unit, 5) == [sorted(set(places(text, unit, 5))) for text in rows]


def test_long_texts_and_texts_that_repeat_themselves() -> None:
    """Some hashes for each bucket, too many for each, and buckets of the same hash again and again."""
    rows = [
        *(" ".join(str(k) for k in range(num)) for num in (20_000, 90_000)),
        "ham spam " * 20_000,
        "a",
        "ham " * 10_000 + "spam " * 9_000,
    ]
    assert sets_of(list(rows), "word", 2) == [sorted(set(places(text, "word", 2))) for text in rows]


def test_hostile_texts_have_the_sets_of_plain_python() -> None:
    for unit in ("word", "character"):
        found = sets_of(list(HOSTILE.values()), unit, 5)
        for name, text, ours in zip(HOSTILE, HOSTILE.values(), found, strict=True):
            assert ours == sorted(set(places(text, unit, 5))), (unit, name)


@pytest.mark.parametrize("unit", ["word", "character"])
def test_bytes_that_are_no_text_are_survived(unit: str) -> None:
    offsets, _ = shingle_sets(bytes_column(list(BROKEN)), unit, 5)
    assert len(offsets) == len(BROKEN) + 1


@settings(deadline=None)
@given(st.lists(st.none() | texts, max_size=6), st.integers(0, 6), st.sampled_from(["word", "character"]))
def test_batches_do_not_matter(rows: list[str | None], cut: int, unit: str) -> None:
    """Any cut of a column gives the same sets, views into a larger buffer too."""
    whole = column(rows)
    parts = [shingle_sets(part, unit, 3) for part in (whole.slice(0, cut), whole.slice(cut))]
    offsets, hashes = shingle_sets(whole, unit, 3)
    assert hashes.tolist() == parts[0][1].tolist() + parts[1][1].tolist()
    assert np.diff(offsets).tolist() == np.diff(parts[0][0]).tolist() + np.diff(parts[1][0]).tolist()


def test_case_marks_and_punctuation_make_no_difference() -> None:
    one, other = sets_of(["A naïve café — in PARIS, 2024.", "a naive cafe in Paris 2024"], "word", 3)
    assert one == other
    assert len(one) == 4
    assert sets_of(["one two three", "one two four"], "word", 3)[0] != sets_of(["one two four"], "word", 3)[0]


def test_order_and_borders_of_words_make_a_difference() -> None:
    rows: list[str | None] = ["ab c", "a bc", "c ab", "abc", "ab ab c", "ab c c"]
    assert len({tuple(found) for found in sets_of(rows, "word", 5)}) == len(rows)
    assert len({tuple(found) for found in sets_of(rows, "character", 9)}) == len(rows)


@pytest.mark.parametrize(("unit", "ngram", "value"), [("token", 5, "token"), ("word", 0, "0"), ("word", 65, "65")])
def test_refuses_shingles_that_cannot_be(unit: str, ngram: int, value: str) -> None:
    with pytest.raises(RecipeError, match=value):
        shingle_sets(pa.array(["a"], pa.large_string()), unit, ngram)
