"""The pictures of an audit: what z is worth, where it goes, and the volumes that change most."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from experiments.audit.measures import ImageCondition
from experiments.figures import style as look
from experiments.figures.latents import displaced_latents
from experiments.figures.volume_pictures import pictures_of

SHORT = {
    "train": "training images",
    "unseen": "unseen particles",
    "rotate_90_consistent": "turned 90°, consistent",
    "rotate_90": "turned 90°, paper",
    "shift_1px_consistent": "shifted 1 px, consistent",
    "shift_1px": "shifted 1 px, paper",
    "noise": "noise instead",
}


def losses(views: Sequence[ImageCondition], path: Path) -> Path:
    """Draw the losses with own, another's and the best q, a line per view.

    Args:
        views: in their order, from the top.
        path: of the PNG.

    Returns:
        ``path``.
    """
    marks = (
        ("another particle's q", look.BACKGROUND, "s"),
        ("the encoder's q", look.ORIGINAL, "o"),
        ("the best q, searched for", look.ALTERED, "D"),
    )
    with look.look():
        fig = look.figure((6.8, 0.42 * len(views) + 1.5))
        ax = fig.subplots()
        for row, view in enumerate(views):
            values = (view.other.mean(), view.own.total.mean(), view.best.mean())
            ax.plot((min(values), max(values)), (row, row), color=look.FRAME, zorder=1)
            for value, (label, colour, marker) in zip(values, marks, strict=True):
                ax.scatter(value, row, color=colour, marker=marker, s=34, label=None if row else label, zorder=2)
        ax.set_yticks(range(len(views)), [SHORT.get(view.name, view.name) for view in views])
        ax.invert_yaxis()
        ax.set_xlabel("mean loss of a particle (lower is better)")
        fig.legend(loc="outside lower center", ncols=3)
        return look.save(fig, path)


def shares(views: Sequence[ImageCondition], low: float, high: float, path: Path) -> Path:
    """Draw the shares with their intervals, between the thresholds of the verdict.

    Args:
        views: in their order, from the top.
        low: below it is memory.
        high: above it is a rule.
        path: of the PNG.

    Returns:
        ``path``.
    """
    with look.look():
        fig = look.figure((6.8, 0.42 * len(views) + 1.1))
        ax = fig.subplots()
        ax.axvspan(0, low, color=look.ORIGINAL, alpha=0.10, linewidth=0)
        ax.axvspan(high, 1, color=look.ALTERED, alpha=0.12, linewidth=0)
        for row, view in enumerate(views):
            ax.plot((view.share.low, view.share.high), (row, row), color=look.LEADER, linewidth=2)
            ax.scatter(view.share.value, row, color=look.LEADER, s=34, zorder=2)
        ax.set_yticks(range(len(views)), [SHORT.get(view.name, view.name) for view in views])
        ax.invert_yaxis()
        ax.set(xlim=(-0.02, 1.02), xlabel="share of what z could tell (red: a memory, green: a rule)")
        return look.save(fig, path)


def agreement(stored: ArrayLike, found: ArrayLike, path: Path) -> Path:
    """Draw stored against recomputed z, entry by entry.

    Args:
        stored: (n, zdim).
        found: (n, zdim).
        path: of the PNG.

    Returns:
        ``path``.
    """
    x, y = np.asarray(stored).ravel(), np.asarray(found).ravel()
    with look.look():
        fig = look.figure((4.4, 4.2))
        ax = fig.subplots()
        ax.axline((0, 0), slope=1, color=look.BACKGROUND, linewidth=0.8)
        ax.scatter(x, y, color=look.PARTICLES, rasterized=True, **look.scatter_style(len(x)))  # type: ignore[arg-type]
        ax.set(xlabel="z as stored", ylabel="z from the weights and these particles")
        return look.save(fig, path)


def displaced(mu: ArrayLike, mu_altered: ArrayLike, first: ArrayLike, folder: Path, path: Path) -> Path:
    """Draw where z goes, with V(z) and V(z') of the particles that move farthest around it.

    Args:
        mu: (N, zdim) of the training images.
        mu_altered: (N, zdim) of the altered ones.
        first: (n,) particles that are numbered.
        folder: of the run, with volumes/original_1.mrc, altered_1.mrc and so on of the first ones.
        path: of the PNG.

    Returns:
        ``path``.
    """
    z, moved, rows = np.asarray(mu), np.asarray(mu_altered), np.asarray(first)
    order = np.concatenate([rows, np.setdiff1d(np.arange(len(z)), rows)])
    centre, axes, labels = _axes(z)
    pictures, altered = pictures_of(folder, "original", "altered")
    return displaced_latents(
        (z[order] - centre) @ axes,
        (moved[rows] - centre) @ axes,
        path,
        "turned by 90°, pose and CTF with it",
        labels,
        len(rows),
        pictures,
        altered,
    )


def _axes(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[str, str]]:
    """Return a centre, (zdim, 2) axes and their names: a linear map, on which distances are not made up."""
    if z.shape[1] == 1:
        return np.zeros(1), np.array([[1.0, 0.0]]), ("z", "")
    if z.shape[1] == 2:
        return np.zeros(2), np.eye(2), ("z1", "z2")
    centre = z.mean(axis=0)
    return centre, np.linalg.svd(z - centre, full_matrices=False)[2][:2].T, ("PC1", "PC2")
