"""The mixture: a YAML file that says which sources a run eats, how many epochs of each, at which length.

```yaml
name: demo
seed: 1                                       # of the order; two runs with one seed and one data see the same
classes:                                      # what sources have in common
  text: {epochs: 2}
  code: {epochs: 4}
  instructions: {epochs: 1, cut: never}       # never cut a conversation: one longer than a sequence is left out
sources:
  web: {class: text, manifests: ["output/tokens/web/**/manifest.json"]}   # relative to this file, patterns allowed
phases:
  - {length: 8192, global_batch: 32}          # tokens; sequences a step
validation: {column: doc_id, key: demo, share: 1/100}
windows: {documents: 20000, group: 4}
```
"""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from mixtures.errors import MixtureError
from mixtures.holdout import Column, Validation
from mixtures.plan import Cut, Windows
from tokenizer.strict_yaml import YamlFile

TOP_LEVEL = ("name", "seed", "classes", "sources", "phases", "validation", "windows")

MAX_LENGTH = 1 << 20
"""A longer sequence is a mistake: a million tokens."""

Amount = int | float | str
"""A number as people write it in YAML: 2, 1.5 or 3/2; exact, as a float's shortest text is what was written."""


def exact(amount: Amount) -> Fraction:
    """Return the number that was written. `ValueError` where it is none."""
    if not re.fullmatch(r"-?\d{1,15}(\.\d{1,15}|/0*[1-9]\d{0,14})?", str(amount)):
        raise ValueError(f"{amount!r}: is no number; write 2, 1.5 or 3/2")
    return Fraction(str(amount))


@dataclasses.dataclass(frozen=True, slots=True)
class SourceClass:
    """What sources of a class have in common: epochs, and what becomes of documents longer than a sequence."""

    epochs: Amount
    cut: Cut = "long"

    def __post_init__(self) -> None:
        """Refuse epochs that are none."""
        if not 0 < exact(self.epochs) <= 1000:
            raise ValueError(f"epochs {self.epochs}: allowed are numbers above 0, up to 1000")


@dataclasses.dataclass(frozen=True, slots=True)
class MixtureSource:
    """A source of the mixture: its class, and the manifests that its patterns found, in the order of their paths."""

    class_name: str
    manifests: tuple[Path, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class PhaseSettings:
    """A stretch of the run: sequences of `length` tokens, `global_batch` of them a step."""

    length: int
    global_batch: int

    def __post_init__(self) -> None:
        """Refuse what is no sequence and no batch."""
        if not 2 <= self.length <= MAX_LENGTH:
            raise ValueError(f"length {self.length}: allowed are 2 to {MAX_LENGTH} tokens")
        if not 1 <= self.global_batch <= 1 << 20:
            raise ValueError(f"global_batch {self.global_batch}: allowed are 1 to {1 << 20} sequences")


@dataclasses.dataclass(frozen=True, slots=True)
class ValidationSettings:
    """The documents to hold out: a share of the values of a column, chosen by a key."""

    share: Amount
    column: Column = "doc_id"
    key: str = "validation"

    def rule(self) -> Validation:
        """Return the rule in integers. `ValueError` for a share that is none."""
        share = exact(self.share)
        return Validation(self.column, self.key, (share.numerator, share.denominator))

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        self.rule()


@dataclasses.dataclass(frozen=True, slots=True)
class WindowSettings:
    """About how many documents are packed together, and how many windows' sequences are shuffled together."""

    documents: int = 20_000
    group: int = 4

    def __post_init__(self) -> None:
        """Refuse a window that holds nothing, or more than is read at once."""
        if not 1 <= self.documents <= 1 << 20:
            raise ValueError(f"documents {self.documents}: allowed are 1 to {1 << 20}")
        if not 1 <= self.group <= 64:
            raise ValueError(f"group {self.group}: allowed are 1 to 64 windows")


@dataclasses.dataclass(frozen=True, slots=True)
class Mixture:
    """A whole mixture, checked."""

    name: str
    path: Path
    seed: int
    classes: dict[str, SourceClass]
    sources: dict[str, MixtureSource]
    phase: PhaseSettings
    validation: Validation | None
    windows: Windows


def load_mixture(path: Path) -> Mixture:
    """Load and check the mixture at `path`; `MixtureError` names the file, the key, the value and what is allowed."""
    file = YamlFile(path, "mixture", MixtureError)
    data = file.load()
    file.check_keys(data, "", TOP_LEVEL, required=("classes", "sources", "phases"))
    classes = {
        name: file.build(SourceClass, fields, f"classes.{name}") for name, fields in _mapping(file, data, "classes")
    }
    sources = {name: _source(file, name, fields, classes) for name, fields in _mapping(file, data, "sources")}
    _check_distinct(file, sources)
    validation = data.get("validation")
    windows = file.build(WindowSettings, data.get("windows", {}), "windows")
    return Mixture(
        name=_name(file, data.get("name", path.stem)),
        path=path,
        seed=_seed(file, data.get("seed", 0)),
        classes=classes,
        sources=sources,
        phase=_phase(file, data["phases"]),
        validation=None if validation is None else file.build(ValidationSettings, validation, "validation").rule(),
        windows=Windows(windows.documents, windows.group),
    )


def _mapping(file: YamlFile, data: dict[str, Any], key: str) -> list[tuple[str, Any]]:
    if not isinstance(data[key], dict) or not data[key]:
        raise file.fault(key, data[key], "a mapping of at least one name to its settings")
    return list(data[key].items())


def _name(file: YamlFile, name: object) -> str:
    if not isinstance(name, str) or not name:
        raise file.fault("name", name, "a name")
    return name


def _seed(file: YamlFile, seed: object) -> int:
    if type(seed) is not int or not 0 <= seed < 1 << 64:
        raise file.fault("seed", seed, "an integer from 0, below 2**64")
    return seed


def _phase(file: YamlFile, phases: object) -> PhaseSettings:
    if not isinstance(phases, list) or len(phases) != 1:
        raise file.fault("phases", phases, "a list of one phase: [{length: 8192, global_batch: 32}]")
    phase: PhaseSettings = file.build(PhaseSettings, phases[0], "phases[0]")
    return phase


def _source(file: YamlFile, name: str, fields: object, classes: dict[str, SourceClass]) -> MixtureSource:
    where = f"sources.{name}"
    file.check_keys(fields, where, ("class", "manifests"), required=("class", "manifests"))
    assert isinstance(fields, dict)
    if not isinstance(fields["class"], str) or fields["class"] not in classes:
        raise file.fault(f"{where}.class", fields["class"], f"one of the classes {', '.join(classes)}")
    patterns = fields["manifests"]
    if not isinstance(patterns, list) or not patterns or not all(map(_is_pattern, patterns)):
        raise file.fault(f"{where}.manifests", patterns, "a list of paths or patterns of manifest.json files")
    found = {path for pattern in patterns for path in _matching(file, f"{where}.manifests", pattern)}
    return MixtureSource(fields["class"], tuple(sorted(found)))


def _is_pattern(item: object) -> bool:
    return isinstance(item, str) and Path(item).name not in ("", "..")


def _matching(file: YamlFile, key: str, pattern: str) -> list[Path]:
    """Return the manifests that a pattern relative to the mixture's folder finds, at least one."""
    start, folder = Path(pattern), file.path.parent.absolute()
    if start.is_absolute():
        folder, start = Path(start.anchor), start.relative_to(start.anchor)
    while start.parts and start.parts[0] == "..":
        folder, start = folder.parent, Path(*start.parts[1:])
    try:
        found = [path for path in folder.glob(str(start)) if path.is_file()]
    except (ValueError, NotImplementedError) as error:
        raise file.fault(key, pattern, f"a pattern of files ({error})") from error
    if not found:
        raise file.fault(key, pattern, f"no such manifest below {folder} (paths are relative to the mixture file)")
    return found


def _check_distinct(file: YamlFile, sources: dict[str, MixtureSource]) -> None:
    owners: dict[Path, str] = {}
    for name, source in sources.items():
        for path in source.manifests:
            owner = owners.setdefault(path.resolve(), name)
            if owner != name:
                raise file.fault(f"sources.{name}.manifests", str(path), f"is a manifest of source {owner} already")
