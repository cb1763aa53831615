"""The documents say what is so: names exist, links resolve, commands run, code does what it shows."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from plans import made_plan, write_mixture, write_planned
from runs import run_recipe
from trees import tree_hashes

from headrace import COMMANDS, main
from mixtures.plan import ManifestReference, Packed, Parent, Phase, PhaseSource, PlannedSource, Windows
from pipelines.explain import Line, explain_document
from pipelines.ledger import BALANCED, CREDIT, KEY, LEDGER
from pipelines.plan import build_plan
from pipelines.recipe import load_recipe
from pipelines.run import run_plan
from pipelines.schema import CORE, VERDICT
from pipelines.sources.registry import SOURCES
from pipelines.storage.local import LocalStorage
from pipelines.transforms.registry import TRANSFORMS
from pipelines.verify import verify_output
from tokenizer.encodings import CL100K_BASE, O200K_BASE
from tokenizer.manifest import LedgerReference, Manifest
from tokenizer.shards import DOCS
from trainer_bridge.batch import Batch

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY / "../shared/data"
README, ARCHITECTURE, FORMATS = (REPOSITORY / name for name in ("README.md", "docs/architecture.md", "docs/formats.md"))
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
EVERY_DOCUMENT = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
NOT_OURS = ("build", "dist", "__pycache__", "shared")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fences(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [block for found, block in FENCE.findall(text) if found == language]


def spans(text: str) -> list[str]:
    """Return the inline code of a document."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def between(text: str, mark: str) -> str:
    """Return what stands between two marks."""
    return text.split(f"<!-- {mark} -->")[1].split(f"<!-- /{mark} -->")[0]


def section(text: str, heading: str) -> str:
    """Return a section of second level, up to the next."""
    return re.split(r"^## ", text.partition(f"## {heading}")[2], maxsplit=1, flags=re.MULTILINE)[0]


def cells(text: str, column: int) -> list[str]:
    """Return a column of the first table of a text, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)\|", line)[column + 1].strip() for line in lines[2:]]


def words(text: list[str]) -> list[str]:
    """Return the comma-separated words of some cells."""
    return [word.strip() for cell in text for word in cell.split(",")]


# Names and links


def tree() -> list[str]:
    """Return the paths that the README's tree names."""
    named, folder = [], ""
    for line in filter(None, fences(between(README.read_text(), "tree"), "")[0].splitlines()):
        indent, names = re.fullmatch(r"( *)(\S+(?: \S+)*?)(?: {2,}.*)?", line).groups()
        named += [folder + name if indent else name for name in names.split()]
        folder = folder if indent else names
    return named


def test_the_tree_names_what_is_there():
    for name in tree():
        path = REPOSITORY / name
        assert path.is_dir() if name.endswith("/") else path.is_file(), f"{name} in README's tree does not exist"


def test_the_tree_leaves_nothing_out():
    named = tree()
    folders = [path for pattern in ("*", "pipelines/*") for path in REPOSITORY.glob(pattern) if path.is_dir()]
    for path in folders:
        if not path.name.startswith(".") and path.name not in NOT_OURS and path.suffix != ".egg-info":
            assert f"{path.relative_to(REPOSITORY)}/" in named
    for path in [*REPOSITORY.glob("*.py"), *REPOSITORY.glob("pipelines/*.py")]:
        assert path.name == "__init__.py" or path.relative_to(REPOSITORY).as_posix() in named


@EVERY_DOCUMENT
def test_links_resolve(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", path.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in anchors(file.read_text()), f"{path.name}: {target}"


def anchors(text: str) -> list[str]:
    """Return the anchors of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@EVERY_DOCUMENT
def test_files_named_in_the_text_exist(path):
    every = [found.relative_to(REPOSITORY).as_posix() for found in REPOSITORY.glob("[!.]*/**/*.*")]
    every += [found.name for found in REPOSITORY.iterdir()]
    for span in spans(path.read_text()):
        if re.fullmatch(r"[\w./-]+\.(py|md|yaml|toml)", span) and not span.startswith(("OUT", "/")):
            assert any(f"/{name}".endswith(f"/{span}") for name in every), f"{path.name}: `{span}` does not exist"


def test_every_module_says_what_it_is():
    for folder in ("pipelines", "tokenizer", "benchmarks", "demo"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text())), path
    assert ast.get_docstring(ast.parse((REPOSITORY / "headrace.py").read_text()))


# Commands


def commands(path: Path) -> Iterator[str]:
    """Yield what a document gives to type: lines of shell blocks, and inline code."""
    text = path.read_text()
    for block in fences(text, "bash"):
        yield from (line.partition(" #")[0].strip() for line in block.splitlines())
    yield from spans(text)


def help_of(command: str) -> str:
    """Return the help of a command of `headrace`."""
    result = CliRunner().invoke(main, [*([command] if command else []), "--help"])
    assert result.exit_code == 0, result.output
    return result.output


def unknown_in(line: str) -> str | None:
    """Return what a command line has that does not exist, None if all of it does."""
    found = re.fullmatch(r"(?:\S*/)?headrace(?: (.+))?", line)
    if found and found[1]:
        first, *rest = found[1].replace("[", " ").replace("]", " ").split()
        if first.rstrip(",") not in COMMANDS and not first.startswith("-"):
            return first
        known = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", help_of("" if first.startswith("-") else first.rstrip(",")))
        return next((word for word in [first, *rest] if word.startswith("-") and word.split("=")[0] not in known), None)
    target = re.fullmatch(r"make ([a-z-]+)(?: .*)?", line)
    if target and target[1] not in re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE):
        return target[1]
    script = re.match(r"(?:\S*/)?python (\S+\.py)\b", line)
    return script[1] if script and not (REPOSITORY / script[1]).is_file() else None


@EVERY_DOCUMENT
def test_commands_exist(path):
    wrong = {line: unknown for line in commands(path) if (unknown := unknown_in(line)) is not None}
    assert not wrong


@pytest.mark.parametrize(
    "line, unknown",
    [
        ("headrace run recipes/crawl.yaml --output OUT [--workers N]", None),
        (".venv/bin/headrace run R --outputs OUT", "--outputs"),
        ("headrace blend R", "blend"),
        ("make demo", None),
        ("make cake", "cake"),
        ("python benchmarks/none.py --json FILE", "benchmarks/none.py"),
    ],
)
def test_wrong_commands_are_found(line, unknown):
    assert unknown_in(line) == unknown


def test_make_runs_files_that_exist():
    for script in re.findall(r"python ((?:benchmarks|demo)/\S+\.py)", (REPOSITORY / "Makefile").read_text()):
        assert (REPOSITORY / script).is_file(), script


# Formats


def test_document_columns_are_the_schema():
    assert words(cells(section(FORMATS.read_text(), "Documents (frozen)"), 0)) == CORE.names


def test_verdict_fields_are_the_schema():
    row = next(line for line in FORMATS.read_text().splitlines() if line.startswith("| verdict |"))
    assert re.search(r"\(([^)]*)\)", row)[1].split(", ") == [field.name for field in VERDICT]


def test_ledger_columns_are_the_schema():
    text = section(FORMATS.read_text(), "Ledger (frozen)")
    assert words(cells(text, 0)) == LEDGER.names
    assert len(KEY) == 9, "the text says: ordered by its first nine columns"
    assert "ordered by its first nine columns" in text


def test_columns_of_shards_are_the_schema():
    listed = re.search(r"one row a document in the same order: ([^.]+)\.", section(FORMATS.read_text(), "Token shards"))
    assert " ".join(listed[1].split()).split(", ") == DOCS.names


def test_special_ids_are_those_of_the_encodings():
    text = section(FORMATS.read_text(), "Token shards (frozen)")
    for column, encoding in ((1, CL100K_BASE), (2, O200K_BASE)):
        roles = [encoding.roles.system, encoding.roles.user, encoding.roles.assistant, encoding.roles.tool]
        assert roles == list(range(roles[0], roles[-1] + 1))
        expected = [encoding.vocabulary, encoding.end_of_text, encoding.roles.end_of_turn]
        shown = [f"{number:,}" for number in expected] + [f"{roles[0]:,} to {roles[-1]:,}"]
        assert cells(text, column) == shown


def test_keys_of_plans_are_those_of_a_file(tmp_path):
    data = json.loads(made_plan(tmp_path).read_text())
    text = section(FORMATS.read_text(), "Plans (frozen)")
    assert set(words(cells(text, 0))) == set(data)
    for kind in (PlannedSource, ManifestReference, Phase, PhaseSource, Packed, Windows, Parent):
        for field in dataclasses.fields(kind):
            assert re.search(rf"\b{field.name}\b", text), f"{kind.__name__}.{field.name}"


def test_arrays_of_the_stream_are_those_of_a_batch():
    names = {field.name for field in dataclasses.fields(Batch)}
    assert set(cells(section(FORMATS.read_text(), "The stream (frozen)"), 0)) <= names


def test_keys_of_manifests_are_those_of_a_file():
    empty = Manifest.build("web", {}, CL100K_BASE, LedgerReference("../ledger.parquet", "0" * 64), "0" * 32, [])
    listed = words(cells(section(FORMATS.read_text(), "Manifests (frozen)"), 0))
    assert sorted(listed) == sorted(json.loads(empty.to_json()))


# Code that is shown


def load_block(text: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a Python block whose first line is its file name."""
    (block,) = [block for block in fences(text, "python") if block.startswith(f"# {name}.py\n")]
    (folder / f"{name}.py").write_text(block)
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


EXTENDED = """
sources:
  notes: {reader: text_files, root: notes, include: ["**/*.txt"], transforms: [{max_bytes: {limit: 30}}]}
  more: {reader: text_files, root: more, include: ["*.txt"]}
deduplicate: {exact: all}
output: {buckets: 3}
"""


def test_a_source_a_transform_and_an_engine_as_shown(tmp_path, monkeypatch):
    """The three examples make one run, the same bytes as the embedded engine, and it verifies."""
    text = ARCHITECTURE.read_text()
    names = ("max_bytes", "text_files", "one_by_one")
    transform, source, engine = (load_block(text, name, tmp_path, monkeypatch) for name in names)
    monkeypatch.setitem(TRANSFORMS, "max_bytes", transform.MaxBytes)
    monkeypatch.setitem(SOURCES, "text_files", source.TextFiles)
    monkeypatch.setattr(source, "MAX_BYTES", 1000)
    (tmp_path / "notes/sub").mkdir(parents=True)
    (tmp_path / "more").mkdir()
    for number in range(20):
        (tmp_path / f"notes/sub/{number}.txt").write_text(f"note {number // 2} " + "long " * (number % 7))
        (tmp_path / f"more/{number}.txt").write_text(f"note {number} ")
    (tmp_path / "notes/latin.txt").write_bytes(b"gr\xfcn")
    (tmp_path / "notes/large.txt").write_text("x" * 1001)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(EXTENDED)
    output = LocalStorage(tmp_path / "out")
    result = run_plan(build_plan(load_recipe(recipe), output), output, engine.OneByOne(), lambda *_: None)
    run_recipe(recipe, tmp_path / "other")
    assert tree_hashes(tmp_path / "out") == tree_hashes(tmp_path / "other")
    stopped = {(row["reason"], row["account"]) for row in result.ledger.to_pylist() if row["reason"]}
    assert {("max_bytes", "dropped"), ("not_utf8", "errored"), ("record_too_large", "dropped")} <= stopped
    assert ("exact_duplicate", "dropped") in stopped
    assert list(verify_output(tmp_path / "out"))


def test_the_transform_that_is_shown(tmp_path, monkeypatch):
    transform = load_block(ARCHITECTURE.read_text(), "max_bytes", tmp_path, monkeypatch).MaxBytes(3)
    texts = pa.array(["", "abc", "abcd", "äö", None], pa.large_string())
    batch = pa.RecordBatch.from_pydict({"text": texts, "verdict": pa.nulls(5, VERDICT)})
    whole = transform(batch).column("verdict")
    assert [row and (row["reason"], row["value"], row["threshold"]) for row in whole.to_pylist()] == [
        None, None, ("max_bytes", "4", "<= 3"), ("max_bytes", "4", "<= 3"), None
    ]  # fmt: skip
    parts = [transform(batch.slice(0, 2)).column("verdict"), transform(batch.slice(2)).column("verdict")]
    assert pa.concat_arrays(parts).equals(whole)
    assert [rules[0].passed for rules in transform.evidence(batch)] == [True, True, False, False, True]


def test_the_code_of_the_readme(tmp_path):
    """The demo's paths are replaced by those of a smaller run."""
    snippet, stream_snippet = fences(README.read_text(), "python")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "sources:\n  code: {reader: code, repository: cpython, root: 'sysconfig:stdlib', include: ['json/*.py']}\n"
    )
    run_recipe(recipe, tmp_path / "out")
    assert "demo/output/" in snippet
    *statements, last = ast.parse(snippet.replace("demo/output", str(tmp_path / "out"))).body
    names: dict = {}
    exec(compile(ast.Module(statements, []), "README.md", "exec"), names)
    docs = eval(compile(ast.Expression(last.value), "README.md", "eval"), names)
    assert names["shard"].ids(0)[-1] == CL100K_BASE.end_of_text
    assert docs.column("origin_path")[0].as_py().startswith("json/")
    manifest = tmp_path / "out/tokens/code/manifest.json"
    phases = [{"length": 128, "global_batch": 32}]
    plan = write_planned(write_mixture(tmp_path, {"code": (manifest, "code")}, phases=phases))
    exec(stream_snippet.replace("demo/plan/plan.json", str(plan)), names)
    assert names["batch"].tokens.shape == (8, 128)


# The walk of one document

WALKER = "38024f8ad782ae38b8fde70d203120d1"


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> Path:
    """Run the recipe of docs/architecture.md and return its output."""
    if not SHARED.exists():
        pytest.skip("the shared data is not here")
    folder = tmp_path_factory.mktemp("walk")
    (recipe,) = fences(ARCHITECTURE.read_text(), "yaml")
    assert recipe.startswith("# walk.yaml\n")
    (folder / "walk.yaml").write_text(recipe.replace("../shared/data", str(SHARED.resolve())))
    run_recipe(folder / "walk.yaml", folder / "out")
    return folder / "out"


def rows_of(output: Path, table: str) -> list[dict]:
    """Return the rows of the document under way in all files of a table."""
    rows = [row for path in sorted(output.glob(table)) for row in pq.read_table(path).to_pylist()]
    return [row for row in rows if row["doc_id"].hex() == WALKER]


def shown_rule(line: Line) -> str:
    """Return a line of an explanation as the document shows it."""
    rule = line.step if line.rule == "-" else line.rule
    return f"{rule:36}{line.value:18} {line.threshold:27} {line.verdict}".rstrip()


def shown_ledger(output: Path) -> Iterator[str]:
    """Yield the balance of every step of the document's three splits."""
    steps: dict[tuple, list[dict]] = {}
    for row in pq.read_table(output / "ledger.parquet").to_pylist():
        if row["table"] in BALANCED and row["split"] in ("web/commoncrawl/whirlwind.warc", "bucket 00000 of 00002"):
            steps.setdefault((row["stage"], row["step"], row["table"]), []).append(row)
    last = ""
    for (stage, step, table), rows in steps.items():
        if stage != last:
            yield f"{stage}, {rows[0]['split']}"
        last = stage
        came, went = [], []
        for row in rows:
            reason = f"[{row['reason']}]" if row["reason"] else ""
            sums = "/".join(str(row[name]) for name in ("rows", "bytes", "tokens") if row[name] or name != "tokens")
            (came if row["account"] in CREDIT else went).append(f"{row['account']}{reason} {sums}")
        came.sort(key=lambda entry: not entry.startswith("in "))
        went.sort(key=lambda entry: not entry.startswith("out "))
        yield f"  {step} {rows[0]['transform']:16}{table:10}{' + '.join(came)} = {' + '.join(went)}"


def test_the_walk_shows_the_ledger(walk):
    assert fences(between(ARCHITECTURE.read_text(), "ledger"), "")[0].splitlines() == list(shown_ledger(walk))


def test_the_walk_shows_every_rule(walk):
    shown = fences(between(ARCHITECTURE.read_text(), "explain"), "")[0].splitlines()
    assert shown == [shown_rule(line) for line in explain_document(walk, WALKER[:8]).rows]


def test_the_walk_shows_the_rows(walk):
    text = ARCHITECTURE.read_text()
    plain, packed = rows_of(walk, "stages/1-read/documents/*")
    for row in (plain, packed):
        assert f"`{row['origin_path']}`, {row['origin_offset']}, {row['origin_length']}" in text
    for name in ("natural_key", "url", "host", "language"):
        assert f"`{plain[name]}`" in text
    for name in ("doc_id", "content_hash", "text_hash"):
        assert f"`{plain[name].hex()}`" in text
    assert f"{plain['date']:%Y-%m-%d %H:%M:%S} UTC, {plain['http_status']}" in text
    assert f"{len(plain['text'].encode())} bytes" in text
    assert f"score of {plain['language_score']} of 10000" in text
    (kept,) = rows_of(walk, "stages/5-tokenize/documents/*")
    (dropped,) = rows_of(walk, "stages/2-identify/rejects/*")
    assert (kept["origin_path"], dropped["origin_path"]) == (plain["origin_path"], packed["origin_path"])
    splits = [path.stem for path in (walk / "stages/1-read/commits").iterdir()]
    assert any(f"`{split}`" in text for split in splits)


def test_the_walk_shows_the_shard(walk):
    text = ARCHITECTURE.read_text()
    folder = walk / "tokens/web/language=an"
    shard = Manifest.load(folder / "manifest.json").open_shard(0)
    ids = [int(one) for one in shard.ids(0)]
    assert f"`{', '.join(map(str, ids[:3]))}`" in text
    assert f"`{', '.join(map(str, ids[-2:]))}`" in text
    (file,) = folder.glob("*.bin")
    assert file.name.startswith(f"{WALKER[:8]}-")
    assert f"4 × {len(ids)} = {file.stat().st_size} bytes" in text
    (row,) = shard.docs().to_pylist()
    assert (row["tokens"], row["loss"]) == (len(ids), None)
