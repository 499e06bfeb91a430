"""All latents on one pair of axes: single points where they can be told apart, their density where they cannot."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.figures import style as look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

DENSITY_FROM = 20_000  # points; more of them hide each other, however small and faint
_CELLS = 300  # along an axis of the density: about 2.5 px each
_FAINTEST = 0.25  # opacity of a cell with a single particle
_LONGEST_LEGEND = 12  # states


def draw_latents(
    ax: "Axes",
    xy: Floats,
    labels: ArrayLike | None = None,
    colour: str = look.PARTICLES,
    also_within: Floats | None = None,
) -> None:
    """Draw all latents; in the colour of their true state where ``labels`` are given, with a legend.

    Args:
        ax: where. Its limits are set around the latents.
        xy: (N, 2) points.
        labels: (N,) true states.
        colour: of all points where there are no labels.
        also_within: (n, 2) other points that the limits must enclose.

    Raises:
        ValueError: not one label for each particle.
    """
    states, state = np.zeros(1), np.zeros(len(xy), dtype=int)
    colours = [colour]
    if labels is not None:
        states, state = np.unique(np.asarray(labels), return_inverse=True)
        if state.shape != (len(xy),):
            raise ValueError(f"expected one label for each of {len(xy)} particles, found shape {state.shape}")
        colours = look.class_colours(len(states))
    enclosed = xy if also_within is None else np.vstack([xy, also_within])
    low, high = enclosed.min(axis=0), enclosed.max(axis=0)
    margin = np.where(high > low, 0.04 * (high - low), np.maximum(0.05, 0.05 * np.abs(low)))
    ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    if len(xy) >= DENSITY_FROM:
        _draw_density(ax, xy, state, _rgb(colours))
    else:
        # In random order: drawn state by state, the last would hide the others.
        order = np.random.default_rng(0).permutation(len(xy))
        marks: dict[str, Any] = {**look.scatter_style(len(xy)), "rasterized": True, "zorder": 1}
        ax.scatter(*xy[order].T, color=_rgb(colours)[state[order]], **marks)
    if labels is not None:
        _name_states(ax, states, colours)


def _draw_density(ax: "Axes", xy: Floats, state: NDArray[np.int64], rgb: Floats) -> None:
    """A 2-D histogram: opacity is the logarithm of the count, colour the mean of the particles' colours."""
    (x_low, x_high), (y_low, y_high) = ax.get_xlim(), ax.get_ylim()
    limits = [(x_low, x_high), (y_low, y_high)]
    counts = np.zeros((_CELLS, _CELLS, len(rgb)))
    for s in range(len(rgb)):
        x, y = xy[state == s].T
        counts[..., s] = np.histogram2d(x, y, _CELLS, limits)[0]
    total = counts.sum(axis=-1)
    occupied = total > 0
    shade = np.zeros((_CELLS, _CELLS, 4))
    shade[occupied, :3] = counts[occupied] @ rgb / total[occupied, None]
    dense = max(2.0, np.percentile(total[occupied], 99))
    strength = np.log(np.minimum(total[occupied], dense)) / np.log(dense)
    shade[occupied, 3] = _FAINTEST + (1 - _FAINTEST) * strength
    extent = (x_low, x_high, y_low, y_high)
    ax.imshow(shade.swapaxes(0, 1), origin="lower", extent=extent, aspect="auto", interpolation="nearest", zorder=1)


def _name_states(ax: "Axes", states: NDArray[Any], colours: list[str]) -> None:
    """Put a legend of the states below the axes, or a scale where they are many."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.lines import Line2D

    fig = ax.figure
    if len(states) <= _LONGEST_LEGEND:
        handles = [Line2D([], [], marker="o", linestyle="", markersize=6, color=c) for c in colours]
        handles = [Line2D([], [], linestyle=""), *handles]
        names = ["true class", *map(str, states)]
        options = {"handletextpad": 0.1, "columnspacing": 1.2}
        fig.legend(handles, names, loc="outside lower center", ncols=len(handles), **options)
        return
    scale = ScalarMappable(BoundaryNorm(np.arange(len(states) + 1), len(states)), ListedColormap(colours))
    ticks = np.unique(np.linspace(0, len(states) - 1, 6).round().astype(int))
    bar = fig.colorbar(scale, ax=ax, location="bottom", shrink=0.6, aspect=40, label="true class")
    bar.set_ticks(list(ticks + 0.5), labels=[str(states[t]) for t in ticks])
    bar.minorticks_off()


def _rgb(colours: list[str]) -> Floats:
    from matplotlib.colors import to_rgb

    return np.array([to_rgb(colour) for colour in colours])
