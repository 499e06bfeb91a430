"""What becomes of every particle whose image is altered."""

import csv

import numpy as np
import pytest

from experiments.metrics.altered_particles import summarize, table_of
from experiments.metrics.latents import vote_of_others
from experiments.tasks.amortization import write


def clusters(n_each: int = 30, n_clusters: int = 3, seed: int = 0):
    """Well separated clusters in a plane, and the state of every particle."""
    state = np.repeat(np.arange(n_clusters), n_each)
    return np.random.default_rng(seed).normal(size=(len(state), 2)) + 100 * state[:, None], state


def test_what_does_not_move_keeps_its_class_and_its_rank() -> None:
    mu, state = clusters()
    for labels in (state, None):
        table = table_of(mu, mu, labels, np.arange(90), 0)
        metrics = summarize(table)
        assert not table["displacement"].any() and not table["neighbour_rank"].any()
        assert metrics["amortization/class_kept"] == 1
        assert metrics["amortization/displacement_q90"] == 0
    assert metrics["amortization/class_kept_chance"] < 0.2  # of twenty clusters


def test_what_moves_into_another_class_has_lost_its_own() -> None:
    mu, state = clusters()
    moved = mu.copy()
    moved[:15] = mu[30:45]
    for labels in (state, None):
        table = table_of(mu, moved, labels, np.arange(90), 0)
        assert not table["class_kept"][:15].any() and table["class_kept"][15:].all()
        assert summarize(table)["amortization/class_kept"] == pytest.approx(75 / 90)
    table = table_of(mu, moved, state, np.arange(90), 0)
    assert (table["class_altered"][:15] == 1).all()
    metrics = summarize(table)
    assert metrics["amortization/class_accuracy_original"] == 1
    assert metrics["amortization/class_accuracy_altered"] == pytest.approx(75 / 90)
    assert metrics["amortization/class_kept_chance"] == pytest.approx((30 * 15 + 30 * 45 + 30 * 30) / 90**2)


def test_summaries_are_those_of_the_metrics_module() -> None:
    from experiments.metrics.latents import displacement_ratio, neighbour_rank

    mu, state = clusters()
    moved = mu + np.random.default_rng(1).normal(scale=30, size=mu.shape)
    metrics = summarize(table_of(mu, moved, state, np.arange(90), 0))
    assert metrics["amortization/displacement_ratio"] == pytest.approx(displacement_ratio(mu, moved))
    assert metrics["amortization/neighbour_rank"] == pytest.approx(neighbour_rank(mu, moved))
    quantiles = [metrics[f"amortization/displacement_q{percent}"] for percent in (10, 50, 90)]
    assert quantiles == sorted(quantiles) and quantiles[0] > 0


def test_latents_that_are_all_equal_have_no_displacement_and_say_so() -> None:
    mu = np.ones((20, 3))
    for state in (np.arange(20) % 2, None):
        metrics = summarize(table_of(mu, mu, state, np.arange(20), 0))
        assert metrics["amortization/displacement_ratio"] is None
        assert metrics["amortization/neighbour_rank"] == 0.5


def test_a_particle_does_not_vote_on_itself() -> None:
    mu = np.array([[0.0], [1.0], [1.1], [1.2], [9.0]])
    labels = np.array([5, 7, 7, 7, 5])
    assert vote_of_others(mu, labels, mu, k=3).tolist() == [7, 7, 7, 7, 7]
    assert vote_of_others(mu, labels, mu + 0.01, k=1).tolist() == [7, 7, 7, 7, 7]
    # Far from itself, a particle has all k voters there; it is not one of them.
    assert vote_of_others(mu, labels, np.full((5, 1), 9.0), k=1).tolist() == [5, 5, 5, 5, 7]


def test_a_vote_of_others_is_the_leave_one_out_accuracy_of_the_metrics() -> None:
    from experiments.metrics.latents import knn_class_accuracy

    rng = np.random.default_rng(0)
    mu, state = rng.normal(size=(200, 3)), rng.integers(4, size=200)
    mu[:, 0] += state
    assert np.mean(vote_of_others(mu, state, mu) == state) == pytest.approx(knn_class_accuracy(mu, state))


def test_the_table_is_written_for_numpy_and_for_spreadsheets(tmp_path) -> None:
    mu, state = clusters(4)
    table = {**table_of(mu, mu + 1, state, 100 + np.arange(12), 0), "volume_correlation": np.full(12, np.nan)}
    table["volume_correlation"][3] = 0.5
    write(tmp_path, table)
    with np.load(tmp_path / "amortization.npz") as stored, (tmp_path / "amortization.csv").open() as file:
        rows = list(csv.DictReader(file))
        assert set(stored) == set(rows[0]) == set(table)
        assert [int(row["particle"]) for row in rows] == stored["particle"].tolist() == list(range(100, 112))
        assert [float(row["displacement"]) for row in rows] == pytest.approx(stored["displacement"].tolist())
        assert [row["volume_correlation"] for row in rows] == ["", "", "", "0.5", *[""] * 8]
