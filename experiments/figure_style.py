"""One look for every figure: colours, sizes, the way to a file, and labels that stay readable.

Figures are made with matplotlib's objects alone, never through pyplot, so that drawing changes no state of
the process and needs no display. Everything about a figure is done inside ``with look():``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from experiments.runs import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
SIZE_IN = (6.4, 5.0)

# The paper's red, green and purple, apart in lightness too, so that they survive red-green blindness.
ORIGINAL = "#b3001b"
ALTERED = "#00a37a"
BETWEEN = "#8a5fb0"
PARTICLES = "#4a6a8f"
BACKGROUND = "#9a9a9a"
TOTAL = "#0072b2"
RECONSTRUCTION = "#d55e00"
KL = "#4d4d4d"

# Okabe and Ito's colours without their reds, which are the labels'; Paul Tol's muted ones for more classes.
_FEW_CLASSES = ("#0072b2", "#e69f00", "#009e73", "#56b4e9", "#cc79a7", "#4d4d4d")
_MORE_CLASSES = (
    "#332288",
    "#88ccee",
    "#44aa99",
    "#117733",
    "#999933",
    "#ddcc77",
    "#cc6677",
    "#882255",
    "#aa4499",
    "#bbbbbb",
)
_STYLE = {
    "axes.edgecolor": "#444444",
    "axes.labelcolor": "#222222",
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "font.size": 9.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


@contextmanager
def look() -> Iterator[None]:
    """Draw in the look of the suite, whatever the user's matplotlibrc says."""
    from matplotlib import style

    with style.context(["default", _STYLE]):
        yield


def figure(size_in: tuple[float, float] = SIZE_IN) -> "Figure":
    """Return an empty figure of a size in inches, at 150 dpi."""
    from matplotlib.figure import Figure

    return Figure(figsize=size_in, dpi=DPI, layout="constrained")


def save(fig: "Figure", path: Path) -> Path:
    """Write a figure as PNG, whole or not at all; its folder is made.

    Returns:
        ``path``.
    """
    return write_atomically(path, lambda unfinished: fig.savefig(unfinished, format="png", dpi=DPI))


def class_colours(n: int) -> list[str]:
    """Return a colour for each of n classes; beyond ten they come from one sequence of lightness."""
    if n <= len(_FEW_CLASSES):
        return list(_FEW_CLASSES[:n])
    if n <= len(_MORE_CLASSES):
        return list(_MORE_CLASSES[:n])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(rgba) for rgba in colormaps["viridis"](np.linspace(0, 0.95, n))]


def scatter_style(n: int) -> dict[str, float]:
    """Return the marker area (points squared) and opacity with which n points read.

    By eye, from single dots at 100 to a density at 131,899.
    """
    return {"s": 16 * min(1, (100 / n) ** 0.4), "alpha": min(0.8, 8 / n**0.35), "linewidths": 0}


def label_points(ax: "Axes", points: NDArray[np.float64], texts: Sequence[str], colours: Sequence[str]) -> None:
    """Write a label beside each point, clear of other labels and labelled points, with a line to its point.

    Greedy: point by point, the first of the free places on growing rings around it. To be called when all
    else is drawn, because it needs the final limits of the axes.

    Args:
        ax: where the points are drawn.
        points: (n, 2) in the data's units.
        texts: n labels.
        colours: n colours.
    """
    from matplotlib.patheffects import withStroke

    ax.figure.canvas.figure.draw_without_rendering()
    pixels_per_point = DPI / 72
    anchors = ax.transData.transform(points) / pixels_per_point
    frame = ax.get_window_extent()
    lower, upper = np.array([frame.p0, frame.p1]) / pixels_per_point
    taken = np.empty((0, 2))
    for anchor, point, text, colour in zip(anchors, points, texts, colours, strict=True):
        half = np.array([3.2 * len(text) + 1, 6.0])  # half of the text's box in points, at font size 10
        offset = _free_place(anchor, half, np.vstack([anchors, taken]), (lower, upper))
        taken = np.vstack([taken, anchor + offset])
        note = ax.annotate(
            text,
            xy=(float(point[0]), float(point[1])),
            xytext=(float(offset[0]), float(offset[1])),
            textcoords="offset points",
            ha="center",
            va="center_baseline",
            fontsize=10,
            fontweight="bold",
            color=colour,
            zorder=6,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 2},
        )
        note.set_in_layout(False)  # the labels fit the axes, not the axes the labels
        note.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _free_place(
    anchor: NDArray[np.float64],
    half: NDArray[np.float64],
    obstacles: NDArray[np.float64],
    frame: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Offset in points of a label from its anchor, clear of the obstacles and inside the frame."""
    clearance = 2 * half + np.array([-1.0, -1.0])
    least_crowded, fewest = np.array([0.0, 12.0]), np.inf
    for radius in (11, 15, 20, 26, 33, 41, 50, 60):
        for angle in np.pi / 4 + np.arange(16) * np.pi / 8:
            offset = radius * np.array([np.cos(angle), np.sin(angle)])
            centre = anchor + offset
            crowd = np.sum((np.abs(obstacles - centre) < clearance).all(axis=1))
            crowd += 100 * np.any((centre - half < frame[0]) | (centre + half > frame[1]))
            if crowd == 0:
                return offset
            if crowd < fewest:
                least_crowded, fewest = offset, crowd
    return least_crowded
