"""What does a run know about particles that it has never seen?

Train on some particles, and hold the others out. For these, q(z) is inferred twice: by the trained encoder, and by
optimization under the trained decoder. If the decoder generalizes and the encoder does not, the second is nearly as
good as in training and the first is not; the difference is the amortization gap (Cremer et al. 2018; Zhang, Hayes and
Barber 2022). A lookup table has no encoder, and its decoder can be tried in the same way.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from experiments.machine.devices import best_device
from experiments.metrics.latents import accuracy_elsewhere, knn_class_accuracy, largest_class_fraction
from experiments.runs.building import heldout_particles_of
from experiments.runs.layout import HELDOUT
from experiments.runs.run import Run
from experiments.tasks.particle_results import TaskResults
from experiments.tasks.train import Train
from lightning_modules.files.atomic import write_atomically
from lightning_modules.latents.table_init import Latents
from lightning_modules.vae.posterior_search import ElboTerms, PosteriorSearch, elbo_terms
from lightning_modules.vae.vae import VAE


class Inferred(NamedTuple):
    """q(z) of some particles, and what it is worth.

    Attributes:
        which: (n,) positions in the data.
        latents: mu and logvar.
        terms: of the loss, particle by particle.
        labels: of the particles, where they are known.
    """

    which: np.ndarray
    latents: Latents
    terms: ElboTerms
    labels: dict[str, np.ndarray]


class HeldOut(Train):
    """Train on a part of the particles, and measure on the others."""

    def __init__(
        self, heldout_fraction: float, search: PosteriorSearch, n_samples: int = 8, n_train_optimized: int = 400
    ) -> None:
        """Set what is measured.

        Args:
            heldout_fraction: of the particles; which ones is a function of their number and the run's seed.
            search: gives q by optimization.
            n_samples: of z for each particle and each ELBO.
            n_train_optimized: training particles whose q is optimized too, drawn at random; at most all.
        """
        self.heldout_fraction, self.search = heldout_fraction, search
        self.n_samples, self.n_train_optimized = n_samples, n_train_optimized

    def extra_results(self, run: Run, model: VAE, latents: Latents) -> TaskResults:
        """Measure the trained model on particles that it has not seen; write heldout.npz.

        Args:
            run: its configuration and folder.
            model: trained.
            latents: of the training particles.

        Returns:
            The metrics ``heldout/...``, None where there is no encoder or no label.
        """
        model.to(best_device(run.config.trainer.accelerator, run.config.trainer.devices))
        training, heldout = model.particles, heldout_particles_of(run.config, model.particles)
        beta = model.beta(run.config.trainer.max_epochs * len(training))
        found = {"train": self._of(model, latents, beta)}
        found["train_optimized"] = self._optimized(model, beta, self._sample(len(training), run.config.seed))
        model.take(heldout)
        if model.latents.encodes:
            found["encoder"] = self._of(model, model.encode(), beta)
        found["optimized"] = self._optimized(model, beta)
        model.take(training)
        write(run.folder / HELDOUT, found)
        return TaskResults(metrics_of(found), [])

    def _optimized(self, model: VAE, beta: float, index: torch.Tensor | None = None) -> Inferred:
        return self._of(model, self.search(model, beta, model.seed, index), beta, index)

    def _of(self, model: VAE, latents: Latents, beta: float, index: torch.Tensor | None = None) -> Inferred:
        terms = elbo_terms(model, latents, beta, model.seed, self.n_samples, index)
        rows = np.arange(len(model.particles)) if index is None else index.numpy()
        return Inferred(model.particles.index[rows], latents, terms, labels_of(model.particles, rows))

    def _sample(self, n_particles: int, seed: int) -> torch.Tensor:
        order = np.random.default_rng((seed, 7)).permutation(n_particles)
        return torch.from_numpy(np.sort(order[: self.n_train_optimized]))


def labels_of(particles: Any, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return what is known about some particles, if anything."""
    return {name: values[rows] for name, values in (particles.labels or {}).items()}


def metrics_of(found: dict[str, Inferred]) -> dict[str, float | None]:
    """Summarize: means over particles, gaps, class accuracies.

    Args:
        found: "train"; "train_optimized", for some of those; "encoder", unless there is none; "optimized".

    Returns:
        For each: ``heldout/loss_...``, ``heldout/reconstruction_...``, ``heldout/kl_...`` and
        ``heldout/class_accuracy_...``. All classes are told by the ten nearest training particles in z, which keep
        the q that they were trained with; a training particle does not vote for itself. Then

        - ``heldout/amortization_gap``: loss of the encoder's q minus that of the optimized q, on the same unseen
          particles;
        - ``heldout/inference_gap_train``: the same on training particles, for what was trained there, encoder or
          table;
        - ``heldout/class_chance``: the largest class.
    """
    train = found["train"]
    metrics: dict[str, float | None] = {}
    for name in ("train", "train_optimized", "encoder", "optimized"):
        inferred = found.get(name)
        for term in ("total", "reconstruction", "kl"):
            key = f"heldout/{'loss' if term == 'total' else term}_{name}"
            metrics[key] = None if inferred is None else float(getattr(inferred.terms, term).mean())
        metrics[f"heldout/class_accuracy_{name}"] = None if inferred is None else _class_accuracy(inferred, train)
    metrics["heldout/class_chance"] = largest_class_fraction(train.labels["state"]) if "state" in train.labels else None
    metrics["heldout/amortization_gap"] = _gap(found.get("encoder"), found["optimized"])
    metrics["heldout/inference_gap_train"] = _gap(train, found["train_optimized"])
    return metrics


def _gap(ours: Inferred | None, optimized: Inferred) -> float | None:
    """Return by how much the loss is higher than the optimized q's, over the particles of that."""
    if ours is None:
        return None
    both = np.isin(ours.which, optimized.which)
    return float(ours.terms.total[both].mean() - optimized.terms.total.mean())


def _class_accuracy(inferred: Inferred, train: Inferred) -> float | None:
    if "state" not in train.labels:
        return None
    if inferred is train:
        return knn_class_accuracy(train.latents.mu, train.labels["state"])
    others = ~np.isin(train.which, inferred.which)  # nobody votes for itself, under whatever q
    if not others.any():
        return None
    return accuracy_elsewhere(
        train.latents.mu[others], train.labels["state"][others], inferred.latents.mu, inferred.labels["state"]
    )


def write(path: Path, found: dict[str, Inferred]) -> Path:
    """Write index, mu, logvar, loss, reconstruction and kl of each, as ``train_index``, ``encoder_mu``, ..."""
    arrays: dict[str, np.ndarray] = {}
    for name, (which, latents, terms, _) in found.items():
        values = (which, *(part.numpy() for part in latents), *terms)
        columns = ("index", "mu", "logvar", "loss", "reconstruction", "kl")
        arrays |= {f"{name}_{column}": value for column, value in zip(columns, values, strict=True)}
    return write_atomically(path, lambda unfinished: np.savez(unfinished, allow_pickle=False, **arrays))
