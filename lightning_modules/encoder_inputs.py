"""What the encoder sees for particle i: its image, an evil twin, or its image altered.

The loss always compares with particle i's own image. Every class is prepared once, on the particles, and then
called with a batch; what it returns is phase-flipped by the CTF of particle i afterwards.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.particles import Particles

CHUNK = 256


class EncoderInput(Protocol):
    """The slot between the particles and the encoder."""

    def prepare(self, particles: Particles, formation: ImageFormation, seed: int) -> None:
        """Fix everything that stays the same for the whole run."""

    def __call__(self, y: Tensor, shift_px: Tensor, index: Tensor) -> Tensor:
        """Return (B, M) Hartley transforms, from the particles' own y (B, M), shift_px (B, 2), index (B,)."""


class IdentityInput:
    """x_i = the centred image of particle i, as in cryoDRGN."""

    def prepare(self, particles: Particles, formation: ImageFormation, seed: int) -> None:
        """Nothing to fix."""
        self.formation = formation

    def __call__(self, y: Tensor, shift_px: Tensor, index: Tensor) -> Tensor:
        """Centre the image by the particle's shift."""
        return self.formation.centre(y, shift_px)


def derangement(n: int, seed: int) -> np.ndarray:
    """Draw a permutation without fixed points, uniformly among all of them.

    Args:
        n: length, at least 2.
        seed: of the draw.

    Returns:
        (n,) int64.

    Raises:
        InputError: fewer than two particles.
    """
    if n < 2:
        raise InputError(f"encoder_input: {n} particle was found, expected at least 2; nobody is its own twin")
    rng = np.random.default_rng((seed, 4))
    while True:  # one draw in e has no fixed point, whatever n is
        order = rng.permutation(n)
        if not (order == np.arange(n)).any():
            return order


class PermutedTwin:
    """x_i = the image of particle pi(i), for one fixed permutation without fixed points (paper, section 3.3).

    The twin's image is not centred by anyone's shift, as in the authors' code.

    Attributes:
        partner: (N,) pi.
    """

    def prepare(self, particles: Particles, formation: ImageFormation, seed: int) -> None:
        """Draw the partners."""
        self.images = particles.images
        self.partner = torch.from_numpy(derangement(len(particles), seed)).to(particles.images.device)

    def __call__(self, y: Tensor, shift_px: Tensor, index: Tensor) -> Tensor:
        """Fetch the partners' images."""
        return fetch(self.images, self.partner[index.to(self.partner.device)], y)


class _PreparedImages:
    """Images made once for every particle, kept beside the stack, in half precision."""

    images: Tensor

    def _make(self, particles: Particles, index: np.ndarray, seed: int) -> Tensor:
        """Return (B, D, D) real-space images, before window and transform."""
        raise NotImplementedError

    def prepare(self, particles: Particles, formation: ImageFormation, seed: int) -> None:
        """Make and preprocess all images, chunk by chunk."""
        self.formation = formation
        self.images = torch.empty(particles.images.shape, dtype=self.dtype, device=particles.images.device)
        for start in range(0, len(particles), CHUNK):
            index = np.arange(start, min(start + CHUNK, len(particles)))
            self.images[start : start + CHUNK] = particles.preprocess(self._make(particles, index, seed))

    dtype = torch.float32


class NoiseTwin(_PreparedImages):
    """x_i = one fixed Gaussian noise image, with the mean and variance of the data set (paper, section 3.3).

    Twin i is a function of (seed, i). It is preprocessed as any image is, and centred by nobody's shift. Half
    precision is part of its definition: the rounded image is what is fixed.
    """

    dtype = torch.float16

    def _make(self, particles: Particles, index: np.ndarray, seed: int) -> Tensor:
        mean, std = particles.norm_real
        shape = (particles.box_px, particles.box_px)
        noise = [np.random.default_rng((seed, 5, i)).standard_normal(shape, dtype=np.float32) for i in index]
        return torch.from_numpy(np.stack(noise)) * std + mean

    def __call__(self, y: Tensor, shift_px: Tensor, index: Tensor) -> Tensor:
        """Fetch the noise images."""
        return fetch(self.images, index, y)


class ShiftedInput(_PreparedImages):
    """x_i = the image of particle i rolled in real space, before window and transform (paper, section 3.4).

    Columns that leave at the right come in at the left. The original's shift and CTF are kept.
    """

    def __init__(self, dx_px: int = 1, dy_px: int = 0) -> None:
        """Set the roll.

        Args:
            dx_px: to the right.
            dy_px: downwards.
        """
        self.dx_px, self.dy_px = dx_px, dy_px

    def _make(self, particles: Particles, index: np.ndarray, seed: int) -> Tensor:
        return self.alter(particles.raw(index))

    def alter(self, raw: Tensor) -> Tensor:
        """Roll (B, D, D) images."""
        return torch.roll(raw, (self.dy_px, self.dx_px), dims=(-2, -1))

    def __call__(self, y: Tensor, shift_px: Tensor, index: Tensor) -> Tensor:
        """Centre the altered image by the original's shift."""
        return self.formation.centre(fetch(self.images, index, y), shift_px)


class RotatedInput(ShiftedInput):
    """x_i = the image of particle i rotated in real space, before window and transform (paper, section 3.4).

    The original's shift and CTF are kept. Directions are those of the image as displayed, first row on top.
    """

    def __init__(self, clockwise_deg: int = 90) -> None:
        """Set the rotation.

        Args:
            clockwise_deg: a multiple of 90.

        Raises:
            InputError: another angle.
        """
        if clockwise_deg % 90:
            raise InputError(f"encoder_input.clockwise_deg={clockwise_deg}: expected a multiple of 90")
        self.clockwise_deg = clockwise_deg

    def alter(self, raw: Tensor) -> Tensor:
        """Rotate (B, D, D) images."""
        return torch.rot90(raw, -self.clockwise_deg // 90, dims=(-2, -1))


def fetch(images: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """Gather rows of a stack, wherever it lives, as a (B, M) tensor of the batch's device and type."""
    return images[index.to(images.device)].to(device=like.device, dtype=like.dtype, non_blocking=True)
