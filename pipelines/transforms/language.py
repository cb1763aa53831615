"""Language identification: the naive Bayes model that py3langid 0.4.0 ships, evaluated in integers by one kernel.

The model (Lui & Baldwin 2012, "langid.py") walks a byte automaton over the text; states name features (byte n-grams).
The score of a language is `prior + sum over features of log(1 + count) * weight`, and the probability is the softmax
of the scores over `sqrt(bytes)`, a temperature that keeps long texts from being always certain. As the package does,
a text in capitals only is lower-cased first, and every text is brought to NFC.

Here every weight (float16 in the model) is an exact multiple of 2^-9, `log(1 + count)` is rounded to 2^-20, and scores
are their int64 sums: exact, so neither order nor vector width matters, and equal scores go to the first language of the
model. The softmax uses IEEE additions, multiplications, divisions and square roots only, no library's exponential, and
is rounded to 1/10,000. So label and score are the same on every machine for one version of Unicode normalization.

Only the first `max_bytes` bytes (cut at a code point) are looked at, so the cost of a document is bounded. A text in
which the model finds no feature (empty, digits, a script that it does not know) has no language and score 0. Short
texts get low scores rather than wrong certainty: of single sentences in 75 languages one in ten is below 0.65, of
single words nearly all. Cost a CPU second: about 12,000 web documents (17 MB); once a process 0.6 to 1 s and 80 MB.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import lzma
import math
import unicodedata
from functools import cache
from importlib import resources
from typing import ClassVar

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import HeadraceError
from pipelines.transform import Evidence, replace_column, set_verdict, verdicts
from pipelines.transforms.words import next_code_point, parse_ranges, text_view

MODEL_SHA256 = "f4f4a2c3465ca1f081541037f9cac23021d68151c2f709c55ae5eedfca522963"
"""Of `data/model.npz.xz` in py3langid 0.4.0."""

ISO_639_1 = {"kik": "ki"}
"""The model's one label in ISO 639-3 for a language that has a code in ISO 639-1."""

_LANGUAGES = """
ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo fr fuv fy
ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab ki kk km kn ko ku ky la lb lg
lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no nso oc om or pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl
sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue zh zu zxx
"""
LANGUAGES = frozenset(_LANGUAGES.split())
"""What the model can say: ISO 639-1, else ISO 639-3; zxx is text without language (code, numbers, markup)."""

SCORE_ONE = 10_000
"""A probability of 1 as a `language_score`."""

WEIGHT_BITS, COUNT_BITS = 9, 20
"""Binary digits behind the point of the model's weights (exact) and of log(1 + count) (rounded)."""

MAX_BYTES_LIMIT = 65_536
"""NFC makes UTF-8 at most three times as long, and log(1 + count) is tabulated for that many features."""

UNCASED, LOWER, MAYBE_UPPER, UNKNOWN = range(4)
UNCASED_RANGES = """
0-40 5B-60 7B-A9 AB-B4 B6-B9 BB-BF D7 F7 5D0-5EA 620-64A 660-66F 671-6D3 E01-E37 E3F-E47 2010-2027 2030-205E 20A0-20C0
3001-3029 3041-3096 30A1-30FA 30FC 3400-4DBF 4E00-9FFF AC00-D7A3 FF01-FF20 FF61-FF9D 1F300-1FAFF
"""
LOWER_RANGES = "61-7A DF-F6 F8-FF 3AC-3CE 430-45F"
MAYBE_UPPER_RANGES = "41-5A C0-D6 D8-DE 100-17F 388-38A 38C 38E-3AB 400-42F 460-481 48A-52F 1EA0-1EF9"
"""Code points that NFC leaves alone in any company, by what they say about a text being in capitals only."""


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """The model as the kernels want it.

    States are few and their 256-entry rows fewer: state s takes byte b to `moves[row_of[s] * 256 + b]`.
    """

    moves: np.ndarray
    """uint32, shape (rows * 256,): the next state."""
    states: np.ndarray
    """int32, shape (states, 2): offset of the state's row in `moves`, and its feature or -1."""
    weights: np.ndarray
    """int16, shape (features, languages), in 2^-WEIGHT_BITS."""
    priors: np.ndarray
    """int64, shape (languages,), in 2^-(WEIGHT_BITS + COUNT_BITS)."""
    logs: np.ndarray
    """int64, shape (counts,): log(1 + count) in 2^-COUNT_BITS."""
    first: np.ndarray
    """int32, shape (languages,): the first column with the same label (scripts of one language have columns each)."""
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Language:
    """Fills `language` and `language_score`, and drops what is in no wanted language or whose language is doubtful.

    The two rules are independent: `languages` empty keeps every language, `minimum_score` 0 every score.
    """

    name: ClassVar[str] = "language"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = pa.schema([pa.field("language_score", pa.int32())])
    drops: ClassVar[tuple[str, ...]] = ()

    languages: tuple[str, ...] = ()
    """ISO 639-1 codes (639-3 where there is none) to keep; empty = all."""
    minimum_score: int = 6_500
    """In 1/10,000; RefinedWeb (arXiv 2306.01116) and FineWeb use 0.65."""
    max_bytes: int = 20_000
    """How much of a text is looked at."""

    def __post_init__(self) -> None:
        """Refuse languages that the model cannot name and bounds that make no sense."""
        for code in self.languages:
            if code not in LANGUAGES:
                allowed = " ".join(sorted(LANGUAGES))
                raise ValueError(f"languages: {code!r} is no language of the model\nhint: it knows {allowed}")
        if not 0 <= self.minimum_score <= SCORE_ONE:
            raise ValueError(
                f"minimum_score: {self.minimum_score} is out of range\nhint: give 0 to {SCORE_ONE}, 6500 is 0.65"
            )
        if not 1 <= self.max_bytes <= MAX_BYTES_LIMIT:
            raise ValueError(f"max_bytes: {self.max_bytes} is out of range\nhint: give 1 to {MAX_BYTES_LIMIT}")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Fill both columns and set the verdict of rows in an unwanted or a doubtful language."""
        language, scores = identify(batch.column("text"), self.max_bytes)
        unwanted, doubtful = self._broken(language, scores)
        broken = unwanted | doubtful
        reasons: list[str | None] = []
        values: list[str | None] = []
        thresholds: list[str | None] = []
        for row in np.flatnonzero(broken):
            rule = self._language_rule(language[row].as_py()) if unwanted[row] else self._score_rule(scores[row])
            reasons.append(rule[0])
            values.append(rule[1])
            thresholds.append(rule[2])
        batch = replace_column(batch, "language", language)
        batch = set_verdict(batch, verdicts(broken, reasons, values, thresholds, "dropped"))
        return batch.append_column(self.adds.field(0), pa.array(scores, pa.int32()))

    def evidence(self, batch: pa.RecordBatch) -> list[list[Evidence]]:
        """Return label and score of every row against what is allowed."""
        language, scores = identify(batch.column("text"), self.max_bytes)
        unwanted, doubtful = self._broken(language, scores)
        return [
            [
                Evidence(*self._language_rule(label.as_py()), passed=not wrong_language),
                Evidence(*self._score_rule(score), passed=not low_score),
            ]
            for label, score, wrong_language, low_score in zip(
                language, scores, unwanted.tolist(), doubtful.tolist(), strict=True
            )
        ]

    def _broken(self, language: pa.Array, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which rows break the language rule and which the score rule, bool each."""
        wanted = pc.is_in(language, pa.array(self.languages, pa.string())).to_numpy(zero_copy_only=False)
        return ~wanted if self.languages else np.zeros(len(language), bool), scores < self.minimum_score

    def _language_rule(self, label: str | None) -> tuple[str, str, str]:
        return "language", label or "none", "in " + " ".join(self.languages) if self.languages else "any"

    def _score_rule(self, score: int) -> tuple[str, str, str]:
        return "language_score", f"{score}/{SCORE_ONE}", f">= {self.minimum_score}/{SCORE_ONE}"


def identify(text: pa.Array, max_bytes: int) -> tuple[pa.Array, np.ndarray]:
    """Return the language (string, null = none) and the score (int32, in 1/10,000) of every row of `text`."""
    model = load_model()
    offsets, data = text_view(text)
    ends = np.empty(len(text), np.int64)
    prepare = np.empty(len(text), np.bool_)
    _look(offsets, data, max_bytes, case_and_form(), ends, prepare)
    labels, scores = np.full(len(text), -1, np.int32), np.zeros(len(text), np.int32)
    plain, others = np.flatnonzero(~prepare), np.flatnonzero(prepare)
    _classify_rows(model, data, offsets[:-1][plain], ends[plain], plain, labels, scores)
    if len(others):
        prepared = [_prepared(data[offsets[row] : ends[row]].tobytes()) for row in others]
        bounds = np.cumsum([0, *(len(piece) for piece in prepared)], dtype=np.int64)
        view = np.frombuffer(b"".join(prepared), np.uint8)
        _classify_rows(model, view, bounds[:-1], bounds[1:], others, labels, scores)
    return pa.array(model.labels, pa.string()).take(pa.array(labels, mask=labels < 0)), scores


def _classify_rows(
    model: Model,
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    rows: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Classify `data[starts[k]:ends[k]]` into `labels[rows[k]]` and `scores[rows[k]]`."""
    _classify(
        data, starts, ends, rows, model.moves, model.states, model.weights, model.priors, model.logs, model.first,
        labels, scores,
    )  # fmt: skip


def _prepared(text: bytes) -> bytes:
    """Return the text as the model was trained: not in capitals only, in NFC."""
    decoded = text.decode("utf-8", "replace")
    if decoded.isupper():
        decoded = decoded.lower()
    return unicodedata.normalize("NFC", decoded).encode("utf-8")


@cache
def load_model() -> Model:
    """Load and check the model, once a process. It is an npz within LZMA, without pickles.

    Raises `HeadraceError` when the installed package has another model.
    """
    packed = resources.files("py3langid").joinpath("data/model.npz.xz").read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != MODEL_SHA256:
        raise HeadraceError(
            f"py3langid's model: sha256 is {found}, expected {MODEL_SHA256}\nhint: pip install py3langid==0.4.0"
        )
    with np.load(io.BytesIO(lzma.decompress(packed)), allow_pickle=False) as arrays:
        names = arrays["classes"].tolist()
        rows = arrays["nextmove_row"].astype(np.int32) * 256
        return Model(
            moves=arrays["nextmove"].ravel().astype(np.uint32),
            states=np.stack([rows, arrays["out_feat"].astype(np.int32)], axis=1),
            weights=_fixed_point(arrays["ptc"], WEIGHT_BITS).astype(np.int16),
            priors=_fixed_point(arrays["pc"], WEIGHT_BITS + COUNT_BITS),
            logs=_logs(3 * MAX_BYTES_LIMIT + 1),
            first=np.array([names.index(name) for name in names], np.int32),
            labels=tuple(ISO_639_1.get(name, name) for name in names),
        )


def _fixed_point(values: np.ndarray, bits: int) -> np.ndarray:
    """Return `values` in units of 2^-bits, rounded, int64."""
    return np.rint(values.astype(np.float64) * (1 << bits)).astype(np.int64)


def _logs(num: int) -> np.ndarray:
    return np.array([round(math.log1p(count) * (1 << COUNT_BITS)) for count in range(num)], np.int64)


@cache
def case_and_form() -> np.ndarray:
    """Return for every code point its kind (`UNCASED` ... `UNKNOWN`): uint8, shape (0x110000,)."""
    kinds = np.full(0x110000, UNKNOWN, np.uint8)
    for table, kind in ((UNCASED_RANGES, UNCASED), (LOWER_RANGES, LOWER), (MAYBE_UPPER_RANGES, MAYBE_UPPER)):
        for start, stop in parse_ranges(table):
            kinds[start:stop] = kind
    return kinds


@numba.njit(nogil=True, cache=True)
def _look(
    offsets: np.ndarray, data: np.ndarray, max_bytes: int, kinds: np.ndarray, ends: np.ndarray, prepare: np.ndarray
) -> None:
    """Set where each row's text is cut, and whether it may change on being lower-cased or normalized."""
    for row in range(len(offsets) - 1):
        at, end = offsets[row], min(offsets[row] + max_bytes, offsets[row + 1])
        while end < offsets[row + 1] and end > at and data[end] & 0xC0 == 0x80:
            end -= 1
        ends[row] = end
        unknown, lower, maybe_upper = False, False, False
        while at < end and not unknown:
            code_point, at = next_code_point(data, at, end)
            kind = kinds[code_point]
            lower = lower or kind == LOWER
            maybe_upper = maybe_upper or kind == MAYBE_UPPER
            unknown = kind == UNKNOWN
        prepare[row] = unknown or (maybe_upper and not lower)


@numba.njit(nogil=True, cache=True)
def _classify(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    rows: np.ndarray,
    moves: np.ndarray,
    states: np.ndarray,
    weights: np.ndarray,
    priors: np.ndarray,
    logs: np.ndarray,
    first: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Set label (a column of `weights`, or -1) and score of every row."""
    counts = np.zeros(len(weights), np.int32)
    seen = np.empty(len(weights) + 3, np.int32)
    totals = np.empty(len(priors), np.int64)
    for k in range(len(rows)):
        num_seen = _count_features(data, starts[k], ends[k], moves, states, counts, seen)
        if num_seen == 0:
            continue
        _add_up(seen, num_seen, counts, weights, priors, logs, totals)
        best = int(np.argmax(totals))
        labels[rows[k]] = first[best]
        scores[rows[k]] = _score(totals, best, first, ends[k] - starts[k])


@numba.njit(nogil=True, cache=True)
def _count_features(
    data: np.ndarray,
    start: int,
    end: int,
    moves: np.ndarray,
    states: np.ndarray,
    counts: np.ndarray,
    seen: np.ndarray,
) -> int:
    """Walk the automaton; count features into `counts`, list the distinct ones in `seen`, return how many."""
    state, num_seen = np.uint32(0), 0
    for at in range(start, end):
        state = moves[states[state, 0] + data[at]]
        feature = states[state, 1]
        if feature >= 0:
            if counts[feature] == 0:
                seen[num_seen] = feature
                num_seen += 1
            counts[feature] += 1
    return num_seen


@numba.njit(nogil=True, cache=True)
def _add_up(
    seen: np.ndarray,
    num_seen: int,
    counts: np.ndarray,
    weights: np.ndarray,
    priors: np.ndarray,
    logs: np.ndarray,
    totals: np.ndarray,
) -> None:
    """Set `totals` to prior + sum of log(1 + count) * weight for every language, and the counts back to zero.

    Four features at a time, so that their rows are fetched from memory together (twice as fast). Behind the last
    feature comes the first again, by then with count 0 and so log 0. Below 2^63: fewer than 2^18 features, each below
    2^24 * 2^13.
    """
    totals[:] = priors
    seen[num_seen : num_seen + 3] = seen[0]
    for k in range(0, num_seen, 4):
        log_0 = _take_log(seen[k], counts, logs)
        log_1 = _take_log(seen[k + 1], counts, logs)
        log_2 = _take_log(seen[k + 2], counts, logs)
        log_3 = _take_log(seen[k + 3], counts, logs)
        row_0, row_1, row_2, row_3 = weights[seen[k]], weights[seen[k + 1]], weights[seen[k + 2]], weights[seen[k + 3]]
        for language in range(len(totals)):
            totals[language] += (
                log_0 * row_0[language] + log_1 * row_1[language] + log_2 * row_2[language] + log_3 * row_3[language]
            )


@numba.njit(nogil=True, cache=True, inline="always")
def _take_log(feature: int, counts: np.ndarray, logs: np.ndarray) -> int:
    """Return the log of a feature's count and set the count to zero."""
    log = logs[counts[feature]]
    counts[feature] = 0
    return log


@numba.njit(nogil=True, cache=True)
def _score(totals: np.ndarray, best: int, first: np.ndarray, num_bytes: int) -> int:
    """Return the probability of the best label (all its columns) in 1/10,000, rounded."""
    scale = math.sqrt(num_bytes) * (1 << (WEIGHT_BITS + COUNT_BITS))
    label, everything = 0.0, 0.0
    for language in range(len(totals)):
        probability = _exp_minus((totals[best] - totals[language]) / scale)
        everything += probability
        if first[language] == first[best]:
            label += probability
    return math.floor(label / everything * SCORE_ONE + 0.5)


@numba.njit(nogil=True, cache=True)
def _exp_minus(x: float) -> float:
    """Return e^-x for x >= 0 within 1e-10 (0 beyond 30) by basic operations: e^-(x/1024) as a series, to the 1024th."""
    if x > 30.0:
        return 0.0
    y = x / 1024.0
    power = 1.0 - y * (1.0 - y / 2.0 * (1.0 - y / 3.0 * (1.0 - y / 4.0 * (1.0 - y / 5.0))))
    for _ in range(10):
        power *= power
    return power
