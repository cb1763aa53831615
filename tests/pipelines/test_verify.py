"""`headrace verify` finds every kind of damage, each of them made on a copy of a sound run."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import HeadraceError, VerifyError
from pipelines.verify import verify_output


@pytest.fixture
def output(finished, tmp_path):
    """A copy of the run, to be damaged."""
    subprocess.run(["cp", "-r", finished, tmp_path / "out"], check=True)
    return tmp_path / "out"


def complaint(output: Path) -> str:
    with pytest.raises(VerifyError) as found:
        list(verify_output(output))
    return str(found.value)


def flip(path: Path, place: int = -9) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def some(output: Path, pattern: str) -> Path:
    """Return the largest file of a pattern: one that holds something."""
    return max(output.glob(pattern), key=lambda path: path.stat().st_size)


def commits_of(output: Path, stage: str) -> list[Path]:
    return sorted((output / "stages" / stage / "commits").iterdir())


def edit_commit(path: Path, edit) -> None:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data, sort_keys=True) + "\n")


def edit_json(path: Path, edit) -> None:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data, sort_keys=True, indent=2) + "\n")


def test_the_copy_is_sound(output):
    lines = list(verify_output(output))
    assert [line.partition(":")[0] for line in lines] == ["files", "strays", "ledger", "order"] + ["tokens"] * 3
    assert "tokens: tokens/web/language=en: 3 documents" not in lines[-1], "the second of two copies is gone"
    assert "2 documents" in lines[-1]


@pytest.mark.parametrize(
    "pattern",
    [
        "stages/1-read/documents/*.parquet",
        "stages/1-read/rejects/*.parquet",
        "stages/2-identify/hashes/*.parquet",
        "stages/4-sort-duplicates/duplicates/*.parquet",
        "stages/5-tokenize/documents/*.parquet",
        "tokens/web/*/*.bin",
        "tokens/web/*/*.idx",
        "tokens/web/*/*.docs.parquet",
    ],
)
def test_a_flipped_byte(pattern, output):
    path = some(output, pattern)
    flip(path)
    assert complaint(output).startswith(f"{path.relative_to(output)}: sha256 and size are")


@pytest.mark.parametrize("pattern", ["stages/3-find-duplicates/duplicates/*.parquet", "tokens/code/*/*.idx"])
def test_a_file_that_is_gone(pattern, output):
    path = some(output, pattern)
    path.unlink()
    message = complaint(output)
    assert message.startswith(f"{path.relative_to(output)}: is missing")
    assert "hint:" in message


def test_a_cut_file(output):
    path = some(output, "tokens/web/*/*.bin")
    path.write_bytes(path.read_bytes()[:-4])
    assert "sha256 and size" in complaint(output)


@pytest.mark.parametrize("path", ["tokens/web/stray.bin", "stages/1-read/documents/x.parquet", "README", "stages/6/x"])
def test_a_file_that_nobody_named(path, output):
    (output / path).parent.mkdir(parents=True, exist_ok=True)
    (output / path).write_text("x")
    assert f"{path}: 1 files are named by no commit" in complaint(output)


# Commit records


def bad_size(data):
    data["files"][0]["size"] += 1


def bad_hash(data):
    data["files"][0]["sha256"] = "0" * 64


def bad_rows(data):
    next(file for file in data["files"] if file["table"] == "documents")["rows"] += 1


def other_table(data):
    next(file for file in data["files"] if file["table"] == "documents")["table"] = "papers"


def no_file(data):
    data["files"] = [file for file in data["files"] if file["table"] != "documents"]


def other_sum(data):
    next(entry for entry in data["entries"] if entry[7] == "out" and entry[9])[9] += 1


@pytest.mark.parametrize("edit", [bad_size, bad_hash, bad_rows, other_table, no_file, other_sum])
@pytest.mark.parametrize("stage", ["1-read", "5-tokenize"])
def test_an_edited_commit(stage, edit, output):
    for path in commits_of(output, stage):
        edit_commit(path, edit)
    assert complaint(output)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"split": "x", "label": "", "files": [{}], "entries": []}'])
def test_a_commit_that_is_none(content, output):
    path = commits_of(output, "2-identify")[0]
    path.write_text(content)
    message = complaint(output)
    assert message.startswith(f"{path.relative_to(output)}: is no commit record")
    assert "hint: delete it" in message


def test_a_commit_under_another_name(output):
    path = commits_of(output, "1-read")[0]
    path.rename(path.with_name("../x.json".replace("/", "_")))
    assert "it speaks of split" in complaint(output)


def test_a_commit_that_is_gone(output):
    commits_of(output, "1-read")[0].unlink()
    assert "named by no commit" in complaint(output)


def test_the_counts_of_a_shard_in_its_commit(output):
    def edit(data):
        for file in data["files"]:
            if "shard" in file["detail"]:
                file["detail"]["shard"]["text_bytes"] += 1

    for path in commits_of(output, "5-tokenize"):
        edit_commit(path, edit)
    assert "manifest.json: is not what the commits and the ledger say" in complaint(output)


def test_a_commit_without_the_counts_of_its_shard(output):
    def edit(data):
        for file in data["files"]:
            if "shard" in file["detail"]:
                del file["detail"]["shard"]["text_bytes"]

    for path in commits_of(output, "5-tokenize"):
        edit_commit(path, edit)
    assert "describes no token shard" in complaint(output)


# Ledger


def rewrite_ledger(output: Path, change) -> None:
    table = pq.read_table(output / "ledger.parquet")
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), output / "ledger.parquet")


@pytest.mark.parametrize("column", ["rows", "bytes", "tokens"])
def test_a_changed_ledger_entry(column, output):
    rewrite_ledger(output, lambda rows: rows[3].update({column: rows[3][column] + 1}))
    assert complaint(output).startswith("ledger.parquet: is not the sum of the commits' entries")


@pytest.mark.parametrize("change", [lambda rows: rows.pop(), lambda rows: rows.append(rows[-1]), list.reverse])
def test_entries_lost_doubled_or_moved(change, output):
    rewrite_ledger(output, change)
    assert complaint(output).startswith("ledger.parquet: is not the sum of the commits' entries")


def test_a_ledger_that_is_no_parquet(output):
    (output / "ledger.parquet").write_bytes(b"PAR1 no")
    assert complaint(output)


def test_entries_out_of_balance_in_commit_and_ledger_alike(output):
    """The sums agree, and yet a document is missing."""
    path = next(path for path in commits_of(output, "1-read") if "http_status" in path.read_text())
    stated = json.loads(path.read_text())["label"]

    def change_rows(rows):
        next(row for row in rows if row["split"] == stated and row["reason"] == "http_status")["rows"] = 0

    def change_commit(data):
        next(entry for entry in data["entries"] if entry[8] == "http_status")[9] = 0

    rewrite_ledger(output, change_rows)
    edit_commit(path, change_commit)
    with pytest.raises(HeadraceError, match="rows do not balance"):
        list(verify_output(output))


# Manifests


def manifest(output: Path) -> Path:
    return next((output / "tokens/web").rglob("manifest.json"))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda data: data["totals"].update(tokens=data["totals"]["tokens"] + 1), "totals"),
        (lambda data: data["shards"][0].update(tokens=1), "shards[0].tokens"),
        (lambda data: data["shards"].pop(), "totals"),
        (lambda data: data["tokenizer"].update(sha256="0" * 64), "tokenizer.sha256"),
        (lambda data: data["tokenizer"]["roles"].update(user=5), "tokenizer.roles"),
        (lambda data: data.update(content_hash="0" * 64), "content_hash"),
        (lambda data: data.update(version=2), "version"),
        (lambda data: data.update(recipe="0" * 32), "is not what the commits and the ledger say"),
        (lambda data: data["ledger"].update(sha256="0" * 64), "is not what the commits and the ledger say"),
        (lambda data: data["partition"].update(language="de"), "is not what the commits and the ledger say"),
        (lambda data: data.update(source="code"), "is not what the commits and the ledger say"),
    ],
)
def test_an_edited_manifest(edit, said, output):
    edit_json(manifest(output), edit)
    message = complaint(output)
    assert "manifest.json: " in message
    assert said in message


def test_a_manifest_whose_sums_were_edited_with_care(output):
    """Consistent in itself and with the shard files: only the commits know better."""

    def edit(data):
        data["shards"][0]["text_bytes"] += 1
        data["totals"]["text_bytes"] += 1

    edit_json(manifest(output), edit)
    assert "is not what the commits and the ledger say" in complaint(output)


def test_a_manifest_that_is_gone(output):
    manifest(output).unlink()
    assert "manifest.json: cannot be read" in complaint(output)


# Order and content, with hashes that fit


def rewrite_table(output: Path, stage: str, table: str, change) -> None:
    """Change the rows of a committed table, and its commit's size and hash with them."""
    for commit in commits_of(output, stage):
        data = json.loads(commit.read_text())
        for file in data["files"]:
            if file["table"] == table and file["rows"] > 1:
                rows = pq.read_table(output / file["path"])
                pq.write_table(change(rows), output / file["path"])
                content = (output / file["path"]).read_bytes()
                file["size"], file["sha256"] = len(content), hashlib.sha256(content).hexdigest()
                commit.write_text(json.dumps(data, sort_keys=True) + "\n")
                return
    raise AssertionError("no such table")


def swapped(rows: pa.Table) -> pa.Table:
    return rows.take([1, 0, *range(2, len(rows))])


@pytest.mark.parametrize("stage", ["2-identify", "5-tokenize"])
def test_documents_out_of_order(stage, output):
    rewrite_table(output, stage, "documents", swapped)
    assert "not in ascending order of doc_id" in complaint(output)


def test_a_document_that_stands_twice(output):
    rewrite_table(output, "2-identify", "documents", lambda rows: rows.take([0, 0, *range(2, len(rows))]))
    assert "not in ascending order of doc_id, or one is there twice" in complaint(output)


def test_a_document_in_the_wrong_bucket(output):
    def move(rows):
        ids = rows.column("doc_id").to_pylist()
        place = rows.schema.get_field_index("doc_id")
        moved = [bytes([id_[0] ^ 0x80]) + id_[1:] for id_ in ids]
        return rows.set_column(place, rows.schema.field(place), pa.array(moved, pa.binary(16)))

    rewrite_table(output, "5-tokenize", "documents", move)
    assert "belong to another bucket" in complaint(output)


def test_a_document_that_is_not_in_the_shards(output):
    def another(rows):
        ids = rows.column("doc_id").to_pylist()
        place = rows.schema.get_field_index("doc_id")
        ids[0] = ids[0][:-1] + bytes([ids[0][-1] ^ 1])
        return rows.set_column(place, rows.schema.field(place), pa.array(ids, pa.binary(16)))

    rewrite_table(output, "5-tokenize", "documents", another)
    assert "2 documents are in the documents table or in the token shards but not in both" in complaint(output)


# The records of the run itself


@pytest.mark.parametrize("name", ["recipe.json", "run.json", "ledger.parquet"])
def test_a_record_of_the_run_is_gone(name, output):
    (output / name).unlink()
    assert f"{name}: is missing: the folder holds no finished run" in complaint(output)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sources": {}}'])
def test_a_damaged_recipe(content, output):
    (output / "recipe.json").write_text(content)
    with pytest.raises(HeadraceError, match=r"recipe.json: .*\nhint:"):
        list(verify_output(output))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"runs": []}', '{"runs": [{}]}', '{"runs": [{"roots": {}}]}'])
def test_a_damaged_run_record(content, output):
    (output / "run.json").write_text(content)
    with pytest.raises(HeadraceError, match=r"hint:"):
        list(verify_output(output))


def test_an_edited_recipe(output):
    edit = {"extract.max_depth": lambda data: data["sources"]["web"]["transforms"][0].update(max_depth=51)}
    edit_json(output / "recipe.json", edit["extract.max_depth"])
    assert "does not resolve to itself" in complaint(output)
