"""The report of a search: what was gained, where, and by which step; as Markdown, JSON and YAML."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import yaml

from vesuvius.tuning.cases import Case
from vesuvius.tuning.chains import Chain, StepSpec, chain_config
from vesuvius.tuning.selection import Selection, StepGain
from vesuvius.tuning.statistics import Floats, Interval, bootstrap_mean

BASELINE: Chain = (
    StepSpec.of(
        "threshold",
        {"_target_": "vesuvius.postprocess.steps.thresholds.Threshold", "threshold": 0.5},
    ),
)
"""What every gain is measured against: p > 0.5."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything the report shows.

    Attributes:
        cases: volumes.
        selection: the chain and how it was chosen.
        baseline: scores of p > 0.5.
        trials: finished trials.
        held_out: each volume's score by the chain chosen without it; None without folds.
        folds_by: "volume", "scroll" or "".
    """

    cases: tuple[Case, ...]
    selection: Selection
    baseline: Floats
    trials: int
    held_out: Floats | None
    folds_by: str

    @property
    def scrolls(self) -> list[str]:
        """Scroll of each volume."""
        return [case.scroll for case in self.cases]

    def interval(self, values: Floats) -> Interval:
        """Return mean and interval of one value a volume."""
        return bootstrap_mean(values, self.scrolls)


def summarise(
    cases: Sequence[Case], selection: Selection, baseline: Floats, *, trials: int, folds_by: str
) -> Summary:
    """Return the summary of a search."""
    held_out = None
    if selection.folds:
        held_out = np.full(len(cases), np.nan)
        for choice in selection.folds:
            held_out[list(choice.held_out)] = choice.scores
    return Summary(tuple(cases), selection, baseline, trials, held_out, folds_by)


def as_json(summary: Summary) -> dict[str, Any]:
    """Return the report as plain values."""
    rows = [
        {
            "volume": case.name,
            "scroll": case.scroll,
            "baseline": float(summary.baseline[i]),
            "tuned": float(summary.selection.scores[i]),
            "held_out": None if summary.held_out is None else float(summary.held_out[i]),
        }
        for i, case in enumerate(summary.cases)
    ]
    means = {"baseline": summary.baseline, "tuned": summary.selection.scores}
    means["tuned_gain"] = summary.selection.scores - summary.baseline
    if summary.held_out is not None:
        means["held_out"] = summary.held_out
        means["held_out_gain"] = summary.held_out - summary.baseline
    return {
        "chain": chain_config(summary.selection.chain),
        "trial": summary.selection.trial,
        "trials": summary.trials,
        "folds_by": summary.folds_by,
        "means": {name: asdict(summary.interval(values)) for name, values in means.items()},
        "steps": [_step_json(gain, summary.selection) for gain in summary.selection.gains],
        "folds": [
            {
                "held_out": [summary.cases[i].name for i in choice.held_out],
                "trial": choice.trial,
                "chosen_on": choice.chosen_on,
                "score": float(choice.scores.mean()),
                "chain": chain_config(choice.chain)["step"],
            }
            for choice in summary.selection.folds
        ],
        "volumes": rows,
    }


def as_yaml(summary: Summary) -> str:
    """Return the chain as an option of the configuration group `postprocess`."""
    mean = summary.interval(summary.selection.scores)
    head = f"# Chain found by vesuvius tune: {mean} on {len(summary.cases)} volumes"
    if summary.held_out is not None:
        head += f",\n# chosen without the scored {summary.folds_by}: "
        head += f"{summary.interval(summary.held_out)}"
    return f"{head}.\n{yaml.safe_dump(chain_config(summary.selection.chain), sort_keys=False)}"


def as_markdown(summary: Summary) -> str:
    """Return the report as Markdown."""
    parts = [
        "# Post-processing, tuned",
        f"{len(summary.cases)} volumes, {summary.trials} finished trials. Scores are the official "
        "score; intervals are 95 % bootstrap intervals over "
        f"{'scrolls' if len(set(summary.scrolls)) >= 3 else 'volumes'}.",
        _means_table(summary),
        "## Steps",
        "Gain of a step: score with it minus score without it, all else equal, on volumes that had "
        "no part in choosing its chain unless marked *.",
        _steps_table(summary.selection),
        _verdict(summary.selection),
        "## Volumes",
        _volumes_table(summary),
        "## Chain",
        "```yaml\n" + as_yaml(summary) + "```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def verdict_of(gain: StepGain, selection: Selection) -> str:
    """Return "kept", "dropped", "kept on request" or "not in the chain"."""
    if gain.name in selection.dropped:
        return "dropped: hurts more than it helps"
    if gain.name in selection.kept:
        return "kept on request, hurts more than it helps"
    if gain.name not in {step.name for step in selection.chain}:
        return "not in the chain"
    return "kept"


def _step_json(gain: StepGain, selection: Selection) -> dict[str, Any]:
    return {
        "step": gain.name,
        "gain": asdict(bootstrap_mean(gain.gains)),
        "helps": gain.helps,
        "harms": gain.harms,
        "held_out": gain.held_out,
        "verdict": verdict_of(gain, selection),
        "volumes": dict(zip(gain.cases, gain.gains.tolist(), strict=True)),
    }


def _means_table(summary: Summary) -> str:
    rows: list[tuple[str, Floats, Floats | None]] = [("threshold 0.5", summary.baseline, None)]
    if summary.held_out is not None:
        name = f"chosen without the scored {summary.folds_by}"
        rows.append((name, summary.held_out, summary.held_out - summary.baseline))
    tuned = summary.selection.scores
    rows.append(("final chain, on the volumes it was chosen on", tuned, tuned - summary.baseline))
    lines = ["| | score | gain | better on | worst volume |", "|---|---|---|---|---|"]
    for name, scores, gain in rows:
        cells = ["", "", ""]
        if gain is not None:
            share = f"{int((gain > 0).sum())} of {len(gain)}"
            cells = [str(summary.interval(gain)), share, f"{gain.min():+.4f}"]
        lines.append(f"| {name} | {summary.interval(scores)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _steps_table(selection: Selection) -> str:
    lines = ["| step | mean gain | helps | harms | best | worst | verdict |"]
    lines.append("|---|---|---|---|---|---|---|")
    for gain in sorted(selection.gains, key=lambda one: -float(one.gains.mean())):
        values = gain.gains
        mark = "" if gain.held_out else " *"
        lines.append(
            f"| {gain.name}{mark} | {bootstrap_mean(values)} | {int((values > 0).sum())} of "
            f"{len(values)} | {int((values < 0).sum())} | {values.max():+.4f} | "
            f"{values.min():+.4f} | {verdict_of(gain, selection)} |"
        )
    return "\n".join(lines)


def _verdict(selection: Selection) -> str:
    if selection.dropped:
        return f"Dropped: {', '.join(selection.dropped)} (--keep-harmful keeps them)."
    if selection.kept:
        return f"Kept on request although they hurt more than they help: {selection.kept}."
    return ""


def _volumes_table(summary: Summary) -> str:
    lines = [
        "| volume | scroll | threshold 0.5 | held out | final chain |",
        "|---|---|---|---|---|",
    ]
    order = np.argsort(summary.selection.scores)
    for i in order.tolist():
        case = summary.cases[i]
        held = "" if summary.held_out is None else f"{summary.held_out[i]:.4f}"
        lines.append(
            f"| {case.name} | {case.scroll} | {summary.baseline[i]:.4f} | {held} | "
            f"{summary.selection.scores[i]:.4f} |"
        )
    return "\n".join(lines)
