"""The recipe: a YAML file that names sources, their transforms, deduplication, tokenizer and output.

It is loaded safely and turned into the frozen dataclasses of the sources and transforms themselves, whose fields are
everything that can be set; there is no second tree of configuration classes. Everything wrong with a recipe is found
here, before any work, and the message names the key, the value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Never

import pydantic
import yaml

from pipelines.errors import RecipeError
from pipelines.sources.registry import SOURCES
from pipelines.sources.source import Source
from pipelines.transform import Transform
from pipelines.transforms.registry import TRANSFORMS
from tokenizer.encodings import ENCODINGS

ENGINES = ("datatrove",)
TOP_LEVEL = ("name", "sources", "deduplicate", "tokenizer", "output", "engine")
PARTITION_COLUMNS = ("language", "licence")
NAME = r"[a-z0-9][a-z0-9_-]{0,63}"
MAX_RECIPE_BYTES = 256 << 10
"""A recipe of a thousand sources is about as long; it bounds what the YAML parser can be made to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Deduplicate:
    """Which texts count as copies of each other: exact ones, among all sources or within each."""

    exact: Literal["all", "source"]


@dataclasses.dataclass(frozen=True, slots=True)
class Tokenizer:
    """The encoding, and the library that encodes (both give the same ids)."""

    encoding: str = "cl100k_base"
    encoder: Literal["gigatoken", "tiktoken"] = "gigatoken"

    def __post_init__(self) -> None:
        """Refuse an encoding that there is none of."""
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding {self.encoding!r}: allowed are {', '.join(ENCODINGS)}")


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """How the output is cut: buckets of the canonical order (one shard each), and columns to partition sources by."""

    buckets: int = 8
    partition_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be laid out."""
        if not 1 <= self.buckets <= 65536:
            raise ValueError(f"buckets: found {self.buckets}, allowed are 1 to 65536")
        for column in self.partition_by:
            if column not in PARTITION_COLUMNS:
                raise ValueError(f"partition_by: found {column!r}, allowed are {', '.join(PARTITION_COLUMNS)}")
        if len(set(self.partition_by)) < len(self.partition_by):
            raise ValueError(f"partition_by: found {', '.join(self.partition_by)}, each column is allowed once")


@dataclasses.dataclass(frozen=True, slots=True)
class SourceRecipe:
    """One source of a recipe: its reader, where its files are, and its transforms in order."""

    source: Source
    root: Path
    transforms: tuple[Transform, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe, checked."""

    name: str
    path: Path
    sources: tuple[SourceRecipe, ...]
    deduplicate: Deduplicate | None
    tokenizer: Tokenizer
    output: Output
    engine: str


def load_recipe(path: Path, *, limit: int | None = None) -> Recipe:
    """Load and check the recipe at `path`; `limit` caps the records read from each split (a trial run).

    Raises `RecipeError`.
    """
    return _Loader(path).recipe(limit)


def recipe_of_resolved(path: Path, resolved: dict[str, Any], roots: Mapping[str, Path]) -> Recipe:
    """Return the recipe that a resolved recipe (recipe.json of an output) was made from.

    `roots` says where the sources lie now. Raises `RecipeError` when this version knows its parts no more.
    """
    try:
        return _Loader(path).resolved(resolved, roots)
    except (KeyError, TypeError, AttributeError) as error:
        raise RecipeError(
            f"{path}: is no resolved recipe of this version ({type(error).__name__}: {error})\n"
            "hint: use the version that made it; run the recipe anew if the file was changed"
        ) from error


class _Loader:
    """Turns one file into a `Recipe`; every error it raises begins with the file and the key."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def recipe(self, limit: int | None) -> Recipe:
        data = self._yaml()
        self._keys(data, "", TOP_LEVEL, required=("sources",))
        engine = data.get("engine", ENGINES[0])
        if engine not in ENGINES:
            raise self._error("engine", engine, f"allowed are {', '.join(ENGINES)}")
        sources = data["sources"]
        if not isinstance(sources, dict) or not sources:
            raise self._error("sources", sources, "a mapping of at least one source name to its settings")
        dedup = data.get("deduplicate")
        return Recipe(
            name=self._build(_Name, {"name": data.get("name", self._path.stem)}, "").name,
            path=self._path,
            sources=tuple(self._source(name, settings, limit) for name, settings in sources.items()),
            deduplicate=None if dedup is None else self._build(Deduplicate, dedup, "deduplicate"),
            tokenizer=self._build(Tokenizer, data.get("tokenizer", {}), "tokenizer"),
            output=self._build(Output, data.get("output", {}), "output"),
            engine=engine,
        )

    def resolved(self, data: dict[str, Any], roots: Mapping[str, Path]) -> Recipe:
        sources = []
        for name, fields in data["sources"].items():
            steps = [{step["transform"]: _without(step, "transform", "version")} for step in fields["transforms"]]
            source = self._build(SOURCES[fields["reader"]], _without(fields, "reader", "version", "transforms"), name)
            sources.append(SourceRecipe(source, roots[name], self._transforms(steps, f"sources.{name}")))
        dedup = data["deduplicate"]
        return Recipe(
            name=data["name"],
            path=self._path,
            sources=tuple(sources),
            deduplicate=None if dedup is None else self._build(Deduplicate, dedup, "deduplicate"),
            tokenizer=self._build(Tokenizer, _without(data["tokenizer"], "sha256"), "tokenizer"),
            output=self._build(Output, data["output"], "output"),
            engine=ENGINES[0],
        )

    def _yaml(self) -> dict[str, Any]:
        try:
            with self._path.open("rb") as file:
                content = file.read(MAX_RECIPE_BYTES + 1)
        except OSError as error:
            raise RecipeError(f"{self._path}: {error.strerror}\nhint: give the path of a recipe file") from error
        if len(content) > MAX_RECIPE_BYTES:
            raise RecipeError(
                f"{self._path}: longer than {MAX_RECIPE_BYTES} bytes\nhint: give the path of a recipe file"
            )
        try:
            data = yaml.load(content.decode("utf-8"), _PlainYaml)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: what is no UTF-8, no date or too long a number
            raise RecipeError(f"{self._path}: is not valid YAML: {error}") from error
        except RecursionError as error:
            raise RecipeError(f"{self._path}: is not valid YAML: nested too deeply") from error
        if not isinstance(data, dict):
            raise RecipeError(f"{self._path}: found {type(data).__name__}, a recipe is a mapping with `sources`")
        return data

    def _source(self, name: object, settings: object, limit: int | None) -> SourceRecipe:
        where = f"sources.{name}"
        self._build(_Name, {"name": name}, "sources")
        if not isinstance(settings, dict):
            raise self._error(where, settings, "a mapping with reader, root and include")
        reader = settings.get("reader")
        if not isinstance(reader, str) or reader not in SOURCES:
            raise self._error(f"{where}.reader", reader, f"allowed are {', '.join(sorted(SOURCES))}")
        kind: Any = SOURCES[reader]
        settable = tuple(field.name for field in dataclasses.fields(kind) if field.name != "name")
        self._keys(settings, where, ("reader", "root", *settable, "transforms"))
        fields = {key: value for key, value in settings.items() if key not in ("reader", "root", "transforms")}
        if limit is not None:
            fields["limit"] = limit
        source = self._build(kind, {**fields, "name": name}, where)
        transforms = self._transforms(settings.get("transforms", []), where)
        if "media_type" in source.adds.names and [transform.name for transform in transforms][:1] != ["extract"]:
            raise self._error(
                f"{where}.transforms", settings.get("transforms"), f"reader {reader} needs `extract` first"
            )
        return SourceRecipe(source, self._root(settings.get("root"), where), transforms)

    def _root(self, root: object, where: str) -> Path:
        if not isinstance(root, str) or not root:
            raise self._error(f"{where}.root", root, "a folder, relative to the recipe file, or sysconfig:NAME")
        scheme, _, name = root.partition(":")
        if scheme == "sysconfig":
            if name not in sysconfig.get_path_names():
                raise self._error(f"{where}.root", root, f"allowed are {', '.join(sysconfig.get_path_names())}")
            path = Path(sysconfig.get_path(name))
        else:
            path = self._path.parent / root
        if not _is_folder(path):
            raise self._error(
                f"{where}.root", root, f"a folder; {path} is none (paths are relative to the recipe file)"
            )
        return path.resolve()

    def _transforms(self, entries: object, where: str) -> tuple[Transform, ...]:
        if not isinstance(entries, list):
            raise self._error(f"{where}.transforms", entries, "a list of transforms")
        return tuple(self._transform(entry, f"{where}.transforms[{place}]") for place, entry in enumerate(entries))

    def _transform(self, entry: object, where: str) -> Transform:
        name: Any = entry if isinstance(entry, str) else None
        fields: Any = {}
        if isinstance(entry, dict) and len(entry) == 1:
            name, fields = next(iter(entry.items()))
        if name not in TRANSFORMS:
            raise self._error(where, entry, f"one of {', '.join(sorted(TRANSFORMS))}, alone or with its settings")
        return self._build(TRANSFORMS[name], {} if fields is None else fields, f"{where}.{name}")

    def _build(self, cls: type, fields: object, where: str) -> Any:
        """Make a frozen dataclass out of plain data: no unknown keys, no silent conversions."""
        self._keys(fields, where, tuple(field.name for field in dataclasses.fields(cls)))

        def refuse(value: object) -> Never:
            raise self._error(where, value, "text, numbers, true, false and lists of them (quote a date)")

        plain = json.dumps(fields, default=refuse)
        try:
            return pydantic.TypeAdapter(cls).validate_json(plain, strict=True)
        except RecipeError as error:  # a source's own check
            raise self._rephrased(where, str(error)) from error
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            message = first["msg"].removeprefix("Value error, ")
            if not first["loc"]:  # the class's own check, which names the field and what it found
                raise self._rephrased(where, message) from error
            raise self._error(".".join([where, *map(str, first["loc"])]).strip("."), first["input"], message) from error

    def _keys(self, data: object, where: str, allowed: tuple[str, ...], required: tuple[str, ...] = ()) -> None:
        if not isinstance(data, dict):
            raise self._error(where, data, f"a mapping with {', '.join(allowed)}")
        for key in data:
            if key not in allowed:
                raise self._error(
                    f"{where}.{key}".strip("."), data[key], f"unknown key; allowed are {', '.join(allowed)}"
                )
        for key in required:
            if key not in data:
                raise self._error(f"{where}.{key}".strip("."), None, "is required")

    def _error(self, key: str, found: object, allowed: str) -> RecipeError:
        return RecipeError(f"{self._path}: {key}: found {found!r:.200}: {allowed}")

    def _rephrased(self, where: str, message: str) -> RecipeError:
        return RecipeError(": ".join(part for part in (str(self._path), where, message) if part))


def _is_folder(path: Path) -> bool:
    """Whether there is a folder of this name that can be looked at."""
    try:
        return path.is_dir()
    except OSError:  # a name too long, or a folder above it that is not ours to enter
        return False


def _without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in names}


@dataclasses.dataclass(frozen=True, slots=True)
class _Name:
    """A name that is part of paths and of every doc_id."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME, self.name):
            raise ValueError(
                f"name {self.name!r}: allowed are lower-case letters and digits, and behind the first - and _"
            )


class _PlainYaml(yaml.SafeLoader):
    """YAML's safe loader without what a recipe has no use for, or would be misled by.

    Refused are aliases (a few lines can unfold to gigabytes), keys that are no text (`no` is YAML's word for false),
    and a key that stands twice (the second would win in silence).
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"found alias *{event.anchor}, write the values out", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"found key {key!r}, a key is text (put it in quotes)", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
