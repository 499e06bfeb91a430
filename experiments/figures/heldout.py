"""A picture of what a run's q is worth on particles that it has seen, and on others."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.figures import style as look

NAMES = {
    "train": "training particles, as trained",
    "train_optimized": "training particles, q optimized",
    "encoder": "unseen particles, encoder",
    "optimized": "unseen particles, q optimized",
}
COLOURS = {
    "train": look.PARTICLES,
    "train_optimized": look.TOTAL,
    "encoder": look.ORIGINAL,
    "optimized": look.ALTERED,
}


def heldout_losses(arrays: Mapping[str, NDArray[np.float64]], path: Path, title: str = "") -> Path:
    """Draw the loss of every particle: medians, quartiles, and 5 to 95 percent; and the gap particle by particle.

    Args:
        arrays: of heldout.npz: the loss of every particle as ``train_loss``, ..., for the ``NAMES`` that there are.
            ``encoder_loss`` and ``optimized_loss`` are about the same particles.
        path: of the PNG.
        title: over the picture.

    Returns:
        ``path``.
    """
    found = {name: arrays[f"{name}_loss"] for name in NAMES if f"{name}_loss" in arrays}
    with look.look():
        fig = look.figure()
        boxes, gaps = fig.subplots(2, 1, height_ratios=(3, 2)) if "encoder" in found else (fig.subplots(), None)
        drawn = boxes.boxplot(
            list(found.values()), orientation="horizontal", whis=(5, 95), showfliers=False, widths=0.6,
            tick_labels=[NAMES[name] for name in found], patch_artist=True, medianprops={"color": "#222222"},
        )  # fmt: skip
        for box, name in zip(drawn["boxes"], found, strict=True):
            box.set(facecolor=COLOURS[name], alpha=0.6)
        boxes.invert_yaxis()
        boxes.set(xlabel="loss of a particle", title=title)
        if gaps is not None:
            gap = found["encoder"] - found["optimized"]
            gaps.hist(gap, bins=50, color=look.BETWEEN)
            gaps.axvline(0, color="#222222", linewidth=0.8)
            gaps.set(xlabel="loss of an unseen particle: encoder minus optimized q", ylabel="particles")
        return look.save(fig, path)
