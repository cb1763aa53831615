"""`headrace verify`: a finished run against its own records, file by file and number by number."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.commit import Commit, FileRecord, faults_of
from pipelines.contamination.canaries import check_canaries
from pipelines.engines.grouping import bucket_label, bucket_of
from pipelines.errors import VerifyError
from pipelines.finished import FinishedRun, open_run
from pipelines.ledger import check_split, check_stages, check_tables, to_table
from pipelines.manifests import LEDGER_FILE, MANIFEST_FILE, build_manifests
from pipelines.plan import DOCUMENTS
from pipelines.run import PACKAGES_FILE, RECIPE_FILE, RUN_FILE
from pipelines.sinks.tables import read_table
from tokenizer.manifest import Manifest
from tokenizer.shards import SUFFIXES, ShardError
from tokenizer.strict_json import JsonError

CHUNK = 1 << 20


def verify_output(output: Path | str) -> Iterator[str]:
    """Check a finished run, yielding a line for everything that was found right.

    Raises `VerifyError` (or `LedgerImbalance`) at the first thing that is not.
    """
    try:
        yield from _check_all(open_run(output))
    except (JsonError, ShardError, pa.ArrowException) as error:
        raise VerifyError(str(error)) from error
    except OSError as error:
        raise VerifyError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _check_all(run: FinishedRun) -> Iterator[str]:
    yield _check_files(run)
    yield _check_strays(run)
    yield _check_ledger(run)
    yield _check_order(run)
    yield from _check_tokens(run)
    yield from _find_faults(run)


def _check_files(run: FinishedRun) -> str:
    """Every file that a commit names: there, as long, with the same hash, with as many rows."""
    records = [record for commits in run.commits.values() for commit in commits for record in commit.files]
    for record in records:
        if not run.storage.exists(record.path):
            raise VerifyError(f"{record.path}: is missing\nhint: run the recipe again, it makes what is missing")
        found = _hash(run, record.path)
        if found != (record.sha256, record.size):
            raise VerifyError(
                f"{record.path}: sha256 and size are {found}, its commit says {(record.sha256, record.size)}\n"
                "hint: delete its commit (same stage, folder commits) and run the recipe again"
            )
        if record.path.endswith(".parquet") and record.table != "tokens":
            with run.storage.open(record.path) as file:
                rows = pq.read_metadata(file).num_rows
            if rows != record.rows:
                raise VerifyError(f"{record.path}: has {rows} rows, its commit says {record.rows}")
    size = sum(record.size for record in records)
    return f"files: {len(records):,} with {size:,} bytes have the hashes and rows of their commits"


def _check_strays(run: FinishedRun) -> str:
    """No file that nothing names."""
    named = {RECIPE_FILE, RUN_FILE, LEDGER_FILE, PACKAGES_FILE}
    named |= set(_manifests(run))
    for stage, commits in run.commits.items():
        for commit in commits:
            named |= {record.path for record in commit.files} | {f"stages/{stage}/commits/{commit.split}.json"}
    strays = sorted(file.path for file in run.storage.list() if file.path not in named)
    if strays:
        raise VerifyError(
            f"{strays[0]}: {len(strays)} files are named by no commit\nhint: run the recipe again, it sweeps them away"
        )
    return "strays: none, every file is named by a commit"


def _check_ledger(run: FinishedRun) -> str:
    """The ledger is the sum of the commits, balances, and agrees with the rows of the rejects."""
    entries = [entry for commits in run.commits.values() for commit in commits for entry in commit.entries]
    ledger = read_table(run.storage, LEDGER_FILE)
    if not ledger.equals(to_table(entries)):
        raise VerifyError(f"{LEDGER_FILE}: is not the sum of the commits' entries\nhint: run the recipe again")
    for commits in run.commits.values():
        for commit in commits:
            check_split(commit.entries, max((entry.step for entry in commit.entries), default=0))
            _check_counts(commit)
    check_stages(ledger, run.plan.document_stages)
    check_tables(ledger, run.plan.tables_between(), run.plan.rows_of_older_runs())
    _check_buckets(run)
    for source in run.plan.canaries:
        check_canaries(entries, source)
    for stage in run.plan.document_stages:
        stopped = sum(e.rows for e in entries if e.stage == stage and e.account in ("dropped", "errored", "merged"))
        rejected = sum(record.rows for record in run.files(stage, "rejects"))
        if stopped != rejected:
            raise VerifyError(
                f"stage {stage}: the ledger says {stopped} documents stopped, the rejects hold {rejected}"
            )
    return f"ledger: {ledger.num_rows:,} entries balance, within every split and between the stages"


def _find_faults(run: FinishedRun) -> Iterator[str]:
    """Say which splits are sound but not canonical, if any: a time limit is nothing that another run would repeat."""
    found = [
        f"{stage}, {split} ({documents} documents)"
        for stage, commits in run.commits.items()
        for split, documents in faults_of(commits).items()
    ]
    if found:
        yield (
            f"faults: NOT CANONICAL: {len(found)} splits hold documents that met a time limit, see {found[0]}; "
            "run the recipe again, it tries them anew"
        )


def _check_buckets(run: FinishedRun) -> None:
    """Every bucket of every stage behind the first has its commit, those without rows too."""
    buckets = run.plan.recipe.output.buckets
    wanted = {bucket_label(number, buckets) for number in range(buckets)}
    for stage in run.plan.stages[1:]:
        found = [commit.label for commit in run.commits[stage.name]]
        if sorted(found) != sorted(wanted):
            odd = sorted(wanted.symmetric_difference(found)) or ["a bucket that is there twice"]
            raise VerifyError(
                f"stage {stage.name}: has {len(found)} commits for {buckets} buckets, see {odd[0]}\n"
                "hint: run the recipe again, it makes what is missing"
            )


def _check_counts(commit: Commit) -> None:
    """The rows of a commit's files are those that its entries put out (a token shard is three files)."""
    in_files: dict[str, int] = defaultdict(int)
    in_entries: dict[str, int] = defaultdict(int)
    for record in commit.files:
        in_files[record.table] += record.rows
    for entry in commit.entries:
        if entry.transform == "write" and entry.account == "out":
            in_entries[entry.table] += entry.rows * (len(SUFFIXES) if entry.table == "tokens" else 1)
    for table in in_files.keys() | in_entries.keys():
        if in_files[table] != in_entries[table]:
            raise VerifyError(
                f"{commit.label}: its files of table {table} hold {in_files[table]} rows, its entries put out "
                f"{in_entries[table]}\nhint: delete its commit and run the recipe again"
            )


def _check_order(run: FinishedRun) -> str:
    """Documents of bucketed stages: strictly ascending by doc_id, each in its own bucket."""
    num_documents = 0
    buckets = run.plan.recipe.output.buckets
    for stage in run.plan.document_stages[1:]:
        for commit in run.commits[stage]:
            for record in commit.files:
                if record.table == DOCUMENTS:
                    ids = _ids(run, record)
                    num_documents += len(ids)
                    if len(ids) and {bucket_label(int(n), buckets) for n in np.unique(bucket_of(ids, buckets))} != {
                        commit.label
                    }:
                        raise VerifyError(f"{record.path}: holds documents that belong to another bucket")
                    _check_ascending(ids, record.path)
    return f"order: {num_documents:,} documents are in canonical order, no doc_id twice"


def _check_ascending(ids: pa.Array, path: str) -> None:
    plain = ids.cast(pa.binary())
    if len(ids) > 1 and not pc.all(pc.less(plain[:-1], plain[1:])).as_py():
        raise VerifyError(f"{path}: documents are not in ascending order of doc_id, or one is there twice")


def _check_tokens(run: FinishedRun) -> Iterator[str]:
    """Every shard by its manifest: ids in range, every document ended, and the documents of the last stage."""
    in_shards: dict[str, set[bytes]] = defaultdict(set)
    for path, expected_manifest in _manifests(run).items():
        with run.on_disk(path.rpartition("/")[0]) as folder:
            manifest = Manifest.load(folder / MANIFEST_FILE)
            if manifest != expected_manifest:
                raise VerifyError(f"{path}: is not what the commits and the ledger say\nhint: run the recipe again")
            in_shards[manifest.source] |= _check_shards(manifest, path)
        totals = manifest.totals
        yield (
            f"tokens: {path.rpartition('/')[0]}: {totals.documents:,} documents, {totals.tokens:,} tokens in "
            f"{totals.shards} shards"
        )
    expected: dict[str, set[bytes]] = defaultdict(set)
    for record in run.files(_last(run), DOCUMENTS):
        table = read_table(run.storage, record.path, ["doc_id", "source"])
        for doc_id, source in zip(*(table.column(name).to_pylist() for name in ("doc_id", "source")), strict=True):
            expected[source].add(doc_id)
    for source in expected.keys() | in_shards.keys():
        if expected[source] != in_shards[source]:
            raise VerifyError(
                f"source {source}: {len(expected[source] ^ in_shards[source])} documents are in the documents table "
                "or in the token shards but not in both\nhint: run the recipe again"
            )


def _check_shards(manifest: Manifest, path: str) -> set[bytes]:
    """Check every shard of a manifest and their order; returns the documents that they hold."""
    found: set[bytes] = set()
    for place in range(len(manifest.shards)):
        manifest.verify_shard(place)
        found |= set(manifest.open_shard(place).doc_ids().to_pylist())
    ends = [end for shard in manifest.shards for end in (shard.first_doc_id, shard.last_doc_id) if end is not None]
    if ends != sorted(ends):
        raise VerifyError(f"{path}: does not list the shards in canonical order")
    return found


def _manifests(run: FinishedRun) -> dict[str, Manifest]:
    """The manifests that the commits and the ledger call for, by path."""
    try:
        return build_manifests(run.plan, run.files(_last(run), "tokens"), _hash(run, LEDGER_FILE)[0])
    except (KeyError, TypeError) as error:
        raise VerifyError(f"stage {_last(run)}: a commit describes no token shard ({error})") from error


def _last(run: FinishedRun) -> str:
    return run.plan.stages[-1].name


def _ids(run: FinishedRun, record: FileRecord) -> pa.Array:
    return read_table(run.storage, record.path, ["doc_id"]).column("doc_id").combine_chunks()


def _hash(run: FinishedRun, path: str) -> tuple[str, int]:
    """Return a file's sha256 and how many bytes it has."""
    digest, size = hashlib.sha256(), 0
    with run.storage.open(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size
