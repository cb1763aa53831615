"""What `headrace mix` shows: each source's documents and tokens once, and what the run gets of them."""

from __future__ import annotations

from fractions import Fraction

from rich.console import Console
from rich.table import Table

from mixtures.plan import Phase, Plan
from tokenizer.errors import visible
from tokenizer.terminal import make_table, numbers


def show_plan(plan: Plan, console: Console) -> None:
    """Show the composition of every phase, what is held out or left out, and the plan's fingerprint."""
    for phase in plan.phases:
        console.print(_composition(plan, phase))
        for name, source in phase.sources.items():
            for reason, dropped in source.dropped.items():
                console.print(
                    visible(f"{name}: {dropped.documents:,} documents of {dropped.tokens:,} tokens dropped[{reason}]"),
                    highlight=False,
                )
        if any(source.epochs[1] != 1 for source in phase.sources.values()):
            console.print("≈ in proportion to the sequences: a fraction of an epoch ends in the middle of a window")
        console.print(
            f"{phase.steps:,} steps of {phase.global_batch:,} sequences of {phase.length:,} tokens, the last one of "
            f"{phase.sequences - (phase.steps - 1) * phase.global_batch:,} sequences",
            highlight=False,
        )
    console.print(f"plan {plan.fingerprint} in {visible(str(plan.path))}", highlight=False, soft_wrap=True)


def _composition(plan: Plan, phase: Phase) -> Table:
    titles = ("source", "class", "unique documents>", "unique tokens>", "held out>", "epochs>", "planned tokens>")
    table = make_table(*titles, "sequences>", "share>", "padding>")
    for name, source in phase.sources.items():
        tokens, room = source.planned("tokens"), source.sequences * phase.length
        table.add_row(
            visible(name),
            visible(plan.sources[name].class_name),
            *numbers(source.unique.documents, source.unique.tokens, source.held_out.documents),
            str(Fraction(*source.epochs)),
            ("" if source.whole else "≈ ") + f"{tokens:,}",
            *numbers(source.sequences),
            _percent(source.sequences, phase.sequences),
            _percent(room - tokens, room),
        )
    total, room = sum(source.planned("tokens") for source in phase.sources.values()), phase.sequences * phase.length
    sums = [
        sum(getattr(getattr(source, part), count) for source in phase.sources.values())
        for part, count in (("unique", "documents"), ("unique", "tokens"), ("held_out", "documents"))
    ]
    last = (_percent(phase.sequences, phase.sequences), _percent(phase.padding, room))
    table.add_row("total", "", *numbers(*sums), "", f"{total:,}", *numbers(phase.sequences), *last)
    return table


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "-"
