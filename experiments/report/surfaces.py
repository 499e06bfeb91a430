"""Volumes of the runs: a picture of each, and surfaces to be turned, as fine as the page's size allows."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from experiments.claims.comparable_runs import setting_of
from experiments.report.pictures import Picture, encode
from experiments.runs.folders import RunFolder
from lightning_modules.errors import InputError

PATTERNS = ("first_*.mrc", "original_*.mrc", "altered_*.mrc")
MOST_PER_PATTERN = 6
PICTURE_PX = 180
FINEST_PX = 64  # a volume's side on the page; finer detail would not be seen
# Triangles on the whole page, about 12 bytes each; of one surface, no fewer and no more than these.
FACES = 700_000
FACES_EACH = (1_500, 6_000)

Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Volumes:
    """What is seen of a run's volumes.

    Attributes:
        pictures: in the view and at the threshold that all runs on the same data have.
        turntable: markup of the surfaces that can be turned; empty where there are none.
    """

    pictures: list[Picture]
    turntable: str


def draw(runs: Sequence[RunFolder], anchors: dict[Path, str]) -> dict[Path, Volumes]:
    """Draw the volumes of the runs, all of one data set at one threshold and one scale.

    Args:
        runs: finished.
        anchors: the name of each run's part of the page.

    Returns:
        By the run's folder; a run without volumes has none.
    """
    volumes = {run.folder: _read(run.folder) for run in runs}
    n_faces, most = allowance(len(volumes), sum(map(len, volumes.values())))
    drawn: dict[Path, Volumes] = {}
    for same_data in _by_data(runs):
        drawn.update(_draw_alike(same_data, volumes, anchors, n_faces, most))
    return drawn


def allowance(n_runs: int, n_volumes: int) -> tuple[int, int]:
    """Return how many triangles a surface may have, and how many surfaces of a run may be turned."""
    low, high = FACES_EACH
    n_faces = min(high, max(low, FACES // max(n_volumes, 1)))
    return n_faces, max(1, FACES // (n_faces * max(n_runs, 1)))


def _draw_alike(
    runs: Sequence[RunFolder],
    volumes: dict[Path, dict[str, Volume]],
    anchors: dict[Path, str],
    n_faces: int,
    most: int,
) -> dict[Path, Volumes]:
    """Draw the volumes of runs on the same data; surfaces of ``n_faces`` for the first ``most`` of each run."""
    from experiments.volumes.interactive import fragment
    from experiments.volumes.isosurface import frame_of, mesh, render, threshold_of

    everything = [volume for run in runs for volume in volumes[run.folder].values()]
    threshold = threshold_of(everything)
    frame = frame_of(everything, threshold)
    drawn = {}
    for run in runs:
        named = volumes[run.folder]
        if not named:
            continue
        pictures = [
            _picture(render(volume, threshold, PICTURE_PX, frame=frame), name) for name, volume in named.items()
        ]
        meshes = {name: mesh(volume, threshold, n_faces) for name, volume in list(named.items())[:most]}
        drawn[run.folder] = Volumes(pictures, fragment(meshes, f"volumes-{anchors[run.folder]}"))
    return drawn


def _picture(rgba: NDArray[np.uint8], name: str) -> Picture:
    seen = Image.fromarray(rgba)
    white = Image.new("RGBA", seen.size, "white")
    return encode(Image.alpha_composite(white, seen).convert("RGB"), name, PICTURE_PX)


def _by_data(runs: Sequence[RunFolder]) -> list[list[RunFolder]]:
    by_data: dict[str, list[RunFolder]] = defaultdict(list)
    for run in runs:
        by_data[str(sorted(setting_of(run.config)["data"].items()))].append(run)
    return list(by_data.values())


def _read(folder: Path) -> dict[str, Volume]:
    """Read the volumes that are shown, by name, at a side that can be seen; one that is damaged is left out."""
    from lightning_modules.files.mrc_headers import read_volume

    found: dict[str, Volume] = {}
    for pattern in PATTERNS:
        paths = sorted((folder / "volumes").glob(pattern), key=lambda path: (len(path.stem), path.stem))
        for path in paths[:MOST_PER_PATTERN]:
            try:
                volume = read_volume(path)
            except InputError:
                continue
            if len(volume) > FINEST_PX:
                volume = ndimage.zoom(volume, FINEST_PX / len(volume), order=1)
            found[path.stem.replace("_", " ")] = volume
    return found
