"""What a step is given: a minibatch as the model needs it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor


class ParticleBatch(NamedTuple):
    """Some particles as a step needs them; nothing in it depends on what is learned.

    Attributes:
        index: (B,) particles.
        y: (B, M) images, centred where a shift is known: what the loss compares with.
        x: (B, F) what q(z) is inferred from: the image that the encoder sees, or what its class takes from it.
        ctf: (B, M), or None.
        rotations: (B, 3, 3), or None where images have no pose.
    """

    index: Tensor  # type: ignore[assignment]  # hides the method of tuples, which nobody needs
    y: Tensor
    x: Tensor
    ctf: Tensor | None = None
    rotations: Tensor | None = None

    def split(self, sizes: list[int]) -> Iterator["ParticleBatch"]:
        """Yield consecutive parts of the given sizes."""
        parts = [[None] * len(sizes) if part is None else part.split(sizes) for part in self]
        return (ParticleBatch(*part) for part in zip(*parts, strict=True))


class StepInputs(NamedTuple):
    """What the loss of a minibatch is computed from.

    Attributes:
        observed: what depends on the particles alone.
        eps: (B, zdim) standard normal.
        beta: weight of the KL.
    """

    observed: ParticleBatch
    eps: Tensor
    beta: float | Tensor

    def own(self) -> "StepInputs":
        """Return the same in memory of its own, beta among it."""
        parts: list[Any] = [None if part is None else part.clone() for part in self.observed]
        return StepInputs(ParticleBatch(*parts), self.eps.clone(), self.eps.new_tensor(self.beta))

    def take(self, other: "StepInputs") -> None:
        """Overwrite it with another minibatch of the same size."""
        assert isinstance(self.beta, Tensor), "made by own()"
        for mine, new in zip((*self.observed, self.eps), (*other.observed, other.eps), strict=True):
            if mine is not None and new is not None:
                mine.copy_(new)
        self.beta.fill_(other.beta)
