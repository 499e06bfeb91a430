"""Does the encoder follow a rule? A trained one is shown its own training images, altered (paper, section 3.4)."""

from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate

from experiments import figures, loggers
from experiments.building import particles_of, same_particles, trained_model
from experiments.latent_maps import LatentMap
from experiments.metrics import displacement_ratio, neighbour_rank
from experiments.runs import Run
from experiments.training import write_latents
from lightning_modules.errors import InputError
from lightning_modules.latent_inits import Latents
from lightning_modules.latents import AmortizedEncoder


class AmortizationTest:
    """Encode altered images with another run's encoder, and see how far z moves."""

    def __init__(self, source: str) -> None:
        """Name the run whose encoder is tested; ``Run.source`` finds it."""
        self.source = source

    def __call__(self, run: Run, source: Run | None) -> dict[str, Any]:
        """Carry the test out.

        Args:
            run: names the altered input in its slot ``encoder_input``.
            source: the finished run whose encoder is tested.

        Returns:
            The metrics: displacement and neighbour rank.

        Raises:
            InputError: the source has no encoder, or is about other particles.
        """
        assert source is not None
        same_particles(run.config, source.config)
        particles = particles_of(run.config)
        model = trained_model(source, particles)
        if not isinstance(model.latents, AmortizedEncoder):
            raise InputError(
                f"task.source={self.source}: this run has a lookup table, expected one with an encoder; there is "
                "nothing to show images to"
            )
        original = model.encode()
        model.see(instantiate(run.config.encoder_input))
        altered = model.encode()
        write_latents(
            run.folder / "latents.npz",
            altered,
            mu_original=original.mu.numpy(),
            logvar_original=original.logvar.numpy(),
        )
        metrics = {
            "amortization/displacement_ratio": displacement_ratio(original.mu, altered.mu),
            "amortization/neighbour_rank": neighbour_rank(original.mu, altered.mu),
        }
        tracker = instantiate(run.config.logger)(run=run)
        drawn = [draw(run, original, altered)]
        if tracker is not None:
            loggers.log_results(tracker, metrics, drawn)
            loggers.close(tracker)
        return metrics


def draw(run: Run, original: Latents, altered: Latents) -> Path:
    """Draw Figs 10 and 11: the originals, their altered twins, and how far each moved."""
    latent_map = LatentMap(np.asarray(original.mu), seed=run.config.seed)
    return figures.displaced_latents(
        latent_map.xy,
        latent_map.transform(np.asarray(altered.mu)),
        run.folder / "figures" / "displaced_latents.png",
        title=run.config.name,
        axis_labels=latent_map.axis_labels,
    )
