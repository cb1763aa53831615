"""What CLD2 (as pycld2 0.42 ships it) finds in a text: up to three languages, with shares and scores.

CLD2 cuts a text into spans of one script and then into chunks, names the language of each by hashed quadgrams (by the
script alone, where one language owns it) and adds up. It counts in integers and keeps nothing between calls. Texts are
plain to it, never HTML: a page that speaks of markup keeps its words. It refuses what is not interchangeable Unicode;
such texts are cleaned first, and no others. About 25 MB of text a CPU second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pycld2

OTHER_CODES = {"bh": "bho", "iw": "he", "jw": "jv", "no": "nb", "zh-Hant": "zh"}
"""CLD2's codes for languages that have another code now, and for Chinese in traditional characters."""

_LANGUAGES = """
aa ab af ak am ar as ay az ba be bg bho bi bn bo br bs ca ceb chr co crs cs cy da de dv dz el en eo es et eu fa fi fj
fo fr fy ga gd gl gn gu gv ha haw he hi hmn hr ht hu hy ia id ie ig ik is it iu ja jv ka kha kk kl km kn ko ks ku ky
la lb lg lif ln lo lt lv mfe mg mi mk ml mn mr ms mt my na nb ne nl nn nr nso ny oc om or pa pl ps pt qu rm rn ro ru
rw sa sco sd sg si sk sl sm sn so sq sr ss st su sv sw syr ta te tg th ti tk tl tn to tr ts tt ug uk ur uz ve vi vo
war wo xh yi yo za zh zu
"""
LANGUAGES = frozenset(_LANGUAGES.split())
"""What it can say, in ISO 639-1, else 639-3. Left out: Klingon and pig Latin, and scripts without a language."""

NAMELESS, NOTHING = -1, -2
"""In place of a language: a script that CLD2 knows no language of, and nothing."""

MOST_LANGUAGES = 3
"""That it names in one text."""

UNREADABLE = re.compile(
    "[\0-\x08\x0b\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))
    + "]"
)
"""Controls and code points that are none: what CLD2 refuses (tested for every code point)."""


def find_languages(texts: Sequence[bytes], places: Mapping[str, int]) -> np.ndarray:
    """Return what CLD2 finds in every text: int32, shape (texts, MOST_LANGUAGES, 3), languages first found first.

    The three are a language's number in `places` (or `NAMELESS`, `NOTHING`), its share in percent of the text, and
    CLD2's score for that part, points per KiB: mostly 400 to 2,000 where the language is right, below 400 where it is
    none that CLD2 knows. Any bytes are taken.
    """
    found = np.zeros((len(texts), MOST_LANGUAGES, 3), np.int32)
    found[:, :, 0] = NOTHING
    for row, text in enumerate(texts):
        for slot, (_, code, percent, score) in enumerate(_detect(text)):
            place = places.get(OTHER_CODES.get(code, code), NAMELESS if code.startswith("xx-") else NOTHING)
            if place != NOTHING and percent > 0:
                found[row, slot] = place, percent, int(score)
    return found


def _detect(text: bytes) -> Sequence[tuple[str, str, int, float]]:
    try:
        details = pycld2.detect(text, isPlainText=True, bestEffort=True)[2]
    except pycld2.error:
        details = pycld2.detect(_cleaned(text), isPlainText=True, bestEffort=True)[2]
    languages: Sequence[tuple[str, str, int, float]] = details
    return languages


def _cleaned(text: bytes) -> bytes:
    return UNREADABLE.sub(" ", text.decode("utf-8", "replace")).encode("utf-8")
