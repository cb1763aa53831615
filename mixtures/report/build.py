"""Writes the report: `report.html`, one file that needs no other and runs no script, and `report.json`.

The page is written from the figures alone, and both are the same bytes for the same input. Whatever comes from data is
escaped (Jinja's autoescape), and shown without what does not print. Each file is there whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from mixtures.report import charts
from mixtures.report.errors import ReportError
from mixtures.report.figures import collect_figures
from mixtures.report.inputs import OUTPUT_MARKS, is_output
from tokenizer.errors import visible
from tokenizer.whole_file import whole_file

PAGE, FIGURES = "report.html", "report.json"


def build_report(path: Path, folder: Path) -> dict[str, Any]:
    """Write the report of a plan, a training run or an output into a folder, and return its figures.

    `HeadraceError` for an input that contradicts itself, and for a folder inside of a run's output.
    """
    _check_folder(folder)
    figures = collect_figures(path)
    content = {PAGE: render(figures), FIGURES: to_json(figures)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in content.items():
            _publish(folder / name, text)
    except OSError as error:
        raise ReportError(
            f"{error.filename or folder}: {error.strerror}\nhint: free the place, or name another --output"
        ) from error
    return figures


def to_json(figures: dict[str, Any]) -> str:
    """Return the text of `report.json`: sorted keys, two spaces, ASCII, no NaN, a newline at the end."""
    return json.dumps(figures, sort_keys=True, indent=2, allow_nan=False) + "\n"


def render(figures: dict[str, Any]) -> str:
    """Return the page of these figures."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mixtures.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "breakable": _breakable,
        "count": _count,
        "optional": _optional,
        "signed": charts.signed,
        "percent": charts.percent,
        "decimal": _decimal,
        "significant": _significant,
    }
    return environment.get_template("report.html.j2").render(charts=charts, **figures)


def _shown(value: object) -> object:
    """Return a value as the page may hold it: text without control characters and without unpaired surrogates."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)


def _breakable(text: str) -> Markup:
    """Return a name that may be broken after its points and underscores."""
    return Markup(str(escape(visible(text))).replace("_", "_<wbr>").replace(".", ".<wbr>"))


def _optional(value: int | None, form: Callable[[int], str]) -> str:
    """Return a value in a form, or nothing where there is none."""
    return "" if value is None else form(value)


def _count(value: int | None) -> str:
    return "–" if value is None else charts.grouped(value)


def _decimal(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _significant(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}g}"


def _check_folder(folder: Path) -> None:
    """Refuse a folder inside of a run's output: `headrace verify` takes what it does not know there for damage."""
    for place in (folder.absolute().resolve(), *folder.absolute().resolve().parents):
        if is_output(place):
            raise ReportError(
                f"{folder}: lies inside of {place}, the output of a run ({' and '.join(OUTPUT_MARKS)} are there), "
                "and `headrace verify` would report it as stray\nhint: name a folder beside it"
            )


def _publish(path: Path, text: str) -> None:
    with whole_file(path) as attempt:
        attempt.write_text(text, encoding="utf-8")
