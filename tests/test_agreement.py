"""Agreement of two latent spaces, on cases whose answer is known, and of two real runs."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from cryodrgn.mrcfile import write_mrc
from scipy.stats import spearmanr, special_ortho_group

from experiments.claims.similarity import agreement
from experiments.configuration.compose import compose
from experiments.metrics import agreement as module
from experiments.metrics.agreement import information_imbalance, knn_r2, linear_cka, neighbourhood_overlap
from experiments.metrics.fsc import fsc_auc, spherical_mask
from experiments.runs.run import Run
from lightning_modules.errors import InputError
from lightning_modules.files.atomic import write_atomically
from tests.tiny import SETTINGS

N, ZDIM = 600, 8
MEASURES = (neighbourhood_overlap, linear_cka, knn_r2, information_imbalance)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture
def mu(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((N, ZDIM)).astype(np.float32)


def test_equal_latents_agree_fully(mu):
    assert neighbourhood_overlap(mu, mu) == 1.0
    assert linear_cka(mu, mu) == pytest.approx(1.0)
    assert information_imbalance(mu, mu) == pytest.approx(2 / N)
    assert 0.3 < knn_r2(mu, mu) < 1.0


def test_rotated_shifted_and_scaled_latents_agree_fully(mu):
    turned = 3.0 * mu @ special_ortho_group.rvs(ZDIM, random_state=1) + 5
    assert neighbourhood_overlap(mu, turned) > 0.999
    assert linear_cka(mu, turned) == pytest.approx(1.0)
    assert information_imbalance(mu, turned) == pytest.approx(2 / N, abs=1e-4)


def test_every_number_is_unchanged_when_either_side_is_rotated_shifted_and_scaled(mu, rng):
    other = mu[:, :5] + 0.5 * rng.standard_normal((N, 5))
    turned_mu = 0.2 * mu @ special_ortho_group.rvs(ZDIM, random_state=1) - 40
    turned_other = 7.0 * other @ special_ortho_group.rvs(5, random_state=2) + 3
    for measure in MEASURES:
        assert measure(turned_mu, turned_other) == pytest.approx(measure(mu, other), abs=1e-4), measure


@pytest.mark.parametrize("other", ["random", "permuted"])
def test_unrelated_latents_agree_by_chance(mu, rng, other):
    unrelated = rng.standard_normal((N, 5)) if other == "random" else rng.permutation(mu)
    assert neighbourhood_overlap(mu, unrelated, k=60) == pytest.approx(60 / (N - 1), abs=0.01)
    assert linear_cka(mu, unrelated) == pytest.approx(ZDIM / N, abs=0.02)
    assert information_imbalance(mu, unrelated) == pytest.approx(1.0, abs=0.08)
    assert knn_r2(mu, unrelated) == pytest.approx(-0.1, abs=0.05)


def test_order_of_the_particles_matters_not_as_long_as_it_is_the_same(mu, rng):
    other, order = mu + rng.standard_normal(mu.shape), rng.permutation(N)
    for measure in MEASURES:
        assert measure(mu[order], other[order]) == pytest.approx(measure(mu, other)), measure


def test_measures_equal_brute_force(mu, rng):
    other = mu[:, :6] + rng.standard_normal((N, 6))
    gap_a, gap_b = (np.linalg.norm(z[:, None].astype(float) - z, axis=-1) for z in (mu, other))
    for gap in (gap_a, gap_b):
        np.fill_diagonal(gap, np.inf)
    near_a, near_b = np.argsort(gap_a, axis=1), np.argsort(gap_b, axis=1)
    shared = np.mean([len(set(a[:20]) & set(b[:20])) for a, b in zip(near_a, near_b, strict=True)]) / 20
    rank_b = np.argsort(near_b, axis=1) + 1
    predicted = other[near_a[:, :10]].mean(axis=1)
    assert neighbourhood_overlap(mu, other, k=20) == pytest.approx(shared)
    assert information_imbalance(mu, other) == pytest.approx(2 / N * rank_b[np.arange(N), near_a[:, 0]].mean())
    residual, spread = other - predicted, other - other.mean(axis=0)
    assert knn_r2(mu, other) == pytest.approx(1 - np.sum(residual**2) / np.sum(spread**2))


def test_cka_is_the_correlation_of_the_kernels(mu, rng):
    """Kornblith et al. 2019: of the centred Gram matrices, entry by entry."""
    other = mu[:, :3] + rng.standard_normal((N, 3))
    gram_a, gram_b = ((z - z.mean(axis=0)) @ (z - z.mean(axis=0)).T for z in (mu.astype(float), other))
    expected = np.sum(gram_a * gram_b) / (np.linalg.norm(gram_a) * np.linalg.norm(gram_b))
    assert linear_cka(mu, other) == pytest.approx(expected)


def test_imbalance_is_small_only_from_the_side_that_knows_more(rng):
    """Glielmo et al. 2022, Fig. 1: the whole knows the part, the part knows little of the whole."""
    whole = rng.standard_normal((N, 3))
    part = whole[:, :1]
    assert information_imbalance(whole, part) < 0.3
    assert information_imbalance(part, whole) > 0.5
    assert knn_r2(whole, part) > 0.8 > 0.5 > knn_r2(part, whole)


def test_a_bent_latent_space_keeps_its_neighbours_and_loses_cka(rng):
    angle = rng.uniform(0, 1.9 * np.pi, N)
    line, circle = angle[:, None], np.column_stack([np.cos(angle), np.sin(angle)])
    assert neighbourhood_overlap(line, circle, k=10) > 0.95
    assert linear_cka(line, circle) < 0.8
    assert knn_r2(circle, line) > 0.9


def test_more_noise_means_less_agreement(mu, rng):
    noise = rng.standard_normal(mu.shape)
    levels = [0.1, 0.3, 1.0, 3.0]
    for measure, sign in zip(MEASURES, (-1, -1, -1, 1), strict=True):
        values = [measure(mu, mu + level * noise) for level in levels]
        assert spearmanr(levels, values).statistic == sign, measure


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.7])
def test_collapsed_latents_agree_with_nothing_not_even_with_each_other(mu, constant):
    collapsed = np.full((N, ZDIM), constant, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (mu, collapsed):
            assert neighbourhood_overlap(collapsed, other, k=60) == pytest.approx(60 / (N - 1), abs=0.01)
            assert information_imbalance(collapsed, other) == pytest.approx(1.0, abs=0.08)
            assert information_imbalance(other, collapsed) == pytest.approx(1.0, abs=0.08)
            assert linear_cka(collapsed, other) is None
            assert knn_r2(other, collapsed) is None


def test_equal_particles_in_blocks_do_not_agree_through_their_order():
    """Latents that take four values, independent of four others: ties must not fall to the particle's number."""
    a, b = np.repeat(np.arange(4.0), N // 4)[:, None], np.tile(np.arange(4.0), N // 4)[:, None]
    assert neighbourhood_overlap(a, b, k=50) == pytest.approx(50 / (N - 1), abs=0.02)


def test_few_particles_have_no_agreement():
    for measure in MEASURES:
        assert measure(np.zeros((1, 3)), np.zeros((1, 3))) is None
        assert measure(np.eye(3)[:2], np.eye(3)[:2]) is None or measure is linear_cka


def test_a_sample_of_the_particles_gives_nearly_the_same(mu, rng, monkeypatch):
    other = mu + 0.5 * rng.standard_normal(mu.shape)
    whole = [measure(mu, other) for measure in MEASURES]
    monkeypatch.setattr(module, "REFERENCES", 200)
    monkeypatch.setattr(module, "_DISTANCES_AT_ONCE", 7 * N)
    sample = [measure(mu, other) for measure in MEASURES]
    assert sample != whole
    np.testing.assert_allclose(sample, whole, atol=0.05)
    assert sample == [measure(mu, other) for measure in MEASURES]  # the same sample every time


def test_blocks_do_not_change_the_numbers(mu, rng, monkeypatch):
    other = mu + 0.5 * rng.standard_normal(mu.shape)
    whole = [measure(mu, other) for measure in MEASURES]
    monkeypatch.setattr(module, "_DISTANCES_AT_ONCE", 7 * N)
    assert [measure(mu, other) for measure in MEASURES] == pytest.approx(whole)


def test_wrong_latents_are_named(mu):
    for measure in MEASURES:
        with pytest.raises(ValueError, match="same particles, found 600 and 599"):
            measure(mu, mu[1:])
        with pytest.raises(ValueError, match="not finite"):
            measure(mu, np.where(mu > 3, np.nan, mu))


def finished(folder: Path, zdim: int, *overrides: str) -> Run:
    """A run of 24 particles as it is when it has finished, with random latents."""
    run = Run.of(compose(*SETTINGS, f"paths.runs={folder}", f"zdim={zdim}", *overrides))
    mu = np.random.default_rng(zdim).standard_normal((24, zdim)).astype(np.float32)
    stored = {"mu": mu, "logvar": np.zeros_like(mu), "index": np.arange(24)}
    write_atomically(run.folder / "latents.npz", lambda path: np.savez(path, **stored))
    (run.folder / "metrics.json").write_text("{}")
    return run


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Run]:
    made = {"a": finished(tmp_path, 3), "b": finished(tmp_path, 2, "+exp=vlt_random")}
    return made | {"others": finished(tmp_path, 3, "data.seed=1")}


def set_volumes(run: Run, volumes: list[np.ndarray]) -> None:
    (run.folder / "volumes").mkdir(exist_ok=True)
    for i, volume in enumerate(volumes, start=1):
        write_mrc(str(run.folder / "volumes" / f"first_{i}.mrc"), volume.astype(np.float32))


def test_two_runs_agree_as_their_latents_do(runs):
    found = agreement(runs["a"], runs["b"])
    mu_a, mu_b = (np.load(runs[name].folder / "latents.npz")["mu"] for name in "ab")
    assert found["agreement/cka"] == linear_cka(mu_a, mu_b)
    assert found["agreement/neighbourhood_overlap"] == neighbourhood_overlap(mu_a, mu_b)
    assert found["agreement/imbalance_ab"] == information_imbalance(mu_a, mu_b)
    assert found["agreement/imbalance_ba"] == information_imbalance(mu_b, mu_a)
    assert found["agreement/knn_r2_ab"] == knn_r2(mu_a, mu_b)
    assert found["agreement/knn_r2_ba"] == knn_r2(mu_b, mu_a)
    assert found.keys() == {*json.loads(json.dumps(found, allow_nan=False))}


def test_a_run_agrees_with_itself(runs):
    found = agreement(runs["a"], runs["a"])
    assert found["agreement/neighbourhood_overlap"] == 1.0
    assert found["agreement/cka"] == pytest.approx(1.0)


def test_volumes_of_the_same_particles_are_matched(runs, rng):
    volumes_a, volumes_b = rng.standard_normal((3, 16, 16, 16)), rng.standard_normal((2, 16, 16, 16))
    set_volumes(runs["a"], list(volumes_a))
    set_volumes(runs["b"], list(volumes_b))
    expected = np.mean([fsc_auc(a, b, spherical_mask(16)) for a, b in zip(volumes_a, volumes_b, strict=False)])
    found = agreement(runs["a"], runs["b"])["agreement/matched_volume_fsc_auc"]
    assert found == pytest.approx(expected, abs=1e-6)


def test_without_volumes_there_is_no_volume_agreement(runs):
    assert agreement(runs["a"], runs["b"])["agreement/matched_volume_fsc_auc"] is None


def test_a_damaged_volume_is_named(runs, rng):
    set_volumes(runs["a"], [rng.standard_normal((16, 16, 16))])
    path = runs["a"].folder / "volumes" / "first_1.mrc"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InputError, match=r"first_1.mrc: truncated, the header says 16 images"):
        agreement(runs["a"], runs["a"])


def test_runs_of_other_particles_are_refused(runs):
    with pytest.raises(InputError, match=rf"{runs['others'].folder}: .*data.seed=1.*data.seed=0"):
        agreement(runs["a"], runs["others"])


def test_an_unfinished_run_is_refused(runs, tmp_path: Path):
    unfinished = Run(runs["a"].config, tmp_path / "empty")
    with pytest.raises(InputError, match="not finished"):
        agreement(runs["a"], unfinished)


def test_particles_that_both_runs_have_are_compared(runs, tmp_path: Path, rng):
    """A run may hold some of the particles, in any order; the index says which."""
    stored = dict(np.load(runs["a"].folder / "latents.npz"))
    some = rng.permutation(24)[:10]
    write_atomically(tmp_path / "latents.npz", lambda path: np.savez(path, **{k: v[some] for k, v in stored.items()}))
    (tmp_path / "metrics.json").write_text("{}")
    part = Run(runs["a"].config, tmp_path)
    assert agreement(runs["a"], part)["agreement/cka"] == pytest.approx(1.0)
    write_atomically(tmp_path / "latents.npz", lambda path: np.savez(path, **{**stored, "index": np.arange(24) + 24}))
    with pytest.raises(InputError, match="none of its particles"):
        agreement(runs["a"], part)
