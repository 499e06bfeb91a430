"""The task of most runs: train, encode every particle, measure, draw, hand over to cryoDRGN."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from hydra.utils import instantiate
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from experiments import cryodrgn_io, figures, loggers
from experiments.building import model_of, particles_of, read_latents, same_particles
from experiments.callbacks import EpochLog, LastCheckpoint, ProgressLine
from experiments.latent_maps import LatentMap
from experiments.metrics import knn_class_accuracy, knn_hinge_r2, largest_class_fraction
from experiments.runs import Run, write_atomically
from lightning_modules.blocks import ParticleBlocks
from lightning_modules.cryo_vae import CryoVAE
from lightning_modules.latent_inits import Latents
from lightning_modules.particles import Particles

logger = logging.getLogger(__name__)


class Train:
    """Train a run's model, or continue where it was interrupted."""

    def __call__(self, run: Run, source: Run | None) -> dict[str, Any]:
        """Carry the run out.

        Args:
            run: its configuration and folder.
            source: the finished run that this one starts from, where it needs one.

        Returns:
            The metrics: losses of the last epoch, times, and latents against the truth where it is known.

        Raises:
            InputError: input that cannot be used, or a loss that is no longer a number.
        """
        if source is not None:
            same_particles(run.config, source.config)
        particles = particles_of(run.config)
        model = model_of(run.config, particles, None if source is None else read_latents(source.folder))
        epochs = EpochLog(run.folder / "log.csv", len(particles))
        tracker = instantiate(run.config.logger)(run=run)
        fit(run, model, epochs, tracker)
        latents = model.encode()
        write_latents(run.folder / "latents.npz", latents)
        metrics = {**epochs.metrics, **truth_metrics(latents, particles)}
        cryodrgn_io.export(run.folder / "cryodrgn", run.config, model, latents, epochs.rows)
        drawn = draw(run, epochs.rows, latents, particles)
        if tracker is not None:
            loggers.log_results(tracker, metrics, drawn)
            loggers.close(tracker)
        return metrics


def fit(run: Run, model: CryoVAE, epochs: EpochLog, tracker: Logger | None = None) -> None:
    """Train a model on its particles, from the run's last checkpoint if there is one.

    Args:
        run: trainer settings, and where checkpoints go.
        model: its weights are changed.
        epochs: collects a row per epoch.
        tracker: a Lightning logger, or None.
    """
    config, n_particles = run.config, len(model.particles)
    callbacks: list[Callback] = [epochs]
    if config.trainer.enable_progress_bar:
        callbacks.append(ProgressLine(config.name, n_particles))
    callbacks.append(LastCheckpoint(run))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(num_workers|val_dataloader|on_epoch|litlogger|Tip|LeafSpec).*")
        trainer = pl.Trainer(
            max_epochs=config.trainer.max_epochs,
            accelerator=config.trainer.accelerator,
            devices=config.trainer.devices,
            strategy=config.trainer.strategy,
            callbacks=callbacks,
            logger=tracker or False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            reload_dataloaders_every_n_epochs=1,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            default_root_dir=run.folder,
        )
        blocks = ParticleBlocks(n_particles, config.batch_size, config.seed)
        resumed = run.checkpoint if run.checkpoint.exists() else None
        if resumed:
            logger.info("continuing from %s", resumed)
        try:
            trainer.fit(model, datamodule=blocks, ckpt_path=resumed, weights_only=True)
        except SystemExit:  # what Lightning makes of Ctrl-C; a sweep must stop there, as a Python program does
            raise KeyboardInterrupt from None


def write_latents(path: Path, latents: Latents, **others: np.ndarray) -> None:
    """Write mu and logvar (N, zdim), and the particles' index (N,), as a .npz file."""
    mu, logvar = (part.numpy() for part in latents)
    arrays = {"mu": mu, "logvar": logvar, "index": np.arange(len(mu)), **others}
    write_atomically(path, lambda unfinished: np.savez(unfinished, allow_pickle=False, **arrays))


def truth_metrics(latents: Latents, particles: Particles) -> dict[str, float | None]:
    """Compare latents with the true conformations, where they are known."""
    labels, mu = particles.labels or {}, latents.mu.numpy()
    metrics: dict[str, float | None] = {}
    if "state" in labels:
        metrics["latents/knn_class_accuracy"] = knn_class_accuracy(mu, labels["state"])
        metrics["latents/knn_class_chance"] = largest_class_fraction(labels["state"])
    if "hinge_rad" in labels:
        metrics["latents/knn_hinge_r2"] = knn_hinge_r2(mu, labels["hinge_rad"])
    return metrics


def draw(run: Run, rows: list[dict[str, Any]], latents: Latents, particles: Particles) -> list[Path]:
    """Draw the loss curve and the latent space."""
    folder = run.folder / "figures"
    latent_map = LatentMap(latents.mu.numpy(), seed=run.config.seed)
    return [
        figures.loss_curve(rows, folder / "loss_curve.png"),
        figures.latent_space(
            latent_map.xy,
            folder / "latent_space.png",
            title=run.config.name,
            axis_labels=latent_map.axis_labels,
            labels=(particles.labels or {}).get("state"),
        ),
    ]
