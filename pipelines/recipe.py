"""The recipe: a YAML file that names sources, their transforms, deduplication, tokenizer and output.

It is loaded safely and turned into the frozen dataclasses of the sources and transforms themselves, whose fields are
everything that can be set; there is no second tree of configuration classes. Everything wrong with a recipe is found
here, before any work, and the message names the key, the value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import re
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pipelines.deduplicate import Deduplicate, OlderRun
from pipelines.errors import RecipeError
from pipelines.sources.registry import SOURCES
from pipelines.sources.source import Source
from pipelines.storage.schemes import open_storage, scheme_of
from pipelines.storage.storage import ReadStorage
from pipelines.transform import Transform
from pipelines.transforms.given_files import GivenFile, given_fields
from pipelines.transforms.registry import TRANSFORMS
from tokenizer.encodings import ENCODINGS
from tokenizer.strict_yaml import YamlFile

ENGINES = ("datatrove", "slurm", "spark", "beam")
TOP_LEVEL = ("name", "sources", "deduplicate", "tokenizer", "output", "engine")
PARTITION_COLUMNS = ("language", "licence")
NAME = r"[a-z0-9][a-z0-9_-]{0,63}"


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
class Root:
    """Where a source's files lie: below an address (absolute path or URL); all of them, or those of a list file."""

    address: str
    files: Path | None = None

    def open(self) -> ReadStorage:
        """Return the storage. Raises `HeadraceError` for a list that cannot be read."""
        storage = open_storage(self.address)
        if self.files is None:
            return storage
        from pipelines.storage.listed import ListedStorage

        return ListedStorage.of(storage, self.files)


@dataclasses.dataclass(frozen=True, slots=True)
class SourceRecipe:
    """One source of a recipe: its reader, where its files are, and its transforms in order."""

    source: Source
    root: Root
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


def recipe_of_resolved(
    path: Path, resolved: dict[str, Any], roots: Mapping[str, Root], given: Mapping[str, str]
) -> Recipe:
    """Return the recipe that a resolved recipe (recipe.json of an output) was made from.

    `roots` says where the sources lie now, `given` where the given files do, by their sha256. Raises `RecipeError` when
    this version knows its parts no more.
    """
    try:
        return _Loader(path).resolved(resolved, roots, given)
    except (KeyError, TypeError, AttributeError) as error:
        raise RecipeError(
            f"{path}: is no resolved recipe of this version ({type(error).__name__}: {error})\n"
            "hint: use the version that made it; run the recipe anew if the file was changed"
        ) from error


class _Loader:
    """Turns one file into a `Recipe`; every error it raises begins with the file and the key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = YamlFile(path, "recipe", RecipeError)

    def recipe(self, limit: int | None) -> Recipe:
        data = self._file.load()
        self._file.check_keys(data, "", TOP_LEVEL, required=("sources",))
        engine = data.get("engine", ENGINES[0])
        if engine not in ENGINES:
            raise self._file.fault("engine", engine, f"allowed are {', '.join(ENGINES)}")
        sources = data["sources"]
        if not isinstance(sources, dict) or not sources:
            raise self._file.fault("sources", sources, "a mapping of at least one source name to its settings")
        dedup = data.get("deduplicate")
        return Recipe(
            name=self._file.build(_Name, {"name": data.get("name", self._path.stem)}, "").name,
            path=self._path,
            sources=tuple(self._source(name, settings, limit) for name, settings in sources.items()),
            deduplicate=None if dedup is None else self._deduplicate(dedup, sources),
            tokenizer=self._file.build(Tokenizer, data.get("tokenizer", {}), "tokenizer"),
            output=self._file.build(Output, data.get("output", {}), "output"),
            engine=engine,
        )

    def resolved(self, data: dict[str, Any], roots: Mapping[str, Root], given: Mapping[str, str]) -> Recipe:
        sources = []
        for name, fields in data["sources"].items():
            steps = [
                {step["transform"]: _with_paths(_settable(step), step["transform"], given)}
                for step in fields["transforms"]
            ]
            source = self._file.build(
                SOURCES[fields["reader"]], _without(fields, "reader", "version", "transforms"), name
            )
            sources.append(SourceRecipe(source, roots[name], self._transforms(steps, f"sources.{name}")))
        dedup = data["deduplicate"]
        return Recipe(
            name=data["name"],
            path=self._path,
            sources=tuple(sources),
            deduplicate=None if dedup is None else self._resolved_deduplicate(dedup, given),
            tokenizer=self._file.build(Tokenizer, _without(data["tokenizer"], "sha256"), "tokenizer"),
            output=self._file.build(Output, data["output"], "output"),
            engine=ENGINES[0],
        )

    def _deduplicate(self, fields: object, sources: Mapping[str, object]) -> Deduplicate:
        """Return the settings, with the older runs looked up."""
        where = "deduplicate"
        older = fields.get("older", []) if isinstance(fields, dict) else []
        if not isinstance(older, list) or not all(isinstance(one, str) and one for one in older):
            raise self._file.fault(f"{where}.older", older, "a list of outputs of finished runs (folders or s3://)")
        plain = _without(fields, "older") if isinstance(fields, dict) else fields
        settings: Deduplicate = self._file.build(Deduplicate, plain, where)
        for source in settings.expect_removed:
            if source not in sources:
                raise self._file.fault(f"{where}.expect_removed", source, f"one of {', '.join(sources)}")
        if older and settings.exact is None:
            reason = "needs exact too: a record of an older run that comes again is known by its text"
            raise self._file.fault(f"{where}.older", older, reason)
        runs = []
        for place, address in enumerate(older):
            located = address if scheme_of(address) else str((self._path.parent / address).resolve())
            try:
                runs.append(OlderRun.of(located, settings.resolved()))
            except RecipeError as error:
                raise self._file.rephrased(f"{where}.older[{place}]", str(error)) from error
        return dataclasses.replace(settings, older=tuple(runs))

    def _resolved_deduplicate(self, fields: dict[str, Any], given: Mapping[str, str]) -> Deduplicate:
        older = [
            run | {"address": given.get(run["sha256"], f"the run with sha256 {run['sha256']}")}
            for run in fields["older"]
        ]
        settings: Deduplicate = self._file.build(
            Deduplicate, _without(fields, "generation") | {"older": older}, "deduplicate"
        )
        return settings

    def _source(self, name: object, settings: object, limit: int | None) -> SourceRecipe:
        where = f"sources.{name}"
        self._file.build(_Name, {"name": name}, "sources")
        if not isinstance(settings, dict):
            raise self._file.fault(where, settings, "a mapping with reader, root and include")
        reader = settings.get("reader")
        if not isinstance(reader, str) or reader not in SOURCES:
            raise self._file.fault(f"{where}.reader", reader, f"allowed are {', '.join(sorted(SOURCES))}")
        kind: Any = SOURCES[reader]
        settable = tuple(field.name for field in dataclasses.fields(kind) if field.name != "name")
        self._file.check_keys(settings, where, ("reader", "root", "files", *settable, "transforms"))
        fields = _without(settings, "reader", "root", "files", "transforms")
        if limit is not None:
            fields["limit"] = limit
        source = self._file.build(kind, {**fields, "name": name}, where)
        transforms = self._transforms(settings.get("transforms", []), where)
        reading = [step.name for step in transforms if not getattr(step, "before_extract", False)]
        if "media_type" in source.adds.names and reading[:1] != ["extract"]:
            raise self._file.fault(
                f"{where}.transforms",
                settings.get("transforms"),
                f"reader {reader} needs `extract` before all that reads text",
            )
        root = Root(self._root(settings.get("root"), where), self._list_file(settings.get("files"), where))
        return SourceRecipe(source, root, transforms)

    def _list_file(self, files: object, where: str) -> Path | None:
        if files is None:
            return None
        if not isinstance(files, str) or not (self._path.parent / files).is_file():
            raise self._file.fault(
                f"{where}.files", files, "a list of files below the root, one a line (relative to the recipe file)"
            )
        return (self._path.parent / files).resolve()

    def _root(self, root: object, where: str) -> str:
        if not isinstance(root, str) or not root:
            raise self._file.fault(
                f"{where}.root", root, "a folder, relative to the recipe file, s3://, https:// or sysconfig:NAME"
            )
        if scheme_of(root):
            return root.rstrip("/")
        scheme, _, name = root.partition(":")
        if scheme == "sysconfig":
            if name not in sysconfig.get_path_names():
                raise self._file.fault(f"{where}.root", root, f"allowed are {', '.join(sysconfig.get_path_names())}")
            path = Path(sysconfig.get_path(name))
        else:
            path = self._path.parent / root
        if not _is_folder(path):
            raise self._file.fault(
                f"{where}.root", root, f"a folder; {path} is none (paths are relative to the recipe file)"
            )
        return str(path.resolve())

    def _transforms(self, entries: object, where: str) -> tuple[Transform, ...]:
        if not isinstance(entries, list):
            raise self._file.fault(f"{where}.transforms", entries, "a list of transforms")
        return tuple(self._transform(entry, f"{where}.transforms[{place}]") for place, entry in enumerate(entries))

    def _transform(self, entry: object, where: str) -> Transform:
        name: Any = entry if isinstance(entry, str) else None
        fields: Any = {}
        if isinstance(entry, dict) and len(entry) == 1:
            name, fields = next(iter(entry.items()))
        if name not in TRANSFORMS:
            raise self._file.fault(where, entry, f"one of {', '.join(sorted(TRANSFORMS))}, alone or with its settings")
        fields = {} if fields is None else fields
        if isinstance(fields, dict):
            fields = {key: self._given(name, key, value, f"{where}.{name}.{key}") for key, value in fields.items()}
        return self._file.build(TRANSFORMS[name], fields, f"{where}.{name}")

    def _given(self, transform: str, key: str, value: Any, where: str) -> Any:
        """Return a field's value, with files hashed where the field is about files."""
        if key not in given_fields(TRANSFORMS[transform]) or value is None:
            return value
        if isinstance(value, list):
            return [self._given(transform, key, one, f"{where}[{place}]") for place, one in enumerate(value)]
        if isinstance(value, GivenFile):  # of a resolved recipe
            return dataclasses.asdict(value)
        if not isinstance(value, str):
            raise self._file.fault(where, value, "the path of a file, relative to the recipe file")
        path = self._path.parent / value
        try:
            return dataclasses.asdict(GivenFile.of(path))
        except OSError as error:
            reason = f"{path}: {error.strerror}; give the path of a file, relative to the recipe file"
            raise self._file.fault(where, value, reason) from error


def _settable(step: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a resolved transform, without what stands beside them."""
    own = {field.name for field in dataclasses.fields(TRANSFORMS[step["transform"]])}
    return {key: value for key, value in step.items() if key in own or key not in ("transform", "version", "model")}


def _with_paths(fields: dict[str, Any], transform: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a resolved transform with the paths of its given files put in."""

    def located(value: Any) -> Any:
        if isinstance(value, list):
            return [located(one) for one in value]
        sha256 = value["sha256"]
        return GivenFile(given.get(sha256, f"the file with sha256 {sha256}"), sha256)

    return fields | {
        name: located(fields[name]) for name in given_fields(TRANSFORMS[transform]) if fields.get(name) is not None
    }


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
