"""What the encoder sees for particle i: its image, or an evil twin. Altered images are in ``altered_inputs``.

The loss always compares with particle i's own image. Every class is prepared once, on the particles, and then
called with a batch; what it returns is centred and phase-flipped as it should be, and goes into the encoder.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_modules.files.mapped import read_ahead
from lightning_modules.image_formation import ImageFormation
from lightning_modules.particles.particles import Particles

CHUNK = 256


class EncoderInput(Protocol):
    """The slot between the particles and the encoder."""

    def prepare(self, particles: Particles, formation: ImageFormation, seed: int) -> None:
        """Fix everything that stays the same for the whole run."""

    def start_epoch(self, epoch: int | None) -> None:
        """Fix what changes from epoch to epoch, which is a function of (seed, epoch); None: not in training."""
        return

    def __call__(self, y: Tensor, shift_px: Tensor, ctf: Tensor | None, index: Tensor) -> Tensor:
        """Return what the encoder sees of a batch.

        Args:
            y: (B, M) Hartley transforms of the particles' own images, not centred.
            shift_px: (B, 2) that centre them.
            ctf: (B, M), or None.
            index: (B,) particles.

        Returns:
            (B, M), phase-flipped.
        """

    def imaged_with(self, ctf: Tensor | None, rotations: Tensor, index: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return CTF and pose of what the encoder sees: the particle's own, unless the class knows better.

        Args:
            ctf: (B, M) of the particles, or None.
            rotations: (B, 3, 3) of the particles.
            index: (B,) particles.
        """
        return ctf, rotations


class IdentityInput(EncoderInput):
    """x_i = the centred image of particle i, as in cryoDRGN."""

    def prepare(self, particles: Particles, formation: ImageFormation, seed: int) -> None:
        """Nothing to fix."""
        self.formation = formation

    def __call__(self, y: Tensor, shift_px: Tensor, ctf: Tensor | None, index: Tensor) -> Tensor:
        """Centre the image by the particle's shift."""
        return self.formation.phase_flip(self.formation.centre(y, shift_px), ctf)


class PreparedImages(EncoderInput):
    """Images that are fixed for every particle.

    They are made once and kept beside the stack. Where the stack itself stays on disk they are made again whenever
    they are asked for: to the same bits, without a second copy of the data set.
    """

    images: Tensor | None
    dtype = torch.float32

    def make(self, particles: Particles, index: np.ndarray, seed: int) -> Tensor:
        """Return (B, D, D) real-space images, before window and transform."""
        raise NotImplementedError

    def prepare(self, particles: Particles, formation: ImageFormation, seed: int) -> None:
        """Make and preprocess all images, chunk by chunk, if they are to be kept."""
        self.formation, self.particles, self.seed, self.images = formation, particles, seed, None
        if particles.on_disk:
            return
        images = torch.empty(particles.images.shape, dtype=self.dtype, device=particles.images.device)
        for start in range(0, len(particles), CHUNK):
            index = np.arange(start, min(start + CHUNK, len(particles)))
            images[start : start + CHUNK] = self._preprocessed(index)
        self.images = images

    def fixed(self, index: Tensor, like: Tensor) -> Tensor:
        """Return the images of particles (B,) as (B, M), of the batch's device and type."""
        if self.images is not None:
            return fetch(self.images, index, like)
        return self._preprocessed(index.cpu().numpy()).to(device=like.device, dtype=like.dtype)

    def _preprocessed(self, index: np.ndarray) -> Tensor:
        return self.particles.preprocess(self.make(self.particles, index, self.seed)).to(self.dtype)


def fetch(images: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """Gather rows of a stack, wherever it lives, as a (B, M) tensor of the batch's device and type."""
    index = index.to(images.device)
    read_ahead(images, index)
    return images[index].to(device=like.device, dtype=like.dtype, non_blocking=True)
