"""Latents of new particles under a finished run's decoder: ``python run.py +exp=infer task.source=RUN data=...``.

cryoDRGN's encoder knows its training particles and few others. The decoder holds for all, and q(z) of a new particle
can be searched for under it, whatever gave q in training. Where the run's encoder knows new particles, as that of
``+exp=pose_aware`` does, ``task/search=encoder`` takes its q, at its speed.
"""

import logging
import time
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from experiments.figures import run_figures
from experiments.machine.devices import best_device
from experiments.runs.building import described_data, model_around, trained_encoder
from experiments.runs.run import Run
from experiments.runs.stored_results import write_latents
from experiments.tasks import cryodrgn_export
from experiments.tasks.train import latent_metrics
from experiments.tracking import loggers
from experiments.volumes import run_volumes
from experiments.volumes.decoder import VolumeDecoder
from experiments.volumes.truth import volume_metrics
from lightning_modules.encoder_inputs.encoder_input import IdentityInput
from lightning_modules.errors import InputError
from lightning_modules.files.image_stacks import inspect
from lightning_modules.latents.posterior import FreePosterior
from lightning_modules.particles.particles import Particles
from lightning_modules.particles.sources import ParticleSource
from lightning_modules.vae.cryo_vae import CryoVAE
from lightning_modules.vae.encoder_posterior import EncoderPosterior
from lightning_modules.vae.posterior_search import PosteriorSearch, elbo_terms

logger = logging.getLogger(__name__)

PIXEL_SIZE_TOLERANCE = 0.01


class Infer:
    """Infer q(z) of every particle of the data, one by one, under the decoder of a finished run."""

    def __init__(self, source: str, search: PosteriorSearch | EncoderPosterior, n_samples: int = 8) -> None:
        """Set what is used.

        Args:
            source: names the run whose decoder is used; ``Run.source`` finds it.
            search: gives q, under the decoder or by the run's own encoder.
            n_samples: of z for each particle and its ELBO.
        """
        self.source, self.search, self.n_samples = source, search, n_samples

    def __call__(self, run: Run, source: Run | None) -> dict[str, Any]:
        """Infer.

        Args:
            run: names the particles in its slot ``data``.
            source: the finished run.

        Returns:
            The means of the ELBO's terms, speed, and latents against the truth where it is known. What was found is in
            latents.npz, and in cryodrgn/ as ``cryodrgn analyze`` reads it.

        Raises:
            InputError: the run has no decoder of volumes, no encoder where that is asked for, or images of another
                size.
        """
        assert source is not None
        decoder = run_volumes.decoder_of(source)
        model, seed = self._model(run, source, decoder), run.config.seed
        beta = model.beta(source.config.trainer.max_epochs * len(model.particles))
        started = time.perf_counter()
        latents = self.search(model, beta, seed)
        seconds = time.perf_counter() - started
        terms = elbo_terms(model, latents, beta, seed, self.n_samples)
        particles = model.particles  # not before: on a GPU, those that they were copied from would stay in memory, too
        columns = {"loss": terms.total, "reconstruction": terms.reconstruction, "kl": terms.kl}
        write_latents(run.folder / "latents.npz", latents, index=particles.index, **columns, **(particles.labels or {}))
        cryodrgn_export.export(run.folder / "cryodrgn", source.config, model, latents, [])
        metrics = {
            **{f"infer/{name}": float(values.mean()) for name, values in columns.items()},
            "infer/particles_per_s": len(particles) / seconds,
            **latent_metrics(run.config, latents, particles),
            **run_volumes.write_of_training(run, model, latents.mu),
            **volume_metrics(decoder, latents.mu, particles.labels, described_data(run.config)),
        }
        tracker = instantiate(run.config.logger)(run=run)
        drawn = run_figures.draw(run)
        if tracker is not None:
            loggers.log_results(tracker, run, metrics, drawn)
            loggers.close(tracker)
        return metrics

    def _model(self, run: Run, source: Run, decoder: VolumeDecoder) -> CryoVAE:
        """Put the run's particles and the source's decoder together, on the device that the run is to use."""
        particles = particles_for(run.config, decoder, self.source)
        encodes = self.search.needs_encoder
        posterior = trained_encoder(source, particles) if encodes else FreePosterior(source.config.zdim)
        model = model_around(source.config, particles, IdentityInput(), posterior, decoder.slices, run.config.seed)
        device = best_device(run.config.trainer.accelerator, run.config.trainer.devices)
        moved: CryoVAE = model.to(device)
        return moved


def particles_for(config: DictConfig, decoder: VolumeDecoder, said_by: str) -> Particles:
    """Read particles as the decoder's were: normalized by the same numbers, and of the same box and pixel size.

    Args:
        config: checked.
        decoder: of the finished run.
        said_by: what names that run.

    Raises:
        InputError: the box or the pixel size is another one.
    """
    data = described_data(config)
    if not isinstance(data, ParticleSource):
        raise InputError(f"data={config.data.name}: pictures were found, expected particles, as task.source={said_by}")
    files = data.particle_files().checked()
    box_px = inspect(Path(files.particles), files.datadir).box_px
    if box_px != decoder.box_px:
        raise InputError(
            f"{files.particles}: a box of {box_px} px was found, expected {decoder.box_px} px, that of "
            f"task.source={said_by}; crop or pad the images to its extent and downsample them to its box"
        )
    cached = bool(config.data.get("cache_images"))
    particles = data.load(config.data.residency, config.paths.cache, like=decoder, cache_images=cached)
    found, expected = particles.pixel_size_angstrom, decoder.pixel_size_angstrom
    if found is None or expected is None:
        whose = files.particles if found is None else f"task.source={said_by}"
        logger.warning("%s: its pixel size is not known and was not compared; set data.pixel_size_angstrom", whose)
    elif abs(found / expected - 1) > PIXEL_SIZE_TOLERANCE:
        raise InputError(
            f"{files.particles}: {found:.4g} A/px was found, expected {expected:.4g} A/px, "
            f"that of task.source={said_by}; rescale the images, or correct the pixel size in the CTF"
        )
    return particles
