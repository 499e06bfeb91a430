"""Volumes of a run as .mrc files: ``python -m experiments volumes RUN --kmeans 20``.

A training run writes those of its first six particles and of twenty k-means centres when it ends; here any
others can be had from it later, without its particles.
"""

import json
import os

from hydra.utils import instantiate
from numpy.typing import ArrayLike

from experiments.machine.devices import best_device
from experiments.metrics.fsc import VolumeDiversity, spherical_mask
from experiments.runs.building import particles_of, trained_model
from experiments.runs.run import Run
from experiments.runs.stored_results import read_tensors
from experiments.volumes.decoder import VolumeDecoder
from experiments.volumes.files import INDEX, write
from experiments.volumes.points import first_particles, kmeans_centres
from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import read_bytes
from lightning_modules.image_formation import ImageFormation
from lightning_modules.vae.cryo_vae import CryoVAE


def write_of_training(run: Run, model: CryoVAE, mu: ArrayLike) -> dict[str, float | None]:
    """Write volumes/first_1.mrc to first_6.mrc and kmeans_00.mrc to kmeans_19.mrc, fewer of few particles.

    Args:
        run: finished but for its metrics.
        model: trained.
        mu: (N, zdim) of its particles.

    Returns:
        The metric ``volumes/diversity``: of the volumes at the k-means centres, inside the soft sphere of
        ``fsc.spherical_mask``.
    """
    points = first_particles(mu) + kmeans_centres(mu)
    decoder = on_best_device(run, model)
    diversity = VolumeDiversity(spherical_mask(decoder.box_px))
    for name, volume in write(run.folder / "volumes", decoder, points, progress=True):
        if name.startswith("kmeans"):
            diversity.add(volume)
    return {"volumes/diversity": diversity.value}


def write_of_amortization(run: Run, model: CryoVAE, mu: ArrayLike, mu_altered: ArrayLike) -> None:
    """Write volumes/original_1.mrc to original_6.mrc and altered_1.mrc to altered_6.mrc (paper, Figs. 10 and 11).

    Args:
        run: finished but for its metrics.
        model: whose encoder is tested.
        mu: (N, zdim) of the images.
        mu_altered: (N, zdim) of the altered images.
    """
    points = first_particles(mu, prefix="original") + first_particles(mu_altered, prefix="altered")
    for _ in write(run.folder / "volumes", on_best_device(run, model), points, progress=True):
        pass


def decoder_of(run: Run) -> VolumeDecoder:
    """Return the decoder of a finished run; of an amortization test, that of the run it tested.

    The particles are read only if no volumes have been written yet: what is needed of them is in index.json.

    Raises:
        InputError: the run has no weights, or they cannot be read.
    """
    trained = run if run.checkpoint.exists() else run.source()
    if trained is None or not trained.checkpoint.exists():
        raise InputError(f"{run.folder}: has no weights in checkpoints/last.ckpt; repeat the run with overwrite=true")
    if "decoder" not in trained.config or "SliceDecoder" not in trained.config.decoder._target_:
        raise InputError(f"{run.folder}: this run's decoder renders no volumes; name a run of cryo-EM particles")
    about = _about_particles(trained)
    if about is None:
        return VolumeDecoder.of(trained_model(trained, particles_of(trained.config)))
    box_px, pixel_size_angstrom, norm = about
    slices = instantiate(trained.config.decoder, formation=ImageFormation(box_px), zdim=trained.config.zdim)
    try:
        state = read_tensors(trained.checkpoint, "state_dict", mmap=True)
        slices.load_state_dict({k.removeprefix("decoder."): v for k, v in state.items() if k.startswith("decoder.")})
    except Exception as error:
        raise InputError(
            f"{trained.checkpoint}: the weights cannot be read ({' '.join(str(error).split())[:200]}); "
            "repeat that run with overwrite=true"
        ) from None
    return VolumeDecoder(slices, norm, pixel_size_angstrom)


def _about_particles(run: Run) -> tuple[int, float | None, tuple[float, float]] | None:
    """Read box side, pixel size and norm of the particles; None where no volumes have been written."""
    path = run.folder / "volumes" / INDEX
    if not os.path.lexists(path):
        return None
    try:
        found = json.loads(read_bytes(path, "the index of a run's volumes"))["decoder"]
        apix = found["pixel_size_angstrom"]
        return int(found["box_px"]), None if apix is None else float(apix), (found["norm"][0], found["norm"][1])
    except Exception:
        raise InputError(f"{path}: not as a run writes it; delete the file, and it will not be needed") from None


def on_best_device(run: Run, model: CryoVAE) -> VolumeDecoder:
    """Take the decoder to the GPU if the run was to use one: the trainer has brought the model back to the CPU."""
    return VolumeDecoder.of(model).to(best_device(run.config.trainer.accelerator, run.config.trainer.devices))
