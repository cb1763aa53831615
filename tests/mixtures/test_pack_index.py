"""The pack index counts what packing makes, goes on where it stopped, and is another one for another key."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from plans import made_documents, write_tokens

import mixtures.pack_index as pack_index
from mixtures.errors import MixtureError, PlanError
from mixtures.holdout import Validation
from mixtures.pack_index import PackIndex, PackKey, build_pack_indexes
from mixtures.packing import pack, window_bounds
from tokenizer.manifest import Manifest


@pytest.fixture
def path(tmp_path):
    lengths = np.random.default_rng(3).integers(1, 90, 500).tolist()
    return write_tokens(tmp_path / "out", "web", made_documents("web", lengths), shards=4)


def key_of(path, **changes) -> PackKey:
    manifest = Manifest.load(path)
    key = PackKey("web", {}, manifest.content_hash, 64, 0, "long", 60, Validation("doc_id", "v", (1, 5)))
    return dataclasses.replace(key, **changes)


def build(path, folder, key, workers=1, report=lambda *_: None) -> PackIndex:
    [index] = build_pack_indexes([(path, key)], folder, workers, report)
    return index


@pytest.mark.parametrize("changes", [{}, {"cut": "never"}, {"validation": None}, {"reserved": 3}, {"length": 16}])
def test_counts_are_those_of_packing_each_window(path, tmp_path, changes):
    key = key_of(path, **changes)
    index, manifest = build(path, tmp_path / "packs", key), Manifest.load(path)
    shards = [manifest.open_shard(number) for number in range(4)]
    lengths = np.concatenate([shard.lengths for shard in shards])
    held_out = np.zeros(500, bool)
    if key.validation:
        held_out = np.concatenate([key.validation.held_out(shard.docs()) for shard in shards])
    bounds = window_bounds(500, 60)
    assert len(bounds) - 1 == len(index.sequences) == 9
    for part, found in ((~held_out, index.sequences), (held_out, index.held_out_sequences)):
        for window, (first, last) in enumerate(zip(bounds, bounds[1:], strict=False)):
            some = lengths[first:last][part[first:last]]
            assert found[window] == len(pack(some, key.length, key.reserved, key.cut == "long").offsets) - 1
    table = pq.read_table(index.path)
    long = lengths + key.reserved > key.length
    kept = np.ones(500, bool) if key.cut == "long" else ~long
    assert sum(table.column("tokens").to_pylist()) == lengths[kept & ~held_out].sum() == index.unique.tokens
    assert index.held_out.tokens == lengths[kept & held_out].sum()
    assert index.unique.targets == (lengths[kept & ~held_out] - 1).sum()
    assert index.too_long.documents == (~kept).sum()
    assert index.unique.cut == ((long & kept & ~held_out).sum())


def test_other_shards_and_workers_give_the_same_bytes(path, tmp_path, monkeypatch):
    first = build(path, tmp_path / "one", key_of(path)).path.read_bytes()
    monkeypatch.setattr(pack_index, "SMALL_JOB", 0)
    seen = []
    second = build(path, tmp_path / "two", key_of(path), workers=2, report=lambda *told: seen.append(told))
    assert second.path.read_bytes() == first
    assert seen == [(done, 4) for done in range(5)]
    assert [file.name for file in (tmp_path / "two").iterdir()] == [second.path.name]


def test_it_goes_on_where_it_stopped(path, tmp_path, monkeypatch):
    key, count, done = key_of(path), pack_index._pack_unit, []

    def dies(unit):
        if len(done) == 2:
            raise OSError(28, "No space left on device", str(unit.part))
        done.append(unit)
        count(unit)

    monkeypatch.setattr(pack_index, "_pack_unit", dies)
    with pytest.raises(MixtureError, match="No space left on device\nhint: free or name another place"):
        build(path, tmp_path / "packs", key)
    monkeypatch.setattr(pack_index, "_pack_unit", lambda unit: (done.append(unit), count(unit)))
    seen = []
    index = build(path, tmp_path / "packs", key, report=lambda *told: seen.append(told))
    assert seen == [(2, 4), (3, 4), (4, 4)]
    assert len(done) == 4
    assert index.path.read_bytes() == build(path, tmp_path / "other", key).path.read_bytes()


def test_what_is_no_index_or_part_is_made_anew(path, tmp_path):
    key = key_of(path)
    index = build(path, tmp_path / "packs", key)
    good = index.path.read_bytes()
    for bad in (b"", good[: len(good) // 2]):
        index.path.write_bytes(bad)
        part = tmp_path / "packs/parts" / key.name / "000001.parquet"
        part.parent.mkdir(parents=True)
        part.write_bytes(bad)
        assert build(path, tmp_path / "packs", key).sha256 == index.sha256
        assert index.path.read_bytes() == good


def test_a_name_for_every_key(path):
    key = key_of(path)
    others = [
        {"length": 65}, {"reserved": 3}, {"cut": "never"}, {"window_documents": 61}, {"validation": None},
        {"content_hash": "0" * 64}, {"source": "code"}, {"partition": {"language": "de"}}, {"version": 99},
        {"validation": Validation("doc_id", "w", (1, 5))},
    ]  # fmt: skip
    names = {dataclasses.replace(key, **change).name for change in others} | {key.name}
    assert len(names) == 11
    assert dataclasses.replace(key, partition={"language": "../x"}).name.count("/") == 0


def test_a_file_that_is_another_index(path, tmp_path):
    key = key_of(path)
    index = build(path, tmp_path / "packs", key)
    with pytest.raises(PlanError, match="is no pack index of"):
        PackIndex.load(index.path, key_of(path, length=32))
    index.path.write_bytes(b"no Parquet")
    with pytest.raises(PlanError, match="cannot be read"):
        PackIndex.load(index.path, key)
    assert json.loads(key.to_json())["validation"]["share"] == [1, 5]
