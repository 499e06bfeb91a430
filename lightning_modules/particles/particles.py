"""Particles ready for training: images preprocessed once, with poses, CTF and labels."""

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.files.image_stacks import Inventory, inspect
from lightning_modules.image_formation import ImageFormation
from lightning_modules.particles import image_cache
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.poses_and_ctf import read_ctf, read_poses
from lightning_modules.particles.preprocessing import Preprocessing
from lightning_modules.particles.processed_images import refuse_processed
from lightning_modules.particles.selection import read_labels, read_selection
from lightning_modules.particles.stack_reader import StackReader

RESIDENCIES = ("memory", "disk")


@dataclass(eq=False)
class Particles:
    """N particles: what the loss compares with, and all that is known about each.

    Attributes:
        images: (N, M) float32, windowed, Hartley-transformed, symmetrized, normalized, masked; not centred.
            May be memory-mapped.
        rotations: (N, 3, 3) float32, as cryoDRGN applies them: ``coords @ rotation``.
        shifts_px: (N, 2) float32, in px of the lattice (side D + 1), as ``cryodrgn.pose.PoseTracker`` scales
            them.
        ctf_params: (N, 8) float32: pixel size (A), defocus U and V (A), astigmatism angle (deg), voltage
            (kV), spherical aberration (mm), amplitude contrast, phase shift (deg). None: no CTF.
        box_px: side D of the images.
        pixel_size_angstrom: of the images as they are (after downsampling); None where nothing says it.
        norm: mean and std that normalized the Hartley transforms.
        norm_real: mean and std of the raw images.
        labels: ``state``, (N,) int64, and ``hinge_rad``, (N,) float64, where they are known.
        files: where all this came from.
        on_disk: the images stay in a file.
        masked: the images end at the circular mask; if not, M is the whole lattice.
        index: (N,) their positions in the data as configured; all of them, unless some are held out.
    """

    images: Tensor
    rotations: Tensor
    shifts_px: Tensor
    ctf_params: Tensor | None
    box_px: int
    pixel_size_angstrom: float | None
    norm: tuple[float, float]
    norm_real: tuple[float, float]
    labels: dict[str, np.ndarray] | None
    files: ParticleFiles
    index: NDArray[np.int64]
    on_disk: bool = False
    masked: bool = True
    _reader: StackReader | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Return N."""
        return len(self.rotations)

    def formation(self) -> ImageFormation:
        """Return the centring and CTF of images of this size."""
        return ImageFormation(self.box_px, self.masked)

    def to(self, device: torch.device | str) -> "Particles":
        """Return particles whose tensors are on a device; the raw images stay on disk."""
        moved = {name: getattr(self, name).to(device) for name in ("images", "rotations", "shifts_px")}
        ctf_params = None if self.ctf_params is None else self.ctf_params.to(device)
        return dataclasses.replace(self, ctf_params=ctf_params, **moved)

    def raw(self, index: np.ndarray) -> Tensor:
        """Read images as they are on disk: in real space, before inversion and window.

        Args:
            index: (B,) particles, from 0 to N - 1.

        Returns:
            (B, D, D) float32 on the CPU.
        """
        return self._open().src.images(np.asarray(index, dtype=np.int64))

    def preprocess(self, raw: Tensor) -> Tensor:
        """Preprocess real-space images as :attr:`images` were, by ``cryodrgn.dataset.ImageDataset``.

        Args:
            raw: (B, D, D) float32, on any device; left as it is.

        Returns:
            (B, M) on the device of ``raw``.
        """
        mask = self.formation().mask.to(raw.device)
        return self._open().hartley(raw.clone())[:, mask]

    def _open(self) -> StackReader:
        if self._reader is None:
            images = inspect(Path(self.files.particles), self.files.datadir)
            selection = read_selection(self.files, images.n_images)
            self._reader = Preprocessing(self.files, images, selection, self.norm).open(self.norm, self.norm_real)
        return self._reader


def load_particles(
    files: ParticleFiles,
    residency: str = "memory",
    cache_dir: str | Path = "cache",
    chunk: int = 1024,
    norm: tuple[float, float] | None = None,
    cache_images: bool = False,
) -> Particles:
    """Read a particle set, and preprocess its images once.

    What is cheap is checked first: files, headers, poses and CTF; images are read last.

    Args:
        files: the particle set.
        residency: "memory" holds the preprocessed images in memory; "disk" keeps them in a file under
            ``cache_dir``, mapped into memory, and finds them there the next time.
        cache_dir: folder for residency "disk", and for ``cache_images``.
        chunk: most images that are in work at once.
        norm: mean and std that normalize the Hartley transforms, those of the particles that a model was trained
            on; None: from these images.
        cache_images: with residency "memory", too, keep the preprocessed images in a file, and find them there the
            next time; see ``image_cache``.

    Returns:
        The particles, on the CPU.

    Raises:
        InputError: anything about the files that cannot be used. Nothing half-written stays behind.
    """
    if residency not in RESIDENCIES:
        raise InputError(f"data.residency={residency}: expected one of {', '.join(RESIDENCIES)}")
    files = files.checked()
    images = inspect(Path(files.particles), files.datadir)
    selection = read_selection(files, images.n_images)
    refuse_processed(files, images, selection)
    rotations, shifts_px = read_poses(files, images, selection)
    ctf_params = read_ctf(files, images, selection)
    labels = read_labels(files, selection)
    work, on_disk = Preprocessing(files, images, selection, norm, chunk), residency == "disk"
    if not on_disk:
        _refuse_too_many(files, *work.shape)
    if on_disk or cache_images:
        pixels, reader = image_cache.images_of(work, Path(cache_dir), mapped=on_disk)
    else:
        reader, pixels = work.open(), torch.empty(work.shape)
        for start, hartley in work.chunks(reader):
            pixels[start : start + len(hartley)] = hartley
    return Particles(
        images=pixels,
        rotations=torch.from_numpy(rotations),
        shifts_px=torch.from_numpy(shifts_px),
        ctf_params=None if ctf_params is None else torch.from_numpy(ctf_params),
        box_px=images.box_px,
        pixel_size_angstrom=_pixel_size_angstrom(files, images, ctf_params),
        norm=(reader.norm[0], reader.norm[1]),
        norm_real=(reader.norm_real[0], reader.norm_real[1]),
        labels=labels,
        files=files,
        index=selection.positions,
        on_disk=on_disk,
        _reader=reader,
    )


def _refuse_too_many(files: ParticleFiles, n_particles: int, n_pixels: int) -> None:
    needed_bytes, there_bytes = 4 * n_particles * n_pixels, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed_bytes > there_bytes:
        raise InputError(
            f"{files.particles}: {needed_bytes / 1e9:.1f} GB of images, and {there_bytes / 1e9:.1f} GB of memory; set "
            "data.residency=disk, or take fewer with data.n_particles"
        )


def _pixel_size_angstrom(files: ParticleFiles, images: Inventory, ctf_params: np.ndarray | None) -> float | None:
    if ctf_params is not None:
        return float(ctf_params[0, 0])
    return files.pixel_size_angstrom or images.pixel_size_angstrom
