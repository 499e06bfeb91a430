"""From a checked configuration to particles and a model."""

import dataclasses
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from torch import nn

from experiments.configuration.compose import to_dict
from experiments.configuration.identity import NOT_FILES
from experiments.configuration.schema import Precision
from experiments.runs.run import Run
from experiments.runs.stored_results import _no_weights, read_latents, read_weights
from lightning_modules.encoder_inputs.encoder_input import EncoderInput
from lightning_modules.errors import InputError
from lightning_modules.latents.posterior import Posterior
from lightning_modules.latents.table_init import Latents
from lightning_modules.particles.split import Split
from lightning_modules.vae.beta_schedule import beta_schedule
from lightning_modules.vae.vae import VAE


def particles_of(config: DictConfig, split: Split | None = None) -> Any:
    """Read the particles that a configuration is trained on, making simulated ones if they do not exist yet.

    Where some are held out, these are the others.

    Args:
        config: checked.
        split: that of the run whose model is used, where the configuration trains none itself.

    Returns:
        ``Particles``, or ``Digits`` where the data are pictures.
    """
    return _load(config, split or split_of(config))


def heldout_particles_of(config: DictConfig, training: Any) -> Any:
    """Read the particles that a configuration holds out.

    Args:
        config: checked; its task holds some out.
        training: the others, by which these are normalized.
    """
    split = split_of(config)
    assert split is not None
    return _load(config, dataclasses.replace(split, takes_heldout=True), training)


def split_of(config: DictConfig) -> Split | None:
    """Return how a configuration holds particles out; None: it does not."""
    fraction = config.task.get("heldout_fraction")
    return None if fraction is None else Split(fraction, config.seed)


def described_data(config: DictConfig) -> Any:
    """Return what fills the slot ``data``: nothing is read yet."""
    return instantiate({key: value for key, value in to_dict(config)["data"].items() if key not in NOT_FILES})


def _load(config: DictConfig, split: Split | None, like: Any = None) -> Any:
    kept = {key: config.data[key] for key in ("residency", "cache_images") if key in config.data}
    return described_data(config).load(cache_dir=config.paths.cache, split=split, like=like, **kept)


def model_of(config: DictConfig, particles: Any, source: Latents | None = None) -> Any:
    """Build the model of a configuration, its weights a function of the seed.

    Args:
        config: checked.
        particles: what it is trained on.
        source: latents of the run that it needs, if it needs one.

    Returns:
        The untrained model, a ``VAE`` on the CPU.

    Raises:
        InputError: the model, its decoder and the data do not go together.
    """
    _check_fit(config, particles)
    formation = particles.formation()
    # Each slot has its own state: the same seed gives the same decoder whatever the encoder side is.
    torch.manual_seed(config.seed)
    decoder = instantiate(config.decoder, formation=formation, zdim=config.zdim)
    torch.manual_seed(config.seed + 2**32)
    latents = instantiate(config.latents)(
        formation=formation,
        n_particles=len(particles),
        zdim=config.zdim,
        seed=config.seed,
        source=source,
    )
    return model_around(config, particles, instantiate(config.encoder_input), latents, decoder, config.seed)


def model_around(
    config: DictConfig, particles: Any, encoder_input: EncoderInput, latents: Posterior, decoder: nn.Module, seed: int
) -> Any:
    """Put given parts together as a configuration says.

    Args:
        config: checked; says how the parts are weighed, trained and kept.
        particles: what the model is about.
        encoder_input: what the encoder sees.
        latents: q(z).
        decoder: of the same box.
        seed: of all noise.
    """
    return instantiate(config.model)(
        particles,
        particles.formation(),
        encoder_input=encoder_input,
        latents=latents,
        decoder=decoder,
        beta=beta_schedule(config.beta, config.beta_control, config.zdim),
        beta_control=config.beta_control,
        lr=config.lr,
        weight_decay=config.weight_decay,
        table_lr=config.table_lr,
        bfloat16=Precision[str(to_dict(config)["precision"])] is Precision.bfloat16,
        seed=seed,
        particles_follow=config.data.get("residency") != "disk",
        native=config.trainer.get("native", True),  # runs of before have no such key
    )


def _check_fit(config: DictConfig, particles: Any) -> None:
    """Refuse a model for other data, or a decoder for another model, before anything is built."""
    model = get_class(config.model._target_)
    assert issubclass(model, VAE)
    for key, found, expected in (
        ("data", type(particles), model.trains_on),
        ("decoder", get_class(config.decoder._target_), model.decodes_with),
    ):
        if not issubclass(found, expected):
            raise InputError(
                f"{key}={config.data.name if key == 'data' else found.__name__}: {found.__name__} was found, expected "
                f"{expected.__name__} for model {model.__name__}; choose model, decoder and data that go together"
            )


def untrained_model(run: Run, source: Run | None) -> VAE:
    """Read the particles of a run, and build its model on them; ``source`` is the run that it starts from."""
    latents = None if source is None else read_latents(source.folder)
    model: VAE = model_of(run.config, particles_of(run.config), latents)
    return model


def trained_encoder(run: Run, particles: Any) -> Posterior:
    """Return the encoder of a finished run, to be shown other particles of the same box.

    Raises:
        InputError: the run has a lookup table, or its weights cannot be read.
    """
    kind = get_class(run.config.latents._target_)
    assert issubclass(kind, Posterior)
    if not kind.encodes:
        raise InputError(
            f"{run.folder}: a run with a lookup table was found, expected one with an encoder; leave out "
            "task/search=encoder, and q(z) is searched for under the decoder"
        )
    encoder: Posterior = trained_model(run, particles).latents
    return encoder


def trained_model(run: Run, particles: Any) -> Any:
    """Build the model of a finished run, with its trained weights.

    Raises:
        InputError: the weights are missing, damaged, or those of another model.
    """
    model = model_of(run.config, particles, source=read_latents(run.folder))
    weights = read_weights(run.checkpoint)
    try:
        model.load_state_dict(weights)
    except Exception as error:
        raise _no_weights(run.checkpoint, error) from None
    return model
