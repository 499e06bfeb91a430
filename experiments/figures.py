"""Pictures of a run: its loss, its latents, and where altered images go. Each is a PNG at 150 dpi."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments import figure_style as look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]


def loss_curve(log_rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw total and reconstruction loss, and KL below them, against the epoch.

    Args:
        log_rows: the rows of ``log.csv``, numbers or text, with ``epoch``, ``loss/total``,
            ``loss/reconstruction`` and ``loss/kl``. What is missing or not finite in a row is left out.
        path: of the PNG.

    Returns:
        ``path``.
    """
    from matplotlib.ticker import MaxNLocator

    with look.look():
        fig = look.figure()
        upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        _curve(upper, log_rows, "loss/total", "total", look.TOTAL)
        _curve(upper, log_rows, "loss/reconstruction", "reconstruction", look.RECONSTRUCTION)
        _curve(lower, log_rows, "loss/kl", "KL", look.KL)
        upper.set(ylabel="loss")
        upper.legend()
        lower.set(ylabel="KL (nats)", xlabel="epoch")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        fig.align_ylabels()
        return look.save(fig, path)


def latent_space(
    map_xy: ArrayLike,
    path: Path,
    title: str = "",
    axis_labels: tuple[str, str] = ("UMAP1", "UMAP2"),
    labels: ArrayLike | None = None,
    n_labelled: int = 10,
) -> Path:
    """Draw all latents, the first particles numbered in red (paper, Figs. 3, 5, 7 to 9 and 21 to 26).

    Args:
        map_xy: (N, 2) latents on a map, as ``latent_maps`` makes it.
        path: of the PNG.
        title: over the picture.
        axis_labels: of the map.
        labels: (N,) true states, which then colour the points.
        n_labelled: how many particles are numbered, from 1.

    Returns:
        ``path``.

    Raises:
        ValueError: an array has the wrong shape.
    """
    xy = _points(map_xy)
    with look.look():
        fig = look.figure()
        ax = fig.subplots()
        ax.set(xlabel=axis_labels[0], ylabel=axis_labels[1], title=title)
        draw_latents(ax, xy, labels)
        number_particles(ax, xy[:n_labelled])
        return look.save(fig, path)


def displaced_latents(
    map_xy: ArrayLike,
    map_xy_altered: ArrayLike,
    path: Path,
    title: str = "",
    axis_labels: tuple[str, str] = ("UMAP1", "UMAP2"),
    n_labelled: int = 10,
) -> Path:
    """Draw where the first particles' latents go when their images are altered (paper, Figs. 10 and 11).

    Originals i are red, their altered twins i' green, with purple lines between; all originals are grey.

    Args:
        map_xy: (N, 2) latents on a map.
        map_xy_altered: (N, 2) latents of the altered images on the same map.
        path: of the PNG.
        title: over the picture.
        axis_labels: of the map.
        n_labelled: how many particles are numbered, from 1.

    Returns:
        ``path``.

    Raises:
        ValueError: an array has the wrong shape.
    """
    xy, moved = _points(map_xy), _points(map_xy_altered)
    if xy.shape != moved.shape:
        raise ValueError(f"there must be an altered twin for each of {len(xy)} particles, found {len(moved)}")
    with look.look():
        fig = look.figure()
        ax = fig.subplots()
        ax.set(xlabel=axis_labels[0], ylabel=axis_labels[1], title=title)
        draw_latents(ax, xy, colour=look.BACKGROUND)
        fig.legend(handles=_displaced_legend(), loc="outside lower center", ncols=3)
        number_particles(ax, xy[:n_labelled], moved[:n_labelled])
        return look.save(fig, path)


def draw_latents(ax: "Axes", xy: Floats, labels: ArrayLike | None = None, colour: str = look.PARTICLES) -> None:
    """Scatter all latents; in the colour of their true state where ``labels`` (N,) are given."""
    from matplotlib.lines import Line2D

    marks: dict[str, Any] = {**look.scatter_style(len(xy)), "rasterized": True, "zorder": 1}
    if labels is None:
        ax.scatter(xy[:, 0], xy[:, 1], color=colour, **marks)
        return
    states, state = np.unique(np.asarray(labels), return_inverse=True)
    if state.shape != (len(xy),):
        raise ValueError(f"expected one label for each of {len(xy)} particles, found shape {state.shape}")
    colours = look.class_colours(len(states))
    # In random order: drawn state by state, the last would hide the others.
    order = np.random.default_rng(0).permutation(len(xy))
    ax.scatter(xy[order, 0], xy[order, 1], color=np.array(colours)[state[order]], **marks)
    handles = [Line2D([], [], marker="o", linestyle="", markersize=6, color=c) for c in colours]
    ax.legend(handles, [str(s) for s in states], title="true state", loc="upper left", bbox_to_anchor=(1, 1))


def number_particles(ax: "Axes", xy: Floats, moved: Floats | None = None) -> None:
    """Number particles from 1 in red; with ``moved``, also their twins i' in green, purple lines between."""
    names = [str(i + 1) for i in range(len(xy))]
    points, colours = xy, [look.ORIGINAL] * len(xy)
    if moved is not None:
        for start, end in zip(xy, moved, strict=True):
            ax.plot(*np.transpose([start, end]), color=look.BETWEEN, linewidth=1.3, zorder=3)
        _mark(ax, moved, look.ALTERED, "D")
        points = np.vstack([xy, moved])
        colours = colours + [look.ALTERED] * len(moved)
        names = names + [f"{name}'" for name in names]
    _mark(ax, xy, look.ORIGINAL, "o")
    look.label_points(ax, points, names, colours)


def _displaced_legend() -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], marker=marker, linestyle="", markersize=size, color=colour, label=label)
        for marker, size, colour, label in (
            ("o", 5, look.ORIGINAL, "i: original"),
            ("D", 5, look.ALTERED, "i': altered"),
            ("o", 3, look.BACKGROUND, "all originals"),
        )
    ]


def _mark(ax: "Axes", xy: Floats, colour: str, marker: str) -> None:
    ax.scatter(xy[:, 0], xy[:, 1], s=26, color=colour, marker=marker, edgecolors="white", linewidths=0.7, zorder=5)


def _curve(ax: "Axes", rows: Sequence[Mapping[str, Any]], key: str, label: str, colour: str) -> None:
    pairs = np.array([(_number(row.get("epoch")), _number(row.get(key))) for row in rows]).reshape(-1, 2)
    epoch, value = pairs[np.isfinite(pairs).all(axis=1)].T
    ax.plot(epoch, value, label=label, color=colour, marker="o" if len(epoch) <= 20 else "", markersize=3.5)


def _number(text: Any) -> float:
    """Return a cell of the log as a number; NaN where it is empty."""
    return float(text) if text not in (None, "") else float("nan")


def _points(map_xy: ArrayLike) -> Floats:
    xy = np.asarray(map_xy, dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2 or not len(xy):
        raise ValueError(f"a map of latents must be (N, 2), found shape {xy.shape}")
    return xy
