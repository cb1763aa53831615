from __future__ import annotations

import dataclasses

import pytest

from pipelines import ledger
from pipelines.errors import LedgerImbalance
from pipelines.ledger import SplitLedger, check_split, check_stages, to_parquet, to_table


def small_ledger(stage: str = "1-read", split: str = "web/a.warc.gz") -> SplitLedger:
    """Five records, 100 raw bytes; one unreadable; extraction makes 40 bytes; one document of 10 bytes dropped."""
    book = SplitLedger(stage, split)
    book.add(0, "read", "in", source="web", rows=5)
    book.add(0, "read", "out", source="web", rows=4)
    book.add(0, "read", "errored", source="web", reason="damaged", rows=1)
    book.add(0, "read", "in", source="web", table="raw", bytes=100)
    book.add(0, "read", "out", source="web", table="raw", bytes=90)
    book.add(0, "read", "gap", source="web", table="raw", reason="warcinfo", bytes=10)
    book.add(1, "extract", "in", source="web", rows=4)
    book.add(1, "extract", "added", source="web", reason="extract", rows=4, bytes=40)
    book.add(1, "extract", "dropped", source="web", reason="extract.empty", rows=1, bytes=10)
    book.add(1, "extract", "out", source="web", rows=3, bytes=30)
    book.add(2, "write", "in", source="web", rows=3, bytes=30)
    book.add(2, "write", "out", source="web", rows=3, bytes=30)
    return book


def test_a_balanced_ledger_passes():
    check_split(small_ledger().entries(), 2)


@pytest.mark.parametrize("place", range(len(small_ledger().entries())))
@pytest.mark.parametrize("column", ["rows", "bytes"])
def test_changing_any_number_is_found(place, column):
    entries = small_ledger().entries()
    if column == "rows" and (entries[place].table == "raw" or entries[place].account in ledger.EDITS_ONLY):
        pytest.skip("no rows are balanced here")
    entries[place] = dataclasses.replace(entries[place], **{column: getattr(entries[place], column) + 1})
    with pytest.raises(LedgerImbalance, match=r"1-read, web/a\.warc\.gz"):
        check_split(entries, 2)


def test_a_missing_last_step_is_found():
    entries = [entry for entry in small_ledger().entries() if entry.step < 2]
    with pytest.raises(LedgerImbalance, match="put out 3 documents with 30 bytes, but the next step took in 0"):
        check_split(entries, 2)


def test_stages_must_agree():
    later = SplitLedger("2-identify", "bucket 00000 of 00001")
    for step, name in ((0, "read"), (1, "same_key"), (2, "write")):
        later.add(step, name, "in", source="web", rows=3, bytes=30)
        later.add(step, name, "out", source="web", rows=3, bytes=30)
    check_stages(to_table([*small_ledger().entries(), *later.entries()]), ["1-read", "2-identify"])
    later.add(0, "read", "in", source="web", rows=-1, bytes=-8)
    with pytest.raises(LedgerImbalance, match="took in"):
        check_stages(to_table([*small_ledger().entries(), *later.entries()]), ["1-read", "2-identify"])


def test_order_of_entries_changes_no_byte():
    entries = small_ledger().entries()
    assert to_parquet(to_table(entries)) == to_parquet(to_table(reversed(entries)))
