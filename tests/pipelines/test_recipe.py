"""A wrong recipe fails before any work, and the error names the file, the key, what was found and what is allowed."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from runs import REPOSITORY, SHARED

from pipelines.deduplicate import Deduplicate, Near, OlderRun, Passages
from pipelines.errors import RecipeError
from pipelines.near_duplicates.presets import Shape
from pipelines.plan import build_plan
from pipelines.recipe import (
    Output,
    Recipe,
    Root,
    SourceRecipe,
    Tokenizer,
    load_recipe,
    recipe_of_resolved,
)
from pipelines.sources.commoncrawl import CommonCrawl
from pipelines.sources.conversations import Conversations
from pipelines.sources.source_code import Code
from pipelines.sources.tables import Table
from pipelines.storage.local import LocalStorage
from pipelines.transforms.c4 import C4Quality
from pipelines.transforms.contamination import Contamination
from pipelines.transforms.extract import Extract
from pipelines.transforms.fineweb import FineWebQuality
from pipelines.transforms.given_files import GivenFile, given_files
from pipelines.transforms.gopher import GopherQuality
from pipelines.transforms.gopher_repetition import GopherRepetition
from pipelines.transforms.language import Language
from pipelines.transforms.pii import Pii
from pipelines.transforms.refinedweb_lines import RefinedWebLines
from tokenizer.strict_yaml import MAX_BYTES

GOOD = {
    "name": "good",
    "sources": {
        "web": {
            "reader": "commoncrawl",
            "root": "files",
            "include": ["*.warc"],
            "transforms": ["extract", {"language": {"languages": ["en"]}}],
        },
        "code": {"reader": "code", "root": "files", "include": ["*.py"], "repository": "here"},
    },
    "deduplicate": {"exact": "all"},
    "tokenizer": {"encoding": "cl100k_base"},
    "output": {"buckets": 2},
    "engine": "datatrove",
}


@pytest.fixture
def write(tmp_path):
    """Write a recipe (data or text) beside a folder `files`; returns its path."""
    (tmp_path / "files").mkdir()
    (tmp_path / "a_file").touch()

    def write_recipe(content: dict | str) -> Path:
        path = tmp_path / "given.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return path

    return write_recipe


def changed(key: str, value: object) -> dict:
    """Return the good recipe with one key set ("a.b.c"; a number is a place in a list); `...` deletes it."""
    recipe = json.loads(json.dumps(GOOD))
    *way, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    place = recipe
    for part in way:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return recipe


def refusal(path: Path) -> str:
    """Load (and plan) a recipe that must be refused; the message always names the file."""
    with pytest.raises(RecipeError) as refused:
        build_plan(load_recipe(path), LocalStorage(path.parent / "unused"))
    assert str(refused.value).startswith(f"{path}: ")
    return str(refused.value)


def test_the_good_recipe_loads(write):
    recipe = load_recipe(write(GOOD))
    assert [entry.source.name for entry in recipe.sources] == ["web", "code"]
    assert recipe.sources[0].transforms == (Extract(), Language(languages=("en",)))


WRONG = [
    # unknown keys, at each level
    ("colour", "red", ["colour: found 'red'", "unknown key", "name, sources, deduplicate, tokenizer, output, engine"]),
    ("sources.web.colour", 1, ["sources.web.colour: found 1", "unknown key", "include", "max_record_bytes"]),
    ("sources.web.name", "other", ["sources.web.name: found 'other'", "unknown key"]),
    ("sources.web.transforms.1.language.lang", ["de"], ["transforms[1].language.lang", "['de']", "languages"]),
    ("deduplicate", {"url": "all", "older": ["a"]}, ["deduplicate.older: found ['a']", "needs exact too"]),
    ("deduplicate.fuzzy", "all", ["deduplicate.fuzzy: found 'all'", "allowed are exact"]),
    ("tokenizer.vocabulary", "x", ["tokenizer.vocabulary: found 'x'", "encoding, encoder"]),
    ("output.bucket", 3, ["output.bucket: found 3", "buckets, partition_by"]),
    # wrong types: nothing is converted in silence
    ("output.buckets", "8", ["output.buckets: found '8'", "valid integer"]),
    ("output.buckets", True, ["output.buckets: found True", "valid integer"]),
    ("output.buckets", 2.0, ["output.buckets: found 2.0", "valid integer"]),
    ("output.buckets", None, ["output.buckets: found None", "valid integer"]),
    ("output.buckets", [2], ["output.buckets: found [2]", "valid integer"]),
    ("output.partition_by", "language", ["output.partition_by: found 'language'", "valid array"]),
    ("sources.web.include", "*.warc", ["sources.web.include: found '*.warc'", "valid array"]),
    ("sources.web.include", ["a", 1], ["sources.web.include.1: found 1", "valid string"]),
    ("sources.code.repository", ["a"], ["sources.code.repository: found ['a']", "valid string"]),
    ("sources.code.repository", ..., ["sources.code.repository", "required"]),
    ("sources.web.include", ..., ["sources.web.include", "required"]),
    ("sources.web.transforms.1.language.languages", "en", ["language.languages: found 'en'", "valid array"]),
    ("sources.web.transforms.1.language", 0, ["transforms[1].language: found 0", "a mapping with languages"]),
    ("sources.web.transforms.1.language", [], ["transforms[1].language: found []", "a mapping with languages"]),
    ("name", 7, ["name: found 7", "valid string"]),
    ("tokenizer", None, ["tokenizer: found None", "a mapping with encoding, encoder"]),
    ("output", [], ["output: found []", "a mapping with buckets, partition_by"]),
    ("deduplicate", True, ["deduplicate: found True", "a mapping with exact"]),
    ("deduplicate", {}, ["deduplicate", "asks for nothing", "exact, url, near or passages"]),
    # sources
    ("sources", ..., ["sources: found None", "is required"]),
    ("sources", {}, ["sources: found {}", "at least one source"]),
    ("sources", ["web"], ["sources: found ['web']", "a mapping"]),
    ("sources.web", "files", ["sources.web: found 'files'", "reader, root and include"]),
    ("sources.web.reader", "warc", ["sources.web.reader: found 'warc'", "code, commoncrawl, conversations, table"]),
    ("sources.web.reader", ["code"], ["sources.web.reader: found ['code']", "code, commoncrawl"]),
    ("sources.web.reader", ..., ["sources.web.reader: found None", "code, commoncrawl"]),
    ("sources.web.include", [], ["sources.web:", "include is empty"]),
    ("sources.web.max_record_bytes", 0, ["sources.web:", "max_record_bytes is 0", "1 to 1073741824"]),
    ("sources.code.split_bytes", -1, ["sources.code:", "split_bytes is -1", "from 1 on"]),
    # names, which are part of paths
    ("name", "a/b", ["name 'a/b'", "lower-case letters"]),
    ("name", "..", ["name '..'", "lower-case letters"]),
    ("name", "good\n", ["name 'good\\n'", "lower-case letters"]),
    ("sources.web/x", {}, ["sources", "name 'web/x'", "lower-case letters"]),
    ("sources.Web", {}, ["sources", "name 'Web'", "lower-case letters"]),
    # roots
    ("sources.web.root", "none", ["sources.web.root: found 'none'", "a folder", "relative to the recipe file"]),
    ("sources.web.root", "/none/at/all", ["sources.web.root: found '/none/at/all'", "a folder"]),
    ("sources.web.root", "a_file", ["sources.web.root: found 'a_file'", "a folder"]),
    ("sources.web.root", "a_file/below", ["sources.web.root: found 'a_file/below'", "a folder"]),
    ("sources.web.root", "x" * 300, ["sources.web.root: found 'xxx", "a folder"]),
    ("sources.web.root", "a\0b", ["sources.web.root: found 'a\\x00b'", "a folder"]),
    ("sources.web.root", "", ["sources.web.root: found ''", "a folder"]),
    ("sources.web.root", 5, ["sources.web.root: found 5", "a folder"]),
    ("sources.web.root", ..., ["sources.web.root: found None", "a folder", "sysconfig:NAME"]),
    ("sources.web.root", "sysconfig:nowhere", ["sources.web.root", "'sysconfig:nowhere'", "stdlib"]),
    # transforms
    ("sources.web.transforms", "extract", ["sources.web.transforms: found 'extract'", "a list of transforms"]),
    ("sources.web.transforms.1", "lang", ["transforms[1]: found 'lang'", "gopher_repetition, language"]),
    ("sources.web.transforms.1", ["language"], ["transforms[1]: found ['language']", "extract, fineweb_quality"]),
    ("sources.web.transforms.1", {"extract": None, "language": None}, ["transforms[1]", "alone or with its settings"]),
    ("sources.web.transforms.1", None, ["transforms[1]: found None", "extract, fineweb_quality"]),
    ("sources.web.transforms", ["language"], ["sources.web.transforms: found ['language']", "needs `extract` before"]),
    ("sources.web.transforms", ["language", "extract"], ["sources.web.transforms", "needs `extract` before"]),
    ("sources.web.transforms", ..., ["sources.web.transforms: found None", "needs `extract` before"]),
    ("sources.web.transforms", ["extract", "language", "language"], ["sources.web.transforms", "language_score"]),
    ("sources.code.transforms", ["extract"], ["sources.code.transforms", "media_type", "no earlier step adds it"]),
    # thresholds and choices
    ("sources.web.transforms.1.language", {"minimum_score": 10_001}, ["transforms[1].language", "10001", "0 to 10000"]),
    ("sources.web.transforms.1.language", {"languages": ["xx"]}, ["transforms[1].language", "'xx'", " en "]),
    ("sources.web.transforms.1", {"gopher_quality": {"min_words": -1}}, ["gopher_quality", "min_words: -1"]),
    ("sources.web.transforms.1", {"gopher_quality": {"max_hashes": 0.1}}, ["max_hashes: found 0.1", "valid integer"]),
    ("sources.web.transforms.0", {"extract": {"engine": "lynx"}}, ["extract.engine: found 'lynx'", "resiliparse"]),
    ("sources.web.transforms.0", {"extract": {"max_depth": 0}}, ["extract", "max_depth: 0", "from 1 up"]),
    ("output.buckets", 0, ["output: buckets: found 0", "1 to 65536"]),
    ("output.buckets", 1 << 20, ["output: buckets: found 1048576", "1 to 65536"]),
    ("output.partition_by", ["colour"], ["partition_by: found 'colour'", "language, licence"]),
    ("output.partition_by", ["licence", "licence"], ["partition_by: found licence, licence", "once"]),
    ("deduplicate.exact", "none", ["deduplicate.exact: found 'none'", "'all', 'source', 'language' or 'dump'"]),
    ("tokenizer.encoding", "gpt2", ["tokenizer: encoding 'gpt2'", "cl100k_base, o200k_base"]),
    ("tokenizer.encoder", "fast", ["tokenizer.encoder: found 'fast'", "'gigatoken' or 'tiktoken'"]),
    ("engine", "flink", ["engine: found 'flink'", "allowed are datatrove, slurm, spark, beam"]),
    ("engine", ["datatrove"], ["engine: found ['datatrove']", "allowed are datatrove"]),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "said"), WRONG, ids=[f"{key}={str(value)[:40]}" for key, value, _ in WRONG])
def test_a_wrong_value(key, value, said, write):
    message = refusal(write(changed(key, value)))
    for words in said:
        assert words in message


def test_a_source_named_like_the_folder_above(write):
    assert "sources: name '..'" in refusal(write({**GOOD, "sources": {"..": {}}}))


BROKEN = [
    ("a list", "- sources", "found list, a recipe is a mapping"),
    ("nothing", "", "found NoneType"),
    ("a word", "recipe", "found str"),
    ("broken", "sources: [", "is not valid YAML"),
    ("a tab", "sources:\n\tweb: 1", "is not valid YAML"),
    ("two documents", "a: 1\n---\nb: 2", "is not valid YAML"),
    ("a key twice", "name: a\nname: b\nsources: {}", "key 'name' stands twice"),
    ("a key twice below", "sources: {web: {root: a, root: b}}", "key 'root' stands twice"),
    ("a key that is no text", "sources: {no: {root: a}}", "found key False, a key is text"),
    ("a key that is a list", "sources: {[a]: {root: a}}", "found key ['a'], a key is text"),
    ("a python object", "name: !!python/object:os.system {}\nsources: {}", "could not determine a constructor"),
    ("a python call", "name: !!python/object/apply:os.system ['touch owned']", "could not determine a constructor"),
    ("a python name", "name: !!python/name:os.system", "could not determine a constructor"),
    ("an alias", "sources: &s {web: {root: a}}\noutput: *s", "found alias *s, write the values out"),
    ("a merge", "<<: {name: a}\nsources: {}", "is not valid YAML"),
    ("no date", "name: 2024-13-45\nsources: {}", "is not valid YAML"),
    ("a number too long", f"name: {'9' * 5000}\nsources: {{}}", "is not valid YAML"),
    ("deep nesting", "a: " + "[" * 20_000, "nested too deeply"),
    ("too long", "#" * (MAX_BYTES + 1), f"longer than {MAX_BYTES} bytes"),
]


@pytest.mark.parametrize(("text", "said"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_file(text, said, write):
    assert said in refusal(write(text))


def test_a_billion_laughs_is_refused_at_once(write):
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    started = time.process_time()
    assert "found alias *a0" in refusal(write("\n".join(lines)))
    assert time.process_time() - started < 5


def test_many_keys_cost_no_quadratic_time(write):
    keys = "\n".join(f"k{number}: 1" for number in range(20_000))
    started = time.process_time()
    assert "k0: found 1: unknown key" in refusal(write(keys))
    assert time.process_time() - started < 20


def test_a_file_that_is_no_utf8(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: caf\xe9")
    assert "is not valid YAML" in refusal(path)


@pytest.mark.parametrize("value", ["2024-01-01", "2024-01-01 10:00:00", "!!binary aGk=", "!!set {a, b}"])
def test_what_json_lacks_is_not_turned_into_text(value, write):
    text = yaml.safe_dump(GOOD).replace("repository: here", f"repository: {value}")
    message = refusal(write(text))
    assert "sources.code" in message
    assert "quote a date" in message


def test_a_lone_surrogate_is_refused(write):
    text = yaml.safe_dump(GOOD).replace("repository: here", 'repository: "\\uD800"')
    assert "sources.code" in refusal(write(text))


def test_a_missing_recipe_and_a_folder(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.yaml")
    assert "directory" in refusal(tmp_path)


def test_columns_of_two_sources_that_clash(write, monkeypatch):
    monkeypatch.setattr(Code, "adds", pa.schema([pa.field("damage", pa.int64())]))
    message = refusal(write(GOOD))
    assert "sources.code: column damage is int64 here and string in another source" in message


def test_a_long_value_is_cut_in_the_message(write):
    assert len(refusal(write(changed("output.buckets", "x" * 100_000)))) < 1000


def test_paths_are_relative_to_the_recipe_file(write, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "files").mkdir(parents=True)
    path = write(GOOD)
    monkeypatch.chdir(elsewhere)
    assert load_recipe(path).sources[0].root == Root(str((tmp_path / "files").resolve()))
    monkeypatch.chdir(tmp_path)
    relative = load_recipe(Path("given.yaml"))
    assert relative.sources[0].root == Root(str((tmp_path / "files").resolve()))


def test_the_root_may_be_a_link_or_absolute(write, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "files")
    for root in ("link", "./files/", str(tmp_path / "files"), "../" + tmp_path.name + "/files"):
        assert load_recipe(write(changed("sources.web.root", root))).sources[0].root == Root(
            str((tmp_path / "files").resolve())
        )


def test_the_name_is_that_of_the_file_if_none_is_given(write):
    assert load_recipe(write(changed("name", ...))).name == "given"


def test_a_limit_is_that_of_every_source(write):
    recipe = load_recipe(write(changed("sources.web.limit", 7)), limit=3)
    assert [entry.source.limit for entry in recipe.sources] == [3, 3]
    assert [entry.source.limit for entry in load_recipe(write(changed("sources.web.limit", 7))).sources] == [7, None]


# The resolved recipe


def round_trip(recipe: Recipe) -> None:
    plan = build_plan(recipe, LocalStorage(Path("unused")))
    resolved = json.loads(plan.resolved_json())
    roots = {entry.source.name: entry.root for entry in recipe.sources}
    files = [given for entry in recipe.sources for step in entry.transforms for given in given_files(step)]
    again = recipe_of_resolved(recipe.path, resolved, roots, {given.sha256: given.path for given in files})
    assert again == recipe
    assert build_plan(again, LocalStorage(Path("unused"))).resolved_json() == plan.resolved_json()


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")
@pytest.mark.parametrize("name", ["crawl", "fineweb", "starcoder"])
@pytest.mark.parametrize("limit", [None, 5])
def test_our_recipes_round_trip(limit, name):
    round_trip(load_recipe(REPOSITORY / f"recipes/{name}.yaml", limit=limit))


def test_a_given_file_counts_by_its_content(tmp_path):
    """Equal lists at two places are one recipe; a changed list is another. No path is in the resolved recipe."""

    def plan_of(folder: str, words: str):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "words.txt").write_text(words)
        (tmp_path / folder / "recipe.yaml").write_text(
            "name: given\nsources:\n  web:\n    reader: table\n    schema: c4\n    root: .\n    include: ['*.jsonl']\n"
            "    transforms:\n      - c4_quality: {bad_words: words.txt}\n"
        )
        recipe = load_recipe(tmp_path / folder / "recipe.yaml")
        round_trip(recipe)
        return build_plan(recipe, LocalStorage(Path("unused")))

    one, same, other = plan_of("one", "bad\n"), plan_of("same", "bad\n"), plan_of("other", "worse\n")
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert str(tmp_path) not in one.resolved_json().decode()
    [given] = given_files(one.recipe.sources[0].transforms[0])
    assert given.read() == b"bad\n"
    gone = recipe_of_resolved(one.recipe.path, json.loads(one.resolved_json()), {"web": one.recipe.sources[0].root}, {})
    with pytest.raises(RecipeError, match=f"the file with sha256 {given.sha256}: No such file"):
        gone.sources[0].transforms[0].bad_words.read()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        *(("nowhere.txt", "No such file"), (7, "the path of a file"), (".", "directory"), ("a\0b", "Invalid argument")),
        *(("/dev/zero", "no regular file"), ("x" * 5000, "File name too long")),
        ({"path": "/etc/hostname", "sha256": "0" * 64}, "the path of a file"),
    ],
)
def test_a_given_file_that_is_none(value, said, write):
    with pytest.raises(RecipeError, match="sources.web.transforms.1..c4_quality.bad_words: found.*" + said):
        load_recipe(write(changed("sources.web.transforms", ["extract", {"c4_quality": {"bad_words": value}}])))


def test_a_pipe_is_no_given_file(tmp_path):
    """It would be waited for without end."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        GivenFile.of(tmp_path / "pipe")
    with pytest.raises(RecipeError, match="no regular file"):
        GivenFile(str(tmp_path / "pipe"), "0" * 64).read()


def test_a_given_file_that_changes_while_a_run_goes_on(tmp_path):
    (tmp_path / "words").write_text("a")
    given = GivenFile.of(tmp_path / "words")
    (tmp_path / "words").write_text("b")
    with pytest.raises(RecipeError, match="was changed since the recipe was loaded"):
        given.read()


VARIED: dict[str, object] = {
    "name": "other",
    "engine": "trafilatura",
    "languages": ("de", "en"),
    "min_mean_word_length": 2,
    "licence": "MIT",
    "min_words": 49,
    "minimum_scores": {"de": 6499},
    "mode": "precision",
    "comments": True,
    "media_types": ("text/plain",),
    "kinds": ("email",),
    "max_hits": 99,
    "max_lorem_ipsum_lines": 1,
    "max_curly_bracket_lines": 1,
    "min_long_lines": 3,
}
"""Values of fields whose default cannot simply be lowered by one, or turned into another text."""


def varied(cls: type, **given: object) -> object:
    """Make an instance of a source or transform in which no field has its default."""
    fields = dataclasses.fields(cls)
    for field in fields:
        if field.name not in given:
            given[field.name] = VARIED.get(field.name, lowered(field.default))
    made = cls(**given)
    assert all(getattr(made, field.name) != field.default for field in fields)
    return made


def lowered(default: object) -> object:
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default - 1
    return "x" if default in (None, "") else ("x",)


def test_every_field_round_trips(write, tmp_path):
    recipe = load_recipe(write(GOOD))
    root, limit = recipe.sources[0].root, 9
    classes = (Extract, Language, GopherQuality, GopherRepetition, FineWebQuality, RefinedWebLines, Pii)
    (tmp_path / "words").write_text("bad\n")
    given = GivenFile.of(tmp_path / "words")
    contamination = varied(Contamination, index=given, action="cut")
    steps = (*(varied(cls) for cls in classes), varied(C4Quality, bad_words=given), contamination)
    sources = [
        (varied(CommonCrawl, limit=limit), steps),
        (varied(Code, name="code", repository="r", limit=limit), ()),
        (varied(Table, name="table", schema="c4", limit=limit), ()),
        (varied(Conversations, name="talks", schema="sharegpt", limit=limit), ()),
    ]
    stages = {
        "find-duplicate-urls": "3-find-duplicate-urls",
        "find-duplicates": "4-find-duplicates",
        "tokenize": "7-tokenize",
    }
    rows = {f"{stage}/{table}": 5 for stage in stages for table in ("hashes", "band_keys", "shingle_sets")}
    round_trip(
        dataclasses.replace(
            recipe,
            sources=tuple(SourceRecipe(source, root, transforms) for source, transforms in sources),
            deduplicate=Deduplicate(
                exact="source",
                url="all",
                near=Near(shape=Shape(3, 4, "character", 7, 9), threshold=7_000, scope="language"),
                passages=Passages(lines=6, paragraphs=1, min_characters=40, scope="source"),
                prefer=("newest", "length"),
                older=(OlderRun("the run with sha256 1a", "1a", 2, stages, rows),),
                for_later_runs=True,
            ),
            tokenizer=Tokenizer("o200k_base", "tiktoken"),
            output=Output(3, ("licence", "language")),
        )
    )


@pytest.mark.parametrize("damage", ["reader", "transforms", "sources", "output", "deduplicate", "unknown transform"])
def test_a_resolved_recipe_that_was_changed(damage, write):
    recipe = load_recipe(write(GOOD))
    resolved = json.loads(build_plan(recipe, LocalStorage(Path("unused"))).resolved_json())
    roots = {entry.source.name: entry.root for entry in recipe.sources}
    if damage == "reader":
        resolved["sources"]["web"]["reader"] = "gone"
    elif damage == "transforms":
        del resolved["sources"]["web"]["transforms"]
    elif damage == "unknown transform":
        resolved["sources"]["web"]["transforms"][0]["transform"] = "gone"
    elif damage == "sources":
        resolved["sources"] = []
    else:
        del resolved[damage]
    with pytest.raises(RecipeError, match="hint|one of"):
        recipe_of_resolved(recipe.path, resolved, roots, {})
