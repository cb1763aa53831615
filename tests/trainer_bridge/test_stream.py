"""The stream is exact: every token of every document as often as planned, labels by the rules, from any position."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plans import made_documents, made_plan, write_mixture, write_planned, write_tokens

from mixtures.errors import PlanError
from mixtures.plan import Account, Plan
from tokenizer.encodings import CL100K_BASE
from tokenizer.manifest import Manifest
from trainer_bridge.batch import IGNORED, Batch
from trainer_bridge.errors import StreamError
from trainer_bridge.stream import Stream

END = CL100K_BASE.end_of_text


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return Plan.load(made_plan(tmp_path_factory.mktemp("plan"), global_batch=20, validation={"share": "1/10"}))


@pytest.fixture(scope="module")
def whole(plan) -> Batch:
    """Every sequence of the plan."""
    stream = Stream(plan)
    return stream.batch(0, len(stream))


def rows_of(batch: Batch):
    """Yield (row, column, source, manifest, document, start, size) of every piece."""
    pieces = batch.pieces
    for row in range(len(batch)):
        column = 0
        for place in range(pieces.offsets[row], pieces.offsets[row + 1]):
            columns = (pieces.source, pieces.manifest, pieces.document, pieces.start, pieces.size)
            piece = tuple(int(values[place]) for values in columns)
            yield (row, column, *piece)
            column += piece[-1]


def documents_of(plan: Plan) -> dict[tuple[int, int, int], tuple[np.ndarray, list | None]]:
    """Return (ids, loss spans) of every document by source, manifest and document, read the plain way."""
    found = {}
    for source, planned in enumerate(plan.sources.values()):
        for manifest, reference in enumerate(planned.manifests):
            loaded, number = Manifest.load(plan.file(reference.path)), 0
            for index in range(len(loaded.shards)):
                shard = loaded.open_shard(index)
                for place, row in enumerate(shard.docs().to_pylist()):
                    found[source, manifest, number] = np.array(shard.ids(place)), row["loss"]
                    number += 1
    return found


def expected_row(plan: Plan, length: int, pieces, documents):
    """Return tokens, labels, weights, positions and bounds of a sequence, one token after the other."""
    tokens, labels, weights, positions, bounds = [], [], [], [], [0]
    for *key, start, size in pieces:
        ids, loss = documents[tuple(key)]
        for k in range(size):
            target = start + k + 1
            weight = 256 if loss is None else sum(s["weight"] for s in loss if s["start"] <= target < s["end"])
            last = target == len(ids)
            tokens.append(int(ids[start + k]))
            labels.append(IGNORED if last or not weight else int(ids[target]))
            weights.append(0 if last else weight)
            positions.append(k)
        bounds.append(len(tokens))
    padding = length - len(tokens)
    if padding:
        bounds.append(length)
    positions += range(padding)
    return tokens + [END] * padding, labels + [IGNORED] * padding, weights + [0] * padding, positions, bounds


def test_every_token_and_label_is_what_the_shards_say(plan, whole):
    documents = documents_of(plan)
    pieces = defaultdict(list)
    for row, _, *piece in rows_of(whole):
        pieces[row].append(piece)
    assert len(pieces) == len(whole) == plan.sequences
    for row, inside in pieces.items():
        tokens, labels, weights, positions, bounds = expected_row(plan, 64, inside, documents)
        assert whole.tokens[row].tolist() == tokens
        assert whole.labels[row].tolist() == labels
        assert whole.weights[row].tolist() == weights
        assert whole.positions[row].tolist() == positions
        assert whole.bounds(row).tolist() == bounds
        assert whole.used[row] == sum(piece[-1] for piece in inside)
        segments = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        segments[whole.used[row] :] = -1
        assert whole.segments()[row].tolist() == segments.tolist()
    assert any(piece[-2] for piece in itertools.chain(*pieces.values())), "no document was cut"
    assert (whole.weights == 128).any()


def test_every_document_as_often_as_its_epochs(plan, whole):
    documents, seen = documents_of(plan), defaultdict(Counter)
    for _, _, source, manifest, document, start, size in rows_of(whole):
        seen[source, manifest, document].update(range(start, start + size))
    stream = Stream(plan, "validation")
    held_out = {piece[2:5] for piece in rows_of(stream.batch(0, len(stream)))}
    assert held_out
    names = list(plan.sources)
    absent = Counter()
    for key, (ids, _) in documents.items():
        epochs, _ = plan.phases[0].sources[names[key[0]]].epochs
        if key in seen:
            assert key not in held_out
            assert seen[key] == dict.fromkeys(range(len(ids)), epochs)
        else:
            absent[names[key[0]]] += 1
            assert key in held_out or (names[key[0]] == "talks" and len(ids) > 64)
    for name, source in plan.phases[0].sources.items():
        too_long = source.dropped.get("longer_than_sequence")
        assert absent[name] == source.held_out.documents + (too_long.documents if too_long else 0)
    assert plan.phases[0].sources["talks"].dropped


def test_the_plan_counts_what_the_stream_gives(plan, whole):
    names = list(plan.sources)
    tokens, targets, sequences = Counter(), Counter(), Counter()
    for row, column, source, _, _, _, size in rows_of(whole):
        tokens[names[source]] += size
        targets[names[source]] += int((whole.labels[row, column : column + size] != IGNORED).sum())
        sequences[names[source]] += column == 0
    for name, source in plan.phases[0].sources.items():
        given = (tokens[name], targets[name], sequences[name])
        assert given == (source.planned("tokens"), source.planned("targets"), source.sequences)
    assert whole.used.sum() == plan.sequences * 64 - plan.phases[0].padding


def test_every_prefix_keeps_the_shares(plan, whole):
    sources = whole.pieces.source[whole.pieces.offsets[:-1]]
    counts = [source.sequences for source in plan.phases[0].sources.values()]
    for source, count in enumerate(counts):
        had = np.cumsum(sources == source)
        share = np.arange(1, len(sources) + 1) * count / len(sources)
        assert np.abs(had - share).max() <= 1.5


def test_epochs_have_orders_of_their_own(plan):
    stream = Stream(plan)
    order = defaultdict(list)
    for place in stream.places(0, len(stream)):
        order[place.source, place.epoch].append((place.manifest, place.window, place.sequence))
    for name, epochs in (("web", 2), ("code", 4), ("talks", 1)):
        orders = [order[name, epoch] for epoch in range(epochs)]
        assert all(sorted(one) == sorted(orders[0]) for one in orders)
        assert len({tuple(one) for one in orders}) == epochs
    assert len(order) == 7


def test_any_position_alone_and_in_any_batch(plan, whole):
    stream = Stream(plan, open_windows=1)
    for position in [0, 1, 17, plan.sequences - 1, 5]:
        alone = stream.sequence(position)
        assert np.array_equal(alone.tokens[0], whole.tokens[position])
        assert np.array_equal(alone.labels[0], whole.labels[position])
        assert alone.digests() == [whole.digests()[position]]
    first = stream.batch(10, 7)
    assert np.array_equal(first.tokens, whole.tokens[10:17])
    assert first.digests() == whole.digests()[10:17]


def test_ranks_share_a_step_and_the_last_is_filled_with_nothing(plan, whole):
    stream = Stream(plan)
    filled = plan.sequences % 20
    assert filled, "the last step must not be full for this test"
    for step in (0, 3, plan.steps - 1):
        one = stream.step(step)
        for world_size in (2, 4):
            ranks = [stream.step(step, rank, world_size) for rank in range(world_size)]
            assert np.array_equal(np.concatenate([rank.tokens for rank in ranks]), one.tokens)
            assert [digest for rank in ranks for digest in rank.digests()] == one.digests()
    last = stream.step(plan.steps - 1)
    assert np.array_equal(last.tokens[:filled], whole.tokens[-filled:])
    assert (last.tokens[filled:] == END).all()
    assert (last.labels[filled:] == IGNORED).all()
    assert last.used[filled:].tolist() == [0] * (20 - filled)
    assert last.bounds(19).tolist() == [0, 64]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda stream: stream.sequence(-1), "sequences -1 to 0: the plan has"),
        (lambda stream: stream.sequence(len(stream)), "the plan has"),
        (lambda stream: stream.batch(len(stream) - 1, 2), "the plan has"),
        (lambda stream: stream.step(stream.plan.steps), r"step \d+: the plan has \d+ steps, counted from 0"),
        (lambda stream: stream.step(-1), "step -1: the plan has"),
        (lambda stream: stream.step(0, 0, 3), "rank 0 of 3: the global batch of 20"),
        (lambda stream: stream.step(0, 2, 2), "rank 2 of 2"),
    ],
)
def test_positions_that_there_are_not(plan, ask, said):
    with pytest.raises(StreamError, match=said):
        ask(Stream(plan))


def test_shards_that_changed_are_refused(tmp_path):
    path = made_plan(tmp_path)
    shard = next((tmp_path / "out/tokens/web").glob("*.bin"))
    content = shard.read_bytes()
    shard.write_bytes(content + b"\0\0\0\0")
    with pytest.raises(PlanError, match=f"{shard.name}: has {len(content) + 4} bytes, the manifest says"):
        stream = Stream(Plan.load(path))
        stream.batch(0, len(stream))


def test_another_manifest_is_refused(tmp_path):
    path = made_plan(tmp_path)
    manifest = tmp_path / "out/tokens/web/manifest.json"
    manifest.write_bytes((tmp_path / "out/tokens/code/manifest.json").read_bytes())
    with pytest.raises(PlanError, match=r"manifest.json: source is 'code', the plan .*plan.json names 'web'"):
        Stream(Plan.load(path))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_mixtures_are_exact(tmp_path_factory, data):
    """Any lengths, epochs (fractions too), windows, groups, batch: tokens are conserved, shares are kept."""
    folder = tmp_path_factory.mktemp("mixture")
    length = data.draw(st.sampled_from([2, 16, 50]))
    sources, classes = {}, {}
    for number in range(data.draw(st.integers(1, 3))):
        name = f"s{number}"
        lengths = data.draw(st.lists(st.integers(1, 120), min_size=1, max_size=40))
        documents = made_documents(name, lengths, seed=number)
        sources[name] = (write_tokens(folder / "out", name, documents, shards=data.draw(st.integers(1, 3))), name)
        epochs = Fraction(data.draw(st.integers(2, 8)), data.draw(st.sampled_from([1, 1, 1, 2, 3])))  # gives a sequence
        classes[name] = {"epochs": str(epochs)}
    mixture = write_mixture(
        folder,
        sources,
        classes=classes,
        phases=[{"length": length, "global_batch": data.draw(st.integers(1, 5))}],
        windows={"documents": data.draw(st.integers(1, 30)), "group": data.draw(st.integers(1, 3))},
    )
    plan = Plan.load(write_planned(mixture))
    stream = Stream(plan)
    batch = stream.batch(0, len(stream))
    seen = defaultdict(Counter)
    for _, _, source, manifest, document, start, size in rows_of(batch):
        seen[source, manifest, document].update(range(start, start + size))
    for (source, manifest, document), (ids, _) in documents_of(plan).items():
        epochs = Fraction(*list(plan.phases[0].sources.values())[source].epochs)
        times = [seen[source, manifest, document][place] for place in range(len(ids))]
        assert min(times) >= int(epochs)
        assert max(times) <= -(-epochs.numerator // epochs.denominator)
    counts = [source.sequences for source in plan.phases[0].sources.values()]
    given_sources = batch.pieces.source[batch.pieces.offsets[:-1]]
    for source, count in enumerate(counts):
        prefix = np.cumsum(given_sources == source) - np.arange(1, len(batch) + 1) * count / len(batch)
        assert np.abs(prefix).max() <= 1.5


def test_phases_draw_on_one_account(plan):
    """Cut in two phases, by hand, each source goes on in the second where the first left it."""
    phase = plan.phases[0]
    half = {name: source.sequences // 3 for name, source in phase.sources.items()}
    first = {name: dataclasses.replace(source, sequences=half[name]) for name, source in phase.sources.items()}
    second = {
        name: dataclasses.replace(
            source,
            start=Account(*divmod(half[name], source.unique.sequences)),
            sequences=source.sequences - half[name],
        )
        for name, source in phase.sources.items()
    }
    phases = []
    for sources, batch in ((first, 20), (second, 7)):
        total = sum(source.sequences for source in sources.values())
        counts = {"sequences": total, "steps": -(-total // batch), "global_batch": batch}
        phases.append(dataclasses.replace(phase, sources=sources, **counts))
    both = dataclasses.replace(plan, phases=tuple(phases), path=plan.path.with_name("both.json"))
    both.path.write_text(both.to_json())
    stream, whole = Stream(Plan.load(both.path)), Stream(plan)
    assert (len(stream), both.sequences) == (len(whole), plan.sequences)
    orders = []
    parts = [(0, phases[0].sequences), (phases[0].sequences, phases[1].sequences)]
    for some, ranges in ((whole, [(0, plan.sequences)]), (stream, parts)):
        order = defaultdict(list)
        for begin, count in ranges:
            for place, digest in zip(some.places(begin, count), some.batch(begin, count).digests(), strict=True):
                order[place.source].append((place.epoch, place.ordinal, digest))
        orders.append(order)
    assert orders[0] == orders[1]
    assert len(stream.step(phases[0].steps - 1)) == 20
    assert len(stream.step(phases[0].steps)) == 7
    assert stream.step_of(phases[0].sequences) == (phases[0].steps, 0)
    with pytest.raises(StreamError, match="in phases that end at"):
        stream.batch(phases[0].sequences - 1, 2)
