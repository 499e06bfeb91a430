"""Gauss-Newton steps find the q(z) that a long gradient descent finds, and the exact one where it is known."""

import numpy as np
import pytest
import torch

from lightning_modules.errors import InputError
from lightning_modules.latents.table_init import ConstantLatents
from lightning_modules.particles.particles import Particles
from lightning_modules.vae.gauss_newton import GaussNewtonSearch
from lightning_modules.vae.posterior_search import PosteriorSearch, elbo_terms
from tests.small_models import ZDIM, cryo_vae, particles_in, train
from tests.test_inference import BETA, N, best_posterior, linear_vae
from tests.tiny import tiny

DECODERS = [
    {},
    {"domain": "hartley"},
    {"pe_type": "none"},
    {"pe_type": "gaussian", "activation": "leaky_relu"},
    {"pe_type": "none", "width": 3 + ZDIM},  # whose first layer adds its inputs, z among them
]


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    return particles_in(tmp_path_factory.mktemp("particles"), n=N)


@pytest.fixture(scope="module")
def trained(particles: Particles):
    model = cryo_vae(particles, lr=3e-3)
    train(model, max_epochs=30)
    return model


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda changes: "-".join(map(str, changes.values())) or "default")
@pytest.mark.parametrize("with_ctf", [True, False], ids=["ctf", "no ctf"])
def test_the_jacobian_is_the_slices_derivative_by_z(particles: Particles, decoder: dict, with_ctf: bool) -> None:
    from lightning_modules.networks.slice_decoder import SliceDecoder

    model = cryo_vae(particles)
    model.decoder = SliceDecoder(model.formation, ZDIM, **({"layers": 2, "width": 32} | decoder)).double().float()
    observed = model.observe(torch.arange(3))
    observed = observed if with_ctf else observed._replace(ctf=None)
    z = torch.randn(3, ZDIM)
    y_hat, jacobian = model.linearize(observed, z)
    expected = model.render(observed, z)
    torch.testing.assert_close(y_hat, expected, rtol=1e-4, atol=1e-5)
    for d in range(ZDIM):
        z_d = z.clone().requires_grad_()
        weights = torch.randn_like(expected)
        (grad,) = torch.autograd.grad((model.render(observed, z_d) * weights).sum(), z_d)
        torch.testing.assert_close((jacobian * weights[:, None]).sum(-1)[:, d], grad[:, d], rtol=1e-3, atol=1e-4)


def test_one_step_finds_the_best_gaussian_of_a_linear_decoder(particles: Particles) -> None:
    model = linear_vae(particles)
    expected = best_posterior(model)
    found = GaussNewtonSearch(steps=3)(model, BETA, seed=0)
    torch.testing.assert_close(found.mu, expected.mu, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.logvar, expected.logvar, rtol=0, atol=1e-3)


def test_its_loss_is_no_higher_than_that_of_a_long_descent(trained) -> None:
    ours, by_descent = (
        elbo_terms(trained, search(trained, BETA, seed=0), BETA, seed=1, n_samples=64).total
        for search in (GaussNewtonSearch(steps=10), PosteriorSearch(steps=600))
    )
    assert ours.mean() < by_descent.mean() + 5e-4  # z is wide here: images of 16 px say little
    prior = elbo_terms(trained, ConstantLatents(0.0, 0.0)(N, ZDIM, 0, None), BETA, seed=1, n_samples=64).total
    assert by_descent.mean() < prior.mean() - 0.01


def test_more_steps_and_more_starts_never_lose(trained) -> None:
    def objective(steps: int, n_starts: int = 1, from_encoder: bool = False) -> np.ndarray:
        search = GaussNewtonSearch(steps, n_starts, from_encoder)
        return elbo_terms(trained, search(trained, BETA, 0), BETA, seed=1, n_samples=64).total

    few, many, tried, helped = objective(1), objective(8), objective(8, 4), objective(8, 1, from_encoder=True)
    assert many.mean() < few.mean()
    for better in (tried, helped):
        assert (better < many + 2e-3).all() and better.mean() < many.mean() + 1e-5


def test_it_leaves_the_model_as_it_was_and_needs_no_seed(trained) -> None:
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    first, other = (GaussNewtonSearch(steps=2)(trained, BETA, seed) for seed in (0, 1))
    assert first.mu.equal(other.mu) and first.logvar.equal(other.logvar)
    assert all(value.equal(before[name]) for name, value in trained.state_dict().items())
    assert all(parameter.requires_grad for parameter in trained.parameters())


def test_particles_go_alone(trained) -> None:
    index = torch.tensor([7, 2, 30])
    every, some = (GaussNewtonSearch(steps=4)(trained, BETA, 0, which) for which in (None, index))
    torch.testing.assert_close(some.mu, every.mu[index], rtol=1e-3, atol=1e-3)


def test_what_it_is_not_made_for_is_refused(particles: Particles) -> None:
    with pytest.raises(InputError, match=r"gauss_newton: beta_control was found, .* use adam"):
        GaussNewtonSearch()(cryo_vae(particles, beta_control=1.0, beta=0.1), BETA, 0)
    with pytest.raises(InputError, match="from_encoder=true: no encoder was found"):
        GaussNewtonSearch(from_encoder=True)(cryo_vae(particles, init=ConstantLatents()), BETA, 0)


def test_heldout_particles_are_searched_by_it(tmp_path) -> None:
    run = tiny(tmp_path, "+exp=heldout", "task/search=gauss_newton", "task.search.steps=3", "task.n_samples=2")
    assert run.metrics["heldout/loss_optimized"] < run.metrics["heldout/loss_encoder"]
