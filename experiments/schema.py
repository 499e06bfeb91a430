"""Every configuration key: its type, its range, its line of help.

The values are in conf/; these classes make Hydra refuse a misspelt key or a value of the wrong type, by name.
"""
# ruff: noqa: RUF009  key() returns a dataclass field

from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


class Precision(Enum):
    """Precision of the networks' matrix products."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


def key(help_text: str, at_least: float | None = None, above: float | None = None, one_of: tuple[str, ...] = ()) -> Any:
    """Describe a key: one line of help, and the values allowed."""
    allowed = {"at_least": at_least, "above": above, "one_of": one_of}
    return field(default=MISSING, metadata={"help": help_text, **allowed})


RESIDENCIES = ("memory", "disk")
ACTIVATIONS = ("relu", "leaky_relu")
PE_TYPES = ("geom_lowf", "geom_ft", "geom_full", "geom_nohighf", "linear_lowf", "gaussian", "none")


@dataclass
class SimulatedData:
    """conf/data/simulated.yaml: see lightning_modules.simulated.SimulatedParticles."""

    _target_: str = MISSING
    name: str = key("part of the run's folder")
    residency: str = key("memory, or disk for what does not fit", one_of=RESIDENCIES)
    n_particles: int = key("number of particles", at_least=1)
    box_px: int = key("side of the images in px, even", at_least=2)
    snr: float = key("variance of the signal over that of the noise", above=0)
    seed: int = key("of the data, not of the training", at_least=0)
    n_states: int = key("assembly states", at_least=1)
    hinge_deg: float = key("full range of the hinge motion", at_least=0)
    shift_px: float = key("half-width of the in-plane shifts", at_least=0)
    defocus_angstrom: float = key("mean defocus")
    defocus_spread_angstrom: float = key("half-width of the defocus", at_least=0)
    astigmatism_angstrom: float = key("largest difference of the two defoci", at_least=0)
    voltage_kv: float = key("accelerating voltage", above=0)
    cs_mm: float = key("spherical aberration", at_least=0)
    amplitude_contrast: float = key("fraction", at_least=0)
    cache_dir: str = key("where the simulated files are kept")


@dataclass
class CryodrgnData:
    """conf/data/cryodrgn.yaml: see lightning_modules.particle_files.ParticleFiles."""

    _target_: str = MISSING
    name: str = key("part of the run's folder")
    residency: str = key("memory, or disk for what does not fit", one_of=RESIDENCIES)
    particles: str = key(".mrcs, .mrc, .star, .cs or .txt")
    poses: str | None = key(".pkl, .npz, .star or .cs")
    ctf: str | None = key(".pkl, .npz, .star or .cs; null: no CTF")
    labels: str | None = key(".npz with known state and hinge_rad")
    ind: str | None = key("indices of the particles to take")
    datadir: str | None = key("folder of the stacks that a .star or .cs names")
    invert: bool = key("multiply the images by -1, as cryoDRGN does by default")
    window: bool = key("window the images in real space")
    window_r: float = key("radius of the window, fraction of half the box", above=0)
    n_particles: int | None = key("only the first so many", at_least=1)
    pixel_size_angstrom: float | None = key("where no file says it", above=0)


@dataclass
class EncoderInput:
    """conf/encoder_input: see lightning_modules.encoder_inputs."""

    _target_: str = MISSING


@dataclass
class ShiftedEncoderInput(EncoderInput):
    """conf/encoder_input/shifted.yaml."""

    dx_px: int = key("roll to the right")
    dy_px: int = key("roll downwards")


@dataclass
class RotatedEncoderInput(EncoderInput):
    """conf/encoder_input/rotated.yaml."""

    clockwise_deg: int = key("a multiple of 90")


@dataclass
class Network:
    """conf/encoder: a residual MLP."""

    layers: int = key("hidden layers", at_least=1)
    width: int = key("units of a hidden layer", at_least=1)
    activation: str = key("between layers", one_of=ACTIVATIONS)


@dataclass
class Decoder(Network):
    """conf/decoder: see lightning_modules.decoder.SliceDecoder."""

    _target_: str = MISSING
    pe_type: str = key("positional encoding", one_of=PE_TYPES)
    pe_dim: int | None = key("its number of frequencies; null: D/2", at_least=2)
    domain: str = key("what V(z) is a function of", one_of=("fourier", "hartley"))
    feat_sigma: float = key("scale of the gaussian encoding", above=0)


@dataclass
class EncoderLatents:
    """conf/latents/encoder.yaml: see lightning_modules.latents.AmortizedEncoder."""

    _target_: str = MISSING
    _partial_: bool = True
    layers: int = key("hidden layers", at_least=1)
    width: int = key("units of a hidden layer", at_least=1)
    activation: str = key("between layers", one_of=ACTIVATIONS)


@dataclass
class TableLatents:
    """conf/latents/lookup_table.yaml: see lightning_modules.latents.LookupTable."""

    _target_: str = MISSING
    _partial_: bool = True
    init: Any = MISSING
    frozen: bool = key("the rows stay as they start")


@dataclass
class RandomInit:
    """conf/latents/init/random.yaml."""

    _target_: str = MISSING
    mu_mean: float = key("of mu")
    mu_std: float = key("of mu", at_least=0)
    logvar_mean: float = key("of logvar")
    logvar_std: float = key("of logvar", at_least=0)


@dataclass
class ConstantInit:
    """conf/latents/init/zero.yaml."""

    _target_: str = MISSING
    mu: float = key("every mu")
    logvar: float = key("every logvar")


@dataclass
class ClustersInit:
    """conf/latents/init/random_clusters.yaml."""

    _target_: str = MISSING
    n_clusters: int = key("number of means", at_least=1)
    mu_std: float = key("spread of the means", at_least=0)
    logvar_mean: float = key("of logvar")
    logvar_std: float = key("of logvar", at_least=0)


@dataclass
class SourceInit:
    """conf/latents/init/pretrained.yaml, permuted.yaml."""

    _target_: str = MISSING
    source: str = key("an experiment, or the folder of a finished run")


@dataclass
class Trainer:
    """conf/trainer: how long, and on what."""

    max_epochs: int = key("passes over the particles", at_least=1)
    accelerator: str = key("auto, cpu, gpu: Lightning's")
    devices: Any = key("Lightning's: auto, a number, a list")
    strategy: str = key("Lightning's")
    enable_progress_bar: bool = key("show progress")
    checkpoint_every_s: float = key("seconds between checkpoints within an epoch's ends", at_least=0)


@dataclass
class Task:
    """conf/task: what a run does."""

    _target_: str = MISSING


@dataclass
class AmortizationTask(Task):
    """conf/task/amortization.yaml: a finished run's encoder on altered images."""

    source: str = key("an experiment, or the folder of a finished run")


@dataclass
class WandbLogger:
    """conf/logger/wandb.yaml."""

    _target_: str = MISSING
    _partial_: bool = True
    project: str = key("W&B project")
    entity: str | None = key("W&B team or user")
    group: str | None = key("runs of one sweep share a group")
    mode: str = key("online needs a key", one_of=("offline", "online", "disabled"))
    tags: list[str] = key("W&B tags")


@dataclass
class Paths:
    """Where things are written."""

    runs: str = key("folder of all runs")
    cache: str = key("folder of simulated and preprocessed data")


@dataclass
class Config:
    """conf/config.yaml."""

    name: str = key("name of the experiment")
    seed: int = key("of weights, order, noise in z, twins", at_least=0)
    batch_size: int = key("particles per step", at_least=1)
    lr: float = key("Adam's learning rate", above=0)
    table_lr: float = key("SparseAdam's learning rate for the lookup table", above=0)
    zdim: int = key("size of z", at_least=1)
    precision: Precision = key("float32, bfloat16, or auto: what the hardware does well")
    weight_decay: float = key("Adam's", at_least=0)
    beta: Any = key("weight of the KL; null: 1/zdim; or cryoDRGN's schedules a, b, c, d")
    beta_control: float | None = key("strength of KL control", above=0)
    overwrite: bool = key("start over, even if the run is finished")
    data: Any = MISSING
    task: Any = MISSING
    encoder_input: Any = MISSING
    latents: Any = MISSING
    encoder: Any = MISSING
    decoder: Any = MISSING
    trainer: Trainer = MISSING
    logger: Any = MISSING
    paths: Paths = MISSING


SCHEMAS: dict[str, type] = {
    "config": Config,
    "data_simulated": SimulatedData,
    "data_cryodrgn": CryodrgnData,
    "encoder_input": EncoderInput,
    "encoder_input_shifted": ShiftedEncoderInput,
    "encoder_input_rotated": RotatedEncoderInput,
    "network": Network,
    "decoder": Decoder,
    "latents_encoder": EncoderLatents,
    "latents_table": TableLatents,
    "init_random": RandomInit,
    "init_constant": ConstantInit,
    "init_clusters": ClustersInit,
    "init_source": SourceInit,
    "trainer": Trainer,
    "task": Task,
    "task_amortization": AmortizationTask,
    "wandb": WandbLogger,
    "paths": Paths,
}


def register() -> None:
    """Make the schemas known to Hydra, as the group ``schema``."""
    store = ConfigStore.instance()
    for name, node in SCHEMAS.items():
        store.store(group="schema", name=name, node=node)


assert all(is_dataclass(node) and fields(node) for node in SCHEMAS.values())
