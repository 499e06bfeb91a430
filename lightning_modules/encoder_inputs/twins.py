"""Evil twins (paper, section 3.3): a fixed partner in the place of every particle."""

import numpy as np
import torch
from torch import Tensor

from lightning_modules.encoder_inputs.encoder_input import EncoderInput, PreparedImages, fetch
from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.particles.particles import Particles


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


class PermutedTwin(EncoderInput):
    """x_i = the image of particle pi(i), for one fixed permutation without fixed points (paper, section 3.3).

    The twin's image is not centred by anyone's shift, as in the authors' code.

    Attributes:
        partner: (N,) pi.
    """

    def prepare(self, particles: Particles, formation: ImageFormation, seed: int) -> None:
        """Draw the partners."""
        self.formation = formation
        self.images = particles.images
        self.partner = torch.from_numpy(derangement(len(particles), seed)).to(particles.images.device)

    def __call__(self, y: Tensor, shift_px: Tensor, ctf: Tensor | None, index: Tensor) -> Tensor:
        """Fetch the partners' images; the phases flip by the particle's own CTF."""
        return self.formation.phase_flip(fetch(self.images, self.partner[index.to(self.partner.device)], y), ctf)


class NoiseTwin(PreparedImages):
    """x_i = one fixed Gaussian noise image, with the mean and variance of the data set (paper, section 3.3).

    Twin i is a function of (seed, i). It is preprocessed as any image is, and centred by nobody's shift. Half
    precision is part of its definition: the rounded image is what is fixed.
    """

    dtype = torch.float16

    def make(self, particles: Particles, index: np.ndarray, seed: int) -> Tensor:
        """Draw the noise."""
        mean, std = particles.norm_real
        shape = (particles.box_px, particles.box_px)
        noise = [np.random.default_rng((seed, 5, i)).standard_normal(shape, dtype=np.float32) for i in index]
        return torch.from_numpy(np.stack(noise)) * std + mean

    def __call__(self, y: Tensor, shift_px: Tensor, ctf: Tensor | None, index: Tensor) -> Tensor:
        """Fetch the noise images; the phases flip by the particle's own CTF."""
        return self.formation.phase_flip(self.fixed(index, y), ctf)
