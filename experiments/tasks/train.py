"""The task of most runs: train, encode every particle, measure, draw, hand over to cryoDRGN."""

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from experiments.figures import run_figures
from experiments.metrics.latents import active_dimensions
from experiments.metrics.truth import truth_metrics
from experiments.runs.building import described_data, untrained_model
from experiments.runs.run import Run
from experiments.runs.stored_results import same_particles, write_latents
from experiments.tasks.particle_results import TaskResults
from experiments.tracking import loggers
from experiments.training.callbacks import EpochLog
from experiments.training.fit import fit
from lightning_modules.latents.table_init import Latents
from lightning_modules.vae.vae import VAE


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
        model = untrained_model(run, source)
        epochs = EpochLog(run.folder / "log.csv", len(model.particles))
        tracker = instantiate(run.config.logger)(run=run)
        fit(run, model, epochs, tracker, source)
        latents = model.encode()
        particles = model.particles  # not before: those of a training on a GPU would stay in memory, too
        write_latents(run.folder / "latents.npz", latents, index=particles.index, **(particles.labels or {}))
        made = instantiate(run.config.results).after_training(run, model, latents, epochs.rows)
        further = self.extra_results(run, model, latents)
        measured = latent_metrics(run.config, latents, particles)
        metrics = {**epochs.metrics, **measured, **made.metrics, **further.metrics}
        drawn = [*run_figures.draw(run), *made.figures, *further.figures]
        if tracker is not None:
            loggers.log_results(tracker, run, metrics, drawn)
            loggers.close(tracker)
        return metrics

    def extra_results(self, run: Run, model: VAE, latents: Latents) -> TaskResults:
        """Give what a task has to say beyond every training run; for the others, nothing."""
        return TaskResults({}, [])


def latent_metrics(config: DictConfig, latents: Latents, particles: Any) -> dict[str, float | None]:
    """Measure what latents use of their space, and what they know about the truth where it is known."""
    mu = latents.mu.numpy()
    truth = truth_metrics(mu, particles.labels, described_data(config))
    return {"latents/active_dimensions": active_dimensions(mu), **truth}
