"""The error that people see in front of a report."""

from __future__ import annotations

from tokenizer.errors import HeadraceError


class ReportError(HeadraceError):
    """An input that is no plan, run or output, figures that contradict each other, or a place that may not be used."""
