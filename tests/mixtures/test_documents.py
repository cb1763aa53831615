"""Documents of several shards are one run, and what has changed on disk is said."""

from __future__ import annotations

import numpy as np
import pytest
from plans import made_documents, write_tokens

from mixtures.documents import Documents
from mixtures.errors import PlanError
from tokenizer.manifest import Manifest
from tokenizer.shards import MappedShard, ShardError


@pytest.fixture
def documents(tmp_path):
    made = made_documents("web", range(1, 41))
    return made, Documents(Manifest.load(write_tokens(tmp_path / "out", "web", made, shards=7)))


@pytest.mark.parametrize(("first", "last"), [(0, 40), (0, 0), (3, 4), (5, 6), (4, 37), (39, 40), (40, 40)])
def test_any_part(documents, first, last):
    made, found = documents
    ids = list(made)[first:last]
    assert len(found) == 40
    assert found.lengths(first, last).tolist() == [len(made[number]) for number in ids]
    if last > first:
        table = found.read(first, last, ["doc_id", "tokens"])
        assert table.column("doc_id").to_pylist() == ids
        assert table.column("tokens").to_pylist() == [len(made[number]) for number in ids]
    for part in found.parts(first, last):
        shard = found.mapped(part.shard)
        for place, origin in zip(range(part.first, part.last), shard.offsets(part.first, part.last), strict=True):
            expected = made[list(made)[int(found.bounds[part.shard]) + place]]
            assert np.array_equal(shard.tokens[origin : origin + len(expected)], expected)


@pytest.mark.parametrize("places", [[0], [39], [0, 39], [3, 4, 5, 6, 11, 30], list(range(40))])
def test_rows_of_some(documents, places):
    made, found = documents
    table = found.take(np.array(places), ["tokens", "doc_id"])
    assert table.column("doc_id").to_pylist() == [list(made)[place] for place in places]
    assert table.column("tokens").to_pylist() == found.lengths(0, 40)[places].tolist()


def test_a_shard_that_is_gone(documents):
    _, found = documents
    path = found.manifest.path.parent / "00002.idx"
    path.unlink()
    with pytest.raises(PlanError, match=r"00002.idx: No such file or directory\nhint: bring the shard back"):
        found.lengths(0, 40)


def test_an_empty_shard_cannot_be_mapped(tmp_path):
    write_tokens(tmp_path / "out", "web", {}, shards=1)
    with pytest.raises(ShardError, match="has no documents"):
        MappedShard.open(tmp_path / "out/tokens/web/00000")
