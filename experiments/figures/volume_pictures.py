"""Pictures of the volumes in a run's folder, at one threshold and one scale."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (H, W, 4) RGBA, transparent where there is no volume

SIZE_PX = 288  # as large as they stand in a figure, at 150 dpi


def pictures_of(folder: Path, *prefixes: str, most: int | None = None, size_px: int = SIZE_PX) -> list[list[Picture]]:
    """Draw the isosurfaces of volumes/PREFIX_1.mrc, PREFIX_2.mrc and so on.

    Args:
        folder: of a run.
        prefixes: "first"; or "original" and "altered".
        most: how many of each; None: all.
        size_px: side of a picture.

    Returns:
        For each prefix its pictures, (H, W, 4) uint8 each; none where there are no such volumes.

    Raises:
        InputError: a volume is damaged.
    """
    from experiments.volumes.isosurface import frame_of, render, threshold_of
    from lightning_modules.files.mrc_headers import read_volume

    paths = [_numbered(folder / "volumes", prefix)[:most] for prefix in prefixes]
    volumes = [[read_volume(path) for path in some] for some in paths]
    every = [volume for some in volumes for volume in some]
    threshold = threshold_of(every)
    frame = frame_of(every, threshold)
    return [[render(volume, threshold, size_px, frame=frame) for volume in some] for some in volumes]


def _numbered(folder: Path, prefix: str) -> list[Path]:
    """PREFIX_1.mrc, PREFIX_2.mrc, as far as they go without a gap."""
    paths: list[Path] = []
    while (path := folder / f"{prefix}_{len(paths) + 1}.mrc").exists():
        paths.append(path)
    return paths
