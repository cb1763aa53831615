"""What is held out follows from the documents and the key alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from mixtures.holdout import Validation

MASK = (1 << 64) - 1


def mixed(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def by_hand(digest: bytes, key: str, share: tuple[int, int]) -> bool:
    """The rule as docs/formats.md has it, in Python's own integers."""
    first, second = np.frombuffer(hashlib.blake2b(key.encode(), digest_size=16).digest(), "<u8").tolist()
    high, low = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
    hashed = mixed((mixed(high ^ first) + (low ^ second)) & MASK)
    return hashed * share[1] < share[0] << 64


def docs(count: int, hosts=None) -> pa.Table:
    ids = [xxhash.xxh3_128_digest(f"{number}") for number in range(count)]
    columns = {"doc_id": pa.array(ids, pa.binary(16))}
    if hosts is not None:
        columns["host"] = pa.array(hosts, pa.string())
    return pa.table(columns)


@pytest.mark.parametrize("share", [(1, 100), (1, 3), (99, 100), (1, 1 << 40)])
def test_documents_by_hand(share):
    table = docs(2000)
    found = Validation("doc_id", "some key", share).held_out(table)
    expected = [by_hand(value.as_py(), "some key", share) for value in table.column("doc_id")]
    assert found.tolist() == expected
    assert abs(found.mean() - share[0] / share[1]) < 0.05


def test_hosts_are_held_out_together_and_rows_without_one_by_themselves():
    hosts = [None if number % 5 == 0 else f"site{number % 40}.example" for number in range(400)]
    table = docs(400, hosts)
    found = Validation("host", "k", (1, 4)).held_out(table)
    for number, host in enumerate(hosts):
        digest = table.column("doc_id")[number].as_py() if host is None else xxhash.xxh3_128_digest(host.encode())
        assert found[number] == by_hand(digest, "k", (1, 4))
    assert 0 < found.sum() < 400


def test_the_rule_does_not_depend_on_how_the_table_is_cut():
    table, rule = docs(500), Validation("doc_id", "k", (1, 4))
    whole = rule.held_out(table)
    parts = [rule.held_out(table.slice(start, 77)) for start in range(0, 500, 77)]
    assert np.array_equal(np.concatenate(parts), whole)
    chunked = pa.concat_tables([table.slice(0, 123), table.slice(123)])
    assert np.array_equal(rule.held_out(chunked), whole)
    assert not np.array_equal(Validation("doc_id", "another", (1, 4)).held_out(table), whole)
    assert len(rule.held_out(table.slice(0, 0))) == 0


@pytest.mark.parametrize("share", [(0, 1), (1, 1), (2, 1), (-1, 2)])
def test_a_share_that_is_none(share):
    with pytest.raises(ValueError, match="is allowed between 0 and 1"):
        Validation("doc_id", "k", share)
