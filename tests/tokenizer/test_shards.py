"""Token shards: readable by Megatron-Core, independent of batching, and closed to documents that break a rule."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer import shards
from tokenizer.encodings import CL100K_BASE
from tokenizer.shards import DOCS, GIVEN, SUFFIXES, Shard, ShardError, ShardSummary, ShardWriter

END = CL100K_BASE.end_of_text
USER, END_OF_TURN = CL100K_BASE.roles.user, CL100K_BASE.roles.end_of_turn


def document(
    number: int, ids: list[int], loss: list[tuple[int, int, int]] | None = None, **more: Any
) -> dict[str, Any]:
    spans = None if loss is None else [{"start": a, "end": b, "weight": w} for a, b, w in loss]
    return {
        "doc_id": number.to_bytes(16, "big"),
        "origin_path": "crawl/00000.warc.gz",
        "origin_offset": 7 * (number % 1_000),
        "origin_length": 5,
        "url": None,
        "host": f"host-{number % 3}.example",
        "language": ["en", "de", None][number % 3],
        "licence": None,
        "loss": spans,
        "ids": ids,
    } | more


def batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, GIVEN)


def written(batches: list[pa.RecordBatch]) -> tuple[dict[str, bytes], ShardSummary]:
    files = {name: io.BytesIO() for name in SUFFIXES}
    writer = ShardWriter(files["bin"], files["idx"], files["docs"], CL100K_BASE)
    for part in batches:
        writer.write(part)
    summary = writer.close()
    return {name: file.getvalue() for name, file in files.items()}, summary


def stored(folder: Path, batches: list[pa.RecordBatch], name: str = "shard-00000") -> tuple[Path, ShardSummary]:
    content, summary = written(batches)
    for kind, suffix in SUFFIXES.items():
        (folder / f"{name}{suffix}").write_bytes(content[kind])
    return folder / name, summary


THREE = [
    document(1, [9, 8, END]),
    document(2, [END]),
    document(1 << 64, [USER, 7, END_OF_TURN, END], [(1, 4, 256)]),
]


def test_bytes_by_hand() -> None:
    content, summary = written([batch(THREE)])
    assert content["bin"] == struct.pack("<8i", 9, 8, END, END, USER, 7, END_OF_TURN, END)
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 4, 3, 4)
    assert content["idx"] == header + struct.pack("<3i3q4q", 3, 1, 4, 0, 12, 16, 0, 1, 2, 3)
    docs = pq.read_table(io.BytesIO(content["docs"]))
    assert docs.schema.equals(DOCS)
    assert docs.column("tokens").to_pylist() == [3, 1, 4]
    assert docs.to_pylist() == [
        {key: value for key, value in row.items() if key != "ids"} | {"tokens": len(row["ids"])} for row in THREE
    ]
    assert (summary.documents, summary.tokens, summary.loss_tokens) == (3, 8, 3 + 1 + 3)
    assert (summary.first_doc_id, summary.last_doc_id) == (THREE[0]["doc_id"], THREE[2]["doc_id"])
    for name, data in content.items():
        file = getattr(summary, name)
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_reader_and_verify(tmp_path: Path) -> None:
    prefix, summary = stored(tmp_path, [batch(THREE[:1]), batch(THREE[1:])])
    shard = Shard.open(prefix, CL100K_BASE)
    assert len(shard) == 3
    assert [shard.ids(place).tolist() for place in range(3)] == [row["ids"] for row in THREE]
    assert shard.doc_ids().to_pylist() == [row["doc_id"] for row in THREE]
    assert shard.docs().num_rows == 3
    assert shard.verify() == summary
    with pytest.raises(IndexError):
        shard.ids(3)


def test_empty_shard(tmp_path: Path) -> None:
    prefix, summary = stored(tmp_path, [])
    assert stored(tmp_path, [batch(THREE[:0])]) == (prefix, summary)
    assert (summary.documents, summary.tokens, summary.first_doc_id) == (0, 0, None)
    shard = Shard.open(prefix, CL100K_BASE)
    assert len(shard) == 0
    assert shard.docs().num_rows == 0
    assert shard.verify() == summary


def test_megatron_reads_the_same_documents(tmp_path: Path) -> None:
    indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    generator = np.random.default_rng(5)
    rows = [document(n, [*generator.integers(0, 100_256, generator.integers(0, 50)).tolist(), END]) for n in range(200)]
    prefix, _ = stored(tmp_path, [batch(rows[:90]), batch(rows[90:])])
    theirs = indexed_dataset.IndexedDataset(str(prefix), mmap=True)
    assert len(theirs) == 200
    assert [theirs[place].tolist() for place in range(200)] == [row["ids"] for row in rows]
    assert theirs[0].dtype == np.int32
    assert theirs.document_indices.tolist() == list(range(201))
    builder = indexed_dataset.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.int32)
    for row in rows:
        builder.add_document(np.array(row["ids"]), [len(row["ids"])])
    builder.finalize(str(tmp_path / "theirs.idx"))
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"theirs{suffix}").read_bytes() == Path(f"{prefix}{suffix}").read_bytes()


MANY = [document(n, [n, END], [(0, 1, 1 + n % 256)] if n % 5 == 0 else None) for n in range(60)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=8), st.integers(0, 60), st.sampled_from([1, 7, 20, 60, 100]))
def test_bytes_do_not_depend_on_batches(cuts: list[int], size: int, row_group: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROW_GROUP_ROWS", row_group)
        whole = batch(MANY[:size])
        bounds = [0, *sorted(min(cut, size) for cut in cuts), size]
        sliced = [whole.slice(start, stop - start) for start, stop in zip(bounds, bounds[1:], strict=False)]
        copied = [batch(MANY[start:stop]) for start, stop in zip(bounds, bounds[1:], strict=False)]
        expected = written([whole])
        assert written(sliced) == expected
        assert written(copied) == expected
        groups = pq.ParquetFile(io.BytesIO(expected[0]["docs"])).metadata
        rows = [groups.row_group(place).num_rows for place in range(groups.num_row_groups)]
        assert rows == [row_group] * (size // row_group) + [size % row_group] * (size % row_group > 0)


FAULTY = {
    "no tokens": document(2, []),
    "outside of the vocabulary": document(2, [100_352, END]),
    "outside of the vocabulary ": document(2, [-1, END]),
    "special id": document(2, [100_258, END]),
    "special id ": document(2, [100_256, END]),
    "special id  ": document(2, [100_300, END], []),
    "role id although": document(2, [USER, END]),
    "role id although ": document(2, [END_OF_TURN, END]),
    "end-of-text before": document(2, [END, END]),
    "not end with": document(2, [5]),
    "not end with ": document(2, [USER, END_OF_TURN], []),
    "spans": document(2, [5, END], [(0, 0, 1)]),
    "spans ": document(2, [5, END], [(0, 3, 1)]),
    "spans  ": document(2, [5, 5, END], [(0, 2, 1), (1, 3, 1)]),
    "spans   ": document(2, [5, END], [(-1, 1, 1)]),
    "not merged": document(2, [5, END], [(0, 1, 7), (1, 2, 7)]),
    "weight": document(2, [5, END], [(0, 1, 0)]),
    "weight ": document(2, [5, END], [(0, 1, 257)]),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_the_writer_refuses(fault: str) -> None:
    with pytest.raises(ShardError, match=f"document 0{{31}}2: .*{fault.strip()}"):
        written([batch([THREE[0], FAULTY[fault]])])


@pytest.mark.parametrize("number", [1, 0])
@pytest.mark.parametrize("apart", [True, False])
def test_doc_ids_must_ascend(number: int, apart: bool) -> None:
    rows = [THREE[0], document(number, [END])]
    with pytest.raises(ShardError, match="stands behind 0{31}1"):
        written([batch(rows[:1]), batch(rows[1:])] if apart else [batch(rows)])


def test_doc_ids_ascend_as_bytes() -> None:
    numbers = [0, 1, 255, 256, (1 << 64) - 1, 1 << 64, 1 << 127, (1 << 128) - 1]
    assert written([batch([document(number, [END]) for number in numbers])])[1].documents == len(numbers)


def test_high_half_of_a_doc_id_counts_before_the_low_half() -> None:
    with pytest.raises(ShardError, match="0{31}2: stands behind 0{15}10{15}1"):
        written([batch([document((1 << 64) + 1, [END]), document(2, [END])])])


def test_touching_spans_of_other_weights_are_sound() -> None:
    assert written([batch([document(1, [5, 6, END], [(0, 1, 7), (1, 2, 8)])])])[1].loss_tokens == 2


def test_bad_columns_are_refused() -> None:
    good = batch(THREE)
    with pytest.raises(ShardError, match="column host: is missing"):
        written([good.drop_columns(["host"])])
    with pytest.raises(ShardError, match="column ids: of type list<item: int32>"):
        written([good.set_column(9, "ids", good.column("ids").cast(pa.list_(pa.int32())))])
    with pytest.raises(ShardError, match="column doc_id: has 1 nulls"):
        written([batch([document(1, [END], doc_id=None)])])
    with pytest.raises(ShardError, match="null items"):
        written([batch([document(1, [None, END])])])  # type: ignore[list-item]
    with pytest.raises(ShardError, match="column ids: has 1 nulls"):
        written([batch([document(1, [END]) | {"ids": None}])])


def rewritten(prefix: Path, **columns: pa.Array) -> None:
    """Replace columns of the document table on disk, past the writer."""
    table = pq.read_table(f"{prefix}.docs.parquet")
    for name, column in columns.items():
        table = table.set_column(DOCS.get_field_index(name), DOCS.field(name), column)
    pq.write_table(table, f"{prefix}.docs.parquet")


def test_verify_finds_what_the_writer_would_refuse(tmp_path: Path) -> None:
    prefix, _ = stored(tmp_path, [batch(THREE)])
    ids = np.fromfile(f"{prefix}.bin", "<i4")
    for place, value, fault in (
        (1, END, "before its end"),
        (2, 7, "does not end"),
        (0, USER, "role id"),
        (0, -1, "outside"),
    ):
        changed = ids.copy()
        changed[place] = value
        changed.tofile(f"{prefix}.bin")
        with pytest.raises(ShardError, match=fault):
            Shard.open(prefix, CL100K_BASE).verify()
    ids.tofile(f"{prefix}.bin")
    rewritten(prefix, tokens=pa.array([3, 2, 3], pa.int64()))
    with pytest.raises(ShardError, match="token counts"):
        Shard.open(prefix, CL100K_BASE).verify()
    rewritten(prefix, tokens=pa.array([3, 1, 4]), doc_id=pa.array([b"%016d" % n for n in (3, 1, 2)], pa.binary(16)))
    with pytest.raises(ShardError, match="stands behind"):
        Shard.open(prefix, CL100K_BASE).verify()


def test_any_changed_byte_is_found(tmp_path: Path) -> None:
    prefix, summary = stored(tmp_path, [batch(THREE)])
    for suffix in SUFFIXES.values():
        file = Path(f"{prefix}{suffix}")
        good = file.read_bytes()
        for place in range(0, len(good), 1 if suffix != ".docs.parquet" else 13):
            file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            try:
                found: ShardSummary | None = Shard.open(prefix, CL100K_BASE).verify()
            except ShardError:
                found = None
            assert found != summary, (suffix, place)
        for cut in (0, 1, len(good) - 1):
            file.write_bytes(good[:cut])
            with pytest.raises(ShardError):
                Shard.open(prefix, CL100K_BASE).verify()
        file.write_bytes(good)
        assert Shard.open(prefix, CL100K_BASE).verify() == summary
        file.unlink()
        with pytest.raises(ShardError, match=f"shard-00000{suffix}"):
            Shard.open(prefix, CL100K_BASE)
        file.write_bytes(good)


def test_huge_counts_in_an_index_allocate_nothing(tmp_path: Path) -> None:
    prefix, _ = stored(tmp_path, [batch(THREE)])
    Path(f"{prefix}.idx").write_bytes(struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 4, 1 << 60, (1 << 60) + 1))
    with pytest.raises(ShardError, match="34 bytes for 1152921504606846976 documents"):
        Shard.open(prefix, CL100K_BASE)


def test_frozen_names() -> None:
    assert SUFFIXES == {"bin": ".bin", "idx": ".idx", "docs": ".docs.parquet"}
    assert shards.ROW_GROUP_ROWS == 8_192
    assert [field.name for field in dataclasses.fields(ShardSummary)][-3:] == list(SUFFIXES)
    names = "doc_id origin_path origin_offset origin_length url host language licence tokens loss"
    assert DOCS.names == names.split()
