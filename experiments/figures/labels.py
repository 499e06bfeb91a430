"""Labels that stay readable: each beside its point, clear of other labels, labelled points, lines and the frame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

FONT_SIZE = 10
# Sizes in points at that font size.
_HALF_HEIGHT, _HALF_WIDTH_OF_LETTER = 6.0, 3.2
_RADII = (11, 15, 20, 26, 33, 41, 50, 60)
_ANGLES = np.pi / 4 + np.arange(16) * np.pi / 8
# What a place costs. A line behind a label is read through its white rim; another label is not.
_HIDES_LABEL, _OUTSIDE, _ON_LINE = 100.0, 1000.0, 1.0


def label_points(
    ax: "Axes",
    points: Floats,
    texts: Sequence[str],
    colours: Sequence[str],
    lines: Floats | None = None,
) -> None:
    """Write a label beside each point, with a line to its point.

    Greedy: point by point, the cheapest of the places on growing rings around it, the nearest of equals. To be
    called when all else is drawn, because it needs the final limits of the axes.

    Args:
        ax: where the points are drawn.
        points: (n, 2) in the data's units.
        texts: n labels.
        colours: n colours.
        lines: (k, 2, 2) starts and ends of drawn lines, in px of the figure, that labels keep off if they can.
    """
    from matplotlib.patheffects import withStroke

    figure = ax.figure.canvas.figure
    figure.draw_without_rendering()
    px_per_point = figure.dpi / 72
    anchors = ax.transData.transform(points) / px_per_point
    bounds = ax.get_window_extent()
    frame = np.array([bounds.p0, bounds.p1]) / px_per_point
    on_lines = _along(np.zeros((0, 2, 2)) if lines is None else np.asarray(lines) / px_per_point)
    halves = [np.array([_HALF_WIDTH_OF_LETTER * len(text) + 1, _HALF_HEIGHT]) for text in texts]
    taken, taken_halves = anchors, np.full((len(anchors), 2), 4.0)  # the marks of the points
    for anchor, half, point, text, colour in zip(anchors, halves, points, texts, colours, strict=True):
        offset = _cheapest_place(anchor, half, (taken, taken_halves), on_lines, frame)
        taken, taken_halves = np.vstack([taken, anchor + offset]), np.vstack([taken_halves, half])
        note = ax.annotate(
            text,
            xy=(float(point[0]), float(point[1])),
            xytext=(float(offset[0]), float(offset[1])),
            textcoords="offset points",
            ha="center",
            va="center_baseline",
            fontsize=FONT_SIZE,
            fontweight="bold",
            color=colour,
            zorder=6,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 2},
        )
        note.set_in_layout(False)  # the labels fit the axes, not the axes the labels
        note.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _along(lines: Floats, step: float = 4.0) -> Floats:
    """Points (m, 2) along lines (k, 2, 2), about a step apart."""
    between = [np.zeros((0, 2))]
    for start, end in lines:
        n = 2 + int(np.hypot(*(end - start)) / step)
        between.append(np.linspace(start, end, n))
    return np.concatenate(between)


def _cheapest_place(
    anchor: Floats, half: Floats, taken: tuple[Floats, Floats], on_lines: Floats, frame: Floats
) -> Floats:
    """Offset (2,) in points of a label's centre from its anchor.

    Args:
        anchor: (2,) the labelled point.
        half: (2,) half width and height of the label.
        taken: centres (n, 2) and half sizes (n, 2) of what the label must not hide.
        on_lines: (m, 2) points of lines.
        frame: (2, 2) lower left and upper right corner.
    """
    offsets = np.array([(r * np.cos(a), r * np.sin(a)) for r in _RADII for a in _ANGLES])
    centres = anchor + offsets
    apart = np.abs(centres[:, None] - taken[0])
    cost = _HIDES_LABEL * (apart < half + taken[1]).all(axis=-1).sum(axis=1)
    cost = cost + _ON_LINE * (np.abs(centres[:, None] - on_lines) < half).all(axis=-1).any(axis=1)
    cost = cost + _OUTSIDE * ((centres - half < frame[0]) | (centres + half > frame[1])).any(axis=1)
    return np.asarray(offsets[int(np.argmin(cost))])
