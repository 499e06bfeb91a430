"""q(z) of every particle by optimization, without an encoder, and the ELBO that any q reaches.

What an encoder infers in one go, gradient descent finds particle by particle: the best Gaussian q(z_i) under a decoder
that stays as it is. How much better that is than the encoder's q is the amortization gap (Cremer, Li and Duvenaud,
"Inference Suboptimality in Variational Autoencoders", 2018; Zhang, Hayes and Barber, "Generalization Gap in Amortized
Inference", 2022).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from lightning_modules.elbo import Elbo, reparameterize
from lightning_modules.latents.table_init import Latents
from lightning_modules.optimization.minibatches import generator_of
from lightning_modules.optimization.step_inputs import ParticleBatch
from lightning_modules.vae.vae import VAE

# Decoder's points at a time. On a GPU: a few GB of activations at the paper's width. On a CPU they do not count much.
POINTS_ON_CPU, POINTS_ON_GPU = 1 << 16, 1 << 19
N_TRIED = 16  # samples of z by which the starts of a search are compared


class ElboTerms(NamedTuple):
    """The terms of the loss of every particle, each (N,) float64; see ``lightning_modules.elbo.Elbo``."""

    total: NDArray[np.float64]
    reconstruction: NDArray[np.float64]
    kl: NDArray[np.float64]


@dataclass(frozen=True)
class PosteriorSearch:
    """q(z_i) = N(mu_i, exp(logvar_i)) that minimizes the negative ELBO of particle i, the decoder as it is.

    Adam from the prior, mu = logvar = 0, with noise drawn anew in every step; the learning rate falls to zero along a
    cosine, so that q comes to rest. Particles have nothing to do with each other: those of a minibatch go side by
    side, and only they are in memory.

    In a latent space of few dimensions one class can stand between a particle and its own place. Further starts, with
    mu drawn from the prior, then find it; each particle keeps the q of its lowest loss.

    Attributes:
        steps: of Adam, from each start.
        lr: its learning rate at the start; z moves by about this much in a step.
        n_starts: how many; the first is always mu = 0.
    """

    needs_encoder: ClassVar[bool] = False

    steps: int = 150
    lr: float = 0.2
    n_starts: int = 1

    def __call__(self, model: VAE, beta: float, seed: int, index: Tensor | None = None) -> Latents:
        """Search.

        Args:
            model: its decoder, particles and poses are used, its encoder or table is not.
            beta: weight of the KL.
            seed: of the noise.
            index: (n,) particles; None: all.

        Returns:
            mu and logvar, each (n, zdim) float32 on the CPU.
        """
        found = []
        with (
            _frozen(model),
            batches_with_bar(model, index, "optimizing q(z)", self.steps * self.n_starts) as (batches, bar),
        ):
            for first, observed in batches:
                noise = generator_of(seed, 15, first)
                begun = starts(model, observed, self.n_starts, noise)
                ends = [self._search(model, observed, beta, noise, bar, mu) for mu in begun]
                found.append(_best(model, observed, beta, generator_of(seed, 16, first), ends))
        mu, logvar = (torch.cat(part) for part in zip(*found, strict=True))
        return Latents(mu, logvar)

    def _search(
        self, model: VAE, observed: ParticleBatch, beta: float, noise: torch.Generator, bar: tqdm, start: Tensor
    ) -> tuple[Tensor, Tensor]:
        n, zdim = start.shape
        mu = start.to(model.device, copy=True).requires_grad_()
        logvar = torch.zeros_like(mu, requires_grad=True)
        # The gradient of logvar falls by orders of magnitude on the way: an average over 1000 steps would hold it up.
        adam = torch.optim.Adam([mu, logvar], lr=self.lr, betas=(0.9, 0.95))
        slower = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.steps)
        for _ in range(self.steps):
            adam.zero_grad()
            eps = torch.randn(n, zdim, generator=noise).to(model.device)
            # In nats, nearly: Adam does not mind the scale, unless it comes near to its own tiny epsilon.
            (_terms(model, observed, mu, logvar, eps, beta).total.sum() * observed.y.shape[1]).backward()
            adam.step()
            slower.step()
            bar.update(n)
        return mu.detach().cpu(), logvar.detach().cpu()


def starts(model: VAE, observed: ParticleBatch, n: int, noise: torch.Generator) -> Iterator[Tensor]:
    """Yield where n searches begin, mu (B, zdim) on the CPU: 0, and then draws from the prior."""
    shape = (len(observed.index), model.latents.zdim)
    yield torch.zeros(shape)
    for _ in range(n - 1):
        yield torch.randn(shape, generator=noise)


@torch.no_grad()
def _best(
    model: VAE, observed: ParticleBatch, beta: float, noise: torch.Generator, found: list[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Return of each particle the q (mu, logvar) with the lowest loss; all are tried under the same noise."""
    if len(found) == 1:
        return found[0]
    eps = torch.randn(N_TRIED, *found[0][0].shape, generator=noise).to(model.device)
    losses = []
    for mu, logvar in found:
        q = mu.to(model.device), logvar.to(model.device)
        losses.append(torch.stack([_terms(model, observed, *q, each, beta).total.cpu() for each in eps]).mean(dim=0))
    rows, best = torch.arange(len(observed.index)), torch.stack(losses).argmin(dim=0)
    mu, logvar = (torch.stack(part)[best, rows] for part in zip(*found, strict=True))
    return mu, logvar


@torch.no_grad()
def elbo_terms(
    model: VAE, latents: Latents, beta: float, seed: int, n_samples: int = 8, index: Tensor | None = None
) -> ElboTerms:
    """Return the terms of the loss that given q reach, particle by particle.

    The noise of z is a function of (seed, particle's place in the list): two q of the same particles are compared
    under the same noise.

    Args:
        model: decoder, particles and poses.
        latents: q of the particles, mu and logvar each (n, zdim).
        beta: weight of the KL.
        seed: of the noise.
        n_samples: of z for each particle, over which the reconstruction is averaged.
        index: (n,) particles; None: all.
    """
    found = []
    with batches_with_bar(model, index, "ELBO", n_samples) as (batches, bar):
        for first, observed in batches:
            noise = generator_of(seed, 14, first)
            mu, logvar = (part[first : first + len(observed.index)].to(model.device) for part in latents)
            sums = torch.zeros(3, len(mu), dtype=torch.float64)
            for _ in range(n_samples):
                eps = torch.randn(mu.shape, generator=noise).to(model.device)
                sums += torch.stack(_terms(model, observed, mu, logvar, eps, beta)).double().cpu()
                bar.update(len(mu))
            found.append(sums / n_samples)
    return ElboTerms(*torch.cat(found, dim=1).numpy())


def _terms(model: VAE, observed: ParticleBatch, mu: Tensor, logvar: Tensor, eps: Tensor, beta: float) -> Elbo:
    y_hat = model.render(observed, reparameterize(mu, logvar, eps))
    return model.each_loss(y_hat, observed.y, mu, logvar, beta, model.beta_control)


@contextmanager
def batches_with_bar(
    model: VAE, index: Tensor | None, name: str, steps: int
) -> Iterator[tuple[Iterator[tuple[int, ParticleBatch]], tqdm]]:
    """Give minibatches of particles, each with its place in the list, and a bar that counts particles times steps."""
    model.eval()
    model.prepare()
    index = torch.arange(len(model.particles)) if index is None else index
    points = POINTS_ON_CPU if model.device.type == "cpu" else POINTS_ON_GPU
    batch_size = max(1, points // model.formation.n_pixels)
    batches = ((i * batch_size, model.observe(some)) for i, some in enumerate(index.split(batch_size)))
    with tqdm(
        total=len(index) * steps, desc=name, unit="step", unit_scale=True, disable=None, delay=2, dynamic_ncols=True
    ) as bar:
        yield batches, bar


@contextmanager
def _frozen(model: VAE) -> Iterator[None]:
    """Spare the gradients of the decoder's weights, which are half of the work of a step."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
