"""The code rules of StarCoder and of the Stack v2: what is generated, copied, data, markup without text, or no code.

Sources: Li et al. 2023, "StarCoder" (arXiv 2305.06161), section 3, with its published preprocessing code; Lozhkov et
al. 2024, "StarCoder 2 and The Stack v2" (arXiv 2402.19173), section 2.1. What a character, a line, an encoded run and
visible text are stands in `code_statistics.py`; what the path of a file tells, in `code_files.py`; docs/filters-code.md
puts each definition beside the published one.

- The defaults are those of the Stack v2; the docstring of a field says what StarCoder used where that was something
  else. Rules that neither paper has (paths of vendored, minified and data files, U+FFFD, notebooks) say so.
- The rows are source files, one file a row, as the reader `code` gives them: the language is known by `origin_path`.
  That reader drops files that are not UTF-8, so U+FFFD counts what other readers or earlier decoding replaced.
- Notebooks are JSON around code: the rules of lines and letters are not about them. They are parsed, one at a time.
- `extensions` sets thresholds of single extensions, as the table of StarCoder's inspection of 300 extensions does.

Two published filters are not here. Characters for each token (SantaCoder, arXiv 2301.03988: at least 2.5 in Python,
2.9 in Java, 2.6 in JavaScript) depends on one tokenizer, and StarCoder did without it, as it did without stars.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.transforms import code_files
from pipelines.transforms.code_comments import EXTENSIONS, SYNTAX_OF, count_comments
from pipelines.transforms.code_statistics import (
    ALPHABETIC,
    ALPHANUMERIC,
    CHARACTERS,
    ENCODED,
    GENERATED_PHRASES,
    IS_HTML,
    IS_SCRIPT,
    LINE_CHARACTERS,
    LINES,
    LONGEST_ENCODED,
    LONGEST_LINE,
    NUM_STATISTICS,
    REPLACEMENTS,
    VISIBLE,
    XML_DECLARATION,
    statistics,
)
from pipelines.transforms.rules import RATIO, Rule, RuleFilter, check_thresholds
from pipelines.transforms.words import text_view

(
    VENDORED,
    GENERATED,
    MINIFIED,
    DATA,
    OTHER_TEXT,
    COMMENTS,
    CODE_CELLS,
    CELL_CHARACTERS,
    NUM_COLUMNS,
) = range(NUM_STATISTICS, NUM_STATISTICS + 9)
"""Columns behind those of `code_statistics`: 1 where the path says so; characters in comments; of notebooks, code cells
with any code, and the characters of all cells' sources."""

BY_EXTENSION = ("max_lines", "max_mean_line", "max_longest_line", "min_alphabetic", "min_alphanumeric", "max_encoded")
"""The rules that `extensions` may set."""


@dataclasses.dataclass(frozen=True, slots=True)
class CodeQuality(RuleFilter):
    """Drops source files that break a rule; the first broken one, in the order of `rules`, is the reason.

    Counts and lengths are integers, in characters and lines; ratios are in 1/10,000; null switches a rule off.
    """

    name: ClassVar[str] = "code_quality"
    version: ClassVar[int] = 1

    max_vendored: int | None = 0
    """0: copies of what others wrote go, by their path. Ours; the Stack v2 only marks them."""
    max_generated: int | None = 0
    """0: files go whose name is one that a tool writes. The Stack v2, by go-enry's `is_generated`."""
    max_minified: int | None = 0
    """0: files go whose name says that they are minified. Ours, by name; in fact by `max_mean_line`."""
    max_data: int | None = 0
    """0: files of data go, by extension. Ours; the Stack v2 left out extensions after people had looked at them."""
    max_other_text: int | None = 0
    """0: of .txt files only requirements, readme, notes, todo, description and CMakeLists stay. The Stack v2."""
    max_generated_phrases: int | None = 0
    """Phrases that generators write, in the first lines. The Stack v2."""
    header_lines: int = 5
    """How many lines are searched for the Stack v2's phrases; 40 for the names of generators."""
    max_xml_declarations: int | None = 0
    """0: files go that begin (100 characters) with `<?xml version=` and are no XML by their extension. StarCoder."""
    max_replacements: int | None = 100
    """U+FFFD for every character. Ours: 0.01."""
    max_lines: int | None = 100_000
    """The Stack v2."""
    max_mean_line: int | None = 100
    """Characters. Both papers; the Stack v2 leaves out markup and text (`long_lines` in `code_files.py`)."""
    max_longest_line: int | None = 1_000
    """Characters; as `max_mean_line`."""
    max_longest_markup_line: int | None = 100_000
    """Characters of a line of what the two rules above leave out. The Stack v2."""
    min_alphabetic: int | None = 2_500
    """For every character. The Stack v2, but for Motorola 68K Assembly and WebAssembly. StarCoder: some extensions."""
    min_alphanumeric: int | None = 2_500
    """For every character. StarCoder; the Stack v2 for those two languages."""
    max_encoded_run: int | None = 1_024
    """Characters of one encoded run. The Stack v2."""
    max_encoded: int | None = 5_000
    """Characters in encoded runs, for every character. The Stack v2."""
    max_data_lines: int | None = 512
    """Lines of Text, JSON, YAML, OWL and Graphviz files. The Stack v2."""
    min_data_characters: int | None = None
    """Of JSON and YAML files. StarCoder: 100."""
    max_data_characters: int | None = None
    """Of JSON and YAML files. StarCoder: 5,000."""
    min_visible: int | None = 2_000
    """Visible text of HTML, for every character. Both papers (StarCoder: more than that)."""
    min_visible_characters: int | None = 100
    """Visible characters of HTML. The Stack v2 (StarCoder: more than 100)."""
    min_comments: int | None = None
    """Characters in comments (see `code_comments.py`), for every character. SantaCoder: 0.01; StarCoder did not."""
    max_comments: int | None = None
    """As `min_comments`. SantaCoder: 0.8."""
    min_code_cells: int | None = 1
    """Cells of a notebook that hold code. Ours; a notebook that is no valid JSON has none."""
    min_cell_characters: int | None = 1_000
    """Sources of a notebook's cells, for every character of the file: the rest is outputs and brackets. Ours."""
    extensions: Mapping[str, Mapping[str, int | None]] = dataclasses.field(default_factory=dict, hash=False)
    """By extension (lower case, no dot), thresholds of `BY_EXTENSION`: {fsh: {max_longest_line: 500}}."""

    def __post_init__(self) -> None:
        """Refuse thresholds that no file or every file meets by mistake, and rules that are none of `BY_EXTENSION`."""
        ratios = (
            "max_replacements",
            "min_alphabetic",
            "min_alphanumeric",
            "max_encoded",
            "min_visible",
            "min_comments",
        )
        check_thresholds(
            self,
            ratios=(*ratios, "max_comments", "min_cell_characters"),
            ordered=(
                ("min_comments", "max_comments"),
                ("min_data_characters", "max_data_characters"),
                ("max_longest_line", "max_longest_markup_line"),
            ),
        )
        for extension, thresholds in self.extensions.items():
            if not (extension.isascii() and extension.isalnum() and extension == extension.lower()):
                raise ValueError(
                    f"extensions: {extension!r} is no extension\nhint: give lower-case ASCII letters and digits, no dot"
                )
            for name, limit in thresholds.items():
                if name not in BY_EXTENSION:
                    raise ValueError(
                        f"extensions.{extension}: {name!r} cannot be set\nhint: use {', '.join(BY_EXTENSION)}"
                    )
                most = RATIO if name in ratios else 1 << 40
                if limit is not None and (type(limit) is not int or not 0 <= limit <= most):
                    raise ValueError(
                        f"extensions.{extension}.{name}: {limit!r} is no threshold\n"
                        f"hint: give a whole number from 0 to {most}"
                    )

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in the order in which the first broken one becomes the reason; then those of single extensions."""
        rules = tuple(rule for rule, _, _ in self._scoped_rules())
        return rules + tuple(
            dataclasses.replace(rule, name=f"{rule.name}_{extension}", limit=thresholds[rule.name])
            for extension, thresholds in sorted(self.extensions.items())
            for rule in rules
            if rule.name in thresholds
        )

    def measured(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        """Count; the text stays as it is."""
        paths, text = batch.column("origin_path"), batch.column("text")
        extension = code_files.extensions(paths)
        html, script, notebook, data, is_text = (
            _mask(code_files.in_group(extension, group)) for group in ("html", "script", "notebook", "data", "text")
        )
        stats = np.zeros((batch.num_rows, NUM_COLUMNS), np.int64)
        stats[:, :NUM_STATISTICS] = statistics(text, html * IS_HTML | script * IS_SCRIPT, self.header_lines)
        stats[:, VENDORED] = _mask(code_files.matched(paths, code_files.VENDORED))
        stats[:, GENERATED] = _mask(code_files.matched(paths, code_files.GENERATED))
        stats[:, MINIFIED] = _mask(code_files.matched(paths, code_files.MINIFIED))
        stats[:, DATA] = data
        stats[:, OTHER_TEXT] = is_text & ~_mask(code_files.matched(paths, code_files.TEXT_NAMES))
        places = pc.index_in(extension, pa.array(EXTENSIONS, pa.string())).fill_null(-1).to_numpy(zero_copy_only=False)
        count_comments(*text_view(text), np.where(places >= 0, SYNTAX_OF[places], -1), stats[:, COMMENTS])
        for row in np.flatnonzero(notebook):
            stats[row, [CODE_CELLS, CELL_CHARACTERS]] = count_cells(text[row].as_py() or "")
        return batch, stats

    def applies(self, batch: pa.RecordBatch) -> np.ndarray:
        """Each rule is about the languages that it names; what `extensions` sets takes the place of the general one."""
        extension = code_files.extensions(batch.column("origin_path"))
        scoped = self._scoped_rules()
        columns = [np.ones(batch.num_rows, bool) for _ in scoped]
        for column, (_, groups, besides) in zip(columns, scoped, strict=True):
            if groups:
                column &= np.any([_mask(code_files.in_group(extension, group)) for group in groups], axis=0)
            for group in besides:
                column &= ~_mask(code_files.in_group(extension, group))
        for one, thresholds in sorted(self.extensions.items()):
            is_one = _mask(pc.equal(extension, one))
            for place, (rule, _, _) in enumerate(scoped):
                if rule.name in thresholds:
                    columns[place] = columns[place] & ~is_one
                    columns.append(is_one)
        return np.stack(columns, axis=1)

    def _scoped_rules(self) -> tuple[tuple[Rule, tuple[str, ...], tuple[str, ...]], ...]:
        """Return the general rules with the groups of languages that they are about (none: all) and not about."""
        at_most, at_least, notebook, commented = False, True, ("notebook",), ("commented",)
        return (
            (Rule("max_vendored", VENDORED, None, at_most, self.max_vendored), (), ()),
            (Rule("max_generated", GENERATED, None, at_most, self.max_generated), (), ()),
            (Rule("max_minified", MINIFIED, None, at_most, self.max_minified), (), ()),
            (Rule("max_data", DATA, None, at_most, self.max_data), (), ()),
            (Rule("max_other_text", OTHER_TEXT, None, at_most, self.max_other_text), ("text",), ()),
            (Rule("max_generated_phrases", GENERATED_PHRASES, None, at_most, self.max_generated_phrases), (), ()),
            (Rule("max_xml_declarations", XML_DECLARATION, None, at_most, self.max_xml_declarations), (), ("xml",)),
            (Rule("max_replacements", REPLACEMENTS, CHARACTERS, at_most, self.max_replacements, RATIO), (), ()),
            (Rule("max_lines", LINES, None, at_most, self.max_lines), (), ()),
            (Rule("max_mean_line", LINE_CHARACTERS, LINES, at_most, self.max_mean_line), (), ("long_lines", *notebook)),
            (
                Rule("max_longest_line", LONGEST_LINE, None, at_most, self.max_longest_line),
                (),
                ("long_lines", *notebook),
            ),
            (
                Rule("max_longest_markup_line", LONGEST_LINE, None, at_most, self.max_longest_markup_line),
                ("long_lines",),
                (),
            ),
            (
                Rule("min_alphabetic", ALPHABETIC, CHARACTERS, at_least, self.min_alphabetic, RATIO),
                (),
                ("digits", *notebook),
            ),
            (Rule("min_alphanumeric", ALPHANUMERIC, CHARACTERS, at_least, self.min_alphanumeric, RATIO), (), notebook),
            (Rule("max_encoded_run", LONGEST_ENCODED, None, at_most, self.max_encoded_run), (), ()),
            (Rule("max_encoded", ENCODED, CHARACTERS, at_most, self.max_encoded, RATIO), (), ()),
            (Rule("max_data_lines", LINES, None, at_most, self.max_data_lines), ("many_lines",), ()),
            (Rule("min_data_characters", CHARACTERS, None, at_least, self.min_data_characters), ("json_yaml",), ()),
            (Rule("max_data_characters", CHARACTERS, None, at_most, self.max_data_characters), ("json_yaml",), ()),
            (Rule("min_visible", VISIBLE, CHARACTERS, at_least, self.min_visible, RATIO), ("html",), ()),
            (Rule("min_visible_characters", VISIBLE, None, at_least, self.min_visible_characters), ("html",), ()),
            (Rule("min_comments", COMMENTS, CHARACTERS, at_least, self.min_comments, RATIO), commented, ()),
            (Rule("max_comments", COMMENTS, CHARACTERS, at_most, self.max_comments, RATIO), commented, ()),
            (Rule("min_code_cells", CODE_CELLS, None, at_least, self.min_code_cells), notebook, ()),
            (
                Rule("min_cell_characters", CELL_CHARACTERS, CHARACTERS, at_least, self.min_cell_characters, RATIO),
                notebook,
                (),
            ),
        )


def _mask(column: pa.Array) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False), bool)


def count_cells(notebook: str) -> tuple[int, int]:
    """Return how many cells of a notebook (nbformat 3 or 4) hold code, and the characters of all cells' sources.

    Zeros for what is no JSON, or not built like a notebook.
    """
    try:
        content = orjson.loads(notebook)
    except orjson.JSONDecodeError:
        return 0, 0
    if not isinstance(content, dict):
        return 0, 0
    sheets = content.get("worksheets", [content])  # nbformat 3 has cells in worksheets
    code_cells = characters = 0
    for sheet in sheets if isinstance(sheets, list) else []:
        cells = sheet.get("cells") if isinstance(sheet, dict) else None
        for cell in cells if isinstance(cells, list) else []:
            if isinstance(cell, dict):
                is_code = cell.get("cell_type") == "code"
                source = cell.get("input" if is_code and "input" in cell else "source", "")
                lines = source if isinstance(source, list) else [source]
                size = sum(len(line) for line in lines if isinstance(line, str))
                code_cells += is_code and any(isinstance(line, str) and not line.isspace() and line for line in lines)
                characters += size
    return code_cells, characters
