"""Folders of source files, one document a file: its text, and its programming language by the file's name.

The natural key is (repository, path, commit), so that two copies of a file in two places stay two documents until
deduplication compares their texts. Raw bytes: a file's size is its record, unread bytes are gaps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa

from pipelines.sources.source import (
    BatchBuilder,
    BatchLimits,
    RawAccount,
    Split,
    Verdict,
    content_hash,
    damage_verdict,
    doc_id,
    drop_verdict,
    require_positive,
    select_files,
)
from pipelines.storage.storage import ReadStorage, StoredFile

FILE_NAMES = {
    "CMakeLists.txt": "CMake",
    "Containerfile": "Dockerfile",
    "Dockerfile": "Dockerfile",
    "GNUmakefile": "Makefile",
    "Gemfile": "Ruby",
    "Jenkinsfile": "Groovy",
    "Makefile": "Makefile",
    "Rakefile": "Ruby",
    "makefile": "Makefile",
    "meson.build": "Meson",
}
"""Languages of files that are known by their whole name, as GitHub's linguist calls them."""

EXTENSIONS = {
    "asm": "Assembly",
    "awk": "Awk",
    "bash": "Shell",
    "bat": "Batchfile",
    "c": "C",
    "cc": "C++",
    "clj": "Clojure",
    "cmake": "CMake",
    "coffee": "CoffeeScript",
    "cpp": "C++",
    "cs": "C#",
    "css": "CSS",
    "csv": "CSV",
    "cu": "Cuda",
    "cuh": "Cuda",
    "cxx": "C++",
    "dart": "Dart",
    "dockerfile": "Dockerfile",
    "el": "Emacs Lisp",
    "ex": "Elixir",
    "exs": "Elixir",
    "erl": "Erlang",
    "f90": "Fortran Free Form",
    "fs": "F#",
    "go": "Go",
    "graphql": "GraphQL",
    "groovy": "Groovy",
    "h": "C",
    "hh": "C++",
    "hpp": "C++",
    "hs": "Haskell",
    "htm": "HTML",
    "html": "HTML",
    "ini": "INI",
    "ipynb": "Jupyter Notebook",
    "java": "Java",
    "jl": "Julia",
    "js": "JavaScript",
    "json": "JSON",
    "jsx": "JavaScript",
    "kt": "Kotlin",
    "kts": "Kotlin",
    "less": "Less",
    "lisp": "Common Lisp",
    "lua": "Lua",
    "m": "Objective-C",
    "md": "Markdown",
    "mjs": "JavaScript",
    "mk": "Makefile",
    "ml": "OCaml",
    "nim": "Nim",
    "nix": "Nix",
    "php": "PHP",
    "pl": "Perl",
    "pm": "Perl",
    "proto": "Protocol Buffer",
    "ps1": "PowerShell",
    "py": "Python",
    "pyi": "Python",
    "pyx": "Cython",
    "r": "R",
    "rb": "Ruby",
    "rs": "Rust",
    "rst": "reStructuredText",
    "s": "Assembly",
    "sass": "Sass",
    "scala": "Scala",
    "scm": "Scheme",
    "scss": "SCSS",
    "sh": "Shell",
    "sql": "SQL",
    "sv": "SystemVerilog",
    "swift": "Swift",
    "tcl": "Tcl",
    "tex": "TeX",
    "tf": "HCL",
    "toml": "TOML",
    "ts": "TypeScript",
    "tsx": "TSX",
    "v": "Verilog",
    "vhd": "VHDL",
    "vue": "Vue",
    "xml": "XML",
    "yaml": "YAML",
    "yml": "YAML",
    "zig": "Zig",
    "zsh": "Shell",
}
"""Languages by extension, lower case, as GitHub's linguist calls them; of several, the most usual one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Code:
    """Source files below the root that match the globs.

    A file is dropped when it is larger than `max_record_bytes` (it is then not read), empty, binary (it holds a NUL
    byte) or no UTF-8; a byte order mark is left out of the text. `commit`
    may be empty where a folder is no checkout. `limit` is files per split; a split is a run of files, in the order of
    their paths, of about `split_bytes` bytes. Raises `RecipeError` for a wrong value.
    """

    kind: ClassVar[str] = "code"
    version: ClassVar[int] = 1
    adds: ClassVar[pa.Schema] = pa.schema([pa.field("programming_language", pa.string())])

    name: str
    include: tuple[str, ...]
    repository: str
    commit: str = ""
    exclude: tuple[str, ...] = ()
    licence: str | None = None
    max_record_bytes: int = 16 << 20
    split_bytes: int = 8 << 20
    limit: int | None = None

    def __post_init__(self) -> None:
        """Check the values that a recipe may set."""
        require_positive(self.name, "max_record_bytes", self.max_record_bytes)
        require_positive(self.name, "split_bytes", self.split_bytes)
        require_positive(self.name, "limit", self.limit)

    def splits(self, storage: ReadStorage) -> list[Split]:
        """Gather consecutive files until they reach `split_bytes`."""
        splits: list[Split] = []
        files: list[StoredFile] = []
        for file in select_files(storage.list(), self.include, self.exclude):
            files.append(file)
            if sum(file.size for file in files) >= self.split_bytes:
                splits.append(Split(self.name, tuple(files)))
                files = []
        return [*splits, Split(self.name, tuple(files))] if files else splits

    def read(
        self, split: Split, storage: ReadStorage, limits: BatchLimits, account: RawAccount
    ) -> Iterator[pa.RecordBatch]:
        """Yield one row for each file: its text, or the reason why there is none."""
        builder = BatchBuilder(self.adds, limits, account)
        for number, file in enumerate(split.files):
            account.size += file.size
            if self.limit is not None and number >= self.limit:
                account.gap("beyond_limit", file.size)
            else:
                yield from builder.add(self._row(file, storage, account))
        yield from builder.flush()

    def _row(self, file: StoredFile, storage: ReadStorage, account: RawAccount) -> dict[str, Any]:
        payload, verdict = self._load(file, storage)
        if verdict is None:
            account.records += file.size
        else:
            account.gap(str(verdict["reason"]), file.size)
        text, verdict = _text_of(payload) if verdict is None else (None, verdict)
        key = f"{self.repository} {file.path} {self.commit}"
        return {
            "doc_id": doc_id(self.name, key),
            "source": self.name,
            "natural_key": key,
            "origin_path": file.path,
            "origin_offset": 0,
            "origin_length": file.size,
            "licence": self.licence,
            "content_hash": content_hash(payload),
            "text": text,
            "verdict": verdict,
            "programming_language": programming_language(file.path),
        }

    def _load(self, file: StoredFile, storage: ReadStorage) -> tuple[bytes, Verdict | None]:
        """Return the file's bytes, or none and the reason why it was not read."""
        if file.size > self.max_record_bytes:
            return b"", drop_verdict("record_too_large", f"{file.size} bytes", f"<= {self.max_record_bytes} bytes")
        try:
            with storage.open(file.path) as stream:
                payload = stream.read(file.size + 1)
        except OSError as error:
            return b"", damage_verdict("unreadable", file.path, 0, error.strerror or str(error))
        if len(payload) != file.size:
            found = f"{'more than ' * (len(payload) > file.size)}{min(len(payload), file.size)} bytes"
            cause = f"{found}, {file.size} when the run was planned"
            return b"", damage_verdict("damaged_file", file.path, 0, cause)
        return payload, None


def programming_language(path: str) -> str | None:
    """Return the language that a file's name stands for, or None when the name tells nothing."""
    name = path.rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return FILE_NAMES.get(name) or (EXTENSIONS.get(extension.lower()) if stem and dot else None)


def _text_of(payload: bytes) -> tuple[str | None, Verdict | None]:
    if not payload:
        return None, drop_verdict("empty", "0 bytes", ">= 1 byte")
    nul = payload.find(b"\0")
    if nul >= 0:
        return None, drop_verdict("binary", f"NUL at byte {nul}", "no NUL byte")
    try:
        return payload.removeprefix(b"\xef\xbb\xbf").decode(), None
    except UnicodeDecodeError as error:
        skipped = 3 if payload.startswith(b"\xef\xbb\xbf") else 0
        return None, drop_verdict("not_utf8", f"byte {error.start + skipped}", "UTF-8 throughout")
