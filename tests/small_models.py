"""Small models on small particle sets, and the cryoDRGN models that they must equal."""

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from cryodrgn.lattice import Lattice
from cryodrgn.models import HetOnlyVAE
from torch import Tensor

from lightning_modules.encoder_inputs.encoder_input import EncoderInput, IdentityInput
from lightning_modules.image_formation import ImageFormation
from lightning_modules.latents.encoder import AmortizedEncoder
from lightning_modules.latents.lookup_table import LookupTable
from lightning_modules.latents.posterior import Posterior
from lightning_modules.latents.table_init import LatentInit
from lightning_modules.networks.slice_decoder import SliceDecoder
from lightning_modules.optimization.minibatches import ParticleBlocks
from lightning_modules.particles.particles import Particles, load_particles
from lightning_modules.vae.beta_schedule import beta_schedule
from lightning_modules.vae.cryo_vae import CryoVAE
from tests.particle_sets import ctf, dump, images, particle_set, rotations, shifts, stack

ZDIM, LAYERS, WIDTH = 4, 2, 64


def particles_in(folder: Path, n: int = 12, box_px: int = 16, **changes: Any) -> Particles:
    """Make n particles with random poses, shifts and CTFs."""
    files = {
        "particles": stack(folder / "p.mrcs", images(n, box_px)),
        "poses": dump(folder / "poses.pkl", (rotations(n), shifts(n))),
        "ctf": dump(folder / "ctf.pkl", ctf(n, box_px)),
    }
    return load_particles(particle_set(folder, **(files | changes)))


class SpyLatents(Posterior):
    """Keeps what reaches the encoder; q(z) is the standard normal."""

    def __init__(self) -> None:
        super().__init__(ZDIM)

    def forward(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        self.seen = x
        return torch.zeros(len(x), ZDIM), torch.zeros(len(x), ZDIM)


def cryo_vae(
    particles: Particles,
    encoder_input: EncoderInput | None = None,
    latents: Posterior | None = None,
    init: LatentInit | None = None,
    frozen: bool = False,
    decoder: dict[str, Any] | None = None,
    beta: float | str | None = None,
    seed: int = 0,
    **options: Any,
) -> CryoVAE:
    """The paper's VAE with small networks; a lookup table where a start is given."""
    torch.manual_seed(seed)
    formation = ImageFormation(particles.box_px)
    sizes: dict[str, Any] = {"formation": formation, "n_particles": len(particles), "zdim": ZDIM, "seed": seed}
    if latents is None:
        table = init is not None
        latents = (
            LookupTable(**sizes, init=init, frozen=frozen)
            if table
            else AmortizedEncoder(**sizes, layers=LAYERS, width=WIDTH)
        )
    model = CryoVAE(
        particles,
        formation,
        encoder_input or IdentityInput(),
        latents,
        SliceDecoder(formation, ZDIM, layers=LAYERS, width=WIDTH, **(decoder or {})),
        beta=beta_schedule(beta, options.get("beta_control"), ZDIM),
        seed=seed,
        **options,
    )
    model.prepare()
    return model


def cryodrgn_vae(model: CryoVAE, pe_type: str = "geom_lowf", domain: str = "fourier") -> HetOnlyVAE:
    """Build cryoDRGN's model with the same weights."""
    lattice = Lattice(model.formation.box_px + 1, extent=0.5)
    mask = lattice.get_circular_mask(lattice.D // 2)
    theirs = HetOnlyVAE(
        lattice, LAYERS, WIDTH, LAYERS, WIDTH, int(mask.sum()), ZDIM,
        encode_mode="resid", enc_mask=mask, enc_type=pe_type, domain=domain, feat_sigma=0.5,
    )  # fmt: skip
    weights = {f"encoder.{key}": value for key, value in model.latents.encoder.state_dict().items()}
    weights |= {f"decoder.{key}": value for key, value in model.decoder.decoder.state_dict().items()}
    theirs.load_state_dict(weights)
    return theirs


def trainer(max_epochs: int = 2, accelerator: str = "cpu", **options: Any) -> pl.Trainer:
    """A quiet trainer, on the CPU unless another place is named."""
    return pl.Trainer(
        max_epochs=max_epochs,
        accelerator=accelerator,
        devices=1 if accelerator != "cpu" else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        **options,
    )


def train(
    model: CryoVAE, max_epochs: int = 2, batch_size: int = 4, batches_per_block: int = 64, **options: Any
) -> pl.Trainer:
    """Train a model on its particles; return the trainer."""
    fitted = trainer(max_epochs, **options)
    fitted.fit(model, datamodule=ParticleBlocks(len(model.particles), batch_size, model.seed, batches_per_block))
    return fitted


def weights(model: CryoVAE) -> dict[str, np.ndarray]:
    """A copy of everything that a checkpoint of the model holds."""
    return {key: value.detach().cpu().numpy().copy() for key, value in model.state_dict().items()}
