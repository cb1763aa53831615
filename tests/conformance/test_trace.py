"""From a random position of the stream back to the bytes of a document: the same tokens come out of them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from plans import write_mixture, write_planned
from runs import SHARED

from mixtures.plan import Plan
from pipelines.replay import replay_documents
from trainer_bridge.stream import Stream
from trainer_bridge.trace import ids_of, trace_step

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="needs the shared data")

KINDS = {"web": "text", "c4": "text", "conversations": "instructions", "code": "code", "copies": "code"}


@pytest.fixture(scope="module")
def plan(reference, tmp_path_factory) -> Plan:
    """A plan over all sources of the small recipe (those that a run of it left empty have nothing to give)."""
    output, _ = reference
    folder = tmp_path_factory.mktemp("mixture")
    sources = {name: (output / "tokens" / name / "**/manifest.json", kind) for name, kind in KINDS.items()}
    settings = {"phases": [{"length": 512, "global_batch": 16}], "validation": {"share": "1/20"}}
    return Plan.load(write_planned(write_mixture(folder, sources, **settings)))


def test_two_hundred_positions(plan, reference):
    output, _ = reference
    stream, random = Stream(plan), np.random.default_rng(11)
    seen, sources = {}, defaultdict(int)
    while len(seen) < 200:
        step, row = int(random.integers(plan.steps)), int(random.integers(16))
        batch = stream.step(step)
        if not batch.used[row]:
            continue
        column = int(random.integers(batch.used[row]))
        [piece] = trace_step(stream, step, row, column)
        assert piece.first <= column < piece.last
        assert piece.output.resolve() == Path(output).resolve()
        seen[step, row, column] = (piece, int(batch.tokens[row, column]))
        sources[piece.source] += 1
    assert set(sources) >= {"web", "c4", "conversations", "code"}  # nearly all that `copies` holds are duplicates
    replays = replay_documents(output, [bytes.fromhex(piece.doc_id) for piece, _ in seen.values()])
    for ((_, _, column), (piece, token)), replay in zip(seen.items(), replays, strict=True):
        assert replay.doc_id == piece.doc_id
        assert {name: replay.origin[name] for name in piece.origin} == piece.origin
        assert replay.ids[piece.start + column - piece.first] == token
        assert np.array_equal(replay.ids[piece.start : piece.end], ids_of(stream, piece))
        assert len(replay.ids) == piece.tokens


def test_every_token_of_a_source_stands_in_the_stream_as_often_as_planned(plan):
    stream, seen = Stream(plan), defaultdict(int)
    for first in range(0, len(stream), 256):
        batch = stream.batch(first, min(256, len(stream) - first))
        for place in range(len(batch.pieces.source)):
            key = (
                int(batch.pieces.source[place]),
                int(batch.pieces.manifest[place]),
                int(batch.pieces.document[place]),
            )
            seen[key] += int(batch.pieces.size[place])
    for number, (name, source) in enumerate(plan.phases[0].sources.items()):
        lengths = {
            (number, manifest, place): int(length)
            for manifest in range(len(plan.sources[name].manifests))
            for place, length in enumerate(whole_lengths(stream, number, manifest))
        }
        epochs = source.whole
        kept = [key for key in lengths if key in seen]
        assert all(seen[key] == epochs * lengths[key] for key in kept)
        assert len(kept) == source.unique.documents
        assert sum(lengths[key] for key in kept) == source.unique.tokens


def test_every_prefix_of_the_run_keeps_the_shares(plan):
    stream = Stream(plan)
    names = list(plan.sources)
    given = np.array([names.index(place.source) for place in stream.places(0, len(stream))])
    for number, source in enumerate(plan.phases[0].sources.values()):
        had = np.cumsum(given == number)
        share = np.arange(1, len(given) + 1) * source.sequences / len(given)
        assert had[-1] == source.sequences
        assert np.abs(had - share).max() <= 1.5


def whole_lengths(stream: Stream, source: int, manifest: int) -> np.ndarray:
    documents = stream.documents(source, manifest)
    return documents.lengths(0, len(documents))
