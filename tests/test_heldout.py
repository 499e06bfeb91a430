"""A run on a part of the particles, and what it knows about the others."""

import json

import numpy as np
import pytest
import torch

from experiments.configuration.compose import compose
from experiments.configuration.validation import check
from experiments.metrics.latents import accuracy_elsewhere, vote
from experiments.runs.building import heldout_particles_of, particles_of, trained_model
from experiments.runs.execution import execute
from experiments.runs.stored_results import read_latents
from experiments.tasks.heldout import Inferred, metrics_of
from lightning_modules.latents.table_init import Latents
from lightning_modules.vae.posterior_search import ElboTerms, elbo_terms
from tests.tiny import SETTINGS, tiny

DIGITS = ("data.n_particles=40", "trainer.max_epochs=2", "trainer.accelerator=cpu", "decoder.width=16")
FEW = ("task.search.steps=3", "task.n_samples=2", "task.n_train_optimized=5")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return tmp_path_factory.mktemp("house")


@pytest.fixture(scope="module")
def run(house):
    return tiny(house, "+exp=heldout", *FEW)


@pytest.fixture(scope="module")
def stored(run):
    with np.load(run.folder / "heldout.npz") as arrays:
        return dict(arrays)


def test_no_heldout_particle_is_trained_on(run, stored):
    assert len(stored["train_index"]) == 19 and len(stored["optimized_index"]) == 5
    assert np.array_equal(np.sort([*stored["train_index"], *stored["optimized_index"]]), np.arange(24))
    assert np.array_equal(stored["encoder_index"], stored["optimized_index"])
    with np.load(run.folder / "latents.npz") as latents:
        assert np.array_equal(latents["index"], stored["train_index"])
        assert np.array_equal(latents["mu"], stored["train_mu"])
    assert len(particles_of(run.config)) == 19
    seen = trained_model(run, particles_of(run.config)).particles.index
    assert not np.intersect1d(seen, stored["optimized_index"]).size


def test_what_is_written_can_be_had_again_from_the_run(run, stored):
    training = particles_of(run.config)
    model = trained_model(run, training)
    heldout = heldout_particles_of(run.config, training)
    assert np.array_equal(heldout.labels["state"], particles_labels(run)[stored["encoder_index"]])
    model.take(heldout)
    q = model.encode()
    assert np.allclose(q.mu, stored["encoder_mu"], atol=1e-5)
    terms = elbo_terms(model, q, model.beta(2 * 19), run.config.seed, 2)
    for name, values in zip(("loss", "reconstruction", "kl"), terms, strict=True):
        assert np.allclose(values, stored[f"encoder_{name}"], rtol=1e-4)


def particles_labels(run):
    """The true states of all 24 particles."""
    whole = check(compose(*SETTINGS, f"paths.cache={run.config.paths.cache}"))
    return particles_of(whole).labels["state"]


def test_metrics_are_the_means_and_differences_of_what_is_written(run, stored):
    metrics = run.metrics
    for name in ("train", "train_optimized", "encoder", "optimized"):
        for term in ("loss", "reconstruction", "kl"):
            assert metrics[f"heldout/{term}_{name}"] == pytest.approx(stored[f"{name}_{term}"].mean())
    gap = stored["encoder_loss"].mean() - stored["optimized_loss"].mean()
    assert metrics["heldout/amortization_gap"] == pytest.approx(gap)
    both = np.isin(stored["train_index"], stored["train_optimized_index"])
    assert both.sum() == 5
    gap = stored["train_loss"][both].mean() - stored["train_optimized_loss"].mean()
    assert metrics["heldout/inference_gap_train"] == pytest.approx(gap)
    assert (run.folder / "figures" / "heldout_losses.png").stat().st_size > 5000


def test_a_table_has_no_encoder_and_its_decoder_is_tried_all_the_same(house):
    run = tiny(house, "+exp=heldout_vlt", *FEW)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    for name in ("loss_encoder", "kl_encoder", "class_accuracy_encoder", "amortization_gap"):
        assert metrics[f"heldout/{name}"] is None
    assert metrics["heldout/loss_optimized"] > 0 and metrics["heldout/loss_train"] > 0
    assert read_latents(run.folder).mu.shape == (19, 3)
    with np.load(run.folder / "heldout.npz") as stored:
        assert not [name for name in stored if name.startswith("encoder")]


def test_another_seed_or_fraction_is_another_run_with_other_particles(house, run, stored):
    other = tiny(house, "+exp=heldout", "task.heldout_fraction=0.5", *FEW)
    assert other.folder != run.folder
    with np.load(other.folder / "heldout.npz") as arrays:
        assert len(arrays["optimized_index"]) == 12


def test_digits_are_held_out_too(house):
    run = execute(compose("data=digits", "task=heldout", *DIGITS, f"paths.runs={house}/runs", *FEW))
    assert run.metrics["heldout/amortization_gap"] is not None
    assert 0 <= run.metrics["heldout/class_accuracy_encoder"] <= 1


def inferred(which, mu, loss, state=None):
    n = len(which)
    terms = ElboTerms(np.asarray(loss, float), np.zeros(n), np.zeros(n))
    latents = Latents(torch.tensor(mu, dtype=torch.float32), torch.zeros(n, 1))
    return Inferred(np.asarray(which), latents, terms, {} if state is None else {"state": np.asarray(state)})


def test_unseen_particles_are_told_by_the_training_particles_around_them():
    two = np.repeat([0.0, 10.0], 20)[:, None]
    train = inferred(range(40), two, np.zeros(40), two[:, 0] > 5)
    unseen = inferred([50, 51, 52], [[0.1], [9.0], [0.2]], [3, 3, 3], [False, True, True])
    found = {"train": train, "train_optimized": inferred([3], [[10.0]], [-1], [False]), "optimized": unseen}
    metrics = metrics_of(found)
    assert metrics["heldout/class_accuracy_train"] == 1
    assert metrics["heldout/class_accuracy_optimized"] == pytest.approx(2 / 3)
    assert metrics["heldout/class_accuracy_train_optimized"] == 0
    assert metrics["heldout/class_chance"] == 0.5
    assert metrics["heldout/inference_gap_train"] == 1
    assert metrics["heldout/amortization_gap"] is None and metrics["heldout/loss_encoder"] is None


def test_without_labels_there_is_no_class_and_the_losses_are_there():
    q = inferred([0, 1], [[0.0], [1.0]], [1, 2])
    metrics = metrics_of({"train": q, "train_optimized": q, "encoder": q, "optimized": q})
    assert metrics["heldout/class_accuracy_train"] is None and metrics["heldout/class_chance"] is None
    assert metrics["heldout/loss_encoder"] == 1.5 and metrics["heldout/amortization_gap"] == 0


def test_a_vote_is_that_of_the_nearest():
    mu = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2], [5.3]])
    labels = np.array([4, 4, 4, 7, 7, 7, 7])
    assert vote(mu, labels, [[0.05], [5.0], [1.0]], k=3).tolist() == [4, 7, 4]
    assert vote(mu, labels, [[0.05]], k=100).tolist() == [7]
    assert accuracy_elsewhere(mu, labels, [[0.05], [5.0]], [4, 4], k=3) == 0.5
