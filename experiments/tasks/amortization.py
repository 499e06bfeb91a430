"""Does the encoder follow a rule? A trained one is shown its own training images, altered (paper, section 3.4)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from numpy.typing import NDArray

from experiments.figures import run_figures
from experiments.metrics import altered_particles
from experiments.runs.building import particles_of, split_of, trained_model
from experiments.runs.run import Run
from experiments.runs.stored_results import same_particles, write_latents
from experiments.tracking import loggers
from lightning_modules.errors import InputError
from lightning_modules.files.atomic import write_atomically


class AmortizationTest:
    """Encode altered images with another run's encoder, and see how far z moves."""

    def __init__(self, source: str, n_volumes: int = 50) -> None:
        """Set what is tested.

        Args:
            source: names the run whose encoder is tested; ``Run.source`` finds it.
            n_volumes: particles whose volumes are compared, drawn at random.
        """
        self.source, self.n_volumes = source, n_volumes

    def __call__(self, run: Run, source: Run | None) -> dict[str, Any]:
        """Carry the test out.

        Args:
            run: names the altered input in its slot ``encoder_input``.
            source: the finished run whose encoder is tested.

        Returns:
            The metrics ``amortization/...``; what became of every particle is in amortization.npz and .csv.

        Raises:
            InputError: the source has no encoder, or is about other particles.
        """
        assert source is not None
        same_particles(run.config, source.config)
        particles = particles_of(run.config, split_of(source.config))
        model = trained_model(source, particles)
        if not model.latents.encodes:
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
            index=particles.index,
            mu_original=original.mu.numpy(),
            logvar_original=original.logvar.numpy(),
        )
        made = instantiate(run.config.results).after_altering(run, model, original, altered)
        state = (particles.labels or {}).get("state")
        table = altered_particles.table_of(original.mu, altered.mu, state, particles.index, run.config.seed)
        write(run.folder, {**table, **made.of_particles})
        metrics = {**altered_particles.summarize(table), **made.metrics}
        tracker = instantiate(run.config.logger)(run=run)
        drawn = [*run_figures.draw(run, source), *made.figures]
        if tracker is not None:
            loggers.log_results(tracker, run, metrics, drawn)
            loggers.close(tracker)
        return metrics


def write(folder: Path, table: Mapping[str, NDArray[Any]]) -> None:
    """Write a table as amortization.npz and, for other programs, amortization.csv; NaN is an empty cell there."""
    import pandas as pd

    write_atomically(folder / "amortization.npz", lambda path: np.savez(path, allow_pickle=False, **table))
    write_atomically(folder / "amortization.csv", lambda path: pd.DataFrame(dict(table)).to_csv(path, index=False))
