from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engines.grouping import bucket_of
from pipelines.schema import DOC_ID


@given(st.lists(st.binary(min_size=16, max_size=16)), st.integers(1, 65536))
def test_buckets_of_ids_follow_their_order(ids, buckets):
    ids = sorted(ids)
    found = bucket_of(pa.array(ids, DOC_ID), buckets)
    # by hand, in integers of any size: the high 32 bits of the id, scaled
    assert found.tolist() == [int.from_bytes(one[:4], "big") * buckets // 2**32 for one in ids]
    assert np.all(np.diff(found) >= 0)


def test_other_keys_are_hashed():
    keys = ["https://example.org/", "", "ü"]
    found = bucket_of(pa.array(keys), 1000)
    assert found.tolist() == [(xxhash.xxh3_64_intdigest(one) >> 32) * 1000 >> 32 for one in keys]


def test_a_slice_has_the_buckets_of_its_rows():
    ids = pa.array([bytes([number]) * 16 for number in range(256)], DOC_ID)
    assert bucket_of(ids.slice(128, 3), 256).tolist() == [128, 129, 130]


def test_a_null_key_is_refused():
    with pytest.raises(ValueError, match="null"):
        bucket_of(pa.array([None], DOC_ID), 2)
