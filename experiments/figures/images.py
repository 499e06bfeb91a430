"""Particle images, what the model makes of them, and what is left."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from experiments.figures import style as look

_COLUMN_IN = 1.45


def reconstructions(images: ArrayLike, reconstructed: ArrayLike, path: Path, title: str = "") -> Path:
    """Draw images, their reconstructions and the residuals, a column per particle.

    A row has one grey scale, symmetric about 0; images and residuals share theirs, so that what is explained is
    seen to be gone.

    Args:
        images: (n, H, W).
        reconstructed: (n, H, W), CTF applied, in the same units.
        path: of the PNG.
        title: over the picture.

    Returns:
        ``path``.

    Raises:
        ValueError: the arrays have unlike or wrong shapes.
    """
    seen, made = np.asarray(images, dtype=np.float64), np.asarray(reconstructed, dtype=np.float64)
    if seen.ndim != 3 or seen.shape != made.shape or not seen.size:
        raise ValueError(f"images and reconstructions must be (n, H, W), found {seen.shape} and {made.shape}")
    widest, of_made = _scale(seen), _scale(made)
    rows = (("image", seen, widest), ("reconstruction", made, of_made), ("residual", seen - made, widest))
    n = len(seen)
    with look.look():
        fig = look.figure((max(4.0, _COLUMN_IN * n + 1.0), 3 * _COLUMN_IN + 0.5), pad_in=0.02)
        panels = fig.subplots(3, n, squeeze=False)
        for (label, pictures, scale), row in zip(rows, panels, strict=True):
            for ax, picture in zip(row, pictures, strict=True):
                shown = ax.imshow(picture, cmap="gray", vmin=-scale, vmax=scale, interpolation="nearest")
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set(visible=True, color=look.FRAME)
            row[0].set_ylabel(label)
            bar = fig.colorbar(shown, ax=list(row), aspect=14, shrink=0.9, pad=0.01)
            bar.set_ticks([-scale, 0, scale], labels=[f"{-scale:.2g}", "0", f"{scale:.2g}"])
            bar.outline.set_linewidth(0.5)
        for i, ax in enumerate(panels[0]):
            ax.set_title(str(i + 1), color=look.ORIGINAL, fontweight="bold", loc="center", fontsize=10)
        fig.suptitle(title, x=0.01, ha="left", fontsize=11)
        return look.save(fig, path)


def _scale(pictures: np.ndarray) -> float:
    """What black and white stand for: all but the 0.2 percent most extreme pixels lie between."""
    return float(np.quantile(np.abs(pictures), 0.998)) or 1.0
