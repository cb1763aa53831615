"""The ids on disk are tiktoken's own, and Megatron-Core reads them: on the crawl recipe's real data.

Nothing of `tokenizer/` has a part in what is expected: the encoding is that of tiktoken's own plugin with the
vocabulary file of the shared data, turns are rendered here by hand, and the role ids are written down.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiktoken
from runs import REPOSITORY, SHARED

from pipelines.engines.datatrove import DatatroveEngine
from pipelines.plan import build_plan
from pipelines.recipe import load_recipe
from pipelines.run import run_plan
from pipelines.storage.local import LocalStorage
from pipelines.verify import verify_output
from tokenizer.manifest import Manifest

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")

END_OF_TEXT, END_OF_TURN = 100257, 100277
ROLES = {"system": 100278, "user": 100279, "assistant": 100280, "tool": 100281}
TIKTOKENS_URL = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"


@dataclasses.dataclass(frozen=True)
class Crawl:
    """A finished run of recipes/crawl.yaml: its output and its ledger."""

    output: Path
    ledger: pa.Table

    def manifests(self) -> list[tuple[Path, Manifest]]:
        return [(path.parent, Manifest.load(path)) for path in sorted(self.output.glob("tokens/**/manifest.json"))]

    def documents(self) -> dict[bytes, dict]:
        """Return source, text and turns of every document that was tokenized, by id."""
        found: dict[bytes, dict] = {}
        for path in self.output.glob("stages/5-tokenize/documents/*.parquet"):
            for row in pq.read_table(path, columns=["doc_id", "source", "language", "text", "turns"]).to_pylist():
                found[row["doc_id"]] = row
        return found


LIMITS = [pytest.param(100, id="limit 100"), pytest.param(None, id="whole", marks=pytest.mark.stress)]


@pytest.fixture(scope="session", params=LIMITS)
def crawl(request, tmp_path_factory):
    """A run with two workers; `limit` records of each split, or all of them."""
    storage = LocalStorage(tmp_path_factory.mktemp("crawl") / "out")
    plan = build_plan(load_recipe(REPOSITORY / "recipes/crawl.yaml", limit=request.param), storage)
    with DatatroveEngine(2) as engine:
        result = run_plan(plan, storage, engine, lambda *_: None)
    assert result.warnings == ()
    return Crawl(storage.root, result.ledger)


@pytest.fixture(scope="session")
def tiktokens(tmp_path_factory):
    """tiktoken's own cl100k_base, from its own plugin; its file comes from the shared data, not from the net."""
    cache = tmp_path_factory.mktemp("tiktoken")
    name = hashlib.sha1(TIKTOKENS_URL.encode()).hexdigest()
    (cache / name).write_bytes((SHARED / "tokenizer/cl100k_base.tiktoken").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        return tiktoken.get_encoding("cl100k_base")


def rendered(library: tiktoken.Encoding, text: str, turns: list[dict] | None) -> tuple[list[int], list[dict] | None]:
    """Render one document by the words of docs/formats.md: ids, and the spans that bear loss."""
    if turns is None:
        return [*library.encode_ordinary(text), END_OF_TEXT], None
    ids: list[int] = []
    spans = []
    data = text.encode()
    for turn in turns:
        ids.append(ROLES[turn["role"]])
        start = len(ids)
        ids += library.encode_ordinary(data[turn["start"] : turn["end"]].decode())
        ids.append(END_OF_TURN)
        spans.append({"start": start, "end": len(ids), "weight": turn["weight"]})
    if spans:
        spans[-1]["end"] += 1  # end-of-text is the last turn's
    return [*ids, END_OF_TEXT], [span for span in spans if span["weight"]]


def test_every_document_has_the_ids_of_tiktoken(crawl, tiktokens):
    assert tiktokens.eot_token == END_OF_TEXT
    documents = crawl.documents()
    kinds: dict[str, int] = defaultdict(int)
    for _, manifest in crawl.manifests():
        for place in range(len(manifest.shards)):
            shard = manifest.open_shard(place)
            for row, docs in enumerate(shard.docs().to_pylist()):
                document = documents.pop(docs["doc_id"])
                assert document["source"] == manifest.source
                ids, spans = rendered(tiktokens, document["text"], document["turns"])
                assert shard.ids(row).tolist() == ids, docs
                assert docs["loss"] == spans, docs
                assert docs["tokens"] == len(ids)
                assert docs["language"] == document["language"]
                kinds["plain" if spans is None else "trained" if spans else "no loss"] += 1
    assert documents == {}, "documents without tokens"
    assert kinds["plain"] > 300
    assert kinds["trained"] > 300


def test_megatron_reads_the_same_documents(crawl):
    indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    num_documents = num_tokens = 0
    for folder, manifest in crawl.manifests():
        for place, entry in enumerate(manifest.shards):
            ours = manifest.open_shard(place)
            theirs = indexed_dataset.IndexedDataset(str(folder / entry.name), mmap=True)
            assert len(theirs) == len(ours) == entry.documents
            assert theirs.document_indices.tolist() == list(range(entry.documents + 1))
            for row in range(entry.documents):
                found = theirs[row]
                assert found.dtype == "int32"
                assert (found == ours.ids(row)).all()
                assert len(found) == theirs.sequence_lengths[row]
            num_documents += entry.documents
            num_tokens += int(theirs.sequence_lengths.sum())
    assert num_documents == len(crawl.documents())
    assert num_tokens == sum(row["tokens"] for row in crawl.ledger.to_pylist() if row["account"] == "out")


def test_manifests_sum_up_to_the_ledger(crawl):
    """Documents, text bytes and tokens, by source and partition, without counting anything twice."""
    in_ledger: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    into_encode: dict[str, int] = defaultdict(int)
    for row in crawl.ledger.to_pylist():
        if row["table"] == "tokens" and row["account"] == "out":
            sums = in_ledger[row["source"], row["partition"]]
            for place, column in enumerate(("rows", "bytes", "tokens")):
                sums[place] += row[column]
        if (row["stage"], row["transform"], row["account"], row["table"]) == (
            "5-tokenize",
            "encode",
            "out",
            "documents",
        ):
            into_encode[row["source"]] += row["rows"]
    in_manifests = {}
    for folder, manifest in crawl.manifests():
        partition = "/".join(folder.relative_to(crawl.output / "tokens" / manifest.source).parts)
        totals = manifest.totals
        in_manifests[manifest.source, partition] = [totals.documents, totals.text_bytes, totals.tokens]
        assert (folder / manifest.ledger.path).resolve() == (crawl.output / "ledger.parquet").resolve()
        content = (crawl.output / "ledger.parquet").read_bytes()
        assert manifest.ledger.sha256 == hashlib.sha256(content).hexdigest()
        assert manifest.tokenizer.vocabulary == 100_352
        assert dataclasses.asdict(manifest.tokenizer.roles) == {**ROLES, "end_of_turn": END_OF_TURN}
    assert in_manifests == in_ledger
    by_source: dict[str, int] = defaultdict(int)
    for (source, _), sums in in_manifests.items():
        by_source[source] += sums[0]
    assert by_source == into_encode
    assert set(by_source) == {"web", "wet", "c4", "refinedweb", "instructions", "code"}


def test_every_document_lies_in_the_partition_of_its_language(crawl):
    for _, manifest in crawl.manifests():
        for place in range(len(manifest.shards)):
            languages = set(manifest.open_shard(place).docs().column("language").to_pylist())
            assert languages == {manifest.partition["language"]}


def test_markers_stand_where_they_should_and_nowhere_else(crawl):
    """Two for every turn and one at the end, whatever a text spells."""
    documents = crawl.documents()
    for _, manifest in crawl.manifests():
        for place in range(len(manifest.shards)):
            shard = manifest.open_shard(place)
            for row, doc_id in enumerate(shard.doc_ids().to_pylist()):
                ids, turns = shard.ids(row), documents[doc_id]["turns"] or []
                assert ids[ids >= 100_256].tolist() == [
                    *(id_ for turn in turns for id_ in (ROLES[turn["role"]], END_OF_TURN)), END_OF_TEXT
                ]  # fmt: skip


def test_the_whole_is_sound(crawl):
    assert len(list(verify_output(crawl.output))) > 5
