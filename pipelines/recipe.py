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
from typing import Any, Literal

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
PARTITION_COLUMNS = ("language", "licence", "host")
NAME = r"[a-z0-9][a-z0-9_-]*"


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
    return _Loader(path).resolved(resolved, roots)


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
            data = yaml.load(self._path.read_text("utf-8"), _UniqueKeys)
        except OSError as error:
            raise RecipeError(f"{self._path}: {error.strerror}\nhint: give the path of a recipe file") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecipeError(f"{self._path}: is not valid YAML: {error}") from error
        if not isinstance(data, dict):
            raise RecipeError(f"{self._path}: found {type(data).__name__}, a recipe is a mapping with `sources`")
        return data

    def _source(self, name: object, settings: object, limit: int | None) -> SourceRecipe:
        where = f"sources.{name}"
        self._build(_Name, {"name": name}, "sources")
        if not isinstance(settings, dict):
            raise self._error(where, settings, "a mapping with reader, root and include")
        reader = settings.get("reader")
        if reader not in SOURCES:
            raise self._error(f"{where}.reader", reader, f"allowed are {', '.join(sorted(SOURCES))}")
        fields = {key: value for key, value in settings.items() if key not in ("reader", "root", "transforms")}
        if limit is not None:
            fields["limit"] = limit
        source = self._build(SOURCES[reader], {**fields, "name": name}, where, also=("reader", "root", "transforms"))
        transforms = self._transforms(settings.get("transforms", []), where)
        if "media_type" in source.adds.names and not any(transform.name == "extract" for transform in transforms):
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
        if not path.is_dir():
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
        return self._build(TRANSFORMS[name], fields or {}, f"{where}.{name}")

    def _build(self, cls: type, fields: object, where: str, also: tuple[str, ...] = ()) -> Any:
        """Make a frozen dataclass out of plain data: no unknown keys, no silent conversions."""
        self._keys(fields, where, (*(field.name for field in dataclasses.fields(cls)), *also))
        try:
            return pydantic.TypeAdapter(cls).validate_json(json.dumps(fields, default=str), strict=True)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            key = ".".join([where, *map(str, first["loc"])]).strip(".")
            found = first["input"] if first["loc"] else fields
            raise self._error(key, found, first["msg"].removeprefix("Value error, ")) from error

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
        return RecipeError(f"{self._path}: {key}: found {found!r}: {allowed}")


def _without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in names}


@dataclasses.dataclass(frozen=True, slots=True)
class _Name:
    """A name that is part of paths and of every doc_id."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME, self.name):
            raise ValueError("a name has lower-case letters, digits, - and _ only")


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, which in addition refuses a key that stands twice (the second would win in silence)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)
