"""A picture of what encoders memorize, against their size and the number of particles."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.figures import style as look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, Any]]

# What is drawn, what it is called, and with what it is compared: the baseline (dashed), and chance (dotted).
PANELS = (
    ("class_accuracy", "class accuracy of permuted twins", "class_accuracy_baseline", "class_chance"),
    ("neighbourhood_overlap", "neighbours in common with the baseline", None, "overlap_chance"),
)


def capacity(rows: Rows, path: Path, title: str = "What an encoder memorizes") -> Path:
    """Draw class accuracy and agreement with the baseline against the size of the encoder, a line for each N.

    Seeds are averaged; a bar goes from the least to the most. A panel of which nothing is known is left out.

    Args:
        rows: one per run, with the fields of ``capacity.Memorized``.
        path: of the PNG.
        title: over the picture.

    Returns:
        ``path``.
    """
    shown = [panel for panel in PANELS if any(row[panel[0]] is not None for row in rows)] or PANELS[:1]
    numbers = sorted({row["n_particles"] for row in rows})
    colours = look.line_colours(len(numbers))
    with look.look():
        fig = look.figure((4.6 * len(shown) + 0.4, 4.2))
        axes = fig.subplots(1, len(shown), squeeze=False)[0]
        for ax, (key, label, baseline, chance) in zip(axes, shown, strict=True):
            for n_particles, colour in zip(numbers, colours, strict=True):
                these = [row for row in rows if row["n_particles"] == n_particles]
                _line(ax, these, key, colour, f"{n_particles:,}", marker="o")
                if baseline is not None:
                    _line(ax, these, baseline, colour, None, linestyle="--", linewidth=1.0)
                _line(ax, these, chance, colour, None, linestyle=":", linewidth=1.0)
            ax.set(xscale="log", xlabel="weights of the encoder", ylabel=label, ylim=(0, 1))
        axes[0].set_title(title)
        axes[-1].legend(title="particles", loc="upper left", bbox_to_anchor=(1, 1))
        dashes = "dashed: baseline with the same encoder; " if "class_accuracy" in [key for key, *_ in shown] else ""
        fig.supxlabel(f"{dashes}dotted: chance", fontsize=8.5, color="#444444")
        return look.save(fig, path)


def _line(ax: "Axes", rows: Rows, key: str, colour: str, label: str | None, **style: Any) -> None:
    """Draw one quantity against the encoder's size."""
    known = [row for row in rows if row[key] is not None]
    sizes = sorted({row["encoder_weights"] for row in known})
    if not sizes:
        return
    values = [np.array([row[key] for row in known if row["encoder_weights"] == size]) for size in sizes]
    mean = np.array([each.mean() for each in values])
    ax.plot(sizes, mean, color=colour, label=label, **style)
    if any(len(each) > 1 for each in values) and "marker" in style:
        reach = np.array([[m - each.min(), each.max() - m] for m, each in zip(mean, values, strict=True)]).T
        ax.errorbar(sizes, mean, yerr=reach, fmt="none", ecolor=colour, elinewidth=1, capsize=2)
