"""The numbers about latents, on cases whose answer is known."""

import json
import warnings

import numpy as np
import pytest
from scipy.stats import special_ortho_group

from experiments.metrics.latents import (
    active_dimensions,
    displacement_ratio,
    knn_class_accuracy,
    knn_hinge_r2,
    largest_class_fraction,
    neighbour_rank,
    neighbour_ranks,
)

N, ZDIM = 400, 8


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def state(rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(np.repeat(np.arange(4), N // 4))


@pytest.fixture
def clusters(rng: np.random.Generator, state: np.ndarray) -> np.ndarray:
    """Four clusters far apart, as float32, the way a run stores them."""
    return (100 * np.eye(4, ZDIM)[state] + rng.standard_normal((N, ZDIM))).astype(np.float32)


def test_separated_clusters_are_classified_without_error(clusters, state):
    assert knn_class_accuracy(clusters, state) == 1.0


def test_shuffled_labels_are_classified_at_chance(clusters, state, rng):
    accuracy = knn_class_accuracy(clusters, rng.permutation(state))
    assert accuracy == pytest.approx(largest_class_fraction(state), abs=0.07)


def test_largest_class_fraction():
    assert largest_class_fraction([0, 0, 0, 1, 2]) == 0.6


def test_a_particle_does_not_vote_for_itself():
    mu = np.array([[0.0], [1.0], [10.0], [11.0]])
    assert knn_class_accuracy(mu, [0, 1, 0, 1], k=1) == 0.0


def test_a_tied_vote_goes_to_the_smallest_label():
    mu = np.array([[0.0], [1.0], [-2.0]])
    assert knn_class_accuracy(mu, [0, 0, 1], k=2) == pytest.approx(2 / 3)


def test_hinge_angle_as_latent_is_predicted(rng):
    hinge_rad = rng.uniform(-0.5, 0.5, N)
    assert knn_hinge_r2(hinge_rad[:, None], hinge_rad) > 0.99


def test_unrelated_latents_predict_the_hinge_no_better_than_its_mean(rng):
    hinge_rad = rng.uniform(-0.5, 0.5, 2000)
    assert knn_hinge_r2(rng.standard_normal((2000, ZDIM)), hinge_rad, k=10) == pytest.approx(-0.1, abs=0.05)


def test_knn_metrics_equal_brute_force(rng, state):
    mu, hinge_rad = rng.standard_normal((N, ZDIM)), rng.uniform(-0.5, 0.5, N)
    distance = np.linalg.norm(mu[:, None] - mu[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1)[:, :10]
    vote = np.array([np.bincount(row, minlength=4).argmax() for row in state[nearest]])
    residual = hinge_rad - hinge_rad[nearest].mean(1)
    assert knn_class_accuracy(mu, state) == np.mean(vote == state)
    assert knn_hinge_r2(mu, hinge_rad) == pytest.approx(1 - np.mean(residual**2) / hinge_rad.var())


def test_unaltered_images_do_not_move(clusters):
    assert displacement_ratio(clusters, clusters) == 0.0
    assert neighbour_rank(clusters, clusters) == 0.0
    assert not neighbour_ranks(clusters, clusters).any()


@pytest.mark.parametrize("n", [2000, 6000], ids=["all pairs", "sampled pairs"])
def test_permuted_latents_are_as_far_as_any_two_particles(rng, n):
    mu = rng.standard_normal((n, ZDIM))
    moved = np.roll(mu, 1, axis=0)
    assert displacement_ratio(mu, moved) == pytest.approx(1.0, abs=0.02)
    assert neighbour_rank(mu, moved) == pytest.approx(0.5, abs=0.03)


def test_displacement_by_half_the_typical_distance():
    mu = np.array([[0.0, 0.0], [4.0, 0.0]])
    assert displacement_ratio(mu, mu + np.array([0.0, 2.0])) == pytest.approx(0.5)


def test_neighbour_rank_counts_who_lies_between():
    mu = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
    moved = mu.copy()
    moved[0] = 2.1  # particles 1, 2, 3 and 4 are all nearer than particle 0 itself
    moved[4] = 2.9  # only particles 2 and 3 are
    assert neighbour_ranks(mu, moved).tolist() == [1.0, 0.0, 0.0, 0.0, 0.5]


def test_amortization_metrics_equal_brute_force(rng):
    mu = rng.standard_normal((300, ZDIM)).astype(np.float32) + 50
    moved = mu + rng.standard_normal((300, ZDIM)).astype(np.float32)
    pairs = np.linalg.norm(mu[:, None].astype(float) - mu, axis=-1)
    to_moved = np.linalg.norm(mu[None].astype(float) - moved[:, None], axis=-1)
    nearer = (to_moved < np.diag(to_moved)[:, None]).sum(1) / 299
    np.testing.assert_allclose(neighbour_ranks(mu, moved), nearer)
    assert displacement_ratio(mu, moved) == pytest.approx(np.diag(to_moved).mean() / (pairs.sum() / (300 * 299)))


def test_blocks_do_not_change_the_ranks(rng, monkeypatch):
    mu = rng.standard_normal((150, ZDIM))
    moved = mu + rng.standard_normal((150, ZDIM))
    whole = neighbour_ranks(mu, moved)
    monkeypatch.setattr("experiments.metrics.latents._DISTANCES_AT_ONCE", 150 * 7)
    np.testing.assert_array_equal(neighbour_ranks(mu, moved), whole)


def test_rotated_and_scaled_latents_give_the_same_numbers(rng, state):
    mu = rng.standard_normal((N, ZDIM)) + state[:, None]
    moved, hinge_rad = mu + 0.5 * rng.standard_normal((N, ZDIM)), mu[:, 0] + mu[:, 1]
    rotation = 3.0 * special_ortho_group.rvs(ZDIM, random_state=1)
    turned, turned_moved = mu @ rotation + 5, moved @ rotation + 5
    assert knn_class_accuracy(turned, state) == knn_class_accuracy(mu, state)
    assert knn_hinge_r2(turned, hinge_rad) == pytest.approx(knn_hinge_r2(mu, hinge_rad))
    assert displacement_ratio(turned, turned_moved) == pytest.approx(displacement_ratio(mu, moved))
    np.testing.assert_allclose(neighbour_ranks(turned, turned_moved), neighbour_ranks(mu, moved))


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
@pytest.mark.parametrize("zdim", [1, 8, 20])
def test_collapsed_latents_score_at_chance_without_a_warning(rng, value, zdim):
    n = 2000
    mu = np.full((n, zdim), value, dtype=np.float32)
    in_blocks = np.repeat(np.arange(4), n // 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert knn_class_accuracy(mu, in_blocks) == pytest.approx(0.25, abs=0.04)
        assert knn_hinge_r2(mu, rng.uniform(-0.5, 0.5, n)) == pytest.approx(-0.1, abs=0.05)
        assert displacement_ratio(mu, mu) is None
        assert neighbour_rank(mu, mu) == 0.5


def test_active_dimensions_are_those_whose_mean_varies_over_the_particles(rng):
    """Burda et al. 2016: by more than 0.01; where they are centred does not matter."""
    scale = np.array([1.0, 0.3, 0.11, 0.09, 0.01, 0.0])
    mu = scale * rng.standard_normal((20_000, 6)) + np.arange(6)
    assert active_dimensions(mu) == 3.0
    assert active_dimensions(rng.permutation(mu)) == 3.0
    assert active_dimensions(np.full((5, 4), 0.3)) == 0.0
    assert active_dimensions(np.ones((1, 4))) == 0.0


def test_numbers_that_do_not_exist_are_valid_json():
    one = np.zeros((1, ZDIM))
    metrics = {
        "accuracy": knn_class_accuracy(one, [0]),
        "r2": knn_hinge_r2(one, [0.0]),
        "constant_hinge": knn_hinge_r2(np.eye(5), np.zeros(5)),
        "ratio": displacement_ratio(one, one),
        "rank": neighbour_rank(one, one),
    }
    assert set(json.loads(json.dumps(metrics, allow_nan=False)).values()) == {None}


def test_fewer_particles_than_neighbours():
    mu = np.array([[0.0], [1.0], [9.0]])
    assert knn_class_accuracy(mu, [1, 1, 1], k=10) == 1.0
    assert knn_hinge_r2(mu, [0.0, 0.0, 3.0], k=10) < 0


def test_wrong_shapes_and_values_are_named():
    mu = np.zeros((5, 2))
    with pytest.raises(ValueError, match="each of 5 particles, found shape"):
        knn_class_accuracy(mu, [0, 1])
    with pytest.raises(ValueError, match="must be alike"):
        displacement_ratio(mu, mu[:4])
    with pytest.raises(ValueError, match="1 of 5 latents are not finite"):
        neighbour_rank(np.where(np.arange(5)[:, None] == 3, np.nan, mu), mu)
    with pytest.raises(ValueError, match=r"\(N, zdim\), found shape \(5,\)"):
        knn_hinge_r2(np.zeros(5), np.zeros(5))


@pytest.mark.slow
def test_metrics_of_the_paper_size(rng):
    n = 131_899
    state = rng.integers(4, size=n)
    mu = (3 * np.eye(4, ZDIM)[state] + rng.standard_normal((n, ZDIM))).astype(np.float32)
    moved = np.roll(mu, 1, axis=0)
    assert 0.5 < knn_class_accuracy(mu, state) < 1.0
    assert displacement_ratio(mu, moved) == pytest.approx(1.0, abs=0.01)
    assert neighbour_rank(mu, moved) == pytest.approx(0.5, abs=0.01)
