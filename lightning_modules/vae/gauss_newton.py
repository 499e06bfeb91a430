"""q(z) of every particle by Gauss-Newton steps: a sum of squares and a Gaussian prior need no gradient descent."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.latents.table_init import Latents
from lightning_modules.optimization.minibatches import generator_of
from lightning_modules.optimization.step_inputs import ParticleBatch
from lightning_modules.vae.cryo_vae import CryoVAE
from lightning_modules.vae.posterior_search import batches_with_bar, starts
from lightning_modules.vae.vae import VAE

DAMPING = 1e-2  # at the start, as a fraction of the curvature
EASED, RAISED = 0.2, 8.0  # what the damping is multiplied by after a step that helped, and after one that did not


class Point(NamedTuple):
    """Where a search has come, particle by particle.

    Attributes:
        mu: (B, zdim).
        residual: (B, M), y - y_hat(mu).
        jacobian: (B, zdim, M), dy_hat / dmu.
        objective: (B,), |residual|^2 + beta |mu|^2 / 2.
    """

    mu: Tensor
    residual: Tensor
    jacobian: Tensor
    objective: Tensor


@dataclass(frozen=True)
class GaussNewtonSearch:
    """q(z_i) = N(mu_i, exp(logvar_i)) that minimizes the negative ELBO of particle i, the decoder as it is.

    Times M, the loss of a particle is |y - y_hat(z)|^2 + beta KL, averaged over z from q. With J = dy_hat / dz, r the
    residual, and lambda a damping of the particle's own (Levenberg 1944, Marquardt 1963), a step is

        (A + lambda diag A)^-1 (2 J^T r - beta mu),   A = 2 J^T J + beta I,

    and where it does not help, the particle stays and its damping rises. With mu at rest, the best variances are
    sigma_d^2 = beta / (2 (J^T J)_dd + beta). There is no noise in it, and no learning rate.

    A step costs 1 + zdim passes through the decoder, and a handful of steps do.

    Attributes:
        steps: from each start.
        n_starts: the first is mu = 0, further ones are drawn from the prior; each particle keeps its best.
        from_encoder: one more start is what the model's own encoder infers.
    """

    needs_encoder: ClassVar[bool] = False

    steps: int = 8
    n_starts: int = 1
    from_encoder: bool = False

    def __call__(self, model: VAE, beta: float, seed: int, index: Tensor | None = None) -> Latents:
        """Search.

        Args:
            model: its decoder, particles and poses are used; its encoder only for a start.
            beta: weight of the KL.
            seed: of the starts that are drawn.
            index: (n,) particles; None: all.

        Returns:
            mu and logvar, each (n, zdim) float32 on the CPU.

        Raises:
            InputError: the loss is no sum of squares and weighed KL, or the model has no encoder to start from.
        """
        if not isinstance(model, CryoVAE) or model.beta_control is not None:
            found = "pictures" if model.beta_control is None else "beta_control"
            raise InputError(f"task/search=gauss_newton: {found} was found, which it is not made for; use adam")
        if self.from_encoder and not model.latents.encodes:
            raise InputError("task.search.from_encoder=true: no encoder was found, expected a run with one")
        found_q = []
        n_starts = self.n_starts + self.from_encoder
        steps = (self.steps + 1) * n_starts
        with torch.no_grad(), batches_with_bar(model, index, "optimizing q(z)", steps) as (batches, bar):
            for first, observed in batches:
                ends = []
                for start in self._starts(model, observed, generator_of(seed, 15, first)):
                    ends.append(self._search(model, observed, beta, start.to(model.device)))
                    bar.update(len(start) * (self.steps + 1))
                found_q.append(_best(ends, beta))
        mu, logvar = (torch.cat(part).cpu() for part in zip(*found_q, strict=True))
        return Latents(mu, logvar)

    def _starts(self, model: VAE, observed: ParticleBatch, noise: torch.Generator) -> Iterator[Tensor]:
        yield from starts(model, observed, self.n_starts, noise)
        if self.from_encoder:
            yield model.infer(observed)[0]

    def _search(self, model: CryoVAE, observed: ParticleBatch, beta: float, start: Tensor) -> Point:
        point = _point(model, observed, beta, start)
        damping = torch.full_like(point.objective, DAMPING)
        for _ in range(self.steps):
            trial = _point(model, observed, beta, point.mu + _step(point, beta, damping))
            helps = trial.objective < point.objective
            point = Point(*(_choose(helps, new, old) for new, old in zip(trial, point, strict=True)))
            damping = damping * torch.where(helps, EASED, RAISED)
        return point


def _point(model: CryoVAE, observed: ParticleBatch, beta: float, mu: Tensor) -> Point:
    y_hat, jacobian = model.linearize(observed, mu)
    residual = observed.y - y_hat
    objective = residual.square().sum(dim=1) + beta / 2 * mu.square().sum(dim=1)
    return Point(mu, residual, jacobian, objective)


def _step(point: Point, beta: float, damping: Tensor) -> Tensor:
    j = point.jacobian
    curvature = 2 * j @ j.transpose(1, 2)
    curvature.diagonal(dim1=1, dim2=2).add_(beta)
    descent = 2 * (j @ point.residual[..., None])[..., 0] - beta * point.mu
    curvature.diagonal(dim1=1, dim2=2).mul_(1 + damping[:, None])
    step: Tensor = torch.linalg.solve(curvature, descent)
    return step


def _choose(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(which.view(-1, *[1] * (new.ndim - 1)), new, old)


def _best(ends: list[Point], beta: float) -> tuple[Tensor, Tensor]:
    """Return of each particle mu and logvar of the end with the lowest loss, each (B, zdim)."""
    mu = torch.stack([end.mu for end in ends])
    curvature = torch.stack([end.jacobian.square().sum(dim=2) for end in ends])
    logvar = math.log(beta) - torch.log(2 * curvature + beta) if beta else torch.full_like(mu, -math.inf)
    variance = logvar.exp()
    # The loss times M, to second order in sigma, without what is the same for all.
    loss = torch.stack([end.objective for end in ends])
    loss = loss + (variance * curvature).sum(-1) + beta / 2 * (variance - logvar).sum(-1)
    best, rows = loss.argmin(dim=0), torch.arange(mu.shape[1])
    return mu[best, rows], logvar[best, rows]
