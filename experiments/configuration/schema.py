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


def key(
    help_text: str,
    at_least: float | None = None,
    above: float | None = None,
    one_of: tuple[str, ...] = (),
    is_name: bool = False,
) -> Any:
    """Describe a key: one line of help, and the values allowed; a name is part of a path, and shown as it is."""
    allowed = {"at_least": at_least, "above": above, "one_of": one_of, "is_name": is_name}
    return field(default=MISSING, metadata={"help": help_text, **allowed})


RESIDENCIES = ("memory", "disk")
ACTIVATIONS = ("relu", "leaky_relu")
PE_TYPES = ("geom_lowf", "geom_ft", "geom_full", "geom_nohighf", "linear_lowf", "gaussian", "none")


@dataclass
class SimulatedData:
    """conf/data/simulated.yaml: see lightning_modules.simulation.particles.SimulatedParticles."""

    _target_: str = MISSING
    name: str = key("part of the run's folder", is_name=True)
    residency: str = key("memory, or disk for what does not fit", one_of=RESIDENCIES)
    cache_images: bool = key("keep preprocessed images in paths.cache, and find them there the next time")
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
    """conf/data/cryodrgn.yaml: see lightning_modules.particles.sources.ParticlesFromFiles."""

    _target_: str = MISSING
    name: str = key("part of the run's folder", is_name=True)
    residency: str = key("memory, or disk for what does not fit", one_of=RESIDENCIES)
    cache_images: bool = key("keep preprocessed images in paths.cache, and find them there the next time")
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
class DigitsData:
    """conf/data/digits.yaml: see lightning_modules.particles.digits.SklearnDigits."""

    _target_: str = MISSING
    name: str = key("part of the run's folder", is_name=True)
    n_particles: int | None = key("only the first so many", at_least=1)


@dataclass
class MnistData(DigitsData):
    """conf/data/mnist.yaml: see lightning_modules.particles.digits.Mnist."""

    root: str = key("folder of MNIST's files, or of torchvision's; what is missing is downloaded there")
    split: str = key("the 10,000 images for tests, or the 60,000 for training", one_of=("test", "train"))


@dataclass
class EncoderInput:
    """conf/encoder_input: see lightning_modules.encoder_inputs.encoder_input."""

    _target_: str = MISSING


@dataclass
class ShiftedEncoderInput(EncoderInput):
    """conf/encoder_input/shifted.yaml."""

    dx_px: float = key("to the right; a fraction is shifted by its phase")
    dy_px: float = key("downwards")
    edge: Any = key("what fills the edge that a shift leaves empty: conf/encoder_input/edge")
    metadata: Any = key("which shift and CTF an altered image is given: conf/metadata")


@dataclass
class RotatedEncoderInput(EncoderInput):
    """conf/encoder_input/rotated.yaml."""

    clockwise_deg: int = key("a multiple of 90")
    metadata: Any = key("which shift and CTF an altered image is given: conf/metadata")


@dataclass
class AugmentedEncoderInput(EncoderInput):
    """conf/encoder_input/augmented.yaml: see lightning_modules.encoder_inputs.augmented.AugmentedInput."""

    max_shift_px: float = key("half-width of the shift off the centre, in x and in y", at_least=0)
    turns: bool = key("turn by multiples of 90 degrees")


@dataclass
class Edge:
    """conf/encoder_input/edge: what fills the edge that a shift leaves empty."""

    _target_: str = MISSING


@dataclass
class Metadata:
    """conf/metadata: which shift and CTF an altered image is given."""

    _target_: str = MISSING


@dataclass
class Network:
    """conf/encoder: a residual MLP."""

    layers: int = key("hidden layers", at_least=1)
    width: int = key("units of a hidden layer", at_least=1)
    activation: str = key("between layers", one_of=ACTIVATIONS)


@dataclass
class Decoder(Network):
    """conf/decoder: see lightning_modules.networks.slice_decoder.SliceDecoder."""

    _target_: str = MISSING
    pe_type: str = key("positional encoding", one_of=PE_TYPES)
    pe_dim: int | None = key("its number of frequencies; null: D/2", at_least=2)
    domain: str = key("what V(z) is a function of", one_of=("fourier", "hartley"))
    feat_sigma: float = key("scale of the gaussian encoding", above=0)


@dataclass
class MlpDecoder(Network):
    """conf/decoder/mlp.yaml: see lightning_modules.vae.digit_vae.MlpDecoder."""

    _target_: str = MISSING


@dataclass
class Model:
    """conf/model: the Lightning module."""

    _target_: str = MISSING
    _partial_: bool = True


@dataclass
class Results:
    """conf/results: what is made of a trained model, beside its latents."""

    _target_: str = MISSING


@dataclass
class EncoderLatents:
    """conf/latents/encoder.yaml: see lightning_modules.latents.encoder.AmortizedEncoder."""

    _target_: str = MISSING
    _partial_: bool = True
    layers: int = key("hidden layers", at_least=1)
    width: int = key("units of a hidden layer", at_least=1)
    activation: str = key("between layers", one_of=ACTIVATIONS)


@dataclass
class MatchedFilterLatents(EncoderLatents):
    """conf/latents/matched_filter.yaml: see lightning_modules.latents.matched_filter.MatchedFilter."""

    n_templates: int = key("volumes that images are compared with", at_least=1)
    grid: int = key("points along each axis of a template, odd", at_least=3)
    radius: int = key("highest frequency that is compared, in periods per box", at_least=1)


@dataclass
class TableLatents:
    """conf/latents/lookup_table.yaml: see lightning_modules.latents.lookup_table.LookupTable."""

    _target_: str = MISSING
    _partial_: bool = True
    init: Any = key("the table's start: conf/latents/init")
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
    accelerator: str = key("auto: an NVIDIA GPU where there is one, else the processor; cpu, gpu, mps: Lightning's")
    devices: Any = key("Lightning's: auto, a number, a list; several share every minibatch")
    enable_progress_bar: bool = key("show progress")
    checkpoint_every_s: float = key("seconds between checkpoints: what a killed run loses at most", at_least=0)
    capture: bool = key("play a step back as one CUDA graph; on one NVIDIA GPU")
    native: bool = key("on a processor, networks by C++ that is compiled once, where that can be had")


@dataclass
class Task:
    """conf/task: what a run does."""

    _target_: str = MISSING


@dataclass
class AmortizationTask(Task):
    """conf/task/amortization.yaml: a finished run's encoder on altered images."""

    source: str = key("an experiment, or the folder of a finished run")
    n_volumes: int = key("particles whose volumes are compared, before and after", at_least=0)


@dataclass
class HeldOutTask(Task):
    """conf/task/heldout.yaml: train on a part of the particles, measure on the others."""

    heldout_fraction: float = key("of the particles, not trained on; below 1", above=0)
    n_samples: int = key("samples of z for each particle and each ELBO", at_least=1)
    n_train_optimized: int = key("training particles whose q is optimized too", at_least=1)
    search: Any = key("how q is searched for: conf/task/search")


@dataclass
class InferTask(Task):
    """conf/task/infer.yaml: latents of new particles under a finished run's decoder."""

    source: str = key("the folder of a finished run, or an experiment")
    n_samples: int = key("samples of z for each particle and its ELBO", at_least=1)
    search: Any = key("how q is searched for: conf/task/search")


@dataclass
class AuditTask(Task):
    """conf/task/audit.yaml: measure the encoder of a run of cryoDRGN."""

    n_encoded: int = key("training particles that are encoded, at most all", at_least=2)
    n_particles: int | None = key("of them, whose losses are taken; null: about two minutes' worth", at_least=2)
    n_samples: int = key("samples of z for each particle and each loss", at_least=1)
    search: Any = key("how q is searched for: conf/task/search")


@dataclass
class Audit:
    """conf/exp/audit.yaml: which run of cryoDRGN is audited; see experiments.audit."""

    run: str = key("output folder of `cryodrgn train_vae`")
    epoch: int | None = key("N of weights.N.pkl; null: the last", at_least=0)
    particles: str | None = key("instead of those that the run's configuration names")
    poses: str | None = key("likewise")
    ctf: str | None = key("likewise")
    ind: str | None = key("likewise")
    datadir: str | None = key("likewise: folder of the stacks that a .star or .cs names")
    beta: float | None = key("weight of the KL; null: the run's own", at_least=0)
    n_encoded: int = key("training particles that are encoded, at most all", at_least=2)
    n_particles: int | None = key("of them, whose losses are taken; null: about two minutes' worth", at_least=2)


@dataclass
class AuditedData:
    """conf/data/audited.yaml: see experiments.audit.particles.AuditedData; all is said in audit."""

    _target_: str = MISSING
    name: str = key("part of the run's folder", is_name=True)
    run: str = key("see audit.run")
    epoch: int | None = key("see audit.epoch", at_least=0)
    particles: str | None = key("see audit.particles")
    poses: str | None = key("see audit.poses")
    ctf: str | None = key("see audit.ctf")
    ind: str | None = key("see audit.ind")
    datadir: str | None = key("see audit.datadir")


@dataclass
class Search:
    """conf/task/search: see lightning_modules.vae.posterior_search.PosteriorSearch."""

    _target_: str = MISSING
    steps: int = key("of Adam, for each particle", at_least=1)
    lr: float = key("Adam's learning rate at the start; it falls to zero", above=0)
    n_starts: int = key("mu = 0, and further ones from the prior; the best counts", at_least=1)


@dataclass
class GaussNewtonSearch:
    """conf/task/search/gauss_newton.yaml: see lightning_modules.vae.gauss_newton.GaussNewtonSearch."""

    _target_: str = MISSING
    steps: int = key("from each start; each costs 1 + zdim passes through the decoder", at_least=1)
    n_starts: int = key("mu = 0, and further ones from the prior; the best counts", at_least=1)
    from_encoder: bool = key("one more start: the encoder's z")


@dataclass
class EncoderSearch:
    """conf/task/search/encoder.yaml: see lightning_modules.vae.encoder_posterior.EncoderPosterior."""

    _target_: str = MISSING


@dataclass
class WandbLogger:
    """conf/logger/wandb.yaml."""

    _target_: str = MISSING
    _partial_: bool = True
    project: str = key("W&B project", is_name=True)
    entity: str | None = key("W&B team or user")
    group: str | None = key("runs of one sweep share a group", is_name=True)
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

    name: str = key("name of the experiment", is_name=True)
    seed: int = key("of weights, order, noise in z, twins", at_least=0)
    batch_size: int = key("particles per step", at_least=1)
    lr: float = key("Adam's learning rate", above=0)
    table_lr: float = key("SparseAdam's learning rate for the lookup table", above=0)
    zdim: int = key("size of z", at_least=1)
    precision: Precision = key("of the decoder's products: float32, bfloat16, or auto: what the hardware does well")
    weight_decay: float = key("Adam's", at_least=0)
    beta: Any = key("weight of the KL; null: 1/zdim; or cryoDRGN's schedules a, b, c, d")
    beta_control: float | None = key("strength of KL control", above=0)
    overwrite: bool = key("start over, even if the run is finished")
    data: Any = key("the particles: conf/data")
    task: Any = key("what the run does: conf/task")
    audit: Any = key("of +exp=audit: the run of cryoDRGN that is audited")
    encoder_input: Any = key("what the encoder sees: conf/encoder_input")
    metadata: Any = key("which shift and CTF an altered image is given: conf/metadata")
    latents: Any = key("what gives q(z): an encoder or a lookup table: conf/latents")
    encoder: Any = key("the encoder's size: conf/encoder")
    decoder: Any = key("turns z into images: conf/decoder")
    model: Any = key("the Lightning module: conf/model")
    results: Any = key("what is made of a trained model: conf/results")
    trainer: Trainer = key("how long, and on what: conf/trainer")
    logger: Any = key("where numbers are logged, beside log.csv: conf/logger")
    paths: Paths = key("where things are written")


def names_of(schema: type) -> list[str]:
    """Return the keys of a node that a user sets."""
    return [f.name for f in fields(schema) if not f.name.startswith("_")]


SCHEMAS: dict[str, type] = {
    "config": Config,
    "data_simulated": SimulatedData,
    "data_cryodrgn": CryodrgnData,
    "data_audited": AuditedData,
    "data_digits": DigitsData,
    "data_mnist": MnistData,
    "encoder_input": EncoderInput,
    "encoder_input_shifted": ShiftedEncoderInput,
    "encoder_input_rotated": RotatedEncoderInput,
    "encoder_input_augmented": AugmentedEncoderInput,
    "edge": Edge,
    "metadata": Metadata,
    "network": Network,
    "decoder": Decoder,
    "decoder_mlp": MlpDecoder,
    "model": Model,
    "results": Results,
    "latents_encoder": EncoderLatents,
    "latents_matched_filter": MatchedFilterLatents,
    "latents_table": TableLatents,
    "init_random": RandomInit,
    "init_constant": ConstantInit,
    "init_clusters": ClustersInit,
    "init_source": SourceInit,
    "trainer": Trainer,
    "task": Task,
    "task_amortization": AmortizationTask,
    "task_heldout": HeldOutTask,
    "task_infer": InferTask,
    "task_audit": AuditTask,
    "audit": Audit,
    "search": Search,
    "search_encoder": EncoderSearch,
    "search_gauss_newton": GaussNewtonSearch,
    "wandb": WandbLogger,
    "paths": Paths,
}


def _itself(store: ConfigStore, memo: dict[int, Any]) -> ConfigStore:
    return store


def register() -> None:
    """Make the schemas known to Hydra, as the group ``schema``."""
    # Hydra copies its store with every node for each group that `--help` lists, a second in all, and for each
    # composition. What is handed out of the store is a copy anyway.
    ConfigStore.__deepcopy__ = _itself  # type: ignore[attr-defined]
    store = ConfigStore.instance()
    for name, node in SCHEMAS.items():
        store.store(group="schema", name=name, node=node)


assert all(is_dataclass(node) and fields(node) for node in SCHEMAS.values())
