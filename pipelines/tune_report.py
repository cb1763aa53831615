"""What `headrace tune` shows in the terminal: a table for each source and filter, or one rule and its documents."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from pipelines.errors import visible
from pipelines.tune import SHARES, Example, FilterTuning, RuleTuning, Threshold, Tuning
from tokenizer.terminal import make_table, numbers


def show_tuning(tuning: Tuning, console: Console) -> None:
    """Show every filter; where one rule was asked for, all of its thresholds and the documents near its line."""
    for changed in tuning.changed:
        then, now = _limit(changed.in_run), _limit(changed.in_recipe)
        _say(
            console,
            f"{changed.source}: {changed.rule}: the run had {then}, the recipe has {now}: shown as the recipe's",
        )
    for name in tuning.unmeasured:
        _say(console, f"{name}: left no values in this run")
    for one in tuning.filters:
        _say(
            console,
            f"\n{one.source}: {one.filter}: of {one.read:,} documents read, {one.reached:,} reached this filter; "
            f"its rules remove {one.removed:,} ({_share(one.removed, one.reached)}).",
        )
        if tuning.rule is not None:
            _show_rule(one, one.rules[0], console)
        else:
            console.print(_overview(one))
    _say(
        console,
        '\nThresholds as a recipe writes them. Shares are of the documents that reached the filter; "only": of those '
        "that break no other rule of it.",
    )


def _overview(one: FilterTuning) -> Table:
    """One line for each rule: what its threshold and the default remove, and thresholds by the share they remove."""
    titles = [f"{100 * share:g}%>" for share in SHARES]
    table = make_table("rule", "measured>", "threshold>", "removed>", "only>", "default>", "removed>", *titles)
    for rule in one.rules:
        recipe, default = rule.marked("recipe"), rule.marked("default")
        limits = [found and found.limit for found in (rule.marked(title[:-1]) for title in titles)]
        table.add_row(
            rule.rule,
            *numbers(rule.measured),
            _threshold(rule, rule.limit),
            *_removed(recipe, one.reached),
            _threshold(rule, rule.default),
            _removed(default, one.reached)[0],
            *("-" if limit is None else f"{limit}" for limit in limits),
        )
    return table


def _show_rule(one: FilterTuning, rule: RuleTuning, console: Console) -> None:
    table = make_table("threshold>", "value>", "removed>", "share>", "only>", "share>", "")
    for row in rule.thresholds:
        shares = (_share(row.removed, one.reached), _share(row.removed_only, one.reached))
        removed, only = numbers(row.removed, row.removed_only)
        marks = ", ".join(mark for mark in row.marks if not mark.endswith("%"))
        value = f"{rule.comparison} {row.limit / rule.scale:g}"
        table.add_row(_threshold(rule, row.limit), value, removed, shares[0], only, shares[1], marks)
    console.print(f"{one.filter}.{rule.rule}: {rule.measured:,} documents have a value", highlight=False)
    console.print(table)
    if rule.limit is None and rule.default is None:
        _say(console, "The rule has no limit here and none by default: no document is near one.")
    for example in one.examples:
        _show_example(example, console)


def _show_example(example: Example, console: Console) -> None:
    also = f", breaks {', '.join(example.also)} too" if example.also else ""
    side = "removed" if example.removed else "kept"
    origin = f"{example.origin_path} at {example.origin_offset}"
    _say(console, f"\n{side} {example.value:g} {example.doc_id} {example.url or origin}{also}")
    _say(console, f"  {' '.join(example.text.split())}")


def _threshold(rule: RuleTuning, limit: int | None) -> str:
    return _limit(None) if limit is None else f"{rule.comparison} {limit}"


def _limit(limit: int | None) -> str:
    return "no limit" if limit is None else str(limit)


def _removed(threshold: Threshold | None, reached: int) -> tuple[str, str]:
    if threshold is None:
        return "-", "-"
    return _share(threshold.removed, reached), _share(threshold.removed_only, reached)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "-"


def _say(console: Console, text: str) -> None:
    """Print what may hold words of the input: nothing in it moves the cursor."""
    console.print(visible(text), highlight=False, soft_wrap=True)
