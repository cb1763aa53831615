"""Names of elements: hashes worked out apart, every name found, nothing else found, ranges that the scan relies on."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.main_content import tags as t
from pipelines.main_content.scan import _lookup

KEYS, VALUES = t.tag_table()


def test_a_hash_worked_out_by_hand() -> None:
    """97 * (2^40 + 435), and the low 64 bits of the next product as a signed number."""
    assert t.name_hash("a") == 97 * ((1 << 40) + 435)
    assert t.name_hash("") == 0
    wide = ((97 * ((1 << 40) + 435)) ^ 98) * ((1 << 40) + 435) % (1 << 64)
    assert t.name_hash("ab") == (wide if wide < 1 << 63 else wide - (1 << 64))


def test_every_name_has_one_place_and_is_found() -> None:
    assert len(set(t.NAMES)) == len(t.NAMES)
    assert len({t.name_hash(name) for name in t.NAMES}) == len(t.NAMES)
    for place, name in enumerate(t.NAMES[2:], 2):
        assert _lookup(KEYS, VALUES, t.name_hash(name)) == place == t.TAG[name]


@pytest.mark.parametrize("name", ["", "custom", "span", "em", "dive", "di", "scripts", "P", "h7", "td ", "image"])
def test_other_names_are_none(name: str) -> None:
    """Hashes are made of lower-cased names, so a name in capitals is another one."""
    assert _lookup(KEYS, VALUES, t.name_hash(name)) == 0


def test_ranges_hold_what_their_names_say() -> None:
    nodes = set(t.NAMES[2 : t.NUM_NODE_TAGS])
    assert nodes == set(t.NODE_NAMES.split())
    assert set(t.NAMES[t.FIRST_RAW : t.END_RAW]) == set(t.RAW_NAMES.split())
    headings = t.NAMES[t.H1 : t.H6 + 1]
    assert headings == ("h1", "h2", "h3", "h4", "h5", "h6")


def test_every_table_has_free_places_close_by() -> None:
    """A search ends at a free place; the longest run of taken ones bounds it, whatever name a page makes up."""
    for names, size in ((dict.fromkeys(t.NAMES[2:], 1), t.TABLE_SIZE), ({f"n{k}": 1 for k in range(500)}, 1024)):
        keys, _ = t.hash_table(names, size)
        assert np.count_nonzero(keys) == len(names)
        run = longest = 0
        for key in np.concatenate([keys, keys]):
            run = run + 1 if key else 0
            longest = max(longest, run)
        assert longest < 64


def test_ancestors_have_a_bit_each() -> None:
    bits = t.ancestor_bits()
    assert [int(bits[t.TAG[name]]) for name in t.ANCESTORS] == [1 << place for place in range(len(t.ANCESTORS))]
    others = [name for name in t.NAMES if name not in t.ANCESTORS]
    assert not any(bits[t.TAG[name]] for name in others)
