"""Latents and volumes against the truth, on cases whose answer is known."""

import json
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import special_ortho_group

from experiments.metrics import agreement, truth
from experiments.metrics.agreement import information_imbalance
from experiments.metrics.fsc import fsc_auc, spherical_mask
from experiments.metrics.truth import (
    class_ari,
    conformations,
    neighbourhood_curve,
    neighbourhood_similarity,
    truth_metrics,
)
from experiments.volumes.truth import volume_metrics
from lightning_modules.simulation.particles import SimulatedParticles

N, ZDIM, D = 400, 8, 16
MOST = (D / 2 - 1) / D
BY_CHANCE = np.mean(np.arange(1, 21)) / 100
DATA = SimulatedParticles(box_px=D)
KEYS = {
    "latents/knn_class_accuracy", "latents/knn_class_chance", "latents/class_ari", "latents/knn_hinge_r2",
    "latents/neighbourhood_similarity", "latents/imbalance_to_truth", "latents/imbalance_from_truth",
}  # fmt: skip


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample the conformations' densities in fewer places; the one test that is about that undoes it."""
    monkeypatch.setattr(truth, "HINGE_STEP_RAD", np.radians(20.0))


@pytest.fixture
def labels(rng: np.random.Generator) -> dict[str, np.ndarray]:
    state = rng.permutation(np.repeat(np.arange(4), N // 4))
    return {"state": state, "hinge_rad": rng.uniform(*DATA.hinge_range_rad, N).astype(np.float32)}


@pytest.fixture
def true(labels: dict[str, np.ndarray]) -> np.ndarray:
    return conformations(DATA, labels["state"], labels["hinge_rad"])


def turned(z: np.ndarray) -> np.ndarray:
    """Z rotated, scaled and shifted as a whole."""
    return 0.01 * z @ special_ortho_group.rvs(z.shape[1], random_state=1) + 5


def clusters(state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 20 * np.eye(4, ZDIM)[state] + rng.standard_normal((len(state), ZDIM))


def test_distances_of_conformations_are_those_of_their_densities(rng, labels, monkeypatch):
    """In a box of twice the resolution, and at angles between the sampled ones."""
    monkeypatch.undo()
    true = conformations(DATA, labels["state"], labels["hinge_rad"])
    some = rng.choice(N, 30, replace=False)
    pairs = zip(labels["state"][some], labels["hinge_rad"][some], strict=True)
    volumes = [DATA.true_volume(int(state), float(angle), 64).ravel() for state, angle in pairs]
    ratio = pdist(np.array(volumes, dtype=np.float64)) / pdist(true[some])
    assert ratio.std() / ratio.mean() < 0.01


def test_conformations_have_a_unit_of_their_own(true):
    assert np.sqrt(np.mean(pdist(true) ** 2)) == pytest.approx(1.0, abs=0.05)


def test_conformations_without_motion_are_one_point_per_state(labels):
    still = conformations(DATA, labels["state"], np.zeros(N))
    assert len(np.unique(still.round(9), axis=0)) == 4
    one = conformations(DATA, np.zeros(N, dtype=int), np.zeros(N))
    assert np.ptp(one) == 0


def test_a_larger_angle_is_farther(labels):
    swing = conformations(DATA, np.full(5, 3), np.radians([0, 5, 15, 30, 60]))
    distance = np.linalg.norm(swing - swing[0], axis=1)
    assert (np.diff(distance) > 0).all()


def test_separated_classes_are_found_without_error(labels, rng):
    assert class_ari(clusters(labels["state"], rng), labels["state"]) == 1.0


def test_classes_without_structure_are_found_by_chance(labels, rng):
    assert class_ari(rng.standard_normal((N, ZDIM)), labels["state"]) == pytest.approx(0.0, abs=0.03)
    z = clusters(labels["state"], rng)
    assert class_ari(z, rng.permutation(labels["state"])) == pytest.approx(0.0, abs=0.03)


def test_merged_classes_score_as_the_index_says(labels, rng):
    """Two of four equal classes coincide: a mixture of four splits what it likes; of the truth nothing is lost else."""
    merged = np.where(labels["state"] == 3, 2, labels["state"])
    assert 0.5 < class_ari(clusters(merged, rng), labels["state"]) < 0.95


def test_class_index_does_not_change_with_the_frame_of_z(labels, rng):
    z = 3 * np.eye(4, ZDIM)[labels["state"]] + rng.standard_normal((N, ZDIM))
    assert class_ari(turned(z), labels["state"]) == pytest.approx(class_ari(z, labels["state"]), abs=1e-6)


def test_true_latents_have_the_true_neighbours(true):
    k, similarity = neighbourhood_curve(true, turned(true))
    np.testing.assert_array_equal(k, np.arange(1, 21) * N // 100)
    assert similarity.min() > 0.999
    assert neighbourhood_similarity(true, true) == 1.0
    assert information_imbalance(true, true) == pytest.approx(2 / N)


@pytest.mark.parametrize("kind", ["random", "permuted"])
def test_unrelated_latents_have_the_true_neighbours_by_chance(true, rng, kind):
    z = rng.standard_normal((N, ZDIM)) if kind == "random" else rng.permutation(true)
    k, similarity = neighbourhood_curve(true, z)
    np.testing.assert_allclose(similarity, k / (N - 1), atol=0.02)
    assert neighbourhood_similarity(true, z) == pytest.approx(BY_CHANCE, abs=0.01)


def test_neighbourhood_curve_equals_cryobench_but_for_the_particle_itself(true, rng):
    """CryoBench counts, in both sets, the k + 1 points of rank 0 to k, the point itself among them."""
    z = true[:, :3] + 0.2 * rng.standard_normal((N, 3))
    ranks = [np.linalg.norm(p[:, None] - p, axis=-1).argsort(axis=1).argsort(axis=1) for p in (true, z)]
    for k, similarity in zip(*neighbourhood_curve(true, z), strict=True):
        hits = ((ranks[0] < k + 1) & (ranks[1] < k + 1)).sum(axis=1)
        assert similarity == pytest.approx((hits.mean() - 1) / k)


def test_a_sample_gives_nearly_the_same_similarity(true, rng, monkeypatch):
    z = true + 0.2 * rng.standard_normal(true.shape)
    whole = neighbourhood_similarity(true, z)
    monkeypatch.setattr(truth, "POPULATION", 300)
    monkeypatch.setattr(agreement, "REFERENCES", 200)
    assert neighbourhood_similarity(true, z) == pytest.approx(whole, abs=0.03)


def test_latents_that_know_the_state_alone_tell_less_of_the_truth_than_it_tells_of_them(labels, true, rng):
    z = clusters(labels["state"], rng)
    to_truth, from_truth = information_imbalance(z, true), information_imbalance(true, z)
    assert from_truth < to_truth < 0.6
    assert neighbourhood_similarity(true, z) > 2 * BY_CHANCE


def test_all_numbers_do_not_change_with_the_frame_of_z(labels, rng):
    z = np.column_stack([3 * np.eye(4)[labels["state"]], 2 * labels["hinge_rad"], np.zeros(N)])
    z = z + 0.5 * rng.standard_normal(z.shape)
    assert truth_metrics(turned(z), labels, DATA) == pytest.approx(truth_metrics(z, labels, DATA), abs=1e-3)


def test_more_noise_in_z_is_worse_by_every_number(labels, rng):
    z = np.column_stack([3 * np.eye(4)[labels["state"]], 2 * labels["hinge_rad"]])
    clear, dim, none = (
        truth_metrics(z + level * rng.standard_normal(z.shape), labels, DATA) for level in (0.1, 1.0, 100.0)
    )
    for key in KEYS - {"latents/knn_class_chance"}:
        sign = -1 if "imbalance" in key else 1
        assert sign * clear[key] > sign * dim[key] > sign * none[key], key


def test_collapsed_latents_know_nothing(labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = truth_metrics(np.full((N, ZDIM), 0.1, dtype=np.float32), labels, DATA)
    assert found["latents/class_ari"] == pytest.approx(0.0, abs=0.03)
    assert found["latents/neighbourhood_similarity"] == pytest.approx(BY_CHANCE, abs=0.01)
    assert found["latents/imbalance_to_truth"] == pytest.approx(1.0, abs=0.1)
    assert found["latents/imbalance_from_truth"] == pytest.approx(1.0, abs=0.1)


def test_what_is_known_decides_which_numbers_there_are(labels, rng):
    mu = rng.standard_normal((N, ZDIM))
    state = {"state": labels["state"]}
    assert truth_metrics(mu, labels, DATA).keys() == KEYS
    assert truth_metrics(mu, labels, object()).keys() == {key for key in KEYS if "knn" in key or "class" in key}
    assert truth_metrics(mu, state, DATA).keys() == {key for key in KEYS if "class" in key}
    assert truth_metrics(mu, None, DATA) == {} == truth_metrics(mu, {}, DATA)


def test_numbers_that_do_not_exist_are_null(labels):
    one = {name: values[:1] for name, values in labels.items()}
    found = truth_metrics(np.zeros((1, ZDIM)), one, DATA)
    assert {key for key, value in json.loads(json.dumps(found, allow_nan=False)).items() if value is None} == KEYS - {
        "latents/knn_class_chance"
    }


def test_wrong_shapes_are_named(true, labels):
    with pytest.raises(ValueError, match="each of 399 particles, found 400"):
        neighbourhood_similarity(true, true[1:])
    with pytest.raises(ValueError, match="each of 400 particles, found shape"):
        class_ari(true, labels["state"][1:])


class Oracle:
    """Decodes z = (state, hinge_rad) into the true volume, times a factor."""

    box_px = D

    def __init__(self, factor: float = 1.0) -> None:
        self.factor, self.asked = factor, []

    def decode(self, z: np.ndarray, progress: bool = False) -> Iterator[np.ndarray]:
        self.asked.append(np.asarray(z))
        return (self.factor * DATA.true_volume(round(float(state)), float(angle)) for state, angle in z)


@pytest.fixture
def mu(labels: dict[str, np.ndarray]) -> np.ndarray:
    return np.column_stack([labels["state"], labels["hinge_rad"]])


def per_image(decoder, mu, labels) -> float:
    return volume_metrics(decoder, mu, labels, DATA)["volumes/per_image_fsc_auc"]


def test_true_volumes_have_the_whole_area_at_any_scale(mu, labels):
    assert per_image(Oracle(), mu, labels) == pytest.approx(MOST, abs=1e-6)
    assert per_image(Oracle(7.0), mu, labels) == pytest.approx(MOST, abs=1e-6)


def test_inverted_volumes_have_a_negative_area(mu, labels):
    assert per_image(Oracle(-1.0), mu, labels) < 0


def test_volumes_of_other_particles_have_less_and_the_mean_volume_is_between(mu, labels, rng):
    found = volume_metrics(Oracle(), rng.permutation(mu), labels, DATA)
    assert 1.5 / D < found["volumes/per_image_fsc_auc"] < found["volumes/per_image_fsc_auc_of_mean"] < MOST - 0.01


def test_the_right_state_without_the_motion_is_better_than_the_mean_volume(mu, labels):
    found = volume_metrics(Oracle(), mu * [1, 0], labels, DATA)
    assert found["volumes/per_image_fsc_auc_of_mean"] < found["volumes/per_image_fsc_auc"] < MOST


def test_per_image_fsc_is_the_mean_over_the_sampled_particles(mu, labels, monkeypatch, rng):
    monkeypatch.setattr("experiments.volumes.truth.SAMPLED_PARTICLES", 5)
    decoder, z = Oracle(), rng.permutation(mu)
    found = volume_metrics(decoder, z, labels, DATA)
    (asked,) = decoder.asked
    assert len(asked) == 5
    rows = [int(np.flatnonzero((z == each).all(axis=1))[0]) for each in asked]
    true = [DATA.true_volume(int(labels["state"][i]), float(labels["hinge_rad"][i])) for i in rows]
    made = [DATA.true_volume(int(z[i, 0]), float(z[i, 1])) for i in rows]
    mask = spherical_mask(D)
    areas = [fsc_auc(a, b, mask) for a, b in zip(made, true, strict=True)]
    of_mean = [fsc_auc(np.mean(true, axis=0), b, mask) for b in true]
    assert found["volumes/per_image_fsc_auc"] == pytest.approx(np.mean(areas))
    assert found["volumes/per_image_fsc_auc_of_mean"] == pytest.approx(np.mean(of_mean))
    assert volume_metrics(Oracle(), z, labels, DATA) == found  # the same particles every time


def test_without_true_volumes_there_is_no_area(mu, labels):
    assert volume_metrics(Oracle(), mu, labels, object()) == {}
    assert volume_metrics(Oracle(), mu, {"state": labels["state"]}, DATA) == {}
    assert volume_metrics(Oracle(), mu, None, DATA) == {}
