"""Loss curves of many runs on one plot, to be compared by hovering."""

from collections.abc import Sequence
from typing import Any

from experiments.claims.paper_experiments import place
from experiments.figures.style import class_colours
from experiments.runs.folders import RunFolder

LOSSES = {
    "loss/total": "total loss",
    "loss/reconstruction": "reconstruction",
    "loss/kl": "KL (nats)",
}
MOST_POINTS = 400
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def loss_curves(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """Return what the page's script draws with plotly.

    Args:
        runs: with rows; others are left out.

    Returns:
        ``losses``: keys and their titles; ``runs``: name, colour, dash, epochs and values by key.
    """
    shown = sorted((run for run in runs if run.rows), key=lambda run: (place(run.name), run.seed or 0))
    names = list(dict.fromkeys(run.name for run in shown))
    colours = dict(zip(names, class_colours(len(names)), strict=True))
    seeds = sorted({run.seed or 0 for run in shown})
    return {
        "losses": LOSSES,
        "runs": [
            {
                "name": f"{run.label} · seed {run.seed}",
                "colour": colours[run.name],
                "dash": DASHES[seeds.index(run.seed or 0) % len(DASHES)],
                **_thinned(run.rows),
            }
            for run in shown
        ],
    }


def _thinned(rows: Sequence[dict[str, float]]) -> dict[str, list[float | None]]:
    """Return columns, of at most so many points and always with the last one."""
    step = -(-len(rows) // MOST_POINTS)
    kept = [row for i, row in enumerate(rows) if i % step == 0 or i == len(rows) - 1]
    return {key: [_short(row.get(key)) for row in kept] for key in ("epoch", *LOSSES)}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
