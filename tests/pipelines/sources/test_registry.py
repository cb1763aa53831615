"""The registry names every kind of source once, and each is a frozen dataclass as the protocol asks."""

from __future__ import annotations

import dataclasses
import pickle

from pipelines.sources.registry import SOURCES
from pipelines.sources.source_code import Code


def test_every_kind_is_registered_under_its_own_word():
    assert set(SOURCES) == {"commoncrawl", "wat", "table", "code", "conversations"}
    for kind, source in SOURCES.items():
        assert source.kind == kind
        assert source.version >= 1
        assert dataclasses.is_dataclass(source)
        assert source.__dataclass_params__.frozen


def test_sources_can_be_sent_to_workers():
    source = Code("s", ("*.py",), "r")
    assert pickle.loads(pickle.dumps(source)) == source
