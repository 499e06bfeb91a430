"""Particles that a run never sees, so that what it learned can be tried on them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import InputError


class Part(Protocol):
    """Takes some of n particles."""

    def positions(self, n_particles: int) -> NDArray[np.int64]:
        """Return the positions of the particles taken, in rising order."""


@dataclass(frozen=True, eq=False)
class Some:
    """Takes particles by their positions.

    Attributes:
        taken: (n,) in rising order.
    """

    taken: NDArray[np.int64]

    def positions(self, n_particles: int) -> NDArray[np.int64]:
        """Return the positions."""
        return self.taken


@dataclass(frozen=True)
class Split:
    """Holds a fraction of the particles out: a random choice that is a function of their number and the seed.

    Attributes:
        heldout_fraction: of the particles, above 0 and below 1; rounded to whole ones, at least one on each side.
        seed: of the choice.
        takes_heldout: take the particles held out; if not, the others, on which is trained.
    """

    heldout_fraction: float
    seed: int
    takes_heldout: bool = False

    def positions(self, n_particles: int) -> NDArray[np.int64]:
        """Return the positions of the particles taken, in rising order.

        Raises:
            InputError: a fraction out of range, or fewer than two particles.
        """
        if not 0 < self.heldout_fraction < 1:
            raise InputError(f"task.heldout_fraction={self.heldout_fraction}: expected a fraction above 0 and below 1")
        if n_particles < 2:
            raise InputError(f"task.heldout_fraction: {n_particles} particle was found, expected at least 2 to split")
        n_heldout = min(max(round(self.heldout_fraction * n_particles), 1), n_particles - 1)
        order = np.random.default_rng((self.seed, 6)).permutation(n_particles)
        return np.sort(order[:n_heldout] if self.takes_heldout else order[n_heldout:]).astype(np.int64)
