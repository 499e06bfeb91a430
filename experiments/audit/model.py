"""The networks of a run of cryoDRGN as parts of this suite: the same values, read without running what is in them."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.audit.settings import Settings
from experiments.runs.stored_results import read_tensors
from lightning_modules.encoder_inputs.encoder_input import IdentityInput, fetch
from lightning_modules.errors import InputError
from lightning_modules.files.cryodrgn_folder import Folder
from lightning_modules.files.safe_pickle import load_each
from lightning_modules.image_formation import ImageFormation
from lightning_modules.latents.encoder import AmortizedEncoder
from lightning_modules.latents.posterior import Posterior
from lightning_modules.latents.table_init import Latents
from lightning_modules.networks.residual_mlp import ACTIVATIONS
from lightning_modules.networks.slice_decoder import SliceDecoder
from lightning_modules.optimization.step_inputs import ParticleBatch
from lightning_modules.particles.particles import Particles
from lightning_modules.vae.beta_schedule import beta_schedule
from lightning_modules.vae.cryo_vae import CryoVAE

CHUNK = 256
LONG_AFTER = 1 << 40  # particles seen: a schedule of beta has come to its end


class ForeignEncoder(AmortizedEncoder):
    """An encoder of ``cryodrgn.models.HetOnlyVAE``, which sees a part of the pixels.

    Attributes:
        encoder: ``ResidLinearMLP`` or ``MLP`` of cryoDRGN.
    """

    keep: Tensor

    def __init__(self, network: nn.Module, keep: Tensor, zdim: int) -> None:
        """Set the network, the (n,) pixels that it sees of M, and the size of z."""
        Posterior.__init__(self, zdim)
        self.encoder = network
        self.register_buffer("keep", keep, persistent=False)

    def forward(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (B, M): mu and logvar, each (B, zdim) float32."""
        return super().forward(x[:, self.keep], index)


class AuditedVAE(CryoVAE):
    """A model of cryoDRGN, whose encoder may see more pixels than the loss compares.

    Attributes:
        compared: (M,) pixels of what the encoder may see in which images are compared; None: all.
        encoded_shifts_px: (N, 2) shifts with which the encoder sees the particles; None: those of their poses.
    """

    compared: Tensor | None = None
    encoded_shifts_px: Tensor | None = None

    def observe(self, index: Tensor) -> ParticleBatch:
        """Observe particles (B,); the loss leaves the corners of the lattice out, even if the encoder sees them."""
        seen = super().observe(index)
        if self.encoded_shifts_px is not None:
            seen = seen._replace(x=self._encoded(index, self.encoded_shifts_px, seen))
        if self.compared is None:
            return seen
        pixels = self.compared.to(seen.y.device)
        ctf = None if seen.ctf is None else seen.ctf[:, pixels]
        return seen._replace(y=seen.y[:, pixels], ctf=ctf)

    def _encoded(self, index: Tensor, shifts_px: Tensor, seen: ParticleBatch) -> Tensor:
        """Return what the encoder sees of particles (B,) that are centred by other shifts than the loss centres by."""
        assert seen.rotations is not None
        rows = index.to(seen.y.device)
        images = fetch(self.particles.images, rows, seen.y)
        return self.encoded(images, fetch(shifts_px, rows, seen.y), seen.ctf, seen.rotations, rows)


def model_of(
    folder: Folder, settings: Settings, particles: Particles, beta: Any, bfloat16: bool, seed: int
) -> AuditedVAE:
    """Build a run's model on some of its particles, with its weights.

    Args:
        folder: of the run.
        settings: its configuration.
        particles: of its box.
        beta: weight of the KL; None: as the run's configuration says.
        bfloat16: the decoder's matrix products are in it.
        seed: of all noise.

    Raises:
        InputError: the weights hold something else than tensors, or those of another model.
    """
    model_args, state = settings.model, read_state(folder.weights)
    _refuse_false_sizes(settings, folder.weights)
    masked = model_args["enc_mask"] != -1
    compared = None if masked else ImageFormation(settings.box_px).mask.nonzero()[:, 0]
    if not masked:
        particles = widened(particles)
    beta = settings.beta if beta is None else beta
    schedule = beta_schedule(beta, settings.beta_control, model_args["zdim"])
    weight = float(schedule(LONG_AFTER))
    model = AuditedVAE(
        particles,
        particles.formation(),
        IdentityInput(),
        _encoder(settings),
        _decoder(settings),
        beta=lambda _: weight,
        beta_control=settings.beta_control,
        bfloat16=bfloat16,
        seed=seed,
    )
    model.compared = compared
    try:
        for part in (model.latents, model.decoder):
            own = part.state_dict()
            part.load_state_dict({name: state.pop(name) for name in own if name in state})
        if state:
            raise ValueError(f"it also has {next(iter(state))}")
    except Exception as error:
        raise _no_weights(folder.weights, error, f"those of {settings.said_by}") from None
    return model


def _encoder(settings: Settings) -> ForeignEncoder:
    from cryodrgn.lattice import Lattice
    from cryodrgn.models import MLP, ResidLinearMLP

    model = settings.model
    lattice = Lattice(settings.box_px + 1, extent=0.5)
    seen = torch.arange(lattice.D**2)
    if model["enc_mask"] != -1:
        outer = lattice.get_circular_mask(lattice.D // 2)
        seen = lattice.get_circular_mask(model["enc_mask"])[outer].nonzero()[:, 0]
    kind = MLP if model["encode_mode"] == "mlp" else ResidLinearMLP
    activation = ACTIVATIONS[model["activation"]]
    network = kind(len(seen), model["qlayers"], model["qdim"], 2 * model["zdim"], activation)
    return ForeignEncoder(network, seen, model["zdim"])


def _decoder(settings: Settings) -> SliceDecoder:
    model = settings.model
    return SliceDecoder(
        ImageFormation(settings.box_px),
        model["zdim"],
        model["players"],
        model["pdim"],
        **{name: model[name] for name in ("pe_type", "pe_dim", "domain", "activation")},
    )


def widened(particles: Particles) -> Particles:
    """Return particles whose images are the whole lattice, for encoders without a mask (``--enc-mask -1``)."""
    wide = dataclasses.replace(particles, masked=False)
    images = torch.empty(len(particles), wide.formation().n_pixels)
    for start in range(0, len(particles), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(particles)))
        images[start : start + CHUNK] = wide.preprocess(wide.raw(rows))
    return dataclasses.replace(wide, images=images)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint of cryoDRGN, and run nothing that is in it.

    Raises:
        InputError: it names something to run, is damaged, or has weights that are no numbers.
    """
    try:
        state = read_tensors(path, "model_state_dict")
        if wrong := [name for name, value in state.items() if not value.isfinite().all()]:
            raise ValueError(f"NaN or infinite numbers in {wrong[0]}")
    except Exception as error:
        raise _no_weights(path, error, "a checkpoint of `cryodrgn train_vae`") from None
    # Of several GPUs, old versions kept the wrapper's name.
    return {re.sub(r"(^|\.)(module|dp)\.", r"\1", name): value.float() for name, value in state.items()}


def _no_weights(path: Path, error: Exception, expected: str) -> InputError:
    text = " ".join(str(error).split())
    if named := re.search(r"GLOBAL ([\w.]+)", text):
        text = f"it would run {named[1]}, which was not done"
    return InputError(f"{path}: the weights cannot be read ({text[:200]}), expected {expected}; copy them again")


def _refuse_false_sizes(settings: Settings, weights: Path) -> None:
    """Refuse networks that are much larger than the file of their weights, before they are made."""
    model, size = settings.model, weights.stat().st_size
    for layers, width in (("qlayers", "qdim"), ("players", "pdim")):
        if 4 * model[layers] * model[width] ** 2 > size:
            raise InputError(
                f"{settings.said_by}: {layers}={model[layers]}, {width}={model[width]}: {weights.name} is too "
                "small for such a network; use the configuration that belongs to these weights"
            )


def stored_latents(folder: Folder, n: int, zdim: int, positions: np.ndarray) -> Latents:
    """Read some rows of z.pkl.

    Args:
        folder: of the run.
        n: particles that the run was trained on.
        zdim: size of z.
        positions: (m,) rows.

    Returns:
        mu and logvar, each (m, zdim).

    Raises:
        InputError: not the latents of so many particles.
    """
    parts = []
    for part in load_each(folder.z, 2):
        if not isinstance(part, np.ndarray) or part.dtype.kind != "f" or part.shape != (n, zdim):
            found = part.shape if isinstance(part, np.ndarray) else type(part).__name__
            raise InputError(
                f"{folder.z}: {found} was found, expected ({n}, {zdim}), a row for each particle; if these are not the "
                "particles of the run, say which with audit.particles=PATH or audit.ind=PATH"
            )
        parts.append(torch.from_numpy(np.ascontiguousarray(part[positions], dtype=np.float32)))
    return Latents(*parts)
