"""The steps of near-deduplication that stand in maps: whose keys and sets are made, and the verdict."""

from __future__ import annotations

import pyarrow as pa
import pytest
from rows import batch_of, document

from pipelines.near_duplicates.presets import Shape
from pipelines.near_duplicates.shingles import shingle_sets
from pipelines.near_duplicates.signatures import text_band_keys
from pipelines.near_duplicates.tables import (
    BAND_KEYS,
    CLUSTER_SIZES,
    MESSAGES,
    NEAR_DUPLICATES,
    SHINGLE_SETS,
    STATE,
    UNDECIDED,
    WANTED,
)
from pipelines.schema import DOC_ID
from pipelines.transforms.exact import DUPLICATES
from pipelines.transforms.near_duplicate import (
    BandKeys,
    NearDuplicate,
    ShingleSets,
    band_key_rows,
    shingle_set_rows,
    state_rows,
)
from pipelines.transforms.scope import scope_hashes

SHAPE = Shape(3, 2, "word", 2)
TEXTS = ["one two three four", "...", None, "one two three five", "a headrace leads to the wheel", "one"]
RANKED = (pa.field("rank", DOC_ID), pa.field("place", pa.int32()))


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def batch() -> pa.RecordBatch:
    """Return documents 0 to 5 of two sources, in a slice behind another document."""
    rows = [
        document(text, natural_key=str(place)) | {
            "doc_id": key(abs(place)), "rank": key(90 + place), "place": place % 2, "source": "ab"[place % 2],
        }
        for place, text in enumerate(["before", *TEXTS], start=-1)
    ]  # fmt: skip
    return batch_of(rows, RANKED).slice(1)


def ids(schema: pa.Schema, *numbers: int, **columns: object) -> pa.Table:
    return pa.Table.from_pylist([{"doc_id": key(number), **columns} for number in numbers], schema)


def gone(*numbers: int) -> pa.Table:
    return ids(DUPLICATES, *numbers, kept_doc_id=key(0), reason="because", place=0)


@pytest.mark.parametrize("scope", ["all", "source"])
def test_keys_are_those_of_texts_that_stay_and_have_words(scope):
    documents = batch()
    step = BandKeys(SHAPE, scope)
    keys, _ = text_band_keys(documents.column("text"), SHAPE, scope_hashes(documents, scope))
    width = SHAPE.bands * 16
    expected = [bytes(keys.tobytes()[width * row : width * (row + 1)]) for row in range(len(TEXTS))]
    expected[1] = expected[2] = None  # no word
    assert step(documents).column("band_keys").to_pylist() == expected
    expected[0] = expected[4] = None
    bound = step.bind({"duplicates": gone(0, 4, 7)})(documents)
    assert bound.column("band_keys").to_pylist() == expected
    rows = band_key_rows(bound)
    assert rows.schema == BAND_KEYS
    assert rows.to_pylist() == [
        {"band_key": expected[place][16 * band : 16 * band + 16], "rank": key(90 + place), "doc_id": key(place)}
        for place in (3, 5)
        for band in range(SHAPE.bands)
    ]


def test_nobody_is_left_to_have_keys():
    bound = BandKeys(SHAPE).bind({"duplicates": gone(*range(6))})(batch())
    assert bound.column("band_keys").null_count == 6
    assert band_key_rows(bound).num_rows == 0
    assert BandKeys(SHAPE)(batch().slice(0, 0)).num_rows == 0


def test_band_keys_of_a_slice():
    documents = BandKeys(SHAPE)(batch())
    assert band_key_rows(documents.slice(3)).equals(band_key_rows(documents).slice(SHAPE.bands))


def test_sets_are_those_of_wanted_documents():
    documents = batch()
    offsets, hashes = shingle_sets(documents.column("text"), "word", 2)
    expected = [hashes[start:stop].tolist() for start, stop in zip(offsets, offsets[1:], strict=False)]
    step = ShingleSets("word", 2)
    all_of_them = step(documents)
    assert all_of_them.column("shingles").to_pylist() == expected
    assert shingle_set_rows(all_of_them).schema == SHINGLE_SETS
    assert shingle_set_rows(all_of_them).column("shingles").to_pylist() == expected
    wanted = step.bind({"wanted": ids(WANTED, 3, 0, 77)})(documents)
    assert wanted.column("shingles").to_pylist() == [expected[0], None, None, expected[3], None, None]
    nothing = dict.fromkeys(MESSAGES.names)
    assert state_rows(wanted).to_pylist() == [
        nothing | {
            "doc_id": key(place), "kind": STATE, "rank": key(90 + place), "state": UNDECIDED, "place": place % 2,
            "shingles": expected[place],
        }
        for place in (0, 3)
    ]  # fmt: skip


def test_removed_documents_are_dropped_with_what_they_are_similar_to():
    edges = ids(NEAR_DUPLICATES, 3, kept_doc_id=key(0), shared=8, total=9, place=1)
    step = NearDuplicate(8_000).bind({"near_duplicates": edges, "cluster_sizes": ids(CLUSTER_SIZES, 0, cluster_size=2)})
    judged = step(batch())
    value = f"8 of 9 shingles with {key(0).hex()}"
    assert judged.column("verdict").to_pylist() == [
        None, None, None,
        {"outcome": "dropped", "reason": "near_duplicate", "value": value, "threshold": "< 8000 / 10000"},
        None, None,
    ]  # fmt: skip
    assert judged.column("cluster_id").to_pylist() == [key(place) for place in range(6)]
    assert judged.column("cluster_size").to_pylist() == [2, 1, 1, 1, 1, 1]
    measured = [row[0] for row in step.evidence(batch())]
    assert [(one.rule, one.value, one.passed) for one in measured[:4]] == [
        ("near_duplicate", "cluster of 2", True),
        *[("near_duplicate", "cluster of 1", True)] * 2,
        ("near_duplicate", value, False),
    ]
    with pytest.raises(ValueError, match="is not bound"):
        NearDuplicate(8_000)(batch())
