"""Plans are exact integers, worked out by hand here; what cannot be planned is refused with its amounts."""

from __future__ import annotations

import dataclasses
import json
import shutil
from fractions import Fraction

import pytest
from plans import made_documents, made_plan, write_mixture, write_planned, write_tokens

from mixtures.errors import MixtureError, PlanError
from mixtures.mixture import load_mixture
from mixtures.plan import Plan, planned_sequences
from mixtures.planner import plan_mixture, write_plan
from tokenizer.encodings import O200K_BASE
from tokenizer.manifest import Manifest, Tokenizer
from tokenizer.strict_json import JsonError
from trainer_bridge.stream import Stream


def write_source(folder, name="web", lengths=(10, 20, 30, 64, 100), **options):
    return write_tokens(folder / "out", name, made_documents(name, lengths), **options)


def test_a_plan_by_hand(tmp_path):
    """Lengths 10, 20, 30, 64, 100 at 64: 100 = 64 + 36; 64, 64, then 36 + 20 (room 8), 30 + 10: four sequences."""
    talks = write_source(tmp_path, "talks", (40, 65, 5), loss=[[(0, 3, 256)], [], [(1, 5, 256)]])
    sources = {"web": (write_source(tmp_path), "text"), "talks": (talks, "instructions")}
    plan = Plan.load(write_planned(write_mixture(tmp_path, sources)))
    web, talk = plan.phases[0].sources["web"], plan.phases[0].sources["talks"]
    assert dataclasses.astuple(web.unique) == (5, 224, 219, 1, 4)
    assert dataclasses.astuple(web.held_out) == (0, 0, 0, 0, 0)
    assert (web.epochs, web.sequences, web.planned("tokens"), web.dropped) == ((2, 1), 8, 448, {})
    # the conversation of 65 tokens leaves; which one that is depends on the ids' order
    lengths = {40: 2, 65: 0, 5: 4}
    by_id = [len(ids) for ids in made_documents("talks", (40, 65, 5)).values()]
    spans = [[(0, 3)], [], [(1, 5)]]
    targets = sum(sum(end - max(start, 1) for start, end in spans[place]) for place in range(3) if by_id[place] != 65)
    assert lengths
    assert dataclasses.astuple(talk.unique) == (2, 45, targets, 0, 1)
    assert {reason: dataclasses.astuple(dropped) for reason, dropped in talk.dropped.items()} == {
        "longer_than_sequence": (1, 65)
    }
    assert (plan.phases[0].sequences, plan.phases[0].steps) == (9, 3)
    assert plan.phases[0].padding == 9 * 64 - 448 - 45


def test_the_same_mixture_gives_the_same_bytes_elsewhere(tmp_path):
    path = made_plan(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two", ignore=shutil.ignore_patterns("plan.json", "packs"))
    again = write_planned(write_mixture_again(tmp_path / "two"))
    assert path.read_bytes() == again.read_bytes()
    packs = sorted((tmp_path / "one/packs").iterdir())
    assert [file.read_bytes() for file in packs] == [
        file.read_bytes() for file in sorted((tmp_path / "two/packs").iterdir())
    ]
    assert len(packs) == 3


def write_mixture_again(folder):
    kinds = {"web": "text", "code": "code", "talks": "instructions"}
    sources = {name: (folder / "out/tokens" / name / "manifest.json", kind) for name, kind in kinds.items()}
    return write_mixture(folder, sources, windows={"documents": 40, "group": 2})


def test_the_fingerprint_is_of_the_data(tmp_path):
    plan = Plan.load(made_plan(tmp_path))
    assert dataclasses.replace(plan, name="other").fingerprint == plan.fingerprint
    text = plan.path.read_text().replace("packs/", "elsewhere/packs/")
    plan.path.write_text(text)
    assert Plan.load(plan.path).fingerprint == plan.fingerprint
    for change in (
        {"seed": 5},
        {"validation": None, "seed": 9},
        {"windows": dataclasses.replace(plan.windows, group=9)},
    ):
        assert dataclasses.replace(plan, **change).fingerprint != plan.fingerprint


def test_a_plan_in_memory_is_the_one_in_the_file(tmp_path):
    """Sources that are equal in everything, written in another order than their names': ties must go the same way."""
    sources = {name: (write_source(tmp_path, name), "text") for name in ("zebra", "bear", "ant")}
    planned = plan_mixture(load_mixture(write_mixture(tmp_path, sources)), tmp_path / "plan.json", 1, lambda *_: None)
    write_plan(planned)
    loaded = Plan.load(tmp_path / "plan.json")
    assert list(planned.sources) == list(loaded.sources) == list(planned.phases[0].sources) == ["ant", "bear", "zebra"]
    assert planned.to_json() == loaded.to_json()
    one, two = (Stream(plan) for plan in (planned, loaded))
    assert one.batch(0, len(one)).digests() == two.batch(0, len(two)).digests()


@pytest.mark.parametrize(
    ("epochs", "unique", "expected"),
    [("2", 7, 14), ("1/2", 7, 4), ("1/2", 8, 4), ("1/3", 7, 2), ("1/3", 8, 3), ("5/2", 10**15 + 1, 25 * 10**14 + 3)],
)
def test_sequences_of_fractions(epochs, unique, expected):
    assert planned_sequences(Fraction(epochs), unique) == expected


def test_the_fingerprint_knows_sources_of_any_name(tmp_path):
    fingerprints = set()
    for number, lengths in enumerate(((10, 20), (10, 21))):
        folder = tmp_path / str(number)
        source = write_source(folder, "path", lengths)
        fingerprints.add(Plan.load(write_planned(write_mixture(folder, {"path": (source, "text")}))).fingerprint)
    assert len(fingerprints) == 2


def test_folders_do_not_change_the_order(tmp_path):
    plans = []
    for names in (("run1", "run2"), ("run2", "run1")):
        folder = tmp_path / names[0]
        for source, name in zip(("one", "two"), names, strict=True):
            write_tokens(folder / name, source, made_documents(source, (10, 20, 30)))
        pattern = folder / "run*/tokens/*/manifest.json"
        plans.append(Plan.load(write_planned(write_mixture(folder, {"web": (pattern, "text")}))))
    assert plans[0].fingerprint == plans[1].fingerprint
    digests = [stream.batch(0, len(stream)).digests() for stream in map(Stream, plans)]
    assert digests[0] == digests[1]


def test_shards_that_stand_twice(tmp_path):
    web = write_source(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    again = tmp_path / "link/tokens/web/manifest.json"
    mixture = write_mixture(tmp_path, {"web": (web, "text"), "more": (again, "text")})
    with pytest.raises(MixtureError, match="is a manifest of source|lists the same shards as"):
        write_planned(mixture)
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    mixture = write_mixture(tmp_path, {"web": (tmp_path / "[co]*/tokens/web/manifest.json", "text")})
    with pytest.raises(MixtureError, match="lists the same shards as"):
        write_planned(mixture)


def test_what_is_no_plan_is_not_written_over(tmp_path):
    mixture = write_mixture(tmp_path, {"web": (write_source(tmp_path), "text")})
    with pytest.raises(MixtureError, match="is there and is no plan"):
        write_plan(plan_mixture(load_mixture(mixture), mixture, 1, lambda *_: None))


def test_another_tokenizer(tmp_path, monkeypatch):
    sources = {"web": (write_source(tmp_path), "text"), "code": (write_source(tmp_path, "code"), "code")}
    mixture, load = load_mixture(write_mixture(tmp_path, sources)), Manifest.load

    def other(path):
        manifest = load(path)
        other_tokenizer = Tokenizer.of(O200K_BASE)
        return dataclasses.replace(manifest, tokenizer=other_tokenizer) if "code" in str(path) else manifest

    monkeypatch.setattr(Manifest, "load", other)
    with pytest.raises(MixtureError, match="sources have 2 tokenizers: cl100k_base in .*, o200k_base in"):
        plan_mixture(mixture, tmp_path / "plan.json", 1, lambda *_: None)


def test_a_ledger_that_is_not_the_shards(tmp_path):
    mixture = write_mixture(tmp_path, {"web": (write_source(tmp_path), "text")})
    ledger = tmp_path / "out/ledger.parquet"
    ledger.write_bytes(b"another run's")
    with pytest.raises(MixtureError, match=r"ledger.parquet: has the hash .* it is another run's"):
        write_planned(mixture)
    ledger.unlink()
    with pytest.raises(MixtureError, match=r"ledger.parquet: No such file or directory; .*manifest.json names it"):
        write_planned(mixture)


def test_a_plan_inside_of_a_run(tmp_path):
    mixture = load_mixture(write_mixture(tmp_path, {"web": (write_source(tmp_path), "text")}))
    with pytest.raises(MixtureError, match="lies inside of the run"):
        plan_mixture(mixture, tmp_path / "out/plan.json", 1, lambda *_: None)


@pytest.mark.parametrize(
    ("settings", "lengths", "said"),
    [
        ({"classes": {"text": {"epochs": 1, "cut": "never"}}}, (100, 200), "2 longer than 64 tokens: that gives no"),
        ({"classes": {"text": {"epochs": "1/10"}}}, (64, 64), "epochs from 1/4 on give a sequence"),
        ({}, (), "leave the source out, hold out less"),
    ],
)
def test_a_source_that_gives_nothing(tmp_path, settings, lengths, said):
    mixture = write_mixture(tmp_path, {"web": (write_source(tmp_path, lengths=lengths), "text")}, **settings)
    with pytest.raises(MixtureError, match=said):
        write_planned(mixture)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.update(seed=-1), "seed: is -1"),
        (lambda data: data.update(seed=1.5), "holds the number 1.5"),
        (lambda data: data.update(extra=1), "top level: is"),
        (lambda data: data.update(version=2), "version: is 2, expected 1"),
        (lambda data: data.update(seed=77), "fingerprint: is"),
        (lambda data: data["phases"][0].update(sequences=1), r"phases\[0\].sequences: is 1"),
        (lambda data: data["phases"][0].update(steps=1), r"phases\[0\].steps: is 1"),
        (lambda data: data["phases"][0].update(length=1), r"phases\[0\].length, global_batch"),
        (lambda data: data["phases"][0]["sources"].pop("web"), r"phases\[0\].sources"),
        (lambda data: data["phases"][0]["sources"]["web"].update(epochs=[1, 0]), "epochs: is"),
        (lambda data: data["phases"][0]["sources"]["web"].update(epochs=[1, 2, 3]), "epochs: is"),
        (lambda data: data["phases"][0]["sources"]["web"]["unique"].update(documents=1), "held_out and dropped"),
        (lambda data: data["phases"][0]["sources"]["web"]["packs"].clear(), "packs: is 0"),
        (lambda data: data["sources"]["web"].update(cut="short"), "sources.web.cut: is 'short'"),
        (lambda data: data["sources"]["web"]["manifests"][0].update(path="/etc/passwd"), "a path relative to the plan"),
        (lambda data: data["tokenizer"].update(sha256="0" * 64), "tokenizer: is"),
        (lambda data: data.update(validation={"column": "doc_id", "key": "", "share": [2, 1]}), "share 2/1"),
        (lambda data: data.update(phases=[]), "phases: is"),
        (lambda data: data["windows"].update(group=0), "windows: is"),
    ],
)  # fmt: skip
def test_a_plan_that_was_edited(tmp_path, change, said):
    path = made_plan(tmp_path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises((JsonError, PlanError), match=said):
        Plan.load(path)
