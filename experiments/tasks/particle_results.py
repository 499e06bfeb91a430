"""What is made of a trained model and its latents: the slot ``results``, and what fills it for particles."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from experiments.runs.building import described_data
from experiments.runs.layout import RECONSTRUCTIONS
from experiments.runs.run import Run
from experiments.tasks import cryodrgn_export
from experiments.volumes import comparison, run_volumes
from experiments.volumes.truth import volume_metrics
from lightning_modules.files.atomic import write_atomically
from lightning_modules.latents.table_init import Latents
from lightning_modules.vae.cryo_vae import CryoVAE

N_SHOWN = 6


class TaskResults(NamedTuple):
    """What came of it.

    Attributes:
        metrics: go into metrics.json.
        figures: pictures that were written, for W&B.
        of_particles: columns (N,) for the table of particles, NaN where nothing was made of one.
    """

    metrics: dict[str, float | None]
    figures: list[Path]
    of_particles: Mapping[str, NDArray[np.float64]] = MappingProxyType({})


class Results(Protocol):
    """The slot: writes into the run's folder, and says what goes into its metrics."""

    def after_training(self, run: Run, model: Any, latents: Latents, rows: list[dict[str, Any]]) -> TaskResults:
        """Take a trained model, the latents (N, zdim) of what it was trained on, and the rows of its log."""

    def after_altering(self, run: Run, model: Any, original: Latents, altered: Latents) -> TaskResults:
        """Take a model that sees altered images, and the latents before and after."""


class ParticleResults:
    """For particles: cryoDRGN's own files, and volumes."""

    def after_training(self, run: Run, model: CryoVAE, latents: Latents, rows: list[dict[str, Any]]) -> TaskResults:
        """Reconstruct images, hand the run over to cryoDRGN, decode the paper's volumes, and compare with the true."""
        write_reconstructions(run.folder / RECONSTRUCTIONS, reconstruct(model))
        cryodrgn_export.export(run.folder / "cryodrgn", run.config, model, latents, rows)
        metrics = run_volumes.write_of_training(run, model, latents.mu)
        decoder, data = run_volumes.on_best_device(run, model), described_data(run.config)
        return TaskResults(metrics | volume_metrics(decoder, latents.mu, model.particles.labels, data), [])

    def after_altering(self, run: Run, model: CryoVAE, original: Latents, altered: Latents) -> TaskResults:
        """Decode volumes before and after: those of the first particles into files, those of a sample to compare."""
        run_volumes.write_of_amortization(run, model, original.mu, altered.mu)
        n_particles = len(original.mu)
        sample = np.random.default_rng((run.config.seed, 8)).permutation(n_particles)[: run.config.task.n_volumes]
        decoder = run_volumes.on_best_device(run, model)
        pairs, others = comparison.compare(decoder, original.mu[sample], altered.mu[sample])
        columns = {f"volume_{name}": np.full(n_particles, np.nan) for name in pairs._fields}
        for name, values in pairs._asdict().items():
            columns[f"volume_{name}"][sample] = values
        return TaskResults(comparison.metrics_of(pairs, others), [], columns)


class Reconstructions(NamedTuple):
    """Images of n particles, each (n, D, D) float32, in standard deviations of the normalized images."""

    images: NDArray[np.float32]
    reconstructions: NDArray[np.float32]


def reconstruct(model: "CryoVAE", n: int = N_SHOWN) -> Reconstructions:
    """Compare the first particles with what the model renders from the mean of q(z).

    Both are what the loss compares: centred, windowed, within the mask's frequencies; the rendered slice at the
    particle's pose, with its CTF.

    Args:
        model: with its weights.
        n: how many particles, or all where there are fewer.

    Returns:
        Images and reconstructions.
    """
    import torch

    model.eval()
    model.prepare()
    model.encoder_input.start_epoch(None)
    with torch.no_grad():
        observed = model.observe(torch.arange(min(n, len(model.particles))))
        y_hat = model.render(observed, model.infer(observed)[0])
    images, reconstructions = (model.formation.image(y.float()).cpu().numpy() for y in (observed.y, y_hat))
    return Reconstructions(images, reconstructions)


def write_reconstructions(path: Path, found: Reconstructions) -> Path:
    """Write images and reconstructions as a .npz file; returns ``path``."""
    return write_atomically(path, lambda unfinished: np.savez(unfinished, **found._asdict()))
