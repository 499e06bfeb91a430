"""From a checked configuration to particles and a model."""

from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments.configs import NOT_FILES, to_dict
from experiments.runs import Run
from experiments.schema import Precision
from lightning_modules.beta import beta_schedule
from lightning_modules.cryo_vae import CryoVAE
from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.latent_inits import Latents
from lightning_modules.particles import Particles, load_particles


def particles_of(config: DictConfig) -> Particles:
    """Read the particles that a configuration names, making simulated ones if they do not exist yet."""
    described = {key: value for key, value in to_dict(config)["data"].items() if key not in NOT_FILES}
    files = instantiate(described).particle_files()
    return load_particles(files, config.data.residency, config.paths.cache)


def model_of(config: DictConfig, particles: Particles, source: Latents | None = None) -> CryoVAE:
    """Build the model of a configuration, its weights a function of the seed.

    Args:
        config: checked.
        particles: what it is trained on.
        source: latents of the run that it needs, if it needs one.

    Returns:
        The untrained model, on the CPU.
    """
    formation = ImageFormation(particles.box_px)
    # Each slot has its own state: the same seed gives the same decoder whatever the encoder side is.
    torch.manual_seed(config.seed)
    decoder = instantiate(config.decoder, formation=formation, zdim=config.zdim)
    torch.manual_seed(config.seed + 2**32)
    latents = instantiate(config.latents)(
        n_pixels=formation.n_pixels,
        n_particles=len(particles),
        zdim=config.zdim,
        seed=config.seed,
        source=source,
    )
    return CryoVAE(
        particles,
        formation,
        encoder_input=instantiate(config.encoder_input),
        latents=latents,
        decoder=decoder,
        beta=beta_schedule(config.beta, config.beta_control, config.zdim),
        beta_control=config.beta_control,
        lr=config.lr,
        weight_decay=config.weight_decay,
        table_lr=config.table_lr,
        bfloat16=Precision[str(to_dict(config)["precision"])] is Precision.bfloat16,
        seed=config.seed,
        particles_follow=config.data.residency != "disk",
    )


def trained_model(run: Run, particles: Particles) -> CryoVAE:
    """Build the model of a finished run, with its trained weights.

    Raises:
        InputError: the weights are missing, damaged, or those of another model.
    """
    model = model_of(run.config, particles, source=read_latents(run.folder))
    try:
        checkpoint = torch.load(run.checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(checkpoint["state_dict"])
    except Exception as error:
        raise InputError(
            f"{run.checkpoint}: the weights cannot be read ({' '.join(str(error).split())[:200]}); "
            "repeat that run with overwrite=true"
        ) from None
    return model


def read_latents(folder: Path) -> Latents:
    """Read what a run inferred.

    Args:
        folder: of a finished run.

    Returns:
        mu and logvar, each (N, zdim).

    Raises:
        InputError: the file is missing or damaged.
    """
    path = folder / "latents.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Latents(torch.from_numpy(stored["mu"]), torch.from_numpy(stored["logvar"]))
    except Exception as error:
        raise InputError(
            f"{path}: the latents cannot be read ({' '.join(str(error).split())}); repeat that run with overwrite=true"
        ) from None


def same_particles(config: DictConfig, source: DictConfig) -> None:
    """Check that two runs are about the same particles.

    Raises:
        InputError: they are not; latents of one say nothing about the other.
    """
    ours, theirs = (
        {key: value for key, value in to_dict(OmegaConf.create({"data": c.data}))["data"].items() if key in SAME}
        for c in (config, source)
    )
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            raise InputError(
                f"source: a run with data.{key}={theirs.get(key)} was found, expected data.{key}={ours.get(key)}; "
                "name a run of the same particles"
            )


SAME = ("_target_", "particles", "poses", "ind", "n_particles", "box_px", "snr", "seed", "n_states", "hinge_deg")
