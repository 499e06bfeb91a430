"""The evidence lower bound, term by term, as cryoDRGN weighs it."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Elbo(NamedTuple):
    """The terms of the loss, each a scalar and a mean over the batch, or one value per particle.

    Attributes:
        total: what is minimized.
        reconstruction: mean squared error over the batch and the M masked pixels; of pictures, the
            cross-entropy of all pixels.
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
    return Elbo(reconstruction + _regularizer(kl, beta, beta_control) / y.shape[1], reconstruction, kl)


def each_negative_elbo(
    y_hat: Tensor, y: Tensor, mu: Tensor, logvar: Tensor, beta: float, beta_control: float | None = None
) -> Elbo:
    """:func:`negative_elbo` of every particle on its own.

    Their mean is the loss of the batch; but with ``beta_control``, which holds the mean KL of a batch near its
    target there, and each particle's here.

    Returns:
        The three terms, each (B,).
    """
    reconstruction = (y_hat - y).square().mean(dim=1)
    kl = kl_divergence(mu, logvar)
    return Elbo(reconstruction + _regularizer(kl, beta, beta_control) / y.shape[1], reconstruction, kl)


def bernoulli_negative_elbo(
    logits: Tensor, y: Tensor, mu: Tensor, logvar: Tensor, beta: float | Tensor, beta_control: float | None = None
) -> Elbo:
    """Loss of a picture whose pixels are probabilities: cross-entropy + beta * KL (paper, appendix B).

    Args:
        logits: (B, M) rendered pixels, before the sigmoid.
        y: (B, M) pixels from 0 to 1.
        mu: (B, zdim).
        logvar: (B, zdim).
        beta: weight of the KL, or its target when ``beta_control`` is given.
        beta_control: strength of KL control, as above.

    Returns:
        The three terms, in nats per image.
    """
    reconstruction = F.binary_cross_entropy_with_logits(logits, y, reduction="sum") / len(y)
    kl = kl_divergence(mu, logvar).mean()
    return Elbo(reconstruction + _regularizer(kl, beta, beta_control), reconstruction, kl)


def each_bernoulli_negative_elbo(
    logits: Tensor, y: Tensor, mu: Tensor, logvar: Tensor, beta: float, beta_control: float | None = None
) -> Elbo:
    """:func:`bernoulli_negative_elbo` of every picture on its own, each term (B,)."""
    reconstruction = F.binary_cross_entropy_with_logits(logits, y, reduction="none").sum(dim=1)
    kl = kl_divergence(mu, logvar)
    return Elbo(reconstruction + _regularizer(kl, beta, beta_control), reconstruction, kl)


def _regularizer(kl: Tensor, beta: float | Tensor, beta_control: float | None) -> Tensor:
    """Weigh the KL, or hold it at its target."""
    weighed: Tensor = beta * kl if beta_control is None else beta_control * (beta - kl) ** 2
    return weighed
