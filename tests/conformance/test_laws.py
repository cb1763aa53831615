"""The laws of design, on real input: same bytes, nothing disappears, a split finishes once."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import SHARED, plan_of, run_recipe, tiny_recipe
from trees import tree_hashes

from pipelines.engines.datatrove import DatatroveEngine
from pipelines.errors import HeadraceError, LedgerImbalance
from pipelines.ledger import check_stages
from pipelines.run import run_plan
from pipelines.schema import DOC_ID
from pipelines.sources.source import BatchLimits
from pipelines.stage import MapStage
from pipelines.storage.local import LocalStorage
from pipelines.transform import EMPTY_SCHEMA, replace_column
from pipelines.verify import verify_output

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")


# Law 1: same bytes


@pytest.mark.parametrize(
    "variant",
    [
        {"workers": 3},
        {"shuffle": 7},
        {"limits": BatchLimits(max_rows=7)},
        {"limits": BatchLimits(max_rows=100_000, max_bytes=1 << 30), "shuffle": 8, "workers": 2},
        {"limits": BatchLimits(max_rows=1000, max_bytes=100_000)},
    ],
    ids=str,
)
def test_same_bytes(variant, recipe, reference, tmp_path):
    output, result = reference
    run_recipe(recipe, tmp_path / "out", **variant)
    assert tree_hashes(tmp_path / "out") == tree_hashes(output)
    assert result.num_found == 0


def test_the_reference_says_something(reference):
    """Everything that the laws are about happens in this run."""
    _, result = reference
    seen = {(row["source"], row["account"], row["reason"].partition(".")[0]) for row in result.ledger.to_pylist()}
    for expected in [
        ("web", "dropped", "media_type"),
        ("web", "dropped", "http_status"),
        ("web", "dropped", "gopher_quality"),
        ("web", "dropped", "same_key"),
        ("c4", "dropped", "gopher_quality"),
        ("copies", "dropped", "exact_duplicate"),
        ("conversations", "errored", "conversation"),
        ("code", "dropped", "empty"),
        ("web", "gap", "request"),
    ]:
        assert expected in seen
    assert any(source == "web" and account == "errored" for source, account, _ in seen)
    tokens = {row["source"]: row["tokens"] for row in result.ledger.to_pylist() if row["tokens"]}
    assert set(tokens) == {"web", "c4", "conversations", "code", "copies"}


# Law 2: identity


def test_ids_are_unique_and_ordered_over_all_shards(reference):
    output, _ = reference
    ids = []
    for path in sorted((output / "stages/5-tokenize/documents").iterdir(), key=first_id):
        ids += pq.read_table(path, columns=["doc_id"]).column("doc_id").to_pylist()
    assert ids == sorted(set(ids))
    assert len(ids) > 1000


def first_id(path: Path) -> bytes:
    ids = pq.read_table(path, columns=["doc_id"]).column("doc_id")
    return ids[0].as_py() if len(ids) else b""


# Law 3: nothing disappears


@dataclasses.dataclass(frozen=True)
class Careless:
    """A transform with a fault."""

    name: ClassVar[str] = "careless"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = EMPTY_SCHEMA
    drops: ClassVar[tuple[str, ...]] = ()
    fault: str

    def __call__(self, batch):
        if batch.num_rows < 2:
            return batch
        if self.fault == "loses a row":
            return batch.slice(1)
        if self.fault == "doubles a row":
            return pa.RecordBatch.from_pylist([*batch.to_pylist(), *batch.slice(0, 1).to_pylist()], schema=batch.schema)
        if self.fault == "changes the order":
            return batch.take(pa.array(range(batch.num_rows - 1, -1, -1)))
        if self.fault == "exchanges a document":
            ids = [b"\x01" * 16, *batch.column("doc_id").to_pylist()[1:]]
            return replace_column(batch, "doc_id", pa.array(ids, DOC_ID))
        return batch.append_column("more", pa.nulls(batch.num_rows, pa.int32()))

    def evidence(self, batch):
        return [[] for _ in range(batch.num_rows)]


@pytest.mark.parametrize(
    "fault", ["loses a row", "doubles a row", "changes the order", "exchanges a document", "adds a column"]
)
def test_a_careless_transform_fails_the_run(fault, tmp_path):
    output = LocalStorage(tmp_path / "out")
    plan = plan_of(tiny_recipe(tmp_path), output)
    first = plan.stages[0]
    assert isinstance(first, MapStage)
    chains = {
        name: dataclasses.replace(chain, transforms=(Careless(fault), *chain.transforms))
        for name, chain in first.chains.items()
    }
    plan = dataclasses.replace(plan, stages=(dataclasses.replace(first, chains=chains), *plan.stages[1:]))
    with DatatroveEngine(1) as engine, pytest.raises(LedgerImbalance, match="transform careless"):
        run_plan(plan, output, engine, lambda *_: None)


def test_a_file_lost_between_two_stages_is_found(reference):
    """The cross-stage check alone must see what is missing."""
    _, result = reference
    rows = result.ledger.to_pylist()
    first_bucket = next(row["split"] for row in rows if row["stage"] == "2-identify")
    kept = [row for row in rows if row["split"] != first_bucket or row["stage"] != "2-identify"]
    with pytest.raises(LedgerImbalance, match="stage 2-identify: took in"):
        check_stages(pa.Table.from_pylist(kept, schema=result.ledger.schema), ["1-read", "2-identify"])


def test_rejects_hold_what_the_ledger_says(reference):
    output, result = reference
    for stage in ("1-read", "2-identify", "5-tokenize"):
        rows = [row for row in result.ledger.to_pylist() if row["stage"] == stage and row["table"] == "documents"]
        expected: dict[tuple, int] = {}
        for row in rows:
            if row["account"] in ("dropped", "errored", "merged"):
                key = (row["source"], row["transform"], row["account"], row["reason"])
                expected[key] = expected.get(key, 0) + row["rows"]
        found: dict[tuple, int] = {}
        for path in (output / f"stages/{stage}/rejects").iterdir():
            for row in pq.read_table(path).to_pylist():
                verdict = row["verdict"]
                key = (row["source"], row["transform"], verdict["outcome"], verdict["reason"])
                found[key] = found.get(key, 0) + 1
        assert found == expected


def test_documents_and_rejects_hold_what_the_filter_measured(reference):
    """Where it keeps values (C4), and where the row came so far; every engine writes the same bytes."""
    output, _ = reference
    seen = set()
    for table in ("documents", "rejects"):
        for path in (output / f"stages/1-read/{table}").iterdir():
            for row in pq.read_table(path).to_pylist():
                came = row["source"] == "c4" and row.get("transform") in (None, "gopher_quality")
                assert (row["gopher_quality_min_words"] is not None) == came
                seen.add((table, row["source"], came))
    assert seen >= {("documents", "c4", True), ("rejects", "c4", True), ("documents", "web", False)}


def test_errored_records_name_file_offset_and_cause(reference):
    output, _ = reference
    errored = [
        row
        for path in (output / "stages/1-read/rejects").iterdir()
        for row in pq.read_table(path).to_pylist()
        if row["verdict"]["outcome"] == "errored"
    ]
    assert errored
    for row in errored:
        assert row["origin_path"]
        assert row["origin_offset"] >= 0
        assert row["verdict"]["value"], row


def test_raw_bytes_are_the_files(recipe, reference):
    _, result = reference
    plan = plan_of(recipe, LocalStorage(Path("unused")))
    first = plan.stages[0]
    assert isinstance(first, MapStage)
    for name, chain in first.chains.items():
        files = {file for split in chain.source.splits(chain.storage) for file in split.files}
        raw = [row for row in result.ledger.to_pylist() if row["table"] == "raw" and row["source"] == name]
        assert sum(row["bytes"] for row in raw if row["account"] == "in") == sum(file.size for file in files)


# Law 5 and the whole


def test_verify_finds_all_of_it_right(reference):
    output, _ = reference
    lines = list(verify_output(output))
    assert any(line.startswith("ledger:") for line in lines)
    assert any("tokens/web/language=" in line for line in lines)


@pytest.mark.parametrize("damage", ["a byte of a shard", "a missing file", "a stray file", "a ledger entry"])
def test_verify_finds_damage(damage, reference, tmp_path):
    output, _ = reference
    copy = tmp_path / "out"
    subprocess.run(["cp", "-r", output, copy], check=True)
    shard = next(copy.rglob("*.bin"))
    if damage == "a byte of a shard":
        content = bytearray(shard.read_bytes())
        content[8] ^= 1
        shard.write_bytes(content)
    elif damage == "a missing file":
        shard.unlink()
    elif damage == "a stray file":
        (copy / "stages/1-read/documents/stray.parquet").write_bytes(b"")
    else:
        table = pq.read_table(copy / "ledger.parquet").slice(1)
        pq.write_table(table, copy / "ledger.parquet")
    with pytest.raises(HeadraceError):
        list(verify_output(copy))
