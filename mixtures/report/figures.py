"""Every number of the report, as one dictionary of plain values: the page is written from it, `report.json` is it.

Integers are exact. Fractions stand as text ("3/2") and as a decimal. Floats are rounded to `DIGITS` significant digits,
so that the file does not hang on a last bit; what is no number (a diverged loss) is null. Sequences, source tokens,
stream tokens and loss-bearing tokens are different numbers and are all given. `absent` says, in a line each, what the
input lacks.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

from mixtures.plan import Phase, PhaseSource, Plan
from mixtures.report.errors import ReportError
from mixtures.report.inputs import Inputs, load_inputs
from mixtures.report.lengths import length_figures
from mixtures.report.training import training_figures
from mixtures.report.waterfall import waterfall_figures

FORMAT, VERSION = "headrace-report", 1

DIGITS = 6
"""Significant digits of a float."""

REPETITION_CONSTANT = 15.4
"""R* of Muennighoff et al. 2023 (arXiv 2305.16264): how slowly repeated data loses its worth."""

SUMMED = (
    "documents", "tokens", "unique_documents", "unique_tokens", "unique_sequences", "sequences", "stream_tokens",
    "source_tokens", "loss_tokens", "padding_tokens", "cut_documents", "held_out_documents", "held_out_tokens",
    "dropped_documents", "dropped_tokens",
)  # fmt: skip
"""Figures of a source whose sum over the sources means something."""


def collect_figures(path: Path) -> dict[str, Any]:
    """Return the figures of a plan, a training run or an output; `HeadraceError` where they contradict each other."""
    inputs = load_inputs(path)
    waterfalls, no_ledger = waterfall_figures(inputs)
    limits = sorted({phase.length for phase in inputs.plan.phases}) if inputs.plan else []
    lengths, no_lengths = length_figures(inputs.sources, limits)
    figures = {
        "format": FORMAT,
        "version": VERSION,
        "input": inputs.kind,
        "head": _head(inputs),
        "phases": [_phase(inputs.plan, *numbered) for numbered in enumerate(inputs.plan.phases)] if inputs.plan else [],
        "waterfalls": waterfalls,
        "checks": sum(waterfall["checks"] for waterfall in waterfalls),
        "lengths": lengths,
        "training": _training(inputs),
        "absent": [*inputs.absent, *no_ledger, *no_lengths],
    }
    rounded: dict[str, Any] = round_floats(figures)
    return rounded


def round_floats(value: Any) -> Any:
    """Return plain data with its floats rounded to `DIGITS` significant digits, and null for what is no number."""
    if isinstance(value, dict):
        return {key: round_floats(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [round_floats(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def worth(unique: int, epochs: Fraction) -> float:
    """Return the fresh tokens that `epochs` passes over `unique` tokens are worth: an estimate.

    D' = U + U R* (1 - exp(-R / R*)) with R = epochs - 1 repetitions (Muennighoff et al., arXiv 2305.16264); less
    than an epoch repeats nothing and is worth what it is.
    """
    if epochs <= 1:
        return float(unique * epochs)
    return unique * (1 + REPETITION_CONSTANT * -math.expm1(-float(epochs - 1) / REPETITION_CONSTANT))


def _training(inputs: Inputs) -> dict[str, Any] | None:
    """Return the figures of the run's log; `ReportError` where it goes on after the end of the plan."""
    if inputs.metrics is None:
        return None
    figures = training_figures(inputs.metrics)
    last, plan = figures["last"], inputs.plan
    if last is not None and plan is not None and last["sequences"] > plan.sequences:
        raise ReportError(
            f"{inputs.metrics}: step {last['step']} has consumed {last['sequences']} sequences, the plan {plan.path} "
            f"has {plan.sequences}\nhint: bring back the log of this run, or the plan that it was started with"
        )
    return figures


def _head(inputs: Inputs) -> dict[str, Any]:
    plan = inputs.plan
    if plan is None:
        tokenizers = {manifest.tokenizer.name for source in inputs.sources for manifest in source.manifests}
        name = inputs.recipe_name or "training run"
        return {"name": name, "fingerprint": inputs.fingerprint, "tokenizer": ", ".join(sorted(tokenizers)) or None}
    rule = plan.validation
    return {
        "name": plan.name,
        "fingerprint": inputs.fingerprint,
        "parent": None if plan.parent is None else {
            "fingerprint": plan.parent.fingerprint, "sequences": plan.parent.sequences
        },
        "tokenizer": plan.tokenizer.name,
        "vocabulary": plan.tokenizer.vocabulary,
        "seed": plan.seed,
        "validation": None if rule is None else {
            "column": rule.column, "key": rule.key, "share": f"{rule.share[0]}/{rule.share[1]}"
        },
        "windows": {"documents": plan.windows.documents, "group": plan.windows.group},
        "sequences": plan.sequences,
        "steps": plan.steps,
        "tokens": sum(phase.sequences * phase.length for phase in plan.phases),
    }  # fmt: skip


def _phase(plan: Plan, place: int, phase: Phase) -> dict[str, Any]:
    """Return a phase: what was asked of each source, what is planned, what is left out, and the sums."""
    sources = [_source(plan, phase, name, source) for name, source in phase.sources.items()]
    asked = sum((row["asked_sequences"] for row in sources), Fraction(0))
    for row in sources:
        row["asked_share"] = _ratio(row.pop("asked_sequences"), asked)
        row["share"] = _ratio(row["sequences"], phase.sequences)
    total = {name: sum(row[name] for row in sources) for name in SUMMED}
    return {
        "phase": place + 1,
        "length": phase.length,
        "global_batch": phase.global_batch,
        "steps": phase.steps,
        "sequences": phase.sequences,
        "last_batch": phase.sequences - (phase.steps - 1) * phase.global_batch if phase.steps else 0,
        "stream_tokens": phase.sequences * phase.length,
        "exact": all(row["exact"] for row in sources),
        "sources": sources,
        "total": total | {"padding_share": _ratio(total["padding_tokens"], total["stream_tokens"])},
    }


def _source(plan: Plan, phase: Phase, name: str, source: PhaseSource) -> dict[str, Any]:
    asked, unique = Fraction(*source.epochs), source.unique
    epochs = Fraction(source.sequences, unique.sequences) if unique.sequences else Fraction(0)
    stream, tokens = source.sequences * phase.length, source.planned("tokens")
    return {
        "source": name,
        "class": plan.sources[name].class_name,
        "cut": plan.sources[name].cut,
        "reserved": plan.sources[name].reserved,
        "documents": plan.sources[name].documents,
        "tokens": plan.sources[name].tokens,
        "unique_documents": unique.documents,
        "unique_tokens": unique.tokens,
        "unique_sequences": unique.sequences,
        "asked_epochs": str(asked),
        "asked_epochs_decimal": float(asked),
        "asked_sequences": asked * unique.sequences,
        "epochs": str(epochs),
        "epochs_decimal": float(epochs),
        "exact": source.whole is not None,
        "sequences": source.sequences,
        "stream_tokens": stream,
        "source_tokens": tokens,
        "loss_tokens": source.planned("targets"),
        "padding_tokens": stream - tokens,
        "padding_share": _ratio(stream - tokens, stream),
        "cut_documents": unique.cut,
        "held_out_documents": source.held_out.documents,
        "held_out_tokens": source.held_out.tokens,
        "dropped_documents": sum(lost.documents for lost in source.dropped.values()),
        "dropped_tokens": sum(lost.tokens for lost in source.dropped.values()),
        "dropped": [
            {"reason": reason, "documents": lost.documents, "tokens": lost.tokens}
            for reason, lost in sorted(source.dropped.items())
        ],
        "worth": _worth(source, epochs),
    }


def _worth(source: PhaseSource, epochs: Fraction) -> dict[str, Any]:
    """Return what all epochs up to the end of the phase are worth, those before it included."""
    unique = source.unique
    given = epochs + source.start.epochs
    if unique.sequences:
        given += Fraction(source.start.sequences, unique.sequences)
    fresh = worth(unique.tokens, given)
    return {
        "epochs": float(given),
        "tokens": fresh,
        "unique_epochs": fresh / unique.tokens if unique.tokens else None,
        "share": fresh / float(unique.tokens * given) if unique.tokens and given else None,
    }


def _ratio(part: int | Fraction, whole: int | Fraction) -> float | None:
    return float(Fraction(part) / Fraction(whole)) if whole else None
