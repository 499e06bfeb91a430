"""Latents of a run on their map, with the volumes of the first particles around it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.figures import style as look
from experiments.figures.labels import label_points
from experiments.figures.latent_maps import UMAP_AXES
from experiments.figures.scatter import draw_latents
from experiments.figures.volume_pictures import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_MAP_WIDTH_IN, _HEIGHT_IN = 6.2, 6.0
_PICTURE_IN = 1.95


def latent_space(
    map_xy: ArrayLike,
    path: Path,
    title: str = "",
    axis_labels: tuple[str, str] = ("UMAP1", "UMAP2"),
    labels: ArrayLike | None = None,
    n_labelled: int = 10,
    pictures: Sequence[Picture] = (),
) -> Path:
    """Draw all latents, the first particles numbered in red (paper, Figs. 3, 5, 7 to 9 and 21 to 26).

    Args:
        map_xy: (N, 2) latents on a map, as ``latent_maps`` makes it.
        path: of the PNG.
        title: over the picture.
        axis_labels: of the map.
        labels: (N,) true states, which then colour the points.
        n_labelled: how many particles are numbered, from 1.
        pictures: of the volumes of the first particles. They stand around the map, joined to their points.

    Returns:
        ``path``.

    Raises:
        ValueError: an array has the wrong shape.
    """
    xy = _points(map_xy)
    if len(pictures) > len(xy):
        raise ValueError(f"there are {len(pictures)} volumes of {len(xy)} particles")
    with look.look():
        fig, ax, slots = _map_among_pictures(len(pictures), 1)
        _name_axes(ax, axis_labels, title)
        draw_latents(ax, xy, labels)
        captions = [((f"{i + 1}", look.ORIGINAL),) for i in range(len(pictures))]
        leaders = _hang(ax, xy[: len(pictures)], slots, [[picture] for picture in pictures], captions)
        first = xy[:n_labelled]
        _mark(ax, first, look.ORIGINAL, "o")
        label_points(ax, first, [str(i + 1) for i in range(len(first))], [look.ORIGINAL] * len(first), leaders)
        return look.save(fig, path)


def displaced_latents(
    map_xy: ArrayLike,
    map_xy_altered: ArrayLike,
    path: Path,
    title: str = "",
    axis_labels: tuple[str, str] = ("UMAP1", "UMAP2"),
    n_labelled: int = 10,
    pictures: Sequence[Picture] = (),
    pictures_altered: Sequence[Picture] = (),
) -> Path:
    """Draw where the first particles' latents go when their images are altered (paper, Figs. 10 and 11).

    Originals i are red, their altered twins i' green, with purple lines between; all originals are grey.

    Args:
        map_xy: (N, 2) latents on a map.
        map_xy_altered: (n, 2) latents of the first n altered images on the same map.
        path: of the PNG.
        title: over the picture.
        axis_labels: of the map.
        n_labelled: how many particles are numbered, from 1.
        pictures: of the volumes of the first originals. They stand around the map, joined to their points.
        pictures_altered: of the volumes of their altered twins, as many.

    Returns:
        ``path``.

    Raises:
        ValueError: an array has the wrong shape.
    """
    xy, moved = _points(map_xy), _points(map_xy_altered)
    n_labelled = min(n_labelled, len(xy))
    if not n_labelled <= len(moved) <= len(xy):
        raise ValueError(f"there must be an altered twin for each of {n_labelled} particles, found {len(moved)}")
    if len(pictures) != len(pictures_altered) or len(pictures) > len(xy):
        raise ValueError(f"there are volumes of {len(pictures)} originals and {len(pictures_altered)} altered twins")
    with look.look():
        fig, ax, slots = _map_among_pictures(len(pictures), 2)
        _name_axes(ax, axis_labels, title)
        draw_latents(ax, xy, colour=look.BACKGROUND, also_within=moved[:n_labelled])
        fig.legend(handles=_displaced_legend(), loc="outside lower center", ncols=4)
        pairs = [list(pair) for pair in zip(pictures, pictures_altered, strict=True)]
        captions = [((f"{i + 1}", look.ORIGINAL), (f"{i + 1}'", look.ALTERED)) for i in range(len(pairs))]
        leaders = _hang(ax, xy[: len(pairs)], slots, pairs, captions)
        _join(ax, xy[:n_labelled], moved[:n_labelled], leaders)
        return look.save(fig, path)


def single_volume(picture: Picture, path: Path, title: str = "") -> Path:
    """Draw the one volume of a run whose latents are all equal (paper, Fig. 22).

    Args:
        picture: of the volume.
        path: of the PNG.
        title: over the picture.

    Returns:
        ``path``.
    """
    with look.look():
        fig = look.figure((4.4, 4.8))
        ax = fig.subplots()
        ax.set(title=title)
        _show(ax, _cropped([picture])[0])
        ax.set_xlabel("the volume of every particle: all latents are equal")
        return look.save(fig, path)


def _map_among_pictures(n_slots: int, per_slot: int) -> "tuple[Figure, Axes, list[list[Axes]]]":
    """Make a figure with a map and, left and right of it, slots of one or two pictures.

    Returns:
        The figure, the map's axes, and the axes of each slot, the nearest to the map first.
    """
    if not n_slots:
        fig = look.figure()
        return fig, fig.subplots(), []
    rows = max(2, -(-n_slots // 2))
    picture_in = min(_PICTURE_IN, _HEIGHT_IN / rows)
    picture_in *= 0.82 if per_slot == 2 else 1
    widths = [picture_in] * per_slot + [_MAP_WIDTH_IN] + [picture_in] * per_slot
    fig = look.figure((sum(widths), _HEIGHT_IN), pad_in=0.03, space=0.01)
    grid = fig.add_gridspec(rows, len(widths), width_ratios=widths)
    ax = fig.add_subplot(grid[:, per_slot])
    left, right = range(per_slot)[::-1], range(per_slot + 1, 2 * per_slot + 1)
    n_left = -(-n_slots // 2)
    places = [(row, left) for row in range(n_left)] + [(row, right) for row in range(n_slots - n_left)]
    slots = [[fig.add_subplot(grid[row, column]) for column in columns] for row, columns in places]
    for panel in (panel for slot in slots for panel in slot):
        panel.set(xticks=[], yticks=[], box_aspect=1)
    return fig, ax, slots


def _name_axes(ax: "Axes", axis_labels: tuple[str, str], title: str) -> None:
    # At the far ends, where lines to the pictures seldom pass.
    ax.set_xlabel(axis_labels[0], loc="right")
    ax.set_ylabel(axis_labels[1], loc="top")
    ax.set_title(title)
    if axis_labels == UMAP_AXES:  # their scale means nothing
        ax.set(xticks=[], yticks=[])


def _hang(
    ax: "Axes",
    points: Floats,
    slots: "list[list[Axes]]",
    pictures: Sequence[Sequence[Picture]],
    captions: Sequence[Sequence[tuple[str, str]]],
) -> Floats | None:
    """Hang pictures into slots around the map so that their lines to the points do not cross.

    Of all ways, the lines are shortest in sum: two that cross could be exchanged for two shorter ones.

    Args:
        ax: the map, finished but for its labels.
        points: (n, 2) one for each slot.
        slots: axes beside the map.
        pictures: those of each point.
        captions: text and colour of each picture.

    Returns:
        (n, 2, 2) the lines, from slot to point, in px of the figure; None without slots.
    """
    from matplotlib.patches import ConnectionPatch
    from matplotlib.patheffects import withStroke
    from scipy.optimize import linear_sum_assignment

    if not slots:
        return None
    for tick in ax.get_yticklabels():  # they stay readable where a line passes
        tick.set_path_effects([withStroke(linewidth=3, foreground="white")])
    ax.yaxis.set_zorder(4.5)
    cropped = iter(_cropped([picture for some in pictures for picture in some]))
    ax.figure.canvas.figure.draw_without_rendering()
    map_left = ax.get_window_extent().x0
    nearest = [slot[0].get_window_extent() for slot in slots]
    is_left = [box.x1 < map_left for box in nearest]
    start = np.array([(b.x1 if left else b.x0, (b.y0 + b.y1) / 2) for b, left in zip(nearest, is_left, strict=True)])
    end = ax.transData.transform(points)
    where = linear_sum_assignment(np.linalg.norm(end[:, None] - start, axis=-1))[1]
    for i, point in enumerate(points):
        slot = slots[where[i]]
        for panel, (text, colour) in zip(slot, captions[i], strict=True):
            _show(panel, next(cropped))
            panel.text(0.04, 0.96, text, transform=panel.transAxes, va="top", color=colour, weight="bold", fontsize=12)
        leader = ConnectionPatch(
            (1.0 if is_left[where[i]] else 0.0, 0.5), (float(point[0]), float(point[1])),
            "axes fraction", "data", axesA=slot[0], axesB=ax,
            color=look.LEADER, linewidth=0.9, zorder=4, clip_on=False,
        )  # fmt: skip
        leader.set_in_layout(False)
        ax.add_artist(leader)
    return np.stack([start[where], end], axis=1)


def _show(panel: "Axes", picture: Picture) -> None:
    """Draw a picture in a thin frame."""
    panel.imshow(picture, interpolation="antialiased")
    panel.set(xticks=[], yticks=[])
    for spine in panel.spines.values():
        spine.set(visible=True, color=look.FRAME, linewidth=0.8)


def _cropped(pictures: Sequence[Picture]) -> list[Picture]:
    """Cut all pictures to one square around everything that is opaque in any: they keep one scale."""
    opaque = np.any([np.asarray(picture)[..., 3] > 0 for picture in pictures], axis=0)
    if not opaque.any():
        return list(pictures)
    rows, columns = np.flatnonzero(opaque.any(axis=1)), np.flatnonzero(opaque.any(axis=0))
    half = 0.54 * max(np.ptp(rows), np.ptp(columns)) + 1
    size = opaque.shape
    top, left = (max(0, round((axis[0] + axis[-1]) / 2 - half)) for axis in (rows, columns))
    bottom, right = (round((axis[0] + axis[-1]) / 2 + half) for axis in (rows, columns))
    return [picture[top : min(bottom, size[0]), left : min(right, size[1])] for picture in pictures]


def _join(ax: "Axes", xy: Floats, moved: Floats, leaders: Floats | None) -> None:
    """Number particles from 1 in red and their twins i' in green, with purple lines between."""
    for start, end in zip(xy, moved, strict=True):
        ax.plot(*np.transpose([start, end]), color=look.BETWEEN, linewidth=1.3, zorder=3)
    _mark(ax, moved, look.ALTERED, "D")
    _mark(ax, xy, look.ORIGINAL, "o")
    names = [str(i + 1) for i in range(len(xy))]
    ax.figure.canvas.figure.draw_without_rendering()
    lines = np.stack([ax.transData.transform(xy), ax.transData.transform(moved)], axis=1)
    lines = lines if leaders is None else np.concatenate([lines, leaders])
    colours = [look.ORIGINAL] * len(xy) + [look.ALTERED] * len(xy)
    label_points(ax, np.vstack([xy, moved]), names + [f"{name}'" for name in names], colours, lines)


def _displaced_legend() -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], marker="o", linestyle="", markersize=5, color=look.ORIGINAL, label="i: original"),
        Line2D([], [], marker="D", linestyle="", markersize=5, color=look.ALTERED, label="i': altered"),
        Line2D([], [], color=look.BETWEEN, label="from i to i'"),
        Line2D([], [], marker="o", linestyle="", markersize=3, color=look.BACKGROUND, label="all originals"),
    ]


def _mark(ax: "Axes", xy: Floats, colour: str, marker: str) -> None:
    ax.scatter(xy[:, 0], xy[:, 1], s=26, color=colour, marker=marker, edgecolors="white", linewidths=0.7, zorder=5)


def _points(map_xy: ArrayLike) -> Floats:
    xy = np.asarray(map_xy, dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2 or not len(xy):
        raise ValueError(f"a map of latents must be (N, 2), found shape {xy.shape}")
    return xy
