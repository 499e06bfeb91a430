"""Volumes in .mrc files, and the index of those in a folder."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.volumes.decoder import Volume, VolumeDecoder
from experiments.volumes.points import Points
from lightning_modules.errors import InputError
from lightning_modules.files.atomic import write_atomically
from lightning_modules.files.mrc_headers import read_volume

INDEX = "index.json"


def write_mrc(path: Path, volume: NDArray[np.floating], pixel_size_angstrom: float | None) -> Path:
    """Write a volume (D, D, D), [z, y, x], as float32 .mrc with its origin at (0, 0, 0) as ``cryodrgn eval_vol`` does.

    The file is whole or not there at all. Its cell is 0, MRC's word for unknown, where the pixel size is None.
    """
    from cryodrgn.mrcfile import write_mrc as write_file

    data = np.ascontiguousarray(volume, dtype=np.float32)
    apix = pixel_size_angstrom or 0.0
    return write_atomically(path, lambda file: write_file(str(file), data, is_vol=True, Apix=apix))


def write(
    folder: Path, decoder: VolumeDecoder, points: Points, box_px: int | None = None, progress: bool = False
) -> Iterator[tuple[str, Volume]]:
    """Decode volumes into a folder; index.json, which says what each of them is, comes last.

    Args:
        folder: made if it is missing.
        decoder: of a run.
        points: their names become those of the files.
        box_px: side of the volumes; None: that of the particles.
        progress: say beforehand how long it will take, and show a bar if that is long.

    Yields:
        Name and volume of each, when its file has been written.
    """
    pixel_size_angstrom = decoder.pixel_size_angstrom
    if pixel_size_angstrom is not None:
        pixel_size_angstrom *= decoder.box_px / (box_px or decoder.box_px)
    for name, volume in zip(points.names, decoder.decode(points.z, box_px, progress), strict=True):
        write_mrc(folder / f"{name}.mrc", volume, pixel_size_angstrom)
        yield name, volume
    described = {
        "box_px": box_px or decoder.box_px,
        "pixel_size_angstrom": pixel_size_angstrom,
        "volumes": [
            {"file": f"{name}.mrc", "particle": particle, "z": z.tolist()}
            for name, particle, z in zip(points.names, points.particles, points.z, strict=True)
        ],
        "decoder": {
            "box_px": decoder.box_px,
            "pixel_size_angstrom": decoder.pixel_size_angstrom,
            "norm": list(decoder.norm),
        },
    }
    text = json.dumps(described, indent=2) + "\n"
    write_atomically(folder / INDEX, lambda path: path.write_text(text, encoding="utf-8"))


def stored(folder: Path) -> dict[str, Volume]:
    """Read the volumes of a run, or of any folder that holds .mrc files, by name in the order of their names.

    Raises:
        InputError: there are none, or one cannot be read.
    """
    holding = folder / "volumes" if (folder / "volumes").is_dir() else folder
    found = {path.stem: read_volume(path) for path in sorted(holding.glob("*.mrc"))}
    if not found:
        raise InputError(f"{folder}: no .mrc volumes here; `python -m experiments volumes RUN --kmeans 20` writes some")
    return found
