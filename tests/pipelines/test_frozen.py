"""What the frozen parts must hold on to: nothing stale, nothing lost in silence, nothing that later stages lack."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from rows import document
from runs import plan_of, run_recipe
from trees import tree_hashes

from pipelines import run as run_module
from pipelines.commit import Commit, CommittedTable
from pipelines.engines import engine, grouping
from pipelines.engines.datatrove import DatatroveEngine
from pipelines.engines.engine import StageResult
from pipelines.errors import HeadraceError, LedgerImbalance, RecipeError, VerifyError
from pipelines.recipe import load_recipe
from pipelines.run import RunResult, run_plan
from pipelines.schema import CORE, DOC_ID, IDENTITY
from pipelines.sinks.sink import Output, Place
from pipelines.sinks.tables import TableOutput, read_table
from pipelines.sinks.token_shards import partition_folder
from pipelines.sources.committed import Committed
from pipelines.sources.source_code import Code
from pipelines.stage import Chain, GroupStage, MapStage, Reduce, Side, TableOf
from pipelines.storage import local as storage_module
from pipelines.storage.local import LocalStorage
from pipelines.transform import set_verdict, verdicts
from pipelines.transforms.exact import DUPLICATES, ExactDuplicate
from pipelines.verify import verify_output
from tokenizer.encodings import encoding_named
from tokenizer.manifest import LedgerReference, Manifest, ShardEntry, ShardFiles
from tokenizer.shards import FileSummary
from tokenizer.strict_json import JsonError

ONE_BUCKET = "bucket 00000 of 00001"
MARKS = pa.schema([pa.field("doc_id", DOC_ID), pa.field("mark", pa.int64())])


def code_recipe(folder: Path, buckets: int = 2) -> Path:
    """Write a recipe of two sources of Python files, the second with a copy of a file of the first."""
    for name, texts in {"one": ["A = 1\n", "B = 1\n"], "two": ["A = 1\n", "C = 1\n"]}.items():
        (folder / name).mkdir(parents=True)
        for number, text in enumerate(texts):
            (folder / name / f"{number}.py").write_text(text)
    sources = "".join(
        f"  {name}: {{reader: code, repository: {name}, root: {name}, include: ['**/*.py']}}\n"
        for name in ("one", "two")
    )
    path = folder / "code.yaml"
    path.write_text(f"sources:\n{sources}deduplicate: {{exact: all}}\noutput: {{buckets: {buckets}}}\n")
    return path


@pytest.fixture(name="recipe")
def made_code_recipe(tmp_path):
    return code_recipe(tmp_path)


# A rerun makes what is missing, and takes nothing stale for done


@pytest.mark.parametrize("pattern", ["tokens/two/*.bin", "stages/1-read/documents/*", "stages/5-tokenize/documents/*"])
def test_a_committed_file_that_is_gone_is_made_again(pattern, recipe, tmp_path):
    run_recipe(recipe, tmp_path / "out")
    expected = tree_hashes(tmp_path / "out")
    next((tmp_path / "out").glob(pattern)).unlink()
    with pytest.raises(VerifyError, match="run the recipe again, it makes what is missing"):
        list(verify_output(tmp_path / "out"))
    run_recipe(recipe, tmp_path / "out")
    assert tree_hashes(tmp_path / "out") == expected


def test_a_file_that_changes_and_stays_as_long_is_read_again(recipe, tmp_path):
    run_recipe(recipe, tmp_path / "out")
    changed = tmp_path / "two/1.py"
    changed.write_text("D = 1\n")
    committed = max(file.stat().st_mtime for file in (tmp_path / "out").rglob("*.json"))
    os.utime(changed, (committed + 10, committed + 10))
    run_recipe(recipe, tmp_path / "out")
    run_recipe(recipe, tmp_path / "fresh")
    assert tree_hashes(tmp_path / "out") == tree_hashes(tmp_path / "fresh")


def test_a_rerun_with_other_packages_does_not_mix_in_silence(recipe, tmp_path, monkeypatch):
    run_recipe(recipe, tmp_path / "out")
    (tmp_path / "two/2.py").write_text("E = 1\n")
    monkeypatch.setattr(run_module, "version", lambda name: "99.0")
    try:
        warnings = run_recipe(recipe, tmp_path / "out").warnings
    except HeadraceError as error:
        warnings = (str(error),)
    assert any("99.0" in warning for warning in warnings)


@dataclasses.dataclass(frozen=True, slots=True)
class Overtaken(LocalStorage):
    """Another attempt commits every split of the first stage just before."""

    def commit(self, path: str, record: bytes) -> bool:
        if path.startswith("stages/1-read/commits/"):
            other = json.loads(record)
            other["files"] = [file for file in other["files"] if file["table"] == "documents"]
            LocalStorage.commit(self, path, (json.dumps(other, sort_keys=True) + "\n").encode())
        return LocalStorage.commit(self, path, record)


def test_the_commit_that_stands_is_the_one_that_counts(recipe, tmp_path):
    output = Overtaken(tmp_path / "out")
    with DatatroveEngine(1) as engine:
        result = run_plan(plan_of(recipe, output), output, engine, lambda *_: None)
    on_disk = {
        commit.split: commit
        for commit in (Commit.from_json(file.read_bytes()) for file in output.root.glob("stages/1-read/commits/*"))
    }
    assert {commit.split: commit for commit in result.stages["1-read"].commits} == on_disk


def test_a_new_folder_is_on_the_disk_before_what_lies_in_it_is_committed(tmp_path, monkeypatch):
    flushed: list[Path] = []
    monkeypatch.setattr(storage_module, "_flush", flushed.append)
    storage = LocalStorage(tmp_path / "out")
    attempt = storage.new_attempt()
    storage.create(attempt, "x").close()
    storage.publish(attempt, "x", "stages/1-read/documents/x")
    assert {tmp_path / "out/stages/1-read/documents", tmp_path / "out/stages/1-read", tmp_path / "out/stages"} <= set(
        flushed
    )


# Nothing is lost in silence


def test_a_folder_that_cannot_be_listed_is_told_of(recipe, tmp_path, monkeypatch):
    (tmp_path / "two/more").mkdir()
    (tmp_path / "two/more/m.py").write_text("F = 1\n")
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("/more"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(storage_module.os, "scandir", refuse)
    with pytest.raises(HeadraceError, match="more"):
        run_recipe(recipe, tmp_path / "out")


def test_rows_of_a_small_table_lost_between_stages_are_found(recipe, tmp_path, monkeypatch):
    pieces = grouping._pieces

    def lossy(stage, *arguments):
        for bucket, rows in pieces(stage, *arguments):
            yield bucket, rows.slice(1) if stage.name == "3-find-duplicates" else rows

    monkeypatch.setattr(grouping, "_pieces", lossy)
    with pytest.raises(LedgerImbalance):
        run_recipe(recipe, tmp_path / "out")


def test_a_side_table_that_does_not_arrive_is_found(recipe, tmp_path, monkeypatch):
    def nothing(stage, sides, label):
        return tuple(dataclasses.replace(side, commits=()) for side in sides)

    monkeypatch.setattr(engine, "side_of_split", nothing)
    with pytest.raises(HeadraceError):
        run_recipe(recipe, tmp_path / "out")


def test_a_reader_that_stops_early_is_found(recipe, tmp_path, monkeypatch):
    read = Code.read

    def short(self, split, storage, limits, account):
        batch = next(iter(read(self, split, storage, limits, account))).slice(0, 1)
        account.gaps.clear()
        account.seen, account.size, account.records = 1, 6, 6
        yield batch

    monkeypatch.setattr(Code, "read", short)
    with pytest.raises(LedgerImbalance):
        run_recipe(recipe, tmp_path / "out")


def talks(folder: Path, *conversations: list[tuple[str, str]]) -> RunResult:
    """Run a recipe over these conversations."""
    (folder / "in").mkdir()
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]} for turns in conversations]
    (folder / "in/talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "talks.yaml"
    path.write_text(
        "sources:\n  talks: {reader: conversations, root: in, include: ['*.jsonl']}\n"
        "deduplicate: {exact: all}\noutput: {buckets: 1}\n"
    )
    return run_recipe(path, folder / "out")


def test_conversations_of_other_roles_are_no_copies(tmp_path):
    result = talks(
        tmp_path,
        [("user", "Yes."), ("assistant", "No.")],
        [("assistant", "Yes."), ("user", "No.")],
        [("system", "Yes."), ("user", "No.")],
        [("user", "Yes."), ("assistant", "No.")],
    )
    assert sum(e["rows"] for e in result.ledger.to_pylist() if e["table"] == "tokens" and e["account"] == "out") == 3


def test_a_bucket_without_its_commit_is_found(tmp_path):
    recipe = code_recipe(tmp_path, buckets=16)
    run_recipe(recipe, tmp_path / "out")
    for path in (tmp_path / "out/stages/3-find-duplicates/commits").iterdir():
        data = json.loads(path.read_text())
        if not data["entries"]:
            for file in data["files"]:
                (tmp_path / "out" / file["path"]).unlink()
            path.unlink()
    with pytest.raises(VerifyError):
        list(verify_output(tmp_path / "out"))


def shard_entry(name: str, first: int, last: int) -> ShardEntry:
    files = ShardFiles(*(FileSummary(0, f"{first:064x}") for _ in range(3)))
    return ShardEntry(name, 2, 9, 9, 9, f"{first:032x}", f"{last:032x}", files)


@pytest.mark.parametrize("ends", [[(5, 9), (1, 3)], [(1, 5), (3, 9)], [(1, 3), (3, 9)]])
def test_a_manifest_lists_its_shards_in_canonical_order(ends):
    shards = [shard_entry(f"s{place}", *end) for place, end in enumerate(ends)]
    ledger = LedgerReference("../../ledger.parquet", "0" * 64)
    with pytest.raises(JsonError):
        Manifest.build("web", {}, encoding_named("cl100k_base"), ledger, "0" * 32, shards)


# Names and numbers that come from outside


def test_a_file_name_that_is_no_utf8_is_refused_by_name(recipe, tmp_path):
    (tmp_path / "two" / os.fsdecode(b"bad\xff.py")).write_text("G = 1\n")
    with pytest.raises(HeadraceError) as failed:
        run_recipe(recipe, tmp_path / "out")
    assert "UTF-8" in str(failed.value)
    assert "Traceback" not in str(failed.value)


def test_a_source_name_too_long_for_a_folder_is_refused_before_any_work(recipe):
    recipe.write_text(recipe.read_text().replace("  two:", f"  {'s' * 300}:"))
    with pytest.raises(RecipeError, match="name"):
        load_recipe(recipe)


# `map` and `group` carry what the later stages need


def publish(folder: Path, stage: str, table: str, schema: pa.Schema, rows: list[dict], label: str = ONE_BUCKET):
    """Commit a table of one file in a storage of its own."""
    storage = LocalStorage(folder)
    place = Place(storage, storage.new_attempt(), f"stages/{stage}", "a" * 32)
    sink = TableOutput(table, schema).open(place)
    sink.write(pa.RecordBatch.from_pylist(rows, schema=schema))
    (pending,) = sink.close()
    storage.publish(place.attempt, pending.name, pending.record.path)
    return CommittedTable(storage, table, (Commit("a" * 32, label, (pending.record,), ()),))


@pytest.fixture(name="documents")
def committed_documents(tmp_path):
    rows = sorted((document(text) for text in ("one", "two", "three")), key=lambda row: row["doc_id"])
    return publish(tmp_path / "documents", "1-read", "documents", CORE, rows)


def tables_of(result: StageResult, output: LocalStorage) -> dict[str, list[dict]]:
    files = [file for commit in result.commits for file in commit.files]
    return {file.table: read_table(output, file.path).to_pylist() for file in files}


def group(folder: Path, given: CommittedTable, schema: pa.Schema, key: str, reduce: Reduce, *outputs: Output):
    """Group a table in one bucket; returns the rows of every table."""
    identity = IDENTITY if "text" in schema.names else ("doc_id",)
    stage = GroupStage("2-x", (TableOf("1", given.table),), schema, key, (), identity, 1, reduce, outputs)
    output = LocalStorage(folder)
    with DatatroveEngine(1) as engine:
        return tables_of(engine.group(stage, [given], output, lambda *_: None), output)


def map_documents(folder: Path, documents: CommittedTable, outputs: tuple[Output, ...], sides=(), transforms=()):
    """Map over committed documents; `sides` are pairs of description and table. Returns the rows of every table."""
    reader = Committed("documents", CORE)
    described = tuple(side for side, _ in sides)
    chain = Chain(reader, documents.storage, tuple(transforms))
    stage = MapStage("2-map", {"documents": chain}, CORE, outputs, described)
    output = LocalStorage(folder)
    splits = reader.splits_of(list(documents.commits), "documents")
    with DatatroveEngine(1) as engine:
        return tables_of(engine.map(stage, splits, [given for _, given in sides], output, lambda *_: None), output)


@dataclasses.dataclass(frozen=True)
class Says:
    """A reduce that is one function of a batch."""

    tables: Callable[[pa.RecordBatch], Mapping[str, pa.RecordBatch]]
    name: str = "says"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Mapping[str, pa.RecordBatch]]:
        for batch in batches:
            yield self.tables(batch)


def mark_first(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([batch.column("doc_id")[:1], pa.array([7])], schema=MARKS)


def test_a_group_gives_documents_and_rows_of_another_table(documents, tmp_path):
    reduce = Says(lambda batch: {"documents": batch, "marks": mark_first(batch)})
    outputs = (TableOutput("documents", CORE), TableOutput("marks", MARKS))
    tables = group(tmp_path / "out", documents, CORE, "doc_id", reduce, *outputs)
    assert [row["mark"] for row in tables["marks"]] == [7], "documents were written into another table"


def test_a_group_reads_documents_and_gives_another_table_alone(documents, tmp_path):
    reduce = Says(lambda batch: {"marks": mark_first(batch)})
    tables = group(tmp_path / "out", documents, CORE, "doc_id", reduce, TableOutput("marks", MARKS))
    assert [row["mark"] for row in tables["marks"]] == [7]


def test_a_map_reads_documents_and_gives_another_table_alone(documents, tmp_path):
    sizes = pa.schema([CORE.field("doc_id"), CORE.field("origin_length")])
    tables = map_documents(tmp_path / "out", documents, (TableOutput("sizes", sizes),))
    assert len(tables["sizes"]) == 3


def test_a_group_by_numbers(documents, tmp_path):
    """Band keys of MinHash are 64-bit numbers."""
    rows = [{"doc_id": bytes([number]) * 16, "mark": number % 2} for number in range(4)]
    given = publish(tmp_path / "marks", "1", "marks", MARKS, rows)
    reduce = Says(lambda batch: {"marks": batch})
    tables = group(tmp_path / "out", given, MARKS, "mark", reduce, TableOutput("marks", MARKS))
    assert [row["mark"] for row in tables["marks"]] == [0, 0, 1, 1]


def test_a_reduce_that_exchanges_documents_is_found(documents, tmp_path):
    def exchange(batch: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        ids = pa.array([bytes([number]) * 16 for number in range(batch.num_rows)], DOC_ID)
        return {"documents": batch.set_column(0, CORE.field("doc_id"), ids)}

    with pytest.raises(LedgerImbalance):
        group(tmp_path / "out", documents, CORE, "doc_id", Says(exchange), TableOutput("documents", CORE))


@dataclasses.dataclass(frozen=True, slots=True)
class Named(ExactDuplicate):
    """Drops what its side table names, without the columns of exact deduplication."""

    drops = ()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        found = pc.is_in(batch.column("doc_id"), value_set=self.duplicates.column("doc_id").combine_chunks())
        failed = found.to_numpy(zero_copy_only=False)
        said: list[str | None] = ["named"] * int(failed.sum())
        return set_verdict(batch, verdicts(failed, said, said, said, "dropped"))


def side_tables(documents: CommittedTable, folder: Path, label: str = ONE_BUCKET) -> tuple[CommittedTable, ...]:
    """Return a side table without rows, and one that names the first document."""
    ids = [row["doc_id"] for row in read_table(documents.storage, documents.files()[0].path).to_pylist()]
    row = {"doc_id": ids[0], "kept_doc_id": ids[1], "reason": "exact_duplicate", "place": 0}
    return tuple(
        publish(folder / name, "1", "duplicates", DUPLICATES, rows, label)
        for name, rows in {"without": [], "with": [row]}.items()
    )


KEPT = (TableOutput("documents", CORE),)


def test_a_map_is_done_again_where_its_side_table_is_another(documents, tmp_path):
    side = Side(TableOf("1", "duplicates"), DUPLICATES)
    for given, kept in zip(side_tables(documents, tmp_path), (3, 2), strict=True):
        tables = map_documents(tmp_path / "out", documents, KEPT, [(side, given)], [Named()])
        assert len(tables["documents"]) == kept


def test_a_side_table_of_other_buckets_is_refused(documents, tmp_path):
    side = Side(TableOf("1", "duplicates"), DUPLICATES)
    _, given = side_tables(documents, tmp_path, "bucket 00000 of 00004")
    with pytest.raises((HeadraceError, ValueError), match="bucket"):
        map_documents(tmp_path / "out", documents, KEPT, [(side, given)], [Named()])


def test_two_side_tables_of_one_name_are_refused(documents, tmp_path):
    """Or are told apart by a name of their own."""
    sides: list[Any] = [Side(TableOf(stage, "duplicates"), DUPLICATES) for stage in ("1", "9")]
    without, named = side_tables(documents, tmp_path)
    with pytest.raises((HeadraceError, ValueError), match="duplicates"):
        map_documents(tmp_path / "out", documents, KEPT, list(zip(sides, (named, without), strict=True)), [Named()])


def test_copies_of_a_finished_run_are_sound(recipe, tmp_path):
    """What all of the above begins with."""
    run_recipe(recipe, tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    assert list(verify_output(tmp_path / "copy"))


def test_a_partition_value_longer_than_a_file_name():
    folders = {partition_folder("licence", "x" * 300 + end) for end in ("a", "b")}
    assert len(folders) == 2
    assert all(len(folder) < 200 for folder in folders)
    assert partition_folder("licence", "../_") == "licence=%2E%2E%2F%5F"
    assert partition_folder("licence", None) != partition_folder("licence", "_")


# The mends looked at again


class Stopped(Exception):
    """A run that ends in the middle."""


def run_until(recipe: Path, output: Path, last: str) -> None:
    """Run a recipe until a stage is about to begin (of a group: its buckets, when the scatter is done)."""

    def report(what: str, done: int, total: int) -> None:
        if what == last:
            raise Stopped

    storage = LocalStorage(output)
    with DatatroveEngine(1) as engine, pytest.raises(Stopped):
        run_plan(plan_of(recipe, storage), storage, engine, report)


def write_later(file: Path, text: str) -> None:
    """Write a file as if some seconds from now."""
    file.write_text(text)
    later = file.stat().st_mtime + 5
    os.utime(file, (later, later))


def test_what_was_scattered_before_an_input_changed_is_stale(recipe, tmp_path):
    run_until(recipe, tmp_path / "out", "2-identify")
    write_later(tmp_path / "two/1.py", "D = 1\n")
    run_recipe(recipe, tmp_path / "out")
    run_recipe(recipe, tmp_path / "fresh")
    assert tree_hashes(tmp_path / "out") == tree_hashes(tmp_path / "fresh")


def test_a_file_of_an_older_date_put_in_its_place_is_read(recipe, tmp_path):
    """As `cp -p`, `rsync -a` and `tar` leave it."""
    run_recipe(recipe, tmp_path / "out")
    (tmp_path / "two/1.py").write_text("D = 1\n")
    os.utime(tmp_path / "two/1.py", (1e9, 1e9))
    run_recipe(recipe, tmp_path / "out")
    run_recipe(recipe, tmp_path / "fresh")
    assert tree_hashes(tmp_path / "out") == tree_hashes(tmp_path / "fresh")


def test_an_interrupted_run_goes_on_with_other_packages_but_says_so(recipe, tmp_path, monkeypatch):
    run_until(recipe, tmp_path / "out", "2-identify")
    monkeypatch.setattr(run_module, "version", lambda name: "99.0")
    assert any("99.0" in warning for warning in run_recipe(recipe, tmp_path / "out").warnings)


def test_a_side_table_that_every_split_reads_whole_balances(recipe, tmp_path):
    output = LocalStorage(tmp_path / "out")
    plan = plan_of(recipe, output)
    last = plan.stages[-1]
    assert isinstance(last, MapStage)
    whole = dataclasses.replace(last, side=tuple(dataclasses.replace(side, bucketed=False) for side in last.side))
    with DatatroveEngine(1) as engine:
        run_plan(dataclasses.replace(plan, stages=(*plan.stages[:-1], whole)), output, engine, lambda *_: None)


def test_a_group_adds_a_column_to_documents(documents, tmp_path):
    """Cluster id and size become columns."""
    wider = pa.schema([*CORE, pa.field("cluster", pa.int64())])

    def widen(batch: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        columns = [*batch.columns, pa.array([7] * batch.num_rows)]
        return {"documents": pa.RecordBatch.from_arrays(columns, schema=wider)}

    tables = group(tmp_path / "out", documents, CORE, "doc_id", Says(widen), TableOutput("documents", wider))
    assert [row["cluster"] for row in tables["documents"]] == [7, 7, 7]


def test_a_table_of_the_reduce_may_share_its_columns_with_documents(documents, tmp_path):
    firsts = pa.schema([CORE.field("doc_id"), CORE.field("url")])
    reduce = Says(lambda batch: {"documents": batch, "firsts": batch.slice(0, 1).select(firsts.names)})
    outputs = (TableOutput("documents", CORE), TableOutput("firsts", firsts))
    tables = group(tmp_path / "out", documents, CORE, "doc_id", reduce, *outputs)
    assert len(tables["firsts"]) == 1, "documents were written into another table"
