"""Where particles come from: the classes that the configuration group ``data`` names."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lightning_modules.errors import InputError
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.particles import Particles, load_particles
from lightning_modules.particles.split import Part


class Normalized(Protocol):
    """What remembers how images were normalized."""

    @property
    def norm(self) -> tuple[float, float]:
        """Mean and std that normalized the Hartley transforms."""


class ParticleSource:
    """A choice of the slot ``data`` that ends in files of cryoDRGN's formats."""

    def particle_files(self) -> ParticleFiles:
        """Return the files, made first where they have to be."""
        raise NotImplementedError

    def load(
        self,
        residency: str = "memory",
        cache_dir: str | Path = "cache",
        split: Part | None = None,
        like: Normalized | None = None,
        cache_images: bool = False,
    ) -> Particles:
        """Read the particles and preprocess their images; see ``particles.load_particles``.

        Args:
            residency: "memory" or "disk".
            cache_dir: folder for residency "disk", and for ``cache_images``.
            split: take one side of it; None: all.
            like: what a model was trained on, whose norm is taken over; None: these have their own.
            cache_images: keep preprocessed images in a file, and find them there.
        """
        files = dataclasses.replace(self.particle_files(), split=split)
        norm = None if like is None else like.norm
        return load_particles(files, residency, cache_dir, norm=norm, cache_images=cache_images)


@dataclass(frozen=True)
class ParticlesFromFiles(ParticleFiles, ParticleSource):
    """The files that a configuration names."""

    def particle_files(self) -> ParticleFiles:
        """Return the set itself."""
        return self


@dataclass(frozen=True)
class Empiar10076Files(ParticlesFromFiles):
    """131,899 particles, downsampled from 320 px at 1.31 A to 128 px, with the published poses and CTF."""

    def particle_files(self) -> ParticleFiles:
        """Return the files.

        Raises:
            InputError: one is missing; the message says what to download and where to put it.
        """
        missing = [path for path in (self.particles, self.poses, self.ctf) if not (path and Path(path).is_file())]
        if missing:
            folder = Path(self.particles).absolute().parent
            raise InputError(
                f"data=empiar10076: {missing[0]} is missing; download entry 10076 from EMPIAR, run "
                f"`cryodrgn downsample Parameters.star -D 128 -o particles.128.mrcs`, take poses.pkl and ctf.pkl from "
                f"the GitHub repository zhonge/cryodrgn_empiar (empiar10076/inputs), and put all three into {folder} "
                "(or set EMPIAR10076 to their folder)"
            )
        return self
