"""Are these the particles? Stored latents against those that the weights give."""

from typing import NamedTuple

import numpy as np

from lightning_modules.latents.table_init import Latents

EXACT, NEARLY = 0.01, 0.1  # of the spread: rounding of another processor; another version's details


class Reproduced(NamedTuple):
    """How well z.pkl was reproduced, over mu.

    Attributes:
        n: particles compared.
        largest: absolute difference.
        largest_of_spread: the same over the standard deviation of the stored z about its mean.
        rms_of_spread: root mean square of the differences over it.
        correlation: of the entries about their dimension's mean; 1 where they agree.
    """

    n: int
    largest: float
    largest_of_spread: float
    rms_of_spread: float
    correlation: float

    @property
    def is_same(self) -> bool:
        """Whether these are the particles, prepared as the run had them."""
        return self.rms_of_spread <= EXACT

    @property
    def says(self) -> str:
        """The verdict in words."""
        if self.is_same:
            return "reproduced"
        return "reproduced, but for small differences" if self.rms_of_spread <= NEARLY else "not reproduced"

    def metrics(self) -> dict[str, float]:
        """Return the numbers, as ``audit/z/...``."""
        return {f"audit/z/{name}": float(value) for name, value in self._asdict().items()}


def compare(stored: Latents, found: Latents) -> Reproduced:
    """Compare stored and recomputed latents, each (n, zdim)."""
    theirs, ours = (np.asarray(each.mu, dtype=np.float64) for each in (stored, found))
    difference = ours - theirs
    a, b = theirs - theirs.mean(axis=0), ours - ours.mean(axis=0)
    spread = float(np.sqrt((a**2).mean())) or float(np.abs(theirs).max()) or 1.0
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    largest = float(np.abs(difference).max())
    rms = float(np.sqrt((difference**2).mean()))
    return Reproduced(
        len(ours), largest, largest / spread, rms / spread, float((a * b).sum() / scale) if scale > 0 else 1.0
    )
