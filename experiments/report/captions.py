"""What the paper says an experiment shows, and beside it what was found here: never one for the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.claims.comparable_runs import ComparableRuns, setting_of
from experiments.claims.paper_figures import FIGURES, Shown
from experiments.report.numbers import BRIEF
from experiments.runs.folders import RunFolder


@dataclass(frozen=True)
class Caption:
    """Below a picture.

    Attributes:
        paper: its statement and where it stands there; empty for what is not in the paper.
        here: the numbers that decide it, with those of the reference.
    """

    paper: str
    here: str


def of_experiment(name: str, evidence: ComparableRuns) -> Caption | None:
    """Return the caption of an experiment, with the numbers of all its seeds; None where it is not in the paper."""
    shown = _shown(name)
    if shown is None:
        return None
    return Caption(f"{shown.statement} ({shown.where})", found_here(shown, evidence))


def of_run(run: RunFolder, groups: Sequence[ComparableRuns]) -> Caption | None:
    """Return the caption of a run, with its own numbers; those of the reference are of the same setting."""
    shown = _shown(run.name)
    if shown is None:
        return None
    setting = setting_of(run.config)
    evidence = next((one for one in groups if one.setting == setting), ComparableRuns({}))
    own = {key: [value] for key in shown.keys if (value := run.number(key)) is not None}
    return Caption(f"{shown.statement} ({shown.where})", _here(shown, own, evidence))


def found_here(shown: Shown, evidence: ComparableRuns, form: str = ".3g") -> str:
    """Return the numbers of a figure of the paper, seed by seed, and those of its reference.

    Args:
        shown: the figure.
        evidence: finished runs.
        form: of a number.

    Returns:
        e.g. "class accuracy 0.7 / 0.71 (baseline 0.73 / 0.74)"; "not run yet" where there is no number.
    """
    own = {key: list(evidence.numbers(shown.experiment, key).values()) for key in shown.keys}
    return _here(shown, own, evidence, form)


def _shown(name: str) -> Shown | None:
    return next((shown for shown in FIGURES if shown.experiment == name), None)


def _here(shown: Shown, own: Mapping[str, Sequence[float]], evidence: ComparableRuns, form: str = ".3g") -> str:
    parts = []
    for key in shown.keys:
        if not own.get(key):
            continue
        beside = _seeds(evidence.numbers(shown.reference, key).values(), form) if shown.reference else ""
        parts.append(f"{_label(key)} {_seeds(own[key], form)}" + (f" ({shown.reference} {beside})" if beside else ""))
    if not parts:
        return "not run yet"
    return "; ".join(filter(None, [*parts, evidence.undertrained(shown.reference or shown.experiment)]))


def _seeds(values: Any, form: str) -> str:
    return " / ".join(format(value, form) for value in values)


def _label(key: str) -> str:
    return BRIEF.get(key) or key.rpartition("/")[2].replace("_", " ").replace("epoch s", "seconds per epoch")
