"""The loss is the paper's: mse + beta * KL / M, with cryoDRGN's options."""

import math

import pytest
import torch
from cryodrgn.commands.train_vae import loss_function

from lightning_modules.elbo import kl_divergence, negative_elbo, reparameterize

B, M, ZDIM = 6, 50, 3


def posterior(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, ZDIM, generator=generator), torch.randn(B, ZDIM, generator=generator)


def test_kl_is_that_of_the_two_normal_distributions() -> None:
    mu, logvar = posterior()
    q = torch.distributions.Normal(mu, torch.exp(logvar / 2))
    p = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    expected = torch.distributions.kl_divergence(q, p).sum(dim=1)
    torch.testing.assert_close(kl_divergence(mu, logvar), expected)
    assert (kl_divergence(mu, logvar) > 0).all()


def test_kl_of_the_standard_normal_is_zero_and_of_the_zero_table_is_known() -> None:
    zeros = torch.zeros(2, ZDIM)
    assert torch.equal(kl_divergence(zeros, zeros), torch.zeros(2))
    expected = torch.full((2,), -0.5 * ZDIM * (1 - 8 - math.exp(-8)))
    torch.testing.assert_close(kl_divergence(zeros, zeros - 8), expected)


def test_samples_have_the_posteriors_mean_and_variance() -> None:
    n = 200_000
    eps = torch.randn(n, 1, generator=torch.Generator().manual_seed(0))
    z = reparameterize(torch.full((n, 1), 2.0), torch.full((n, 1), math.log(0.25)), eps)
    assert abs(float(z.mean()) - 2) < 0.005
    assert abs(float(z.std()) - 0.5) < 0.005


def test_gradient_reaches_mu_and_logvar_through_the_sample() -> None:
    mu, logvar = (part.requires_grad_() for part in posterior())
    eps = torch.randn(B, ZDIM)
    reparameterize(mu, logvar, eps).sum().backward()
    torch.testing.assert_close(mu.grad, torch.ones(B, ZDIM))
    torch.testing.assert_close(logvar.grad, 0.5 * torch.exp(0.5 * logvar.detach()) * eps)


@pytest.mark.parametrize("beta_control", [None, 0.7], ids=["constant", "kl_control"])
@pytest.mark.parametrize("beta", [0.0, 0.125, 5.0])
def test_terms_equal_cryodrgns_loss_function(beta: float, beta_control: float | None) -> None:
    mu, logvar = posterior()
    y, y_hat = torch.randn(B, M), torch.randn(B, M)
    mask = torch.ones(M, dtype=torch.bool)
    expected = loss_function(mu, logvar, y, None, y_hat, mask, beta, beta_control)
    for term, theirs in zip(negative_elbo(y_hat, y, mu, logvar, beta, beta_control), expected, strict=True):
        torch.testing.assert_close(term, theirs, rtol=1e-6, atol=0)
