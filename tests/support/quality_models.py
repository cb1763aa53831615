"""A small model of the quality classifier, for tests of what uses one."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow as pa

from pipelines.quality_classifier.features import list_features
from pipelines.quality_classifier.training import fit
from pipelines.transforms.given_files import GivenFile

GOOD = (
    "the water comes down the channel and turns the wheel of the mill in the valley",
    "a river that was dammed fills the lake above the town and drives the turbines",
)
BAD = ("click here to subscribe # buy now - - click here", "word word # # login register ... ...")
BITS = 10


@cache
def small_model() -> GivenFile:
    """Write a model that takes prose for good and debris for bad, and return its file."""
    rows = list_features(pa.array([*GOOD, *BAD], pa.large_string()), BITS)
    model = fit(rows, np.array([True, True, False, False]), BITS, {})
    path = Path(mkdtemp(prefix="headrace-quality-"), "quality.bin")
    path.write_bytes(model.pack())
    return GivenFile.of(path)
