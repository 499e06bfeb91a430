"""What the latents of an encoder are worth: on its training images, on altered ones, and on unseen particles.

z is worth what the decoder makes of it. Particle i is rendered from its own q(z_i), from the q of another particle, and
from the best q that a search under the frozen decoder finds. With the mean losses of the three

    information = loss(another's q) - loss(own q),      gap = loss(own q) - loss(best q),

the share = information / (information + gap) is what the encoder tells of all that z could have told: 1 for a rule
that holds, 0 for one that says nothing about the particle (gap: Cremer, Li and Duvenaud 2018).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.audit.model import AuditedVAE
from experiments.metrics.altered_particles import summarize, table_of
from lightning_modules.encoder_inputs.altered import ConsistentMetadata, RotatedInput, ShiftedInput
from lightning_modules.encoder_inputs.encoder_input import EncoderInput, IdentityInput
from lightning_modules.encoder_inputs.twins import NoiseTwin, derangement
from lightning_modules.latents.table_init import Latents
from lightning_modules.vae.posterior_search import ElboTerms, PosteriorSearch, elbo_terms

Floats = NDArray[np.float64]
N_RESAMPLED = 2000

TURNED = "rotate_90_consistent"
ALTERED: dict[str, tuple[str, EncoderInput]] = {
    TURNED: ("turned by 90°, pose and CTF with it: new to the encoder", RotatedInput(90, ConsistentMetadata())),
    "rotate_90": ("turned by 90°, as in the paper", RotatedInput(90)),
    "shift_1px_consistent": ("1 px to the right, and centred again", ShiftedInput(1, 0, metadata=ConsistentMetadata())),
    "shift_1px": ("1 px to the right, as in the paper", ShiftedInput(1, 0)),
    "noise": ("a fixed noise image instead", NoiseTwin()),
}


class Share(NamedTuple):
    """A share with its 95 percent interval over particles."""

    value: float
    low: float
    high: float


class ImageCondition(NamedTuple):
    """What the encoder makes of one kind of images.

    Attributes:
        name: short, of the metrics.
        says: what the images are.
        n: particles whose losses were taken.
        own: terms of the loss with their own q, each (n,).
        other: (n,) loss with another's q.
        best: (n,) loss with the q that was searched for.
        share: see above.
        moved: displacement of z, neighbour rank, fraction that keeps its class; none for other particles.
    """

    name: str
    says: str
    n: int
    own: ElboTerms
    other: Floats
    best: Floats
    share: Share
    moved: dict[str, float | None]

    @property
    def information(self) -> float:
        """By how much a particle's own q is better than another's."""
        return float(np.mean(self.other - self.own.total))

    @property
    def information_z(self) -> float:
        """The same over its standard error."""
        each = self.other - self.own.total
        error = float(np.std(each, ddof=1) / np.sqrt(len(each))) if len(each) > 1 else 0.0
        return self.information / error if error > 0 else 0.0

    @property
    def gap(self) -> float:
        """By how much the best q is better than a particle's own."""
        return float(np.mean(self.own.total - self.best))

    def metrics(self) -> dict[str, float | None]:
        """Return the numbers, as ``audit/NAME/...``."""
        numbers: dict[str, float | None] = {
            f"{term}": float(values.mean()) for term, values in self.own._asdict().items()
        }
        numbers["loss"] = numbers.pop("total")
        numbers |= {
            "loss_of_anothers": float(self.other.mean()),
            "loss_optimized": float(self.best.mean()),
            "information": self.information,
            "information_z": self.information_z,
            "amortization_gap": self.gap,
            "share": self.share.value,
            "share_low": self.share.low,
            "share_high": self.share.high,
            **self.moved,
        }
        return {f"audit/{self.name}/{key}": value for key, value in numbers.items()}


class PosteriorEvaluator:
    """Renders some particles of a model from given q."""

    def __init__(
        self, model: AuditedVAE, search: PosteriorSearch, n_samples: int, index: Tensor, original: Latents
    ) -> None:
        """Search the best q of the particles; where the encoder's is better, that is the best.

        Args:
            model: on its device.
            search: gives q.
            n_samples: of z for each particle and loss.
            index: (n,) particles.
            original: q of all particles of the model, from their own images.
        """
        self.model, self.n_samples, self.index = model, n_samples, index
        self.beta = model.beta(0)
        searched = self.terms(search(model, self.beta, model.seed, index)).total
        self.best = np.minimum(searched, self.terms(self.of_these(original)).total)

    def of_these(self, latents: Latents) -> Latents:
        """Return q of the particles judged, of q of all."""
        return Latents(*(part[self.index] for part in latents))

    def terms(self, latents: Latents) -> ElboTerms:
        """Return the terms of the loss with given q, each (n,)."""
        return elbo_terms(self.model, latents, self.beta, self.model.seed, self.n_samples, self.index)

    def view(
        self, name: str, says: str, latents: Latents, moved: dict[str, float | None] | None = None
    ) -> ImageCondition:
        """Judge q of all particles of the model."""
        q = self.of_these(latents)
        order = torch.from_numpy(derangement(len(self.index), self.model.seed))
        own, other = self.terms(q), self.terms(Latents(*(part[order] for part in q))).total
        share = share_of(own.total, other, self.best, self.model.seed)
        return ImageCondition(name, says, len(self.index), own, other, self.best, share, moved or {})


def share_of(own: Floats, other: Floats, best: Floats, seed: int) -> Share:
    """Return the share of three losses, each (n,), between 0 and 1, with its interval by resampling particles."""
    drawn = np.random.default_rng((seed, 22)).integers(len(own), size=(N_RESAMPLED, len(own)))
    ratios = _ratio(*(values[drawn].mean(axis=1) for values in (own, other, best)))
    low, high = np.percentile(ratios, (2.5, 97.5))
    value = _ratio(*(np.atleast_1d(values.mean()) for values in (own, other, best)))[0]
    return Share(float(value), float(low), float(high))


def _ratio(own: Floats, other: Floats, best: Floats) -> Floats:
    best = np.minimum(best, own)  # of altered images, where the best is that of their own
    possible = other - best
    ratio = np.divide(other - own, possible, out=np.zeros_like(own), where=possible > 0)
    return np.clip(ratio, 0, 1)


def altered_views(judge: PosteriorEvaluator, original: Latents) -> Iterator[tuple[ImageCondition, Latents]]:
    """Show the encoder each kind of altered images of its training particles.

    Args:
        judge: of some of them.
        original: q of all particles of the model, from their own images.

    Yields:
        A view, and q of all particles from the altered images.
    """
    model = judge.model
    rows = np.arange(len(original.mu))
    for name, (says, encoder_input) in ALTERED.items():
        model.see(encoder_input)
        altered = model.encode()
        summary = summarize(table_of(original.mu, altered.mu, None, rows, model.seed))
        kept = ("displacement_ratio", "neighbour_rank", "class_kept", "class_kept_chance")
        moved = {key: summary[f"amortization/{key}"] for key in kept}
        yield judge.view(name, says, altered, moved), altered
    model.see(IdentityInput())
    model.prepare()
