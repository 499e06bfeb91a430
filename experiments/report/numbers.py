"""Final numbers as text: beside a run, and in one table that sorts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.runs.folders import RunFolder
from experiments.runs.summary import SHOWN

# In this order; other groups of keys come after them.
GROUPS = ("loss", "latents", "volumes", "amortization", "heldout")
LAST = ("time", "images_per_s")
# Beside the small pictures.
BRIEF = {
    "latents/knn_class_accuracy": "class accuracy",
    "latents/knn_hinge_r2": "hinge R2",
    "volumes/diversity": "volume diversity",
    "amortization/displacement_ratio": "displacement",
    "amortization/neighbour_rank": "neighbour rank",
    "loss/total": "loss",
    "audit/verdict": "verdict",
    "audit/train/share": "share of what z could tell, in training",
    "audit/unseen/share": "unseen",
    "audit/rotate_90_consistent/share": "turned",
}
MOST_BRIEF = 3


@dataclass(frozen=True)
class Value:
    """A cell: its text, and what it is sorted by."""

    text: str
    order: str


@dataclass(frozen=True)
class Row:
    """A run in the table."""

    name: str
    anchor: str
    seed: int | None
    values: list[Value]


@dataclass(frozen=True)
class Table:
    """All final numbers; a key per column."""

    keys: list[str]
    rows: list[Row]


def table(runs: Sequence[RunFolder], anchors: dict[Path, str]) -> Table:
    """Lay out the final numbers of finished runs."""
    keys = sorted({key for run in runs for key in run.metrics}, key=_order)
    rows = [Row(run.label, anchors[run.folder], run.seed, [_value(run, key) for key in keys]) for run in runs]
    return Table(keys, rows)


def labelled(run: RunFolder, brief: bool = False) -> list[tuple[str, str]]:
    """Return label and text of a run's numbers; if brief, the few that are looked at first."""
    if brief:
        return [(label, number(run.metrics[key])) for key, label in BRIEF.items() if key in run.metrics][:MOST_BRIEF]
    return [(SHOWN.get(key, key), number(run.metrics[key])) for key in sorted(run.metrics, key=_order)]


def number(value: Any) -> str:
    """Write a number with four digits; "–" where there is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            return "–"
        return str(value) if isinstance(value, int) else f"{value:.4g}"
    return "–" if value is None else str(value)


def _order(key: str) -> tuple[int, int, str]:
    first, known = key.partition("/")[0], list(SHOWN)
    within = known.index(key) if key in known else len(known)
    if first in LAST:
        return (len(GROUPS) + 1 + LAST.index(first), within, key)
    return (GROUPS.index(first) if first in GROUPS else len(GROUPS), within, key)


def _value(run: RunFolder, key: str) -> Value:
    value = run.number(key)
    return Value(number(run.metrics.get(key)), "" if value is None else repr(value))
