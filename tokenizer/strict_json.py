"""JSON files of data only (manifests, plans): integers, no key twice, and just the keys of a frozen dataclass.

The dataclasses are the format: a field's type is what its key may hold. Whatever is wrong is said with the file, the
key and the value.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal, NoReturn

from tokenizer.errors import HeadraceError

MAX_BYTES = 1 << 30
"""A larger file is none of ours: a shard or a pack index takes less than a kilobyte of its manifest or plan."""

ALTERED = "the file was altered or made by another version"


class JsonError(HeadraceError, ValueError):
    """A file that is no JSON of ours, or holds other keys, types or values than it may."""


def read(path: Path) -> dict[str, Any]:
    """Read a JSON object without floats and without repeated keys; `JsonError` names what else was found."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise JsonError(f"{path}: cannot be read ({error.strerror})\nhint: bring it back, or name another") from error
    if len(content) > MAX_BYTES:
        raise JsonError(f"{path}: larger than {MAX_BYTES} bytes, no manifest and no plan")
    try:
        data = json.loads(content, parse_float=_no_float, parse_constant=_no_float, object_pairs_hook=_distinct)
    except _Unfit as error:
        raise JsonError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise JsonError(f"{path}: is not JSON ({error})") from error
    if not isinstance(data, dict):
        refuse(str(path), "top level", data, "an object", "name a manifest or a plan that this program made")
    return data


def take(data: dict[str, Any], file: str, **expected: object) -> None:
    """Remove these keys from the data; `JsonError` unless each has the value expected (format and version)."""
    for key, value in expected.items():
        found = data.pop(key, None)
        if type(found) is not type(value) or found != value:
            refuse(file, key, found, repr(value), "name a file of this kind that this version of the program made")


class _Unfit(Exception):
    """JSON that no file of ours contains."""


def _no_float(text: str) -> NoReturn:
    raise _Unfit(f"holds the number {text}, integers are allowed")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise _Unfit(f"holds a key twice among {sorted(key for key, _ in pairs)}")
    return keys


def refuse(file: str, key: str, found: object, expected: object, remedy: str = ALTERED) -> NoReturn:
    """Raise the `JsonError` that names the file, the key, what was found, what was expected and the remedy."""
    raise JsonError(f"{file}: {key}: is {found!r:.200}, expected {expected}\nhint: {remedy}")


def parse(kind: Any, value: Any, file: str, key: str = "") -> Any:
    """Turn JSON into a value of `kind`: a dataclass of such, a tuple, a dict, an optional, a literal, int >= 0, str.

    Fields of type `Path | None` are not part of the format. `JsonError` names the key.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, file, key)
    if origin is tuple and isinstance(value, list):
        return _parse_tuple(arguments, value, file, key)
    if origin is dict and isinstance(value, dict):
        return {name: parse(arguments[1], item, file, f"{key}.{name}") for name, item in value.items()}
    if origin is types.UnionType:
        return None if value is None else parse(arguments[0], value, file, key)
    if origin is Literal and value in arguments:
        return value
    if kind is int and type(value) is int and value >= 0:
        return value
    if kind is str and isinstance(value, str):
        return value
    return refuse(file, key, value, getattr(kind, "__name__", kind))


def _parse_tuple(arguments: tuple[Any, ...], value: list[Any], file: str, key: str) -> tuple[Any, ...]:
    kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
    if len(kinds) != len(value):
        refuse(file, key, value, f"{len(kinds)} items")
    return tuple(
        parse(kind, item, file, f"{key}[{place}]") for place, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _parse_dataclass(kind: Any, value: Any, file: str, key: str) -> Any:
    hints = {name: hint for name, hint in typing.get_type_hints(kind).items() if hint != Path | None}
    if not isinstance(value, dict) or value.keys() != hints.keys():
        found = sorted(value) if isinstance(value, dict) else value
        refuse(file, key or "top level", found, f"the keys {sorted(hints)}")
    inside = f"{key}." if key else ""
    fields = {name: parse(hint, value[name], file, inside + name) for name, hint in hints.items()}
    try:
        return kind(**fields)
    except ValueError as error:  # the class's own check
        raise JsonError(f"{file}: {key}: {error}\nhint: {ALTERED}") from error


def canonical(data: Any) -> str:
    """Return the text of a JSON file of data: sorted keys, two spaces, ASCII, a newline at the end."""
    return json.dumps(data, sort_keys=True, indent=2) + "\n"
