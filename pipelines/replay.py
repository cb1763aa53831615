"""A document's bytes read again at their origin and sent through the recipe, to the ids that its shard must hold.

Steps that look at one document are repeated. What steps that look at many have decided (one document a key, duplicates)
is taken from the tables of their stages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.engines.mapping import conform
from pipelines.errors import VerifyError
from pipelines.explain import find_document, last_transforms, say_verdict
from pipelines.finished import FinishedRun, open_run
from pipelines.manifests import MANIFEST_FILE
from pipelines.plan import DOCUMENTS
from pipelines.reread import first_stage, read_again, refuse_record
from pipelines.run import RECIPE_FILE, RUN_FILE
from pipelines.sinks.tables import read_table
from pipelines.transform import Transform
from tokenizer.manifest import Manifest
from tokenizer.shards import Shard, ShardError
from tokenizer.strict_json import JsonError

Loss = list[dict[str, int]] | None
"""Spans of tokens that bear loss, with their weights; None: every token does."""

ORIGIN = ("origin_path", "origin_offset", "origin_length", "url", "language", "licence")


@dataclasses.dataclass(frozen=True, slots=True)
class Replay:
    """A document made anew: where its bytes lie, its text, its ids (int32), and the shard that holds just these."""

    doc_id: str
    source: str
    partition: dict[str, str | None]
    """The values of the columns that the run partitions by; {} if it does not."""
    origin: dict[str, Any]
    text: str
    ids: np.ndarray
    loss: Loss
    shard: Path
    place: int
    """Its place in the shard, counted from 0."""

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return dataclasses.asdict(self) | {"ids": self.ids.tolist(), "shard": str(self.shard), "same": True}


def replay_document(output: Path | str, doc_id: str) -> Replay:
    """Replay the document whose id is or begins with `doc_id` (hex).

    Raises `VerifyError` when there is none, several ids begin so, it stopped on the way, its record is no longer there,
    or the shard holds anything else.
    """
    with _explained():
        run = open_run(output)
        stage, table, row = find_document(run, doc_id)[0]
        if table != DOCUMENTS:
            _refuse_stopped(row["doc_id"], stage, row["verdict"])
        [replay] = _replay(run, [row["doc_id"]])
    return replay


def replay_documents(output: Path | str, doc_ids: Sequence[bytes]) -> list[Replay]:
    """Replay documents of the token shards, by their ids, in this order; the run is opened and each split read once.

    Raises `VerifyError`, as `replay_document` does.
    """
    with _explained():
        return list(_replay(open_run(output), doc_ids))


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what damaged files raise into `VerifyError`."""
    try:
        yield
    except (JsonError, ShardError, pa.ArrowException) as error:
        raise VerifyError(str(error)) from error
    except OSError as error:
        raise VerifyError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _replay(run: FinishedRun, doc_ids: Sequence[bytes]) -> Iterator[Replay]:
    rows = _documents(run, doc_ids)
    with ExitStack() as stack:
        sources = {row["source"] for row in rows}
        shards = _Shards({source: stack.enter_context(run.on_disk(f"tokens/{source}")) for source in sources})
        yield from _replay_rows(run, rows, shards)


def _replay_rows(run: FinishedRun, rows: Sequence[dict[str, Any]], shards: _Shards) -> Iterator[Replay]:
    last_stage, last = last_transforms(run)
    for row, batch in zip(rows, read_again(run, rows), strict=True):
        _check_record(row, batch)
        chain = first_stage(run).chains[row["source"]]
        batch = _through(chain.transforms, batch, first_stage(run).name)
        batch = _through(last, conform(batch, first_stage(run).schema), last_stage.name)
        ids = batch.column("ids").flatten().to_numpy().astype(np.int32)
        loss = batch.column("loss")[0].as_py()
        partition, shard, place = shards.compare(row, ids, loss)
        origin = {name: row[name] for name in ORIGIN}
        text = batch.column("text")[0].as_py()
        yield Replay(row["doc_id"].hex(), row["source"], partition, origin, text, ids, loss, shard, place)


def _documents(run: FinishedRun, doc_ids: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return the rows of these documents in the last stage's table, in the order asked."""
    found: dict[bytes, dict[str, Any]] = {}
    wanted = pa.array(sorted(set(doc_ids)), pa.binary())
    for file in run.files(run.plan.stages[-1].name, DOCUMENTS):
        names = read_table(run.storage, file.path, ["doc_id"]).column("doc_id").cast(pa.binary())
        chosen = pc.is_in(names, wanted)
        if pc.any(chosen).as_py():
            table = read_table(run.storage, file.path).filter(chosen)
            heavy = [name for name in ("content", "text", "http_headers", "turns") if name in table.column_names]
            found |= {row["doc_id"]: row for row in table.drop_columns(heavy).to_pylist()}
    for doc_id in doc_ids:
        if doc_id not in found:
            raise VerifyError(f"doc_id {doc_id.hex()}: is in no token shard\nhint: see `headrace explain`")
    return [found[doc_id] for doc_id in doc_ids]


def _check_record(row: dict[str, Any], batch: pa.RecordBatch) -> None:
    """Refuse a record whose payload, or the reader's verdict on it, is not what the run read."""
    verdict = batch.column("verdict")[0].as_py()
    if verdict is not None:
        refuse_record(row, f"the record is now {say_verdict(verdict)}, and the run kept it")
    payload = batch.column("content_hash")[0].as_py()
    if payload != row["content_hash"]:
        refuse_record(row, f"the payload's hash is now {payload.hex()}, and it was {row['content_hash'].hex()}")


def _through(transforms: tuple[Transform, ...], batch: pa.RecordBatch, stage: str) -> pa.RecordBatch:
    """Apply transforms to one row; a document that was kept in the run must be kept again."""
    for transform in transforms:
        batch = transform(batch)
        verdict = batch.column("verdict")[0].as_py()
        if verdict is not None:
            name = batch.column("doc_id")[0].as_py().hex()
            raise VerifyError(
                f"doc_id {name}: replayed it stops in stage {stage}: {say_verdict(verdict)}, but the run kept it\n"
                f"hint: {RECIPE_FILE} or the packages have changed since the run; {RUN_FILE} names its packages"
            )
    return batch


def _refuse_stopped(doc_id: bytes, stage: str, verdict: dict[str, Any]) -> NoReturn:
    raise VerifyError(
        f"doc_id {doc_id.hex()}: stopped in stage {stage}: {say_verdict(verdict)}, it is in no token shard\n"
        "hint: `headrace explain` shows each rule's value and threshold"
    )


class _Shards:
    """The token shards of some sources, looked up by doc_id."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._manifests: dict[str, list[Manifest]] = {
            source: [Manifest.load(path) for path in sorted(folder.rglob(MANIFEST_FILE))]
            for source, folder in folders.items()
        }
        self._open: dict[tuple[Path | None, int], tuple[Shard, pa.Table]] = {}

    def compare(self, row: dict[str, Any], ids: np.ndarray, loss: Loss) -> tuple[dict[str, str | None], Path, int]:
        """Return the document's partition, shard and place there. `VerifyError` unless it holds just these ids."""
        name = row["doc_id"].hex()
        for manifest in self._manifests[row["source"]]:
            for index, entry in enumerate(manifest.shards):
                if entry.documents and (entry.first_doc_id or "") <= name <= (entry.last_doc_id or ""):
                    shard, docs = self._shard(manifest, index)
                    place = pc.index(docs.column("doc_id"), pa.scalar(row["doc_id"], pa.binary(16))).as_py()
                    if place >= 0:
                        _compare(name, shard, place, ids, loss, docs.column("loss")[place].as_py())
                        return manifest.partition, shard.prefix, place
        raise VerifyError(f"doc_id {name}: is in no token shard\nhint: check the run with `headrace verify`")

    def _shard(self, manifest: Manifest, index: int) -> tuple[Shard, pa.Table]:
        key = (manifest.path, index)
        if key not in self._open:
            shard = manifest.open_shard(index)
            self._open[key] = (shard, shard.docs().select(["doc_id", "loss"]))
        return self._open[key]


def _compare(name: str, shard: Shard, place: int, ids: np.ndarray, loss: Loss, stored_loss: Loss) -> None:
    stored = shard.ids(place)
    if len(stored) != len(ids) or not np.array_equal(stored, ids):
        shortest = min(len(stored), len(ids))
        different = np.flatnonzero(stored[:shortest] != ids[:shortest])
        first = int(different[0]) if len(different) else shortest
        values = [str(some[first]) if first < len(some) else "nothing" for some in (stored, ids)]
        raise VerifyError(
            f"doc_id {name}: token {first} is {values[0]} in {shard.prefix}, replayed it is {values[1]} "
            f"({len(stored)} tokens there, {len(ids)} replayed)\n"
            "hint: the input, the packages or the shard have changed since the run; `headrace verify` checks the shard"
        )
    if stored_loss != loss:
        raise VerifyError(f"doc_id {name}: loss spans in {shard.prefix} are {stored_loss}, replayed they are {loss}")
