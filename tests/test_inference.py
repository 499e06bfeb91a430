"""q(z) by optimization, and the ELBO of any q."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_modules.elbo import each_negative_elbo, kl_divergence, negative_elbo
from lightning_modules.latents.table_init import ConstantLatents, Latents
from lightning_modules.particles.particles import Particles
from lightning_modules.vae.posterior_search import PosteriorSearch, elbo_terms
from tests.small_models import ZDIM, cryo_vae, particles_in

N, BETA = 40, 0.25


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    return particles_in(tmp_path_factory.mktemp("particles"), n=N)


class LinearDecoder(nn.Module):
    """y_hat = A z: with it, the best q is known in closed form."""

    zdim = ZDIM

    def __init__(self, n_pixels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_pixels, ZDIM, generator=torch.Generator().manual_seed(0)))

    def forward(self, rotations: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return z @ self.weight.t()

    def linearize(self, rotations: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return z @ self.weight.t(), self.weight.t().expand(len(z), -1, -1)


def linear_vae(particles: Particles):
    """A VAE whose images are noise around A z, with a known z for each."""
    model = cryo_vae(particles)
    model.decoder = LinearDecoder(model.formation.n_pixels)
    rng = torch.Generator().manual_seed(1)
    z = torch.randn(N, ZDIM, generator=rng)
    noise = torch.randn(N, model.formation.n_pixels, generator=rng)
    model.observe = lambda index, observe=model.observe: observe(index)._replace(
        y=(z @ model.decoder.weight.t() + 3 * noise)[index].detach(), ctf=None
    )
    return model


def best_posterior(model) -> Latents:
    """Minimize |y - A mu|^2 / M + sum_d A_d^2 exp(logvar_d) / M + beta KL / M by hand; A^T A is nearly diagonal."""
    a, y = model.decoder.weight.detach(), model.observe(torch.arange(N)).y
    mu = y @ a @ torch.linalg.inv(a.t() @ a + BETA / 2 * torch.eye(ZDIM))
    logvar = torch.log(BETA / (BETA + 2 * a.square().sum(dim=0))).expand(N, ZDIM)
    return Latents(mu, logvar)


@pytest.fixture(scope="module")
def searched(particles: Particles):
    """A model whose best q is known, and the q that was found."""
    model = linear_vae(particles)
    return model, PosteriorSearch(steps=800)(model, BETA, seed=0)


def test_the_search_finds_the_best_gaussian_where_it_is_known(searched) -> None:
    model, found = searched
    expected = best_posterior(model)
    assert expected.mu.abs().max() > 1 and expected.logvar.max() < -5
    torch.testing.assert_close(found.mu, expected.mu, rtol=0, atol=0.05)
    torch.testing.assert_close(found.logvar, expected.logvar, rtol=0, atol=0.5)


def test_no_other_q_has_a_higher_elbo(searched) -> None:
    model, found = searched
    best = elbo_terms(model, found, BETA, seed=0, n_samples=64).total.mean()
    for worse in (
        Latents(found.mu + 0.3, found.logvar),
        Latents(found.mu, found.logvar + 2),
        Latents(found.mu, found.logvar - 2),
        Latents(torch.zeros_like(found.mu), torch.zeros_like(found.logvar)),
    ):
        assert elbo_terms(model, worse, BETA, seed=0, n_samples=64).total.mean() > best


def test_the_search_is_a_function_of_the_seed_and_leaves_the_model_as_it_was(particles: Particles) -> None:
    model = cryo_vae(particles)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    search = PosteriorSearch(steps=5)
    first, again, other = (search(model, BETA, seed) for seed in (0, 0, 1))
    assert first.mu.equal(again.mu) and first.logvar.equal(again.logvar)
    assert not first.mu.equal(other.mu)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_one_particles_search_does_not_move_another(particles: Particles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, so that a minibatch's draws are no difference: particle by particle, or all at once."""
    model = cryo_vae(particles)
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.zeros(*shape))
    together = PosteriorSearch(steps=5)(model, BETA, seed=0)
    monkeypatch.setattr("lightning_modules.vae.posterior_search.POINTS_ON_CPU", 1)
    alone = PosteriorSearch(steps=5)(model, BETA, seed=0)
    torch.testing.assert_close(together.mu, alone.mu, rtol=1e-3, atol=1e-3)


def test_an_index_asks_for_some_particles_in_its_order(particles: Particles, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cryo_vae(particles)
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.zeros(*shape))
    every = PosteriorSearch(steps=3)(model, BETA, seed=0)
    index = torch.tensor([7, 2, 30])
    some = PosteriorSearch(steps=3)(model, BETA, 0, index)
    torch.testing.assert_close(some.mu, every.mu[index], rtol=1e-3, atol=1e-3)
    terms, of_some = elbo_terms(model, every, BETA, 0), elbo_terms(model, some, BETA, 0, index=index)
    assert np.allclose(of_some.total, terms.total[index], rtol=1e-3)


def test_elbo_terms_are_those_of_training(particles: Particles) -> None:
    """With one sample and the same noise, the mean over particles is the loss of a minibatch of all."""
    model = cryo_vae(particles, init=ConstantLatents(0.3, -1.0))
    q = model.encode()
    terms = elbo_terms(model, q, BETA, seed=3, n_samples=1)
    from lightning_modules.optimization.minibatches import generator_of

    eps = torch.randn(N, ZDIM, generator=generator_of(3, 14, 0))
    loss = model.elbo(model.observe(torch.arange(N)), eps, BETA)
    for ours, theirs in zip(terms, loss, strict=True):
        assert ours.shape == (N,)
        assert ours.mean() == pytest.approx(theirs.item(), rel=1e-5)
    assert np.allclose(terms.kl, kl_divergence(*q))


@pytest.mark.parametrize("control", [None, 2.0])
def test_the_loss_of_a_batch_is_the_mean_over_its_particles(control: float | None) -> None:
    y_hat, y = torch.randn(2, 5, 20, generator=torch.Generator().manual_seed(0))
    mu, logvar = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    each = each_negative_elbo(y_hat, y, mu, logvar, 0.3, control)
    batch = negative_elbo(y_hat, y, mu, logvar, 0.3, control)
    assert each.reconstruction.mean().item() == pytest.approx(batch.reconstruction.item())
    assert each.kl.mean().item() == pytest.approx(batch.kl.item())
    if control is None:
        assert each.total.mean().item() == pytest.approx(batch.total.item())
    else:
        alone = [negative_elbo(*(part[i : i + 1] for part in (y_hat, y, mu, logvar)), 0.3, control) for i in range(5)]
        assert each.total.tolist() == pytest.approx([one.total.item() for one in alone])


def test_more_samples_make_the_estimate_steadier(particles: Particles) -> None:
    model = cryo_vae(particles, init=ConstantLatents(0.0, 1.0))
    q = model.encode()
    spread = {
        n: np.std([elbo_terms(model, q, BETA, seed, n).reconstruction for seed in range(6)], axis=0).mean()
        for n in (1, 16)
    }
    assert spread[16] < 0.5 * spread[1]


class WellDecoder(nn.Module):
    """Right at z_0 = 1.5 and its neighbourhood, equally wrong everywhere else: no slope leads there from 0."""

    zdim = ZDIM

    def __init__(self, n_pixels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_pixels))

    def forward(self, rotations: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return (1 - torch.exp(-8 * (z[:, :1] - 1.5).square())) * self.weight


def test_further_starts_find_what_no_slope_leads_to(particles: Particles) -> None:
    model = cryo_vae(particles)
    model.decoder = WellDecoder(model.formation.n_pixels)
    model.observe = lambda index, observe=model.observe: observe(index)._replace(
        y=torch.zeros(len(index), model.formation.n_pixels), ctf=None
    )
    one, many = (PosteriorSearch(steps=60, lr=0.05, n_starts=n)(model, BETA, seed=0) for n in (1, 24))
    assert (many.mu[:, 0] - 1.5).abs().median() < 0.2 < (one.mu[:, 0] - 1.5).abs().median()
    losses = [elbo_terms(model, q, BETA, 0, n_samples=100).total for q in (one, many)]
    assert (losses[1] < losses[0]).mean() > 0.9 and losses[1].mean() < 0.8 * losses[0].mean()


def test_one_start_is_the_first_of_many(searched) -> None:
    """Where there is one best q, every start ends there."""
    model, found = searched
    many = PosteriorSearch(steps=800, n_starts=2)(model, BETA, seed=0)
    assert torch.allclose(many.mu, found.mu, atol=0.1)
