"""Names of the classes that configurations build: what a class was called earlier, and what its run is hashed by.

A stored configuration keeps the dotted name that a class had when the run was made. One table says where such a class
is now, so that moving a class loses no run.
"""

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_modules.errors import InputError

OWN_PACKAGES = ("experiments", "lightning_modules")

# Where classes were, up to version 0.1.0, and where they are now.
MOVED: dict[str, str] = {
    "experiments.amortization.AmortizationTest": "experiments.tasks.amortization.AmortizationTest",
    "experiments.digit_results.DigitResults": "experiments.tasks.digit_results.DigitResults",
    "experiments.heldout.HeldOut": "experiments.tasks.heldout.HeldOut",
    "experiments.infer.Infer": "experiments.tasks.infer.Infer",
    "experiments.inference.PosteriorSearch": "lightning_modules.vae.posterior_search.PosteriorSearch",
    "experiments.loggers.no_logger": "experiments.tracking.loggers.no_logger",
    "experiments.loggers.wandb_logger": "experiments.tracking.loggers.wandb_logger",
    "experiments.particle_results.ParticleResults": "experiments.tasks.particle_results.ParticleResults",
    "experiments.training.Train": "experiments.tasks.train.Train",
    "lightning_modules.altered_inputs.ConsistentMetadata": "lightning_modules.encoder_inputs.altered.ConsistentMetadata",  # noqa: E501
    "lightning_modules.altered_inputs.Fill": "lightning_modules.encoder_inputs.altered.Fill",
    "lightning_modules.altered_inputs.PaperMetadata": "lightning_modules.encoder_inputs.altered.PaperMetadata",
    "lightning_modules.altered_inputs.RotatedInput": "lightning_modules.encoder_inputs.altered.RotatedInput",
    "lightning_modules.altered_inputs.ShiftedInput": "lightning_modules.encoder_inputs.altered.ShiftedInput",
    "lightning_modules.altered_inputs.Wrap": "lightning_modules.encoder_inputs.altered.Wrap",
    "lightning_modules.augmented_input.AugmentedInput": "lightning_modules.encoder_inputs.augmented.AugmentedInput",
    "lightning_modules.cryo_vae.CryoVAE": "lightning_modules.vae.cryo_vae.CryoVAE",
    "lightning_modules.decoder.SliceDecoder": "lightning_modules.networks.slice_decoder.SliceDecoder",
    "lightning_modules.digit_vae.DigitVAE": "lightning_modules.vae.digit_vae.DigitVAE",
    "lightning_modules.digit_vae.MlpDecoder": "lightning_modules.vae.digit_vae.MlpDecoder",
    "lightning_modules.digit_vae.MlpEncoder": "lightning_modules.vae.digit_vae.MlpEncoder",
    "lightning_modules.digits.Mnist": "lightning_modules.particles.digits.Mnist",
    "lightning_modules.digits.SklearnDigits": "lightning_modules.particles.digits.SklearnDigits",
    "lightning_modules.empiar10076.Empiar10076Files": "lightning_modules.particles.sources.Empiar10076Files",
    "lightning_modules.encoder_inputs.IdentityInput": "lightning_modules.encoder_inputs.encoder_input.IdentityInput",
    "lightning_modules.encoder_inputs.NoiseTwin": "lightning_modules.encoder_inputs.twins.NoiseTwin",
    "lightning_modules.encoder_inputs.PermutedTwin": "lightning_modules.encoder_inputs.twins.PermutedTwin",
    "lightning_modules.latent_inits.ConstantLatents": "lightning_modules.latents.table_init.ConstantLatents",
    "lightning_modules.latent_inits.PermutedLatents": "lightning_modules.latents.table_init.PermutedLatents",
    "lightning_modules.latent_inits.PretrainedLatents": "lightning_modules.latents.table_init.PretrainedLatents",
    "lightning_modules.latent_inits.RandomClusters": "lightning_modules.latents.table_init.RandomClusters",
    "lightning_modules.latent_inits.RandomLatents": "lightning_modules.latents.table_init.RandomLatents",
    "lightning_modules.latents.AmortizedEncoder": "lightning_modules.latents.encoder.AmortizedEncoder",
    "lightning_modules.latents.LookupTable": "lightning_modules.latents.lookup_table.LookupTable",
    "lightning_modules.particle_files.ParticleFiles": "lightning_modules.particles.sources.ParticlesFromFiles",
    "lightning_modules.simulated.SimulatedParticles": "lightning_modules.simulation.particles.SimulatedParticles",
}
_EARLIER = {now: before for before, now in MOVED.items()}


def rename_targets(node: Any, rename: Callable[[str], str]) -> Any:
    """Return a copy of plain nested data in which every ``_target_`` is renamed."""
    if isinstance(node, dict):
        return {
            key: rename(value) if key == "_target_" and isinstance(value, str) else rename_targets(value, rename)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [rename_targets(value, rename) for value in node]
    return node


def foreign_code(part: Any) -> dict[str, str]:
    """Return the SHA-256 of the module of every class outside the suite that nested data name as a ``_target_``.

    Of the module's own file, not of what that imports.

    Raises:
        InputError: there is no such module.
    """
    found: dict[str, str] = {}

    def note(target: str) -> str:
        if target.partition(".")[0] not in OWN_PACKAGES:
            found[target] = hashlib.sha256(_module_file(target).read_bytes()).hexdigest()
        return target

    rename_targets(part, note)
    return found


def _module_file(target: str) -> Path:
    """Return the file of the module that a dotted name is in: the longest part of the name that is one."""
    parts = target.split(".")
    for n in range(len(parts) - 1, 0, -1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:n]))
        except (ImportError, ValueError):
            continue
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            return Path(spec.origin)
    raise InputError(
        f"_target_: {target}: no file of such a module was found, expected the dotted name of a class in a module on "
        "PYTHONPATH"
    )


def current_name(target: str) -> str:
    """Return the dotted name that a class has now."""
    return MOVED.get(target, target)


def earlier_name(target: str) -> str:
    """Return the dotted name by which version 0.1.0 hashed a class."""
    return _EARLIER.get(target, target)


def class_name(target: str) -> str:
    """Return a class's name without its module, which may change."""
    return target.rpartition(".")[2]
