"""Digits side by side: what the encoder saw, and what came of it (paper, Figs. 13, 15, 17 and 19)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from experiments.figures import style as look

_COLUMN_IN = 0.95


class Row(NamedTuple):
    """One row of pictures.

    Attributes:
        label: what they are.
        pictures: (n, D, D), from 0 (black) to 1 (white).
        read_as: (n,) what a classifier reads in them; None: it is not asked.
    """

    label: str
    pictures: ArrayLike
    read_as: ArrayLike | None = None


def side_by_side(rows: Sequence[Row], digit: ArrayLike, path: Path, title: str = "") -> Path:
    """Draw rows of pictures, a column per image, numbered from 1 as in the latent plane.

    Under a picture stands what it is read as, in red and crossed out where that is another digit.

    Args:
        rows: at least one, all of the same n.
        digit: (n,) the true ones.
        path: of the PNG.
        title: over the picture.

    Returns:
        ``path``.

    Raises:
        ValueError: a row has another shape.
    """
    truth = np.asarray(digit)
    n = len(truth)
    with look.look():
        fig = look.figure((_COLUMN_IN * n + 1.2, (_COLUMN_IN + 0.25) * len(rows) + 0.6))
        panels = fig.subplots(len(rows), n, squeeze=False)
        for row, axes in zip(rows, panels, strict=True):
            pictures = np.asarray(row.pictures)
            if pictures.ndim != 3 or len(pictures) != n:
                raise ValueError(f"{row.label}: pictures must be ({n}, D, D), found shape {pictures.shape}")
            for i, (ax, picture) in enumerate(zip(axes, pictures, strict=True)):
                ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                ax.set(xticks=[], yticks=[])
                if row.read_as is not None:
                    read = int(np.asarray(row.read_as)[i])
                    right = read == truth[i]
                    ax.set_xlabel(f"read as {read}" if right else f"read as {read} \u2717", fontsize=8, labelpad=3)
                    ax.xaxis.label.set_color("#222222" if right else look.ORIGINAL)
            axes[0].set_ylabel(row.label)
        for i, ax in enumerate(panels[0]):
            ax.set_title(str(i + 1), color=look.ORIGINAL, fontweight="bold", loc="center", fontsize=10)
        fig.align_ylabels()
        fig.suptitle(title, x=0.01, ha="left", fontsize=11)
        return look.save(fig, path)
