"""Language identification: accuracy by language, length and domain, and speed, all identifiers in one run.

    python benchmarks/language_id.py [FOLDER] [--json FILE] [--peers FOLDER] [--rounds 3]

FOLDER holds lingua's test data (75 languages, `lingua_testdata/{sentences,word-pairs,single-words}/xx.txt`) and the
Universal Declaration of Human Rights in many languages (`udhr2/NAME.txt`). Every line belongs to a half by the lowest
bit of its SHA-256's first byte: 0 for choosing weights and thresholds, 1 for reporting. Only the latter is used here. A
document is a run of reporting sentences of one language, cut at 4,000 characters; a UDHR text is one of its paragraphs
of more than 40 characters, for the languages that lingua's data have.

Accuracy is the mean of the accuracies of all languages, none left out, also for identifiers that cannot name them all.
Speed is in CPU seconds of one process, models loaded, best of so many rounds (lingua: one). The peers of
`benchmarks/peers/language_id.txt` are installed once into an environment of their own below `--peers`.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.transforms.language import LANGUAGES, SCORE_ONE, Language, identify
from pipelines.transforms.language_ngrams import MAX_BYTES_LIMIT

HERE = Path(__file__).resolve().parent
DEFAULT_FOLDER = HERE.parent / "../shared/data/langid"
DEFAULT_PEERS = HERE.parent / "build/peers"
PEERS = ("lingua high accuracy", "pycld2", "py3langid", "lid.176.ftz")
OURS = "headrace"
LENGTHS = ("sentences", "word-pairs", "single-words")
DOCUMENT_CHARS = 4_000
LEAST_CHARS = 40
"""Of a UDHR paragraph: titles and numbers are left out."""
CONFUSIONS = 3
"""Wrong labels listed for a language."""

UDHR = {
    "afr": "af", "als": "sq", "arb": "ar", "azj": "az", "bel": "be", "ben": "bn", "bos": "bs", "bul": "bg", "cat": "ca",
    "ces": "cs", "cmn": "zh", "cym": "cy", "dan": "da", "deu": "de", "ell": "el", "eng": "en", "epo": "eo", "est": "et",
    "eus": "eu", "fin": "fi", "fra": "fr", "gle": "ga", "guj": "gu", "heb": "he", "hin": "hi", "hrv": "hr", "hun": "hu",
    "hye": "hy", "ind": "id", "isl": "is", "ita": "it", "jpn": "ja", "kat": "ka", "kaz": "kk", "khk": "mn", "kor": "ko",
    "lat": "la", "lav": "lv", "lit": "lt", "lug": "lg", "mar": "mr", "mkd": "mk", "mly": "ms", "mri": "mi", "nld": "nl",
    "nno": "nn", "nob": "nb", "pan": "pa", "pes": "fa", "pol": "pl", "por": "pt", "ron": "ro", "rus": "ru", "slk": "sk",
    "slv": "sl", "sna": "sn", "som": "so", "sot": "st", "spa": "es", "srp": "sr", "swe": "sv", "swh": "sw", "tam": "ta",
    "tgl": "tl", "tha": "th", "tsn": "tn", "tso": "ts", "tur": "tr", "ukr": "uk", "urd": "ur", "vie": "vi", "xho": "xh",
    "yor": "yo", "zul": "zu",
}  # fmt: skip
"""UDHR's names (before the underscore) for lingua's languages; it has no Telugu. Other scripts of a language count."""

UDHR_OTHERS = {
    "abk": "ab", "ace": "ace", "aii": "syr", "aka": "ak", "amh": "am", "ayr": "ay", "bcl": "bcl", "bho": "bho",
    "bis": "bi", "bod": "bo", "bre": "br", "ceb": "ceb", "chr": "chr", "ckb": "ku", "cos": "co", "crs": "crs",
    "div": "dv", "dzo": "dz", "fao": "fo", "fij": "fj", "fri": "fy", "gla": "gd", "glg": "gl", "gug": "gn", "hat": "ht",
    "hau": "ha", "haw": "haw", "ibo": "ig", "ike": "iu", "ina": "ia", "jav": "jv", "kal": "kl", "kan": "kn",
    "kha": "kha", "khm": "km", "kin": "rw", "kir": "ky", "lao": "lo", "lin": "ln", "lnc": "oc", "ltz": "lb",
    "mal": "ml", "mlt": "mt", "mya": "my", "nbl": "nr", "nep": "ne", "nso": "nso", "nya": "ny", "pbu": "ps",
    "pcm": "pcm", "plt": "mg", "prv": "oc", "qud": "qu", "qug": "qu", "quy": "qu", "quz": "qu",
    "qva": "qu", "qvc": "qu", "qvh": "qu", "qvm": "qu", "qvn": "qu", "qwh": "qu", "qxa": "qu", "qxn": "qu",
    "qxu": "qu", "roh": "rm", "run": "rn", "sag": "sg", "san": "sa", "sco": "sco", "sme": "se", "smo": "sm",
    "ssw": "ss", "sun": "su", "tat": "tt", "tgk": "tg", "tir": "ti", "ton": "to", "tuk": "tk", "uig": "ug",
    "uzn": "uz", "vec": "vec", "ven": "ve", "war": "war", "wln": "wa", "wol": "wo", "ydd": "yi",
}  # fmt: skip
"""UDHR's names for further languages that can be named. A text under any other name should have a low score."""


@dataclasses.dataclass(frozen=True, slots=True)
class Texts:
    """Texts with their languages: one domain or length."""

    languages: tuple[str, ...]
    texts: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What an identifier says of a set, and its CPU seconds."""

    labels: Sequence[str | None]
    seconds: float


def is_reporting(line: str) -> bool:
    """Whether a line belongs to the reporting half."""
    return bool(hashlib.sha256(line.encode()).digest()[0] & 1)


def reporting_lines(folder: Path) -> dict[str, list[str]]:
    """Return the reporting half of every language's lines."""
    lines = {path.stem: path.read_text(encoding="utf-8").split("\n") for path in sorted(folder.glob("*.txt"))}
    return {code: [line for line in of_code if line.strip() and is_reporting(line)] for code, of_code in lines.items()}


def flat(by_language: Mapping[str, Sequence[str]]) -> Texts:
    """Return the texts of all languages in order."""
    pairs = [(code, text) for code, texts in by_language.items() for text in texts]
    return Texts(tuple(code for code, _ in pairs), tuple(text for _, text in pairs))


def documents(sentences: Sequence[str]) -> list[str]:
    """Return sentences joined and cut to documents; what is left over is none."""
    whole: list[str] = []
    part: list[str] = []
    for sentence in sentences:
        part.append(sentence)
        if sum(map(len, part)) + len(part) > DOCUMENT_CHARS:
            whole.append(" ".join(part)[:DOCUMENT_CHARS])
            part = []
    return whole


def udhr_paragraphs(folder: Path) -> dict[str, list[str]]:
    """Return UDHR's paragraphs by language, for lingua's languages."""
    paragraphs: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.txt")):
        if code := UDHR.get(path.stem.partition("_")[0]):
            lines = path.read_text(encoding="utf-8").split("\n")
            paragraphs.setdefault(code, []).extend(line for line in lines if len(line) > LEAST_CHARS)
    return paragraphs


def load_sets(folder: Path) -> dict[str, Texts]:
    """Return every set that accuracy is measured on."""
    by_length = {length: reporting_lines(folder / "lingua_testdata" / length) for length in LENGTHS}
    by_document = {code: documents(lines) for code, lines in by_length["sentences"].items()}
    return {
        **{length: flat(lines) for length, lines in by_length.items()},
        "documents": flat(by_document),
        "udhr": flat(udhr_paragraphs(folder / "udhr2")),
    }


def ours(sets: Mapping[str, Texts], rounds: int, max_bytes: int) -> tuple[dict[str, Answer], dict[str, np.ndarray]]:
    """Label every set with the transform's own function; return the scores as well."""
    answers, all_scores = {}, {}
    identify(pa.array(["Warm up."], pa.large_string()), max_bytes)
    for name, texts in sets.items():
        column = pa.array(texts.texts, pa.large_string())
        seconds = []
        for _ in range(rounds):
            begin = time.process_time()
            labels, scores = identify(column, max_bytes)
            seconds.append(time.process_time() - begin)
        answers[name], all_scores[name] = Answer(labels.to_pylist(), min(seconds)), scores
    return answers, all_scores


def peer(python: Path, name: str, sets: Mapping[str, Texts], rounds: int) -> dict[str, Answer]:
    """Label every set with a peer, in its environment."""
    request = {"rounds": rounds, "texts": {key: texts.texts for key, texts in sets.items()}}
    command = [str(python), str(HERE / "peers/label_languages.py"), name]
    done = subprocess.run(command, input=json.dumps(request), stdout=subprocess.PIPE, text=True, check=True)
    return {key: Answer(answer["labels"], answer["seconds"]) for key, answer in json.loads(done.stdout).items()}


def peer_python(folder: Path) -> Path:
    """Return the interpreter of the peers' environment, which is made if its list has changed."""
    wanted = (HERE / "peers/language_id.txt").read_text()
    environment, mark = folder / "language_id", folder / "language_id/installed.txt"
    if not mark.exists() or mark.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        pip = [str(environment / "bin/pip"), "install", "--quiet", "-r", str(HERE / "peers/language_id.txt")]
        subprocess.run(pip, check=True)
        mark.write_text(wanted)
    return environment / "bin/python"


def accuracy(texts: Texts, labels: Sequence[str | None]) -> dict[str, float]:
    """Return the accuracy of every language; the mean of these is the macro average."""
    right: Counter[str] = Counter(code for code, label in zip(texts.languages, labels, strict=True) if code == label)
    return {code: right[code] / count for code, count in Counter(texts.languages).items()}


def confusions(texts: Texts, labels: Sequence[str | None]) -> dict[str, list[tuple[str, int]]]:
    """Return the most frequent wrong labels of every language."""
    wrong: dict[str, Counter[str]] = {}
    for code, label in zip(texts.languages, labels, strict=True):
        if code != label:
            wrong.setdefault(code, Counter())[label or "none"] += 1
    return {code: counts.most_common(CONFUSIONS) for code, counts in wrong.items()}


def calibration(texts: Texts, labels: Sequence[str | None], scores: np.ndarray) -> list[dict[str, float]]:
    """Return, for bands of scores, how many texts are in it, their mean score and how many are right."""
    right = np.array([code == label for code, label in zip(texts.languages, labels, strict=True)])
    bands = []
    for low, high in ((0, 3000), (3000, 6500), (6500, 9000), (9000, 9900), (9900, SCORE_ONE + 1)):
        inside = (scores >= low) & (scores < high)
        if inside.any():
            share = float(scores[inside].mean()) / SCORE_ONE
            bands.append(
                {
                    "from": low / SCORE_ONE,
                    "texts": int(inside.sum()),
                    "score": share,
                    "right": float(right[inside].mean()),
                }
            )
    return bands


def whole_udhr(folder: Path) -> dict[str, Any]:
    """Judge UDHR's whole texts: those in languages that can be named, and the others, whose scores should be low."""
    paths = sorted(folder.glob("*.txt"))
    column = pa.array([path.read_text(encoding="utf-8") for path in paths], pa.large_string())
    labels, scores = identify(column, Language().max_bytes)
    gold = [(UDHR | UDHR_OTHERS).get(path.stem.partition("_")[0]) for path in paths]
    rows = list(zip([path.stem for path in paths], gold, labels.to_pylist(), scores.tolist(), strict=True))
    named = [row for row in rows if row[1] in LANGUAGES]
    others = [row for row in rows if row[1] not in LANGUAGES]
    least = Language().minimum_score
    return {
        "named": len(named),
        "named_right": sum(row[1] == row[2] for row in named) / len(named),
        "named_kept": sum(row[3] >= least for row in named) / len(named),
        "named_wrong": [row for row in named if row[1] != row[2]],
        "unnamed": len(others),
        "unnamed_kept": sum(row[3] >= least for row in others) / len(others),
        "unnamed_texts": [(row[0], row[2], row[3]) for row in others],
    }


def mean(values: Mapping[str, float]) -> float:
    """Return the macro average."""
    return sum(values.values()) / len(values)


def compare(folder: Path, peers: Path, rounds: int) -> dict[str, Any]:
    """Run all identifiers over all sets."""
    sets = load_sets(folder)
    answers, scores = ours(sets, rounds, Language().max_bytes)
    whole, _ = ours({"documents": sets["documents"]}, rounds, MAX_BYTES_LIMIT)
    by_name = {OURS: answers}
    python = peer_python(peers)
    for name in PEERS:
        by_name[name] = peer(python, name, sets, 1 if name.startswith("lingua") else rounds)
    table = {name: {key: accuracy(sets[key], given[key].labels) for key in sets} for name, given in by_name.items()}
    rates = {name: {key: len(sets[key].texts) / given[key].seconds for key in sets} for name, given in by_name.items()}
    return {
        "accuracy_all": mean(table[OURS]["sentences"]),
        "sentences_per_cpu_second": rates[OURS]["sentences"],
        "documents_per_cpu_second": rates[OURS]["documents"],
        "whole_documents_per_cpu_second": len(sets["documents"].texts) / whole["documents"].seconds,
        "udhr_accuracy": mean(table[OURS]["udhr"]),
        "texts": {key: len(texts.texts) for key, texts in sets.items()},
        "languages": {key: len(set(texts.languages)) for key, texts in sets.items()},
        "accuracy": {name: {key: mean(by_code) for key, by_code in of_name.items()} for name, of_name in table.items()},
        "texts_per_cpu_second": rates,
        "accuracy_by_language": table,
        "confusions": {key: confusions(sets[key], answers[key].labels) for key in ("sentences", "udhr")},
        "calibration": {key: calibration(sets[key], answers[key].labels, scores[key]) for key in sets},
        "udhr_whole": whole_udhr(folder / "udhr2"),
    }


def show(result: Mapping[str, Any]) -> None:
    """Print the tables."""
    keys = tuple(result["texts"])
    print(f"{'accuracy':22}" + "".join(f"{key:>14}" for key in keys))
    print(f"{'texts (languages)':22}" + "".join(f"{result['texts'][k]:>9} ({result['languages'][k]})" for k in keys))
    for name, means in result["accuracy"].items():
        print(f"{name:22}" + "".join(f"{means[key]:>14.4f}" for key in keys))
    print(f"\n{'texts a CPU second':22}" + "".join(f"{key:>14}" for key in keys))
    for name, rates in result["texts_per_cpu_second"].items():
        print(f"{name:22}" + "".join(f"{rates[key]:>14,.0f}" for key in keys))
    print(f"\nwhole documents a CPU second: {result['whole_documents_per_cpu_second']:,.0f}")
    print("\nsentences by language, below 0.97 in ours (ours, then the peers), and what they are taken for")
    by_language = result["accuracy_by_language"]
    for code, share in by_language[OURS]["sentences"].items():
        if share < 0.97:
            theirs = " ".join(f"{by_language[name]['sentences'][code]:.3f}" for name in PEERS)
            print(f"  {code:4} {share:.3f}  {theirs}  {result['confusions']['sentences'].get(code)}")
    print("\nscore against share of right labels")
    for key, bands in result["calibration"].items():
        print(f"  {key:14}" + "  ".join(f"{b['score']:.2f}:{b['right']:.3f} ({b['texts']})" for b in bands))
    udhr = result["udhr_whole"]
    print(
        f"\nUDHR, whole texts: {udhr['named']} in languages that can be named: {udhr['named_right']:.3f} right, "
        f"{udhr['named_kept']:.3f} above the default threshold; {udhr['unnamed']} in others: "
        f"{udhr['unnamed_kept']:.3f} above it"
    )


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS, help="where the peers' environment is kept")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    result = compare(options.folder, options.peers, options.rounds)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
