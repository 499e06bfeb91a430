"""Many volumes on one sheet, at one threshold: ``python -m experiments surface_sheet RUN/volumes/kmeans20``."""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.configuration.error_messages import command
from experiments.figures import style as look
from experiments.volumes.isosurface import Volume, frame_of, render, threshold_of

PICTURE_IN = 1.5
PICTURE_PX = 320


def sheet(volumes: Mapping[str, Volume], path: Path, threshold: float | None = None, title: str = "") -> Path:
    """Draw the isosurfaces of volumes side by side, in one view, frame and threshold.

    Args:
        volumes: name and (D, D, D), [z, y, x].
        path: of the PNG.
        threshold: density of the surfaces; None: half way between solvent and particle (``surfaces.threshold_of``).
        title: over the sheet.

    Returns:
        ``path``.
    """
    level = threshold_of(volumes.values()) if threshold is None else threshold
    frame = frame_of(volumes.values(), level)
    n_columns = min(len(volumes), max(3, math.ceil(math.sqrt(1.25 * len(volumes)))))
    n_rows = math.ceil(len(volumes) / n_columns)
    with look.look():
        fig = look.figure((n_columns * PICTURE_IN, n_rows * (PICTURE_IN + 0.25) + (0.35 if title else 0)))
        axes = fig.subplots(n_rows, n_columns, squeeze=False).ravel()
        for ax in axes:
            ax.set_axis_off()
        for ax, (name, volume) in zip(axes, volumes.items(), strict=False):
            ax.imshow(render(volume, level, PICTURE_PX, frame=frame), interpolation="antialiased")
            ax.set_title(name, fontsize=8, loc="center", pad=2, parse_math=False)
        if title:
            fig.suptitle(title, fontsize=10, parse_math=False)
        return look.save(fig, path)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the volumes of a run or a folder; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments surface_sheet", description="Draw volumes side by side, at one threshold."
    )
    parser.add_argument("folder", type=Path, help="of a run, or one that holds .mrc volumes")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: surfaces.png in the folder")
    parser.add_argument(
        "--threshold", type=float, help="density of the surfaces; default: between solvent and particle"
    )
    options = parser.parse_args(arguments)
    from experiments.volumes.files import stored

    path = options.out or options.folder / "surfaces.png"
    sheet(stored(options.folder), path, options.threshold, title=options.folder.resolve().name)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
