"""`headrace replay`: a document made again from its bytes has its shard's ids, or the difference is said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from made import PAGES, PROSE, made_recipe
from runs import run_recipe

from headrace import main
from pipelines.errors import VerifyError
from pipelines.replay import replay_document, replay_documents
from pipelines.sources.source import doc_id
from tokenizer.decode import decode
from tokenizer.encodings import CL100K_BASE
from tokenizer.manifest import Manifest


def page_id(name: str) -> str:
    return doc_id("web", f"urn:uuid:00000000-0000-0000-0000-{list(PAGES).index(name):012d}").hex()


def in_shards(output):
    """Yield (doc_id, source, ids, loss) of every document in the token shards, read the plain way."""
    for path in sorted(output.glob("tokens/**/manifest.json")):
        manifest = Manifest.load(path)
        for index in range(len(manifest.shards)):
            shard = manifest.open_shard(index)
            for place, row in enumerate(shard.docs().to_pylist()):
                yield row["doc_id"], manifest.source, shard.ids(place), row["loss"]


def test_every_document_comes_out_as_it_stands(finished):
    stored = list(in_shards(finished))
    replayed = replay_documents(finished, [name for name, *_ in stored])
    assert {source for _, source, _, _ in stored} == {"web", "code", "talks"}
    assert any(loss for *_, loss in stored)
    for (name, source, ids, loss), replay in zip(stored, replayed, strict=True):
        assert (replay.doc_id, replay.source, replay.loss) == (name.hex(), source, loss)
        assert np.array_equal(replay.ids, ids)
        if loss is None:
            assert decode(ids, CL100K_BASE) == replay.text + "<|endoftext|>"


def test_one_by_the_first_digits(finished):
    replay = replay_document(finished, page_id("good")[:9].upper())
    assert replay.doc_id == page_id("good")
    assert PROSE in replay.text
    assert replay.origin["origin_path"] == "pages.warc"
    with pytest.raises(VerifyError, match="ids begin so"):
        replay_document(finished, shared_digit(finished))


def shared_digit(finished) -> str:
    """Return a digit that several ids begin with."""
    firsts = [name.hex()[0] for name, *_ in in_shards(finished)]
    return next(digit for digit in firsts if firsts.count(digit) > 1)


def test_a_document_that_stopped(finished):
    with pytest.raises(VerifyError, match=r"stopped in stage 1-read: dropped\[language\], it is in no token shard"):
        replay_document(finished, page_id("german"))
    with pytest.raises(VerifyError, match="doc_id 0000.*: is in no token shard"):
        replay_documents(finished, [bytes(16)])


@pytest.fixture
def copy(tmp_path):
    """A run of its own, whose input and output may be damaged."""
    recipe = made_recipe(tmp_path / "in")
    run_recipe(recipe, tmp_path / "out")
    return tmp_path


def test_an_input_that_changed(copy):
    path = copy / "in/input/pages.warc"
    path.write_bytes(b"X" + path.read_bytes())
    with pytest.raises(VerifyError, match=r"web: pages.warc at \d+: .*\nhint: the input has changed"):
        replay_document(copy / "out", page_id("good"))
    module = copy / "in/input/package/module3.py"
    name = next(
        name for name, source, ids, _ in in_shards(copy / "out")
        if source == "code" and "Module 3" in decode(ids, CL100K_BASE)
    )  # fmt: skip
    module.write_text(module.read_text().replace("VALUE = 3", "VALUE = 4"))
    with pytest.raises(
        VerifyError, match=r"code: package/module3.py at 0: the payload's hash is now [0-9a-f]{32}, and"
    ):
        replay_documents(copy / "out", [name])
    module.unlink()
    with pytest.raises(VerifyError, match=r"code: package/module3.py at 0: it no longer holds this record"):
        replay_documents(copy / "out", [name])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("HTTP/1.1 200", "HTTP/1.1 404", r"the record is now dropped\[http_status\], and the run kept it"),
        (PROSE, "<" + " " * (len(PROSE) - 1), r"the payload's hash is now [0-9a-f]{32}, and it was [0-9a-f]{32}"),
    ],
)
def test_an_input_whose_record_a_rule_would_stop_now(copy, old, new, said):
    """The shard holds the document: it is the input that is not what it was, and no rule of the recipe is to blame."""
    path = copy / "in/input/pages.warc"
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    with pytest.raises(VerifyError, match=rf"^web: pages.warc at 0: {said}\nhint: the input has changed") as caught:
        replay_document(copy / "out", page_id("good"))
    assert "in no token shard" not in str(caught.value)


def test_a_recipe_that_was_changed(copy):
    path = copy / "out/recipe.json"
    changed = path.read_text().replace('"min_words": 40', '"min_words": 4000')
    assert changed != path.read_text()
    path.write_text(changed)
    said = r"replayed it stops in stage 1-read: dropped\[gopher_quality.min_words\], but the run kept it"
    with pytest.raises(VerifyError, match=rf"^doc_id {page_id('good')}: {said}\nhint: recipe.json"):
        replay_document(copy / "out", page_id("good"))


def test_a_shard_that_was_changed(copy):
    name, _, ids, _ = next(entry for entry in in_shards(copy / "out") if entry[1] == "web")
    ids = np.array(ids)  # what is mapped changes with the file
    for path in copy.glob("out/tokens/web/**/*.bin"):
        content = np.fromfile(path, "<i4")
        places = [place for place in range(len(content)) if np.array_equal(content[place:][: len(ids)], ids)]
        if places:
            content[places[0] + 3] += 1
            content.tofile(path)
            break
    said = rf"doc_id {name.hex()}: token 3 is {ids[3] + 1} in .*, replayed it is {ids[3]}"
    with pytest.raises(VerifyError, match=said):
        replay_documents(copy / "out", [name])


def test_the_command(finished):
    result = CliRunner().invoke(main, ["replay", str(finished), page_id("good"), "--json"])
    assert result.exit_code == 0, result.output
    data = json.loads(result.output)
    assert (data["doc_id"], data["source"], data["same"], data["loss"]) == (page_id("good"), "web", True, None)
    assert data["ids"][-1] == CL100K_BASE.end_of_text
    assert data["origin"]["origin_path"] == "pages.warc"
    assert data["partition"] == {"language": "en"}
    shown = CliRunner().invoke(main, ["replay", str(finished), page_id("good")])
    assert f"{len(data['ids'])} tokens, the same as document {data['place']} of" in shown.output
    assert PROSE[:60] in shown.output
    stopped = CliRunner().invoke(main, ["replay", str(finished), page_id("german")])
    assert stopped.exit_code == 1
    assert "stopped in stage 1-read" in stopped.output


def test_hostile_text_is_shown_escaped(tmp_path):
    recipe = made_recipe(tmp_path / "in")
    (tmp_path / "in/input/package/evil.py").write_text('"""\x1b[2J\x07 is no way to write."""\n')
    run_recipe(recipe, tmp_path / "out")
    [name] = [name for name, _, ids, _ in in_shards(tmp_path / "out") if "\x1b" in decode(ids, CL100K_BASE)]
    shown = CliRunner().invoke(main, ["replay", str(tmp_path / "out"), name.hex()])
    assert "\x1b" not in shown.output
    assert "\\x1b[2J\\x07 is no way" in shown.output
