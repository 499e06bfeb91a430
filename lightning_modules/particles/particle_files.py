"""Which files make up a particle set, which of its particles are taken, and what is known about them."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_modules.errors import InputError
from lightning_modules.files.image_stacks import PARTICLE_SUFFIXES
from lightning_modules.files.regular_files import check_file
from lightning_modules.particles.split import Part

if TYPE_CHECKING:
    pass

ARRAY_SUFFIXES = (".pkl", ".npz", ".star", ".cs")
INDEX_SUFFIXES = (".pkl", ".npy", ".npz", ".txt")


@dataclass(frozen=True)
class ParticleFiles:
    """A particle set in cryoDRGN's formats, and how its images are read.

    Attributes:
        particles: .mrcs, .mrc, .star, .cs or .txt list of stacks.
        poses: .pkl of cryoDRGN, .npz with rotations (N, 3, 3) and shifts (N, 2, fractions of the box), .star
            or .cs. None takes them from ``particles`` where that is a .star or .cs.
        ctf: .pkl of cryoDRGN, .npz with ctf_params (N, 9), .star or .cs. None: images without a CTF.
        labels: .npz with the known ``state`` (N,) or ``hinge_rad`` (N,) of simulated particles.
        ind: .pkl, .npy, .npz or .txt of indices, from 0: the particles to take, in this order.
        datadir: folder of the stacks that a .star or .cs names, before any other place; None for the folder of that
            file.
        invert: multiply the images by -1, as ``cryodrgn train_vae`` does unless told ``--uninvert-data``.
        window: multiply the images by a soft circular window in real space.
        window_r: radius at which the window starts to fall, as a fraction of half the box.
        n_particles: take only the first so many (of those selected by ``ind``).
        pixel_size_angstrom: of the images, where no file says it.
        split: take only one side of a split into training and held-out particles, of those left by all else.
    """

    particles: str
    poses: str | None = None
    ctf: str | None = None
    labels: str | None = None
    ind: str | None = None
    datadir: str | None = None
    invert: bool = False
    window: bool = True
    window_r: float = 0.85
    n_particles: int | None = None
    pixel_size_angstrom: float | None = None
    split: Part | None = None

    def checked(self) -> "ParticleFiles":
        """Return a copy with absolute paths, all of which exist, and values within their ranges.

        Raises:
            InputError: a missing file, an unknown extension, no poses, or a value out of range.
        """
        paths = {"particles": PARTICLE_SUFFIXES, "poses": ARRAY_SUFFIXES, "ctf": ARRAY_SUFFIXES}
        paths |= {"labels": (".npz",), "ind": INDEX_SUFFIXES}
        found: dict[str, Any] = {}
        for key, suffixes in paths.items():
            if (path := getattr(self, key)) is not None:
                found[key] = str(check_file(_absolute(path), suffixes, f"data.{key}"))
        if self.datadir is not None:
            found["datadir"] = _absolute(self.datadir)
            if not Path(found["datadir"]).is_dir():
                raise InputError(f"data.datadir: no folder {found['datadir']}; check the path")
        if self.poses is None:
            if Path(self.particles).suffix not in (".star", ".cs"):
                raise InputError("data.poses is not set: poses are required; give a poses.pkl, .star or .cs")
            found["poses"] = found["particles"]
        if not 0 < self.window_r <= 0.99:
            raise InputError(
                f"data.window_r={self.window_r}: expected a fraction of half the box, above 0 and up to 0.99"
            )
        if self.pixel_size_angstrom is not None and not 0 < self.pixel_size_angstrom < np.inf:
            raise InputError(f"data.pixel_size_angstrom={self.pixel_size_angstrom}: expected A/px above 0")
        return dataclasses.replace(self, **found)


def _absolute(path: str) -> str:
    # Not resolve(): a link to a stack keeps the name, and the folder, that the user gave it.
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100
