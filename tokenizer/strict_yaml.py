"""YAML files that people write (recipes, mixtures, training configurations), turned into frozen dataclasses.

The dataclasses' fields are all that can be set; there is no second tree of configuration classes. YAML is loaded
safely, without what such a file has no use for, or would be misled by. Every error begins with the file and the key.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Never

import pydantic
import yaml

from tokenizer.errors import HeadraceError

MAX_BYTES = 256 << 10
"""A recipe of a thousand sources is about as long; it bounds what the YAML parser can be made to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class YamlFile:
    """One file of a kind (`noun`: recipe, mixture ...), and the error that says what is wrong with it."""

    path: Path
    noun: str
    error: type[HeadraceError]

    def load(self) -> dict[str, Any]:
        """Return what the file holds: a mapping of plain values."""
        hint = f"hint: give the path of a {self.noun} file"
        try:
            with self.path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise self.error(f"{self.path}: {error.strerror}\n{hint}") from error
        if len(content) > MAX_BYTES:
            raise self.error(f"{self.path}: longer than {MAX_BYTES} bytes\n{hint}")
        try:
            data = yaml.load(content.decode("utf-8"), _PlainYaml)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: what is no UTF-8, no date or too long a number
            raise self.error(f"{self.path}: is not valid YAML: {error}") from error
        except RecursionError as error:
            raise self.error(f"{self.path}: is not valid YAML: nested too deeply") from error
        if not isinstance(data, dict):
            raise self.error(f"{self.path}: found {type(data).__name__}, a {self.noun} is a mapping")
        return data

    def build(self, cls: type, fields: object, where: str) -> Any:
        """Make a frozen dataclass out of plain data: no unknown keys, no silent conversions."""
        self.check_keys(fields, where, tuple(field.name for field in dataclasses.fields(cls)))

        def refuse(value: object) -> Never:
            raise self.fault(where, value, "text, numbers, true, false and lists of them (quote a date)")

        plain = json.dumps(fields, default=refuse)
        try:
            return pydantic.TypeAdapter(cls).validate_json(plain, strict=True)
        except self.error as error:  # the class's own check
            raise self.rephrased(where, str(error)) from error
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            message = first["msg"].removeprefix("Value error, ")
            if not first["loc"]:  # the class's own check, which names the field and what it found
                raise self.rephrased(where, message) from error
            raise self.fault(".".join([where, *map(str, first["loc"])]).strip("."), first["input"], message) from error

    def check_keys(self, data: object, where: str, allowed: tuple[str, ...], required: tuple[str, ...] = ()) -> None:
        """Refuse what is no mapping, a key that is not allowed, and the absence of one that is required."""
        if not isinstance(data, dict):
            raise self.fault(where, data, f"a mapping with {', '.join(allowed)}")
        for key in data:
            if key not in allowed:
                place = f"{where}.{key}".strip(".")
                raise self.fault(place, data[key], f"unknown key; allowed are {', '.join(allowed)}")
        for key in required:
            if key not in data:
                raise self.fault(f"{where}.{key}".strip("."), None, "is required")

    def fault(self, key: str, found: object, allowed: str) -> HeadraceError:
        """Return the error that names the file, the key, what was found and what is allowed."""
        return self.error(f"{self.path}: {key}: found {found!r:.200}: {allowed}")

    def rephrased(self, where: str, message: str) -> HeadraceError:
        """Return the error with the file and the key put in front of a class's own message."""
        return self.error(": ".join(part for part in (str(self.path), where, message) if part))


class _PlainYaml(yaml.SafeLoader):
    """YAML's safe loader without aliases (a few lines can unfold to gigabytes), keys that are no text, double keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"found alias *{event.anchor}, write the values out", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        # `no` is YAML's word for false; of a key that stands twice the second would win in silence
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
