"""Where the rows of a Variational Lookup Table start."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_modules.errors import InputError


class Latents(NamedTuple):
    """Posterior parameters of N particles: mu and logvar, each (N, zdim) float32."""

    mu: Tensor
    logvar: Tensor


class LatentInit(Protocol):
    """A start of the table."""

    def __call__(self, n_particles: int, zdim: int, seed: int, source: Latents | None) -> Latents:
        """Return the (n_particles, zdim) start; ``source`` holds another run's latents where one is needed."""


@dataclass(frozen=True)
class RandomLatents:
    """Every entry drawn on its own: mu ~ N(mu_mean, mu_std^2), logvar likewise (paper, Fig 5).

    The paper's numbers are the moments of a trained baseline's latents.
    """

    mu_mean: float = -0.05
    mu_std: float = 1.494
    logvar_mean: float = -5.47
    logvar_std: float = 0.715

    def __call__(self, n_particles: int, zdim: int, seed: int, source: Latents | None) -> Latents:
        """Draw the start."""
        mu, logvar = np.random.default_rng((seed, 1)).standard_normal((2, n_particles, zdim), dtype=np.float32)
        return Latents(
            torch.from_numpy(mu * np.float32(self.mu_std) + np.float32(self.mu_mean)),
            torch.from_numpy(logvar * np.float32(self.logvar_std) + np.float32(self.logvar_mean)),
        )


@dataclass(frozen=True)
class ConstantLatents:
    """Every row the same: mu = 0, logvar = -8 (paper, Figs 21 and 22)."""

    mu: float = 0.0
    logvar: float = -8.0

    def __call__(self, n_particles: int, zdim: int, seed: int, source: Latents | None) -> Latents:
        """Fill the start."""
        return Latents(torch.full((n_particles, zdim), self.mu), torch.full((n_particles, zdim), self.logvar))


@dataclass(frozen=True)
class RandomClusters:
    """A few means drawn at random, and each particle assigned to one of them at random.

    The latent space has clusters, but they say nothing about the images (from the authors' code, not in the
    paper). The log variances are those of :class:`RandomLatents`.
    """

    n_clusters: int = 4
    mu_std: float = 1.494
    logvar_mean: float = -5.47
    logvar_std: float = 0.715

    def __call__(self, n_particles: int, zdim: int, seed: int, source: Latents | None) -> Latents:
        """Draw the clusters and the assignment."""
        if self.n_clusters < 1:
            raise InputError(f"latents.init.n_clusters={self.n_clusters}: expected at least 1")
        rng = np.random.default_rng((seed, 2))
        means = rng.standard_normal((self.n_clusters, zdim)) * self.mu_std
        mu = means[rng.integers(self.n_clusters, size=n_particles)]
        logvar = rng.standard_normal((n_particles, zdim)) * self.logvar_std + self.logvar_mean
        return Latents(torch.from_numpy(mu).float(), torch.from_numpy(logvar).float())


@dataclass(frozen=True)
class PretrainedLatents:
    """Row i is what another run inferred for particle i (paper, Fig 24).

    Attributes:
        source: the run: the name of an experiment, found with this run's data, seed and trainer settings or
            trained first; or the folder of a finished run.
    """

    source: str = "baseline"

    def __call__(self, n_particles: int, zdim: int, seed: int, source: Latents | None) -> Latents:
        """Take the source's latents as they are."""
        if source is None:
            raise InputError("latents.init: this start needs the latents of another run; name it in source")
        if source.mu.shape != (n_particles, zdim):
            raise InputError(
                f"latents.init.source={self.source}: latents of shape {tuple(source.mu.shape)} were found, expected "
                f"{(n_particles, zdim)}; name a run of the same particles and zdim"
            )
        return source


@dataclass(frozen=True)
class PermutedLatents(PretrainedLatents):
    """Another run's latents, shuffled across particles (from the authors' code, not in the paper)."""

    def __call__(self, n_particles: int, zdim: int, seed: int, source: Latents | None) -> Latents:
        """Shuffle the source's rows; mu and logvar stay together."""
        mu, logvar = super().__call__(n_particles, zdim, seed, source)
        order = torch.from_numpy(np.random.default_rng((seed, 3)).permutation(n_particles))
        return Latents(mu[order], logvar[order])
