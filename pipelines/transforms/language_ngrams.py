"""The naive Bayes model over byte n-grams that py3langid 0.4.0 ships, evaluated in integers.

The model (Lui & Baldwin 2012, "langid.py") walks a byte automaton over the text; states name features (byte n-grams).
The score of a class is `prior + sum over features of log(1 + count) * weight`. As the package does, a text in capitals
only is lower-cased first, and every text is brought to NFC.

Every weight (float16 in the model) is an exact multiple of 2^-9, `log(1 + count)` is rounded to 2^-20, and scores are
their int64 sums: exact, so neither order nor vector width matters. About 17 MB of text a CPU second; once a process
0.6 to 0.9 s, 80 MB and for a moment 180 MB.
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

import numba
import numpy as np

from pipelines.errors import HeadraceError
from pipelines.transforms.words import next_code_point, parse_ranges

MODEL_SHA256 = "f4f4a2c3465ca1f081541037f9cac23021d68151c2f709c55ae5eedfca522963"
"""Of `data/model.npz.xz` in py3langid 0.4.0."""

OTHER_CODES = {"gug": "gn", "kik": "ki", "no": "nb"}
"""The model's labels that Headrace calls otherwise: ISO 639-1 goes first, and Nynorsk has a label of its own."""

_LANGUAGES = """
ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo fr fuv fy
ga gcf gcr gd gl gn gom grc gu guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab ki kk km kn ko ku ky la lb lg
lij ln lo lt ltg lv mg mk ml mn mr ms mt my nb ne nl nn nso oc om or pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl
sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue zh zu zxx
"""
LANGUAGES = frozenset(_LANGUAGES.split())
"""What the model can say: ISO 639-1, else ISO 639-3; zxx is text without language (code, numbers, markup)."""

WEIGHT_BITS, COUNT_BITS = 9, 20
"""Binary digits behind the point of the model's weights (exact) and of log(1 + count) (rounded)."""

MAX_BYTES_LIMIT = 65_536
"""The most that can be looked at: log(1 + count) is tabulated for as many features."""

WINDOWS = 4
"""Of a text that is too long to be looked at as a whole."""

SAMPLE_LIMIT = 3 * (MAX_BYTES_LIMIT + 3 * WINDOWS + WINDOWS - 1)
"""Bytes of the longest sample: NFC makes UTF-8 at most three times as long, windows end up to 3 bytes late."""

ROWS_AT_ONCE = 4_096
"""Of the weights, on loading."""

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
    """int16, shape (features, classes), in 2^-WEIGHT_BITS."""
    priors: np.ndarray
    """int64, shape (classes,), in 2^-(WEIGHT_BITS + COUNT_BITS)."""
    logs: np.ndarray
    """int64, shape (counts,): log(1 + count) in 2^-COUNT_BITS."""
    labels: tuple[str, ...]
    """Of each class; two classes have the same label where a language has two scripts."""


def samples(offsets: np.ndarray, data: np.ndarray, max_bytes: int) -> tuple[list[bytes], list[bytes]]:
    """Return a sample of every row in NFC, and the same as the model was trained: not in capitals only.

    The sample is the whole text up to `max_bytes` bytes. Of a longer one it is `WINDOWS` windows, the first at the
    beginning, the last at the end, the others evenly between, cut at code points, each on a line of its own. NFC makes
    a sample at most three times as long. Only rows that may change cost a decoding.
    """
    windows = np.empty((len(offsets) - 1, WINDOWS, 2), np.int64)
    prepare = np.empty(len(offsets) - 1, np.bool_)
    _lay_windows(offsets, data, max_bytes, windows)
    _look(data, windows, case_and_form(), prepare)
    composed = [data[first[0] : first[1]].tobytes() for first in windows[:, 0].tolist()]
    for row in np.flatnonzero(windows[:, 0, 1] < offsets[1:]).tolist():
        composed[row] = b"\n".join([data[start:end].tobytes() for start, end in windows[row].tolist()])
    lowered = composed.copy()
    for row in np.flatnonzero(prepare).tolist():
        composed[row], lowered[row] = _prepared(composed[row])
    return composed, lowered


def _prepared(text: bytes) -> tuple[bytes, bytes]:
    """Return a text in NFC, and in NFC and lower-cased if it is in capitals only."""
    decoded = text.decode("utf-8", "replace")
    composed = unicodedata.normalize("NFC", decoded).encode("utf-8")
    if decoded.isupper():
        return composed, unicodedata.normalize("NFC", decoded.lower()).encode("utf-8")
    return composed, composed


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
        rows = arrays["nextmove_row"].astype(np.int32) * 256
        return Model(
            moves=arrays["nextmove"].ravel().astype(np.uint32),
            states=np.stack([rows, arrays["out_feat"].astype(np.int32)], axis=1),
            weights=_fixed_point(arrays["ptc"], WEIGHT_BITS, np.int16),
            priors=_fixed_point(arrays["pc"], WEIGHT_BITS + COUNT_BITS, np.int64),
            logs=_logs(SAMPLE_LIMIT + 1),
            labels=tuple(OTHER_CODES.get(name, name) for name in arrays["classes"].tolist()),
        )


def _fixed_point(values: np.ndarray, bits: int, dtype: type[np.int16 | np.int64]) -> np.ndarray:
    """Return `values` in units of 2^-bits, rounded; a few rows at a time, as float64 takes four times their room."""
    fixed = np.empty(values.shape, dtype)
    for start in range(0, len(values), ROWS_AT_ONCE):
        part = values[start : start + ROWS_AT_ONCE].astype(np.float64)
        fixed[start : start + ROWS_AT_ONCE] = np.rint(part * (1 << bits))
    return fixed


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
def _lay_windows(offsets: np.ndarray, data: np.ndarray, max_bytes: int, windows: np.ndarray) -> None:
    """Set each row's windows (start, end): the whole text and empty ones, or `WINDOWS` spread over a longer one."""
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        size, room = end - begin, 0
        if size > max_bytes:
            size = max_bytes // WINDOWS
            room = end - begin - size
        for k in range(WINDOWS):
            start = begin + room * k // (WINDOWS - 1)
            windows[row, k, 0] = _code_point_start(data, start, end)
            windows[row, k, 1] = _code_point_start(data, start + size, end)
        if room == 0:
            windows[row, 1:] = end


@numba.njit(nogil=True, cache=True)
def _code_point_start(data: np.ndarray, at: int, end: int) -> int:
    """Return the first place from `at` on that is not within a code point: at most three on, at most `end`."""
    stop = min(at + 3, end)
    while at < stop and data[at] & 0xC0 == 0x80:
        at += 1
    return at


@numba.njit(nogil=True, cache=True)
def _look(data: np.ndarray, windows: np.ndarray, kinds: np.ndarray, prepare: np.ndarray) -> None:
    """Set which rows may change on being lower-cased or normalized."""
    for row in range(len(windows)):
        unknown, lower, maybe_upper = False, False, False
        for k in range(WINDOWS):
            at, end = windows[row, k]
            while at < end and not unknown:
                code_point, at = next_code_point(data, at, end)
                kind = kinds[code_point]
                lower = lower or kind == LOWER
                maybe_upper = maybe_upper or kind == MAYBE_UPPER
                unknown = kind == UNKNOWN
        prepare[row] = unknown or (maybe_upper and not lower)


@numba.njit(nogil=True, cache=True)
def count_features(
    data: np.ndarray,
    start: int,
    end: int,
    moves: np.ndarray,
    states: np.ndarray,
    counts: np.ndarray,
    seen: np.ndarray,
) -> int:
    """Walk the automaton over `data[start:end]`; return how many distinct features there are.

    `counts` (int32, a zero for every feature) takes their counts, `seen` (int32, three places more) lists them.
    """
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
def add_up(
    seen: np.ndarray,
    num_seen: int,
    counts: np.ndarray,
    weights: np.ndarray,
    priors: np.ndarray,
    logs: np.ndarray,
    totals: np.ndarray,
) -> None:
    """Set `totals` to prior + sum of log(1 + count) * weight for every class, and the counts back to zero.

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
        for label in range(len(totals)):
            totals[label] += log_0 * row_0[label] + log_1 * row_1[label] + log_2 * row_2[label] + log_3 * row_3[label]


@numba.njit(nogil=True, cache=True, inline="always")
def _take_log(feature: int, counts: np.ndarray, logs: np.ndarray) -> int:
    """Return the log of a feature's count and set the count to zero."""
    log = logs[counts[feature]]
    counts[feature] = 0
    return log
