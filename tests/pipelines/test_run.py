"""Runs that meet bad input, a full or unwritable disk, failing transforms and signals; and what a rerun makes of it."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from failing_transform import with_failing
from full_storage import FullStorage, Space
from made import RECIPE, SOURCES, made_recipe, record
from runs import REPOSITORY, plan_of, run_recipe
from trees import tree_hashes

from headrace import main
from pipelines.engines.datatrove import DatatroveEngine
from pipelines.errors import HeadraceError, OutputError, VerifyError, WorkerDied
from pipelines.run import claimed, run_plan
from pipelines.storage.local import LocalStorage
from pipelines.verify import verify_output
from tokenizer import encodings
from tokenizer.manifest import Manifest


def silent(*_: object) -> None:
    """A report that says nothing."""


def manifests(output: Path) -> dict[str, Manifest]:
    return {
        path.parent.relative_to(output / "tokens").as_posix(): Manifest.load(path)
        for path in output.glob("tokens/**/manifest.json")
    }


def run_again_to_the_end(recipe: Path, output: Path, fresh: Path) -> None:
    """Run again in this process; what comes out is what a run without trouble makes."""
    run_recipe(recipe, output)
    assert tree_hashes(output) == tree_hashes(fresh)
    assert list(verify_output(output))


# Sources with nothing in them


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "job").mkdir()
    return made_recipe(tmp_path / "job")


def test_a_source_that_no_file_matches(recipe, tmp_path):
    recipe.write_text(RECIPE.replace('["*.warc"]', '["*.nothing"]'))
    result = CliRunner().invoke(main, ["run", str(recipe), "-o", str(tmp_path / "out"), "-w", "1"])
    assert result.exit_code == 0, result.output
    assert "warning: source web: no file matches its `include`" in result.output
    found = manifests(tmp_path / "out")
    assert (found["web"].totals.shards, found["web"].totals.tokens) == (0, 0)
    assert found["talks/language=en"].totals.documents == 2
    assert any("tokens/web: 0 documents, 0 tokens in 0 shards" in line for line in verify_output(tmp_path / "out"))
    runs = json.loads((tmp_path / "out/run.json").read_text())["runs"]
    assert len(runs) == 1
    assert len(runs[0]["warnings"]) == 1


def test_no_source_has_any_file(recipe, tmp_path):
    shutil.rmtree(recipe.parent / "input")
    (recipe.parent / "input").mkdir()
    result = run_recipe(recipe, tmp_path / "out")
    assert len(result.warnings) == len(SOURCES)
    assert {name: found.totals.documents for name, found in manifests(tmp_path / "out").items()} == dict.fromkeys(
        SOURCES, 0
    )
    assert list(verify_output(tmp_path / "out"))
    assert run_recipe(recipe, tmp_path / "out").num_done == 0


EMPTY = """
sources:
  web:
    reader: commoncrawl
    root: input
    include: ["*.warc", "*.warc.gz", "*.arc", "*.arc.gz", "*.wet"]
    transforms: [extract, language, gopher_quality]
  tables: {reader: table, root: input, include: ["table.*"]}
  talks: {reader: conversations, root: input, include: ["talk.*"]}
  code: {reader: code, repository: here, root: input, include: ["*.py"]}
deduplicate: {exact: source}
output: {buckets: 3}
"""


@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 100], ids=["empty", "a line break", "zeros"])
def test_files_with_nothing_in_them(content, tmp_path):
    (tmp_path / "input").mkdir()
    names = ["a.warc", "b.arc", "c.wet", "table.jsonl", "talk.jsonl", "talk.json", "x.py"]
    packed = ["a.warc.gz", "b.arc.gz", "table.jsonl.gz", "talk.jsonl.gz"]
    for name in names:
        (tmp_path / "input" / name).write_bytes(content)
    for name in packed:
        (tmp_path / "input" / name).write_bytes(gzip.compress(content, mtime=0) if content else b"")
    (tmp_path / "empty.yaml").write_text(EMPTY)
    result = run_recipe(tmp_path / "empty.yaml", tmp_path / "out")
    empty = {warning.split()[1].rstrip(":") for warning in result.warnings}
    assert empty >= {"web", "tables", "talks"}
    assert "code" in empty or content, "a file of one line break is a text"
    assert list(verify_output(tmp_path / "out"))
    raw = [row for row in result.ledger.to_pylist() if row["table"] == "raw" and row["account"] == "in"]
    total = sum(path.stat().st_size for path in (tmp_path / "input").iterdir())
    assert sum(row["bytes"] for row in raw) == total, "what is in them is accounted for"


def test_an_empty_parquet_file_is_an_error_in_the_ledger(tmp_path):
    (tmp_path / "input").mkdir()
    (tmp_path / "input/table.parquet").touch()
    (tmp_path / "empty.yaml").write_text(EMPTY)
    result = run_recipe(tmp_path / "empty.yaml", tmp_path / "out")
    rows = [row for row in result.ledger.to_pylist() if row["account"] == "errored"]
    assert [(row["split"], row["reason"], row["rows"]) for row in rows] == [("tables/table.parquet", "unreadable", 1)]
    assert list(verify_output(tmp_path / "out"))


def test_a_source_whose_every_document_is_dropped(recipe, tmp_path):
    recipe.write_text(RECIPE.replace("min_words: 40", "min_words: 5000"))
    result = run_recipe(recipe, tmp_path / "out")
    assert result.warnings == (
        "source web: every document was dropped or could not be read; its token shards are empty",
    )
    assert manifests(tmp_path / "out")["web"].totals.documents == 0
    assert list(verify_output(tmp_path / "out"))


# Whose output is it


def test_a_second_recipe_into_the_same_folder_is_refused(recipe, tmp_path):
    run_recipe(recipe, tmp_path / "out")
    before = tree_hashes(tmp_path / "out")
    differences = [
        ("buckets: 2", "buckets: 3", "output.buckets: 2 there, 3 here"),
        ("max_depth: 50", "max_depth: 51", "sources.web.transforms[0].max_depth: 50 there, 51 here"),
        ("repository: here", "repository: there", 'sources.code.repository: "here" there, "there" here'),
        ("deduplicate: {exact: all}", "", 'deduplicate: {"exact": "all"'),
    ]
    for old, new, said in differences:
        recipe.write_text(RECIPE.replace(old, new))
        with pytest.raises(OutputError) as refused:
            run_recipe(recipe, tmp_path / "out")
        assert f"was made by another recipe (it differs in {said}" in str(refused.value)
        assert "hint: choose another --output" in str(refused.value)
    assert tree_hashes(tmp_path / "out") == before
    recipe.write_text("# a comment\n" + RECIPE)
    assert run_recipe(recipe, tmp_path / "out").num_done == 0, "the recipe is the same"


def test_a_foreign_folder_is_refused_and_left_alone(recipe, tmp_path):
    (tmp_path / "out/photos").mkdir(parents=True)
    (tmp_path / "out/photos/cat.jpg").write_bytes(b"cat")
    with pytest.raises(OutputError, match="is not empty and holds no run\nhint: choose a new or empty folder"):
        run_recipe(recipe, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["photos", "cat.jpg"]


def test_two_runs_at_once_on_one_folder(recipe, tmp_path):
    storage = LocalStorage(tmp_path / "out")
    with claimed(plan_of(recipe, storage), storage):
        attempt = storage.new_attempt()
        storage.create(attempt, "x").close()
        with pytest.raises(OutputError, match="another run is at work in this folder\nhint: wait for it"):
            run_recipe(recipe, tmp_path / "out")
        assert (tmp_path / "out/.attempts" / attempt / "x").exists(), "the second swept what the first works on"
    run_recipe(recipe, tmp_path / "out")


def test_an_output_that_a_source_would_read_is_refused(tmp_path):
    recipe = made_recipe(tmp_path / "job")
    recipe.write_text(RECIPE.replace('root: input\n    include: ["*.jsonl"]', 'root: .\n    include: ["**/*.json*"]'))
    run_recipe(recipe, recipe.parent / "out")
    with pytest.raises(OutputError, match="source talks would read out/.*\nhint: choose an --output outside"):
        run_recipe(recipe, recipe.parent / "out")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"runs": 5}'])
def test_a_damaged_run_record_is_told_of_before_any_work(content, recipe, tmp_path):
    run_recipe(recipe, tmp_path / "out")
    (tmp_path / "out/run.json").write_text(content)
    for commit in (tmp_path / "out/stages/1-read/commits").iterdir():
        commit.unlink()
    with pytest.raises(OutputError, match=r"run.json: is damaged .*\nhint: delete it"):
        run_recipe(recipe, tmp_path / "out")
    assert not list((tmp_path / "out/stages/1-read/commits").iterdir())


def test_a_damaged_commit_is_told_of(recipe, tmp_path):
    run_recipe(recipe, tmp_path / "out")
    expected = tree_hashes(tmp_path / "out")
    commit = next((tmp_path / "out/stages/1-read/commits").iterdir())
    commit.write_text(commit.read_text()[:-20])
    with pytest.raises(VerifyError, match=r"is no commit record .*\nhint: delete it and run the recipe again"):
        run_recipe(recipe, tmp_path / "out")
    commit.unlink()
    run_recipe(recipe, tmp_path / "out")
    assert tree_hashes(tmp_path / "out") == expected


# Input that changes between runs


def test_a_file_added_and_removed_again(recipe, tmp_path):
    before = run_recipe(recipe, tmp_path / "out")
    hashes = tree_hashes(tmp_path / "out")
    more = recipe.parent / "input/more.warc"
    more.write_bytes(
        record("good", "<p>" + "Another text of the same record name, which is the shorter one. " * 9 + "</p>")
    )
    grown = run_recipe(recipe, tmp_path / "out")
    assert (grown.stages["1-read"].num_done, grown.stages["1-read"].num_found) == (1, 3)
    fresh = run_recipe(recipe, tmp_path / "fresh")
    assert (fresh.num_found, fresh.num_done) == (0, grown.num_done + grown.num_found)
    assert tree_hashes(tmp_path / "out") == tree_hashes(tmp_path / "fresh") != hashes
    assert list(verify_output(tmp_path / "out"))
    more.unlink()
    shrunk = run_recipe(recipe, tmp_path / "out")
    assert (shrunk.stages["1-read"].num_done, shrunk.stages["1-read"].num_found) == (0, 3)
    assert tree_hashes(tmp_path / "out") == hashes
    assert before.num_done == shrunk.num_done + shrunk.num_found


def test_a_file_that_changes_is_read_again(recipe, tmp_path):
    run_recipe(recipe, tmp_path / "out")
    with (recipe.parent / "input/talks.jsonl").open("a") as file:
        file.write('{"instruction": "Say one word.", "output": "Weir."}\n')
    again = run_recipe(recipe, tmp_path / "out")
    assert again.stages["1-read"].num_done == 1
    run_recipe(recipe, tmp_path / "fresh")
    assert tree_hashes(tmp_path / "out") == tree_hashes(tmp_path / "fresh")


def test_a_file_that_vanishes_while_the_run_begins(recipe, tmp_path):
    storage = LocalStorage(tmp_path / "out")
    plan = plan_of(recipe, storage)

    def report(*_: object) -> None:
        (recipe.parent / "input/pages.warc").unlink(missing_ok=True)

    with DatatroveEngine(1) as engine, pytest.raises(HeadraceError) as failed:
        run_plan(plan, storage, engine, report)
    message = str(failed.value)
    assert "1-read: web/pages.warc: " in message
    assert "No such file" in message
    assert "output folder" not in message, "the output is not to blame"


# A disk that is full, or not to be written to


def test_a_disk_that_is_full_after_any_number_of_bytes(made, finished, tmp_path):
    whole = Space()
    run_recipe(made, FullStorage(tmp_path / "whole", whole))
    # the last file written is run.json, whose length depends on the time by some bytes
    budgets = [0, 1, whole.written - 100, *random.Random(5).sample(range(whole.written), 5)]
    for budget in budgets:
        space = Space(budget)
        with pytest.raises(OutputError) as failed:
            run_recipe(made, FullStorage(tmp_path / f"{budget}", space))
        assert "no space left on the device\nhint: free some space and run the same command again" in str(failed.value)
        assert not list((tmp_path / f"{budget}").glob(".attempts/*/*")), "what failed takes no space"
        run_again_to_the_end(made, tmp_path / f"{budget}", finished)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Mount a file system in memory, if this user may."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting is not permitted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.mark.parametrize(("workers", "sizes"), [(1, range(64, 1600, 64)), (2, [96, 16_000])])
def test_a_real_disk_that_is_full_again_and_again(workers, sizes, made, finished, tmp_path):
    """Each time there is a little more space, and the run comes a little further."""
    disk, committed = tmp_path / "disk", [0]
    with mounted(disk, "size=64k"):
        for kilobytes in sizes:
            remount(disk, f"size={kilobytes}k")
            try:
                run_recipe(made, disk / "out", workers=workers)
                break
            except OutputError as error:
                assert "no space left on the device\nhint: free some space" in str(error)
                committed.append(len(list(disk.glob("out/stages/*/commits/*"))))
        assert len(committed) >= 2 * len(sizes[:3]) // workers // 3, "it was never full"
        assert committed == sorted(committed)
        remount(disk, "size=16m")  # a rerun writes the ledger beside the old one before it takes its place
        run_again_to_the_end(made, disk / "out", finished)


def test_a_full_disk_on_the_command_line(made, tmp_path):
    with mounted(tmp_path / "disk", "size=64k"):
        result = CliRunner().invoke(main, ["run", str(made), "-o", str(tmp_path / "disk/out"), "-w", "1"])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "hint: free some space and run the same command again: it goes on from what is committed" in result.output


def test_a_disk_that_becomes_read_only(made, finished, tmp_path):
    disk = tmp_path / "disk"
    with mounted(disk, "size=16m"):
        run_recipe(made, disk / "out")
        commit = next((disk / "out/stages/1-read/commits").iterdir())
        commit.unlink()
        remount(disk, "ro")
        with pytest.raises(OutputError, match="cannot be written .*\nhint: choose another --output, or its rights"):
            run_recipe(made, disk / "out")
        assert not commit.exists()
        with pytest.raises(OutputError, match="cannot be written .*\nhint: choose another --output, or its rights"):
            run_recipe(made, disk / "another")
        result = CliRunner().invoke(main, ["run", str(made), "-o", str(disk / "new"), "--dry-run"])
        assert result.exit_code == 0, "a dry run writes nothing"
        remount(disk, "rw")
        run_again_to_the_end(made, disk / "out", finished)


def test_an_output_below_a_file(made, tmp_path):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file/below", tmp_path / ("x" * 300)):
        with pytest.raises(OutputError, match="hint: "):
            run_recipe(made, output)


# Things that fail


def test_another_vocabulary_is_refused_before_any_work(made, tmp_path, monkeypatch):
    other = dataclasses.replace(encodings.CL100K_BASE, sha256="0" * 64)
    monkeypatch.setitem(encodings.ENCODINGS, "cl100k_base", other)
    with pytest.raises(
        HeadraceError, match=r"cl100k_base.tiktoken.gz: sha256 223921.*, expected 0000.*\nhint: reinstall"
    ):
        run_recipe(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = CliRunner().invoke(main, ["run", str(made), "-o", str(tmp_path / "out"), "-w", "1"])
    assert result.exit_code == 1
    assert "expected 0000" in result.output


@pytest.fixture(scope="module")
def engines():
    """Engines by their number of workers, for all failures: a failed work must not spoil them."""
    with DatatroveEngine(1) as one, DatatroveEngine(2) as two:
        yield {1: one, 2: two}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("error", "ValueError: seven is no colour"),
        ("panic", "PanicException: called `Option::unwrap()` on a `None` value"),
        ("unpicklable", "Unpicklable: 1 and 2"),
        ("leaves", "SystemExit: 0"),
    ],
)
def test_a_transform_that_fails_names_the_split(how, said, workers, made, engines, finished, tmp_path):
    storage = LocalStorage(tmp_path / "out")
    plan = with_failing(plan_of(made, storage), "web", how)
    with pytest.raises(HeadraceError) as failed:
        run_plan(plan, storage, engines[workers], silent)
    assert str(failed.value).startswith(f"1-read: web/pages.warc: {said}")
    assert "failing_transform.py" in str(failed.value), "where it happened"
    run_again_to_the_end(made, tmp_path / "out", finished)


def test_a_worker_that_leaves_without_a_word(made, finished, tmp_path):
    storage = LocalStorage(tmp_path / "out")
    plan = with_failing(plan_of(made, storage), "web", "dies")
    with DatatroveEngine(2) as engine, pytest.raises(WorkerDied, match="a worker process was killed .*\nhint: run"):
        run_plan(plan, storage, engine, silent)
    run_again_to_the_end(made, tmp_path / "out", finished)


# Signals

LONG = """
sources:
  code:
    reader: code
    repository: cpython
    root: sysconfig:stdlib
    include: ["*.py"]
    split_bytes: 40000
deduplicate: {exact: all}
output: {buckets: 2}
"""


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """A recipe of about a hundred splits, and the output of a whole run."""
    folder = tmp_path_factory.mktemp("long")
    (folder / "long.yaml").write_text(LONG)
    run_recipe(folder / "long.yaml", folder / "out")
    return folder / "long.yaml", folder / "out"


def hear_ctrl_c() -> None:
    """Undo what a shell does to its background jobs, whose children would inherit a deaf ear for SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(recipe: Path, output: Path, workers: int) -> subprocess.Popen:
    """Start the command line in a session of its own, and wait until it has committed something."""
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/support'}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace_main", "run", str(recipe), "-o", str(output), "-w", str(workers)],
        env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(output.glob("stages/1-read/commits/*")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def session_members(session: int) -> list[int]:
    """Return the processes of a session that are alive."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, in_session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(in_session) == session and state != "Z":
                members.append(int(entry.name))
    return members


def wait_for_the_end_of(session: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while session_members(session):
        assert time.monotonic() < deadline, session_members(session)
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_at_once_and_a_rerun_goes_on(workers, long_run, tmp_path):
    recipe, whole = long_run
    process = start(recipe, tmp_path / "out", workers)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=10)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert "Aborted!" in said
    wait_for_the_end_of(process.pid, 5)
    assert not (tmp_path / "out/ledger.parquet").exists(), "the run was over before the signal came"
    committed = len(list((tmp_path / "out").glob("stages/1-read/commits/*")))
    again = run_recipe(recipe, tmp_path / "out")
    assert again.stages["1-read"].num_found == committed > 0
    assert tree_hashes(tmp_path / "out") == tree_hashes(whole)


def test_workers_end_when_their_parent_is_killed(long_run, tmp_path):
    recipe, whole = long_run
    process = start(recipe, tmp_path / "out", 2)
    assert len(session_members(process.pid)) >= 3
    process.kill()
    process.communicate(timeout=10)
    wait_for_the_end_of(process.pid, 5)
    run_recipe(recipe, tmp_path / "out")
    assert tree_hashes(tmp_path / "out") == tree_hashes(whole)
