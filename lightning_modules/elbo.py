"""The evidence lower bound, term by term, as cryoDRGN weighs it."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Elbo(NamedTuple):
    """The terms of the loss, each a scalar and a mean over the batch.

    Attributes:
        total: what is minimized.
        reconstruction: mean squared error over the batch and the M masked pixels.
        kl: divergence of q(z|x) from the standard normal, in nats per particle.
    """

    total: Tensor
    reconstruction: Tensor
    kl: Tensor


def reparameterize(mu: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """Sample z = mu + exp(logvar / 2) * eps.

    Args:
        mu: (B, zdim).
        logvar: (B, zdim).
        eps: (B, zdim), standard normal.

    Returns:
        (B, zdim).
    """
    return mu + torch.exp(0.5 * logvar) * eps


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL = -1/2 sum_d (1 + logvar_d - mu_d^2 - exp(logvar_d)) of each particle.

    Args:
        mu: (B, zdim).
        logvar: (B, zdim).

    Returns:
        (B,) in nats.
    """
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(dim=1)


def negative_elbo(
    y_hat: Tensor, y: Tensor, mu: Tensor, logvar: Tensor, beta: float | Tensor, beta_control: float | None = None
) -> Elbo:
    """Loss of ``cryodrgn.commands.train_vae.loss_function``.

    loss = mse(y_hat, y) + beta * KL / M, or, with ``beta_control`` g, mse + g * (beta - KL)^2 / M.

    Args:
        y_hat: (B, M) rendered slices, CTF applied.
        y: (B, M) centred images.
        mu: (B, zdim).
        logvar: (B, zdim).
        beta: weight of the KL, or its target when ``beta_control`` is given.
        beta_control: KL-controlled training (cryoDRGN's ``--beta-control``).

    Returns:
        The three terms.
    """
    reconstruction = F.mse_loss(y_hat, y)
    kl = kl_divergence(mu, logvar).mean()
    regularizer = beta * kl if beta_control is None else beta_control * (beta - kl) ** 2
    return Elbo(reconstruction + regularizer / y.shape[1], reconstruction, kl)
