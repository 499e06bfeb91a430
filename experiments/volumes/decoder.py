"""V(z) as a volume, for many z at once: the values of ``eval_volume`` in ``cryodrgn.models``."""

import copy
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm

from lightning_modules.errors import InputError
from lightning_modules.networks.slice_decoder import SliceDecoder
from lightning_modules.vae.cryo_vae import CryoVAE

logger = logging.getLogger(__name__)

Volume = NDArray[np.float32]

# Points of the lattice times volumes that go through the network at once.
ROWS_ON_CPU, ROWS_ON_GPU = 4096, 1 << 17
SPECTRA_BYTES = 1 << 28  # of the volumes that are decoded side by side
SIDE_BY_SIDE = 64


class Lattice(NamedTuple):
    """The points at which the network is asked, of a lattice of side L = box_px + 1 with k = 0 in its middle.

    Attributes:
        box_px: side of the volume, which is a Fourier crop of the trained one if it is smaller.
        coords: (n, 3) x, y, z.
        where: (n,) their places in the flat lattice [z, y, x].
        mirrored: the points are one half, and the other half is its complex conjugate.
    """

    box_px: int
    coords: Tensor
    where: Tensor
    mirrored: bool


@dataclass(frozen=True)
class VolumeDecoder:
    """A trained decoder, and what it takes to make volumes in the units of the particles.

    Attributes:
        slices: the decoder.
        norm: mean and std that normalized the particles' Hartley transforms.
        pixel_size_angstrom: of the particles; None: unknown.
    """

    slices: SliceDecoder
    norm: tuple[float, float]
    pixel_size_angstrom: float | None

    @classmethod
    def of(cls, model: CryoVAE) -> "VolumeDecoder":
        """Take the decoder of a model."""
        particles = model.particles
        return cls(model.decoder, particles.norm, particles.pixel_size_angstrom)

    def to(self, device: torch.device | str) -> "VolumeDecoder":
        """Return a copy on another device; on the same one, itself."""
        if self.slices.coords.device == torch.device(device):
            return self
        return replace(self, slices=copy.deepcopy(self.slices).to(device))

    @property
    def box_px(self) -> int:
        """Side D of the particles."""
        return self.slices.lattice_px - 1

    @torch.no_grad()
    def decode(self, z: ArrayLike, box_px: int | None = None, progress: bool = False) -> Iterator[Volume]:
        """Decode volumes, in float32 whatever the training was in.

        Points and z both go through the network in parts, so that memory is bounded: a few hundred MB on a CPU,
        and one to two GB on a GPU, beside the volumes that the caller keeps.

        Args:
            z: (n, zdim).
            box_px: side of the volumes, even; smaller than D: low-pass, with larger voxels
                (``cryodrgn eval_vol --downsample``). None: D.
            progress: say beforehand how long it will take, and show a bar if that is long.

        Yields:
            (box_px, box_px, box_px) float32, [z, y, x]. Equal to float32's rounding to what
            ``cryodrgn eval_vol`` writes for the same weights and z.

        Raises:
            InputError: ``box_px`` is odd or larger than D, or z is no (n, zdim) of finite numbers.
        """
        device = self.slices.coords.device
        points = _checked(z, self.slices.zdim).to(device)
        lattice = lattice_of(self.slices, box_px or self.box_px)
        at_once = max(1, min(SIDE_BY_SIDE, SPECTRA_BYTES // (4 * (lattice.box_px + 1) ** 3)))
        slabs = list(zip(*(part.split(self._slab(min(at_once, len(points)))) for part in lattice[1:3]), strict=True))
        if progress and len(points):
            seconds = self._seconds_of(slabs[0][0], points[:at_once]) * len(slabs) * len(points)
            logger.info("decoding %d volumes of %d px: about %s", len(points), lattice.box_px, duration(seconds))
        bar = tqdm(
            total=len(points), desc="volumes", unit="volume", delay=2, disable=not progress,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} [{elapsed}<{remaining}]",
        )  # fmt: skip
        with bar:
            for some in points.split(at_once):
                spectra = torch.zeros(len(some), (lattice.box_px + 1) ** 3, device=device)
                for coords, where in slabs:
                    self._fill(spectra, coords, where, some, lattice.mirrored)
                    bar.update(len(some) / len(slabs))
                for spectrum in spectra:
                    yield self._volume(spectrum, lattice)

    def _slab(self, n_volumes: int) -> int:
        """Points at a time; a CPU takes one volume at a time through the network (``SliceDecoder``), a GPU all."""
        on_cpu = self.slices.coords.device.type == "cpu"
        return ROWS_ON_CPU if on_cpu else max(1, ROWS_ON_GPU // max(1, n_volumes))

    def _fill(self, spectra: Tensor, coords: Tensor, where: Tensor, z: Tensor, mirrored: bool) -> None:
        """Write the Hartley transforms at some points into the flat lattices (B, L^3)."""
        values = self._evaluate(coords, z)
        if mirrored:
            # The mirror image comes first: the origin is its own, and keeps the value that eval_volume gives it.
            spectra[:, spectra.shape[1] - 1 - where] = values[:, len(where) :].flip(-1)
        spectra[:, where] = values[:, : len(where)]

    def _volume(self, spectrum: Tensor, lattice: Lattice) -> Volume:
        """Scale a lattice (L^3,) as the particles were, and transform it to real space."""
        from cryodrgn.fft import ihtn_center
        from cryodrgn.utils import zero_sphere

        side = lattice.box_px + 1
        scaled = spectrum.view(side, side, side) * self.norm[1] + self.norm[0]
        if self.slices.is_fourier and not _is_positional(self.slices):
            scaled = zero_sphere(scaled)
        volume: Volume = ihtn_center(scaled[:-1, :-1, :-1]).cpu().numpy()
        return volume

    def _evaluate(self, coords: Tensor, z: Tensor) -> Tensor:
        """Ask the network at points (n, 3) for every z (B, zdim), in float32 even where the caller autocasts."""
        with torch.autocast(coords.device.type, enabled=False):
            return self.slices.evaluate(coords.expand(len(z), -1, -1), z)

    def _seconds_of(self, coords: Tensor, z: Tensor) -> float:
        """Measure how long a slab takes, per volume."""
        for _ in range(2):  # the first time is warming up
            started = time.perf_counter()
            self._evaluate(coords, z).sum().item()
        return (time.perf_counter() - started) / len(z)


def decode(model: CryoVAE | VolumeDecoder, z: ArrayLike, box_px: int | None = None) -> Iterator[Volume]:
    """Decode volumes (D, D, D) float32, [z, y, x], one for each z (n, zdim): :meth:`VolumeDecoder.decode`."""
    decoder = model if isinstance(model, VolumeDecoder) else VolumeDecoder.of(model)
    return decoder.decode(z, box_px)


def lattice_of(slices: SliceDecoder, box_px: int) -> Lattice:
    """Return the points at which ``eval_volume`` of a decoder's class asks the network.

    With a positional encoding in the Fourier domain it is a ball of the Nyquist radius, of which one half is
    enough; else the whole cube.

    Raises:
        InputError: a volume cannot have that many pixels.
    """
    trained_px = slices.lattice_px - 1
    if not 2 <= box_px <= trained_px or box_px % 2:
        raise InputError(f"box of {box_px} px: expected an even number from 2 to {trained_px}, the particles' box")
    side, extent = box_px + 1, 0.5 * (box_px / trained_px)
    axis = torch.from_numpy(np.linspace(-extent, extent, side).astype(np.float32))
    if axis[side // 2] != 0:
        raise InputError(f"box of {box_px} px: cryoDRGN's lattice has no exact centre at this size; take another")
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    ball = slices.is_fourier and _is_positional(slices)
    coords, where = [], []
    for i, height in enumerate(axis[: side // 2 + 1] if ball else axis):
        plane = torch.stack([x.flatten(), y.flatten(), height.expand(side**2)], dim=1)
        keep = plane.pow(2).sum(dim=1) <= extent**2 if ball else torch.ones(side**2, dtype=torch.bool)
        if ball and i == side // 2:
            keep[side**2 // 2 + 1 :] = False
        coords.append(plane[keep])
        where.append(i * side**2 + keep.nonzero()[:, 0])
    device = slices.coords.device
    return Lattice(box_px, torch.cat(coords).to(device), torch.cat(where).to(device), mirrored=ball)


def duration(seconds: float) -> str:
    """Return a time as people say it: "2 s", "4 min", "3.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _is_positional(slices: SliceDecoder) -> bool:
    return slices.encoding.pe_type != "none"


def _checked(z: ArrayLike, zdim: int) -> Tensor:
    points = np.asarray(z, dtype=np.float32)
    if points.ndim != 2 or points.shape[1] != zdim:
        raise InputError(f"z has shape {points.shape}, expected (n, {zdim}): the run has zdim={zdim}")
    if not np.isfinite(points).all():
        raise InputError("z holds values that are not finite; expected numbers")
    return torch.from_numpy(np.ascontiguousarray(points))
