"""The table starts where the paper says."""

import numpy as np
import pytest
import torch

from lightning_modules.errors import InputError
from lightning_modules.latents.lookup_table import LookupTable
from lightning_modules.latents.table_init import (
    ConstantLatents,
    LatentInit,
    Latents,
    PermutedLatents,
    PretrainedLatents,
    RandomClusters,
    RandomLatents,
)
from lightning_modules.particles.digits import PlainImages

N, ZDIM = 50_000, 8


def source(n: int = N) -> Latents:
    """Latents whose rows tell from where they are."""
    mu = torch.arange(n * ZDIM, dtype=torch.float32).view(n, ZDIM)
    return Latents(mu, -mu)


def table(init: LatentInit, n: int, zdim: int, source: Latents | None = None) -> LookupTable:
    return LookupTable(PlainImages(10), n_particles=n, zdim=zdim, init=init, source=source)


def test_random_start_has_the_papers_moments() -> None:
    mu, logvar = RandomLatents()(N, ZDIM, 0, None)
    tolerance = 5 / np.sqrt(N * ZDIM)  # standard errors
    assert abs(float(mu.mean()) - -0.05) < tolerance * 1.494
    assert abs(float(mu.std()) - 1.494) < tolerance * 1.494
    assert abs(float(logvar.mean()) - -5.47) < tolerance * 0.715
    assert abs(float(logvar.std()) - 0.715) < tolerance * 0.715


def test_every_entry_of_the_random_start_is_drawn_on_its_own() -> None:
    mu, logvar = RandomLatents()(N, ZDIM, 0, None)
    correlations = np.corrcoef(np.concatenate([mu, logvar], axis=1), rowvar=False)
    assert np.abs(correlations - np.eye(2 * ZDIM)).max() < 5 / np.sqrt(N)
    assert abs(np.corrcoef(mu[1:, 0], mu[:-1, 0])[0, 1]) < 5 / np.sqrt(N)


def test_zero_start_is_one_point_with_the_papers_variance() -> None:
    mu, logvar = ConstantLatents()(7, ZDIM, 0, None)
    assert torch.equal(mu, torch.zeros(7, ZDIM))
    assert torch.equal(logvar, torch.full((7, ZDIM), -8.0))


@pytest.mark.parametrize("init", [RandomLatents(), RandomClusters(), PermutedLatents()], ids=lambda i: type(i).__name__)
def test_random_starts_are_a_function_of_the_seed(init: LatentInit) -> None:
    first, again, other = (init(100, ZDIM, seed, source(100)) for seed in (3, 3, 4))
    assert torch.equal(first.mu, again.mu) and torch.equal(first.logvar, again.logvar)
    assert not torch.equal(first.mu, other.mu)


@pytest.mark.parametrize("n_clusters", [1, 4, 9])
def test_clusters_are_so_many_distinct_means(n_clusters: int) -> None:
    mu, logvar = RandomClusters(n_clusters)(N, ZDIM, 0, None)
    means, sizes = np.unique(mu, axis=0, return_counts=True)
    assert len(means) == n_clusters
    assert np.abs(sizes - N / n_clusters).max() < 5 * np.sqrt(N / n_clusters)
    assert len(np.unique(logvar, axis=0)) == N
    assert abs(float(logvar.mean()) - -5.47) < 0.02 and abs(float(logvar.std()) - 0.715) < 0.02


def test_clusters_are_spread_as_asked() -> None:
    mu, _ = RandomClusters(n_clusters=2000, mu_std=1.494)(N, ZDIM, 0, None)
    assert abs(float(mu.std()) - 1.494) < 0.05


def test_clusters_say_nothing_about_the_order_of_particles() -> None:
    mu, _ = RandomClusters(4)(N, ZDIM, 0, None)
    same_as_next = (mu[1:] == mu[:-1]).all(dim=1).float().mean()
    assert abs(float(same_as_next) - 0.25) < 0.02


def test_pretrained_start_is_the_source() -> None:
    start = PretrainedLatents()(100, ZDIM, 0, source(100))
    assert torch.equal(start.mu, source(100).mu) and torch.equal(start.logvar, source(100).logvar)


def test_permuted_start_shuffles_rows_and_keeps_mu_and_logvar_together() -> None:
    mu, logvar = PermutedLatents()(100, ZDIM, 0, source(100))
    assert torch.equal(logvar, -mu)
    assert not torch.equal(mu, source(100).mu)
    assert torch.equal(mu[mu[:, 0].argsort()], source(100).mu)


@pytest.mark.parametrize(
    "init", [PretrainedLatents("runs/x"), PermutedLatents("runs/x")], ids=["pretrained", "permuted"]
)
@pytest.mark.parametrize(("n", "zdim"), [(99, ZDIM), (100, 2)], ids=["particles", "zdim"])
def test_a_source_of_another_shape_is_refused(init: LatentInit, n: int, zdim: int) -> None:
    found, expected = rf"\(100, {ZDIM}\)", rf"\({n}, {zdim}\)"
    with pytest.raises(InputError, match=rf"latents.init.source=runs/x: .*{found}.*expected {expected}"):
        table(init, n, zdim, source(100))


def test_a_start_that_needs_a_source_says_so() -> None:
    with pytest.raises(InputError, match="needs the latents of another run"):
        table(PretrainedLatents(), 5, ZDIM)


def test_a_start_of_another_shape_is_refused() -> None:
    def init(n_particles: int, zdim: int, seed: int, source: Latents | None) -> Latents:
        return Latents(torch.zeros(n_particles, zdim), torch.zeros(n_particles, zdim + 1))

    with pytest.raises(InputError, match=r"latents\.init: a start of shape"):
        table(init, 5, ZDIM)


def test_the_table_holds_its_start() -> None:
    rows = table(RandomLatents(), 20, ZDIM)
    mu, logvar = RandomLatents()(20, ZDIM, 0, None)
    index = torch.tensor([4, 17, 4])
    found = rows(torch.empty(3, 10), index)
    assert torch.equal(found[0], mu[index]) and torch.equal(found[1], logvar[index])
