"""The model file, and the score of a text in integers.

A model is a linear one: the log-odds that a text is a positive one are

    bias + (sum of its features' weights) / sqrt(number of its features)

(the square root makes the weight of the evidence grow with a text's length, but not without end). Weights are int16 in
1/`scale` of a log-odds of 1, the bias and the log-odds are in 1/1024, the root is the integer root of 2**20 times the
number, divisions round down, and the score is read from a table of the logistic function: 0 to 10,000. No float
decides, so a score is the same on every machine. A text without words scores 0: there is nothing to judge.

The file: `MAGIC`, the length of the header (4 bytes, little endian), the header (JSON), the weights (int16, little
endian), and the sha256 of all that. Nothing in it is run or unpickled, and its size follows from the header.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.errors import HeadraceError
from pipelines.quality_classifier import features
from pipelines.quality_classifier.features import COUNT, MAX_BITS, MIN_BITS, TOTAL, SparseRows, weigh, weigh_rows

MAGIC = b"headrace quality classifier 1\n"
HASH_BYTES = 32
MAX_HEADER_BYTES = 1 << 20

SCORE_ONE = 10_000
"""The score of a text that is certainly a positive one."""
LOGIT_ONE = 1 << 10
"""A log-odds of 1 in fixed point."""
_TABLE_HALF = 12 * LOGIT_ONE
"""Beyond a log-odds of 12 the score stays: it is 0 or 10,000 by then."""
_ROOT_BITS = 20
_MOST_TOTAL = 1 << 42
"""Sums of weights are cut off here, so that no product leaves 64 bits: a text of less than 100 MB has none."""

WEIGHT_MAX = (1 << 15) - 1


@dataclasses.dataclass(frozen=True, slots=True)
class QualityModel:
    """A trained classifier."""

    weights: np.ndarray
    """int16, shape (2**bits,), in 1/scale."""
    scale: int
    bias: int
    """In 1/LOGIT_ONE."""
    about: dict[str, Any]
    """How it was made: labels with their counts, the positive one, hash of the data, seed and so on. For people."""

    @classmethod
    def rounded(cls, weights: np.ndarray, bias: float, about: dict[str, Any]) -> QualityModel:
        """Return the model of float weights, in the finest steps in which the largest of them fits int16."""
        largest = float(np.abs(weights).max(initial=0.0))
        scale = max(1, min(WEIGHT_MAX, math.floor(WEIGHT_MAX / largest))) if largest > 0 else 1
        whole = np.clip(np.rint(weights * scale), -WEIGHT_MAX, WEIGHT_MAX).astype(np.int16)
        return cls(whole, scale, max(-_TABLE_HALF, min(_TABLE_HALF, round(bias * LOGIT_ONE))), about)

    @property
    def bits(self) -> int:
        """Log2 of the number of buckets."""
        return len(self.weights).bit_length() - 1

    def scores(self, text: pa.Array) -> np.ndarray:
        """Return the score of every row of a `large_string` column: int64, 0 to `SCORE_ONE`."""
        return self._scores(weigh(text, self.weights))

    def scores_of_rows(self, rows: SparseRows) -> np.ndarray:
        """Return the scores of texts whose features were listed, the same as those of the texts."""
        return self._scores(weigh_rows(rows, self.weights))

    def _scores(self, sums: np.ndarray) -> np.ndarray:
        count = sums[:, COUNT]
        # exact: the root of a whole number below 2**52 is rounded right, and never up to the next whole number
        roots = np.sqrt((np.maximum(count, 1) << _ROOT_BITS).astype(np.float64)).astype(np.int64)
        totals = np.clip(sums[:, TOTAL], -_MOST_TOTAL, _MOST_TOTAL) << _ROOT_BITS
        logits = np.clip(self.bias + totals // (roots * self.scale), -_TABLE_HALF, _TABLE_HALF)
        return np.where(count > 0, logistic_table()[logits + _TABLE_HALF], 0)

    def pack(self) -> bytes:
        """Return the model's file."""
        header = {
            "features": features.VERSION, "bits": self.bits, "scale": self.scale, "bias": self.bias,
            "about": self.about,
        }  # fmt: skip
        encoded = json.dumps(header, ensure_ascii=False, sort_keys=True).encode()
        body = MAGIC + len(encoded).to_bytes(4, "little") + encoded + self.weights.astype("<i2").tobytes()
        return body + hashlib.sha256(body).digest()

    @classmethod
    def unpack(cls, content: bytes, name: str) -> QualityModel:
        """Return the model in a file's content; `name` is for messages. Raises `HeadraceError` where it is none."""
        if not content.startswith(MAGIC) or len(content) < len(MAGIC) + 4 + HASH_BYTES:
            raise _no_model(name, "does not begin like one")
        body = content[:-HASH_BYTES]
        if hashlib.sha256(body).digest() != content[-HASH_BYTES:]:
            raise _no_model(name, "its hash is not that of its content: the file is damaged or cut short")
        start = len(MAGIC) + 4
        stop = start + int.from_bytes(body[len(MAGIC) : start], "little")
        if stop - start > MAX_HEADER_BYTES or stop > len(body):
            raise _no_model(name, "its header is too long")
        try:
            header = json.loads(body[start:stop])
            bits, scale, bias = (_whole(header[key]) for key in ("bits", "scale", "bias"))
            version, about = _whole(header["features"]), dict(header["about"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise _no_model(name, f"its header is damaged ({type(error).__name__})") from error
        if version != features.VERSION:
            raise _no_model(name, f"it was trained on features of version {version}, here they are {features.VERSION}")
        if not (MIN_BITS <= bits <= MAX_BITS and len(body) - stop == 2 << bits):
            raise _no_model(name, f"{len(body) - stop} bytes of weights for {bits} bits")
        if not (1 <= scale <= WEIGHT_MAX and -_TABLE_HALF <= bias <= _TABLE_HALF):
            raise _no_model(name, f"scale {scale} and bias {bias} are out of range")
        return cls(np.frombuffer(body[stop:], "<i2").astype(np.int16), scale, bias, about)


@cache
def logistic_table() -> np.ndarray:
    """Return the logistic function at steps of 1/LOGIT_ONE from -12 to 12: int64, in 1/SCORE_ONE."""
    steps = range(-_TABLE_HALF, _TABLE_HALF + 1)
    return np.array([round(SCORE_ONE / (1 + math.exp(-step / LOGIT_ONE))) for step in steps], np.int64)


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r:.40} is no whole number")
    return value


def _no_model(name: str, cause: str) -> HeadraceError:
    return HeadraceError(f"{name}: is no model of the quality classifier: {cause}\nhint: run headrace train-classifier")
