"""The pictures of finished runs, from their folders alone: ``python -m experiments figures RUN [RUN ...]``.

Each run gets what its folder has: its loss curve, its latents with the volumes of its first particles, its
reconstructions, and where altered images go. Several runs together also get their losses and times in one picture.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.figures.heldout import heldout_losses
from experiments.figures.images import reconstructions
from experiments.figures.latent_maps import LatentMap, differ
from experiments.figures.latents import displaced_latents, latent_space, single_volume
from experiments.figures.losses import epoch_times, loss_curve, loss_curves
from experiments.figures.volume_pictures import SIZE_PX, pictures_of
from experiments.runs.epoch_log import read_log
from experiments.runs.layout import HELDOUT, MAP, RECONSTRUCTIONS
from experiments.runs.run import Run
from lightning_modules.errors import InputError
from lightning_modules.files.safe_numpy import load_npz

__all__ = [
    "displaced_latents",
    "draw",
    "draw_together",
    "epoch_times",
    "heldout_losses",
    "latent_space",
    "loss_curve",
    "loss_curves",
    "reconstructions",
    "single_volume",
]

N_LABELLED = 10


def draw(run: Run, source: Run | None = None) -> list[Path]:
    """Draw all figures of a run into its folder.

    Args:
        run: its log, latents, reconstructions and volumes are written.
        source: the run that it started from, where it is at hand. Its map of the same latents is used again.

    Returns:
        The PNGs, in figures/. A PDF is beside each.

    Raises:
        InputError: a file of the run is missing or damaged.
    """
    folder, drawn = run.folder / "figures", []
    title = f"{run.config.name}, seed {run.config.seed}"
    rows = read_log(run.folder / "log.csv")
    if rows:
        drawn.append(loss_curve(rows, folder / "loss_curve.png", title))
    drawn.append(_draw_latents(run, source, title))
    stored = run.folder / RECONSTRUCTIONS
    if stored.exists():
        found = _arrays(stored, "images", "reconstructions")
        drawn.append(reconstructions(found["images"], found["reconstructions"], folder / "reconstructions.png", title))
    if (run.folder / HELDOUT).exists():
        arrays = _arrays(run.folder / HELDOUT, "train_loss", "optimized_loss")
        drawn.append(heldout_losses(arrays, folder / "heldout_losses.png", title))
    return drawn


def draw_together(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Draw the losses and the times of trained runs over each other.

    Args:
        runs: finished.
        folder: of the pictures.

    Returns:
        The PNGs; none where no run was trained.
    """
    logs = [(str(run.config.name), rows) for run in runs if (rows := read_log(run.folder / "log.csv"))]
    if not logs:
        return []
    return [loss_curves(logs, folder / "loss_curves.png"), epoch_times(logs, folder / "epoch_times.png")]


def _draw_latents(run: Run, source: Run | None, title: str) -> Path:
    """Draw the latents, or where altered ones go, or the one volume of latents that are all equal."""
    arrays, folder = _arrays(run.folder / "latents.npz", "mu"), run.folder / "figures"
    if "mu_original" in arrays:
        latent_map = _map_of(run, arrays["mu_original"], source)
        originals, altered = pictures_of(run.folder, "original", "altered")
        return displaced_latents(
            latent_map.xy,
            latent_map.transform(arrays["mu"][:N_LABELLED]),
            folder / "displaced_latents.png",
            title,
            latent_map.axis_labels,
            N_LABELLED,
            originals,
            altered,
        )
    if not differ(arrays["mu"]):
        (same,) = pictures_of(run.folder, "first", most=1, size_px=2 * SIZE_PX)
        if same:
            return single_volume(same[0], folder / "latent_space.png", title)
    (pictures,) = pictures_of(run.folder, "first")
    latent_map = _map_of(run, arrays["mu"], source)
    return latent_space(
        latent_map.xy,
        folder / "latent_space.png",
        title,
        latent_map.axis_labels,
        arrays.get("state"),
        N_LABELLED,
        pictures,
    )


def _map_of(run: Run, mu: NDArray[np.float32], source: Run | None) -> LatentMap:
    """Return the map of a run's latents, as it was drawn earlier where it was."""
    others = [] if source is None else [source.folder / MAP]
    return LatentMap(mu, run.config.seed, run.folder / MAP, others)


def _arrays(path: Path, *needed: str) -> dict[str, Any]:
    """Read a .npz of a run.

    Raises:
        InputError: it is missing or damaged, or lacks an array.
    """
    try:
        arrays = load_npz(path)
    except InputError as error:
        raise InputError(f"{error}; or repeat that run with overwrite=true") from None
    for name in needed:
        if name not in arrays:
            raise InputError(f"{path}: there is no array {name} in it; repeat that run with overwrite=true")
    return arrays
