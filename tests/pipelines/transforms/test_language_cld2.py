"""CLD2 behind its wall: any bytes, its languages under their codes, what it finds in mixed texts."""

from __future__ import annotations

import pycld2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.transforms.language_cld2 import (
    LANGUAGES,
    NAMELESS,
    NOTHING,
    OTHER_CODES,
    UNREADABLE,
    find_languages,
)

CODES = sorted(LANGUAGES)
PLACES = {code: place for place, code in enumerate(CODES)}

GERMAN = "Der Zug nach München fährt heute leider nicht, weil der Sturm die Oberleitung beschädigt hat. "
MAORI = "Ko te reo Māori te reo taketake o Aotearoa, ā, kei te ako te iwi i tēnei reo i ngā kura katoa o te motu. "


def names(text: str | bytes) -> list[tuple[str, int]]:
    """Return codes and shares of what is found in a text."""
    found = find_languages([text.encode() if isinstance(text, str) else text], PLACES)[0]
    return [(CODES[place] if place >= 0 else str(place), share) for place, share, _ in found.tolist() if share]


def test_languages_are_those_that_it_detects() -> None:
    """All of the package's list but Klingon, pig Latin and two scripts."""
    codes = dict(pycld2.LANGUAGES)
    detected = {codes[name] for name in pycld2.DETECTED_LANGUAGES}
    unwanted = {"tlh", "zzp", "xx-Bugi", "xx-Goth"}
    assert {OTHER_CODES.get(code, code) for code in detected - unwanted} == LANGUAGES


def test_unreadable_is_what_it_refuses() -> None:
    """Every code point by itself: refused if and only if it would be cleaned away."""
    for point in [*range(0xD800), *range(0xE000, 0x20000), *range(0x1FFF0, 0x110000, 0xFFF), 0x10FFFE, 0x10FFFF]:
        text = f"a{chr(point)}b"
        try:
            pycld2.detect(text, isPlainText=True)
            refused = False
        except pycld2.error:
            refused = True
        assert refused == (UNREADABLE.search(text) is not None), hex(point)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=80), st.text(max_size=60).map(lambda t: t.encode("utf-8", "surrogatepass"))))
)
def test_any_bytes(texts: list[bytes]) -> None:
    """No exception, the bounds hold, and a text's finding does not hang on its company."""
    found = find_languages(texts, PLACES)
    assert found.shape == (len(texts), 3, 3)
    assert ((found[:, :, 0] >= NOTHING) & (found[:, :, 0] < len(CODES))).all()
    assert ((found[:, :, 1] >= 0) & (found[:, :, 1].sum(axis=1, keepdims=True) <= 100)).all()
    assert all((find_languages([text], PLACES)[0] == row).all() for text, row in zip(texts, found, strict=True))


@pytest.mark.parametrize(
    "text", [GERMAN * 3, GERMAN * 3 + "\0", "\x85" + GERMAN * 3 + "\ufdd0", b"\xff\xed\xa0\x80" + GERMAN.encode() * 3]
)
def test_unreadable_characters_do_no_harm(text: str | bytes) -> None:
    """NUL, controls, noncharacters, bytes that are no UTF-8: German all the same."""
    assert names(text)[0][0] == "de"
    assert names(text)[0][1] >= 95


def test_markup_is_text() -> None:
    """A page about HTML keeps its words: nothing is taken for a tag."""
    tagged = f"<p title='{GERMAN}'>"
    assert names(tagged * 3)[0][0] == "de"


def test_codes_and_shares() -> None:
    """New codes for old ones, the largest first, a script without a language."""
    assert names("זה משפט פשוט בעברית שנכתב היום") == [("he", 98)]
    assert [code for code, _ in names(GERMAN * 6 + MAORI * 3)] == ["de", "mi"]
    assert names("ꀊꀋꀌꀍꀎꀏꀐꀑ ꀒꀓꀔꀕꀖ ꀗꀘꀙꀚ") == [(str(NAMELESS), 100)]
    assert names("12345 678") == []
